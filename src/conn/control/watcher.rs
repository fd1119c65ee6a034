//! How a [`Control`](super::Control) notifies the layers and the callback interface of an abort, a close or a drain.

use std::sync::Arc;

use super::close::Closing;

/// An owner of waiting tasks that an abort or a drain has to wake.
pub(crate) trait Watcher: Send + Sync {
    /// Called after the connection was aborted.
    fn handle_abort(&self);
    /// Called when [`Control::close`](super::Control::close) was called.
    fn handle_close(&self);
    /// Closes the connection in order if this is its topmost layer, even while other tasks hold it.
    fn close_in_order(self: Arc<Self>) -> Closing;
    /// Whether this owner, and not the topmost layer, carries out a [`Control::close`](super::Control::close). The
    /// callback interface does.
    fn owns_close(&self) -> bool {
        false
    }
    /// Called when the connection's group starts to drain.
    fn handle_drain(&self) {}
}
