//! The system's statistics of a TCP connection.

use std::io;

use super::Control;
use crate::conn::tcp_info::TcpInfo;

impl Control {
    /// The system's statistics of the TCP connection, from every layer above it. Linux and Android report them.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) if the bottom layer is not TCP, or the system does
    /// not report them. [`NotConnected`](io::ErrorKind::NotConnected) after the end of the connection, and therefore
    /// also in [`Observer::ended`](crate::Observer::ended).
    #[doc(alias = "TCP_INFO")]
    pub fn tcp_info(&self) -> io::Result<TcpInfo> {
        self.with_socket(|socket| socket.tcp_info())
    }
}
