//! The tasks that wait on a stream.

use std::sync::{Mutex, PoisonError};
use std::task::{Context, Waker};

use crate::conn::control::Bottom;
use crate::conn::unlocked;

/// The tasks that wait on the stream: an abort wakes them.
#[derive(Default)]
pub(super) struct Waiting(Mutex<[Option<Waker>; 2]>);

pub(super) const READER: usize = 0;
pub(super) const WRITER: usize = 1;

impl Waiting {
    pub(super) fn park(&self, which: usize, cx: &mut Context<'_>) {
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let parks_already = lock()[which].as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
        if !parks_already {
            // Cloning or dropping a waker runs foreign code too.
            let waker = Some(cx.waker().clone());
            let before = std::mem::replace(&mut lock()[which], waker);
            drop(before);
        }
    }
}

impl Bottom for Waiting {
    fn abort(&self) {
        let tasks = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.into_iter().flatten().for_each(unlocked::wake);
    }
}
