//! The reply to a call of a handle.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use super::guard::catch;
use crate::error::Error;

/// The outcome of a call of a [`Handle`](super::Handle), as a future. The call is carried out also if nobody awaits it.
///
/// # Cancel safety
/// Cancel safe: a reply that is dropped changes nothing about the call.
#[must_use = "the call is carried out without it, but only the reply says whether it has failed"]
pub struct Reply(pub(super) Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>);

impl Future for Reply {
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply").finish_non_exhaustive()
    }
}

/// Where the outcome of a call goes.
pub(crate) struct ReplySender(pub(super) oneshot::Sender<Result<(), Error>>);

impl ReplySender {
    pub(super) fn send(self, outcome: Result<(), Error>) {
        // The caller may have stopped waiting. Its waker is foreign code.
        let _ = catch(|| self.0.send(outcome));
    }
}
