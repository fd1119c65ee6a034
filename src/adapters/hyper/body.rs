//! The body of a request.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use ::hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use tokio::runtime::Handle;

/// How long an unread body is kept after it was dropped.
const KEPT: Duration = Duration::from_secs(1);

/// The body of a request that a [`Server`](super::Server) received.
///
/// A service may answer an HTTP/2 request without reading its body, for example with status 413. If the body is dropped
/// then, hyper resets the stream right after the answer (RST_STREAM with NO_ERROR), and curl 7.88 reports an error and
/// loses the answer. So a body of HTTP/2 that was not read to its end is kept for a second after it was dropped.
/// Nothing is read from it in this time, and flow control stops the client.
#[derive(Debug)]
pub struct RequestBody {
    /// `None` only while this value is dropped.
    body: Option<Incoming>,
    is_http2: bool,
}

impl RequestBody {
    pub(super) fn new(body: Incoming, is_http2: bool) -> Self {
        Self { body: Some(body), is_http2 }
    }

    /// The body as hyper has made it. After a drop, it is not kept.
    pub fn into_inner(mut self) -> Incoming {
        self.body.take().expect("only a drop takes it before")
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        let unread = self.body.take().filter(|body| self.is_http2 && !body.is_end_stream());
        if let (Some(body), Ok(runtime)) = (unread, Handle::try_current()) {
            runtime.spawn(async move {
                tokio::time::sleep(KEPT).await;
                drop(body);
            });
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = ::hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ::hyper::Error>>> {
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or(SizeHint::with_exact(0), Body::size_hint)
    }
}
