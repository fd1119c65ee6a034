//! The bound on how long a half-open connection may be idle.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::runtime::Handle;
use tokio::time::Sleep;

use crate::policy::Policy;

/// Whether the other half has ended. Whoever waits already when it does is told, so that their time begins to run.
#[derive(Default)]
pub(crate) struct HalfOpen {
    begun: AtomicBool,
    waiting: Mutex<Option<Waker>>,
}

impl HalfOpen {
    pub(crate) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Acquire)
    }

    /// The other half has ended.
    pub(crate) fn begin(&self) {
        if !self.begun.swap(true, Ordering::AcqRel) {
            let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
            waiting.into_iter().for_each(Waker::wake);
        }
    }

    /// Whether it has begun; where not, the task is woken when it does.
    fn has_begun_for(&self, cx: &mut Context<'_>) -> bool {
        if self.has_begun() {
            return true;
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *waiting {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        self.has_begun()
    }
}

/// Runs while one half has ended and the other one waits (rule: half-10). Costs nothing where no bound is set.
#[derive(Default)]
pub(crate) struct HalfOpenTimer {
    sleep: Option<Pin<Box<Sleep>>>,
    stopped: bool,
}

impl HalfOpenTimer {
    /// Ready once the connection has been half-open and idle for too long.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, policy: &Policy, half_open: &HalfOpen) -> Poll<()> {
        let Some(bound) = policy.half_open_timeout.filter(|_| !self.stopped) else { return Poll::Pending };
        if !half_open.has_begun_for(cx) {
            return Poll::Pending;
        }
        if self.sleep.is_none() && Handle::try_current().is_err() {
            // A waker was called from outside the runtime: there is no clock here. Whoever polls next begins.
            return Poll::Pending;
        }
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
