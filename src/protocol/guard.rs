//! The guard around every call of foreign code: a panic becomes an error of the connection that made the call (rule:
//! life-7).

use std::sync::Arc;

use super::current;
use super::failure::{CallbackResult, Panicked, reason};
use crate::core;
use crate::error::Reason;

/// Runs a callback. If the callback panics, the protocol gets no further call except `connection_lost`. Work that the
/// callback has postponed is run after it has returned (rule: life-2).
pub(super) fn guard<R>(callback: impl FnOnce() -> CallbackResult<R>) -> Result<R, Reason> {
    let result = current::callback(|| catch(callback)).and_then(|outcome| outcome.map_err(reason));
    current::take_postponed().into_iter().for_each(after_callbacks);
    result
}

/// Runs foreign code other than a callback: a waker, a destructor, a transport. A panic is returned as a reason.
pub(super) fn catch<R>(call: impl FnOnce() -> R) -> Result<R, Reason> {
    core::catch::catch(call, |payload| Reason::Protocol(Arc::new(Panicked::new(payload))))
}

/// Runs foreign code for a connection that has ended. If a callback is running on this thread, the code runs after
/// the callback has returned. A failure is ignored, because the connection has ended.
pub(super) fn after_callbacks(task: impl FnOnce() + 'static) {
    if let Some(task) = current::postpone(task) {
        let _ = guard(move || {
            task();
            Ok(())
        });
    }
}
