//! A wait that ends when there is no progress for a time. While there is progress, it has no limit.

use std::time::Duration;

/// The wait is over when this many checks in a row find no progress.
const LOOKS: u32 = 4;

/// Checks, at intervals, a counter that grows with progress. Each wait has its own `Stall`.
#[derive(Debug, Clone, Copy)]
pub struct Stall {
    moved: u64,
    quiet: u32,
}

impl Stall {
    /// Starts a wait with this value of the counter.
    pub fn new(moved: u64) -> Self {
        Self { moved, quiet: 0 }
    }

    /// The time between two checks, if `bound` is the limit on the time without progress.
    pub fn interval(bound: Duration) -> Duration {
        (bound / LOOKS).max(Duration::from_millis(1))
    }

    /// Makes one check, one interval after the previous one. Returns whether there was no progress for the whole
    /// limit.
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
