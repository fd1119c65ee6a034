//! Calls of a stream that are repeated when they were interrupted.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, ReadBuf};

/// The largest number of times that an interrupted call is repeated.
const MAX_INTERRUPTED: usize = 128;

/// Repeats an interrupted call. If it is interrupted every time, it has failed (rule: life-6).
pub(super) fn once_more<R>(mut call: impl FnMut() -> Poll<io::Result<R>>) -> Poll<io::Result<R>> {
    let is_interrupted = |result: &Poll<io::Result<R>>| matches!(result, Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::Interrupted);
    for _ in 0..MAX_INTERRUPTED {
        let result = call();
        if !is_interrupted(&result) {
            return result;
        }
    }
    Poll::Ready(Err(io::Error::other("the stream is interrupted again and again")))
}

/// Reads once, without waiting.
pub(super) fn read_once(
    io: &mut (impl AsyncRead + Unpin),
    cx: &mut Context<'_>,
    space: &mut [u8],
) -> io::Result<usize> {
    let mut buf = ReadBuf::new(space);
    match once_more(|| Pin::new(&mut *io).poll_read(cx, &mut buf)) {
        Poll::Ready(read) => read.map(|()| buf.filled().len()),
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}
