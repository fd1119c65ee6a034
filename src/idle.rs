//! The bound on how long a half-open connection may be idle.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::Sleep;

use crate::policy::Policy;

/// Runs while one half has ended and the other one waits (rule: half-10). Costs nothing where no bound is set.
#[derive(Default)]
pub(crate) struct HalfOpenTimer {
    sleep: Option<Pin<Box<Sleep>>>,
    stopped: bool,
}

impl HalfOpenTimer {
    /// Ready once the connection has been half-open and idle for too long.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, policy: &Policy, is_half_open: bool) -> Poll<()> {
        let Some(bound) = policy.half_open_timeout.filter(|_| is_half_open && !self.stopped) else {
            return Poll::Pending;
        };
        self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(bound))).as_mut().poll(cx)
    }

    /// Something moved.
    pub(crate) fn reset(&mut self) {
        self.sleep = None;
    }

    /// Another bound holds from now on.
    pub(crate) fn stop(&mut self) {
        self.sleep = None;
        self.stopped = true;
    }
}
