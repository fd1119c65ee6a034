//! How a [`Control`](super::Control) uses the bottom layer of its connection.

use std::sync::Arc;
use std::task::Waker;

use super::close::Closing;
use super::cred::PeerCred;
use crate::conn::shared_socket::SocketRef;
use crate::core::delivery::Pending;

/// The bottom layer of a connection, on which an abort acts.
pub(crate) trait Bottom: Send + Sync {
    /// Ends the connection now, with RST if the transport has RST, and wakes the tasks that wait on it.
    fn abort(&self);

    /// Called when [`Control::close`](super::Control::close) was called. Wakes the tasks that wait on the bottom layer.
    fn handle_close(&self);

    /// Keeps the connection open even if the tasks that use it drop it. `None`: the connection has ended.
    fn hold(self: Arc<Self>) -> Option<Box<dyn Send>>;

    /// Closes the connection in order if this is its topmost layer, even while other tasks hold it. `None`: the
    /// connection has ended.
    fn close_in_order(self: Arc<Self>) -> Option<Closing>;

    /// The TCP socket, if the bottom layer is TCP.
    fn socket(&self) -> Option<SocketRef<'_>> {
        None
    }

    /// The process at the other end of a Unix socket.
    fn peer_cred(&self) -> Option<PeerCred> {
        None
    }

    /// Called before a close drops the transport. The close will make the report.
    fn handle_close_report(&self) {}

    /// Whether both halves have ended in order, but the peer's system has not acknowledged our last bytes yet. Asks
    /// our system.
    fn awaits_delivery(&self) -> bool {
        false
    }

    /// Whether the peer's system may still acknowledge bytes that were sent. Asks our system.
    fn has_unacknowledged(&self) -> bool {
        false
    }

    /// The data that the peer's system has not acknowledged yet; `None` if our system does not know.
    fn pending(&self) -> Option<Pending> {
        None
    }

    /// Makes the peer see RST if the process is killed while our send half is open. Does nothing if the transport has
    /// no RST.
    fn reset_when_killed(&self) {}

    /// Whether the system reports an error of the socket. If it does not, this waker is woken when it does.
    fn has_error(self: Arc<Self>, _: &Waker) -> bool {
        false
    }
}
