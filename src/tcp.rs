//! The floor at the bottom: TCP.
//!
//! Plain bytes go straight between the application and the socket; no lock, no queue, no copy. The two halves share the
//! socket and nothing else.

use std::fmt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::close::{FloorKind, FloorReport};
use crate::control::{Control, Ground};
use crate::core::facts::SessionFacts;
use crate::core::half::{RecvEvent, RecvHalf, SendEvent, SendHalf};
use crate::core::inbox::Inbox;
use crate::error::{Error, Phase, Reason};
use crate::idle::HalfOpenTimer;
use crate::policy::Policy;
use crate::socket;
use crate::transport::{Discard, Floor, Transport, debug, poll_discard_reads};

/// A TCP connection.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// use bowline::Transport;
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// let (mut client, mut server) = bowline::testing::tcp_pair().await?;
/// client.write_all(b"ping").await?;
/// client.close_write().await?;
///
/// let mut all = String::new();
/// server.read_to_string(&mut all).await?;
/// server.write_all(b"pong").await?;
/// let (a, b) = tokio::join!(server.close(), client.close());
/// assert!(a.is_clean() && b.is_clean());
/// # Ok(()) }
/// ```
#[doc(alias = "ITCPTransport")]
#[doc(alias = "TcpStream")]
#[doc(alias = "TCPConn")]
pub struct TcpConnection {
    read: TcpReadHalf,
    write: TcpWriteHalf,
}

impl TcpConnection {
    /// Takes over a connected socket, and sets no-delay on it (rule: tcp-2). Fails where the socket has no peer any more.
    pub fn new(stream: TcpStream, policy: Arc<Policy>) -> io::Result<Self> {
        let (host, peer) = (stream.local_addr()?, stream.peer_addr()?);
        Ok(Self::between(stream, host, peer, policy))
    }

    /// Takes over a socket whose ends are known already: the system forgets the peer of one that was reset.
    pub(crate) fn between(stream: TcpStream, host: SocketAddr, peer: SocketAddr, policy: Arc<Policy>) -> Self {
        let control = Control::new(host.into(), peer.into(), policy);
        // rule: tcp-2. A socket whose peer is gone already may refuse it; reading tells the rest.
        let _ = socket::Options::of(&stream).set_nodelay(true);
        let wire = Arc::new(Wire {
            stream,
            control: control.clone(),
            fin_sent: AtomicBool::new(false),
            fin_received: AtomicBool::new(false),
            beneath: AtomicBool::new(false),
            held: AtomicBool::new(true),
        });
        let ground: Weak<dyn Ground> = Arc::downgrade(&(Arc::clone(&wire) as Arc<dyn Ground>));
        control.stand_on(ground);
        let wire = Hold(wire);
        let read = TcpReadHalf {
            wire: Some(Hold(Arc::clone(&wire.0))),
            control: control.clone(),
            half: RecvHalf::Open,
            inbox: Inbox::default(),
            timer: HalfOpenTimer::default(),
        };
        let (half, timer) = (SendHalf::Open, HalfOpenTimer::default());
        let write = TcpWriteHalf { wire: Some(wire), control, half, timer, corked: false };
        Self { read, write }
    }

    /// Two halves for two tasks. They share no lock. [`TcpReadHalf::reunite`] makes one of them again.
    ///
    /// A half that is dropped ends nothing; when both are dropped, the connection ends as a dropped connection does.
    pub fn into_split(self) -> (TcpReadHalf, TcpWriteHalf) {
        (self.read, self.write)
    }
}

/// The socket, shared by the two halves.
struct Wire {
    stream: TcpStream,
    control: Control,
    fin_sent: AtomicBool,
    /// The peer has ended its half, of this floor or of one above.
    fin_received: AtomicBool,
    /// A floor above tells the end by its own marker.
    beneath: AtomicBool,
    /// Both halves hold the socket.
    held: AtomicBool,
}

impl Wire {
    /// Both halves have let go: the connection ends now, whoever else may still look at the socket.
    fn end(&self) {
        self.note_unacknowledged();
        if !self.fin_sent.load(Ordering::Acquire) && !self.beneath.load(Ordering::Acquire) {
            // rule: close-12: FIN is this floor's marker; whoever was dropped in the middle must not send it.
            socket::reset(&self.stream);
        }
        self.control.note_gone();
    }
}

