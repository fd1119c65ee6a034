//! A connection that a library can own: its `shutdown` is a complete close.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};

use crate::conn::after_unlock;
use crate::conn::control::Control;
use crate::core::linger::failure;
use crate::error::Reason;
use crate::transport::Transport;
use crate::transport::close::{CloseState, LastReceived};
use crate::transport::layer::poll_budget;

/// A connection for a library that ends its connections with `shutdown` and drop, as hyper, h2, axum and tonic do. Its
/// `shutdown` is a complete [`close`](Transport::close), so the peer gets the last byte (rule: close-15).
///
/// Such a library has no other way to end a connection. With any other transport, the drop after the `shutdown` makes
/// the system answer unread input with RST, and RST destroys the last bytes at the peer. For example, most clients lose
/// the answer of a server that refuses a large body with `413` without reading it.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// use bowline::{Lingering, Transport};
/// use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
///
/// // A library that reads nothing, answers and goes.
/// async fn refuse(mut io: impl AsyncWrite + Unpin) -> std::io::Result<()> {
///     io.write_all(&[b'x'; 1_000_000]).await?;
///     io.shutdown().await
/// }
///
/// let (mut client, server) = bowline::testing::tcp_pair().await?;
/// let refusing = tokio::spawn(refuse(Lingering::new(server)));
/// client.write_all(&[b'y'; 100_000]).await?;
/// let mut answer = Vec::new();
/// client.read_to_end(&mut answer).await?; // the answer arrives whole, without a reset
/// assert_eq!(answer.len(), 1_000_000);
/// client.close().await;
/// refusing.await?
/// # }
/// ```
///
/// # How it ends
///
/// - `shutdown` sends the written bytes and the end marker, then discards input until the peer has ended its side too.
///   It returns an error if our last bytes are known or likely to be lost. [`Control::report`] has the details.
/// - The wait is bounded. [`close_timeout`](crate::Policy::close_timeout) limits the time in which the peer accepts
///   none of our bytes; it starts again whenever the peer accepts some, as for [`close_write`](Transport::close_write).
///   [`close_discard`](crate::Policy::close_discard) limits the discarded bytes. If the peer has all bytes and has sent
///   nothing for [`close_quiet`](crate::Policy::close_quiet), the close does not wait for its end, so a client that
///   only keeps an idle connection open does not delay a drain. The reason is then
///   [`Unconfirmed`](crate::Reason::Unconfirmed), and the report names
///   [`CloseLimit::Silence`](crate::CloseLimit::Silence).
/// - After a finished `shutdown`, a drop loses nothing. Without a `shutdown`, or during one, a drop is a truncation, as
///   for every transport (rule: close-12).
/// - [`Control::abort`] ends it at once, with RST.
///
/// `shutdown` ends both directions: later reads fail with [`Reason::Closed`](crate::Reason::Closed), and never return
/// an end of file. So this type does not suit code that reads an answer after its `shutdown`; pass such code the
/// transport itself.
#[doc(alias = "TokioIo")]
#[doc(alias = "TlsStream")]
#[doc(alias = "lingering_close")]
#[doc(alias = "SO_LINGER")]
#[doc(alias = "shutdown")]
pub struct Lingering<T> {
    transport: T,
    last_received: LastReceived,
    closing: Option<Box<CloseState>>,
    /// The waker of a task that waits in a read, because a `shutdown` by another task ends that read.
    reader: Option<Waker>,
}

impl<T: Transport> Lingering<T> {
    /// Wraps a transport. Nothing is sent or received.
    pub fn new(transport: T) -> Self {
        Self { transport, last_received: LastReceived::now(), closing: None, reader: None }
    }

    /// The transport in this wrapper.
    pub fn get_ref(&self) -> &T {
        &self.transport
    }

    /// The transport. Its own `shutdown` is [`close_write`](Transport::close_write).
    pub fn get_mut(&mut self) -> &mut T {
        &mut self.transport
    }

    /// Returns the transport. Its `shutdown` is [`close_write`](Transport::close_write) again. A `shutdown` in progress
    /// is given up, as when the future of a `close` is dropped.
    pub fn into_inner(self) -> T {
        self.transport
    }

    /// The handle of the connection. It can be kept when a library owns the connection.
    pub fn control(&self) -> Control {
        self.transport.control()
    }

    /// Returns the result of a read, unless a `shutdown` has started.
    fn read<R>(
        &mut self,
        cx: &mut Context<'_>,
        poll: impl FnOnce(&mut T, &mut Context<'_>) -> Poll<io::Result<R>>,
    ) -> Poll<io::Result<R>> {
        if self.closing.is_some() {
            ready!(poll_budget(cx));
            // Input was discarded, so the read must not return an end of file, which would make the input look
            // complete.
            return Poll::Ready(Err(Reason::Closed.into()));
        }
        let result = poll(&mut self.transport, cx);
        if result.is_pending() && !self.reader.as_ref().is_some_and(|reader| reader.will_wake(cx.waker())) {
            self.reader = Some(cx.waker().clone());
        }
        result
    }
}

impl<T: Transport> From<T> for Lingering<T> {
    fn from(transport: T) -> Self {
        Self::new(transport)
    }
}

impl<T: Transport> AsyncRead for Lingering<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(self.read(cx, |transport, cx| Pin::new(transport).poll_read(cx, buf)))?;
        if buf.filled().len() > before {
            self.last_received = LastReceived::now();
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: Transport> AsyncBufRead for Lingering<T> {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        // The transport is polled twice. The first call only waits, because the bytes of the second call stay borrowed
        // by the caller.
        ready!(this.read(cx, |transport, cx| Pin::new(transport).poll_fill_buf(cx).map_ok(|_| ())))?;
        this.last_received = LastReceived::now();
        Pin::new(&mut this.transport).poll_fill_buf(cx)
    }

    fn consume(mut self: Pin<&mut Self>, n: usize) {
        Pin::new(&mut self.transport).consume(n);
    }
}

impl<T: Transport> AsyncWrite for Lingering<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.transport).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.transport).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_flush(cx)
    }

    /// The complete close: see [`Lingering`].
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { transport, last_received, closing, reader } = self.get_mut();
        let closing = closing.get_or_insert_with(|| {
            reader.take().into_iter().for_each(after_unlock::wake);
            Box::new(CloseState::lingering(transport, *last_received))
        });
        let report = ready!(closing.poll(transport, &mut &[][..], cx));
        Poll::Ready(failure(&report).map_or(Ok(()), |reason| Err(reason.clone().into())))
    }
}

impl<T: Transport> fmt::Debug for Lingering<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lingering")
            .field("transport", &self.transport.control())
            .field("is_shut_down", &self.closing.is_some())
            .finish()
    }
}
