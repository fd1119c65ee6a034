//! The methods of an engine.

use std::io::{self, IoSlice, Write};

use rustls::{AlertDescription, CommonState, Error};

use super::export::Master;
use crate::core::buffer::Buffer;
use crate::error::SessionError;

/// How the records of a session are opened and sealed.
///
/// A default is the answer of an engine that has nothing to do for that call.
pub(in crate::core) trait Engine {
    fn is_handshaking(&self) -> bool;

    /// The result of the handshake. It may be gone after [`Engine::finish_handshake`].
    fn common(&self) -> Option<&CommonState>;

    /// The name that the client asked for.
    fn take_sni(&mut self) -> Option<String>;

    /// The handshake is done, and its facts were taken.
    fn finish_handshake(&mut self) -> Result<(), Error>;

    /// How many bytes at the front of the input were seen and are still needed.
    fn kept(&self) -> usize {
        0
    }

    /// Opens the record of this length after the kept bytes. An engine may write its plaintext to `reader` at once, if
    /// there is space for it. Returns how many bytes it wrote.
    fn open(&mut self, input: &mut Buffer, record: usize, reader: &mut [u8]) -> Result<usize, Error>;

    /// Whether a larger reader's buffer would not help with the record of this length. If it would, a larger buffer saves a
    /// copy.
    fn suits(&self, _space: usize, _record: usize) -> bool {
        true
    }

    /// The alert that was sent, if the engine knows it.
    fn alert_sent(&self) -> Option<AlertDescription> {
        None
    }

    /// How much plaintext was opened and not read.
    fn opened(&self) -> usize;

    /// Whether close_notify has come.
    fn peer_has_closed(&self) -> bool;

    /// The plaintext that was opened and not read.
    fn plaintext<'a>(&'a mut self, input: &'a Buffer) -> &'a [u8];

    /// Copies opened plaintext and returns how many bytes.
    fn read(&mut self, out: &mut [u8], input: &mut Buffer) -> usize;

    /// The application has read `n` bytes of the plaintext.
    fn consume(&mut self, n: usize, input: &mut Buffer);

    /// The input was discarded.
    fn forget_input(&mut self);

    /// Discards opened data that was not read.
    fn forget_opened(&mut self);

    /// The failure of a session that failed before it was taken over.
    fn take_failure(&mut self) -> Option<Error> {
        None
    }

    /// Seals up to `room` bytes and returns how many. If it seals less than both `room` and the given bytes, no more can be
    /// sealed: the key is used up, and there is no next one.
    fn write(&mut self, parts: &[IoSlice<'_>], room: usize) -> usize;

    /// Does the same, and puts the records after those of `queue`.
    fn write_after(&mut self, parts: &[IoSlice<'_>], room: usize, queue: &mut Buffer) -> usize;

    /// Answers a KeyUpdate that asked for one (rule: secure-7).
    fn answer(&mut self);

    fn send_close_notify(&mut self);

    /// Sends an alert for a failure for which rustls has sent none, if the engine can.
    fn send_missing_alert(&mut self) {}

    /// Sends an alert that tells the peer that we cut the session off, if the engine can.
    fn send_internal_error(&mut self) {}

    /// Whether the secrets belong to this session alone.
    fn master(&self) -> Master;

    /// Keying material of the session, from the end of the handshake on.
    fn export(&self, out: &mut [u8], label: &[u8], context: Option<&[u8]>) -> Result<(), SessionError>;

    /// Whether records wait to leave.
    fn wants_write(&self) -> bool;

    /// Writes as many records as the layer takes at once.
    fn write_tls(&mut self, layer: &mut dyn Write) -> io::Result<usize>;

    /// Moves the waiting records to the back of `queue`.
    fn collect(&mut self, queue: &mut Buffer);

    /// Discards the records that wait.
    fn discard(&mut self);
}
