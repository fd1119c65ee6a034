//! What the system knows about a TCP connection.

use std::io;

use super::Control;
use crate::conn::tcp_info::TcpInfo;

impl Control {
    /// What the system knows about the TCP connection, on every layer above it. Linux and Android report it.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) if the bottom layer is not TCP, or the system does not report it.
    /// [`NotConnected`](io::ErrorKind::NotConnected) after the end of the connection, so an
    /// [`Observer::ended`](crate::Observer::ended) is too late.
    #[doc(alias = "TCP_INFO")]
    pub fn tcp_info(&self) -> io::Result<TcpInfo> {
        self.with_socket(|socket| socket.tcp_info())
    }
}
