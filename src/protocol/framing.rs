//! A codec, and the bytes that it has seen: which bytes belong to whole messages.
//!
//! A decoder keeps what it was shown, and removes bytes as it likes. But the transport must know at any time which bytes
//! belong to whole messages, because the bytes after them are leftover when TLS is started (rule: upgrade-2). So the bytes
//! that count as processed always end where a message ends, and the decoder has a copy of the bytes after them.

use tokio_util::bytes::BytesMut;

use super::failure::CallbackResult;

/// How many messages in a row a codec may make without taking a byte: a decoder may take a piece whole, and then return its
/// messages one by one. More are an error (rule: life-6).
const MAX_OF_NOTHING: usize = 1 << 16;

/// A codec, and what it has seen of the bytes that were not processed.
pub(super) struct Framing<C> {
    pub(super) codec: C,
    /// The bytes that the decoder was shown and has not taken.
    pub(super) buffer: BytesMut,
    /// How many of the unprocessed bytes the decoder was shown. Those that it took are a part of a message.
    pub(super) shown: usize,
    /// The decoder has seen bytes. A fact about the codec, and kept over changes of mode.
    pub(super) is_used: bool,
    pub(super) is_raw: bool,
    pub(super) is_delivering: bool,
    /// The decoder has failed, and has taken nothing.
    pub(super) is_stuck: bool,
    /// Messages since the last one for which a byte was taken.
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

    /// Begins anew with this codec; whether bytes are raw stays.
    pub(super) fn restart(&mut self, codec: C) {
        *self = Self { is_raw: self.is_raw, ..Self::new(codec) };
    }

    /// Shows the decoder those of the unprocessed bytes that it has not seen.
    pub(super) fn show(&mut self, unprocessed: &[u8]) {
        let new = &unprocessed[self.shown..];
        self.buffer.extend_from_slice(new);
        self.shown = unprocessed.len();
        self.is_used |= !new.is_empty();
    }

    /// A message ends where the decoder is. Returns how many bytes were processed with it.
    pub(super) fn cut(&mut self) -> usize {
        // Saturating: a codec may not add bytes, and must not make us panic.
        let done = self.shown.saturating_sub(self.buffer.len());
        self.shown -= done;
        if self.buffer.is_empty() {
            // An idle connection holds no buffer.
            self.buffer = BytesMut::new();
        }
        done
    }

    /// The codec has made a message from this many bytes.
    pub(super) fn count(&mut self, done: usize) -> CallbackResult {
        self.of_nothing = if done == 0 { self.of_nothing + 1 } else { 0 };
        if self.of_nothing > MAX_OF_NOTHING {
            return Err("the codec makes messages without end and takes no byte".into());
        }
        Ok(())
    }

    /// The next decoder is shown all unprocessed bytes.
    pub(super) fn forget(&mut self) {
        self.buffer = BytesMut::new();
        self.shown = 0;
    }
}
