//! Time limits for idle connections: half-open connections, connections that are ending their send half, and all
//! others.

use std::future::Future;
use std::pin::Pin;
use std::sync::PoisonError;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{Instant, Sleep};

use crate::conn::after_unlock;
use crate::conn::waiting::park;
use crate::core::stall::{Leaving, Stall};
use crate::error::Phase;
use crate::policy::Policy;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// Records that the other half has ended. A half that is already waiting at that moment is woken, so that its half-open
/// timer starts.
#[derive(Default)]
pub(crate) struct HalfOpen {
    /// The other half has ended.
    begun: AtomicBool,
    /// Set only if the policy has a limit.
    waiting: Mutex<Option<Waker>>,
}

impl HalfOpen {
    pub(crate) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Acquire)
    }

    /// Called when the other half has ended.
    pub(crate) fn begin(&self) {
        if !self.begun.swap(true, Ordering::AcqRel) {
            let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
            waiting.into_iter().for_each(after_unlock::wake);
        }
    }

    /// Whether the other half has ended. If it has not, the task is registered to be woken when it ends.
    fn has_begun_for(&self, cx: &mut Context<'_>) -> bool {
        if self.has_begun() {
            return true;
        }
        park(&self.waiting, |task| task, cx.waker());
        self.has_begun()
    }
}

/// The time of the last traffic in either direction. Both halves share it: traffic in one direction keeps the other one
/// from timing out (rule: idle-2). Without a limit, the clock is read only once, at the beginning.
pub(crate) struct Activity {
    /// When the connection was made.
    started_at: Instant,
    /// Whether a time limit is set.
    is_bounded: bool,
    /// The time of the last traffic, in nanoseconds since `started_at`.
    last: AtomicU64,
    /// The number of guards that mark the connection as busy.
    busy: AtomicU32,
}

impl Activity {
    pub(crate) fn new(policy: &Policy) -> Self {
        let is_bounded = policy.idle_timeout.is_some() || policy.half_open_timeout.is_some();
        Self { started_at: Instant::now(), is_bounded, last: AtomicU64::new(0), busy: AtomicU32::new(0) }
    }

    /// Whether a time limit is set.
    pub(crate) fn is_bounded(&self) -> bool {
        self.is_bounded
    }

    /// When the connection was made.
    pub(crate) fn started_at(&self) -> Instant {
        self.started_at
    }

    /// Records that there was traffic now.
    #[inline]
    pub(crate) fn note(&self) {
        if self.is_bounded {
            self.note_now();
        }
    }

    #[inline(never)]
    fn note_now(&self) {
        let nanos = u64::try_from(self.started_at.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.last.store(nanos, Ordering::Relaxed);
    }

    fn last(&self) -> Option<Instant> {
        self.started_at.checked_add(Duration::from_nanos(self.last.load(Ordering::Relaxed)))
    }

    /// Adds a guard. The connection is not idle until all guards are dropped (rule: idle-4).
    pub(crate) fn begin_work(&self) {
        self.busy.fetch_add(1, Ordering::SeqCst);
    }

    /// Removes a guard. The idle time starts again now.
    pub(crate) fn end_work(&self) {
        self.note();
        self.busy.fetch_sub(1, Ordering::SeqCst);
    }

    fn is_busy(&self) -> bool {
        self.busy.load(Ordering::SeqCst) > 0
    }
}

/// Runs while a half waits, if the policy has a limit for that (rules: half-10, idle-1).
#[derive(Default)]
pub(crate) struct IdleTimer {
    timer: Timer<Wait>,
    /// The half is a send half: while it waits, bytes that we have sent may be in flight.
    sends: bool,
}

/// The timer of a wait.
#[derive(Default)]
enum Timer<W> {
    /// No task waits, or there is no clock yet.
    #[default]
    Unset,
    Set(Box<W>),
    /// There is no limit any more.
    Stopped,
}

/// The timer is set once. When it fires, it looks up the time of the last traffic, and is set again if there was any.
/// So traffic itself never touches the timer.
struct Wait {
    sleep: Pin<Box<Sleep>>,
    phase: Phase,
    /// The start of the current wait.
    since: Option<Instant>,
    leaving: Leaving,
    /// When the timer last found that the connection was not idle, although there was no traffic.
    busy_at: Option<Instant>,
}

/// The state of the bytes that we have sent, as far as our system reports it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SentBytes {
    /// The bytes that the peer's system has not acknowledged.
    pub(crate) unacknowledged: u64,
    /// The bytes that the peer's system has acknowledged.
    pub(crate) acknowledged: u64,
}

impl IdleTimer {
    /// The timer of a send half.
    pub(crate) fn of_sender() -> Self {
        Self { sends: true, ..Self::default() }
    }

