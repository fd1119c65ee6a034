//! TLS for tokio-postgres.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use bowline::{ClientTls, postgres::MakeTls};
//!
//! let tls = ClientTls::builder().roots_pem_file("ca.pem").build()?;
//! let config = "host=db.example.com user=app dbname=app sslmode=require channel_binding=require";
//! let (client, connection) = tokio_postgres::connect(config, MakeTls::new(tls)).await?;
//! tokio::spawn(connection);
//! # drop(client);
//! # Ok(()) }
//! ```
//!
//! tokio-postgres sends the request for TLS (with `sslnegotiation=direct`, it sends none) and then passes the stream to
//! this module. It reads exactly the server's answer. If an attacker adds plaintext after the answer, the handshake
//! reads it and fails.
//!
//! The server's certificate is always verified, as with `sslmode=verify-full` of PostgreSQL's own client. With
//! `sslmode=prefer`, tokio-postgres uses plaintext if the server refuses TLS.

use std::fmt;
use std::future::Future;
use std::io::{self, IoSlice};
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{self, MakeTlsConnect, TlsConnect};

use crate::address::Address;
use crate::config::ClientTls;
use crate::conn::control::Control;
use crate::core::binding::ChannelBinding;
use crate::error::Error;
use crate::layers::stream::Stream;
use crate::layers::tls::TlsConnection;
use crate::policy::Policy;
use crate::transport::{TlsTransport, Transport};

/// Makes the TLS connections of tokio-postgres: see [the module](self).
#[doc(alias = "MakeRustlsConnect")]
#[derive(Debug, Clone)]
pub struct MakeTls {
    tls: ClientTls,
    policy: Arc<Policy>,
    place: &'static Location<'static>,
}

impl MakeTls {
    /// Connections with this configuration and the default [`Policy`].
    #[track_caller]
    pub fn new(tls: ClientTls) -> Self {
        Self { tls, policy: Arc::default(), place: Location::caller() }
    }

    /// The policy of the connections, for example for the limit of the handshake.
    pub fn policy(self, policy: impl Into<Arc<Policy>>) -> Self {
        Self { policy: policy.into(), ..self }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> MakeTlsConnect<S> for MakeTls {
    type Stream = PostgresStream<S>;
    type TlsConnect = Connect;
    type Error = Error;

    fn make_tls_connect(&mut self, domain: &str) -> Result<Connect, Error> {
        Ok(Connect { made_by: self.clone(), name: domain.to_owned() })
    }
}

/// Makes one TLS connection to one server.
#[derive(Debug)]
pub struct Connect {
    made_by: MakeTls,
    name: String,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> TlsConnect<S> for Connect {
    type Stream = PostgresStream<S>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<PostgresStream<S>, Error>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        Box::pin(async move {
            let MakeTls { tls, policy, place } = self.made_by;
            let (host, peer) = (Address::Other("tokio-postgres".into()), Address::Other(self.name.clone()));
            let stream = Stream::silently(stream, host, peer, policy);
            stream.control().announce(place);
            Ok(PostgresStream(TlsConnection::connect(stream, &tls, &self.name).await?))
        })
    }
}

/// A TLS connection to a PostgreSQL server.
pub struct PostgresStream<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(TlsConnection<Stream<S>>);

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> PostgresStream<S> {
    /// The [`Control`] of the connection.
    pub fn control(&self) -> Control {
        self.0.control()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> tls::TlsStream for PostgresStream<S> {
    /// `tls-server-end-point`, for SCRAM-SHA-256-PLUS.
    fn channel_binding(&self) -> tls::ChannelBinding {
        let binding = self.0.tls().and_then(|facts| facts.channel_binding(ChannelBinding::TlsServerEndPoint).ok());
        binding.map_or_else(tls::ChannelBinding::none, tls::ChannelBinding::tls_server_end_point)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> AsyncRead for PostgresStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> AsyncWrite for PostgresStream<S> {
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

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> fmt::Debug for PostgresStream<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PostgresStream").field(&self.0).finish()
    }
}
