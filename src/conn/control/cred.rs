//! The process at the other end of a Unix socket.

use super::Control;

/// The process that connected to a Unix socket, or that listens on it, as the system recorded it at that time. The peer
/// cannot choose these values.
#[doc(alias = "SO_PEERCRED")]
#[doc(alias = "getpeereid")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct PeerCred {
    /// The effective user id.
    pub uid: u32,
    /// The effective group id.
    pub gid: u32,
    /// The process id, if the system reports it. By now, the id may belong to another process.
    pub pid: Option<i32>,
}

impl Control {
    /// The process at the other end of a Unix socket, on every layer above it. `None` over any other kind of stream,
    /// and after the connection has ended.
    pub fn peer_cred(&self) -> Option<PeerCred> {
        self.bottom()?.peer_cred()
    }
}
