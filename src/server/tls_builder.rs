//! The settings of a listener that does the handshakes itself.

use std::fmt;
use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::address::Address;
use crate::error::Error;

type OnError = Arc<dyn Fn(&Address, &Error) + Send + Sync>;

/// The settings of a [`TlsListener`](crate::TlsListener).
#[derive(Clone)]
pub struct TlsListenerBuilder {
    pub(super) max_waiting: usize,
    pub(super) finishes: Option<bool>,
    pub(super) on_error: Option<OnError>,
}

impl Default for TlsListenerBuilder {
    fn default() -> Self {
        Self { max_waiting: 1024, finishes: None, on_error: None }
    }
}

impl TlsListenerBuilder {
    /// The largest number of connections between the system's backlog and
    /// [`TlsListener::accept`](crate::TlsListener::accept), in their handshake or after it; default 1024, at least 1.
    ///
    /// At the limit, a new connection displaces the oldest handshake of the peer that has the most handshakes in
    /// progress (rule: accept-2). A peer is an IPv4 address or an IPv6 network of 64 bits. If there are only
    /// connections whose handshake is done, the listener stops accepting until one of them is taken.
    pub fn max_waiting(self, max: usize) -> Self {
        Self { max_waiting: max.clamp(1, Semaphore::MAX_PERMITS), ..self }
    }

    /// Whether a drain takes the connections that wait in the system's backlog, and lets the handshakes that are in
    /// progress finish, within their deadline (rules: accept-3, drain-5); default: as the listener's
    /// [`finish_on_drain`](crate::ListenerBuilder::finish_on_drain). If this is false, the drain resets both (rule:
    /// drain-2). The connections are accepted as before, and their [`Control::draining`](crate::Control::draining) is
    /// ready at once.
    pub fn finish_on_drain(self, finish: bool) -> Self {
        Self { finishes: Some(finish), ..self }
    }

    /// Sets a callback for the peer and the error of each handshake that fails. It runs in the handshake's task. A
    /// panic in it is caught.
    pub fn on_error(self, f: impl Fn(&Address, &Error) + Send + Sync + 'static) -> Self {
        Self { on_error: Some(Arc::new(f)), ..self }
    }
}

impl fmt::Debug for TlsListenerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsListenerBuilder")
            .field("max_waiting", &self.max_waiting)
            .field("finish_on_drain", &self.finishes)
            .finish_non_exhaustive()
    }
}
