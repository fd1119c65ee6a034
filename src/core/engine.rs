//! What opens and seals: rustls, or rustls for the handshake and records of our own.
//!
//! The session has the halves, the queues and the order of things; an engine has the keys. It is given whole records, one
//! at a time, and holds at most one that was opened.

use std::io::{self, BufRead, IoSlice, Read, Write};
use std::ops::RangeInclusive;

use rustls::{AlertDescription, CommonState, Connection, Error, InvalidMessage, PeerMisbehaved};

use super::buffer::Buffer;
#[cfg(feature = "express")]
use super::express::Express;

/// What a record may begin with: change_cipher_spec to heartbeat.
pub(super) const RECORD_TYPES: RangeInclusive<u8> = 20..=24;

/// Whether a record of TLS may begin with these bytes.
pub(super) fn may_begin_tls(bytes: &[u8]) -> bool {
    match bytes {
        [] => true,
        [typ] => RECORD_TYPES.contains(typ),
        [typ, major, ..] => RECORD_TYPES.contains(typ) && *major == 3,
    }
}

/// One of the two.
pub(super) enum Engine {
    Rustls(Box<Buffered>),
    #[cfg(feature = "express")]
    Express(Box<Express>),
}

/// Passes a call on.
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
    pub(super) fn rustls(tls: impl Into<Connection>) -> Self {
        Self::Rustls(Box::new(Buffered::new(tls.into())))
    }

    pub(super) fn is_express(&self) -> bool {
        !matches!(self, Self::Rustls(_))
    }

    pub(super) fn is_handshaking(&self) -> bool {
        engine!(self, it => it.is_handshaking())
    }

    /// What the handshake agreed on; behind [`Engine::finish_handshake`] it may be gone.
    pub(super) fn common(&self) -> Option<&CommonState> {
        engine!(self, it => it.common())
    }

    /// The name that a client has asked for.
    pub(super) fn take_sni(&mut self) -> Option<String> {
        engine!(self, it => it.take_sni())
    }

    /// The handshake is done, and its facts were taken.
    pub(super) fn finish_handshake(&mut self) -> Result<(), Error> {
        engine!(self, it => it.finish_handshake())
    }

    /// How many bytes at the front of the input were seen and are needed still.
    pub(super) fn kept(&self) -> usize {
        engine!(self, it => it.kept())
    }

    /// Opens the record of this length behind what is kept. An engine may give its plaintext to `reader` at once, where there
    /// is room for it; says how much it gave.
    pub(super) fn open(&mut self, input: &mut Buffer, record: usize, reader: &mut [u8]) -> Result<usize, Error> {
        engine!(self, it => it.open(input, record, reader))
    }

    /// The alert that was sent, where the engine knows.
    pub(super) fn alert_sent(&self) -> Option<AlertDescription> {
        engine!(self, it => it.alert_sent())
    }

    /// How much plaintext was opened and not read.
    pub(super) fn opened(&self) -> usize {
        engine!(self, it => it.opened())
    }

    /// Whether close_notify has come.
    pub(super) fn peer_has_closed(&self) -> bool {
        engine!(self, it => it.peer_has_closed())
    }

    /// The plaintext that was opened and not read.
    pub(super) fn plaintext<'a>(&'a mut self, input: &'a Buffer) -> &'a [u8] {
        engine!(self, it => it.plaintext(input))
    }

    /// Copies opened plaintext; says how much.
    pub(super) fn read(&mut self, out: &mut [u8], input: &mut Buffer) -> usize {
        engine!(self, it => it.read(out, input))
    }

    /// `n` bytes of the plaintext were read.
    pub(super) fn consume(&mut self, n: usize, input: &mut Buffer) {
        engine!(self, it => it.consume(n, input));
    }

    /// The input was thrown away.
    pub(super) fn forget_input(&mut self) {
        engine!(self, it => it.forget_input());
    }

    /// Seals up to `room` bytes; says how much.
    pub(super) fn write(&mut self, parts: &[IoSlice<'_>], room: usize) -> usize {
        engine!(self, it => it.write(parts, room))
    }

    /// Whether nothing more can be sealed: the key has done what it may, and there is no next one.
    pub(super) fn is_exhausted(&self) -> bool {
        engine!(self, it => it.is_exhausted())
    }

    /// Answers a KeyUpdate that asked for one (rule: secure-7).
    pub(super) fn answer(&mut self) {
        engine!(self, it => it.answer());
    }

    pub(super) fn send_close_notify(&mut self) {
        engine!(self, it => it.send_close_notify());
    }

    /// Whether records wait to leave.
    pub(super) fn wants_write(&self) -> bool {
        engine!(self, it => it.wants_write())
    }

    /// Writes records, as many as the floor takes at once.
    pub(super) fn write_tls(&mut self, floor: &mut dyn Write) -> io::Result<usize> {
        engine!(self, it => it.write_tls(floor))
    }

    /// Puts the records that wait behind those of `queue`.
    pub(super) fn collect(&mut self, queue: &mut Buffer) {
        engine!(self, it => it.collect(queue));
    }
}

