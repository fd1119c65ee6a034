//! The guard through which all foreign code is called: a panic becomes an error of its own connection (rule: life-7).

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::producer::Producer;
use super::{Failure, Outcome, current};
use crate::error::{Error, Reason};
use crate::escape::printable;

/// A callback panicked, with this message.
#[derive(Debug, Clone)]
pub struct Panicked(String);

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // rule: tcp-11: the message of the panic may contain a peer's words.
        write!(f, "a callback panicked: {}", printable(&self.0))
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

/// Runs a callback. If the callback panics, only its own `connection_lost` sees its state again. Producers that the callback
/// registers with a connection that has ended are stopped after it has returned (rule: life-2).
pub(super) fn guard<R>(callback: impl FnOnce() -> Outcome<R>) -> Result<R, Reason> {
    let result = current::callback(|| catch(callback)).and_then(|outcome| outcome.map_err(reason));
    current::take_late().into_iter().for_each(stop);
    result
}

/// Runs foreign code other than a callback: a waker, a destructor, a transport. A panic becomes a reason.
pub(super) fn catch<R>(call: impl FnOnce() -> R) -> Result<R, Reason> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|payload| {
        let reason = Reason::Protocol(Arc::new(Panicked::new(&*payload)));
        // The payload is foreign too.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(payload)));
        reason
    })
}

/// Stops a producer whose connection has ended: now or, while a callback runs on this thread, after the callback has
/// returned. A failure is not reported, because the connection has ended.
pub(super) fn stop(producer: Producer) {
    if let Some(mut producer) = current::put_off(producer) {
        let _ = guard(move || {
            producer.stop();
            drop(producer);
            Ok(())
        });
    }
}

/// What the end of a connection is called whose callback failed with this.
pub(super) fn reason(failure: Failure) -> Reason {
    match failure.downcast::<Error>() {
        Ok(error) => (*error).into(),
        Err(failure) => Reason::Protocol(Arc::from(failure)),
    }
}
