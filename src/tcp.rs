//! A stand-in that is replaced at merge.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpStream;

use crate::Policy;

/// A TCP connection.
#[derive(Debug)]
pub struct TcpConnection {
    _stream: TcpStream,
    host: SocketAddr,
    peer: SocketAddr,
}

impl TcpConnection {
    /// Takes a connected stream.
    ///
    /// # Errors
    /// The system's.
    pub fn new(stream: TcpStream, _policy: Arc<Policy>) -> io::Result<Self> {
        Ok(Self { host: stream.local_addr()?, peer: stream.peer_addr()?, _stream: stream })
    }

    /// Our address.
    pub fn host(&self) -> SocketAddr {
        self.host
    }

    /// The peer's address.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }
}