impl Wire {
    fn note_unacknowledged(&self) {
        let fin_sent = self.fin_sent.load(Ordering::Acquire);
        self.control.note_unacknowledged(socket::unacknowledged(&self.stream, fin_sent));
    }
}

/// A half's share of the socket.
struct Hold(Arc<Wire>);

impl Deref for Hold {
    type Target = Wire;

    fn deref(&self) -> &Wire {
        &self.0
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let was_held = self.held.swap(false, Ordering::AcqRel);
        if !was_held {
            self.end();
        }
    }
}

impl Ground for Wire {
    fn abort(&self) {
        // Asked first: what is dissolved has nothing to acknowledge.
        self.note_unacknowledged();
        socket::reset(&self.stream);
    }

    fn socket(&self) -> Option<&TcpStream> {
        Some(&self.stream)
    }
}

/// The receiving half of a [`TcpConnection`].
pub struct TcpReadHalf {
    wire: Option<Hold>,
    control: Control,
    half: RecvHalf,
    inbox: Inbox,
    timer: HalfOpenTimer,
}

impl TcpReadHalf {
    /// Makes one connection of the two halves again; gives them back where they are of different connections.
    pub fn reunite(self, write: TcpWriteHalf) -> Result<TcpConnection, Box<(Self, TcpWriteHalf)>> {
        if !self.control.is_same(&write.control) {
            return Err(Box::new((self, write)));
        }
        Ok(TcpConnection { read: self, write })
    }

    /// The handle of the connection.
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// How the half stands.
    pub fn status(&self) -> &RecvHalf {
        &self.half
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Some(wire) = self.wire.as_ref().filter(|_| self.half.is_open()) else { return Poll::Ready(self.at_end()) };
        let result = match poll_recv(wire, cx, buf) {
            Poll::Ready(result) => result,
            Poll::Pending => {
                let is_half_open = wire.fin_sent.load(Ordering::Acquire);
                ready!(self.timer.poll(cx, self.control.policy(), is_half_open));
                Err(Reason::TimedOut(Phase::HalfOpen).into())
            }
        };
        self.timer.reset();
        match result {
            Ok(0) if self.control.was_reset() => self.lose(Reason::Reset(Phase::Open)),
            Ok(0) => {
                let _ = self.half.handle(RecvEvent::Marker);
                let _ = self.half.handle(RecvEvent::Consumed);
                wire.fin_received.store(true, Ordering::Release);
                self.wire = None;
            }
            Ok(_) => return Poll::Ready(Ok(())),
            Err(error) => self.lose(Reason::from_io(error, Phase::Open)),
        }
        Poll::Ready(self.at_end())
    }

    fn lose(&mut self, reason: Reason) {
        if matches!(reason, Reason::Reset(_)) {
            self.control.note_reset();
        }
        let _ = self.half.handle(RecvEvent::FloorLost(reason));
        self.wire = None;
    }

    /// What every read says from the end on.
    fn at_end(&mut self) -> io::Result<()> {
        if self.control.is_aborted() {
            self.handle_abort();
        }
        match &self.half {
            RecvHalf::Open => Err(io::ErrorKind::NotConnected.into()),
            RecvHalf::Ending(_) | RecvHalf::Ended(_) => Ok(()),
            RecvHalf::Aborted => Err(Reason::Aborted.into()),
            RecvHalf::Broken(reason) => Err(reason.clone().into()),
        }
    }

    /// The socket goes; a half that has not ended yet has ended for this reason.
    fn end(&mut self, reason: &Reason) {
        let _ = self.half.handle(RecvEvent::FloorLost(reason.clone()));
        self.wire = None;
    }

    fn handle_abort(&mut self) {
        let _ = self.half.handle(RecvEvent::Abort);
        self.inbox.clear();
        self.wire = None;
    }
}

