//! Faults in copies of the crate's patterns, each of which the checker must find. The copies are small, and have only
//! the order of the steps that matters.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Poll, Waker};

use shuttle::future::block_on;
use shuttle::scheduler::RandomScheduler;
use shuttle::sync::Mutex;
use shuttle::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use shuttle::thread;
use tokio::sync::Notify;

/// Whether some order of the threads makes this test fail or hang.
fn is_found(test: impl Fn() + Send + Sync + 'static) -> bool {
    let mut config = shuttle::Config::new();
    config.silence_warnings = true;
    // Threads that wait for each other in loops reach this limit.
    config.max_steps = shuttle::MaxSteps::FailAfter(10_000);
    config.failure_persistence = shuttle::FailurePersistence::None;
    let runner = shuttle::Runner::new(RandomScheduler::new(2_000), config);
    catch_unwind(AssertUnwindSafe(|| runner.run(test))).is_err()
}

/// Each copy passes without its fault, and the fault is found.
fn check<F: Copy + Send + Sync + 'static>(test: impl Fn(Option<F>) + Copy + Send + Sync + 'static, faults: &[F]) {
    assert!(!is_found(move || test(None)), "the copy itself is wrong");
    for (n, fault) in faults.iter().copied().enumerate() {
        assert!(is_found(move || test(Some(fault))), "fault {n} is not found");
    }
}

/// `SharedPump`: a wake-up sets a flag and runs the pump, unless another thread holds the lock. That thread checks the
/// flag after it has released the lock.
#[derive(Default)]
struct Pump {
    work: AtomicUsize,
    done: Mutex<usize>,
    woken: AtomicBool,
}

#[derive(Clone, Copy, PartialEq)]
enum PumpFault {
    /// The wake-up sets the flag after it has tried to take the lock.
    FlagAfterLock,
    /// The holder of the lock checks the flag before it releases the lock.
    CheckUnderLock,
    /// The flag is cleared after the work.
    ClearAfterWork,
}

impl Pump {
    fn run(&self, fault: Option<PumpFault>) {
        while self.woken.load(Ordering::SeqCst) {
            let Ok(mut done) = self.done.try_lock() else { return };
            if fault != Some(PumpFault::ClearAfterWork) {
                self.woken.store(false, Ordering::SeqCst);
            }
            *done = self.work.load(Ordering::SeqCst);
            if fault == Some(PumpFault::ClearAfterWork) {
                self.woken.store(false, Ordering::SeqCst);
            }
        }
    }

    fn wake(&self, fault: Option<PumpFault>) {
        self.work.fetch_add(1, Ordering::SeqCst);
        if fault == Some(PumpFault::FlagAfterLock) && self.done.try_lock().is_err() {
            self.woken.store(true, Ordering::SeqCst);
            return;
        }
        self.woken.store(true, Ordering::SeqCst);
        self.run(fault);
    }

    fn with(&self, fault: Option<PumpFault>) {
        let mut done = self.done.lock().unwrap();
        *done = self.work.load(Ordering::SeqCst);
        let was_woken = self.woken.load(Ordering::SeqCst);
        drop(done);
        if fault != Some(PumpFault::CheckUnderLock) || was_woken {
            self.run(fault);
        }
    }
}

#[test]
fn faults_of_the_pumps_waker_are_found() {
    use PumpFault::{CheckUnderLock, ClearAfterWork, FlagAfterLock};
    let test = |fault| {
        let pump = Arc::new(Pump::default());
        let other = Arc::clone(&pump);
        let waking = thread::spawn(move || {
            other.wake(fault);
            other.wake(fault);
        });
        pump.with(fault);
        waking.join().unwrap();
        assert_eq!(*pump.done.lock().unwrap(), 2, "work that no thread has done");
    };
    check(test, &[FlagAfterLock, CheckUnderLock, ClearAfterWork]);
}

#[derive(Clone, Copy, PartialEq)]
enum MailboxFault {
    /// The task checks for commands before it registers its waker.
    CheckBeforeRegister,
    /// The task is woken before the command is there.
    WakeBeforePush,
    /// The flag for "no content" is cleared after the lock was released.
    ClearAfterUnlock,
}

