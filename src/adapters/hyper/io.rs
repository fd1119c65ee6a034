//! The I/O that hyper owns while it serves a connection.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use ::hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;

use crate::transport::Transport;
use crate::transport::lingering::Lingering;

/// The I/O of a connection that a [`Server`](super::Server) serves. An upgraded connection can be downcast to this type
/// (`hyper_util::server::conn::auto::upgrade::downcast`).
pub struct Io<T: Transport> {
    /// `None` only while this value is dropped.
    io: Option<TokioIo<Lingering<T>>>,
    /// `shutdown` has ended, so a drop has nothing to close. The library may drop the value without it.
    is_shut_down: bool,
    left: Left<T>,
}

/// A connection that hyper has dropped without a shutdown.
///
/// hyper shuts most connections down. It drops a connection without a shutdown if the last request asked for a change
/// of the protocol that did not happen (curl does so for HTTP/2 in plaintext), or if a time limit of HTTP has passed.
pub(super) struct Left<T>(Arc<Mutex<Option<Lingering<T>>>>);

impl<T> Left<T> {
    pub(super) fn take(&self) -> Option<Lingering<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl<T: Transport> Io<T> {
    pub(super) fn new(io: Lingering<T>) -> (Self, Left<T>) {
        let left = Arc::new(Mutex::new(None));
        (Self { io: Some(TokioIo::new(io)), is_shut_down: false, left: Left(Arc::clone(&left)) }, Left(left))
    }

    /// The connection, for the protocol that follows an upgrade.
    pub fn into_inner(mut self) -> T {
        let io = self.io.take().expect("only a drop takes it before");
        io.into_inner().into_inner()
    }

    fn io(&mut self) -> Pin<&mut TokioIo<Lingering<T>>> {
        Pin::new(self.io.as_mut().expect("only a drop takes it"))
    }
}

impl<T: Transport> Drop for Io<T> {
    fn drop(&mut self) {
        if let Some(io) = self.io.take().filter(|_| !self.is_shut_down) {
            *self.left.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(io.into_inner());
        }
    }
}

impl<T: Transport> Read for Io<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        self.io().poll_read(cx, buf)
    }
}

impl<T: Transport> Write for Io<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.io().poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.io().poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.as_ref().is_some_and(Write::is_write_vectored)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ended = self.io().poll_shutdown(cx);
        self.is_shut_down |= ended.is_ready();
        ended
    }
}

impl<T: Transport> fmt::Debug for Io<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Io").field(&self.io.as_ref().map(TokioIo::inner)).finish()
    }
}
