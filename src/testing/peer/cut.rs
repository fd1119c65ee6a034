//! A stream that ends at a chosen offset.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How a [`Cut`] ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CutEnd {
    /// End of file. Writing continues.
    Fin,
    /// `ConnectionReset`, for reads and for writes.
    Reset,
    /// Silence: reads wait forever. Writing continues.
    Silence,
}

/// A stream that reads an exact number of bytes from the stream below and then ends. With it, a test can try every
/// offset of a handshake, in memory and with a paused clock, a thousand times per second.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// use bowline::testing::peer::{Cut, CutEnd};
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// let (mut peer, ours) = tokio::io::duplex(64);
/// peer.write_all(b"a whole sentence").await?;
/// let mut ours = Cut::after(ours, 7, CutEnd::Reset);
/// let mut read = Vec::new();
/// let error = ours.read_to_end(&mut read).await.unwrap_err();
/// assert_eq!((&read[..], error.kind()), (&b"a whole"[..], std::io::ErrorKind::ConnectionReset));
/// # Ok(()) }
/// ```
pub struct Cut<S> {
    stream: S,
    left: u64,
    read: u64,
    ending: CutEnd,
}

impl<S> fmt::Debug for Cut<S> {
    /// Shows nothing of the stream, which may hold data (rule: tcp-11).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stream: _, left, read, ending } = self;
        f.debug_struct("Cut").field("left", left).field("read", read).field("ending", ending).finish_non_exhaustive()
    }
}

impl<S> Cut<S> {
    /// Ends in this way after the first `bytes` bytes have been read.
    pub fn after(stream: S, bytes: u64, ending: CutEnd) -> Self {
        Self { stream, left: bytes, read: 0, ending }
    }

    /// The number of bytes that were read.
    pub fn read_bytes(&self) -> u64 {
        self.read
    }

    /// The stream below.
    pub fn into_inner(self) -> S {
        self.stream
    }

    fn check_reset(&self) -> io::Result<()> {
        match self.ending {
            CutEnd::Reset if self.left == 0 => Err(io::ErrorKind::ConnectionReset.into()),
            CutEnd::Reset | CutEnd::Fin | CutEnd::Silence => Ok(()),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Cut<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check_reset()?;
        if self.left == 0 {
            return if self.ending == CutEnd::Fin { Poll::Ready(Ok(())) } else { Poll::Pending };
        }
        let room = buf.remaining().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(room));
        let result = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut part));
        let n = part.filled().len();
        buf.advance(n);
        self.left -= n as u64;
        self.read += n as u64;
        Poll::Ready(result)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Cut<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check_reset()?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_reset()?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_reset()?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
