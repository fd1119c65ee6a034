//! A service under test: an application on a free port, with certificates, and clients that trust them.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::AbortHandle;

use super::pki::Pki;
use crate::client::connect::Connector;
use crate::config::{ClientTls, ServerTlsBuilder};
use crate::conn::group::DrainGroup;
use crate::core::drain::DrainReport;
use crate::error::Error;
use crate::layers::tcp::TcpConnection;
use crate::layers::tls::TlsConnection;
use crate::server::builder::ListenerBuilder;
use crate::server::listener::Listener;
use crate::server::tls_listener::TlsListener;

/// The time after which [`Service::stop`] aborts the remaining connections.
const STOP: Duration = Duration::from_secs(5);

/// Runs an application on a free port of `127.0.0.1`, with TLS. `app` is called for each connection after the
/// handshake, in a separate task.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use bowline::{Transport, testing};
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// let service = testing::serve(|mut connection| async move {
///     let mut request = Vec::new();
///     if connection.read_to_end(&mut request).await.is_ok() {
///         connection.close_with(&request.to_ascii_uppercase()).await;
///     }
/// })
/// .await;
///
/// let mut client = service.connect().await?;
/// client.write_all(b"does it hold?").await?;
/// client.close_write().await?;
/// let mut answer = String::new();
/// client.read_to_string(&mut answer).await?;
/// assert_eq!(answer, "DOES IT HOLD?");
/// assert!(client.close().await.is_clean());
/// assert!(service.stop().await.is_clean());
/// # Ok(()) }
/// ```
///
/// # Panics
/// Panics if no port can be opened, and without one of the features `aws-lc-rs` and `ring`.
pub async fn serve<F>(app: impl Fn(TlsConnection<TcpConnection>) -> F + Send + 'static) -> Service
where
    F: Future<Output = ()> + Send + 'static,
{
    serve_with(Listener::builder(), |tls| tls, app).await
}

/// As [`serve`], with settings of the listener (limits, a [`Policy`](crate::Policy)) and of TLS (ALPN, client
/// certificates).
///
/// # Panics
/// As [`serve`], and if the settings of TLS contradict each other.
pub async fn serve_with<F>(
    listener: ListenerBuilder,
    tls: impl FnOnce(ServerTlsBuilder) -> ServerTlsBuilder,
    app: impl Fn(TlsConnection<TcpConnection>) -> F + Send + 'static,
) -> Service
where
    F: Future<Output = ()> + Send + 'static,
{
    let pki = Pki::new();
    let tls = tls(pki.server_tls_builder()).build().expect("the settings of TLS contradict each other");
    let listener = listener.bind("127.0.0.1:0").await.expect("a free port of 127.0.0.1 can be opened");
    let addr = listener.local_addr().as_inet().expect("an IP address was bound");
    let group = listener.group().clone();
    let mut listener = TlsListener::new(listener, tls);
    let accepting = tokio::spawn(async move {
        while let Ok(connection) = listener.accept().await {
            tokio::spawn(app(connection));
        }
    });
    Service { pki, addr, group, accepting: accepting.abort_handle() }
}

/// An application that [`serve`] runs. Dropping it closes the port; open connections continue.
#[derive(Debug)]
pub struct Service {
    pki: Pki,
    addr: SocketAddr,
    group: DrainGroup,
    accepting: AbortHandle,
}

impl Service {
    /// The address of the service. Its certificate is for `localhost`, `127.0.0.1` and `::1`.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The PKI of the service: [`Pki::ca_pem`] is what other clients have to trust, and [`Pki::client`] makes clients
    /// for mutual TLS.
    pub fn pki(&self) -> &Pki {
        &self.pki
    }

    /// A configuration for clients that trust the service.
    pub fn client_tls(&self) -> ClientTls {
        self.pki.client_tls()
    }

    /// A client of the service, after its handshake.
    ///
    /// # Errors
    /// The errors of [`Connector::connect_addr`] and [`TlsConnection::connect`].
    ///
    /// # Cancel safety
    /// Dropping the future drops the connection.
    pub async fn connect(&self) -> Result<TlsConnection<TcpConnection>, Error> {
        let tcp = Connector::new().connect_addr(self.addr).await?;
        TlsConnection::connect(tcp, &self.client_tls(), "localhost").await
    }

    /// The group of the connections: counts and drains them.
    pub fn group(&self) -> &DrainGroup {
        &self.group
    }

    /// Drains the service, and aborts the remaining connections after 5 seconds.
    ///
    /// # Cancel safety
    /// As [`DrainGroup::drain`].
    pub async fn stop(self) -> DrainReport {
        self.group.drain(STOP).await
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}
