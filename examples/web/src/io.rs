//! Counts the bytes of a connection, and notices the ends of its halves.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use bowline::{End, Lingering, Transport};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::log::Log;
use crate::state::Web;
use crate::watch::Entry;

pub(crate) struct Watched<T> {
    io: Lingering<T>,
    log: Log,
    entry: Arc<Entry>,
    read_closed: bool,
    write_closed: bool,
}

impl<T: Transport> Watched<T> {
    pub(crate) fn new(io: Lingering<T>, web: &Web) -> Self {
        let entry = web.watch.entry(&io.control());
        Self { io, log: web.log.clone(), entry, read_closed: false, write_closed: false }
    }

    fn read_ended(&mut self) {
        let is_clean = self.io.get_ref().status().recv.end() == Some(End::Clean);
        if !std::mem::replace(&mut self.read_closed, true) {
            self.log.read_closed(self.entry.number, if is_clean { "clean" } else { "truncated" });
        }
    }
}

impl<T: Transport> AsyncRead for Watched<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = ready!(Pin::new(&mut self.io).poll_read(cx, buf));
        match &read {
            Ok(()) if buf.filled().len() == before && buf.remaining() > 0 => self.read_ended(),
            Ok(()) => {
                self.entry.received.fetch_add((buf.filled().len() - before) as u64, Ordering::Relaxed);
            }
            Err(_) => {}
        }
        Poll::Ready(read)
    }
}

impl<T: Transport> AsyncWrite for Watched<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write(cx, bytes))?;
        self.entry.sent.fetch_add(written as u64, Ordering::Relaxed);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, parts))?;
        self.entry.sent.fetch_add(written as u64, Ordering::Relaxed);
        Poll::Ready(Ok(written))
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
            self.log.write_closed(self.entry.number);
        }
        Poll::Ready(ended)
    }
}
