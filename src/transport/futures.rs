//! The small futures and guards that the methods of [`Transport`] return.

use std::fmt;
use std::future::Future;
use std::io::{self, IoSlice};
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use crate::transport::Transport;
use crate::transport::exclusive::Exclusive;
use crate::transport::layer::TOKEN;

/// A `close_write` in progress: see [`Transport::close_write`].
#[must_use = "futures do nothing unless polled"]
pub struct CloseWrite<'a>(Exclusive<'a>);

impl fmt::Debug for CloseWrite<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CloseWrite").field("control", &self.0).finish_non_exhaustive()
    }
}

impl<'a> CloseWrite<'a> {
    pub(crate) fn new(transport: &'a mut dyn Transport) -> Self {
        Self(Exclusive::new(transport))
    }
}

impl Future for CloseWrite<'_> {
    type Output = io::Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(self.0.get()).poll_shutdown(cx)
    }
}

/// A write of several parts in progress: see [`Transport::write_sequence`].
#[must_use = "futures do nothing unless polled"]
pub struct WriteSequence<'a> {
    transport: Exclusive<'a>,
    parts: &'a [IoSlice<'a>],
    /// How many bytes of the first part were written.
    written: usize,
}

impl fmt::Debug for WriteSequence<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriteSequence").field("control", &self.transport).finish_non_exhaustive()
    }
}

impl<'a> WriteSequence<'a> {
    pub(crate) fn new(transport: &'a mut dyn Transport, parts: &'a [IoSlice<'a>]) -> Self {
        Self { transport: Exclusive::new(transport), parts, written: 0 }
    }

    fn advance(&mut self, mut n: usize) {
        while let Some(first) = self.parts.first() {
            let left = first.len() - self.written;
            if n < left {
                self.written += n;
                return;
            }
            n -= left;
            self.written = 0;
            self.parts = &self.parts[1..];
        }
    }
}

impl Future for WriteSequence<'_> {
    type Output = io::Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        this.advance(0);
        while let Some(first) = this.parts.first() {
            let transport = Pin::new(this.transport.get());
            let n = ready!(match this.written {
                0 => transport.poll_write_vectored(cx, this.parts),
                done => transport.poll_write(cx, &first[done..]),
            })?;
            if n == 0 {
                // rule: life-6. Some bytes are left, so a write of 0 bytes would be repeated forever.
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            this.advance(n);
        }
        Poll::Ready(Ok(()))
    }
}

/// A transport that holds small writes back until this guard is dropped: see [`Transport::cork`].
///
/// It is not `Sync`, because it gives shared access to its transport, and a transport need not be `Sync`.
#[must_use = "the cork is released when this is dropped"]
pub struct Corked<'a> {
    transport: &'a mut dyn Transport,
    /// Another cork was set before this one, and outlives it.
    is_inner: bool,
}

impl fmt::Debug for Corked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Corked").field("control", &self.transport.control()).finish_non_exhaustive()
    }
}

impl<'a> Corked<'a> {
    pub(crate) fn new(transport: &'a mut dyn Transport) -> Self {
        let is_inner = transport.layer_mut(TOKEN).set_cork(true);
        Self { transport, is_inner }
    }
}

impl Drop for Corked<'_> {
    fn drop(&mut self) {
        if !self.is_inner {
            self.transport.layer_mut(TOKEN).set_cork(false);
        }
    }
}

impl Deref for Corked<'_> {
    type Target = dyn Transport;

    fn deref(&self) -> &Self::Target {
        self.transport
    }
}

impl DerefMut for Corked<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        self.transport
    }
}
