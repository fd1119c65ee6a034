//! The tasks that wait on a socket or a stream.

use std::sync::PoisonError;
use std::task::{Context, Waker};

use crate::conn::after_unlock;
use crate::sync::Mutex;

/// The tasks that wait on a socket or a stream. An abort wakes them.
#[derive(Default)]
pub(crate) struct Waiting(Mutex<[Option<Waker>; 2]>);

pub(crate) const READER: usize = 0;
pub(crate) const WRITER: usize = 1;

impl Waiting {
    pub(crate) fn park(&self, which: usize, cx: &mut Context<'_>) {
        park(&self.0, |tasks| &mut tasks[which], cx.waker());
    }

    /// Wakes all waiting tasks.
    pub(crate) fn wake(&self) {
        let tasks = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.into_iter().flatten().for_each(after_unlock::wake);
    }
}

/// Stores the waker of a waiting task in a place that a lock guards. A stored waker is replaced only if it wakes
/// another task.
///
/// Cloning or dropping a waker runs foreign code, so neither is done under the lock (rule: life-7).
pub(crate) fn park<T>(lock: &Mutex<T>, place: impl Fn(&mut T) -> &mut Option<Waker>, waker: &Waker) {
    let locked = || lock.lock().unwrap_or_else(PoisonError::into_inner);
    if !place(&mut locked()).as_ref().is_some_and(|parked| parked.will_wake(waker)) {
        let waker = Some(waker.clone());
        let before = std::mem::replace(place(&mut locked()), waker);
        drop(before);
    }
}
