//! The engine of a session: either rustls alone, or rustls for the handshake and our own code for the records.
//!
//! The session has the halves and the queues, and decides the order of records. The engine has the keys. It gets whole
//! records, one at a time, and holds at most one opened record.

mod buffered;
mod export;
#[cfg(feature = "express")]
pub(in crate::core) mod express;
mod hello;
mod spacer;

use std::io::{self, IoSlice, Write};

use rustls::{AlertDescription, CommonState, Connection, Error};

use self::buffered::Buffered;
#[cfg(feature = "express")]
use self::express::Express;
use super::buffer::Buffer;
use super::catch::catch;
use super::record::{HEADER, MAX_FRAGMENT, max_fragment};
use crate::error::SessionError;

/// The largest overhead of a record of rustls's own suites, in bytes.
const RECORD_COST: usize = HEADER + 8 + 16;
/// One of the two engines.
pub(super) enum Engine {
    Rustls(Box<Buffered>),
    #[cfg(feature = "express")]
    Express(Box<Express>),
}

/// Forwards a call to the engine.
macro_rules! engine {
    ($engine:expr, $it:ident => $call:expr) => {
        match $engine {
            Engine::Rustls($it) => $call,
            #[cfg(feature = "express")]
            Engine::Express($it) => $call,
        }
    };
}

impl Engine {
    /// rustls, from the start of a handshake; `record` is the `max_fragment_size` of its configuration.
    pub(super) fn rustls(tls: impl Into<Connection>, record: Option<usize>) -> Self {
        Self::Rustls(Box::new(Buffered::new(tls.into(), Some(max_fragment(record)))))
    }

    /// rustls, with a session that another library started.
    pub(super) fn adopted(tls: Connection) -> Self {
        Self::Rustls(Box::new(Buffered::new(tls, None)))
    }

    pub(super) fn is_express(&self) -> bool {
        !matches!(self, Self::Rustls(_))
    }

    pub(super) fn is_handshaking(&self) -> bool {
        engine!(self, it => it.is_handshaking())
    }

    /// The result of the handshake. It may be `None` after [`Engine::finish_handshake`].
    pub(super) fn common(&self) -> Option<&CommonState> {
        engine!(self, it => it.common())
    }

    /// The name that the client requested.
    pub(super) fn take_sni(&mut self) -> Option<String> {
        engine!(self, it => it.take_sni())
    }

    /// Called when the handshake is done and its facts were taken.
    pub(super) fn finish_handshake(&mut self) -> Result<(), Error> {
        engine!(self, it => it.finish_handshake())
    }

    /// The number of bytes at the front of the input that the engine has seen and still needs.
    pub(super) fn kept(&self) -> usize {
        engine!(self, it => it.kept())
    }

    /// Opens the record of this length after the kept bytes. An engine may write the plaintext to `reader` directly, if
    /// it fits. Returns the number of bytes that it has written there.
    pub(super) fn open(&mut self, input: &mut Buffer, record: usize, reader: &mut [u8]) -> Result<usize, Error> {
        guarded(|| engine!(self, it => it.open(input, record, reader)))
    }

    /// Whether a larger reader's buffer would make no difference for the record of this length. Otherwise a larger
    /// buffer saves a copy.
    pub(super) fn suits(&self, room: usize, record: usize) -> bool {
        engine!(self, it => it.suits(room, record))
    }

    /// The alert that was sent, if the engine knows it.
    pub(super) fn alert_sent(&self) -> Option<AlertDescription> {
        engine!(self, it => it.alert_sent())
    }

    /// The length of the plaintext that was opened and not read.
    pub(super) fn opened(&self) -> usize {
        engine!(self, it => it.opened())
    }

    /// Whether the peer's close_notify has arrived.
    pub(super) fn peer_has_closed(&self) -> bool {
        engine!(self, it => it.peer_has_closed())
    }

    /// The plaintext that was opened and not read.
    pub(super) fn plaintext<'a>(&'a mut self, input: &'a Buffer) -> &'a [u8] {
        engine!(self, it => it.plaintext(input))
    }

