//! The listening socket, until a drain closes it.
//!
//! A drain has to close the socket although tasks wait to accept from it, and some of them may not be polled for a while. So no
//! task holds the socket while it waits: each poll takes it for the duration of the poll (rule: drain-1).

use std::future::poll_fn;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use slab::Slab;
use tokio::task::coop::has_budget_remaining;

use super::listening_socket::Listens;
use crate::conn::group::Drainable;

pub(super) struct ClosableSocket<S> {
    socket: Mutex<Option<S>>,
    waiting: Arc<Waiting>,
    /// Wakes all waiting tasks: the socket itself remembers one waker only.
    wakes_all: Waker,
}

impl<S: Listens> ClosableSocket<S> {
    pub(super) fn new(socket: S) -> Self {
        let waiting = Arc::<Waiting>::default();
        Self { socket: Mutex::new(Some(socket)), wakes_all: Arc::clone(&waiting).into(), waiting }
    }

    /// Calls `f` with the socket, unless a drain has closed it.
    pub(super) fn with<R>(&self, f: impl FnOnce(&S) -> R) -> Option<R> {
        self.socket().as_ref().map(f)
    }

    /// Accepts the next connection; `None` after a drain has closed the socket. Cancel safe, and several tasks may wait.
    pub(super) async fn accept(&self) -> Option<io::Result<S::Accepted>> {
        let task = WaitingTask::new(&self.waiting);
        let accepted = poll_fn(|cx| {
            if !has_budget_remaining() {
                // Otherwise the socket would wake tasks under its lock.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            // The task is noted first. Otherwise an event between the two steps would not wake it.
            task.park(cx);
            match self.with(|socket| socket.poll_accept(&mut Context::from_waker(&self.wakes_all))) {
                Some(Poll::Pending) => Poll::Pending,
                Some(Poll::Ready(accepted)) => Poll::Ready(Some(accepted)),
                None => Poll::Ready(None),
            }
        })
        .await;
        drop(task);
        // More connections may wait in the backlog, and no further event reports them.
        self.wakes_all.wake_by_ref();
        accepted
    }

    fn socket(&self) -> MutexGuard<'_, Option<S>> {
        self.socket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Listens> Drainable for ClosableSocket<S> {
    /// Closes our descriptor. Nothing more is done to the socket: one that was passed in may have other holders (rule: tcp-10).
    fn shut(&self) {
        let socket = self.socket().take();
        drop(socket);
        self.wakes_all.wake_by_ref();
    }
}

/// The tasks that wait for a connection.
#[derive(Default)]
struct Waiting(Mutex<Slab<Option<Waker>>>);

impl Waiting {
    fn tasks(&self) -> MutexGuard<'_, Slab<Option<Waker>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Waiting {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mut tasks = self.tasks();
        let mut wakers = tasks.iter_mut().filter_map(|(_, waker)| waker.take());
        // There is seldom more than one, and an empty list needs no memory.
        let (first, others) = (wakers.next(), wakers.collect::<Vec<_>>());
        // A waker is foreign code.
        drop(tasks);
        first.into_iter().chain(others).for_each(Waker::wake);
    }
}

/// The entry of one task among the waiting ones.
struct WaitingTask<'a> {
    waiting: &'a Waiting,
    key: usize,
}

impl<'a> WaitingTask<'a> {
    fn new(waiting: &'a Waiting) -> Self {
        Self { waiting, key: waiting.tasks().insert(None) }
    }

    fn park(&self, cx: &Context<'_>) {
        // Cloning or dropping a waker runs foreign code, so neither is done under the lock.
        let waker = Some(cx.waker().clone());
        let before = std::mem::replace(&mut self.waiting.tasks()[self.key], waker);
        drop(before);
    }
}

impl Drop for WaitingTask<'_> {
    fn drop(&mut self) {
        let waker = self.waiting.tasks().remove(self.key);
        drop(waker);
    }
}
