//! Unix sockets.

use std::io;
use std::sync::Arc;

use super::Stream;
use crate::address::Address;
use crate::policy::Policy;

impl From<tokio::net::UnixStream> for Stream<tokio::net::UnixStream> {
    /// A Unix socket, with the default policy.
    fn from(io: tokio::net::UnixStream) -> Self {
        Self::unix(io, Policy::default())
    }
}

impl Stream<tokio::net::UnixStream> {
    /// A Unix socket. tokio wakes tasks without holding a lock, and the system keeps the socket's bytes for the other end.
    pub(crate) fn unix(io: tokio::net::UnixStream, policy: impl Into<Arc<Policy>>) -> Self {
        let path = |addr: io::Result<tokio::net::unix::SocketAddr>| {
            Address::Unix(addr.ok().and_then(|addr| addr.as_pathname().map(std::path::Path::to_path_buf)))
        };
        let (host, peer) = (path(io.local_addr()), path(io.peer_addr()));
        let mut stream = Self::with(io, host, peer, policy).wakes_unlocked().delivers_at_once();
        if let Some(live) = &mut stream.live {
            live.receive = Some(crate::conn::socket::receive_unix);
        }
        stream
    }
}
