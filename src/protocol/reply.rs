//! The reply to a call of a method of [`Handle`](super::Handle).

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use super::guard::catch;
use crate::error::Error;

/// The outcome of a method of [`Handle`](super::Handle), as a future. The call is carried out even if nothing awaits
/// the reply.
///
/// # Cancel safety
/// Cancel safe: dropping a reply does not change the call.
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

/// The sender of an outcome.
pub(crate) struct ReplySender(pub(super) oneshot::Sender<Result<(), Error>>);

impl ReplySender {
    pub(super) fn send(self, outcome: Result<(), Error>) {
        // The caller may no longer wait for the reply. Its waker is foreign code, which may panic.
        let _ = catch(|| self.0.send(outcome));
    }
}
