//! Takes over tokio-rustls streams whose handshake is done.

use std::io;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

use crate::core::session::Session;
use crate::layers::tcp::TcpConnection;
use crate::layers::tls::TlsConnection;
use crate::policy::Policy;
use crate::transport::Transport;
use crate::transport::layer::TOKEN;

impl TlsConnection<TcpConnection> {
    /// Takes over a tokio-rustls stream whose handshake is done and which was not shut down. No byte is lost: neither
    /// decrypted bytes that the application has not read, nor a partly received record, nor bytes that the stream has
    /// not sent yet. If the stream was shut down, the close fails, because its close_notify cannot be sent again.
    ///
    /// # Errors
    ///
    /// The error of the system if the socket has no peer any more. `InvalidInput` if the session holds accepted early
    /// data that the application has not read: read it from the session first (rule: secure-11).
    ///
    /// ```
    /// # async fn example(stream: tokio_rustls::client::TlsStream<tokio::net::TcpStream>) -> std::io::Result<()> {
    /// use bowline::{Policy, TlsConnection, Transport};
    ///
    /// let mut connection = TlsConnection::from_tokio_rustls(stream, Policy::default())?;
    /// println!("{}", connection.close().await);
    /// # Ok(()) }
    /// ```
    pub fn from_tokio_rustls(
        stream: impl Into<TlsStream<TcpStream>>,
        policy: impl Into<Arc<Policy>>,
    ) -> io::Result<Self> {
        let policy = policy.into();
        Self::from_tokio_rustls_over(stream, |io| TcpConnection::new(io, policy))
    }
}

impl<T: Transport> TlsConnection<T> {
    /// As [`from_tokio_rustls`](TlsConnection::from_tokio_rustls), for a stream over any other I/O type. `layer` makes
    /// a transport of it, for example [`Stream::new`](crate::Stream::new).
    ///
    /// # Errors
    ///
    /// The errors of `layer`. `InvalidInput` if the session holds accepted early data that the application has not
    /// read: read it from the session first (rule: secure-11).
    pub fn from_tokio_rustls_over<S>(
        stream: impl Into<TlsStream<S>>,
        layer: impl FnOnce(S) -> io::Result<T>,
    ) -> io::Result<Self> {
        let (io, session) = match stream.into() {
            TlsStream::Client(stream) => {
                let (io, session) = stream.into_inner();
                (io, session.into())
            }
            TlsStream::Server(stream) => {
                let (io, session) = stream.into_inner();
                (io, session.into())
            }
        };
        let layer = layer(io)?;
        let marks = layer.layer(TOKEN).control().policy().watermarks;
        Ok(Self::over(layer, Session::adopt(session, marks)?))
    }
}
