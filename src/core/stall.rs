//! A wait that is bounded by progress: it may take as long as it likes while something moves.

use std::time::Duration;

/// How many looks in a row find that nothing has moved before the wait is over.
const LOOKS: u32 = 4;

/// Looks now and then at a counter that grows with progress. Each wait has its own.
#[derive(Debug, Clone, Copy)]
pub struct Stall {
    moved: u64,
    quiet: u32,
}

impl Stall {
    /// A wait that begins now, at this count.
    pub fn new(moved: u64) -> Self {
        Self { moved, quiet: 0 }
    }

    /// The time from one look to the next, for a bound on how long nothing may move.
    pub fn interval(bound: Duration) -> Duration {
        (bound / LOOKS).max(Duration::from_millis(1))
    }

    /// A look, one interval after the last one. Says whether nothing has moved for the whole bound.
    pub fn look(&mut self, moved: u64) -> bool {
        if moved == self.moved {
            self.quiet += 1;
        } else {
            *self = Self::new(moved);
        }
        self.quiet >= LOOKS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// rule: close-3
    #[test]
    fn a_wait_is_over_only_after_a_whole_bound_without_progress() {
        let mut stall = Stall::new(7);
        assert!(![7, 7, 7, 8, 8, 8, 8].into_iter().any(|moved| stall.look(moved)));
        assert!(stall.look(8));
        assert_eq!(Stall::interval(Duration::from_secs(10)) * LOOKS, Duration::from_secs(10));
        assert!(Stall::interval(Duration::ZERO) > Duration::ZERO);
    }
}
