//! Endpoints, opened: each kind is connected to and listened on by one call, and gives one type of connection.
//!
//! Files are read once, where a connector or a listener is made, so that a bad certificate is told before a port is opened
//! and not in the first handshake.

mod connect;
mod listen;

#[cfg(unix)]
mod unix;
#[cfg(not(unix))]
#[path = "no_unix.rs"]
mod unix;

#[cfg(all(test, unix))]
mod tests;

pub use self::connect::EndpointConnector;
pub use self::listen::{EndpointIncoming, EndpointListener};

use std::fmt;

use crate::transport::UpgradableTransport;
use crate::transport::layer::TOKEN;

/// A connection of any kind: TCP, TLS or a Unix socket, and upgradable each. It is a [`Transport`](crate::Transport) as those
/// that it holds are.
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
