//! The listening socket, until a drain closes it.
//!
//! A drain has to close the socket although tasks wait to accept from it, and some of them may not be polled for a
//! while. So no task holds the socket while it waits: each poll takes it for the duration of the poll (rule: drain-1).
//! If the drain takes the backlog, the connections in it are kept here until they are accepted (rule: drain-5).

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use slab::Slab;
use tokio::sync::Notify;
use tokio::task::coop::has_budget_remaining;

use super::listening_socket::Listens;
use crate::conn::group::{Arriving, DrainGroup, Drainable};
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Mutex, MutexGuard};

pub(super) struct ClosableSocket<S: Listens> {
    state: Mutex<State<S>>,
    /// See [`takes_backlog`](Self::takes_backlog). A listener may set this until the drain.
    takes_backlog: AtomicBool,
    waiting: Arc<Waiting>,
    /// Wakes all waiting tasks: the socket itself remembers one waker only.
    wakes_all: Waker,
    /// Notified when the socket was closed and nothing is left of its backlog.
    exhausted: Notify,
}

enum State<S: Listens> {
    Open(S),
    /// The connections that a drain has taken out of the backlog.
    Closed(VecDeque<(S::Waiting, Arriving)>),
}

/// A connection, and a guard that keeps the drain from ending, if the drain took the connection out of the backlog.
pub(super) type Accepted<S> = (<S as Listens>::Accepted, Option<Arriving>);

impl<S: Listens> ClosableSocket<S> {
    pub(super) fn new(socket: S, takes_backlog: bool) -> Self {
        let waiting = Arc::<Waiting>::default();
        Self {
            state: Mutex::new(State::Open(socket)),
            takes_backlog: AtomicBool::new(takes_backlog),
            wakes_all: Arc::clone(&waiting).into(),
            waiting,
            exhausted: Notify::new(),
        }
    }

    /// Whether a drain takes the connections in the backlog, instead of letting the system reset them.
    pub(super) fn takes_backlog(&self) -> bool {
        self.takes_backlog.load(Ordering::Acquire)
    }

    pub(super) fn set_takes_backlog(&self, takes: bool) {
        self.takes_backlog.store(takes, Ordering::Release);
    }

    /// Calls `f` with the socket, unless the socket is closed.
    pub(super) fn with<R>(&self, f: impl FnOnce(&S) -> R) -> Option<R> {
        match &*self.state() {
            State::Open(socket) => Some(f(socket)),
            State::Closed(_) => None,
        }
    }

    /// Accepts the next connection; `None` if the socket was closed and nothing is left of its backlog. Cancel safe,
    /// and several tasks may wait.
    pub(super) async fn accept(&self) -> Option<io::Result<Accepted<S>>> {
        let task = WaitingTask::new(&self.waiting);
        let accepted = poll_fn(|cx| {
            if !has_budget_remaining() {
                // Without budget, tokio's socket would wake the tasks during the poll below, while our lock is held.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            // The task is registered before the socket is polled. Otherwise an event between the two steps would not
            // wake it.
            task.park(cx);
            let mut state = self.state();
            let (next, is_last) = match &mut *state {
                State::Open(socket) => {
                    let accepted = socket.poll_accept(&mut Context::from_waker(&self.wakes_all));
                    return accepted.map(|accepted| Some(accepted.map(|accepted| (accepted, None))));
                }
                State::Closed(left) => (left.pop_front(), left.is_empty()),
            };
            drop(state);
            if next.is_some() && is_last {
                self.exhausted.notify_waiters();
            }
            Poll::Ready(next.map(|(waiting, arriving)| Ok((S::resume(waiting)?, Some(arriving)))))
        })
        .await;
        drop(task);
        // More connections may wait in the backlog, and no further event reports them.
        self.wakes_all.wake_by_ref();
        accepted
    }

    /// Waits until the socket is closed and nothing is left of its backlog.
    pub(super) async fn exhausted(&self) {
        loop {
            let mut exhausted = pin!(self.exhausted.notified());
            exhausted.as_mut().enable();
            if matches!(&*self.state(), State::Closed(left) if left.is_empty()) {
                return;
            }
            exhausted.await;
        }
    }

    /// Closes our descriptor. Nothing more is done to the socket: one that was passed in may have other holders
    /// (rule: tcp-10).
    fn close(&self, mut state: MutexGuard<'_, State<S>>, left: VecDeque<(S::Waiting, Arriving)>) {
        let before = match &*state {
            State::Open(_) => Some(std::mem::replace(&mut *state, State::Closed(left))),
            State::Closed(_) => None,
        };
        drop(state);
        drop(before);
        self.exhausted.notify_waiters();
        self.wakes_all.wake_by_ref();
    }

    fn state(&self) -> MutexGuard<'_, State<S>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Listens> Drainable for ClosableSocket<S> {
    fn shut(&self) {
        self.close(self.state(), VecDeque::new());
    }

    fn drain(&self, group: &DrainGroup) {
        let mut state = self.state();
        let left = match &mut *state {
            State::Open(socket) if self.takes_backlog() => socket.take_backlog(),
            State::Open(_) | State::Closed(_) => Vec::new(),
        };
        self.close(state, left.into_iter().map(|waiting| (waiting, group.arriving())).collect());
    }

    fn discard(&self) -> usize {
        let mut state = self.state();
        let left = match &mut *state {
            State::Open(_) => VecDeque::new(),
            State::Closed(left) => std::mem::take(left),
        };
        drop(state);
        left.iter().for_each(|(waiting, _)| S::reset_on_drop(waiting));
        self.exhausted.notify_waiters();
        left.len()
    }
}

impl<S: Listens> Drop for ClosableSocket<S> {
    fn drop(&mut self) {
        // The connections that the drain took out of the backlog can no longer be accepted.
        self.discard();
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
        // There is seldom more than one waker, and then the empty `Vec` allocates nothing.
        let (first, others) = (wakers.next(), wakers.collect::<Vec<_>>());
        // A waker may run code of the application, so the lock is released first.
        drop(tasks);
        first.into_iter().chain(others).for_each(Waker::wake);
    }
}

/// One task among the waiting ones.
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
