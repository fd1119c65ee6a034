//! rustls's buffered API as an engine.

use std::io::{self, BufRead, IoSlice, Read, Write};

use rustls::{CommonState, Connection, ContentType, Error, SupportedCipherSuite};

use super::alignment::CopyAlignment;
use super::export::Master;
use super::guarded;
use super::hello::Hello;
use super::interface::Engine;
use crate::core::buffer::Buffer;
use crate::core::key_budget::KeyBudget;
use crate::core::record::{HEADER, MAX_FRAGMENT, RECORD_TYPES};
use crate::error::SessionError;

/// The largest overhead of a record of rustls's own suites, in bytes.
const RECORD_COST: usize = HEADER + 8 + 16;

/// One rustls session.
pub(in crate::core) struct Buffered {
    tls: Connection,
    opened: usize,
    /// The close_notify of the peer has arrived. Opened data may precede it.
    peer_has_closed: bool,
    /// The number of bytes at the front of the input that were already fed to rustls.
    ahead: usize,
    /// The largest amount of plaintext in a record; `None` for a session that another library started.
    fragment: Option<usize>,
    /// How much the key may still seal; `None` if this is unknown, or if another key follows.
    budget: Option<KeyBudget>,
    /// The failure; `None` after it was reported.
    failure: Option<Error>,
    /// rustls has failed. It no longer reports how much plaintext it holds, and the application reads that first.
    has_failed: bool,
    alignment: CopyAlignment,
    /// The peer's first hello. [`Hello::unwanted`] replaces it when the handshake is done.
    hello: Hello,
    master: Master,
}

/// Bytes for rustls to read, and the address to which rustls has copied the first of them.
struct Input<'a> {
    rest: &'a [u8],
    place: Option<usize>,
}

impl Read for Input<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.place.get_or_insert(out.as_ptr() as usize);
        self.rest.read(out)
    }
}

impl Buffered {
    pub(super) fn new(mut tls: Connection, fragment: Option<usize>) -> Self {
        // No limit is needed here: the watermarks decide how much is accepted, and rustls holds only the records of one
        // call.
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
            alignment: CopyAlignment::default(),
            // `fragment` is `None` in a session that another library began. The peer's hello has already passed there.
            hello: if fragment.is_some() { Hello::default() } else { Hello::unwanted() },
            master: Master::default(),
        };
        // A session that another library started may hold opened data, and may have failed.
        buffered.failure = guarded(|| buffered.process()).err();
        buffered
    }

    /// Feeds bytes to rustls, and returns how many it has read.
    fn feed(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        let mut input = Input { rest: bytes, place: None };
        // rustls treats a read of 0 bytes as the end of the stream, so it must never get an empty reader.
        while !input.rest.is_empty() {
            let taken = self.tls.read_tls(&mut input);
            if let Some(place) = input.place {
                self.alignment.note_source(place, self.ahead);
            }
            match taken {
                // The buffer of rustls is full of plaintext, which must be read first, or of a handshake message
                // without an end. Or the peer's close_notify has arrived, and rustls reads nothing more.
                Ok(0) | Err(_) => break,
                Ok(_) => self.process()?,
            }
        }
        Ok(bytes.len() - input.rest.len())
    }

    /// Called once for each read, and never after a failure. At a second call, rustls 0.23.46 would panic after an
    /// empty handshake record, which it has discarded but still counts.
    fn process(&mut self) -> Result<(), Error> {
        let processed = self.tls.process_new_packets();
        let state = match processed {
            Ok(state) => state,
            Err(error) => {
                // rule: end-2: the application first reads the data that was opened before the failure. rustls no
                // longer reports its length.
                self.has_failed = true;
                self.opened = self.first_chunk();
                return Err(error);
            }
        };
        self.opened = state.plaintext_bytes_to_read();
        self.peer_has_closed = state.peer_has_closed();
        if self.opened > 0 {
            self.alignment.note_target(self.tls.reader().into_first_chunk().unwrap_or_default());
        }
        Ok(())
    }

    /// The length of the first contiguous piece of plaintext.
    fn first_chunk(&mut self) -> usize {
        self.tls.reader().into_first_chunk().map_or(0, <[u8]>::len)
    }

    fn note_read(&mut self, n: usize) {
        self.opened -= n;
        if self.opened == 0 {
            self.alignment.note_freed();
        }
        if self.opened == 0 && self.has_failed {
            self.opened = self.first_chunk();
        }
    }

    /// Whether rustls has sealed close_notify instead of data. If another library started the session, it is unknown
    /// how much its key has sealed. When the key is used up (TLS 1.2), rustls drops the accepted data and seals
    /// close_notify instead, which must not be sent (rule: end-8). In TLS 1.2 the type of a record is not encrypted. In
    /// TLS 1.3 the visible type is always that of data.
    fn ends_by_itself(&mut self) -> bool {
        let mut first = First(None);
        let _ = self.tls.write_tls(&mut first);
        first.0 == Some(ContentType::Alert.into())
    }
}

