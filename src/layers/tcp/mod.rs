//! The TCP layer, at the bottom of a connection.
//!
//! Bytes pass directly between the application and the socket, without a lock, a queue or a copy. The two halves share
//! only the socket.

mod calls;
mod half;
mod hello;
mod read;
mod shared;
mod split;
mod write;

use std::fmt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

pub use self::read::TcpReadHalf;
use self::shared::{SharedTcp, SocketShare};
pub use self::write::TcpWriteHalf;
use crate::conn::control::{Control, Controlled};
use crate::conn::options::{SocketOptions, TcpOptions};
use crate::conn::socket;
use crate::core::half::{RecvHalf, SendHalf};
use crate::core::report::{LayerKind, LayerReport};
use crate::error::Reason;
use crate::policy::Policy;
use crate::transport::Transport;
use crate::transport::layer::{AsLayer, Discard, Layer, Token, debug, lends_itself, poll_discard_reads};
use crate::transport::tcp::{TcpTransport, options};

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
    /// Takes over a connected socket, and sets no-delay on it (rule: tcp-2).
    ///
    /// # Errors
    /// The error of the system if the socket has no peer any more.
    #[track_caller]
    pub fn new(stream: TcpStream, policy: impl Into<Arc<Policy>>) -> io::Result<Self> {
        let (host, peer) = (stream.local_addr()?, stream.peer_addr()?);
        let connection = Self::between(stream, host, peer, policy.into());
        connection.write.control_ref().announce(Location::caller());
        Ok(connection)
    }

    /// Takes over a socket whose addresses are already known. This matters because the system no longer knows the
    /// peer's address after a reset.
    pub(crate) fn between(stream: TcpStream, host: SocketAddr, peer: SocketAddr, policy: Arc<Policy>) -> Self {
        // rule: tcp-2. A socket whose peer is already gone may refuse the option; the next read reports the loss.
        let _ = socket::Options::of(&stream).set_nodelay(true);
        Self::with_nodelay(stream, host, peer, policy)
    }

    /// As `between`, for a socket that has `TCP_NODELAY` set already, because it inherited the option from its
    /// listener.
    pub(crate) fn with_nodelay(stream: TcpStream, host: SocketAddr, peer: SocketAddr, policy: Arc<Policy>) -> Self {
        let [reading, writing] = SocketShare::pair(stream, host, peer, policy);
        Self { read: TcpReadHalf::new(reading), write: TcpWriteHalf::new(writing) }
    }

    /// A second connection on a socket that other halves may hold, for a [`Control::close`]. `None`: the connection has
    /// ended.
    fn to_close(shared: Arc<SharedTcp>) -> Option<Self> {
        let [reading, writing] = SocketShare::pair_to_close(shared)?;
        Some(Self { write: TcpWriteHalf::to_close(writing), read: TcpReadHalf::to_close(reading) })
    }

    /// Received bytes that nobody has read yet.
    pub(crate) fn unread(&self) -> &[u8] {
        self.read.inbox.as_slice()
    }

    /// Removes the first of these bytes.
    #[cfg(feature = "proxy")]
    pub(crate) fn skip(&mut self, n: usize) {
        self.read.inbox.consume(n);
        self.read.inbox.release();
        self.write.control_ref().hide_received(n);
    }

    /// Waits until there are more of these bytes than before. `false`: the peer has ended its half.
    ///
    /// Cancel safe: received bytes stay in the connection.
    pub(crate) async fn read_more(&mut self) -> io::Result<bool> {
        let before = self.unread().len();
        std::future::poll_fn(|cx| self.read.poll_more(cx)).await?;
        Ok(self.unread().len() > before)
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

impl Layer for TcpConnection {
    fn control(&self) -> &Control {
        self.write.control_ref()
    }

    fn halves(&self) -> (SendHalf, RecvHalf) {
        (self.write.socket.state.clone(), self.read.socket.state.clone())
    }

    fn handle_abort(&mut self) {
        self.read.abort();
        self.write.socket.abort();
    }

    fn begin_close(&mut self) {
        self.set_cork(false);
        self.read.inbox.clear();
        self.read.socket.closes = true;
        self.write.socket.closes = true;
        // The idle timers stop, because the close has its own time limit.
        self.read.socket.timer.stop();
        self.write.socket.timer.stop();
    }

    fn poll_discard(&mut self, cx: &mut Context<'_>, discarded: &mut Discard) -> Poll<()> {
        self.write.socket.settle();
        if self.read.has_nothing_more() {
            return Poll::Ready(());
        }
        poll_discard_reads(&mut self.read, cx, discarded)
    }

    fn release(&mut self, reason: &Reason) {
        self.write.control_ref().note_reason(reason);
        self.read.end(reason);
        self.write.socket.end(reason);
    }

    fn set_cork(&mut self, on: bool) -> bool {
        self.write.set_cork(on)
    }

    fn take_unread(&mut self) -> Vec<u8> {
        self.read.inbox.take()
    }

    fn read_available(&mut self, _: &mut Context<'_>) {
        self.read.read_available();
    }

    fn push_unread(&mut self, bytes: &[u8]) {
        self.read.inbox.push(bytes);
    }

    fn report_layers(&self, layers: &mut Vec<LayerReport>) {
        layers.push(LayerReport::of(LayerKind::Tcp, &self.write.socket.state, &self.read.socket.state));
    }

    fn may_write_in_wake(&self) -> bool {
        true
    }

    /// The kernel has all written bytes, and delays them only under a cork.
    fn keeps_written(&self) -> bool {
        self.write.is_corked()
    }

    fn has_space(&self, bytes: usize) -> bool {
        self.write.has_space(bytes)
    }

    fn set_half_open(&mut self) {
        self.write.set_half_open();
    }

    fn expect_end(&mut self) {
        self.write.expects_end = true;
    }

    fn set_beneath(&mut self, beneath: bool) {
        self.write.set_beneath(beneath);
    }
}

impl AsLayer for TcpConnection {
    lends_itself!();
}

impl Transport for TcpConnection {}

impl SocketOptions for TcpConnection {
    fn socket(&self) -> TcpOptions<'_> {
        options(self)
    }
}

impl TcpTransport for TcpConnection {}
