//! The bound on how long a half-open connection may be idle.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use crate::policy::Policy;

/// Runs while one half has ended and the other one waits (rule: half-10). Costs nothing where no bound is set.
pub(crate) struct HalfOpenTimer {
    bound: Option<Duration>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl HalfOpenTimer {
    pub(crate) fn new(policy: &Policy) -> Self {
        Self { bound: policy.half_open_timeout, sleep: None }
    }

    /// Ready once the connection has been half-open and idle for too long.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, is_half_open: bool) -> Poll<()> {
        let Some(bound) = self.bound.filter(|_| is_half_open) else { return Poll::Pending };
        self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + bound))).as_mut().poll(cx)
    }

    /// Something came.
    pub(crate) fn reset(&mut self) {
        self.sleep = None;
    }
}
