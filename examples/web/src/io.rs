//! Writes to the log when the halves of a connection end.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bowline::{End, Lingering, Transport};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::log::Log;
use crate::state::Web;

pub(crate) struct Watched<T> {
    io: Lingering<T>,
    log: Log,
    /// The number of the connection in the log.
    number: u64,
    read_closed: bool,
    write_closed: bool,
}

impl<T: Transport> Watched<T> {
    pub(crate) fn new(io: Lingering<T>, web: &Web) -> Self {
        let number = web.watch.entry(&io.control()).map_or(0, |entry| entry.number);
        Self { io, log: web.log.clone(), number, read_closed: false, write_closed: false }
    }

    fn read_ended(&mut self) {
        let is_clean = self.io.get_ref().status().recv.end() == Some(End::Clean);
        if !std::mem::replace(&mut self.read_closed, true) {
            self.log.read_closed(self.number, if is_clean { "clean" } else { "truncated" });
        }
    }
}

impl<T: Transport> AsyncRead for Watched<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = ready!(Pin::new(&mut self.io).poll_read(cx, buf));
        match &read {
            Ok(()) if buf.filled().len() == before && buf.remaining() > 0 => self.read_ended(),
            Ok(()) | Err(_) => {}
        }
        Poll::Ready(read)
    }
}

impl<T: Transport> AsyncWrite for Watched<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ended = ready!(Pin::new(&mut self.io).poll_shutdown(cx));
        if ended.is_ok() && !std::mem::replace(&mut self.write_closed, true) {
            self.log.write_closed(self.number);
        }
        Poll::Ready(ended)
    }
}
