//! The state of a listener, as it reports it.

use std::io;
use std::sync::Arc;

use crate::conn::refusal::Refusal;

/// The state of a listener.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ListenerStatus {
    /// The number of failed accepts for lack of a system resource, since the listener was opened.
    pub accept_errors: u64,
    /// The error of the last such failure.
    pub last_error: Option<Arc<io::Error>>,
    /// Whether accept is waiting now because the system has run out of descriptors or memory.
    pub is_waiting: bool,
    /// Whether [`ListenerBuilder::max_connections`](crate::ListenerBuilder::max_connections) is reached. The next
    /// connection then waits in the system's backlog.
    pub is_full: bool,
    /// The number of connections that were refused since the listener was opened.
    pub refused: u64,
    /// The last connection that was refused.
    pub last_refusal: Option<Refusal>,
}
