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

/// The most plaintext in a record (RFC 8446 section 5.1).
const MAX_PLAINTEXT: usize = 1 << 14;
const WARNING: u8 = 1;
const FATAL: u8 = 2;
const NEW_SESSION_TICKET: u8 = 4;
const KEY_UPDATE: u8 = 24;

/// A TLS peer that does a normal handshake. After that, it seals any record that a test asks for, and records every
/// record and every end that it sees.
///
/// Records are queued by [`data`](Self::data), [`close_notify`](Self::close_notify) and the like, and
/// [`send`](Self::send) sends them together, in one segment if they fit. The peer answers nothing by itself: no
/// close_notify and no KeyUpdate.
///
/// To misbehave during the handshake, use [`RawTcp`], or a normal peer that connects through a
/// [`Meddler`](super::Meddler). See the [module](super) for an example.
pub struct RawTls {
    tcp: RawTcp,
    records: Records,
    outgoing: Vec<u8>,
    incoming: Vec<u8>,
    plaintext: Vec<u8>,
    events: Vec<Event>,
    /// The received bytes can no longer be parsed.
    is_lost: bool,
}

impl RawTls {
    /// Does the handshake as a client.
    ///
    /// # Errors
    /// If the handshake fails: the cause, and the server's reaction.
    ///
    /// # Panics
    /// Panics if `name` is neither a DNS name nor an IP address.
    pub async fn client(stream: TcpStream, tls: &ClientTls, name: &str) -> Result<Self, HandshakeFailed> {
        let name = ServerName::try_from(name.to_owned()).expect("a raw peer is given a name that can be checked");
        let mut tcp = RawTcp::new(stream);
        let (records, leftover) = handshake::as_client(&mut tcp, &tls.config(), name).await?;
        Ok(Self::over(tcp, records, leftover))
    }

    /// Does the handshake as a server.
    ///
    /// # Errors
    /// If the handshake fails: the cause, and the client's reaction.
    pub async fn server(stream: TcpStream, tls: &ServerTls) -> Result<Self, HandshakeFailed> {
        let mut tcp = RawTcp::new(stream);
        let (records, leftover) = handshake::as_server(&mut tcp, &tls.config()).await?;
        Ok(Self::over(tcp, records, leftover))
    }

    fn over(tcp: RawTcp, records: Records, incoming: Vec<u8>) -> Self {
        let (outgoing, plaintext, events) = (Vec::new(), Vec::new(), Vec::new());
        Self { tcp, records, outgoing, incoming, plaintext, events, is_lost: false }
    }

    /// Records [`Event::Silence`] after this time instead of [`PATIENCE`](super::PATIENCE).
    pub fn patience(self, patience: Duration) -> Self {
        Self { tcp: self.tcp.patience(patience), ..self }
    }

    /// The negotiated version.
    pub fn version(&self) -> ProtocolVersion {
        self.records.version()
    }
}

/// Methods that send.
impl RawTls {
    /// Queues data, in as many records as necessary.
    pub fn data(&mut self, bytes: &[u8]) -> &mut Self {
        for part in bytes.chunks(MAX_PLAINTEXT) {
            self.record(ContentType::ApplicationData, part);
        }
        self
    }

    /// Queues a close_notify. It may be the second one, and data may follow it.
    pub fn close_notify(&mut self) -> &mut Self {
        self.record(ContentType::Alert, &[WARNING, AlertDescription::CloseNotify.into()])
    }

    /// Queues a fatal alert.
    pub fn alert(&mut self, alert: AlertDescription) -> &mut Self {
        self.record(ContentType::Alert, &[FATAL, alert.into()])
    }

    /// Queues a KeyUpdate, with or without a request for an answer. Records that are queued after it are sealed with
    /// the new keys.
    ///
    /// # Panics
    /// Panics in TLS 1.2, which has no KeyUpdate.
    pub fn key_update(&mut self, request_answer: bool) -> &mut Self {
        self.record(ContentType::Handshake, &[KEY_UPDATE, 0, 0, 1, request_answer.into()]);
        self.records.update_send_keys().expect("only TLS 1.3 has KeyUpdate");
        self
    }

    /// Queues one record with this content, valid or not: for example an empty record, one that is too long, or one of
    /// an unknown type.
    ///
    /// # Panics
    /// Panics from 64 KiB on, because a record header cannot express that length.
    pub fn record(&mut self, typ: ContentType, payload: &[u8]) -> &mut Self {
        let record = self.records.seal(typ, payload);
        self.outgoing.extend(record);
        self
    }

    /// Queues bytes without sealing them: for example junk, an unencrypted alert, or the plaintext after a downgrade.
    pub fn clear(&mut self, bytes: &[u8]) -> &mut Self {
        self.outgoing.extend_from_slice(bytes);
        self
    }

    /// The number of queued bytes, sealed and with headers.
    pub fn queued(&self) -> u64 {
        self.outgoing.len() as u64
    }

    /// The number of bytes that were sent, including the handshake. The next queued record starts at this offset of its
    /// [`Direction`](super::Direction).
    pub fn sent(&self) -> u64 {
        self.tcp.sent()
    }

    /// Takes the queued bytes instead of sending them, so that a test can cut them and send them with
    /// [`clear`](Self::clear).
    pub fn take_queued(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.outgoing)
    }

    /// Sends the queued bytes.
    ///
    /// # Errors
    /// The socket's error; `TimedOut` if the other side does not accept the bytes.
    pub async fn send(&mut self) -> io::Result<()> {
        let records = self.take_queued();
        self.tcp.send(&records).await
    }

    /// Sends the queued bytes in segments of one byte.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn trickle(&mut self) -> io::Result<()> {
        let records = self.take_queued();
        self.tcp.trickle(&records).await
    }

    /// Sends data without reading, until this many bytes are sent or the other side accepts no more, because it is gone
    /// or has not read within the time that this peer waits. Returns how many bytes the kernel accepted.
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

    /// Sends FIN, with or without a close_notify before it.
    ///
    /// # Errors
    /// The socket's error.
    pub fn fin(&mut self) -> io::Result<()> {
        self.tcp.fin()
    }

    /// Sends RST after the bytes that were sent.
    pub async fn reset(&mut self) {
        self.tcp.reset().await;
    }

    /// Returns the socket. Received bytes that were not processed are lost.
    ///
    /// # Panics
    /// Panics after [`reset`](Self::reset).
    pub fn into_stream(self) -> TcpStream {
        self.tcp.into_stream()
    }
}

/// Methods that receive.
impl RawTls {
    /// Waits until this many bytes of plaintext were received in total, or until the end.
    pub async fn receive(&mut self, bytes: usize) -> &[u8] {
        while self.plaintext.len() < bytes && self.step().await {}
        &self.plaintext
    }

    /// Waits until this event was seen, or until the end. Returns whether it was seen.
    pub async fn wait_for(&mut self, event: Event) -> bool {
        while !self.events.contains(&event) && self.step().await {}
        self.events.contains(&event)
    }

    /// Receives until the end: FIN, RST, or silence. Returns all events since the handshake. After silence, it can be
    /// called again.
    pub async fn observe(&mut self) -> &[Event] {
        while self.step().await {}
        &self.events
    }

    /// The events so far.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// The plaintext that was received so far.
    pub fn received(&self) -> &[u8] {
        &self.plaintext
    }

    /// Received bytes that are not a complete record (yet).
    pub fn unopened(&self) -> &[u8] {
        &self.incoming
    }

    /// Opens the next received record, or waits for more bytes; `false` at the end, and if nothing came.
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

    /// Handles handshake messages after the handshake.
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