fn poll_send(
    wire: &Wire,
    cx: &mut Context<'_>,
    send: impl Fn(&TcpStream) -> io::Result<usize>,
) -> Poll<io::Result<usize>> {
    loop {
        ready!(wire.stream.poll_write_ready(cx))?;
        match send(&wire.stream) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return Poll::Ready(result),
        }
    }
}

fn poll_recv(wire: &Wire, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<usize>> {
    loop {
        ready!(wire.stream.poll_read_ready(cx))?;
        match wire.stream.try_read_buf(buf) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return Poll::Ready(result),
        }
    }
}

impl AsyncRead for TcpReadHalf {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.control.is_aborted() {
            return Poll::Ready(self.at_end());
        }
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if !self.inbox.is_empty() {
            let n = self.inbox.read(buf.initialize_unfilled());
            buf.advance(n);
            self.inbox.release();
            return Poll::Ready(Ok(()));
        }
        self.poll_fill(cx, buf)
    }
}

impl AsyncBufRead for TcpReadHalf {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        if this.control.is_aborted() {
            this.at_end()?;
        }
        if this.inbox.is_empty() {
            let mut inbox = std::mem::take(&mut this.inbox);
            let mut buf = ReadBuf::new(inbox.space());
            let result = this.poll_fill(cx, &mut buf);
            let n = buf.filled().len();
            inbox.filled(n);
            inbox.release();
            this.inbox = inbox;
            ready!(result)?;
        }
        Poll::Ready(Ok(this.inbox.as_slice()))
    }

    fn consume(mut self: Pin<&mut Self>, n: usize) {
        self.inbox.consume(n);
    }
}

/// The sending half of a [`TcpConnection`].
pub struct TcpWriteHalf {
    wire: Option<Hold>,
    control: Control,
    half: SendHalf,
    timer: HalfOpenTimer,
    corked: bool,
}

impl TcpWriteHalf {
    /// The handle of the connection.
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// How the half stands.
    pub fn status(&self) -> &SendHalf {
        &self.half
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        send: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        if self.control.is_aborted() {
            self.handle_abort();
        }
        let Some(wire) = self.wire.as_ref().filter(|_| self.half.may_write()) else {
            return Poll::Ready(Err(self.refusal()));
        };
        let result = match poll_send(wire, cx, send) {
            Poll::Ready(result) => result,
            Poll::Pending => {
                let is_half_open = wire.fin_received.load(Ordering::Acquire);
                ready!(self.timer.poll(cx, self.control.policy(), is_half_open));
                Err(Reason::TimedOut(Phase::HalfOpen).into())
            }
        };
        self.timer.reset();
        match result {
            Ok(n) => Poll::Ready(Ok(n)),
            Err(error) => {
                self.lose(Reason::from_io(error, Phase::Open));
                Poll::Ready(Err(self.refusal()))
            }
        }
    }

    fn lose(&mut self, reason: Reason) {
        if self.control.is_aborted() {
            return self.handle_abort();
        }
        if matches!(reason, Reason::Reset(_)) {
            self.control.note_reset();
        }
        let _ = self.half.handle(SendEvent::FloorLost(reason));
        self.wire = None;
    }

    /// What every write says after the end (rules: write-4, write-5).
    fn refusal(&self) -> io::Error {
        match &self.half {
            SendHalf::Open | SendHalf::Finishing | SendHalf::Finished => Error::SendClosed.into(),
            SendHalf::Aborted => Reason::Aborted.into(),
            SendHalf::Broken(reason) => reason.clone().into(),
        }
    }

    /// The socket goes; a half that has not ended yet has ended for this reason.
    fn end(&mut self, reason: &Reason) {
        let _ = self.half.handle(SendEvent::FloorLost(reason.clone()));
        self.wire = None;
    }

    fn handle_abort(&mut self) {
        let _ = self.half.handle(SendEvent::Abort);
        self.wire = None;
    }

    fn set_cork(&mut self, on: bool) {
        if let Some(wire) = self.wire.as_ref().filter(|_| on != self.corked) {
            socket::Options::of(&wire.stream).set_cork(on);
            self.corked = on;
        }
    }

