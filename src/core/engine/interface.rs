//! The methods of an engine.

use std::io::{self, IoSlice, Write};

use rustls::{AlertDescription, CommonState, Error};

use super::export::Master;
use crate::core::buffer::Buffer;
use crate::error::SessionError;

/// How the records of a session are opened and sealed.
///
/// The default bodies are for engines that have nothing to do in these methods.
pub(in crate::core) trait Engine {
    fn is_handshaking(&self) -> bool;

    /// The result of the handshake. It may be `None` after [`Engine::finish_handshake`].
    fn common(&self) -> Option<&CommonState>;

    /// The server name that the client requested (SNI).
    fn take_sni(&mut self) -> Option<String>;

    /// Called when the handshake is done and the session has stored its result.
    fn finish_handshake(&mut self) -> Result<(), Error>;

    /// The number of bytes at the front of the input that the engine has processed and still needs.
    fn kept(&self) -> usize {
        0
    }

    /// Opens the record of this length after the kept bytes. An engine may write its plaintext to `reader` at once, if
    /// there is space for it. Returns how many bytes it wrote.
    fn open(&mut self, input: &mut Buffer, record: usize, reader: &mut [u8]) -> Result<usize, Error>;

    /// Returns false if a larger reader's buffer would save a copy of the record of this length.
    fn suits(&self, _space: usize, _record: usize) -> bool {
        true
    }

    /// The alert that was sent, if the engine knows it.
    fn alert_sent(&self) -> Option<AlertDescription> {
        None
    }

    /// The number of decrypted bytes that were not read yet.
    fn opened(&self) -> usize;

    /// Whether the peer's close_notify was received.
    fn peer_has_closed(&self) -> bool;

    /// The decrypted bytes that were not read yet.
    fn plaintext<'a>(&'a mut self, input: &'a Buffer) -> &'a [u8];

    /// Copies decrypted bytes to `out` and returns their number.
    fn read(&mut self, out: &mut [u8], input: &mut Buffer) -> usize;

    /// Called when the application has read `n` bytes of the plaintext.
    fn consume(&mut self, n: usize, input: &mut Buffer);

    /// Called when the input was discarded.
    fn forget_input(&mut self);

    /// Discards the decrypted bytes that were not read.
    fn forget_opened(&mut self);

    /// The failure of a session that failed before it was taken over.
    fn take_failure(&mut self) -> Option<Error> {
        None
    }

    /// Encrypts at most `room` bytes and returns their number. If it seals less than both `room` and the given bytes,
    /// no more can be sealed: the key is used up, and there is no next one.
    fn write(&mut self, parts: &[IoSlice<'_>], room: usize) -> usize;

    /// As `write`, and appends the records to `queue`.
    fn write_after(&mut self, parts: &[IoSlice<'_>], room: usize, queue: &mut Buffer) -> usize;

    /// Answers a KeyUpdate that requested an answer (rule: secure-7).
    fn answer(&mut self);

    fn send_close_notify(&mut self);

    /// Sends an alert for a failure for which rustls has sent none, if the engine can.
    fn send_missing_alert(&mut self) {}

    /// Sends the alert internal_error, because we cut the session off, if the engine can.
    fn send_internal_error(&mut self) {}

    /// Whether the secrets belong to this session alone.
    fn master(&self) -> Master;

    /// Keying material of the session, from the end of the handshake on.
    fn export(&self, out: &mut [u8], label: &[u8], context: Option<&[u8]>) -> Result<(), SessionError>;

    /// Whether there are unsent records.
    fn wants_write(&self) -> bool;

    /// Writes as many records as the layer accepts in one call.
    fn write_tls(&mut self, layer: &mut dyn Write) -> io::Result<usize>;

    /// Appends the unsent records to `queue`.
    fn collect(&mut self, queue: &mut Buffer);

    /// Discards the unsent records.
    fn discard(&mut self);
}
