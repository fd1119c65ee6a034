//! A connection in memory, as simple as possible, so that it adds few instructions to the counts. For one thread only.
//! It holds no lock while it wakes a task.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// About the capacity of a socket.
const CAPACITY: usize = 256 << 10;

pub struct Pipe {
    outgoing: Arc<Mutex<Lane>>,
    incoming: Arc<Mutex<Lane>>,
}

struct Lane {
    bytes: Box<[u8]>,
    from: usize,
    to: usize,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

pub fn pipe() -> (Pipe, Pipe) {
    let lane = || {
        let bytes = vec![0; CAPACITY].into_boxed_slice();
        Arc::new(Mutex::new(Lane { bytes, from: 0, to: 0, reader: None, writer: None }))
    };
    let (there, back) = (lane(), lane());
    (Pipe { outgoing: there.clone(), incoming: back.clone() }, Pipe { outgoing: back, incoming: there })
}

impl AsyncRead for Pipe {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut lane = self.incoming.lock().unwrap_or_else(PoisonError::into_inner);
        let n = buf.remaining().min(lane.to - lane.from);
        if n == 0 {
            lane.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        buf.put_slice(&lane.bytes[lane.from..][..n]);
        lane.from += n;
        let mut writer = None;
        if lane.from == lane.to {
            // As a full socket does, the pipe wakes a writer only when there is much space.
            (lane.from, lane.to) = (0, 0);
            writer = lane.writer.take();
        }
        drop(lane);
        writer.into_iter().for_each(Waker::wake);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut lane = self.outgoing.lock().unwrap_or_else(PoisonError::into_inner);
        let n = bytes.len().min(CAPACITY - lane.to);
        if n == 0 {
            lane.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let to = lane.to;
        lane.bytes[to..][..n].copy_from_slice(&bytes[..n]);
        lane.to += n;
        let reader = lane.reader.take();
        drop(lane);
        reader.into_iter().for_each(Waker::wake);
        Poll::Ready(Ok(n))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
