//! A listener that returns connections whose handshake is done. The handshakes run concurrently, each in its own task.

use std::fmt;
use std::future::{Future, poll_fn, ready};
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::AsyncBufReadExt;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::accepting::Accepting;
use super::listener::Listener;
use super::ready::Ready;
use super::source::{AnyListener, Facts};
use super::tls_builder::TlsListenerBuilder;
use crate::address::Address;
use crate::config::ServerTls;
use crate::config::start_tls::StartTls;
use crate::conn::group::{DrainGroup, Drainable};
use crate::error::Error;
use crate::layers::tcp::TcpConnection;
use crate::layers::tls::TlsConnection;
use crate::layers::upgradable::UpgradableConnection;
use crate::transport::Transport;
use crate::transport::layer::TOKEN;

/// Accepts connections whose handshake is done.
///
/// The handshakes run concurrently, each in its own task, so a slow or silent client does not delay other clients
/// (rules: accept-1, tcp-6). A failed handshake is not an error of [`accept`](Self::accept):
/// [`on_error`](TlsListenerBuilder::on_error) reports it. All limits of the [`Listener`] apply.
///
/// The builder makes listeners of several kinds, over TCP and over the listeners of endpoint strings, for example on a
/// Unix socket: [`tls`](TlsListenerBuilder::tls), [`tls_or_plaintext`](TlsListenerBuilder::tls_or_plaintext) on one port,
/// `starttls` (feature `starttls`), [`plaintext`](TlsListenerBuilder::plaintext), and any other
/// [preparation](TlsListenerBuilder::prepare).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use bowline::{Connector, Lingering, Listener, TlsConnection, TlsListener, Transport};
///
/// # let pki = bowline::testing::pki::Pki::new();
/// # let (server_tls, client_tls) = (pki.server_tls(), pki.client_tls());
/// let listener = Listener::bind("127.0.0.1:0").await?;
/// let address = listener.local_addr();
/// let mut listener = TlsListener::new(listener, server_tls);
/// # let client = tokio::spawn(async move {
/// #     let tcp = Connector::new().connect_addr(address).await?;
/// #     TlsConnection::connect(tcp, &client_tls, "localhost").await
/// # });
/// let connection = listener.accept().await?;
/// // For hyper and other libraries:
/// let io = Lingering::new(connection);
/// # let mut client = client.await??;
/// # drop(io);
/// # client.abort();
/// # Ok(()) }
/// ```
#[doc(alias = "TlsAcceptor")]
#[doc(alias = "Incoming")]
pub struct TlsListener<C = TlsConnection<TcpConnection>> {
    ready: Arc<Ready<C>>,
    accepting: AbortHandle,
    /// The listening socket, from which the task accepts.
    socket: Arc<dyn Drainable>,
    local: Address,
    group: DrainGroup,
}

impl TlsListenerBuilder {
    /// Every connection uses TLS from its first byte. Over an endpoint, this TLS begins after the handshake that the
    /// endpoint string describes, so it is for `tcp` and `unix`; for the TLS of the string, use
    /// [`endpoint`](Self::endpoint).
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn tls<L: AnyListener>(self, listener: L, tls: ServerTls) -> TlsListener<TlsConnection<L::Connection>> {
        self.prepare_by(listener, move |plain, deadline| {
            let tls = tls.clone();
            async move {
                let mut connection = TlsConnection::server(plain, &tls)?;
                connection.handshake_by(deadline).await?;
                Ok(connection)
            }
        })
    }

