//! A codec together with the bytes that it has seen. This module decides which bytes belong to complete messages.
//!
//! A decoder buffers the bytes that it gets, and removes them whenever it likes. But the transport must always know
//! which bytes belong to complete messages, because the bytes after them are leftover when TLS is started (rule:
//! upgrade-2). So the count of processed bytes always ends at the end of a message, and the decoder works on a copy
//! of the bytes after it.

use tokio_util::bytes::BytesMut;

use super::failure::CallbackResult;

/// The number of messages in a row that a codec may produce without consuming a byte. A decoder may consume a chunk
/// at once and then return its messages one by one. More messages than this are an error (rule: life-6).
const MAX_OF_NOTHING: usize = 1 << 16;

/// A codec, and what it has seen of the unprocessed bytes.
pub(super) struct Framing<C> {
    pub(super) codec: C,
    /// The bytes that the decoder was given and has not consumed.
    pub(super) buffer: BytesMut,
    /// The number of unprocessed bytes that the decoder was given. The ones that it has consumed are part of an
    /// incomplete message.
    pub(super) shown: usize,
    /// Whether the decoder has seen any byte. A change between messages and raw bytes does not reset this.
    pub(super) is_used: bool,
    /// The protocol reads raw bytes instead of messages.
    pub(super) is_raw: bool,
    /// Data is being delivered. If a callback changes between messages and raw bytes, this delivery continues in the
    /// new mode, so no other one is started.
    pub(super) is_delivering: bool,
    /// The decoder has failed without consuming a byte.
    pub(super) is_stuck: bool,
    /// The number of messages since a byte was last consumed.
    of_nothing: usize,
    /// The message that is being encoded.
    pub(super) out: BytesMut,
}

impl<C> Framing<C> {
    pub(super) fn new(codec: C) -> Self {
        Self {
            codec,
            buffer: BytesMut::new(),
            shown: 0,
            is_used: false,
            is_raw: false,
            is_delivering: false,
            is_stuck: false,
            of_nothing: 0,
            out: BytesMut::new(),
        }
    }

    /// Starts again with this codec. The choice between messages and raw bytes stays.
    pub(super) fn restart(&mut self, codec: C) {
        *self = Self { is_raw: self.is_raw, ..Self::new(codec) };
    }

    /// Gives the decoder those unprocessed bytes that it has not seen.
    pub(super) fn show(&mut self, unprocessed: &[u8]) {
        let new = &unprocessed[self.shown..];
        self.buffer.extend_from_slice(new);
        self.shown = unprocessed.len();
        self.is_used |= !new.is_empty();
    }

    /// Marks the end of a message at the decoder's current position. Returns the number of bytes that are processed
    /// by it.
    pub(super) fn cut(&mut self) -> usize {
        // The subtraction saturates, because a faulty codec may add bytes to the buffer, and must not cause a panic
        // here.
        let done = self.shown.saturating_sub(self.buffer.len());
        self.shown -= done;
        if self.buffer.is_empty() {
            // The memory is freed, so that an idle connection keeps no buffer.
            self.buffer = BytesMut::new();
        }
        done
    }

    /// Counts a message for which the codec has consumed `done` bytes.
    pub(super) fn count(&mut self, done: usize) -> CallbackResult {
        self.of_nothing = if done == 0 { self.of_nothing + 1 } else { 0 };
        if self.of_nothing > MAX_OF_NOTHING {
            return Err("the codec makes messages without end, and consumes no byte".into());
        }
        Ok(())
    }

    /// Forgets what the decoder has seen, so that the next decoder is given all unprocessed bytes.
    pub(super) fn forget(&mut self) {
        self.buffer = BytesMut::new();
        self.shown = 0;
    }
}
