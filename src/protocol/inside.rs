//! Which callback runs on this thread.

use std::cell::Cell;

use super::mailbox::Shared;

thread_local! {
    /// The connection whose input is delivered, by the address of what it shares with its handles; 0: none.
    static ANSWERING: Cell<usize> = const { Cell::new(0) };
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
