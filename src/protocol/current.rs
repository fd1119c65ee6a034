//! Which callback runs on this thread, if any.

use std::cell::{Cell, RefCell};

use super::handle_state::HandleState;
use super::producer::Producer;

thread_local! {
    /// The connection whose input is being delivered, as the address of the state that it shares with its handles; 0: none.
    static ANSWERING: Cell<usize> = const { Cell::new(0) };
    /// The number of callbacks that run on this thread: one, or one nested in another.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
    /// Producers to stop after the last callback has returned.
    static LATE: RefCell<Vec<Producer>> = const { RefCell::new(Vec::new()) };
}

/// Delivers input to the protocol of this connection. Bytes written to the connection during this call, also by its handle,
/// count as answers (rule: write-10).
pub(super) fn answering<R>(handle_state: &HandleState, deliver: impl FnOnce() -> R) -> R {
    let before = ANSWERING.replace(place(handle_state));
    let result = deliver();
    ANSWERING.set(before);
    result
}

/// Whether this thread is delivering input to the protocol of this connection.
pub(super) fn is_answering(handle_state: &HandleState) -> bool {
    ANSWERING.try_with(|answering| answering.get() == place(handle_state)).unwrap_or(false)
}

fn place(handle_state: &HandleState) -> usize {
    std::ptr::from_ref(handle_state).addr()
}

/// Runs a callback, which must not unwind.
pub(super) fn callback<R>(call: impl FnOnce() -> R) -> R {
    // While the thread ends there is no count, and nothing is postponed.
    let _ = DEPTH.try_with(|depth| depth.set(depth.get() + 1));
    let result = call();
    let _ = DEPTH.try_with(|depth| depth.set(depth.get() - 1));
    result
}

/// Keeps a producer until no callback runs on this thread. Returns it if none runs now.
pub(super) fn put_off(producer: Producer) -> Option<Producer> {
    if DEPTH.try_with(Cell::get).unwrap_or(0) == 0 {
        return Some(producer);
    }
    let mut producer = Some(producer);
    let _ = LATE.try_with(|late| late.borrow_mut().extend(producer.take()));
    producer
}

/// The producers that were kept, if no callback runs any more.
pub(super) fn take_late() -> Vec<Producer> {
    if DEPTH.try_with(Cell::get).unwrap_or(0) > 0 {
        return Vec::new();
    }
    LATE.try_with(RefCell::take).unwrap_or_default()
}
