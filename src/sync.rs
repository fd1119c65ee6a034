//! The locks, the atomic counters, the thread-local values and the notifications by which threads meet, and the call by
//! which a thread lets others run.
//!
//! `tests/interleavings` compiles this crate with the types of [shuttle](https://docs.rs/shuttle), which runs a test in
//! many orders of its threads.

#[cfg(not(bowline_shuttle))]
pub(crate) use std::{
    sync::{Mutex, MutexGuard, atomic},
    thread::yield_now,
    thread_local,
};
#[cfg(not(bowline_shuttle))]
pub(crate) use tokio::sync::Notify;

#[cfg(bowline_shuttle)]
pub(crate) use shuttle::{
    sync::{Mutex, MutexGuard, atomic},
    thread::yield_now,
    thread_local,
};

#[cfg(bowline_shuttle)]
pub(crate) use self::checked::Notify;

#[cfg(bowline_shuttle)]
mod checked {
    use shuttle::thread::yield_now;
    use tokio::sync::futures::Notified;

    /// tokio's, with a change of threads before each call.
    #[derive(Debug, Default)]
    pub(crate) struct Notify(tokio::sync::Notify);

    impl Notify {
        pub(crate) const fn new() -> Self {
            Self(tokio::sync::Notify::const_new())
        }

        pub(crate) fn notified(&self) -> Notified<'_> {
            yield_now();
            self.0.notified()
        }

        pub(crate) fn notify_waiters(&self) {
            yield_now();
            self.0.notify_waiters();
        }

        pub(crate) fn notify_one(&self) {
            yield_now();
            self.0.notify_one();
        }
    }
}
