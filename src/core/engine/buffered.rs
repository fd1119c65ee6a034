//! rustls's buffered API as an engine.

use std::io::{self, BufRead, IoSlice, Read, Write};

use rustls::{AlertDescription, CommonState, Connection, ContentType, Error, SupportedCipherSuite};

use super::{RECORD_TYPES, guarded};
use crate::core::budget::Budget;
use crate::core::buffer::Buffer;

/// One session of rustls's.
pub(in crate::core) struct Buffered {
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
    pub(super) fn new(mut tls: Connection, fragment: Option<usize>) -> Self {
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

    pub(super) fn take_failure(&mut self) -> Option<Error> {
        self.failure.take()
    }

    pub(super) fn is_handshaking(&self) -> bool {
        self.tls.is_handshaking()
    }

    pub(super) fn common(&self) -> Option<&CommonState> {
        Some(&self.tls)
    }

    pub(super) fn take_sni(&mut self) -> Option<String> {
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
    pub(super) fn open(&mut self, input: &mut Buffer, record: usize, _: &mut [u8]) -> Result<usize, Error> {
        let is_begun = input.as_slice().get(record).is_some_and(|first| RECORD_TYPES.contains(first));
        let with_next = record + usize::from(is_begun && !self.tls.is_handshaking());
        let fed = self.feed(&input.as_slice()[self.ahead..with_next])?;
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
    pub(super) fn finish_handshake(&mut self) -> Result<(), Error> {
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
    pub(super) fn kept(&self) -> usize {
        0
    }

    pub(super) fn forget_input(&mut self) {
        self.ahead = 0;
    }

    pub(super) fn forget_opened(&mut self) {
        (self.opened, self.has_failed) = (0, false);
    }

    pub(super) fn alert_sent(&self) -> Option<AlertDescription> {
        None
    }

    pub(super) fn opened(&self) -> usize {
        self.opened
    }

    pub(super) fn peer_has_closed(&self) -> bool {
        self.peer_has_closed
    }

    pub(super) fn plaintext(&mut self, _: &Buffer) -> &[u8] {
        self.tls.reader().into_first_chunk().unwrap_or_default()
    }

    pub(super) fn read(&mut self, out: &mut [u8], _: &mut Buffer) -> usize {
        let room = out.len().min(self.opened);
        // The reader's error says what the halves know already.
        let n = self.tls.reader().read(&mut out[..room]).unwrap_or(0);
        self.note_read(n);
        n
    }

    pub(super) fn consume(&mut self, n: usize, _: &mut Buffer) {
        self.tls.reader().consume(n);
        self.note_read(n);
    }

    pub(super) fn write(&mut self, parts: &[IoSlice<'_>], room: usize) -> usize {
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
    pub(super) fn answer(&mut self) {
        let _ = self.tls.writer().write(&[]);
    }

    pub(super) fn send_close_notify(&mut self) {
        self.tls.send_close_notify();
    }

    /// A session that has failed is dead: rustls seals nothing more but a close_notify, and gives no keys away.
    pub(super) fn send_missing_alert(&mut self) {}

    /// rustls has no way to send a fatal alert of ours.
    pub(super) fn send_internal_error(&mut self) {}

    pub(super) fn wants_write(&self) -> bool {
        self.tls.wants_write()
    }

    pub(super) fn write_tls(&mut self, floor: &mut dyn Write) -> io::Result<usize> {
        self.tls.write_tls(floor)
    }

    pub(super) fn collect(&mut self, queue: &mut Buffer) {
        while self.wants_write() {
            // Writing into memory does not fail.
            if self.write_tls(queue).unwrap_or(0) == 0 {
                break;
            }
        }
    }

    pub(super) fn discard(&mut self) {
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
