//! The read-ahead of a layer: received bytes that the application has not read yet.

use super::buffer::Buffer;

/// Received bytes, in order. No other place may hold unread plaintext, so that the leftover bytes at an upgrade are
/// always known (rule: upgrade-2).
///
/// Most connections never read ahead. So the queue is allocated at the first use, and kept from then on.
#[derive(Debug, Default)]
pub struct Inbox(Option<Box<Buffer>>);

impl Inbox {
    /// The number of bytes to read ahead at a time when the application calls `poll_fill_buf`: the plaintext of a
    /// full TLS record.
    pub const READ_AHEAD: usize = 16 << 10;

    /// Whether there are no unread bytes.
    pub fn is_empty(&self) -> bool {
        self.0.as_ref().is_none_or(|buffer| buffer.is_empty())
    }

    /// The number of unread bytes.
    pub fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |buffer| buffer.len())
    }

    /// The unread bytes.
    pub fn as_slice(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], |buffer| buffer.as_slice())
    }

    /// The space for a read-ahead. It includes the content type that is sealed after a full record, and a second
    /// record.
    pub const ROOM: usize = 2 * (Self::READ_AHEAD + 512);

    /// The number of bytes that plain TCP reads ahead at a time if the previous read filled its space. It is the
    /// plaintext of four full records, so that a relay that seals the bytes makes no small record.
    pub const BULK: usize = 4 * Self::READ_AHEAD;

    /// Space for one read-ahead. Report the number of bytes written there to [`Inbox::filled`].
    pub fn space(&mut self) -> &mut [u8] {
        self.space_of(Self::ROOM)
    }

    /// Like `space`, with at least this much space.
    pub fn space_of(&mut self, room: usize) -> &mut [u8] {
        self.buffer().space(room)
    }

    /// Reports that the first `n` bytes of [`Inbox::space`] now hold data.
    pub fn filled(&mut self, n: usize) {
        self.buffer().filled(n);
    }

    /// The application has read `n` bytes. An abort may have discarded them before this call; then there is nothing
    /// to remove (rule: life-5).
    pub fn consume(&mut self, n: usize) {
        if let Some(buffer) = &mut self.0 {
            buffer.consume(n.min(buffer.len()));
        }
    }

    /// Adds bytes after the unread ones. A downgrade adds the bytes that came after the peer's close_notify.
    pub fn push(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.buffer().push(bytes);
        }
    }

    /// Takes all bytes out.
    pub fn take(&mut self) -> Vec<u8> {
        self.0.take().map_or_else(Vec::new, |mut buffer| buffer.take())
    }

    /// Discards all bytes, after an abort.
    pub fn clear(&mut self) {
        if let Some(buffer) = &mut self.0 {
            buffer.clear();
        }
    }

    /// Releases the memory if there are no unread bytes.
    pub fn release(&mut self) {
        if let Some(buffer) = &mut self.0 {
            buffer.release();
        }
    }

    fn buffer(&mut self) -> &mut Buffer {
        self.0.get_or_insert_default()
    }
}
