//! The listeners whose connections a server serves.

use std::future::{Future, ready};

use crate::error::Error;
use crate::layers::tcp::TcpConnection;
use crate::server::incoming::Incoming;
use crate::server::listener::Listener;
use crate::server::tls_listener::TlsListener;
use crate::transport::Transport;

/// A listener whose connections a [`Server`](super::Server) serves.
pub trait Accept: Send {
    /// An accepted connection, before its start.
    type Accepted: Send + 'static;
    /// The connections.
    type Connection: Transport;

    /// The next connection.
    ///
    /// # Errors
    /// [`Error::Draining`] after the last connection, and any other error if the listener is no longer usable.
    ///
    /// # Cancel safety
    /// Cancel safe: no connection is lost.
    fn accept(&mut self) -> impl Future<Output = Result<Self::Accepted, Error>> + Send;

    /// Starts a connection, in the connection's own task, so that a slow client does not delay other clients.
    ///
    /// # Errors
    /// The reason why the connection could not start. The connection has ended.
    ///
    /// # Cancel safety
    /// Not cancel safe: dropping it ends the connection.
    fn begin(accepted: Self::Accepted) -> impl Future<Output = Result<Self::Connection, Error>> + Send;
}

/// Plaintext. If the listener expects PROXY headers ([`ListenerBuilder::proxy`](crate::ListenerBuilder::proxy)), each
/// connection begins with its header (rule: proxy-5).
impl Accept for Listener {
    type Accepted = Incoming;
    type Connection = TcpConnection;

    async fn accept(&mut self) -> Result<Incoming, Error> {
        Self::accept(self).await
    }

    fn begin(accepted: Incoming) -> impl Future<Output = Result<TcpConnection, Error>> + Send {
        accepted.begin_plaintext()
    }
}

/// Accepts connections whose handshake is done.
impl<C: Transport> Accept for TlsListener<C> {
    type Accepted = C;
    type Connection = C;

    async fn accept(&mut self) -> Result<C, Error> {
        Self::accept(self).await
    }

    fn begin(accepted: C) -> impl Future<Output = Result<C, Error>> + Send {
        ready(Ok(accepted))
    }
}
