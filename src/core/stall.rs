//! A wait that ends when there is no progress for a time. While there is progress, it has no limit.

use std::time::Duration;

/// The wait is over when this many checks in a row find no progress.
const CHECKS: u32 = 4;

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
        (bound / CHECKS).max(Duration::from_millis(1))
    }

    /// Makes one check. The caller calls this once for each [`interval`](Self::interval). Returns whether there was no
    /// progress for the whole limit.
    pub fn check(&mut self, moved: u64) -> bool {
        if moved == self.moved {
            self.quiet += 1;
        } else {
            *self = Self::new(moved);
        }
        self.quiet >= CHECKS
    }
}

/// Detects whether bytes that our system holds still move to the peer. No event reports that, so it is checked now and
/// then.
#[derive(Debug, Clone, Copy, Default)]
pub struct Leaving {
    last: Option<Held>,
}

/// The two counts at the time of the last check.
#[derive(Debug, Clone, Copy)]
struct Held {
    left: u64,
    taken: u64,
}

impl Leaving {
    /// Makes a check while our system holds `left` bytes and the peer has taken `taken` bytes so far. Returns whether
    /// the peer may have taken some of them since the last check. The last of them count too: then nothing is left now,
    /// but something was at the last check.
    pub fn check(&mut self, left: u64, taken: u64) -> bool {
        match self.last.replace(Held { left, taken }) {
            None => left > 0,
            Some(last) => last.taken != taken && (last.left > 0 || left > 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// rule: idle-2
    #[test]
    fn bytes_that_leave_the_system_are_a_movement() {
        let mut leaving = Leaving::default();
        assert!(!leaving.check(0, 100));
        assert!(!leaving.check(500, 100));
        assert!(leaving.check(400, 200));
        assert!(!leaving.check(400, 200));
        // More was written, and nothing was taken.
        assert!(!leaving.check(900, 200));
        assert!(leaving.check(100, 1000));
        // The last bytes have left.
        assert!(leaving.check(0, 1100));
        // These bytes were written and taken between two checks. The write itself counted as traffic.
        assert!(!leaving.check(0, 1200));
        // The first check has no earlier value to compare with.
        assert!(Leaving::default().check(1, 0));
    }

    /// rule: close-3
    #[test]
    fn a_wait_is_over_only_after_a_whole_bound_without_progress() {
        let mut stall = Stall::new(7);
        assert!(![7, 7, 7, 8, 8, 8, 8].into_iter().any(|moved| stall.check(moved)));
        assert!(stall.check(8));
        assert_eq!(Stall::interval(Duration::from_secs(10)) * CHECKS, Duration::from_secs(10));
        assert!(Stall::interval(Duration::ZERO) > Duration::ZERO);
    }
}
