//! The tasks that wait on a socket or a stream.

use std::sync::{Mutex, PoisonError};
use std::task::{Context, Waker};

use crate::conn::unlocked;

/// The tasks that wait on a socket or a stream: an abort wakes them.
#[derive(Default)]
pub(crate) struct Waiting(Mutex<[Option<Waker>; 2]>);

pub(crate) const READER: usize = 0;
pub(crate) const WRITER: usize = 1;

impl Waiting {
    pub(crate) fn park(&self, which: usize, cx: &mut Context<'_>) {
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let parks_already = lock()[which].as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
        if !parks_already {
            // Cloning or dropping a waker runs foreign code, so neither is done under the lock.
            let waker = Some(cx.waker().clone());
            let before = std::mem::replace(&mut lock()[which], waker);
            drop(before);
        }
    }

    /// Wakes all waiting tasks.
    pub(crate) fn wake(&self) {
        let tasks = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.into_iter().flatten().for_each(unlocked::wake);
    }
}
