//! Whether a callback runs on this thread, and which.

use std::cell::{Cell, RefCell};

use super::mailbox::Shared;
use super::producer::Producer;

thread_local! {
    /// The connection whose input is delivered, by the address of what it shares with its handles; 0: none.
    static ANSWERING: Cell<usize> = const { Cell::new(0) };
    /// How many callbacks run on this thread: one, or one inside another one's guard.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
    /// Producers to be stopped when none runs any more.
    static LATE: RefCell<Vec<Producer>> = const { RefCell::new(Vec::new()) };
}

/// Delivers input to the protocol of this connection. What is written to the connection meanwhile, by its handle too, is an
/// answer (rule: write-10).
pub(super) fn answering<R>(shared: &Shared, deliver: impl FnOnce() -> R) -> R {
    let before = ANSWERING.replace(place(shared));
    let result = deliver();
    ANSWERING.set(before);
    result
}

/// Whether this thread delivers input to the protocol of this connection.
pub(super) fn is_answering(shared: &Shared) -> bool {
    ANSWERING.try_with(|answering| answering.get() == place(shared)).unwrap_or(false)
}

fn place(shared: &Shared) -> usize {
    std::ptr::from_ref(shared).addr()
}

/// Runs a callback, which does not unwind.
pub(super) fn callback<R>(call: impl FnOnce() -> R) -> R {
    // While the thread ends there is no count, and nothing is put off.
    let _ = DEPTH.try_with(|depth| depth.set(depth.get() + 1));
    let result = call();
    let _ = DEPTH.try_with(|depth| depth.set(depth.get() - 1));
    result
}

/// Keeps a producer until no callback runs on this thread. Gives it back where none does.
pub(super) fn put_off(producer: Producer) -> Option<Producer> {
    if DEPTH.try_with(Cell::get).unwrap_or(0) == 0 {
        return Some(producer);
    }
    let mut producer = Some(producer);
    let _ = LATE.try_with(|late| late.borrow_mut().extend(producer.take()));
    producer
}

/// The producers that were kept, where no callback runs any more.
pub(super) fn take_late() -> Vec<Producer> {
    if DEPTH.try_with(Cell::get).unwrap_or(0) > 0 {
        return Vec::new();
    }
    LATE.try_with(RefCell::take).unwrap_or_default()
}
