//! A TLS peer that seals any record.

use std::fmt;
use std::io;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{AlertDescription, ContentType, ProtocolVersion};
use tokio::net::TcpStream;

use super::handshake::{self, HandshakeFailed};
use super::record::{Records, whole_record};
use super::{Event, RawTcp, note};
use crate::config::{ClientTls, ServerTls};

/// How much plaintext a record may hold (RFC 8446 section 5.1).
const MAX_PLAINTEXT: usize = 1 << 14;
const WARNING: u8 = 1;
const FATAL: u8 = 2;
const NEW_SESSION_TICKET: u8 = 4;
const KEY_UPDATE: u8 = 24;

/// A TLS peer that, once an honest handshake is done, seals whatever record it is told to, and writes down every record
/// and every ending that it sees.
///
/// Records are queued by [`data`](Self::data), [`close_notify`](Self::close_notify) and the like, and leave together by
/// [`send`](Self::send): in one segment, where they fit into one. It answers nothing by itself: no close_notify, no
/// KeyUpdate.
///
/// To misbehave inside the handshake use [`RawTcp`], or an honest peer behind a [`Meddler`](super::Meddler). See the
/// [module](super) for an example.
pub struct RawTls {
    tcp: RawTcp,
    records: Records,
    outgoing: Vec<u8>,
    incoming: Vec<u8>,
    plaintext: Vec<u8>,
    events: Vec<Event>,
    /// What came cannot be understood any more.
    is_lost: bool,
}

impl RawTls {
    /// Makes the handshake as a client.
    ///
    /// # Errors
    /// Where the handshake fails: why, and what the server did then.
    ///
    /// # Panics
    /// Where `name` is neither a DNS name nor an IP address.
    pub async fn client(stream: TcpStream, tls: &ClientTls, name: &str) -> Result<Self, HandshakeFailed> {
        let name = ServerName::try_from(name.to_owned()).expect("a raw peer is given a name that can be checked");
        let mut tcp = RawTcp::new(stream);
        let (records, leftover) = handshake::as_client(&mut tcp, tls.config(), name).await?;
        Ok(Self::over(tcp, records, leftover))
    }

    /// Makes the handshake as a server.
    ///
    /// # Errors
    /// Where the handshake fails: why, and what the client did then.
    pub async fn server(stream: TcpStream, tls: &ServerTls) -> Result<Self, HandshakeFailed> {
        let mut tcp = RawTcp::new(stream);
        let (records, leftover) = handshake::as_server(&mut tcp, tls.config()).await?;
        Ok(Self::over(tcp, records, leftover))
    }

    fn over(tcp: RawTcp, records: Records, incoming: Vec<u8>) -> Self {
        let (outgoing, plaintext, events) = (Vec::new(), Vec::new(), Vec::new());
        Self { tcp, records, outgoing, incoming, plaintext, events, is_lost: false }
    }

    /// Waits for this long, instead of [`PATIENCE`](super::PATIENCE), before it calls something [`Event::Silence`].
    pub fn patience(self, patience: Duration) -> Self {
        Self { tcp: self.tcp.patience(patience), ..self }
    }

    /// The version that was agreed on.
    pub fn version(&self) -> ProtocolVersion {
        self.records.version()
    }
}

/// What it sends.
impl RawTls {
    /// Queues data, in as many records as it takes.
    pub fn data(&mut self, bytes: &[u8]) -> &mut Self {
        for part in bytes.chunks(MAX_PLAINTEXT) {
            self.record(ContentType::ApplicationData, part);
        }
        self
    }

    /// Queues a close_notify. Nothing keeps it from being the second one, or from having data behind it.
    pub fn close_notify(&mut self) -> &mut Self {
        self.record(ContentType::Alert, &[WARNING, AlertDescription::CloseNotify.into()])
    }

    /// Queues a fatal alert.
    pub fn alert(&mut self, alert: AlertDescription) -> &mut Self {
        self.record(ContentType::Alert, &[FATAL, alert.into()])
    }

    /// Queues a KeyUpdate, which asks for an answer or does not. What is queued behind it is sealed with the new keys.
    ///
    /// # Panics
    /// In TLS 1.2, which has none.
    pub fn key_update(&mut self, request_answer: bool) -> &mut Self {
        self.record(ContentType::Handshake, &[KEY_UPDATE, 0, 0, 1, request_answer.into()]);
        self.records.update_send_keys().expect("only TLS 1.3 has KeyUpdate");
        self
    }

    /// Queues one record with this in it, allowed or not: an empty one, one that is too long, an unknown type.
    ///
    /// # Panics
    /// From 64 KiB on, which no record header can say.
    pub fn record(&mut self, typ: ContentType, payload: &[u8]) -> &mut Self {
        let record = self.records.seal(typ, payload);
        self.outgoing.extend(record);
        self
    }

    /// Queues bytes as they are, unsealed: junk, an alert in the clear, the begin of the plaintext after a downgrade.
    pub fn clear(&mut self, bytes: &[u8]) -> &mut Self {
        self.outgoing.extend_from_slice(bytes);
        self
    }

    /// How many bytes are queued, sealed and with their headers.
    pub fn queued(&self) -> u64 {
        self.outgoing.len() as u64
    }

