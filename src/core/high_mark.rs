//! Decides how much of one large write a session accepts at once.
//!
//! The high mark limits the bytes that wait to leave. Bytes that leave at once do not wait. So if the layer has space
//! for all of a large write, more than the high mark is accepted, and the write leaves in fewer and larger sends. If
//! the layer is nearly full, no more than the high mark is accepted, because the bytes that the layer does not accept
//! would stay in memory.

use crate::policy::Watermarks;

/// The largest amount of plaintext that is accepted at once: eight full records.
const MOST: usize = 128 << 10;
/// After the layer has accepted less than it had reported space for, this many bytes must leave before the next
/// burst.
const TRUST: usize = 1 << 20;

/// Decides whether a write may exceed the high mark. It may not if the application has chosen the marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Burst {
    /// A write of at most this size is never a burst.
    high: usize,
    /// The number of bytes that must leave before the next burst.
    wait: usize,
    /// Whether the gathered bytes may exceed the high mark; `None` until the layer was asked.
    may_gather: Option<bool>,
}

impl Burst {
    pub(super) fn new(marks: Watermarks) -> Self {
        Self { high: if marks.are_chosen() { usize::MAX } else { marks.high }, wait: 0, may_gather: None }
    }

    /// How much of a write of `wanted` bytes to accept, if that is more than the high mark. The layer must have space
    /// for it.
    #[inline]
    pub(super) fn of(&self, wanted: usize) -> Option<usize> {
        (wanted > self.high && self.wait == 0).then(|| wanted.min(MOST))
    }

    /// Called when small writes start to be gathered.
    #[inline]
    pub(super) fn begin_gathering(&mut self) {
        self.may_gather = None;
    }

    /// The number of bytes that may be gathered in total after the high mark is reached. The layer is asked only once
    /// whether it has space for them.
    pub(super) fn gathers(&mut self, has_space: impl FnOnce(usize) -> bool) -> usize {
        let may_burst = self.of(MOST).is_some();
        if *self.may_gather.get_or_insert_with(|| may_burst && has_space(MOST)) { MOST } else { 0 }
    }

    /// Called when this many bytes were accepted into an empty queue. `all_left`: whether all of them have left.
    #[inline]
    pub(super) fn note(&mut self, accepted: usize, all_left: bool) {
        if !all_left && accepted > self.high {
            self.wait = TRUST;
        } else if self.wait > 0 && all_left {
            self.wait = self.wait.saturating_sub(accepted);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HIGH: usize = 64 << 10;

    /// rule: write-8
    #[test]
    fn only_a_write_above_the_high_mark_is_a_burst_and_it_is_bounded() {
        let burst = Burst::new(Watermarks::default());
        assert_eq!(
            [1, HIGH, HIGH + 1, MOST, MOST + 1].map(|size| burst.of(size)),
            [None, None, Some(HIGH + 1), Some(MOST), Some(MOST)]
        );
    }

    /// rule: write-8
    #[test]
    fn gathering_continues_above_the_high_mark_if_the_layer_has_space() {
        let mut burst = Burst::new(Watermarks::default());
        for space in [true, false] {
            burst.begin_gathering();
            let limit = if space { MOST } else { 0 };
            assert_eq!(burst.gathers(|_| space), limit);
            assert_eq!(burst.gathers(|_| panic!("asked again")), limit);
        }
        burst.note(MOST, false);
        burst.begin_gathering();
        assert_eq!(burst.gathers(|_| true), 0, "after a stall");
        assert_eq!(Burst::new(Watermarks::new(0, HIGH)).gathers(|_| true), 0, "chosen marks");
    }

    /// rule: write-8
    #[test]
    fn chosen_marks_are_never_exceeded() {
        let defaults = Watermarks::default();
        for marks in [Watermarks::new(defaults.low, defaults.high), Watermarks::new(0, 1)] {
            assert_eq!(Burst::new(marks).of(1 << 20), None, "{marks:?}");
        }
    }

    /// rule: write-8
    #[test]
    fn after_a_stall_there_is_no_burst_until_a_mebibyte_has_left() {
        let mut burst = Burst::new(Watermarks::default());
        burst.note(HIGH, false);
        assert!(burst.of(MOST).is_some(), "what stayed was no more than the high mark");
        burst.note(MOST, false);
        for _ in 0..TRUST / HIGH {
            assert_eq!(burst.of(MOST), None);
            burst.note(HIGH, false);
            burst.note(HIGH, true);
        }
        assert!(burst.of(MOST).is_some());
    }
}
