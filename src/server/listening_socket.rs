//! The interface of a listening socket, of any kind, for the accept loop.

use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};

use socket2::SockRef;
use tokio::net::TcpStream;

/// A listening socket.
pub(crate) trait Listens: Send + Sync + 'static {
    /// A connection that was taken out of the backlog.
    type Accepted: Send;
    /// A connection that a drain has taken out of the backlog. It belongs to no runtime yet.
    type Waiting: Send;

    /// Accepts the next connection. Only the task of the last call is woken.
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Self::Accepted>>;

    /// The connection's TCP socket and its peer. `None` if peers have no addresses; then there are no limits per peer.
    fn tcp(accepted: &Self::Accepted) -> Option<(&TcpStream, SocketAddr)>;

    /// The application gets the descriptors, and may keep duplicates.
    fn lend(&self) {}

    /// Accepts all connections in the backlog. The socket is closed afterwards. May be called outside of a runtime.
    fn take_backlog(&mut self) -> Vec<Self::Waiting>;

    /// Makes a connection from a socket that was taken out of the backlog, in the runtime of the caller.
    fn resume(waiting: Self::Waiting) -> io::Result<Self::Accepted>;

    /// The peer gets RST when this is dropped, if the transport has RST.
    fn reset_on_drop(waiting: &Self::Waiting);

    /// The listening sockets themselves.
    fn sockets(&self) -> Vec<SockRef<'_>>;
}

/// The origin of a listening socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// We have bound the socket, and no other process holds it.
    BoundHere,
    /// The socket was passed in. A service manager, a sibling or a successor may hold it too, and use it after us
    /// (rule: tcp-10).
    HandedIn,
}