    fn close_write(&mut self) -> io::Result<()> {
        if self.control.is_aborted() {
            self.handle_abort();
        }
        if self.half.handle(SendEvent::CloseWrite).is_err() {
            return Err(self.refusal());
        }
        let Some(wire) = self.wire.take() else { return Ok(()) };
        match socket::Options::of(&wire.stream).shutdown_write() {
            Ok(()) => {
                wire.fin_sent.store(true, Ordering::Release);
                let _ = self.half.handle(SendEvent::Drained);
                Ok(())
            }
            Err(error) => {
                // The system has no connection any more: it was reset, and the other half tells how.
                let reason = match error.kind() {
                    io::ErrorKind::NotConnected => Reason::Reset(Phase::Open),
                    _ => Reason::from_io(error, Phase::Open),
                };
                self.lose(reason);
                Err(self.refusal())
            }
        }
    }
}

impl AsyncWrite for TcpWriteHalf {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_send(cx, |stream| if buf.is_empty() { Ok(0) } else { stream.try_write(buf) })
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let is_empty = parts.iter().all(|part| part.is_empty());
        self.poll_send(cx, |stream| if is_empty { Ok(0) } else { stream.try_write_vectored(parts) })
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The kernel has all of it; under a cork it is told not to keep it.
        if self.corked {
            self.set_cork(false);
            self.set_cork(true);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.close_write())
    }
}

impl AsyncRead for TcpConnection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.read).poll_read(cx, buf)
    }
}

impl AsyncBufRead for TcpConnection {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        Pin::new(&mut self.get_mut().read).poll_fill_buf(cx)
    }

    fn consume(mut self: Pin<&mut Self>, n: usize) {
        Pin::new(&mut self.read).consume(n);
    }
}

impl AsyncWrite for TcpConnection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.write).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.write).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.write).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.write).poll_shutdown(cx)
    }
}

impl fmt::Debug for TcpConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug(self, "TcpConnection", f)
    }
}

impl fmt::Debug for TcpReadHalf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpReadHalf").field("half", &self.half).finish_non_exhaustive()
    }
}

impl fmt::Debug for TcpWriteHalf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpWriteHalf").field("half", &self.half).finish_non_exhaustive()
    }
}

impl Floor for TcpConnection {
    fn ground(&self) -> &Control {
        &self.write.control
    }

    fn halves(&self) -> (SendHalf, RecvHalf) {
        (self.write.half.clone(), self.read.half.clone())
    }

    fn queued_bytes(&self) -> usize {
        0
    }

    fn handle_abort(&mut self) {
        self.read.handle_abort();
        self.write.handle_abort();
    }

    fn begin_close(&mut self) {
        self.set_cork(false);
        self.read.inbox.clear();
        // The close has a bound of its own.
        self.read.timer.stop();
        self.write.timer.stop();
    }

    fn poll_discard(&mut self, cx: &mut Context<'_>, discarded: &mut Discard) -> Poll<()> {
        poll_discard_reads(&mut self.read, cx, discarded)
    }

    fn release(&mut self, reason: &Reason) {
        self.read.end(reason);
        self.write.end(reason);
    }

    fn set_cork(&mut self, on: bool) {
        self.write.set_cork(on);
    }

    fn take_unread(&mut self) -> Vec<u8> {
        self.read.inbox.take()
    }

    fn push_unread(&mut self, bytes: &[u8]) {
        self.read.inbox.push(bytes);
    }

    fn report_floors(&self, floors: &mut Vec<FloorReport>) {
        floors.push(FloorReport::of(FloorKind::Tcp, &self.write.half, &self.read.half));
    }

    fn may_write_in_wake(&self) -> bool {
        true
    }

    fn set_half_open(&mut self) {
        if let Some(wire) = &self.write.wire {
            wire.fin_received.store(true, Ordering::Release);
        }
    }

    fn set_beneath(&mut self, beneath: bool) {
        if let Some(wire) = &self.write.wire {
            wire.beneath.store(beneath, Ordering::Release);
        }
    }

    fn session_facts(&self) -> Option<Arc<SessionFacts>> {
        None
    }

    fn as_transport(&mut self) -> &mut dyn Transport {
        self
    }
}