    /// How many bytes were sent, the handshake and all: what is queued next begins at this offset of its
    /// [`Lane`](super::Lane).
    pub fn sent(&self) -> u64 {
        self.tcp.sent()
    }

    /// Takes what is queued instead of sending it, to cut it somewhere and to send it by [`clear`](Self::clear).
    pub fn take_queued(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.outgoing)
    }

    /// Sends what is queued.
    ///
    /// # Errors
    /// What the socket says; `TimedOut` where the other side does not take it.
    pub async fn send(&mut self) -> io::Result<()> {
        let records = self.take_queued();
        self.tcp.send(&records).await
    }

    /// Sends what is queued, in segments of one byte.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn trickle(&mut self) -> io::Result<()> {
        let records = self.take_queued();
        self.tcp.trickle(&records).await
    }

    /// Sends data without listening until so many bytes are sent, or until the other side takes no more: it has gone, or
    /// has not read for as long as this peer waits. Returns how many bytes the kernel took.
    pub async fn talk(&mut self, bytes: u64) -> u64 {
        let chunk = [b'.'; MAX_PLAINTEXT];
        let mut sent = 0;
        while sent < bytes {
            let n = chunk.len().min(usize::try_from(bytes - sent).unwrap_or(MAX_PLAINTEXT));
            if self.data(&chunk[..n]).send().await.is_err() {
                break;
            }
            sent += n as u64;
        }
        sent
    }

    /// FIN, whether there was a close_notify or not.
    ///
    /// # Errors
    /// What the socket says.
    pub fn fin(&mut self) -> io::Result<()> {
        self.tcp.fin()
    }

    /// RST, behind what was sent.
    pub async fn reset(&mut self) {
        self.tcp.reset().await;
    }

    /// The socket. What was received and not looked at is lost.
    ///
    /// # Panics
    /// After [`reset`](Self::reset).
    pub fn into_stream(self) -> TcpStream {
        self.tcp.into_stream()
    }
}

/// What it sees.
impl RawTls {
    /// Waits until so many bytes of plaintext were received, all in all, or until the end.
    pub async fn receive(&mut self, bytes: usize) -> &[u8] {
        while self.plaintext.len() < bytes && self.step().await {}
        &self.plaintext
    }

    /// Waits until this was seen, or until the end. Whether it was seen.
    pub async fn wait_for(&mut self, event: Event) -> bool {
        while !self.events.contains(&event) && self.step().await {}
        self.events.contains(&event)
    }

    /// Listens to the end: FIN, RST, or silence. Returns all that was seen from the handshake on. After silence it can be
    /// called again.
    pub async fn observe(&mut self) -> &[Event] {
        while self.step().await {}
        &self.events
    }

    /// What was seen so far.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// The plaintext that was received so far.
    pub fn received(&self) -> &[u8] {
        &self.plaintext
    }

    /// What came and is no whole record (yet).
    pub fn unopened(&self) -> &[u8] {
        &self.incoming
    }

    /// Opens what is there, or waits for more; `false` at the end, and where nothing came.
    async fn step(&mut self) -> bool {
        if !self.is_lost {
            if let Some(length) = whole_record(&self.incoming) {
                let mut record: Vec<u8> = self.incoming.drain(..length).collect();
                self.open(&mut record);
                return true;
            }
        }
        if self.events.last().is_some_and(|event| event.is_final()) {
            return false;
        }
        let event = self.tcp.fill().await;
        match event {
            Event::Data(_) => self.incoming.extend(self.tcp.take_received()),
            end => self.note(end),
        }
        event != Event::Silence
    }

    fn open(&mut self, record: &mut [u8]) {
        match self.records.open(record) {
            Ok((ContentType::ApplicationData, data)) => {
                self.note(Event::Data(data.len() as u64));
                self.plaintext.extend(data);
            }
            Ok((ContentType::Alert, alert)) => match alert[..] {
                [_, alert] if AlertDescription::from(alert) == AlertDescription::CloseNotify => {
                    self.note(Event::CloseNotify);
                }
                [_, alert] => self.note(Event::Alert(alert.into())),
                _ => self.lose(),
            },
            Ok((ContentType::Handshake, messages)) => self.handle_messages(&messages),
            Ok((ContentType::ChangeCipherSpec, _)) => {}
            Ok(_) | Err(_) => self.lose(),
        }
    }

    /// Handshake messages behind the handshake.
    fn handle_messages(&mut self, mut messages: &[u8]) {
        while let [typ, high, middle, low, rest @ ..] = messages {
            let length = usize::from(*high) << 16 | usize::from(*middle) << 8 | usize::from(*low);
            let Some((body, next)) = rest.split_at_checked(length) else { return self.lose() };
            match (*typ, body) {
                (KEY_UPDATE, [requested]) if self.records.update_receive_keys().is_ok() => {
                    self.note(Event::KeyUpdate { requested: *requested == 1 });
                }
                (NEW_SESSION_TICKET, _) => {}
                _ => return self.lose(),
            }
            messages = next;
        }
    }

    fn note(&mut self, event: Event) {
        note(&mut self.events, event);
    }

    fn lose(&mut self) {
        self.is_lost = true;
        self.note(Event::Garbage);
    }
}

impl fmt::Debug for RawTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawTls").field("events", &self.events).finish_non_exhaustive()
    }
}