/// rustls's buffered API.
pub(super) struct Buffered {
    tls: Connection,
    opened: usize,
    peer_has_closed: bool,
    /// How many bytes at the front of the input rustls has been fed already.
    ahead: usize,
}

impl Buffered {
    fn new(mut tls: Connection) -> Self {
        // Acceptance is decided by the watermarks; rustls never holds more than one call's records.
        tls.set_buffer_limit(None);
        let mut buffered = Self { tls, opened: 0, peer_has_closed: false, ahead: 0 };
        // One that was begun elsewhere may have opened something there. Where it has failed, that is told when it is fed.
        let _ = buffered.process();
        buffered
    }

    fn is_handshaking(&self) -> bool {
        self.tls.is_handshaking()
    }

    fn common(&self) -> Option<&CommonState> {
        Some(&self.tls)
    }

    fn take_sni(&mut self) -> Option<String> {
        match &self.tls {
            Connection::Server(server) => server.server_name().map(str::to_owned),
            Connection::Client(_) => None,
        }
    }

    /// rustls opens into memory of its own; the reader has it from there.
    ///
    /// Where the next record has begun to come, its first byte goes with this one: rustls shrinks a buffer that has run empty
    /// to 4 KiB, and then takes, and looks at, each record in five pieces. The byte stays in the input too, for whoever
    /// comes behind a close_notify. One that no record begins with would fail this one.
    fn open(&mut self, input: &mut Buffer, record: usize, _: &mut [u8]) -> Result<usize, Error> {
        let is_begun = input.as_slice().get(record).is_some_and(|first| RECORD_TYPES.contains(first));
        let with_next = record + usize::from(is_begun && !self.tls.is_handshaking());
        let fed = match self.feed(&input.as_slice()[self.ahead..with_next]) {
            Ok(fed) => fed,
            Err(error) => {
                // What was opened ahead of the failure is lost with it.
                self.opened = 0;
                return Err(error);
            }
        };
        let seen = self.ahead + fed;
        input.consume(seen.min(record));
        self.ahead = seen.saturating_sub(record);
        if fed == 0 && self.opened == 0 {
            return Err(Error::PeerSentOversizedRecord);
        }
        Ok(0)
    }

    /// Feeds bytes; says how many were taken.
    fn feed(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        let mut rest = bytes;
        // A reader that says 0 is the end of the stream to rustls, for ever: it is never shown an empty one.
        while !rest.is_empty() {
            match self.tls.read_tls(&mut rest) {
                // Its buffer is full: of plaintext, which is read first, or of a handshake message that has no end. Or the
                // peer's close_notify has come, and it takes nothing more.
                Ok(0) | Err(_) => break,
                Ok(_) => self.process()?,
            }
        }
        Ok(bytes.len() - rest.len())
    }

    /// Asked once for each read, and never behind a failure: rustls 0.23.46 panics where it is asked once more behind an
    /// empty handshake record, which it has thrown away and still counts.
    fn process(&mut self) -> Result<(), Error> {
        let state = self.tls.process_new_packets()?;
        self.opened = state.plaintext_bytes_to_read();
        self.peer_has_closed = state.peer_has_closed();
        Ok(())
    }

