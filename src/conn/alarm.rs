//! One timer for many deadlines.
//!
//! When a task sets a timer that is earlier than all others of the runtime, tokio wakes its driver with a system call.
//! On a server with little load, the deadline of a handshake is usually the only timer, so each handshake would cost
//! that system call. Here, all waits that start on one thread share one timer. A deadline that is later than the
//! timer's current time costs no system call.
//!
//! When a wait ends, the timer stays set for the next one, but not for long, because a set timer has a cost each time
//! that the runtime waits for an event. So the timer fires soon, and is dropped if there is no wait then. It is also
//! dropped when the thread ends or runs another runtime (rule: life-4).

use std::cell::Cell;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use tokio::runtime::{Handle, Id};
use tokio::task::coop::unconstrained;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::conn::after_unlock;

/// The longest time that the timer stays set without a wait. While the same wait stays the first one, the timer fires
/// less and less often.
const MAX_UNUSED: Duration = Duration::from_millis(50);

thread_local! {
    /// The alarm of the runtime that last ran on this thread.
    static ALARM: Cell<Option<ThreadAlarm>> = const { Cell::new(None) };
}

/// The alarm of a thread. Dropped when the thread ends, or runs another runtime: no wait starts on the alarm after
/// that.
struct ThreadAlarm(Arc<Alarm>);

impl Drop for ThreadAlarm {
    fn drop(&mut self) {
        let timer = self.0.with(|state| {
            state.is_retired = true;
            state.take_unused()
        });
        drop(timer);
    }
}

struct Alarm {
    runtime: Id,
    /// The timer has fired, and no task has been woken for it yet.
    fired: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The waits in the order of their deadlines. When a deadline passes, its wait is removed and its task is woken.
    waits: BTreeMap<Key, Waker>,
    /// The number of waits so far.
    count: u64,
    timer: Option<Timer>,
    /// No new wait starts on this alarm, so its timer is dropped when nothing waits on it.
    is_retired: bool,
}

/// A deadline, and a number that distinguishes waits with the same deadline.
type Key = (Instant, u64);

struct Timer {
    /// The time at which the timer fires: the first deadline, or earlier.
    at: Instant,
    sleep: Pin<Box<Sleep>>,
    /// The wait that was the first one when the timer last fired, and the time until it fires again.
    first: Option<Key>,
    interval: Duration,
}

/// One wait for a deadline. Dropping it ends the wait.
pub(crate) struct Entry {
    alarm: Arc<Alarm>,
    key: Key,
}

impl Entry {
    /// Registers the task to be woken at the deadline.
    ///
    /// # Panics
    /// Outside of a runtime with a clock, as tokio's timers do.
    pub(crate) fn new(deadline: Instant, cx: &Context<'_>) -> Self {
        let alarm = Alarm::current();
        let waker = cx.waker().clone();
        let key = alarm.with(|state| {
            state.set(deadline, &alarm);
            state.count += 1;
            let key = (deadline, state.count);
            state.waits.insert(key, waker);
            key
        });
        Self { alarm, key }
    }

    /// Ready at the deadline. Until then, the alarm wakes the task that polled last.
    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        // Cloning or dropping a waker runs foreign code, so neither is done under the lock (rule: life-7).
        let waits = |state: &mut State| state.waits.get(&self.key).map(|waker| waker.will_wake(cx.waker()));
        match self.alarm.with(waits) {
            None => Poll::Ready(()),
            Some(true) => Poll::Pending,
            Some(false) => {
                let waker = cx.waker().clone();
                let before = self.alarm.with(|state| match state.waits.get_mut(&self.key) {
                    Some(kept) => Ok(std::mem::replace(kept, waker)),
                    None => Err(waker),
                });
                if before.is_ok() { Poll::Pending } else { Poll::Ready(()) }
            }
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let removed = self.alarm.with(|state| (state.waits.remove(&self.key), state.take_unused()));
        drop(removed);
    }
}

impl Alarm {
    fn current() -> Arc<Self> {
        let runtime = Handle::current().id();
        let kept = ALARM.try_with(Cell::take).unwrap_or_default().filter(|kept| kept.0.runtime == runtime);
        let kept = kept.unwrap_or_else(|| {
            ThreadAlarm(Arc::new(Self { runtime, fired: AtomicBool::new(false), state: Mutex::default() }))
        });
        let alarm = Arc::clone(&kept.0);
        // On a thread that is ending, the alarm cannot be stored, and only the caller keeps it.
        let _ = ALARM.try_with(|current| current.set(Some(kept)));
        alarm
    }