    /// Ready when there was no traffic for the time of the limit while this half waited. Returns which limit it was.
    /// The half-open limit has priority once the other half has ended. `sent` is called only after an idle time, and
    /// when a send half starts to wait.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        policy: &Policy,
        activity: &Activity,
        half_open: &HalfOpen,
        sent: impl Fn() -> SentBytes,
    ) -> Poll<Phase> {
        if let Timer::Stopped = self.timer {
            return Poll::Pending;
        }
        let (phase, bound) = match (policy.half_open_timeout, policy.idle_timeout) {
            (Some(bound), _) if half_open.has_begun_for(cx) => (Phase::HalfOpen, bound),
            (_, Some(bound)) => (Phase::Idle, bound),
            (_, None) => return Poll::Pending,
        };
        if !matches!(&self.timer, Timer::Set(wait) if wait.phase == phase) {
            if Handle::try_current().is_err() {
                // This poll runs outside the runtime, for example in a waker, where no clock is available. The next
                // poll sets the timer.
                return Poll::Pending;
            }
            let (sleep, leaving) = (Box::pin(tokio::time::sleep(bound)), Leaving::default());
            self.timer = Timer::Set(Box::new(Wait { sleep, phase, since: None, leaving, busy_at: None }));
        }
        match &mut self.timer {
            Timer::Set(wait) => wait.poll(cx, bound, activity, sent, self.sends),
            Timer::Unset | Timer::Stopped => Poll::Pending,
        }
    }

    /// Ends the wait.
    pub(crate) fn reset(&mut self) {
        if let Timer::Set(wait) = &mut self.timer {
            wait.since = None;
        }
    }

    /// Removes the limit.
    pub(crate) fn stop(&mut self) {
        self.timer = Timer::Stopped;
    }
}

/// Limits the wait for the end of a send half: it ends after this time without progress (rule: close-3). Costs nothing
/// while no task waits.
#[derive(Default)]
pub(crate) struct StallTimer {
    timer: Timer<StalledWait>,
}

struct StalledWait {
    sleep: Pin<Box<Sleep>>,
    stall: Stall,
}

impl StallTimer {
    /// Ready when there was no progress for the time of the limit. `moved` is a counter that grows with progress.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, bound: Option<Duration>, moved: impl Fn() -> u64) -> Poll<()> {
        let Some(bound) = bound else { return Poll::Pending };
        let interval = Stall::interval(bound);
        // Without a runtime, no clock is available, as in [`IdleTimer`].
        if matches!(self.timer, Timer::Unset) && Handle::try_current().is_ok() {
            let (sleep, stall) = (Box::pin(tokio::time::sleep(interval)), Stall::new(moved()));
            self.timer = Timer::Set(Box::new(StalledWait { sleep, stall }));
        }
        let Timer::Set(wait) = &mut self.timer else { return Poll::Pending };
        loop {
            ready!(wait.sleep.as_mut().poll(cx));
            if wait.stall.check(moved()) {
                return Poll::Ready(());
            }
            wait.sleep.set(tokio::time::sleep(interval));
        }
    }

    /// Ends the wait.
    pub(crate) fn reset(&mut self) {
        if let Timer::Set(_) = self.timer {
            self.timer = Timer::Unset;
        }
    }

    /// Removes the limit from now on.
    pub(crate) fn stop(&mut self) {
        self.timer = Timer::Stopped;
    }
}

impl Wait {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        bound: Duration,
        activity: &Activity,
        sent: impl Fn() -> SentBytes,
        sends: bool,
    ) -> Poll<Phase> {
        if self.since.is_none() {
            // The checks of an earlier wait say nothing about this one.
            self.leaving = Leaving::default();
            if sends {
                self.check_sent(&sent);
            }
        }
        let since = *self.since.get_or_insert_with(Instant::now);
        loop {
            ready!(self.sleep.as_mut().poll(cx));
            let now = Instant::now();
            if self.check_sent(&sent) || activity.is_busy() {
                self.busy_at = Some(now);
            }
            let idle_since = since.max(activity.last().unwrap_or(since)).max(self.busy_at.unwrap_or(since));
            match idle_since.checked_add(bound) {
                None => return Poll::Pending,
                Some(due) if due <= now => return Poll::Ready(self.phase),
                Some(due) => self.sleep.as_mut().reset(due),
            }
        }
    }

    /// Whether bytes that our system holds may have been acknowledged since the last check.
    fn check_sent(&mut self, sent: impl Fn() -> SentBytes) -> bool {
        let SentBytes { unacknowledged, acknowledged } = sent();
        self.leaving.check(unacknowledged, acknowledged)
    }
}
