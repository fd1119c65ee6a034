//! A hyper client for `https` and `http`, with HTTP/2 if ALPN chooses it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use ::bowline::ClientTls;
use hyper::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;
use tower_service::Service;

use crate::Error;

pub fn bowline(tls: ClientTls) {
    use ::bowline::hyper::HttpConnector;
    // lines: hyper client, bowline
    let connector = HttpConnector::new(tls);
    let client = Client::builder(TokioExecutor::new()).build::<_, String>(connector);
    // end
    drop(client);
}

/// The same client, also for Unix sockets.
pub fn bowline_with_unix(tls: ClientTls) {
    use ::bowline::hyper::HttpConnector;
    // lines: hyper client with Unix sockets, bowline
    let connector = HttpConnector::new(tls).unix("docker", "/run/docker.sock");
    let client = Client::builder(TokioExecutor::new()).build::<_, String>(connector);
    // end
    drop(client);
}

pub fn hyper_rustls(config: ClientConfig) {
    use ::hyper_rustls::HttpsConnectorBuilder;
    // lines: hyper client, hyper-rustls
    let connector =
        HttpsConnectorBuilder::new().with_tls_config(config).https_or_http().enable_http1().enable_http2().build();
    let client = Client::builder(TokioExecutor::new()).build::<_, String>(connector);
    // end
    drop(client);
}

pub fn tokio_rustls(config: ClientConfig) {
    let tls = TlsConnector::from(Arc::new(config));
    // lines: hyper client, tokio-rustls
    let client = Client::builder(TokioExecutor::new()).build::<_, String>(Connector { tls });
    // end
    drop(client);
}

// lines: hyper client, tokio-rustls
#[derive(Clone)]
struct Connector {
    tls: TlsConnector,
}

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let tls = self.tls.clone();
        Box::pin(async move {
            let host = uri.host().ok_or("no host")?.trim_matches(['[', ']']).to_owned();
            let is_tls = uri.scheme_str() == Some("https");
            let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
            let tcp = TcpStream::connect((host.as_str(), port)).await?;
            tcp.set_nodelay(true)?;
            if !is_tls {
                return Ok(Stream::Tcp(TokioIo::new(tcp)));
            }
            let tls = tls.connect(ServerName::try_from(host)?, tcp).await?;
            Ok(Stream::Tls(Box::new(TokioIo::new(tls))))
        })
    }
}

enum Stream {
    Tcp(TokioIo<TcpStream>),
    Tls(Box<TokioIo<TlsStream<TcpStream>>>),
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        match self {
            Self::Tls(tls) if tls.inner().get_ref().1.alpn_protocol() == Some(b"h2") => {
                Connected::new().negotiated_h2()
            }
            _ => Connected::new(),
        }
    }
}

impl Read for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
        }
    }
}

impl Write for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}
// end
