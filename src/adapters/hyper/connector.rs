//! Connections for hyper's clients.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use ::hyper::Uri;
use ::hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use tower_service::Service;

use crate::client::connect::Connector;
use crate::config::ClientTls;
use crate::config::start_tls::StartTls;
use crate::conn::control::Control;
use crate::endpoint::open::{BoxConnection, connect_unix};
use crate::error::Error;
use crate::layers::upgradable::UpgradableConnection;
use crate::transport::UpgradableTransport;
use crate::transport::lingering::Lingering;

/// Connects to the host of a URI, for the clients of hyper-util and tonic: `http` in plaintext, `https` over TLS, and
/// both also over Unix sockets.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use bowline::{ClientTls, hyper::HttpConnector};
/// use hyper_util::{client::legacy::Client, rt::TokioExecutor};
///
/// let tls = ClientTls::builder().roots_pem_file("ca.pem").alpn(["h2", "http/1.1"]).build()?;
/// let connector = HttpConnector::new(tls).unix("docker", "/run/docker.sock");
/// let client = Client::builder(TokioExecutor::new()).build::<_, String>(connector);
/// let answer = client.get("https://example.com/".parse()?).await?;
/// let containers = client.get("http://docker/containers/json".parse()?).await?;
/// # drop((answer, containers));
/// # Ok(()) }
/// ```
///
/// For tonic: `Endpoint::from_static("https://example.com").connect_with_connector(connector)`, with ALPN `h2`.
///
/// The connections are [`Lingering`]. The extensions of each response contain the [`Control`] of its connection. If
/// ALPN chooses `h2`, the client uses HTTP/2.
#[doc(alias = "HttpsConnector")]
#[derive(Debug, Clone)]
pub struct HttpConnector {
    connector: Connector,
    tls: Option<ClientTls>,
    sockets: Arc<HashMap<String, PathBuf>>,
}

impl HttpConnector {
    /// Connects to `https` with this configuration, and to `http` in plaintext.
    #[track_caller]
    pub fn new(tls: ClientTls) -> Self {
        Self { tls: Some(tls), ..Self::plaintext() }
    }

    /// Connects to `http` only.
    #[track_caller]
    pub fn plaintext() -> Self {
        Self { connector: Connector::new(), tls: None, sockets: Arc::default() }
    }

    /// Uses this connector, with its time limit, its local address and its policy.
    pub fn connector(self, connector: Connector) -> Self {
        Self { connector, ..self }
    }

    /// Connects to URIs with this host over a Unix socket: `http://docker/info` for the host `docker`. With `https`,
    /// the server's certificate has to be valid for the host. A path that begins with `@` is a name of Linux's abstract
    /// namespace.
    #[doc(alias = "hyperlocal")]
    pub fn unix(mut self, host: impl Into<String>, path: impl AsRef<Path>) -> Self {
        let sockets = Arc::make_mut(&mut self.sockets);
        sockets.insert(host.into().to_ascii_lowercase(), path.as_ref().to_path_buf());
        self
    }

    async fn connect(self, uri: Uri) -> Result<HttpConnection, Error> {
        let tls = match (uri.scheme_str(), self.tls) {
            (Some("http") | None, _) => None,
            (Some("https"), Some(tls)) => Some(tls),
            (Some("https"), None) => return Err(refused("this connector was made without TLS")),
            (Some(_), _) => return Err(refused("the scheme is neither http nor https")),
        };
        let host = uri.host().ok_or_else(|| refused("the URI has no host"))?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let mut connection: BoxConnection = match self.sockets.get(&host.to_ascii_lowercase()) {
            Some(path) => {
                let (limit, policy, place) = self.connector.settings();
                connect_unix(path, limit, policy, place).await?
            }
            None => {
                let port = uri.port_u16().unwrap_or(if tls.is_some() { 443 } else { 80 });
                Box::new(UpgradableConnection::new(self.connector.connect(host, port).await?))
            }
        };
        if let Some(tls) = tls {
            connection.start_tls(StartTls::client(&tls, host).at_begin()).await?;
        }
        Ok(HttpConnection(TokioIo::new(Lingering::new(connection))))
    }
}

fn refused(why: &'static str) -> Error {
    io::Error::new(io::ErrorKind::InvalidInput, why).into()
}

impl Service<Uri> for HttpConnector {
    type Response = HttpConnection;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<HttpConnection, Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}

/// A connection that an [`HttpConnector`] has made.
pub struct HttpConnection(TokioIo<Lingering<BoxConnection>>);

impl HttpConnection {
    /// The [`Control`] of the connection.
    pub fn control(&self) -> Control {
        self.0.inner().control()
    }

    /// Returns the connection in this wrapper.
    pub fn into_inner(self) -> BoxConnection {
        self.0.into_inner().into_inner()
    }
}

impl Connection for HttpConnection {
    fn connected(&self) -> Connected {
        let control = self.control();
        let is_h2 = control.tls().is_some_and(|session| session.alpn.as_deref() == Some(b"h2"));
        let connected = Connected::new().extra(control);
        if is_h2 { connected.negotiated_h2() } else { connected }
    }
}

impl Read for HttpConnection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl Write for HttpConnection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

impl fmt::Debug for HttpConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HttpConnection").field(self.0.inner()).finish()
    }
}
