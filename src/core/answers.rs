//! Counts the unsent bytes of a protocol's answers to input, and decides whether they stop reading.

use std::collections::VecDeque;

/// Answers that are at most this many bytes apart share a range, together with the bytes between them, so that the
/// list of ranges stays small.
const GRAIN: u64 = 4 << 10;

/// Counts the answers in a queue that also holds other bytes. Reading stops when the unsent answers exceed the high
/// mark, and resumes at the low mark (rule: write-10). Other bytes are those that were written before any input, by a
/// producer, or by another task. They do not count; otherwise two peers that both send a lot before they read would
/// wait for each other forever.
#[derive(Debug, Default)]
pub struct Answers {
    low: u64,
    high: u64,
    /// The number of bytes of both kinds that were written so far.
    written: u64,
    /// The range with the oldest unsent answers.
    front: Run,
    /// The later ranges, with other bytes between them.
    later: VecDeque<Run>,
    /// The number of bytes of answers in `later`.
    behind: u64,
    /// Reading is stopped. Between the two marks, the count alone does not decide this.
    is_held: bool,
}

/// A range of bytes, and how many of them are answers.
#[derive(Debug, Default, Clone, Copy)]
struct Run {
    begin: u64,
    end: u64,
    answers: u64,
}

impl Run {
    /// Adds answers that were written at this position, if they are near enough to the range. Returns whether they
    /// were.
    fn extend(&mut self, place: u64, n: u64) -> bool {
        let is_near = self.end == place || place + n - self.begin <= GRAIN;
        if is_near && self.answers > 0 {
            self.end = place + n;
            self.answers += n;
        }
        is_near && self.answers > 0
    }
}

impl Answers {
    /// A counter that stops reading when more than `high` bytes of answers are unsent, until at most `low` are unsent.
    pub fn new(low: usize, high: usize) -> Self {
        Self { low: low.min(high) as u64, high: high as u64, ..Self::default() }
    }

    /// Whether reading is stopped.
    pub fn is_held(&self) -> bool {
        self.is_held
    }

    /// The number of unsent bytes of answers.
    pub fn unsent(&self) -> u64 {
        self.front.answers + self.behind
    }

    /// Turns the limit off: reading never stops.
    pub fn unbind(&mut self) {
        (self.low, self.high) = (u64::MAX, u64::MAX);
    }

    /// Called when bytes were written.
    pub fn wrote(&mut self, n: usize, is_answer: bool) {
        let (place, n) = (self.written, n as u64);
        self.written += n;
        if !is_answer || n == 0 {
            return;
        }
        let run = Run { begin: place, end: place + n, answers: n };
        if self.front.answers == 0 {
            self.front = run;
        } else if let Some(last) = self.later.back_mut() {
            if !last.extend(place, n) {
                self.later.push_back(run);
            }
            self.behind += n;
        } else if !self.front.extend(place, n) {
            self.later.push_back(run);
            self.behind += n;
        }
        self.judge();
    }

    /// Called when only the last `queued` bytes of everything that was written have not left.
    pub fn left(&mut self, queued: usize) {
        if self.front.answers == 0 {
            return;
        }
        let place = self.written.saturating_sub(queued as u64);
        while self.front.answers > 0 && self.front.end <= place {
            self.front = self.later.pop_front().unwrap_or_default();
            self.behind -= self.front.answers;
        }
        self.front.answers = self.front.answers.min(self.front.end.saturating_sub(place));
        self.judge();
    }

    /// Called when nothing can be sent any more: no answers count as unsent.
    pub fn lose(&mut self) {
        (self.front, self.behind, self.is_held) = (Run::default(), 0, false);
        self.later = VecDeque::new();
    }

    fn judge(&mut self) {
        let mark = if self.is_held { self.low } else { self.high };
        self.is_held = self.unsent() > mark;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// rule: write-10
    #[test]
    fn reading_is_held_above_the_high_mark_and_until_the_low_one() {
        let mut answers = Answers::new(10, 40);
        answers.wrote(40, true);
        assert!(!answers.is_held());
        answers.wrote(1, true);
        assert!(answers.is_held());
        answers.left(11);
        assert_eq!((answers.unsent(), answers.is_held()), (11, true));
        answers.left(10);
        assert_eq!((answers.unsent(), answers.is_held()), (10, false));
    }

    /// rule: write-10
    #[test]
    fn answers_share_a_range_of_at_most_the_grain() {
        for (between, ranges) in [(4 << 10, 2), ((4 << 10) - 20, 1), ((4 << 10) - 19, 2)] {
            let mut answers = Answers::new(10, 40);
            answers.wrote(10, true);
            answers.wrote(between, false);
            answers.wrote(10, true);
            assert_eq!(answers.later.len() + 1, ranges, "{between}");
            assert_eq!(answers.unsent(), 20);
        }
    }

    /// rule: write-10
    #[test]
    fn other_bytes_between_answers_do_not_stop_reading() {
        let mut answers = Answers::new(10, 40);
        answers.wrote(1_000_000, false);
        answers.wrote(30, true);
        answers.wrote(1_000_000, false);
        answers.wrote(10, true);
        assert_eq!((answers.unsent(), answers.is_held()), (40, false));
        // The first answers have left, and so has a part of the other bytes after them.
        answers.left(500_000);
        assert_eq!((answers.unsent(), answers.is_held()), (10, false));
        answers.left(0);
        assert_eq!(answers.unsent(), 0);
    }

    /// rule: write-10
    #[test]
    fn the_count_is_exact_to_a_grain_and_needs_little_memory() {
        let mut answers = Answers::new(0, usize::MAX);
        for round in 0..100_000 {
            answers.wrote(1, round % 2 == 0);
        }
        assert_eq!(answers.unsent(), 50_000);
        assert!(answers.later.len() <= 100_000 / GRAIN as usize + 1, "{} runs", answers.later.len());
        for queued in (0..100_000).rev().step_by(7) {
            answers.left(queued);
            let exact = queued as u64 / 2;
            assert!((exact..=exact + GRAIN).contains(&answers.unsent()), "{} of {queued}", answers.unsent());
        }
        assert!(answers.later.is_empty());
    }

    #[test]
    fn bytes_queued_before_and_framing_do_not_count_as_answers() {
        let mut answers = Answers::new(10, 40);
        answers.wrote(41, true);
        // Before these answers, the layer had 500 bytes in its queue that are not answers.
        answers.left(541);
        assert_eq!((answers.unsent(), answers.is_held()), (41, true));
        answers.lose();
        assert_eq!((answers.unsent(), answers.is_held()), (0, false));
    }
}
