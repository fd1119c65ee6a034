//! The connections of a `TlsListener` as a stream.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;

use super::tls_listener::TlsListener;
use crate::error::Error;

/// The connections of a [`TlsListener`], as a stream (feature `stream`). It ends after the last connection of a drain.
/// If the listening socket is no longer usable, the error is the last item.
pub struct Connections<C>(Option<TlsListener<C>>);

impl<C> TlsListener<C> {
    /// The connections as a stream. Dropping the stream drops the listener.
    ///
    /// ```ignore
    /// # async fn serve(listener: bowline::TlsListener) {
    /// use futures_util::StreamExt;
    ///
    /// let mut connections = listener.into_stream();
    /// while let Some(Ok(connection)) = connections.next().await {
    ///     tokio::spawn(async move { drop(connection) });
    /// }
    /// # }
    /// ```
    pub fn into_stream(self) -> Connections<C> {
        Connections(Some(self))
    }
}

impl<C> Stream for Connections<C> {
    type Item = Result<C, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(listener) = &mut self.0 else { return Poll::Ready(None) };
        let accepted = ready!(listener.poll_accept(cx));
        if accepted.is_err() {
            self.0 = None;
        }
        Poll::Ready(match accepted {
            Err(Error::Draining) => None,
            accepted => Some(accepted),
        })
    }
}

impl<C> Unpin for Connections<C> {}

impl<C> fmt::Debug for Connections<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Connections").field(&self.0).finish()
    }
}
