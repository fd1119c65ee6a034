//! Connects to endpoints, and listens on them. One call serves every kind of endpoint, and all kinds return the same
//! type of connection.
//!
//! Files are read once, when a connector or a listener is made, so that a bad certificate is reported before a port is
//! opened and not in the first handshake.

mod connect;
mod inherited;
mod listen;
mod ready;
mod socket;

#[cfg(unix)]
mod unix;
#[cfg(not(unix))]
#[path = "no_unix.rs"]
mod unix;

#[cfg(all(test, unix))]
mod tests;

pub use self::connect::EndpointConnector;
pub use self::listen::{EndpointIncoming, EndpointListener, EndpointParts};
#[cfg(feature = "hyper")]
pub(crate) use self::unix::connect as connect_unix;
#[cfg(unix)]
pub(crate) use self::unix::{PrivateSocket, dial as dial_unix};

use std::fmt;

use crate::transport::UpgradableTransport;
use crate::transport::layer::TOKEN;

/// A connection of any kind: TCP, TLS or a Unix socket. Each of them can be upgraded to TLS. It implements
/// [`Transport`](crate::Transport).
pub type BoxConnection = Box<dyn UpgradableTransport>;

impl fmt::Debug for dyn UpgradableTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (send, recv) = self.layer(TOKEN).halves();
        f.debug_struct("BoxConnection")
            .field("local_addr", &self.local_addr())
            .field("peer_addr", &self.peer_addr())
            .field("send", &send)
            .field("recv", &recv)
            .finish_non_exhaustive()
    }
}
