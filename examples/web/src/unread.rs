//! The body of a request that is answered before it was read.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body::{Body, Frame, SizeHint};
use hyper::body::{Bytes, Incoming};

/// How long an unread body is kept after the answer.
const KEPT: Duration = Duration::from_secs(1);

/// A body of HTTP/2 that outlives its request for a short time, if it was not read to its end.
///
/// Dropping a body resets the stream (RST_STREAM with NO_ERROR) right after the answer. curl 7.88 then reports an error
/// and loses the answer. While the body is kept, nothing is read from it, and flow control stops the client.
pub(crate) struct Unread(Option<Incoming>);

impl Unread {
    pub(crate) fn new(body: Incoming) -> Self {
        Self(Some(body))
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        if let Some(body) = self.0.take().filter(|body| !body.is_end_stream()) {
            tokio::spawn(async move {
                tokio::time::sleep(KEPT).await;
                drop(body);
            });
        }
    }
}

impl Body for Unread {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.0 {
            Some(body) => Pin::new(body).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or(SizeHint::with_exact(0), Body::size_hint)
    }
}