    fn finish_handshake(&mut self) -> Result<(), Error> {
        Ok(())
    }

    /// rustls has a buffer of its own for that.
    fn kept(&self) -> usize {
        0
    }

    fn forget_input(&mut self) {
        self.ahead = 0;
    }

    fn alert_sent(&self) -> Option<AlertDescription> {
        None
    }

    fn opened(&self) -> usize {
        self.opened
    }

    fn peer_has_closed(&self) -> bool {
        self.peer_has_closed
    }

    fn plaintext(&mut self, _: &Buffer) -> &[u8] {
        self.tls.reader().into_first_chunk().unwrap_or_default()
    }

    fn read(&mut self, out: &mut [u8], _: &mut Buffer) -> usize {
        // The reader's error says what the halves know already.
        let n = self.tls.reader().read(out).unwrap_or(0);
        self.opened -= n;
        n
    }

    fn consume(&mut self, n: usize, _: &mut Buffer) {
        self.tls.reader().consume(n);
        self.opened -= n;
    }

    fn write(&mut self, parts: &[IoSlice<'_>], room: usize) -> usize {
        let total: usize = parts.iter().map(|part| part.len()).sum();
        let accepted = match parts {
            [one] => self.tls.writer().write(&one[..one.len().min(room)]),
            _ if total <= room => self.tls.writer().write_vectored(parts),
            _ => self.tls.writer().write_vectored(&prefix(parts, room)),
        };
        // rustls refuses only after its own failure, which was handled when it happened.
        accepted.unwrap_or(0)
    }

    /// rustls does not tell: it drops what it is given then, and says close_notify.
    fn is_exhausted(&self) -> bool {
        false
    }

    /// An empty write makes rustls send it.
    fn answer(&mut self) {
        let _ = self.tls.writer().write(&[]);
    }

    fn send_close_notify(&mut self) {
        self.tls.send_close_notify();
    }

    fn wants_write(&self) -> bool {
        self.tls.wants_write()
    }

    fn write_tls(&mut self, floor: &mut dyn Write) -> io::Result<usize> {
        self.tls.write_tls(floor)
    }

    fn collect(&mut self, queue: &mut Buffer) {
        while self.wants_write() {
            // Writing into memory does not fail.
            if self.write_tls(queue).unwrap_or(0) == 0 {
                break;
            }
        }
    }
}

/// The first `room` bytes of a gather list.
fn prefix<'a>(parts: &'a [IoSlice<'_>], room: usize) -> Vec<IoSlice<'a>> {
    let mut left = room;
    let mut out = Vec::new();
    for part in parts {
        let n = part.len().min(left);
        if n > 0 {
            out.push(IoSlice::new(&part[..n]));
        }
        left -= n;
    }
    out
}

/// The alert that is due for an error, where that is known: the one that rustls sends.
pub(super) fn alert_for(error: &Error) -> Option<AlertDescription> {
    match error {
        Error::InappropriateMessage { .. } | Error::InappropriateHandshakeMessage { .. } => {
            Some(AlertDescription::UnexpectedMessage)
        }
        Error::PeerMisbehaved(
            PeerMisbehaved::KeyEpochWithPendingFragment
            | PeerMisbehaved::IllegalMiddleboxChangeCipherSpec
            | PeerMisbehaved::IllegalTlsInnerPlaintext
            | PeerMisbehaved::MessageInterleavedWithHandshakeMessage,
        ) => Some(AlertDescription::UnexpectedMessage),
        Error::InvalidMessage(InvalidMessage::InvalidKeyUpdate) => Some(AlertDescription::IllegalParameter),
        Error::InvalidCertificate(error) => Some(error.clone().into()),
        Error::InvalidMessage(error) => Some((*error).into()),
        Error::NoCertificatesPresented => Some(AlertDescription::CertificateRequired),
        Error::NoApplicationProtocol => Some(AlertDescription::NoApplicationProtocol),
        Error::DecryptError => Some(AlertDescription::BadRecordMac),
        Error::PeerSentOversizedRecord => Some(AlertDescription::RecordOverflow),
        Error::PeerMisbehaved(_) => Some(AlertDescription::IllegalParameter),
        _ => None,
    }
}
