//! What opens and seals: rustls, or rustls for the handshake and records of our own.
//!
//! The session has the halves, the queues and the order of things; an engine has the keys. It is given whole records, one
//! at a time, and holds at most one that was opened.

use std::io::{self, BufRead, IoSlice, Read, Write};
use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};

use rustls::{
    AlertDescription, CommonState, Connection, ContentType, Error, InvalidMessage, PeerMisbehaved, SupportedCipherSuite,
};

use super::budget::Budget;
use super::buffer::Buffer;
#[cfg(feature = "express")]
use super::express::Express;

/// The header of a record: type, version, length (RFC 8446 section 5.1).
pub(super) const HEADER: usize = 5;
/// The most plaintext that a record carries (RFC 8446 section 5.1).
pub(super) const MAX_FRAGMENT: usize = 1 << 14;
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

/// The most plaintext in a record, for a `max_fragment_size`, which counts the header too. rustls has checked it.
pub(super) fn max_fragment(max_fragment_size: Option<usize>) -> usize {
    max_fragment_size.map_or(MAX_FRAGMENT, |size| size.saturating_sub(HEADER).clamp(1, MAX_FRAGMENT))
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
    /// rustls, from the begin of a handshake; `record` is its configuration's `max_fragment_size`.
    pub(super) fn rustls(tls: impl Into<Connection>, record: Option<usize>) -> Self {
        Self::Rustls(Box::new(Buffered::new(tls.into(), Some(max_fragment(record)))))
    }

    /// rustls, with a session that was begun elsewhere.
    pub(super) fn adopted(tls: Connection) -> Self {
        Self::Rustls(Box::new(Buffered::new(tls, None)))
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
        guarded(|| engine!(self, it => it.open(input, record, reader)))
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

    /// What was opened is not read.
    pub(super) fn forget_opened(&mut self) {
        engine!(self, it => it.forget_opened());
    }

    /// The failure of a session that was begun elsewhere and has failed there.
    pub(super) fn take_failure(&mut self) -> Option<Error> {
        match self {
            Self::Rustls(it) => it.failure.take(),
            #[cfg(feature = "express")]
            Self::Express(_) => None,
        }
    }

    /// Seals up to `room` bytes; says how much. Where it is less than that and than was given, no more can be sealed: the
    /// key has done what it may, and there is no next one.
    pub(super) fn write(&mut self, parts: &[IoSlice<'_>], room: usize) -> usize {
        engine!(self, it => it.write(parts, room))
    }

    /// Answers a KeyUpdate that asked for one (rule: secure-7).
    pub(super) fn answer(&mut self) {
        engine!(self, it => it.answer());
    }

    pub(super) fn send_close_notify(&mut self) {
        engine!(self, it => it.send_close_notify());
    }

    /// Says that the session was cut off for a reason of ours, where the engine has a way to.
    pub(super) fn send_internal_error(&mut self) {
        engine!(self, it => it.send_internal_error());
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

    /// Throws the records that wait away.
    pub(super) fn discard(&mut self) {
        engine!(self, it => it.discard());
    }
}

/// Calls what a peer must not make panic, and whose panic would be ours: rustls runs code of the application's (verifiers,
/// resolvers, stores of sessions), and in debug builds asserts that it has sent no close_notify where a bad record calls
/// for a fatal alert. The session fails then, and rustls is asked nothing more.
fn guarded<T>(call: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(call))
        .unwrap_or_else(|_| Err(Error::General("a record made rustls, or what it was configured with, panic".into())))
}

/// rustls's buffered API.
pub(super) struct Buffered {
    tls: Connection,
    opened: usize,
    peer_has_closed: bool,
    /// How many bytes at the front of the input rustls has been fed already.
    ahead: usize,
    /// The most plaintext of a record; not known of a session that was begun elsewhere.
    fragment: Option<usize>,
    /// What the key may still seal, where that is known and there is no next one.
    budget: Option<Budget>,
    /// The failure, until it is told.
    failure: Option<Error>,
    has_failed: bool,
}

impl Buffered {
    fn new(mut tls: Connection, fragment: Option<usize>) -> Self {
        // Acceptance is decided by the watermarks; rustls never holds more than one call's records.
        tls.set_buffer_limit(None);
        let mut buffered = Self {
            tls,
            opened: 0,
            peer_has_closed: false,
            ahead: 0,
            fragment,
            budget: None,
            failure: None,
            has_failed: false,
        };
        // One that was begun elsewhere may have opened something there, and may have failed.
        buffered.failure = guarded(|| buffered.process()).err();
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
            Err(error) => return Err(error),
        };
        if let Some(budget) = self.budget.as_mut().filter(|_| self.tls.wants_write()) {
            // The refusal of a renegotiation.
            budget.spend_record();
        }
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
        let processed = self.tls.process_new_packets();
        let state = match processed {
            Ok(state) => state,
            Err(error) => {
                // rule: end-2: what was opened before the failure is read before it. rustls no longer says how much that is.
                self.has_failed = true;
                self.opened = self.first_chunk();
                return Err(error);
            }
        };
        self.opened = state.plaintext_bytes_to_read();
        self.peer_has_closed = state.peer_has_closed();
        Ok(())
    }

    /// How much plaintext lies in one piece.
    fn first_chunk(&mut self) -> usize {
        self.tls.reader().into_first_chunk().map_or(0, <[u8]>::len)
    }

    fn note_read(&mut self, n: usize) {
        self.opened -= n;
        if self.opened == 0 && self.has_failed {
            self.opened = self.first_chunk();
        }
    }

    /// TLS 1.3 has a next key, and rustls goes on to it by itself.
    fn finish_handshake(&mut self) -> Result<(), Error> {
        /// Finished.
        const SEALED: u64 = 1;
        if let (Some(SupportedCipherSuite::Tls12(suite)), Some(fragment)) =
            (self.tls.negotiated_cipher_suite(), self.fragment)
        {
            self.budget = Some(Budget::new(suite.common.confidentiality_limit, SEALED, fragment));
        }
        Ok(())
    }

    /// rustls has a buffer of its own for that.
    fn kept(&self) -> usize {
        0
    }

    fn forget_input(&mut self) {
        self.ahead = 0;
    }

    fn forget_opened(&mut self) {
        (self.opened, self.has_failed) = (0, false);
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
        let room = out.len().min(self.opened);
        // The reader's error says what the halves know already.
        let n = self.tls.reader().read(&mut out[..room]).unwrap_or(0);
        self.note_read(n);
        n
    }

    fn consume(&mut self, n: usize, _: &mut Buffer) {
        self.tls.reader().consume(n);
        self.note_read(n);
    }

    fn write(&mut self, parts: &[IoSlice<'_>], room: usize) -> usize {
        let room = self.budget.as_ref().map_or(room, |budget| room.min(budget.bytes()));
        let total: usize = parts.iter().map(|part| part.len()).sum();
        let accepted = match parts {
            [one] => self.tls.writer().write(&one[..one.len().min(room)]),
            _ if total <= room => self.tls.writer().write_vectored(parts),
            _ => self.tls.writer().write_vectored(&prefix(parts, room)),
        };
        if self.fragment.is_none() && self.ends_by_itself() {
            self.discard();
            return 0;
        }
        // rustls refuses only after its own failure, which was handled when it happened.
        let accepted = accepted.unwrap_or(0);
        if let Some(budget) = &mut self.budget {
            budget.spend(accepted);
        }
        accepted
    }

    /// Of a session that was begun elsewhere it is not known how much its key has sealed. When that is used up (TLS 1.2),
    /// rustls drops what it accepted and sends close_notify instead, which must not leave (rule: end-8). The type of a
    /// record is in the clear there; in TLS 1.3 it is always that of data.
    fn ends_by_itself(&mut self) -> bool {
        let mut first = First(None);
        let _ = self.tls.write_tls(&mut first);
        first.0 == Some(ContentType::Alert.into())
    }

    /// An empty write makes rustls send it.
    fn answer(&mut self) {
        let _ = self.tls.writer().write(&[]);
    }

    fn send_close_notify(&mut self) {
        self.tls.send_close_notify();
    }

    /// rustls has no way to send a fatal alert of ours.
    fn send_internal_error(&mut self) {}

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

    fn discard(&mut self) {
        while self.write_tls(&mut io::sink()).is_ok_and(|n| n > 0) {}
    }
}

/// Takes nothing, and looks at the first byte.
struct First(Option<u8>);

impl Write for First {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.or(bytes.first().copied());
        Ok(0)
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        parts.iter().try_for_each(|part| self.write(part).map(drop))?;
        Ok(0)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
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