/// `HandleState`: commands for a task, and a flag that spares the task the lock.
#[derive(Default)]
struct Mailbox {
    state: Mutex<(usize, Option<Waker>)>,
    is_rung: AtomicBool,
}

impl Mailbox {
    fn post(&self, fault: Option<MailboxFault>) {
        let mut state = self.state.lock().unwrap();
        if fault == Some(MailboxFault::WakeBeforePush) {
            let task = state.1.take();
            self.is_rung.store(true, Ordering::Release);
            drop(state);
            task.into_iter().for_each(Waker::wake);
            self.state.lock().unwrap().0 += 1;
            return;
        }
        state.0 += 1;
        let task = state.1.take();
        self.is_rung.store(true, Ordering::Release);
        drop(state);
        task.into_iter().for_each(Waker::wake);
    }

    fn take(&self, task: &Waker, fault: Option<MailboxFault>) -> usize {
        if fault == Some(MailboxFault::CheckBeforeRegister) {
            let taken = std::mem::take(&mut self.state.lock().unwrap().0);
            self.state.lock().unwrap().1 = Some(task.clone());
            self.is_rung.store(false, Ordering::Release);
            return taken;
        }
        self.state.lock().unwrap().1 = Some(task.clone());
        let mut state = self.state.lock().unwrap();
        let taken = std::mem::take(&mut state.0);
        if fault == Some(MailboxFault::ClearAfterUnlock) {
            drop(state);
            self.is_rung.store(false, Ordering::Release);
        } else {
            self.is_rung.store(state.1.is_none(), Ordering::Release);
        }
        taken
    }
}

#[test]
fn faults_of_a_mailbox_are_found() {
    use MailboxFault::{CheckBeforeRegister, ClearAfterUnlock, WakeBeforePush};
    let test = |fault| {
        let mailbox = Arc::new(Mailbox { is_rung: AtomicBool::new(true), ..Mailbox::default() });
        let posting = [0, 1].map(|_| {
            let mailbox = Arc::clone(&mailbox);
            thread::spawn(move || mailbox.post(fault))
        });
        let mut got = 0;
        block_on(poll_fn(|cx| {
            while mailbox.is_rung.load(Ordering::Acquire) {
                got += mailbox.take(cx.waker(), fault);
                if got == 2 {
                    return Poll::Ready(());
                }
            }
            Poll::Pending
        }));
        posting.into_iter().for_each(|thread| thread.join().unwrap());
    };
    check(test, &[CheckBeforeRegister, WakeBeforePush, ClearAfterUnlock]);
}

#[derive(Clone, Copy, PartialEq)]
enum DrainFault {
    /// The drain counts the members before it registers for the notification.
    CountBeforeRegister,
    /// The last member notifies the drain before it has left.
    NotifyBeforeLeaving,
    /// The counter is read and written in two steps.
    TwoSteps,
}

#[test]
fn faults_of_a_drain_are_found() {
    use DrainFault::{CountBeforeRegister, NotifyBeforeLeaving, TwoSteps};
    let test = |fault| {
        let group = Arc::new((Mutex::new(2_usize), Notify::new()));
        let leaving = [0, 1].map(|_| {
            let group = Arc::clone(&group);
            thread::spawn(move || {
                if fault == Some(TwoSteps) {
                    let members = *group.0.lock().unwrap();
                    *group.0.lock().unwrap() = members - 1;
                    if members == 1 {
                        group.1.notify_waiters();
                    }
                    return;
                }
                if fault == Some(NotifyBeforeLeaving) {
                    group.1.notify_waiters();
                    *group.0.lock().unwrap() -= 1;
                    return;
                }
                let mut members = group.0.lock().unwrap();
                *members -= 1;
                let is_empty = *members == 0;
                drop(members);
                if is_empty {
                    group.1.notify_waiters();
                }
            })
        });
        block_on(async {
            loop {
                if fault == Some(CountBeforeRegister) {
                    if *group.0.lock().unwrap() == 0 {
                        return;
                    }
                    // src/sync.rs adds such changes of threads to tokio's type.
                    thread::yield_now();
                    group.1.notified().await;
                    continue;
                }
                let mut emptied = pin!(group.1.notified());
                emptied.as_mut().enable();
                if *group.0.lock().unwrap() == 0 {
                    return;
                }
                emptied.await;
            }
        });
        leaving.into_iter().for_each(|thread| thread.join().unwrap());
    };
    check(test, &[CountBeforeRegister, NotifyBeforeLeaving, TwoSteps]);
}

