//! Callbacks that panic: the panic becomes an error of their own connection.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::{Failure, Outcome};
use crate::error::{Error, Reason};

/// A callback panicked, with this message.
#[derive(Debug, Clone)]
pub struct Panicked(String);

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a callback panicked: {}", self.0)
    }
}

impl std::error::Error for Panicked {}

impl Panicked {
    fn new(payload: &(dyn Any + Send)) -> Self {
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        Self(text.unwrap_or("(no message)").to_owned())
    }
}

/// Runs a callback. Nothing that it may have left half done is looked at again, but by its own `connection_lost`.
pub(super) fn guard<R>(callback: impl FnOnce() -> Outcome<R>) -> Result<R, Reason> {
    match catch_unwind(AssertUnwindSafe(callback)) {
        Ok(Ok(result)) => Ok(result),
        Ok(Err(failure)) => Err(reason(failure)),
        Err(payload) => Err(Reason::Protocol(Arc::new(Panicked::new(&*payload)))),
    }
}

/// What the end of a connection is called whose callback failed with this.
pub(super) fn reason(failure: Failure) -> Reason {
    match failure.downcast::<Error>() {
        Ok(error) => (*error).into(),
        Err(failure) => Reason::Protocol(Arc::from(failure)),
    }
}