    /// Runs a function on the locked state. If the timer fires meanwhile, wakes the tasks whose deadlines have passed.
    fn with<R>(self: &Arc<Self>, f: impl FnOnce(&mut State) -> R) -> R {
        let result = f(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.attend();
        result
    }

    /// Handles a timer that has fired. If another call holds the lock, that call handles it after it has released the
    /// lock: the timer can fire while it is being set, on the same thread or on another one.
    fn attend(self: &Arc<Self>) {
        while self.fired.load(Ordering::SeqCst) {
            let mut state = match self.state.try_lock() {
                Ok(state) => state,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => return,
            };
            // While this call holds the lock, other calls rely on it to handle a timer that fires, so the loop checks
            // the flag again.
            let (due, timer) = match self.fired.swap(false, Ordering::SeqCst) {
                true => state.take_due(self),
                false => Default::default(),
            };
            drop(state);
            drop(timer);
            due.into_iter().for_each(after_unlock::wake);
        }
    }
}

impl State {
    /// Sets the timer for this deadline, unless it already fires earlier.
    fn set(&mut self, deadline: Instant, alarm: &Arc<Alarm>) {
        if self.timer.as_ref().is_none_or(|timer| deadline < timer.at) {
            let at = soon(MAX_UNUSED, deadline);
            let new = || Timer { at, sleep: Box::pin(sleep_until(at)), first: None, interval: MAX_UNUSED };
            self.timer.get_or_insert_with(new).set(at, alarm);
        }
    }

    /// Removes and returns the timer of a retired alarm without waits.
    fn take_unused(&mut self) -> Option<Timer> {
        if self.is_retired && self.waits.is_empty() { self.timer.take() } else { None }
    }

    /// Removes and returns the tasks whose deadlines have passed, and sets the timer for the next deadline. Without a
    /// next deadline, the timer is removed too.
    fn take_due(&mut self, alarm: &Arc<Alarm>) -> (Vec<Waker>, Option<Timer>) {
        let Some(timer) = self.timer.as_mut().filter(|timer| timer.sleep.is_elapsed()) else {
            // Another call has already set the timer again.
            return Default::default();
        };
        let now = Instant::now();
        let mut due = Vec::new();
        while let Some(first) = self.waits.first_entry().filter(|first| first.key().0 <= now) {
            due.push(first.remove());
        }
        match self.waits.first_key_value() {
            // A timer that fires too early belongs to a runtime that is shutting down, and cannot be set again.
            Some((next, _)) if timer.at <= now => {
                timer.interval = if timer.first == Some(*next) { timer.interval.saturating_mul(2) } else { MAX_UNUSED };
                timer.first = Some(*next);
                timer.set(soon(timer.interval, next.0), alarm);
                (due, None)
            }
            _ => (due, self.timer.take()),
        }
    }
}

/// The time `interval` from now, but not after the deadline.
fn soon(interval: Duration, deadline: Instant) -> Instant {
    Instant::now().checked_add(interval).map_or(deadline, |at| at.min(deadline))
}

impl Timer {
    /// Sets the timer to this time. When it fires, it wakes the alarm.
    fn set(&mut self, at: Instant, alarm: &Arc<Alarm>) {
        self.sleep.as_mut().reset(at);
        self.at = at;
        let waker = Waker::from(Arc::clone(alarm));
        // An elapsed timer is not polled: if its runtime has ended, polling it panics.
        let fired = self.sleep.is_elapsed()
            || pin!(unconstrained(self.sleep.as_mut())).poll(&mut Context::from_waker(&waker)).is_ready();
        if fired {
            alarm.fired.store(true, Ordering::SeqCst);
        }
    }
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.fired.store(true, Ordering::SeqCst);
        self.attend();
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::thread;

    use tokio::runtime::{Builder, Runtime};

    use super::*;

    fn deadline(seconds: u64) -> Instant {
        Instant::now() + Duration::from_secs(seconds)
    }

    async fn wait(deadline: Instant) {
        let entry = poll_fn(|cx| Poll::Ready(Entry::new(deadline, cx))).await;
        poll_fn(|cx| entry.poll(cx)).await;
    }

    /// The time at which the timer of this thread fires next.
    fn set_to() -> Option<Instant> {
        Alarm::current().with(|state| state.timer.as_ref().map(|timer| timer.at))
    }

