//! Tracks which callbacks run on this thread.

use std::cell::{Cell, RefCell};

use crate::sync::thread_local;

thread_local! {
    /// The connection whose input is being delivered, identified by the address of the state that it shares with its
    /// handles; 0 if there is none.
    static ANSWERING: Cell<usize> = const { Cell::new(0) };
    /// The number of callbacks that are running on this thread. It exceeds 1 if one callback runs inside another.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
    /// Work to do after the last running callback has returned.
    static POSTPONED: RefCell<Vec<Task>> = const { RefCell::new(Vec::new()) };
}

type Task = Box<dyn FnOnce()>;

/// Delivers input to the protocol of the connection with this address. Bytes that are written to that connection
/// during the call, also through its handle, count as answers (rule: write-10).
pub(super) fn answering<R>(connection: usize, deliver: impl FnOnce() -> R) -> R {
    let before = ANSWERING.with(|answering| answering.replace(connection));
    let result = deliver();
    ANSWERING.with(|answering| answering.set(before));
    result
}

/// Whether this thread is delivering input to the protocol of this connection.
pub(super) fn is_answering(connection: usize) -> bool {
    ANSWERING.try_with(|answering| answering.get() == connection).unwrap_or(false)
}

/// Runs a callback, which must not unwind.
pub(super) fn callback<R>(call: impl FnOnce() -> R) -> R {
    // On a thread that is ending, the thread-local values are gone. Callbacks are not counted then, and nothing is
    // postponed.
    let _ = DEPTH.try_with(|depth| depth.set(depth.get() + 1));
    let result = call();
    let _ = DEPTH.try_with(|depth| depth.set(depth.get() - 1));
    result
}

/// Keeps this work until no callback runs on this thread. If none runs now, the work is returned to the caller.
pub(super) fn postpone<F: FnOnce() + 'static>(task: F) -> Option<F> {
    if DEPTH.try_with(Cell::get).unwrap_or(0) == 0 {
        return Some(task);
    }
    let mut task = Some(task);
    let _ = POSTPONED.try_with(|tasks| tasks.borrow_mut().extend(task.take().map(|task| Box::new(task) as Task)));
    task
}

/// Takes the postponed work, if no callback runs any more.
pub(super) fn take_postponed() -> Vec<Task> {
    if DEPTH.try_with(Cell::get).unwrap_or(0) > 0 {
        return Vec::new();
    }
    POSTPONED.try_with(RefCell::take).unwrap_or_default()
}
