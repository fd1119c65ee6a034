//! A queue of bytes that are written at the back and taken from the front.

use std::fmt;

use super::buffer_pool;

/// If a queue holds at most this many bytes when its owner has to wait for I/O, its unused capacity is released.
const LITTLE: usize = 8 << 10;
/// A capacity above this was made for more than the start of a record. If only a few bytes are queued, they move to a
/// smaller piece of memory.
const MUCH: usize = 4 * buffer_pool::PIECE;

/// A contiguous byte queue. Its memory grows as needed and is released by [`Buffer::release`].
#[derive(Default)]
pub struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl fmt::Debug for Buffer {
    /// Shows only lengths. The bytes belong to the application, and the memory after them may hold data of other
    /// connections (rule: tcp-11).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer").field("len", &self.len()).field("capacity", &self.capacity()).finish()
    }
}

impl Buffer {
    /// The number of bytes in the queue.
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// The number of bytes of memory that the queue holds.
    pub fn capacity(&self) -> usize {
        self.bytes.len()
    }

    /// Whether the queue is empty.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// All bytes in the queue, oldest first.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// All bytes in the queue, which may be changed in place.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.end]
    }

    /// Adds bytes at the back.
    pub fn push(&mut self, bytes: &[u8]) {
        self.space(bytes.len())[..bytes.len()].copy_from_slice(bytes);
        self.end += bytes.len();
    }

    /// Adds bytes at the back of a queue that must never hold more than `bound` bytes. The memory does not grow
    /// beyond that.
    pub fn push_within(&mut self, bytes: &[u8], bound: usize) {
        if self.bytes.len() - self.end < bytes.len() {
            self.make_room(bytes.len(), bound);
        }
        self.push(bytes);
    }

    /// Moves the bytes of another queue to the back of this one. Copies nothing if this queue is empty.
    pub fn append(&mut self, other: &mut Self) {
        if self.is_empty() && !other.is_empty() {
            std::mem::swap(self, other);
        } else {
            self.push(other.as_slice());
        }
        other.clear();
    }

    /// At least `min` bytes of space at the back. The caller writes there and reports the count to
    /// [`Buffer::filled`].
    pub fn space(&mut self, min: usize) -> &mut [u8] {
        self.space_within(min, usize::MAX)
    }

    /// Like `space`, but the memory does not grow beyond `bound` unless the queued bytes and `min` need more.
    pub fn space_within(&mut self, min: usize, bound: usize) -> &mut [u8] {
        if self.bytes.len() - self.end < min {
            self.make_room(min, bound);
        }
        &mut self.bytes[self.end..]
    }

    /// Reports that the first `n` bytes of [`Buffer::space`] now hold data.
    pub fn filled(&mut self, n: usize) {
        assert!(n <= self.bytes.len() - self.end, "more was filled in than there is room");
        self.end += n;
    }

    /// Removes `n` bytes from the front.
    pub fn consume(&mut self, n: usize) {
        assert!(n <= self.len(), "more was consumed than there is");
        self.start += n;
        if self.is_empty() {
            self.start = 0;
            self.end = 0;
        }
    }

    /// Discards all bytes, and releases the memory.
    pub fn clear(&mut self) {
        (self.start, self.end) = (0, 0);
        buffer_pool::give(std::mem::take(&mut self.bytes));
    }

    /// Releases the memory if the queue is empty, so that an idle connection holds no buffer.
    pub fn release(&mut self) {
        if self.is_empty() && !self.bytes.is_empty() {
            self.clear();
        }
    }

    /// Called when no bytes will be added for a while. Releases the memory that the queued bytes do not need.
    pub fn settle(&mut self) {
        let len = self.len();
        if len <= LITTLE && self.capacity() > 2 * LITTLE {
            let little = self.as_slice().to_vec();
            *self = Self { start: 0, end: len, bytes: little };
        } else if self.capacity() > MUCH && len <= buffer_pool::PIECE {
            let mut piece = buffer_pool::take(len);
            piece[..len].copy_from_slice(self.as_slice());
            *self = Self { start: 0, end: len, bytes: piece };
        }
    }

    /// Takes all bytes out.
    pub fn take(&mut self) -> Vec<u8> {
        let all = self.as_slice().to_vec();
        self.clear();
        all
    }

    fn make_room(&mut self, min: usize, bound: usize) {
        if self.bytes.is_empty() {
            self.bytes = buffer_pool::take(min);
            return;
        }
        let len = self.len();
        let need = len + min;
        if self.bytes.len() < need {
            let mut larger = buffer_pool::take(need.max(bound.min(self.bytes.len() * 2)));
            larger[..len].copy_from_slice(self.as_slice());
            buffer_pool::give(std::mem::replace(&mut self.bytes, larger));
        } else {
            self.bytes.copy_within(self.start..self.end, 0);
        }
        (self.start, self.end) = (0, len);
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        buffer_pool::give(std::mem::take(&mut self.bytes));
    }
}

