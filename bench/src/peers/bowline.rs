//! bowline's async face: TLS, TLS under a cork, and plain TCP.

use std::io;
use std::sync::Arc;

use bowline::{
    ClientTls, Policy, ServerTls, StartTls, TcpConnection, TlsConnection, TlsTransport, Transport, UpgradableConnection,
};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::rustls::{Configs, facts};
use super::starttls::{ANSWER, COMMAND, GREETING};
use super::{Facts, Stack};
use crate::error::{Result, fail};
use crate::pki::Pki;
use crate::setup::Setup;

/// TLS over TCP.
#[derive(Clone)]
pub struct Bowline {
    pub client: ClientTls,
    pub server: ServerTls,
    policy: Arc<Policy>,
}

impl Bowline {
    pub fn new(pki: &Pki, setup: Setup) -> Result<Self> {
        let configs = Configs::new(pki, setup)?;
        Ok(Self { client: configs.client.into(), server: configs.server.into(), policy: Arc::default() })
    }

    /// Uses the express engine.
    pub fn express(mut self) -> Result<Self> {
        (self.client, self.server) = (self.client.express()?, self.server.express()?);
        Ok(self)
    }

    pub fn tcp(&self, tcp: TcpStream) -> Result<TcpConnection> {
        Ok(TcpConnection::new(tcp, Arc::clone(&self.policy))?)
    }
}

impl Stack for Bowline {
    type Stream = TlsConnection<TcpConnection>;
    const FLUSHES: bool = false;
    const SETS_NODELAY: bool = true;
    const SETS_DEADLINE: bool = true;

    async fn connect(&self, tcp: TcpStream) -> Result<Self::Stream> {
        Ok(TlsConnection::connect(self.tcp(tcp)?, &self.client, "localhost").await?)
    }

    async fn accept(&self, tcp: TcpStream) -> Result<Self::Stream> {
        Ok(TlsConnection::accept(self.tcp(tcp)?, &self.server).await?)
    }

    fn facts(stream: &Self::Stream) -> Option<Facts> {
        let tls = stream.tls()?;
        Some(facts(tls.version, tls.cipher, tls.resumed))
    }

    async fn finish(mut stream: Self::Stream) {
        stream.close().await;
    }
}

/// A connection that is upgraded, as [`Starttls`](super::starttls::Starttls) does it for the others.
#[derive(Clone)]
pub struct Upgradable(pub Bowline);

impl Stack for Upgradable {
    type Stream = UpgradableConnection<TcpConnection>;
    const FLUSHES: bool = false;
    const SETS_NODELAY: bool = true;
    const SETS_DEADLINE: bool = true;

    async fn connect(&self, tcp: TcpStream) -> Result<Self::Stream> {
        let mut connection = UpgradableConnection::new(self.0.tcp(tcp)?);
        let mut line = String::new();
        connection.read_line(&mut line).await?;
        connection.write_all(COMMAND).await?;
        line.clear();
        connection.read_line(&mut line).await?;
        if line.as_bytes() != ANSWER {
            return fail("another line was expected");
        }
        connection.start_tls(StartTls::client(&self.0.client, "localhost")).await?;
        Ok(connection)
    }

    async fn accept(&self, tcp: TcpStream) -> Result<Self::Stream> {
        let mut connection = UpgradableConnection::new(self.0.tcp(tcp)?);
        connection.write_all(GREETING).await?;
        let mut line = String::new();
        connection.read_line(&mut line).await?;
        if line.as_bytes() != COMMAND {
            return fail("another line was expected");
        }
        connection.write_all(ANSWER).await?;
        connection.start_tls(StartTls::server(&self.0.server)).await?;
        Ok(connection)
    }

    fn facts(stream: &Self::Stream) -> Option<Facts> {
        let tls = stream.tls()?;
        Some(facts(tls.version, tls.cipher, tls.resumed))
    }

    async fn finish(mut stream: Self::Stream) {
        stream.close().await;
    }
}

/// TLS over TCP, writing under a cork.
#[derive(Clone)]
pub struct Corked(pub Bowline);

impl Stack for Corked {
    type Stream = TlsConnection<TcpConnection>;
    const FLUSHES: bool = false;
    const SETS_NODELAY: bool = true;
    const SETS_DEADLINE: bool = true;

    async fn connect(&self, tcp: TcpStream) -> Result<Self::Stream> {
        self.0.connect(tcp).await
    }

    async fn accept(&self, tcp: TcpStream) -> Result<Self::Stream> {
        self.0.accept(tcp).await
    }

    fn facts(stream: &Self::Stream) -> Option<Facts> {
        Bowline::facts(stream)
    }

    async fn send_many(stream: &mut Self::Stream, chunk: &[u8], count: usize) -> io::Result<()> {
        let mut corked = stream.cork();
        for _ in 0..count {
            corked.write_all(chunk).await?;
        }
        corked.flush().await
    }
}

/// Plain TCP through the transport.
#[derive(Clone)]
pub struct BowlineTcp(pub Bowline);

impl Stack for BowlineTcp {
    type Stream = TcpConnection;
    const FLUSHES: bool = false;
    const SETS_NODELAY: bool = true;
    const SETS_DEADLINE: bool = true;
    const PLAIN: bool = true;

    async fn connect(&self, tcp: TcpStream) -> Result<TcpConnection> {
        self.0.tcp(tcp)
    }

    async fn accept(&self, tcp: TcpStream) -> Result<TcpConnection> {
        self.0.tcp(tcp)
    }

    fn facts(_: &TcpConnection) -> Option<Facts> {
        None
    }

    async fn finish(mut stream: TcpConnection) {
        stream.close().await;
    }
}