    #[tokio::test(start_paused = true)]
    async fn each_wait_ends_at_its_own_deadline_in_whatever_order_they_begin() {
        let begin = Instant::now();
        let waits = [3, 1, 4, 1, 5, 2].map(|seconds| {
            tokio::spawn(async move {
                wait(begin + Duration::from_secs(seconds)).await;
                (begin.elapsed().as_secs(), seconds)
            })
        });
        for wait in waits {
            let (elapsed, seconds) = wait.await.unwrap();
            assert_eq!(elapsed, seconds);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_later_deadline_leaves_the_timer_and_an_earlier_one_sets_it() {
        let (interval, early) = (Instant::now() + MAX_UNUSED, Instant::now() + MAX_UNUSED / 2);
        let first_wait = poll_fn(|cx| Poll::Ready(Entry::new(deadline(10), cx))).await;
        let _later = poll_fn(|cx| Poll::Ready(Entry::new(deadline(20), cx))).await;
        assert_eq!(set_to(), Some(interval));
        // The end of a wait leaves the timer as it is, so that the next wait need not set it again.
        drop(first_wait);
        assert_eq!(set_to(), Some(interval));
        let _earlier = poll_fn(|cx| Poll::Ready(Entry::new(early, cx))).await;
        assert_eq!(set_to(), Some(early));
    }

    /// rule: life-4
    #[tokio::test(start_paused = true)]
    async fn a_timer_without_a_wait_is_dropped_soon() {
        drop(poll_fn(|cx| Poll::Ready(Entry::new(deadline(10), cx))).await);
        assert!(set_to().is_some());
        tokio::time::sleep(2 * MAX_UNUSED).await;
        assert_eq!(set_to(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_wait_fires_the_timer_a_few_times_and_the_next_one_restarts_it() {
        let long = poll_fn(|cx| Poll::Ready(Entry::new(deadline(60), cx))).await;
        let mut fired = 0;
        let mut last = set_to();
        while last.is_some_and(|at| at < deadline(20)) && fired < 100 {
            tokio::time::sleep(MAX_UNUSED).await;
            fired += i32::from(set_to() != last);
            last = set_to();
        }
        assert!((5..12).contains(&fired), "{fired}");
        let _next = poll_fn(|cx| Poll::Ready(Entry::new(deadline(600), cx))).await;
        drop(long);
        tokio::time::sleep_until(last.unwrap() + Duration::from_millis(2)).await;
        assert!(set_to().unwrap() <= Instant::now() + MAX_UNUSED);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_wakes_the_task_that_polled_it_last() {
        let entry = Entry::new(deadline(1), &Context::from_waker(Waker::noop()));
        poll_fn(|cx| entry.poll(cx)).await;
        assert!(entry.poll(&mut Context::from_waker(Waker::noop())).is_ready());
    }

    /// rule: life-4
    #[test]
    fn a_thread_that_ends_drops_its_timer_after_the_last_wait() {
        let runtimes = [0, 1].map(|_| Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap());
        let begin = |runtime: &Runtime| {
            let _entered = runtime.enter();
            let entry = Entry::new(deadline(600), &Context::from_waker(Waker::noop()));
            (entry, Arc::downgrade(&Alarm::current()))
        };
        let [unused, waiting] = [true, false].map(|is_unused| {
            let (entry, alarm) = begin(&runtimes[0]);
            let entry = Some(entry).filter(|_| !is_unused);
            begin(&runtimes[1]);
            (entry, alarm)
        });
        assert!(unused.1.upgrade().is_none());
        assert!(waiting.1.upgrade().unwrap().with(|state| state.timer.is_some()));
        drop(waiting.0);
        assert!(waiting.1.upgrade().is_none());

        let (entry, alarm) = thread::scope(|scope| scope.spawn(|| begin(&runtimes[0])).join().unwrap());
        assert!(alarm.upgrade().unwrap().with(|state| state.timer.is_some()));
        drop(entry);
        assert!(alarm.upgrade().is_none());
        let alarm = thread::scope(|scope| scope.spawn(|| begin(&runtimes[0]).1).join().unwrap());
        assert!(alarm.upgrade().is_none());
    }

    /// rule: life-4
    #[test]
    fn the_end_of_a_runtime_drops_its_timer_and_a_new_one_sets_its_own() {
        let mut alarms = Vec::new();
        for _ in 0..2 {
            let runtime = Builder::new_current_thread().enable_time().build().unwrap();
            let (alarm, entry) = runtime.block_on(async {
                let entry = Entry::new(deadline(60), &Context::from_waker(Waker::noop()));
                assert!(set_to().is_some());
                (Alarm::current(), entry)
            });
            drop(runtime);
            assert!(alarm.with(|state| state.timer.is_none()));
            drop(entry);
            alarms.push(alarm);
        }
        assert!(!Arc::ptr_eq(&alarms[0], &alarms[1]));
    }
}
