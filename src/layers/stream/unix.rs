//! Unix sockets.

use std::io;
use std::panic::Location;
use std::sync::Arc;

use super::Stream;
use crate::address::Address;
use crate::conn::control::PeerCred;
#[cfg(feature = "proxy")]
use crate::core::inbox::Inbox;
use crate::policy::Policy;
#[cfg(feature = "proxy")]
use crate::transport::layer::poll_read_ahead;

impl From<tokio::net::UnixStream> for Stream<tokio::net::UnixStream> {
    /// A Unix socket, with the default policy.
    fn from(io: tokio::net::UnixStream) -> Self {
        Self::unix(io, Arc::default())
    }
}

impl Stream<tokio::net::UnixStream> {
    /// A Unix socket. tokio wakes tasks without holding a lock, and the system keeps the socket's bytes for the other
    /// end.
    ///
    /// The caller has to announce it: see [`Control::announce`](crate::conn::control::Control::announce).
    pub(crate) fn unix(io: tokio::net::UnixStream, policy: Arc<Policy>) -> Self {
        let (host, peer) = (name(io.local_addr()), name(io.peer_addr()));
        let cred = io.peer_cred().ok().map(PeerCred::from);
        let mut stream = Self::silently(io, host, peer, policy).wakes_unlocked().delivers_at_once();
        if let Some(live) = &mut stream.live {
            live.receive = Some(crate::conn::socket::receive_unix);
        }
        if let (Some(bottom), Some(cred)) = (&stream.bottom, cred) {
            bottom.set_peer_cred(cred);
        }
        stream
    }

    /// Takes over a connected Unix socket that was made elsewhere.
    ///
    /// # Errors
    /// The system's error if the socket cannot be used.
    ///
    /// # Panics
    /// Outside of a tokio runtime with I/O enabled.
    #[track_caller]
    pub fn from_std(io: std::os::unix::net::UnixStream, policy: impl Into<Arc<Policy>>) -> io::Result<Self> {
        io.set_nonblocking(true)?;
        let stream = Self::unix(tokio::net::UnixStream::from_std(io)?, policy.into());
        stream.control.announce(Location::caller());
        Ok(stream)
    }
}

/// Access to the first bytes of a connection, which may be a PROXY header.
#[cfg(feature = "proxy")]
impl Stream<tokio::net::UnixStream> {
    /// Received bytes that nobody has read yet.
    pub(crate) fn unread(&self) -> &[u8] {
        self.inbox.as_slice()
    }

    /// Removes the first of these bytes.
    pub(crate) fn skip(&mut self, n: usize) {
        self.inbox.consume(n);
        self.inbox.release();
        self.control.hide_received(n);
    }

    /// Waits until there are more of these bytes than before. `false`: the peer has ended its half.
    ///
    /// Cancel safe: received bytes stay in the connection.
    pub(crate) async fn read_more(&mut self) -> io::Result<bool> {
        let before = self.inbox.len();
        std::future::poll_fn(|cx| {
            poll_read_ahead(self, |stream| &mut stream.inbox, Inbox::ROOM, |stream, buf| stream.poll_fill(cx, buf))
        })
        .await?;
        Ok(self.inbox.len() > before)
    }
}

pub(crate) fn name(addr: io::Result<tokio::net::unix::SocketAddr>) -> Address {
    let Ok(addr) = addr else { return Address::Unix(None) };
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if let Some(name) = addr.as_abstract_name() {
        return Address::UnixAbstract(name.to_vec());
    }
    Address::Unix(addr.as_pathname().map(std::path::Path::to_path_buf))
}

impl From<tokio::net::unix::UCred> for PeerCred {
    fn from(cred: tokio::net::unix::UCred) -> Self {
        Self { uid: cred.uid(), gid: cred.gid(), pid: cred.pid() }
    }
}
