//! The bytes that were read from the layer and not opened yet.

use std::ops::{Deref, DerefMut};

use super::buffer::Buffer;

/// The size of the memory while the layer has few bytes: enough for a full record.
const LITTLE: usize = 17 << 10;
/// The size of the memory for bulk data: eight full records, and the start of another one.
const MUCH: usize = 148 << 10;
/// The smallest space for a read.
const LEAST: usize = 4 << 10;
/// The largest memory for the bytes of an unauthenticated peer: the longest handshake message, and the record that
/// ends it.
const UNKNOWN_PEER: usize = 96 << 10;

/// A queue that chooses the size of each read by the result of the previous one.
#[derive(Debug, Default)]
pub(super) struct Input {
    raw: Buffer,
    /// The space that the previous read had.
    room: usize,
    last: LastRead,
}

/// How much the previous read returned.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum LastRead {
    /// At most a record.
    #[default]
    Little,
    /// More than a record. In bulk, a read seldom fills the large memory. If the memory shrank after each such read,
    /// a small read would have to detect that there is still much to read, which costs one more system call for each
    /// large read.
    Much,
    /// As much as its space: the layer may have more bytes.
    Full,
}

impl Input {
    /// The space for the next read. If `is_known` is set, the peer is authenticated and gets more space.
    pub(super) fn space_to_read(&mut self, is_known: bool) -> &mut [u8] {
        let memory = if self.last != LastRead::Little && is_known { MUCH } else { LITTLE };
        let room = memory.saturating_sub(self.raw.len()).max(LEAST);
        let bound = if is_known { usize::MAX } else { UNKNOWN_PEER };
        let space = self.raw.space_within(room, bound);
        self.room = space.len();
        space
    }

    /// Called when this many bytes were read.
    pub(super) fn handle_read(&mut self, n: usize) {
        self.raw.filled(n);
        self.last = match n {
            n if n == self.room => LastRead::Full,
            n if n > LITTLE => LastRead::Much,
            _ => LastRead::Little,
        };
    }

    /// Whether the previous read filled its space, so that the layer may have more bytes.
    pub(super) fn there_is_more(&self) -> bool {
        self.last == LastRead::Full
    }
}

impl Deref for Input {
    type Target = Buffer;

    fn deref(&self) -> &Buffer {
        &self.raw
    }
}

impl DerefMut for Input {
    fn deref_mut(&mut self) -> &mut Buffer {
        &mut self.raw
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_is_large_after_one_that_brought_much_and_small_after_others() {
        let mut input = Input::default();
        let first = input.space_to_read(true).len();
        assert!((LITTLE..MUCH).contains(&first));
        input.handle_read(first);
        let much = input.space_to_read(true).len();
        assert!(much >= MUCH - first, "{much}");
        input.handle_read(LITTLE + 1);
        input.consume(first + LITTLE + 1);
        input.release();
        assert!(input.space_to_read(true).len() >= MUCH);
        input.handle_read(LITTLE);
        input.consume(LITTLE);
        input.release();
        assert!(input.space_to_read(true).len() < MUCH);
    }

    /// A session delays an answer only as long as the layer is known to have more bytes.
    ///
    /// rule: secure-13
    #[test]
    fn only_a_read_that_filled_its_space_reports_more_bytes() {
        let mut input = Input::default();
        let first = input.space_to_read(true).len();
        input.handle_read(first);
        assert!(input.there_is_more());
        let much = input.space_to_read(true).len();
        input.handle_read(much - 1);
        assert!(!input.there_is_more());
    }

    /// rule: write-10
    #[test]
    fn a_peer_that_is_not_known_yet_fills_a_bounded_memory() {
        let mut input = Input::default();
        while input.len() < 64 << 10 {
            let room = input.space_to_read(false).len();
            input.handle_read(room.min(1000));
            assert!(input.capacity() <= UNKNOWN_PEER, "{}", input.capacity());
        }
        let room = input.space_to_read(false).len();
        assert!(room >= LEAST);
    }

    /// A body may be longer than any record that a peer should seal: there is always space for more of it.
    #[test]
    fn there_is_always_space_for_a_read() {
        let mut input = Input::default();
        for _ in 0..30 {
            assert!(input.space_to_read(true).len() >= LEAST);
            input.handle_read(1000);
        }
        assert_eq!(input.len(), 30_000);
    }
}
