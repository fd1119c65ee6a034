//! A connection in memory that ends like TCP: with FIN or with RST.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::sync::Mutex;

/// One end of a connection in memory. Shutting it down sends FIN. Dropping it without a shutdown sends RST, which ends
/// both directions. It holds no lock while it wakes a task.
pub struct Pipe {
    outgoing: Arc<Direction>,
    incoming: Arc<Direction>,
}

impl fmt::Debug for Pipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipe").finish_non_exhaustive()
    }
}

/// The two ends of a connection in memory with a capacity of `capacity` bytes in each direction.
pub fn pipe(capacity: usize) -> (Pipe, Pipe) {
    let (there, back) = (Direction::new(capacity), Direction::new(capacity));
    let a = Pipe { outgoing: Arc::clone(&there), incoming: Arc::clone(&back) };
    (a, Pipe { outgoing: back, incoming: there })
}

/// One direction.
struct Direction(Mutex<State>);

struct State {
    bytes: VecDeque<u8>,
    capacity: usize,
    fin: bool,
    reset: bool,
    waiting: Option<Waker>,
}

impl Direction {
    fn new(capacity: usize) -> Arc<Self> {
        let state = State { bytes: VecDeque::new(), capacity, fin: false, reset: false, waiting: None };
        Arc::new(Self(Mutex::new(state)))
    }

    /// Changes the direction, and then wakes the task that waits on its other end if that task can continue.
    fn with<R>(&self, cx: &mut Context<'_>, f: impl FnOnce(&mut State) -> Poll<R>) -> Poll<R> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let result = f(&mut state);
        let other = state.waiting.take();
        let woken = match result {
            Poll::Ready(_) => other,
            // If the stored waker is that of this same task, from its previous poll, no wake-up is needed.
            Poll::Pending => other.filter(|other| !other.will_wake(cx.waker())),
        };
        if result.is_pending() {
            state.waiting = Some(cx.waker().clone());
        }
        drop(state);
        woken.into_iter().for_each(Waker::wake);
        result
    }

    fn end(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        let waiting = state.waiting.take();
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
    }
}

impl AsyncRead for Pipe {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.incoming.with(cx, |lane| {
            if lane.reset {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            if lane.bytes.is_empty() && !lane.fin {
                return Poll::Pending;
            }
            let n = buf.remaining().min(lane.bytes.len());
            let (front, back) = lane.bytes.as_slices();
            let from_front = n.min(front.len());
            buf.put_slice(&front[..from_front]);
            buf.put_slice(&back[..n - from_front]);
            lane.bytes.drain(..n);
            Poll::Ready(Ok(()))
        })
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.outgoing.with(cx, |lane| {
            if lane.reset {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            if lane.fin {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            let n = bytes.len().min(lane.capacity - lane.bytes.len());
            if n == 0 && !bytes.is_empty() {
                return Poll::Pending;
            }
            lane.bytes.extend(&bytes[..n]);
            Poll::Ready(Ok(n))
        })
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outgoing.end(|lane| lane.fin = true);
        Poll::Ready(Ok(()))
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.outgoing.end(|lane| lane.reset |= !lane.fin);
        // A write to an end that is gone fails with RST.
        self.incoming.end(|lane| lane.reset = true);
    }
}
