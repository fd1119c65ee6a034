//! The socket options of a transport over TCP.

use crate::conn::options::{SocketOptions, TcpOptions};
use crate::transport::Transport;
use crate::transport::layer::TOKEN;

/// Adds the options of a TCP socket, for the async and the callback interface. The methods are those of
/// [`SocketOptions`], and act on the socket below all layers (rule: tcp-2).
///
/// A transport implements this trait if TCP is its bottom layer: [`TcpConnection`](crate::TcpConnection), and TLS and
/// upgradable connections on top of such a transport. A Unix socket or a pipe has no such options:
///
/// ```compile_fail,E0277
/// fn tune(transport: &impl bowline::TcpTransport) {}
///
/// fn begin(stream: &bowline::TlsConnection<bowline::Stream<tokio::net::UnixStream>>) {
///     tune(stream); // TLS has the options of the layer below, and a Unix socket has none
/// }
/// ```
///
/// If the type is not known, use [`Transport::as_tcp`].
#[doc(alias = "ITCPTransport")]
pub trait TcpTransport: Transport + SocketOptions {}

impl<T: TcpTransport + ?Sized> SocketOptions for Box<T> {
    fn socket(&self) -> TcpOptions<'_> {
        (**self).socket()
    }
}

impl<T: TcpTransport + ?Sized> TcpTransport for Box<T> {}

/// The socket options of a transport over TCP.
pub(crate) fn options(transport: &impl Transport) -> TcpOptions<'_> {
    TcpOptions(transport.layer(TOKEN).control())
}
