//! The interface through which a handle notifies layers and the callback interface of an abort, a close or a drain.

use std::sync::Arc;

use super::close::Closing;

/// An owner of waiting tasks that an abort or a drain has to wake.
pub(crate) trait Watcher: Send + Sync {
    /// Called after the connection was aborted.
    fn handle_abort(&self);
    /// Called when a close was requested through the handle.
    fn handle_close(&self);
    /// Closes the connection in order if this is its topmost layer, even while other tasks hold it.
    fn close_in_order(self: Arc<Self>) -> Closing;
    /// Whether a close through the handle is left to this owner, and not to the topmost layer. It is for the callback
    /// interface.
    fn owns_close(&self) -> bool {
        false
    }
    /// Called when the connection's group starts to drain.
    fn handle_drain(&self) {}
}