impl std::io::Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.push(bytes);
        Ok(bytes.len())
    }

    fn write_vectored(&mut self, parts: &[std::io::IoSlice<'_>]) -> std::io::Result<usize> {
        parts.iter().for_each(|part| self.push(part));
        Ok(parts.iter().map(|part| part.len()).sum())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_leave_in_the_order_in_which_they_came() {
        let mut buffer = Buffer::default();
        buffer.push(b"hello ");
        buffer.consume(3);
        buffer.push(b"world");
        assert_eq!(buffer.as_slice(), b"lo world");
        buffer.space(100)[..1].copy_from_slice(b"!");
        buffer.filled(1);
        assert_eq!(buffer.take(), b"lo world!");
        assert!(buffer.is_empty());
    }

    #[test]
    fn an_empty_buffer_gives_its_memory_back_and_a_full_one_keeps_its_bytes() {
        let mut buffer = Buffer::default();
        buffer.push(b"x");
        buffer.release();
        assert_eq!(buffer.len(), 1);
        buffer.consume(1);
        buffer.release();
        assert_eq!(buffer.bytes.capacity(), 0);
    }

    #[test]
    fn appended_bytes_follow_queued_ones_and_an_empty_queue_copies_nothing() {
        let (mut queue, mut more) = (Buffer::default(), Buffer::default());
        more.push(b"first");
        let place = more.as_slice().as_ptr();
        queue.append(&mut more);
        assert_eq!((queue.as_slice(), queue.as_slice().as_ptr(), more.capacity()), (&b"first"[..], place, 0));
        more.push(b", second");
        queue.append(&mut more);
        queue.append(&mut more);
        assert_eq!((queue.as_slice(), more.capacity()), (&b"first, second"[..], 0));
    }

    #[test]
    fn a_bounded_queue_uses_no_more_memory_than_its_bound() {
        let mut queue = Buffer::default();
        let bound = 3 * buffer_pool::PIECE + 100;
        while queue.len() < bound {
            queue.push_within(&[7; 100][..100.min(bound - queue.len())], bound);
            assert!(queue.capacity() <= bound + bound / 4, "{}", queue.capacity());
        }
        assert!(queue.as_slice().iter().all(|byte| *byte == 7));
    }

    #[test]
    fn a_large_memory_is_left_for_one_that_is_enough() {
        let mut buffer = Buffer::default();
        buffer.space(MUCH + 1)[..10_000].fill(7);
        buffer.filled(10_000);
        buffer.settle();
        assert!(buffer.capacity() <= MUCH && buffer.as_slice() == [7; 10_000]);
    }

    #[test]
    fn a_short_queue_that_waits_holds_only_the_memory_it_needs() {
        let mut buffer = Buffer::default();
        buffer.push(b"begin");
        buffer.settle();
        assert_eq!((buffer.as_slice(), buffer.capacity()), (&b"begin"[..], 5));
        buffer.push(b" and end");
        assert_eq!(buffer.as_slice(), b"begin and end");
        buffer.push(&[0; LITTLE]);
        let capacity = buffer.capacity();
        buffer.settle();
        assert_eq!(buffer.capacity(), capacity);
    }
}
