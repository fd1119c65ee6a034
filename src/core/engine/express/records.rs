//! The record layer after the handshake.

use std::io::IoSlice;

use rustls::{
    AlertDescription, ContentType, Error, ExtractedSecrets, HandshakeType, InvalidMessage, PeerMisbehaved,
    ProtocolVersion, SupportedCipherSuite,
};

use super::Fault;
use super::aead::{Location, Opener, Plain, Sealer, WORTH_IT};
use super::keys::Kernel;
use super::slice_reader::SliceReader;
use crate::core::alert::alert_for;
use crate::core::buffer::Buffer;
use crate::core::record::{HEADER, MAX_BODY};

/// The longest handshake message; rustls has the same limit.
pub(super) const MAX_MESSAGE: usize = 0xffff;
/// The header of a handshake message: type, length.
const MESSAGE_HEADER: usize = 4;
/// The largest sequence number that is used, so that sequence numbers do not wrap (RFC 8446 section 5.3).
const LAST_SEQUENCE: u64 = u64::MAX - 0xffff;

/// The number of messages without any effect that a peer may send. rustls has the same limits.
struct Patience {
    empty_records: u8,
    warnings: u8,
    renegotiations: u8,
    key_updates: u8,
}

const PATIENCE: Patience = Patience { empty_records: 32, warnings: 4, renegotiations: 1, key_updates: 32 };

/// The content of a record.
pub(super) enum Found {
    /// This many bytes of data, which were written to the reader's buffer or are still in the record.
    Data { place: Location, len: usize },
    /// A record without data, which was processed.
    Nothing,
    /// close_notify.
    Closed,
}

/// The record layer of both directions.
pub(super) struct Records {
    suite: SupportedCipherSuite,
    kernel: Box<dyn Kernel>,
    tx: Sealer,
    tx_seq: u64,
    rx: Opener,
    rx_seq: u64,
    /// The start of an incomplete handshake message.
    fragment: Vec<u8>,
    patience: Patience,
    /// The peer has requested a KeyUpdate, and we have not answered it yet.
    owes_update: bool,
    /// The largest amount of plaintext in one of our records.
    max_fragment: usize,
    /// The number of records that may be sealed with one key (RFC 8446 section 5.5).
    limit: u64,
}

impl Records {
    pub(super) fn new(
        suite: SupportedCipherSuite,
        secrets: ExtractedSecrets,
        kernel: Box<dyn Kernel>,
        max_fragment: usize,
    ) -> Result<Self, Error> {
        let ExtractedSecrets { tx: (tx_seq, tx), rx: (rx_seq, rx) } = secrets;
        let tx = Sealer::new(suite, tx, tx_seq)?;
        let rx = Opener::new(suite, rx)?;
        Ok(Self {
            suite,
            kernel,
            tx,
            tx_seq,
            rx,
            rx_seq,
            fragment: Vec::new(),
            patience: PATIENCE,
            owes_update: false,
            max_fragment,
            limit: limit(suite),
        })
    }

    pub(super) fn suite(&self) -> SupportedCipherSuite {
        self.suite
    }

    fn is_tls13(&self) -> bool {
        self.suite.tls13().is_some()
    }
}

