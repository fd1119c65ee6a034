//! Bytes that came from the layer and were not opened yet.

use std::ops::{Deref, DerefMut};

use super::buffer::Buffer;

/// The size of the memory if the layer has few bytes: enough for a full record.
const LITTLE: usize = 17 << 10;
/// The size in bulk: eight full records, and the start of one.
const MUCH: usize = 148 << 10;
/// A read with less space than this is not made.
const LEAST: usize = 4 << 10;
/// The largest memory for the bytes of an unauthenticated peer: the longest handshake message, and the record that ends it.
const UNKNOWN_PEER: usize = 96 << 10;

/// A queue that chooses the size of each read by the result of the last one.
#[derive(Debug, Default)]
pub(super) struct Input {
    raw: Buffer,
    /// How much space the last read had.
    room: usize,
    /// The last read filled its space: the layer has more.
    there_is_more: bool,
    /// The last read filled its space, or brought more than a record: the next read gets a large memory.
    is_bulk: bool,
}

impl Input {
    /// Space for the next read. A peer with `is_known` set gets more.
    pub(super) fn space_to_read(&mut self, is_known: bool) -> &mut [u8] {
        let memory = if self.is_bulk && is_known { MUCH } else { LITTLE };
        let room = memory.saturating_sub(self.raw.len()).max(LEAST);
        let bound = if is_known { usize::MAX } else { UNKNOWN_PEER };
        let space = self.raw.space_within(room, bound);
        self.room = space.len();
        space
    }

    /// This many bytes were read.
    pub(super) fn handle_read(&mut self, n: usize) {
        self.raw.filled(n);
        self.there_is_more = n == self.room;
        // A peer in bulk seldom fills the large memory. If the memory shrank after each such read, a small read would have
        // to find out whether there is still much to read: one more system call for each large one.
        self.is_bulk = self.there_is_more || n > LITTLE;
    }

    /// Whether the last read filled its space, so that the layer may have more.
    pub(super) fn there_is_more(&self) -> bool {
        self.there_is_more
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
    fn only_a_read_that_filled_its_memory_says_that_there_is_more() {
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
    fn there_is_always_room() {
        let mut input = Input::default();
        for _ in 0..30 {
            assert!(input.space_to_read(true).len() >= LEAST);
            input.handle_read(1000);
        }
        assert_eq!(input.len(), 30_000);
    }
}