#[derive(Clone, Copy)]
enum AbortFault {
    /// A task checks for the abort before it registers its waker.
    CheckBeforeRegister,
    /// The abort wakes the tasks before it is visible.
    WakeBeforeMark,
}

/// `Control`: an abort sets a mark and wakes the task; a task registers and then checks the mark.
#[test]
fn faults_of_an_abort_are_found() {
    use AbortFault::{CheckBeforeRegister, WakeBeforeMark};
    let test = |fault| {
        let shared = Arc::new((AtomicBool::new(false), Mutex::new(None::<Waker>)));
        let other = Arc::clone(&shared);
        let aborting = thread::spawn(move || {
            let wake = || other.1.lock().unwrap().take().into_iter().for_each(Waker::wake);
            if matches!(fault, Some(WakeBeforeMark)) {
                wake();
                other.0.store(true, Ordering::SeqCst);
            } else {
                other.0.store(true, Ordering::SeqCst);
                wake();
            }
        });
        block_on(poll_fn(|cx| {
            let register = || *shared.1.lock().unwrap() = Some(cx.waker().clone());
            if matches!(fault, Some(CheckBeforeRegister)) {
                if shared.0.load(Ordering::SeqCst) {
                    return Poll::Ready(());
                }
                register();
                return Poll::Pending;
            }
            register();
            if shared.0.load(Ordering::SeqCst) { Poll::Ready(()) } else { Poll::Pending }
        }));
        aborting.join().unwrap();
    };
    check(test, &[CheckBeforeRegister, WakeBeforeMark]);
}

#[derive(Clone, Copy, PartialEq)]
enum CallFault {
    /// A half that gets what follows from the error does not wait for the other half.
    NoWait,
    /// A half leaves its call before it has noted the error.
    LeaveBeforeNote,
    /// A half stays inside its call while it waits for the other half.
    StayInside,
}

/// `Calls`: the system reports an error to one of two halves, and that half notes it.
#[derive(Default)]
struct Calls {
    is_reported: AtomicBool,
    is_noted: AtomicBool,
    inside: [AtomicBool; 2],
}

impl Calls {
    fn call(&self, half: usize, fault: Option<CallFault>) {
        let leave = || self.inside[half].store(false, Ordering::Release);
        self.inside[half].store(true, Ordering::Relaxed);
        if !self.is_reported.swap(true, Ordering::AcqRel) {
            if fault == Some(CallFault::LeaveBeforeNote) {
                leave();
            }
            self.is_noted.store(true, Ordering::Release);
            leave();
            return;
        }
        if fault != Some(CallFault::StayInside) {
            leave();
        }
        while fault != Some(CallFault::NoWait) && self.inside[1 - half].load(Ordering::Acquire) {
            thread::yield_now();
        }
        leave();
        assert!(self.is_noted.load(Ordering::Acquire), "a half that does not know the error");
    }
}

#[test]
fn faults_of_the_calls_of_two_halves_are_found() {
    use CallFault::{LeaveBeforeNote, NoWait, StayInside};
    let test = |fault| {
        let calls = Arc::new(Calls::default());
        let calling = [0, 1].map(|half| {
            let calls = Arc::clone(&calls);
            thread::spawn(move || (0..2).for_each(|_| calls.call(half, fault)))
        });
        calling.into_iter().for_each(|thread| thread.join().unwrap());
    };
    check(test, &[NoWait, LeaveBeforeNote, StayInside]);
}
