//! Wakes tasks while no lock of a layer is held (rule: life-7).
//!
//! A layer works while it holds its lock, and a stack of TLS sessions works under several locks. Wakers are foreign
//! code: a waker may poll its task at once, and that task needs the same locks. So wakers and other notifications are
//! collected, and run after this thread has released the last lock.

use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::task::Waker;

use crate::core::catch::catch;
use crate::sync::thread_local;

thread_local! {
    /// The number of layer locks that this thread holds.
    static LOCKS: Cell<usize> = const { Cell::new(0) };
    /// Whether `LATER` contains anything. It is checked after each lock, and is usually `false`.
    static IS_LATER: Cell<bool> = const { Cell::new(false) };
    static LATER: RefCell<Vec<Later>> = const { RefCell::new(Vec::new()) };
}

enum Later {
    Wake(Waker),
    Run(Box<dyn FnOnce()>),
}

impl Later {
    fn run(self) {
        match self {
            Self::Wake(waker) => guarded(|| waker.wake()),
            Self::Run(f) => guarded(f),
        }
    }
}

/// A value exists while this thread holds a lock of a layer: it is created before the lock is taken, and dropped after
/// the lock is released.
pub(crate) struct Locked(PhantomData<*const ()>);

impl Locked {
    #[inline]
    pub(crate) fn new() -> Self {
        LOCKS.with(|locks| locks.set(locks.get() + 1));
        Self(PhantomData)
    }
}

impl Drop for Locked {
    #[inline]
    fn drop(&mut self) {
        let locks = LOCKS.with(Cell::get) - 1;
        LOCKS.with(|held| held.set(locks));
        if locks == 0 && IS_LATER.with(Cell::get) {
            run_later();
        }
    }
}

/// Runs the postponed notifications. They may take locks, and postpone more notifications.
#[cold]
fn run_later() {
    while LOCKS.with(Cell::get) == 0 && IS_LATER.with(|later| later.replace(false)) {
        let later = LATER.try_with(RefCell::take).unwrap_or_default();
        later.into_iter().for_each(Later::run);
    }
}

/// Catches a panic of a waker. The panic affects only the waker's own task: the code that called the waker continues,
/// and the other wakers still run (rule: life-7).
fn guarded(f: impl FnOnce()) {
    let _ = catch(f, |_| ());
}

/// Wakes a task: at once if no lock is held, otherwise after the last one is released.
pub(crate) fn wake(waker: Waker) {
    if LOCKS.with(Cell::get) == 0 { guarded(|| waker.wake()) } else { put_off(Later::Wake(waker)) }
}

/// Runs a function that may wake tasks: at once if no lock is held, otherwise after the last one is released.
pub(crate) fn run(f: impl FnOnce() + 'static) {
    if LOCKS.with(Cell::get) == 0 { guarded(f) } else { put_off(Later::Run(Box::new(f))) }
}

fn put_off(later: Later) {
    let mut later = Some(later);
    let _ = LATER.try_with(|all| all.borrow_mut().extend(later.take()));
    match later {
        None => IS_LATER.with(|later| later.set(true)),
        // The thread is ending, and its thread-local storage is gone.
        Some(later) => later.run(),
    }
}
