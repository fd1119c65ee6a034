//! Calls to the layer below a session.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use tokio::task::coop::unconstrained;

use crate::transport::Transport;

/// Calls the layer outside of the task's budget. If the budget is used up, tokio calls the waker at once. A task then
/// runs again later, but the pump would run again at once, without end.
pub(super) fn unbudgeted<R>(cx: &mut Context<'_>, poll: impl FnMut(&mut Context<'_>) -> Poll<R>) -> Poll<R> {
    pin!(unconstrained(poll_fn(poll))).poll(cx)
}

pub(super) fn poll_write<T: Transport>(
    layer: &mut T,
    cx: &mut Context<'_>,
    records: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    let written = unbudgeted(cx, |cx| match records {
        [one] => Pin::new(&mut *layer).poll_write(cx, one),
        many => Pin::new(&mut *layer).poll_write_vectored(cx, many),
    });
    match ready!(written) {
        Ok(0) => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
        result => Poll::Ready(result),
    }
}