/// Methods that seal records.
impl Records {
    /// Seals data, and returns the number of bytes. In TLS 1.3, the last record of a key is the KeyUpdate to the next
    /// key. TLS 1.2 has no next key, so the last record is reserved for the alert that ends the session.
    pub(super) fn seal_data(&mut self, parts: &[IoSlice<'_>], room: usize, out: &mut Buffer) -> usize {
        let data = room.min(parts.iter().map(|part| part.len()).sum());
        if data == 0 {
            return 0;
        }
        if data <= self.max_fragment && self.tx_seq + 1 < self.limit {
            return if self.seal_fragment(&mut SliceReader::of(parts), data, out) { data } else { 0 };
        }
        self.seal_fragments(parts, data, out)
    }

    /// Seals data that needs more than one record, or the next key.
    #[inline(never)]
    fn seal_fragments(&mut self, parts: &[IoSlice<'_>], data: usize, out: &mut Buffer) -> usize {
        // The space is reserved at once, so that the queue does not double its memory.
        let max = self.max_fragment;
        let (full, rest) = (data / max, data % max);
        let _ = out.space_within(full * self.tx.record_len(max) + self.tx.record_len(rest), 0);
        let (mut parts, mut sealed) = (SliceReader::of(parts), 0);
        while sealed < data {
            if self.tx_seq + 1 >= self.limit && !self.renew_key(out) {
                break;
            }
            let len = max.min(data - sealed);
            if !self.seal_fragment(&mut parts, len, out) {
                break;
            }
            sealed += len;
        }
        sealed
    }

    #[cold]
    fn renew_key(&mut self, out: &mut Buffer) -> bool {
        // An unused key always seals one record. Otherwise, with a limit near zero, no data could be sent.
        self.is_tls13() && (self.tx_seq == 0 || self.update_key(out))
    }

    /// Sends a KeyUpdate that requests no answer, and changes to our next key (RFC 8446 section 4.6.3).
    fn update_key(&mut self, out: &mut Buffer) -> bool {
        const UPDATE_NOT_REQUESTED: u8 = 0;
        let message = [u8::from(HandshakeType::KeyUpdate), 0, 0, 1, UPDATE_NOT_REQUESTED];
        self.seal(ContentType::Handshake, &message, out);
        let next = self.kernel.update_tx().and_then(|secrets| Sealer::new(self.suite, secrets, 0));
        match next {
            Ok(next) => {
                (self.tx, self.tx_seq) = (next, 0);
                self.owes_update = false;
                true
            }
            Err(_) => false,
        }
    }

    /// Answers the KeyUpdate requests that have arrived. One answer serves all of them.
    pub(super) fn answer(&mut self, out: &mut Buffer) {
        if self.owes_update {
            self.update_key(out);
        }
    }

    pub(super) fn send_close_notify(&mut self, out: &mut Buffer) {
        const WARNING: u8 = 1;
        self.send_alert(WARNING, AlertDescription::CloseNotify, out);
    }

    pub(super) fn send_fatal(&mut self, alert: AlertDescription, out: &mut Buffer) {
        const FATAL: u8 = 2;
        self.send_alert(FATAL, alert, out);
    }

    /// Seals an alert. A pending answer to a KeyUpdate precedes it, as in rustls.
    fn send_alert(&mut self, level: u8, alert: AlertDescription, out: &mut Buffer) {
        self.answer(out);
        self.seal(ContentType::Alert, &[level, u8::from(alert)], out);
    }

    /// Seals a large piece of data from the caller's buffer, if it is in one slice. Other data is copied to the queue
    /// and sealed there.
    fn seal_fragment(&mut self, parts: &mut SliceReader<'_>, len: usize, out: &mut Buffer) -> bool {
        const TYPE: ContentType = ContentType::ApplicationData;
        if let Some(plain) = (len >= WORTH_IT).then(|| parts.take_piece(len)).flatten() {
            return self.seal_record(len, out, |tx, seq, record| tx.seal_from(TYPE, plain, seq, record));
        }
        self.seal_record(len, out, |tx, seq, record| {
            let head = tx.head();
            parts.copy_to(&mut record[head..head + len]);
            tx.seal(TYPE, len, seq, record)
        })
    }

    fn seal(&mut self, typ: ContentType, payload: &[u8], out: &mut Buffer) -> bool {
        self.seal_record(payload.len(), out, |tx, seq, record| tx.seal_from(typ, payload, seq, record))
    }

    /// Adds a record to the queue from which it is sent. `make` gets the number and the slice of the record. If `make`
    /// fails, no byte stays in the queue, and the number is not used again.
    #[inline]
    fn seal_record(
        &mut self,
        len: usize,
        out: &mut Buffer,
        make: impl FnOnce(&mut Sealer, u64, &mut [u8]) -> Result<(), Error>,
    ) -> bool {
        if self.tx_seq >= LAST_SEQUENCE {
            return false;
        }
        let whole = self.tx.record_len(len);
        let record = &mut out.space_within(whole, 0)[..whole];
        let sealed = make(&mut self.tx, self.tx_seq, record);
        self.tx_seq += 1;
        match sealed {
            Ok(()) => out.filled(whole),
            Err(_) => record.fill(0),
        }
        sealed.is_ok()
    }
}

/// Methods that open records.
impl Records {
    /// Opens one record: into `reader` if the record fits, otherwise in place. Records without data are processed here,
    /// and none of their bytes stay in `reader`.
    pub(super) fn open(&mut self, record: &mut [u8], reader: &mut [u8], out: &mut Buffer) -> Result<Found, Fault> {
        let header = check_header(record)?;
        let outer = header.0;
        if outer == ContentType::ChangeCipherSpec && self.fragment.is_empty() {
            // RFC 8446 section 5: change_cipher_spec is allowed only during the handshake.
            return Err(match record[HEADER..] {
                [1] => inappropriate(outer),
                _ => Error::from(InvalidMessage::InvalidCcs).into(),
            });
        }
        if self.rx_seq >= LAST_SEQUENCE {
            return Err(Error::DecryptError.into());
        }
        let Plain { typ, place, len } = self.rx.open(header, record, self.rx_seq, reader)?;
        self.rx_seq += 1;
        let payload = match place {
            Location::Reader => &mut reader[..len],
            Location::Record(skip) => &mut record[skip..skip + len],
        };
        let found = self.check_order(typ, len).and_then(|()| match typ {
            ContentType::ApplicationData => {
                self.patience.key_updates = PATIENCE.key_updates;
                Ok(Found::Data { place, len })
            }
            ContentType::Alert => self.handle_alert(payload),
            ContentType::Handshake => self.handle_fragment(payload, out).map(|()| Found::Nothing),
            ContentType::ChangeCipherSpec => Err(inappropriate(typ)),
            _ => Err(Error::from(InvalidMessage::InvalidContentType).into()),
        });
        if !matches!(found, Ok(Found::Data { .. })) {
            payload.fill(0);
        }
        found
    }

    pub(super) fn suits(&self, room: usize, record: usize) -> bool {
        self.rx.room_for(record).is_none_or(|needed| needed <= room)
    }

    fn check_order(&mut self, inner: ContentType, len: usize) -> Result<(), Fault> {
        if !self.fragment.is_empty() && inner != ContentType::Handshake {
            return Err(Error::from(PeerMisbehaved::MessageInterleavedWithHandshakeMessage).into());
        }
        match len {
            0 => spend(&mut self.patience.empty_records, PeerMisbehaved::TooManyEmptyFragments),
            _ => {
                self.patience.empty_records = PATIENCE.empty_records;
                Ok(())
            }
        }
    }

    /// RFC 8446 section 6, RFC 5246 section 7.2.
    #[cold]
    fn handle_alert(&mut self, alert: &[u8]) -> Result<Found, Fault> {
        const WARNING: u8 = 1;
        const FATAL: u8 = 2;
        let [level, alert] = *alert else {
            return Err(Error::from(InvalidMessage::MessageTooShort).into());
        };
        let alert = AlertDescription::from(alert);
        let fault = |answer| Err(Fault { error: Error::AlertReceived(alert), alert: answer });
        match level {
            WARNING | FATAL if alert == AlertDescription::CloseNotify => Ok(Found::Closed),
            WARNING => {
                spend(&mut self.patience.warnings, PeerMisbehaved::TooManyWarningAlertsReceived)?;
                // The only warning in TLS 1.3 is user_canceled.
                if self.is_tls13() && alert != AlertDescription::UserCanceled {
                    return fault(Some(AlertDescription::DecodeError));
                }
                Ok(Found::Nothing)
            }
            FATAL => fault(None),
            _ => fault(Some(AlertDescription::IllegalParameter)),
        }
    }

    /// Handles handshake data. A message may be split into several records, and a record may contain several messages.
    #[cold]
    fn handle_fragment(&mut self, bytes: &[u8], out: &mut Buffer) -> Result<(), Fault> {
        if bytes.is_empty() {
            // RFC 8446 section 5.1, RFC 5246 section 6.2.1: a peer must not send such a record.
            return Err(inappropriate(ContentType::Handshake));
        }
        let mut all = std::mem::take(&mut self.fragment);
        all.extend_from_slice(bytes);
        let mut done = 0;
        while let Some(&[typ, a, b, c]) = all[done..].first_chunk::<MESSAGE_HEADER>() {
            let len = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
            if len > MAX_MESSAGE {
                return Err(Error::from(InvalidMessage::HandshakePayloadTooLarge).into());
            }
            let end = done + MESSAGE_HEADER + len;
            let Some(body) = all.get(done + MESSAGE_HEADER..end) else { break };
            self.handle_message(HandshakeType::from(typ), body, end == all.len(), out)?;
            done = end;
        }
        // Only the bytes of an unfinished message are kept.
        all.drain(..done);
        if !all.is_empty() {
            self.fragment = all;
        }
        Ok(())
    }

    fn handle_message(
        &mut self,
        typ: HandshakeType,
        body: &[u8],
        is_last: bool,
        out: &mut Buffer,
    ) -> Result<(), Fault> {
        if !self.is_tls13() {
            return self.refuse_renegotiation(typ, out);
        }
        match typ {
            HandshakeType::KeyUpdate => self.handle_key_update(body, is_last),
            HandshakeType::NewSessionTicket => match self.kernel.handle_ticket(body) {
                Some(kept) => kept.map_err(Fault::from),
                None => Err(inappropriate_message(typ)),
            },
            _ => Err(inappropriate_message(typ)),
        }
    }

    /// RFC 5246 section 7.2.2: refuses a renegotiation with a warning. Too many requests are an error.
    fn refuse_renegotiation(&mut self, typ: HandshakeType, out: &mut Buffer) -> Result<(), Fault> {
        const WARNING: u8 = 1;
        if typ != self.kernel.renegotiates_by() {
            return Err(inappropriate_message(typ));
        }
        spend(&mut self.patience.renegotiations, PeerMisbehaved::TooManyRenegotiationRequests)?;
        self.send_alert(WARNING, AlertDescription::NoRenegotiation, out);
        Ok(())
    }

    /// RFC 8446 section 4.6.3. A message must not span a change of keys (section 5.1).
    fn handle_key_update(&mut self, body: &[u8], is_last: bool) -> Result<(), Fault> {
        const UPDATE_NOT_REQUESTED: u8 = 0;
        const UPDATE_REQUESTED: u8 = 1;
        let &[request] = body else { return Err(Error::from(InvalidMessage::MessageTooShort).into()) };
        if !is_last {
            return Err(unaligned());
        }
        spend(&mut self.patience.key_updates, PeerMisbehaved::TooManyKeyUpdateRequests)?;
        match request {
            UPDATE_NOT_REQUESTED => {}
            UPDATE_REQUESTED => self.owes_update = true,
            _ => return Err(Error::from(InvalidMessage::InvalidKeyUpdate).into()),
        }
        let next = self.kernel.update_rx().and_then(|secrets| Opener::new(self.suite, secrets))?;
        (self.rx, self.rx_seq) = (next, 0);
        Ok(())
    }
}

fn limit(suite: SupportedCipherSuite) -> u64 {
    let common = match suite {
        SupportedCipherSuite::Tls12(suite) => &suite.common,
        SupportedCipherSuite::Tls13(suite) => &suite.common,
    };
    common.confidentiality_limit.min(LAST_SEQUENCE)
}

/// Makes the same check as rustls.
fn check_header(record: &[u8]) -> Result<(ContentType, ProtocolVersion), Fault> {
    let Some(&[typ, major, minor, high, low]) = record.first_chunk::<HEADER>() else {
        return invalid(InvalidMessage::MessageTooShort);
    };
    let (typ, len) = (ContentType::from(typ), usize::from(high) << 8 | usize::from(low));
    if let ContentType::Unknown(_) = typ {
        return invalid(InvalidMessage::InvalidContentType);
    }
    if major != 3 {
        return invalid(InvalidMessage::UnknownProtocolVersion);
    }
    if len == 0 && typ != ContentType::ApplicationData {
        return invalid(InvalidMessage::InvalidEmptyPayload);
    }
    if len >= MAX_BODY || record.len() != HEADER + len {
        return invalid(InvalidMessage::MessageTooLarge);
    }
    Ok((typ, ProtocolVersion::from(u16::from(major) << 8 | u16::from(minor))))
}

#[cold]
fn invalid<T>(what: InvalidMessage) -> Result<T, Fault> {
    Err(Error::from(what).into())
}

fn spend(patience: &mut u8, then: PeerMisbehaved) -> Result<(), Fault> {
    match patience.checked_sub(1) {
        Some(left) => {
            *patience = left;
            Ok(())
        }
        None => Err(Error::from(then).into()),
    }
}

#[cold]
fn inappropriate(got_type: ContentType) -> Fault {
    let expect_types = vec![ContentType::ApplicationData, ContentType::Handshake];
    Error::InappropriateMessage { expect_types, got_type }.into()
}

#[cold]
fn inappropriate_message(got_type: HandshakeType) -> Fault {
    let expect_types = vec![HandshakeType::NewSessionTicket, HandshakeType::KeyUpdate];
    Error::InappropriateHandshakeMessage { expect_types, got_type }.into()
}

/// The error for a change of keys inside a handshake message.
pub(super) fn unaligned() -> Fault {
    Error::from(PeerMisbehaved::KeyEpochWithPendingFragment).into()
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self { alert: alert_for(&error), error }
    }
}
