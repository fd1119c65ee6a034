//! The connections of a `TlsListener` that are ready, until the application accepts them.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use tokio::sync::OwnedSemaphorePermit;

use crate::conn::control::Control;
use crate::error::Error;
use crate::transport::layer::poll_budget;

/// A connection that nobody has accepted yet.
pub(super) struct Item<C> {
    pub(super) connection: C,
    pub(super) control: Control,
    /// Counts the connection for the limit of the listener.
    pub(super) place: OwnedSemaphorePermit,
}

/// The queue. One task takes from it.
pub(super) struct Ready<C>(Mutex<State<C>>);

struct State<C> {
    items: VecDeque<Item<C>>,
    /// The error that every take after the last item returns.
    end: Option<Error>,
    /// The listener was dropped: no connection will be taken any more.
    is_closed: bool,
    taker: Option<Waker>,
}

impl<C> Ready<C> {
    pub(super) fn new() -> Self {
        Self(Mutex::new(State { items: VecDeque::new(), end: None, is_closed: false, taker: None }))
    }

    /// Adds a connection. It is dropped if the listener is gone.
    pub(super) fn push(&self, item: Item<C>) {
        let mut state = self.state();
        if state.is_closed {
            drop(state);
            return drop(item);
        }
        state.items.push_back(item);
        wake(state);
    }

    /// No connection follows. Every take after the last connection returns this error.
    pub(super) fn end(&self, error: Error) {
        let mut state = self.state();
        state.end = Some(error);
        wake(state);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.state().items.is_empty()
    }

    /// Takes everything out of the queue.
    pub(super) fn clear(&self) -> VecDeque<Item<C>> {
        std::mem::take(&mut self.state().items)
    }

    /// Drops everything in the queue, and every connection that comes later.
    pub(super) fn close(&self) {
        let mut state = self.state();
        state.is_closed = true;
        let items = std::mem::take(&mut state.items);
        drop(state);
        drop(items);
    }

    pub(super) fn poll_take(&self, cx: &mut Context<'_>) -> Poll<Result<C, Error>> {
        // Cloning or dropping a waker runs foreign code, so neither is done under the lock.
        let waker = cx.waker().clone();
        let mut state = self.state();
        if state.items.is_empty() && state.end.is_none() {
            let before = state.taker.replace(waker);
            drop(state);
            drop(before);
            return Poll::Pending;
        }
        drop(state);
        // rule: life-6. The queue may always have an item, so each one costs budget.
        ready!(poll_budget(cx));
        let mut state = self.state();
        let taken = match state.items.pop_front() {
            Some(item) => Some(Ok(item)),
            None => state.end.clone().map(Err),
        };
        drop(state);
        match taken {
            Some(taken) => Poll::Ready(taken.map(|item| item.connection)),
            None => {
                // The queue was cleared after the first check, so the task polls again and registers its waker.
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State<C>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Releases the lock, and wakes the task that takes.
fn wake<C>(mut state: MutexGuard<'_, State<C>>) {
    let taker = state.taker.take();
    drop(state);
    if let Some(taker) = taker {
        taker.wake();
    }
}
