//! The options of the TCP socket at the bottom of a connection, shared by the async and the callback API.

use std::io;
use std::time::Duration;

use super::control::Control;
use super::socket::Keepalive;

/// The TCP socket at the bottom of a connection: see [`Transport::as_tcp`](crate::Transport::as_tcp). Only this crate
/// can make a value, so only its connections have socket options.
#[derive(Debug, Clone, Copy)]
pub struct TcpOptions<'a>(pub(crate) &'a Control);

impl TcpOptions<'_> {
    /// Calls `f` with the descriptor of the socket, for options that this crate does not know: `SO_MARK`, `TCP_INFO`,
    /// `SO_INCOMING_CPU`. The connection cannot be lent for longer, because an abort by another task may close it.
    ///
    /// The descriptor is for reading and setting options. Do not read from it, write to it, shut it down, or make it
    /// blocking: the layers above would lose bytes, or their end. A duplicate keeps the socket open after the end of
    /// the connection.
    ///
    /// # Errors
    /// As [`SocketOptions`], and the error of `f`.
    #[cfg(unix)]
    #[doc(alias = "AsFd")]
    pub fn with_fd<R>(&self, f: impl FnOnce(std::os::fd::BorrowedFd<'_>) -> io::Result<R>) -> io::Result<R> {
        self.0.with_socket(|socket| f(socket.fd()))
    }

    /// Calls `f` with the socket, for options that this crate does not know. The connection cannot be lent for longer,
    /// because an abort by another task may close it.
    ///
    /// The socket is for reading and setting options. Do not read from it, write to it, shut it down, or make it
    /// blocking: the layers above would lose bytes, or their end. A duplicate keeps the socket open after the end of
    /// the connection.
    ///
    /// # Errors
    /// As [`SocketOptions`], and the error of `f`.
    #[cfg(windows)]
    #[doc(alias = "AsSocket")]
    pub fn with_socket<R>(
        &self,
        f: impl FnOnce(std::os::windows::io::BorrowedSocket<'_>) -> io::Result<R>,
    ) -> io::Result<R> {
        self.0.with_socket(|socket| f(socket.socket()))
    }
}

impl SocketOptions for TcpOptions<'_> {
    fn socket(&self) -> TcpOptions<'_> {
        *self
    }
}

/// The options of the TCP socket at the bottom of a connection. Every [`TcpTransport`](crate::TcpTransport) and every
/// [`protocol::Conn`](crate::protocol::Conn) has these methods. They act on the socket below all layers (rule:
/// tcp-2).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// use std::time::Duration;
/// use bowline::{Keepalive, SocketOptions};
///
/// let (connection, _peer) = bowline::testing::tcp_pair().await?;
/// assert!(connection.nodelay()?);
/// connection.set_keepalive(Some(Keepalive::new().idle(Duration::from_secs(60))))?;
/// # Ok(()) }
/// ```
///
/// # Errors
/// `ErrorKind::Unsupported` if there is no TCP socket at the bottom, `ErrorKind::NotConnected` after the end of the
/// connection (rule: tcp-3), otherwise the error of the system.
#[doc(alias = "ITCPTransport")]
pub trait SocketOptions {
    #[doc(hidden)]
    fn socket(&self) -> TcpOptions<'_>;

    /// Whether small segments are sent at once (`TCP_NODELAY`). On by default.
    ///
    /// # Errors
    /// As for [all options](SocketOptions#errors).
    #[doc(alias = "getTcpNoDelay")]
    #[doc(alias = "TCP_NODELAY")]
    fn nodelay(&self) -> io::Result<bool> {
        self.socket().0.with_socket(|socket| socket.nodelay())
    }

    /// Sets whether small segments are sent at once (`TCP_NODELAY`).
    ///
    /// # Errors
    /// As for [all options](SocketOptions#errors).
    #[doc(alias = "setTcpNoDelay")]
    #[doc(alias = "TCP_NODELAY")]
    fn set_nodelay(&self, on: bool) -> io::Result<()> {
        self.socket().0.with_socket(|socket| socket.set_nodelay(on))
    }

    /// Whether and how the system probes an idle connection.
    ///
    /// # Errors
    /// As for [all options](SocketOptions#errors).
    #[doc(alias = "getTcpKeepAlive")]
    #[doc(alias = "SO_KEEPALIVE")]
    fn keepalive(&self) -> io::Result<Option<Keepalive>> {
        self.socket().0.keepalive()
    }

    /// Sets whether and how the system probes an idle connection.
    ///
    /// # Errors
    /// As for [all options](SocketOptions#errors).
    #[doc(alias = "setTcpKeepAlive")]
    #[doc(alias = "SO_KEEPALIVE")]
    fn set_keepalive(&self, keepalive: Option<Keepalive>) -> io::Result<()> {
        self.socket().0.set_keepalive(keepalive)
    }

    /// The longest time that sent data may stay unacknowledged. After it, the system gives up the connection (Linux).
    ///
    /// # Errors
    /// As for [all options](SocketOptions#errors). On other systems, `Unsupported`.
    #[doc(alias = "TCP_USER_TIMEOUT")]
    fn user_timeout(&self) -> io::Result<Option<Duration>> {
        self.socket().0.with_socket(|socket| socket.user_timeout())
    }

    /// Sets the longest time that sent data may stay unacknowledged. After it, the system gives up the connection
    /// (Linux). The system counts in milliseconds. `None`: its own limit.
    ///
    /// # Errors
    /// As for [all options](SocketOptions#errors). On other systems, `Unsupported`.
    #[doc(alias = "TCP_USER_TIMEOUT")]
    fn set_user_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.socket().0.with_socket(|socket| socket.set_user_timeout(timeout))
    }

    /// The sizes of the kernel's send buffer and of its receive buffer, in bytes.
    ///
    /// # Errors
    /// As for [all options](SocketOptions#errors).
    #[doc(alias = "SO_SNDBUF")]
    #[doc(alias = "SO_RCVBUF")]
    fn buffer_sizes(&self) -> io::Result<(usize, usize)> {
        self.socket().0.with_socket(|socket| socket.buffer_sizes())
    }

    /// Sets the size of the kernel's send buffer, in bytes. Linux doubles the value.
    ///
    /// # Errors
    /// As for [all options](SocketOptions#errors).
    #[doc(alias = "SO_SNDBUF")]
    fn set_send_buffer_size(&self, bytes: usize) -> io::Result<()> {
        self.socket().0.with_socket(|socket| socket.set_send_buffer_size(bytes))
    }

    /// Sets the size of the kernel's receive buffer, in bytes. Linux doubles the value.
    ///
    /// # Errors
    /// As for [all options](SocketOptions#errors).
    #[doc(alias = "SO_RCVBUF")]
    fn set_recv_buffer_size(&self, bytes: usize) -> io::Result<()> {
        self.socket().0.with_socket(|socket| socket.set_recv_buffer_size(bytes))
    }
}