/// Some methods keep the trait's default body: rustls copies the start of a message to its own buffer, and the reader
/// gets a copy in any case. rustls cannot send a fatal alert of ours: after a failure, it seals only a close_notify,
/// and does not let its keys be extracted.
impl Engine for Buffered {
    fn take_failure(&mut self) -> Option<Error> {
        self.failure.take()
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

    /// rustls opens the record in its own memory, from which the reader copies.
    ///
    /// If the next record has started to arrive, its first byte is fed together with this record. Otherwise rustls
    /// would shrink its empty buffer to 4 KiB, and would then read and check each record in five pieces. The byte also
    /// stays in the input, because after a close_notify it belongs to the plaintext. A byte that cannot start a record
    /// is not fed, because it would make this record fail.
    fn open(&mut self, input: &mut Buffer, record: usize, _: &mut [u8]) -> Result<usize, Error> {
        self.hello.read(&input.as_slice()[..record]);
        let is_begun = input.as_slice().get(record).is_some_and(|first| RECORD_TYPES.contains(first));
        let with_next = record + usize::from(is_begun && !self.tls.is_handshaking());
        let fed = self.feed(&input.as_slice()[self.ahead..with_next])?;
        if let Some(budget) = self.budget.as_mut().filter(|_| self.tls.wants_write()) {
            // rustls has refused a renegotiation, and the alert for it is a record that our key has sealed.
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

    /// In TLS 1.3 there is a next key, and rustls changes to it by itself, so no budget is needed.
    fn finish_handshake(&mut self) -> Result<(), Error> {
        /// The key has sealed one record in the handshake: Finished.
        const SEALED: u64 = 1;
        if let (Some(SupportedCipherSuite::Tls12(suite)), Some(fragment)) =
            (self.tls.negotiated_cipher_suite(), self.fragment)
        {
            self.budget = Some(KeyBudget::new(suite.common.confidentiality_limit, SEALED, fragment));
        }
        self.master = Master::of(&self.tls, &self.hello);
        self.hello = Hello::unwanted();
        Ok(())
    }

    fn master(&self) -> Master {
        self.master
    }

    fn export(&self, out: &mut [u8], label: &[u8], context: Option<&[u8]>) -> Result<(), SessionError> {
        self.tls.export_keying_material(out, label, context).map(drop).map_err(SessionError::Export)
    }

    fn forget_input(&mut self) {
        self.ahead = 0;
    }

    fn forget_opened(&mut self) {
        (self.opened, self.has_failed) = (0, false);
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
        // An error of the reader is ignored, because the receive half has it already.
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
        // rustls returns an error only after its own failure, which was handled when it occurred.
        let accepted = accepted.unwrap_or(0);
        if let Some(budget) = &mut self.budget {
            budget.spend(accepted);
        }
        accepted
    }

    fn write_after(&mut self, parts: &[IoSlice<'_>], room: usize, queue: &mut Buffer) -> usize {
        let sealed = self.write(parts, room);
        // The space is reserved at once, so that the queue does not double its memory.
        let _ = queue.space_within(sealed + RECORD_COST * (sealed / MAX_FRAGMENT + 1), 0);
        self.collect(queue);
        sealed
    }

    /// Makes rustls send the answer, by an empty write.
    fn answer(&mut self) {
        let _ = self.tls.writer().write(&[]);
    }

    fn send_close_notify(&mut self) {
        self.tls.send_close_notify();
    }

    fn wants_write(&self) -> bool {
        self.tls.wants_write()
    }

    fn write_tls(&mut self, layer: &mut dyn Write) -> io::Result<usize> {
        self.tls.write_tls(layer)
    }

    fn collect(&mut self, queue: &mut Buffer) {
        while self.wants_write() {
            // Writing to memory does not fail.
            if self.write_tls(queue).unwrap_or(0) == 0 {
                break;
            }
        }
    }

    fn discard(&mut self) {
        while self.write_tls(&mut io::sink()).is_ok_and(|n| n > 0) {}
    }
}

/// A writer that remembers the first byte that it is offered, and accepts none.
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

/// The first `room` bytes of a list of slices.
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
