//! A peer on a plain socket.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rustls::AlertDescription;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Event, PATIENCE, note};
use crate::conn::socket;

const CHUNK: usize = 16 << 10;

/// A TCP peer that sends given bytes and records what it receives: data, FIN or RST.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use bowline::testing::peer::{Event, RawTcp};
/// use bowline::testing::{pki::Pki, raw_tcp_pair};
/// use bowline::{Policy, TcpConnection, TlsConnection};
///
/// let (ours, theirs) = raw_tcp_pair().await?;
/// let tls = Pki::new().server_tls();
/// let service = tokio::spawn(async move {
///     TlsConnection::accept(TcpConnection::new(ours, Policy::default())?, &tls).await
/// });
///
/// // A client that sends HTTP to a TLS port gets an alert, not RST.
/// let mut peer = RawTcp::new(theirs);
/// peer.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await?;
/// assert!(matches!(peer.observe().await, [Event::Data(_), Event::Fin]));
/// assert_eq!(peer.clear_alerts(), [bowline::rustls::AlertDescription::DecodeError]);
/// peer.fin()?;
/// assert!(service.await?.is_err());
/// # Ok(()) }
/// ```
pub struct RawTcp {
    /// `None` after [`reset`](Self::reset).
    stream: Option<TcpStream>,
    sent: u64,
    received: Vec<u8>,
    events: Vec<Event>,
    patience: Duration,
}

impl fmt::Debug for RawTcp {
    /// Shows how many bytes were sent and received, but not the bytes (rule: tcp-11).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stream, sent, received, events, patience: _ } = self;
        f.debug_struct("RawTcp")
            .field("stream", stream)
            .field("sent", sent)
            .field("received", &received.len())
            .field("events", events)
            .finish_non_exhaustive()
    }
}

impl RawTcp {
    /// Takes over a socket, and sets `TCP_NODELAY` on it.
    pub fn new(stream: TcpStream) -> Self {
        // If the peer is already gone, the next call reports it.
        let _ = stream.set_nodelay(true);
        Self { stream: Some(stream), sent: 0, received: Vec::new(), events: Vec::new(), patience: PATIENCE }
    }

    /// Connects.
    ///
    /// # Errors
    /// The error of the system: usually nothing listens at this address.
    pub async fn connect(addr: SocketAddr) -> io::Result<Self> {
        Ok(Self::new(TcpStream::connect(addr).await?))
    }

    /// Records [`Event::Silence`] after this time instead of [`PATIENCE`].
    pub fn patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Makes the kernel's receive buffer as small as possible, so that the sender stalls soon if this peer does not
    /// read.
    pub fn small_receive_buffer(self) -> Self {
        if let Some(stream) = &self.stream {
            let _ = SockRef::from(stream).set_recv_buffer_size(1);
        }
        self
    }

    /// Sends these bytes, in one segment if they fit.
    ///
    /// # Errors
    /// The socket's error; `TimedOut` if the other side does not accept the bytes.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let patience = self.patience;
        timeout(patience, self.stream()?.write_all(bytes)).await??;
        self.sent += bytes.len() as u64;
        Ok(())
    }

    /// Sends these bytes in segments of one byte.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn trickle(&mut self, bytes: &[u8]) -> io::Result<()> {
        for byte in bytes {
            self.send(&[*byte]).await?;
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Sends without reading, until this many bytes are sent or the other side accepts no more, because it is gone or
    /// has not read within the time that this peer waits. Returns how many bytes the kernel accepted.
    pub async fn talk(&mut self, bytes: u64) -> u64 {
        let chunk = [b'.'; CHUNK];
        let mut sent = 0;
        while sent < bytes {
            let n = chunk.len().min(usize::try_from(bytes - sent).unwrap_or(CHUNK));
            if self.send(&chunk[..n]).await.is_err() {
                break;
            }
            sent += n as u64;
        }
        sent
    }

    /// Sends FIN. This test peer can still receive.
    ///
    /// # Errors
    /// The socket's error.
    pub fn fin(&mut self) -> io::Result<()> {
        socket::Options::of(self.stream()?).shutdown_write()
    }

    /// Sends RST after the bytes that were sent. If the other side's kernel accepts them in time, it has all of them
    /// before the RST.
    pub async fn reset(&mut self) {
        if let Some(stream) = self.stream.take() {
            delivered(&stream, self.patience).await;
            socket::Options::of(&stream).reset_on_drop();
        }
    }

    /// Waits until this many bytes were received in total, or until the end.
    pub async fn receive(&mut self, bytes: usize) -> &[u8] {
        while self.received.len() < bytes && self.step().await {}
        &self.received
    }

    /// Receives until the end: FIN, RST, or silence. Returns all events from the beginning. After silence, it can be
    /// called again.
    pub async fn observe(&mut self) -> &[Event] {
        while self.step().await {}
        &self.events
    }

    /// The number of bytes that were sent.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// The events so far.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// The bytes that were received so far.
    pub fn received(&self) -> &[u8] {
        &self.received
    }

    /// The unencrypted TLS alerts among the received bytes. A failed handshake sends such alerts.
    pub fn clear_alerts(&self) -> Vec<AlertDescription> {
        let mut alerts = Vec::new();
        let mut rest = &self.received[..];
        while let [typ, 3, _, high, low, after @ ..] = rest {
            let length = usize::from(*high) << 8 | usize::from(*low);
            let Some((body, next)) = after.split_at_checked(length) else { break };
            if let (21, [_, alert]) = (*typ, body) {
                alerts.push(AlertDescription::from(*alert));
            }
            rest = next;
        }
        alerts
    }

    /// The socket.
    ///
    /// # Panics
    /// Panics after [`reset`](Self::reset).
    pub fn into_stream(self) -> TcpStream {
        self.stream.expect("a peer that has sent RST has no socket any more")
    }

    /// Takes the received bytes.
    pub(super) fn take_received(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.received)
    }

    /// Waits for the next event; `false` at the end, and if nothing happened.
    async fn step(&mut self) -> bool {
        !self.events.last().is_some_and(|event| event.is_final()) && self.fill().await != Event::Silence
    }

    /// Waits for the next event, and records it.
    pub(super) async fn fill(&mut self) -> Event {
        let patience = self.patience;
        let before = self.received.len();
        self.received.reserve(CHUNK);
        let event = match &mut self.stream {
            None => Event::Reset,
            Some(stream) => match timeout(patience, stream.read_buf(&mut self.received)).await {
                Err(_) => Event::Silence,
                Ok(Ok(0)) => Event::Fin,
                Ok(Ok(_)) => Event::Data((self.received.len() - before) as u64),
                Ok(Err(_)) => Event::Reset,
            },
        };
        note(&mut self.events, event);
        event
    }

    fn stream(&mut self) -> io::Result<&mut TcpStream> {
        self.stream.as_mut().ok_or_else(|| io::ErrorKind::ConnectionReset.into())
    }
}

/// Waits until the other side's kernel has the sent bytes, because RST discards bytes that have not been sent yet.
pub(super) async fn delivered(stream: &TcpStream, patience: Duration) {
    let all_acknowledged = async {
        while socket::in_flight(stream).is_some_and(|bytes| bytes > 0) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    // If the other side does not accept the bytes in time, the RST that follows discards them.
    let _ = timeout(patience, all_acknowledged).await;
}
