//! Which callback runs on this thread, if any.

use std::cell::{Cell, RefCell};

thread_local! {
    /// The connection whose input is being delivered, as the address of the state that it shares with its handles; 0: none.
    static ANSWERING: Cell<usize> = const { Cell::new(0) };
    /// The number of callbacks that run on this thread: one, or one nested in another.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
    /// Work to do after the last callback has returned.
    static POSTPONED: RefCell<Vec<Task>> = const { RefCell::new(Vec::new()) };
}

type Task = Box<dyn FnOnce()>;

/// Delivers input to the protocol of the connection with this address. Bytes written to the connection during this call, also
/// by its handle, count as answers (rule: write-10).
pub(super) fn answering<R>(connection: usize, deliver: impl FnOnce() -> R) -> R {
    let before = ANSWERING.replace(connection);
    let result = deliver();
    ANSWERING.set(before);
    result
}

/// Whether this thread is delivering input to the protocol of this connection.
pub(super) fn is_answering(connection: usize) -> bool {
    ANSWERING.try_with(|answering| answering.get() == connection).unwrap_or(false)
}

/// Runs a callback, which must not unwind.
pub(super) fn callback<R>(call: impl FnOnce() -> R) -> R {
    // While the thread ends there is no count, and nothing is postponed.
    let _ = DEPTH.try_with(|depth| depth.set(depth.get() + 1));
    let result = call();
    let _ = DEPTH.try_with(|depth| depth.set(depth.get() - 1));
    result
}

/// Keeps this work until no callback runs on this thread. Returns it if none runs now.
pub(super) fn postpone<F: FnOnce() + 'static>(task: F) -> Option<F> {
    if DEPTH.try_with(Cell::get).unwrap_or(0) == 0 {
        return Some(task);
    }
    let mut task = Some(task);
    let _ = POSTPONED.try_with(|tasks| tasks.borrow_mut().extend(task.take().map(|task| Box::new(task) as Task)));
    task
}

/// The work that was postponed, if no callback runs any more.
pub(super) fn take_postponed() -> Vec<Task> {
    if DEPTH.try_with(Cell::get).unwrap_or(0) > 0 {
        return Vec::new();
    }
    POSTPONED.try_with(RefCell::take).unwrap_or_default()
}
