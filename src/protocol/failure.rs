//! The result of a callback, and the reasons why a callback fails.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use crate::error::{Error, Reason};
use crate::escape::printable;

/// The error of a callback that failed. It becomes the connection's [`Reason`]: an [`Error`] of this crate becomes the
/// matching reason, any other error becomes [`Reason::Protocol`].
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The result of a callback.
///
/// # Errors
/// An error ends the connection with RST (rule: life-3), so that the peer does not mistake the received data for
/// complete data. Any error converts into a [`Failure`], so a callback can use `?`.
pub type CallbackResult<T = ()> = Result<T, Failure>;

/// The reason of a connection whose callback returned this failure.
pub(super) fn reason(failure: Failure) -> Reason {
    match failure.downcast::<Error>() {
        Ok(error) => (*error).into(),
        Err(failure) => Reason::Protocol(Arc::from(failure)),
    }
}

/// A callback panicked, with this message. It is the cause in [`Reason::Protocol`].
#[derive(Debug, Clone)]
pub struct Panicked(String);

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // rule: tcp-11: the panic message may contain text from a peer.
        write!(f, "a callback panicked: {}", printable(&self.0))
    }
}

impl std::error::Error for Panicked {}

impl Panicked {
    pub(super) fn new(payload: &(dyn Any + Send)) -> Self {
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        Self(text.unwrap_or("(no message)").to_owned())
    }
}

/// A protocol left more bytes unread than it may. It is the cause in [`Reason::Protocol`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unread {
    /// The number of bytes that it left.
    pub bytes: usize,
    /// The number of bytes that it may leave: [`Protocol::max_unread`](super::Protocol::max_unread).
    pub limit: usize,
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the protocol left {} bytes unread, and may leave {}", self.bytes, self.limit)
    }
}

impl std::error::Error for Unread {}