    /// Copies opened plaintext to `out`, and returns the number of bytes.
    pub(super) fn read(&mut self, out: &mut [u8], input: &mut Buffer) -> usize {
        engine!(self, it => it.read(out, input))
    }

    /// The application has read `n` bytes of the plaintext.
    pub(super) fn consume(&mut self, n: usize, input: &mut Buffer) {
        engine!(self, it => it.consume(n, input));
    }

    /// Called when the input was discarded.
    pub(super) fn forget_input(&mut self) {
        engine!(self, it => it.forget_input());
    }

    /// Discards opened data that was not read.
    pub(super) fn forget_opened(&mut self) {
        engine!(self, it => it.forget_opened());
    }

    /// The failure of a session that failed before it was taken over.
    pub(super) fn take_failure(&mut self) -> Option<Error> {
        match self {
            Self::Rustls(it) => it.take_failure(),
            #[cfg(feature = "express")]
            Self::Express(_) => None,
        }
    }

    /// Seals up to `room` bytes, and returns how many. If this is less than both `room` and the given bytes, the key is
    /// used up and there is no next key.
    pub(super) fn write(&mut self, parts: &[IoSlice<'_>], room: usize) -> usize {
        engine!(self, it => it.write(parts, room))
    }

    /// As `write`, and appends the records to `queue`.
    pub(super) fn write_after(&mut self, parts: &[IoSlice<'_>], room: usize, queue: &mut Buffer) -> usize {
        match self {
            Self::Rustls(it) => {
                let sealed = it.write(parts, room);
                // The space is reserved at once, so that the queue does not double its memory.
                let _ = queue.space_within(sealed + RECORD_COST * (sealed / MAX_FRAGMENT + 1), 0);
                it.collect(queue);
                sealed
            }
            #[cfg(feature = "express")]
            Self::Express(it) => it.write_after(parts, room, queue),
        }
    }

    /// Answers a KeyUpdate that requested an answer (rule: secure-7).
    pub(super) fn answer(&mut self) {
        engine!(self, it => it.answer());
    }

    pub(super) fn send_close_notify(&mut self) {
        engine!(self, it => it.send_close_notify());
    }

    /// If rustls has sent no alert for a failure, sends one, if the engine can.
    pub(super) fn send_missing_alert(&mut self) {
        // After a panic, rustls is not called, so there is no alert.
        let _ = guarded(|| {
            engine!(self, it => it.send_missing_alert());
            Ok(())
        });
    }

    /// Sends the alert internal_error, because we cut the session off, if the engine can.
    pub(super) fn send_internal_error(&mut self) {
        engine!(self, it => it.send_internal_error());
    }

    /// Keying material of the session, from the end of the handshake on. If rustls panics, there is none.
    pub(super) fn export(&self, out: &mut [u8], label: &[u8], context: Option<&[u8]>) -> Result<(), SessionError> {
        export::check_arguments(out, label, context)?;
        engine!(self, it => it.master()).check()?;
        let exported = guarded(|| Ok(engine!(self, it => it.export(out, label, context))));
        exported.unwrap_or_else(|error| Err(SessionError::Export(error)))
    }

    /// Whether there are unsent records.
    pub(super) fn wants_write(&self) -> bool {
        engine!(self, it => it.wants_write())
    }

    /// Writes as many records as the layer accepts at once.
    #[inline]
    pub(super) fn write_tls(&mut self, layer: &mut impl Write) -> io::Result<usize> {
        engine!(self, it => it.write_tls(layer))
    }

    /// Moves the unsent records to the back of `queue`.
    pub(super) fn collect(&mut self, queue: &mut Buffer) {
        engine!(self, it => it.collect(queue));
    }

    /// Discards the unsent records.
    pub(super) fn discard(&mut self) {
        engine!(self, it => it.discard());
    }
}

/// Calls rustls, and turns its panic into a failure of the session, after which rustls is not called again. rustls runs code of
/// the application (verifiers, resolvers, session stores). In debug builds it also asserts that it has sent no close_notify
/// when a bad record requires a fatal alert, so a peer could cause a panic.
fn guarded<T>(call: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    let panicked = |_: &_| Error::General("a record made rustls, or what it was configured with, panic".into());
    catch(call, panicked).and_then(|result| result)
}
