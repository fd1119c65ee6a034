//! The bounds on how long a connection may be idle: a half-open one, one that is ending its send half, and any other.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{Instant, Sleep};

use crate::conn::unlocked;
use crate::core::stall::Stall;
use crate::error::Phase;
use crate::policy::Policy;

/// Whether the other half has ended. Whoever waits already when it does is told, so that their time begins to run.
#[derive(Default)]
pub(crate) struct HalfOpen {
    begun: AtomicBool,
    /// Only where there is a bound does anybody wait.
    waiting: Mutex<Option<Box<Waker>>>,
}

impl HalfOpen {
    pub(crate) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Acquire)
    }

    /// The other half has ended.
    pub(crate) fn begin(&self) {
        if !self.begun.swap(true, Ordering::AcqRel) {
            let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
            waiting.into_iter().for_each(|waker| unlocked::wake(*waker));
        }
    }

    /// Whether it has begun; where not, the task is woken when it does.
    fn has_begun_for(&self, cx: &mut Context<'_>) -> bool {
        if self.has_begun() {
            return true;
        }
        let lock = || self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let waits_already = lock().as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
        if !waits_already {
            // Cloning or dropping a waker runs foreign code too.
            let waker = Some(Box::new(cx.waker().clone()));
            let before = std::mem::replace(&mut *lock(), waker);
            drop(before);
        }
        self.has_begun()
    }
}

/// When something moved last, in either direction. The halves share it: what one of them moves keeps the other one from
/// timing out (rule: idle-2). No clock is read where no bound is set.
pub(crate) struct Activity {
    /// `None` where no bound is set.
    begin: Option<Instant>,
    /// Nanoseconds since the begin.
    last: AtomicU64,
}

impl Activity {
    pub(crate) fn new(policy: &Policy) -> Self {
        let is_bounded = policy.idle_timeout.is_some() || policy.half_open_timeout.is_some();
        Self { begin: is_bounded.then(Instant::now), last: AtomicU64::new(0) }
    }

    /// Whether a bound is set.
    pub(crate) fn is_bounded(&self) -> bool {
        self.begin.is_some()
    }

    /// Something moved.
    #[inline]
    pub(crate) fn note(&self) {
        if let Some(begin) = self.begin {
            self.note_at(begin);
        }
    }

    #[inline(never)]
    fn note_at(&self, begin: Instant) {
        let nanos = u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.last.store(nanos, Ordering::Relaxed);
    }

    fn last(&self) -> Option<Instant> {
        self.begin?.checked_add(Duration::from_nanos(self.last.load(Ordering::Relaxed)))
    }
}

/// Runs while a half waits, where there is a bound for that (rules: half-10, idle-1).
#[derive(Default)]
pub(crate) struct IdleTimer {
    wait: Option<Box<Wait>>,
    stopped: bool,
}

/// It is armed once and looked at when it fires: what moved meanwhile puts it off then, and costs nothing before.
struct Wait {
    sleep: Pin<Box<Sleep>>,
    phase: Phase,
    /// When the wait that is under way began.
    since: Option<Instant>,
}

impl IdleTimer {
    /// Ready once nothing has moved for too long while this half waited; says which bound that was. That of a half-open
    /// connection wins where there is one.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        policy: &Policy,
        activity: &Activity,
        half_open: &HalfOpen,
    ) -> Poll<Phase> {
        if self.stopped {
            return Poll::Pending;
        }
        let (phase, bound) = match (policy.half_open_timeout, policy.idle_timeout) {
            (Some(bound), _) if half_open.has_begun_for(cx) => (Phase::HalfOpen, bound),
            (_, Some(bound)) => (Phase::Idle, bound),
            (_, None) => return Poll::Pending,
        };
        if !self.wait.as_ref().is_some_and(|wait| wait.phase == phase) {
            if Handle::try_current().is_err() {
                // A waker was called from outside the runtime: there is no clock here. Whoever polls next begins.
                return Poll::Pending;
            }
            self.wait = Some(Box::new(Wait { sleep: Box::pin(tokio::time::sleep(bound)), phase, since: None }));
        }
        match &mut self.wait {
            Some(wait) => wait.poll(cx, bound, activity),
            None => Poll::Pending,
        }
    }

    /// The wait is over.
    pub(crate) fn reset(&mut self) {
        if let Some(wait) = &mut self.wait {
            wait.since = None;
        }
    }

    /// Changes the bound from now on.
    pub(crate) fn stop(&mut self) {
        self.wait = None;
        self.stopped = true;
    }
}

/// Bounds the wait for the end of a send half: at most this long without progress (rule: close-3). Costs nothing if nobody
/// waits.
#[derive(Default)]
pub(crate) struct StallTimer {
    wait: Option<Box<StalledWait>>,
    stopped: bool,
}

struct StalledWait {
    sleep: Pin<Box<Sleep>>,
    stall: Stall,
}

impl StallTimer {
    /// Ready once there was no progress for the time of the bound. `moved` is a counter that grows with progress.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, bound: Option<Duration>, moved: impl Fn() -> u64) -> Poll<()> {
        let Some(bound) = bound.filter(|_| !self.stopped) else { return Poll::Pending };
        let interval = Stall::interval(bound);
        let wait = match &mut self.wait {
            Some(wait) => wait,
            // As in an idle wait: without a runtime there is no clock.
            None if Handle::try_current().is_err() => return Poll::Pending,
            none => {
                let (sleep, stall) = (Box::pin(tokio::time::sleep(interval)), Stall::new(moved()));
                none.insert(Box::new(StalledWait { sleep, stall }))
            }
        };
        loop {
            ready!(wait.sleep.as_mut().poll(cx));
            if wait.stall.look(moved()) {
                return Poll::Ready(());
            }
            wait.sleep.set(tokio::time::sleep(interval));
        }
    }

    /// The wait is over.
    pub(crate) fn reset(&mut self) {
        self.wait = None;
    }

    /// Changes the bound from now on.
    pub(crate) fn stop(&mut self) {
        self.wait = None;
        self.stopped = true;
    }
}

impl Wait {
    fn poll(&mut self, cx: &mut Context<'_>, bound: Duration, activity: &Activity) -> Poll<Phase> {
        let since = *self.since.get_or_insert_with(Instant::now);
        loop {
            ready!(self.sleep.as_mut().poll(cx));
            let idle_since = activity.last().map_or(since, |last| last.max(since));
            match idle_since.checked_add(bound) {
                None => return Poll::Pending,
                Some(due) if due <= Instant::now() => return Poll::Ready(self.phase),
                Some(due) => self.sleep.as_mut().reset(due),
            }
        }
    }
}
