//! tokio-postgres over TLS, with the binding of the password to the channel.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use ::bowline::ClientTls;
use ::tokio_rustls::TlsConnector;
use ::tokio_rustls::client::TlsStream;
use ::tokio_rustls::rustls::ClientConfig;
use ::tokio_rustls::rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{self, ChannelBinding, MakeTlsConnect, TlsConnect};

use crate::Error;

pub async fn bowline(tls: ClientTls, config: &str) -> Result<(), Error> {
    use ::bowline::postgres::MakeTls;
    // lines: postgres, bowline
    let (client, connection) = tokio_postgres::connect(config, MakeTls::new(tls)).await?;
    tokio::spawn(connection);
    // end
    drop(client);
    Ok(())
}

pub async fn tokio_postgres_rustls(tls: ClientConfig, config: &str) -> Result<(), Error> {
    use ::tokio_postgres_rustls::MakeRustlsConnect;
    // lines: postgres, tokio-postgres-rustls
    let (client, connection) = tokio_postgres::connect(config, MakeRustlsConnect::new(tls)).await?;
    tokio::spawn(connection);
    // end
    drop(client);
    Ok(())
}

pub async fn tokio_rustls(tls: TlsConnector, config: &str) -> Result<(), Error> {
    // lines: postgres, tokio-rustls
    let (client, connection) = tokio_postgres::connect(config, MakeTls(tls)).await?;
    tokio::spawn(connection);
    // end
    drop(client);
    Ok(())
}

/// This code can compute the channel binding only for certificates that are signed with SHA-256.
// lines: postgres, tokio-rustls
#[derive(Clone)]
struct MakeTls(TlsConnector);

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> MakeTlsConnect<S> for MakeTls {
    type Stream = Stream<S>;
    type TlsConnect = Connect;
    type Error = Error;

    fn make_tls_connect(&mut self, name: &str) -> Result<Connect, Error> {
        Ok(Connect { tls: self.0.clone(), name: ServerName::try_from(name.to_owned())? })
    }
}

struct Connect {
    tls: TlsConnector,
    name: ServerName<'static>,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> TlsConnect<S> for Connect {
    type Stream = Stream<S>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Stream<S>, Error>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        Box::pin(async move { Ok(Stream(self.tls.connect(self.name, stream).await?)) })
    }
}

struct Stream<S>(TlsStream<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> tls::TlsStream for Stream<S> {
    fn channel_binding(&self) -> ChannelBinding {
        let certificate = self.0.get_ref().1.peer_certificates().and_then(<[_]>::first);
        certificate.map_or_else(ChannelBinding::none, |certificate| {
            let hash = ring::digest::digest(&ring::digest::SHA256, certificate);
            ChannelBinding::tls_server_end_point(hash.as_ref().to_vec())
        })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Stream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Stream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
// end