    /// Accepts TLS and plaintext on one port: the first byte of a client shows whether the client uses TLS. If it does
    /// not, its connection is in plaintext ([`is_secure`](crate::TlsTransport::is_secure) returns false). So a server
    /// can answer a client that sends plain HTTP to the HTTPS port with an explanation.
    ///
    /// The handshake of a client that waits for the server's first bytes times out. The handshake of a client that ends
    /// the connection without a byte fails.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn tls_or_plaintext<L: AnyListener>(
        self,
        listener: L,
        tls: ServerTls,
    ) -> TlsListener<UpgradableConnection<L::Connection>> {
        self.prepare_by(listener, move |mut plain, deadline| {
            let tls = tls.clone();
            async move {
                let is_tls = begins_with_tls(&mut plain).await?;
                let mut connection = UpgradableConnection::new(plain);
                if is_tls {
                    connection.start_tls_by(StartTls::server(&tls), deadline).await?;
                } else {
                    connection.control().note_plaintext();
                }
                Ok(connection)
            }
        })
    }

    /// Every connection is in plaintext, and is ready at once, or after its PROXY header if the listener expects
    /// headers (`ListenerBuilder::proxy`). So code that serves ready connections also serves plaintext.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn plaintext(self, listener: Listener) -> TlsListener<TcpConnection> {
        self.prepare_by(listener, |tcp, _| ready(Ok(tcp)))
    }

    /// Prepares connections with your own code, for example with a plaintext dialogue before STARTTLS. The code runs in
    /// its own task, under the handshake's deadline ([`Policy::handshake_timeout`](crate::Policy::handshake_timeout)).
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn prepare<L, C, F>(
        self,
        listener: L,
        prepare: impl Fn(L::Connection) -> F + Send + Sync + 'static,
    ) -> TlsListener<C>
    where
        L: AnyListener,
        C: Send + 'static,
        F: Future<Output = Result<C, Error>> + Send + 'static,
    {
        self.prepare_by(listener, move |connection, _| prepare(connection))
    }

    pub(crate) fn prepare_by<L, C, F>(
        self,
        listener: L,
        prepare: impl Fn(L::Connection, Option<Instant>) -> F + Send + Sync + 'static,
    ) -> TlsListener<C>
    where
        L: AnyListener,
        C: Send + 'static,
        F: Future<Output = Result<C, Error>> + Send + 'static,
    {
        if let Some(finishes) = self.finishes {
            listener.set_finishes(TOKEN, finishes);
        }
        let (ready, Facts { local, group, socket, .. }) = (Arc::new(Ready::new()), listener.facts(TOKEN));
        let accepting = Accepting::new(listener, self, Arc::clone(&ready));
        let accepting = tokio::spawn(accepting.run(prepare)).abort_handle();
        TlsListener { ready, accepting, socket, local, group }
    }
}

/// Returns whether the client uses TLS. The client's bytes stay unread.
async fn begins_with_tls<T: Transport>(plain: &mut T) -> Result<bool, Error> {
    /// The type of a handshake record (RFC 8446 section 5.1).
    const HANDSHAKE: u8 = 22;
    // If the client ends without a byte, the handshake reports that end.
    Ok(plain.fill_buf().await?.first().is_none_or(|first| *first == HANDSHAKE))
}

impl TlsListener {
    /// Accepts TLS connections, with the defaults of [`TlsListenerBuilder`].
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn new(listener: Listener, tls: ServerTls) -> Self {
        Self::builder().tls(listener, tls)
    }

    /// A builder for a listener with other settings.
    pub fn builder() -> TlsListenerBuilder {
        TlsListenerBuilder::default()
    }
}

impl<C> TlsListener<C> {
    /// The next connection that is ready.
    ///
    /// # Errors
    /// [`Error::Draining`] after the [group](Self::group) has begun to drain and the last connection was
    /// taken; [`Error::Bind`] if the listening socket is no longer usable. Every later call then fails with the same
    /// error. The failure of a single connection is not an error of this method.
    ///
    /// # Cancel safety
    /// Cancel safe: no connection is lost.
    pub async fn accept(&mut self) -> Result<C, Error> {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    /// As [`accept`](Self::accept), for a stream of connections: `stream::poll_fn(move |cx|
    /// listener.poll_accept(cx).map(Result::ok))`.
    pub fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Result<C, Error>> {
        self.ready.poll_take(cx)
    }

    /// The bound address.
    pub fn local_addr(&self) -> Address {
        self.local.clone()
    }

    /// The group of the connections: see [`Listener::group`].
    pub fn group(&self) -> &DrainGroup {
        &self.group
    }
}

/// Closes the port, resets the connections that were not accepted, and stops the handshakes.
impl<C> Drop for TlsListener<C> {
    fn drop(&mut self) {
        // The socket is closed here, because the runtime may drop the task that accepts later.
        self.socket.shut();
        self.ready.close();
        self.accepting.abort();
    }
}

impl<C> fmt::Debug for TlsListener<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsListener")
            .field("local_addr", &self.local)
            .field("group", &self.group)
            .finish_non_exhaustive()
    }
}
