//! What an abort, a close and a drain by the handle need of the layers and of the callback interface.

use std::sync::Arc;

use super::close::Closing;

/// An owner of waiting tasks that an abort or a drain has to wake.
pub(crate) trait Watcher: Send + Sync {
    /// Called after the connection was aborted.
    fn handle_abort(&self);
    /// A close was requested by the handle.
    fn handle_close(&self);
    /// Closes the connection in order, if this is its topmost layer, while other tasks may hold it.
    fn close_in_order(self: Arc<Self>) -> Closing;
    /// Whether a close has to be left to this owner, whatever layers there are.
    fn owns_close(&self) -> bool {
        false
    }
    /// Called when the connection's group starts to drain.
    fn handle_drain(&self) {}
}
