//! Connections that start in special ways.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bowline::testing::peer::RawTcp;
use bowline::testing::{Pipe, pipe, raw_tcp_pair, shared_pki, tcp_pair};
use bowline::{Policy, StartTls, Stream, TcpConnection, TlsConnection, UpgradableConnection};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub type Upgradable = UpgradableConnection<TcpConnection>;

/// A policy whose closes take at most this long.
pub fn hasty(millis: u64) -> Policy {
    Policy::default().close_timeout(Duration::from_millis(millis))
}

/// A policy with a handshake deadline.
pub fn impatient(millis: u64) -> Policy {
    Policy::default().handshake_timeout(Duration::from_millis(millis))
}

pub fn as_client() -> StartTls {
    StartTls::client(&shared_pki().client_tls(), "localhost")
}

pub fn as_server() -> StartTls {
    StartTls::server(&shared_pki().server_tls())
}

/// Two ends in plaintext, both upgradable: the client's, and the server's.
pub async fn plain() -> (Upgradable, Upgradable) {
    let (client, server) = tcp_pair().await.unwrap();
    (UpgradableConnection::new(client), UpgradableConnection::new(server))
}

/// An upgradable end in plaintext, and a peer that sends and sees raw bytes.
pub async fn plain_and_raw(policy: Policy) -> (Upgradable, RawTcp) {
    let (ours, theirs) = raw_tcp_pair().await.unwrap();
    (UpgradableConnection::new(TcpConnection::new(ours, policy).unwrap()), RawTcp::new(theirs))
}

/// A client whose handshake has not been made yet, and a peer that sends and sees raw bytes.
pub async fn client_and_raw(policy: Policy) -> (TlsConnection<TcpConnection>, RawTcp) {
    let (ours, theirs) = raw_tcp_pair().await.unwrap();
    let tcp = TcpConnection::new(ours, policy).unwrap();
    (TlsConnection::client(tcp, &shared_pki().client_tls(), "localhost").unwrap(), RawTcp::new(theirs))
}

/// Whether these bytes are exactly a ClientHello.
pub fn is_only_hello(wire: &[u8]) -> bool {
    let length = |wire: &[u8]| 5 + usize::from(wire[3]) * 256 + usize::from(wire[4]);
    wire.is_empty() || (wire[0] == 22 && wire.len() == length(wire))
}

/// The kinds and lengths of the TLS records in these bytes.
pub fn records(wire: &[u8]) -> Vec<(u8, usize)> {
    let (mut records, mut rest) = (Vec::new(), wire);
    while let [kind, _, _, high, low, behind @ ..] = rest {
        let length = usize::from(*high) << 8 | usize::from(*low);
        records.push((*kind, length));
        rest = behind.get(length..).unwrap_or_default();
    }
    records
}

/// The bytes that were written to a stream.
pub type Wire = Arc<Mutex<Vec<u8>>>;

/// A TLS client, and a TLS server whose wire is recorded.
pub async fn recorded() -> (TlsConnection<Stream<Pipe>>, TlsConnection<Stream<Recording>>, Wire) {
    let (client, server) = pipe(64 << 10);
    let wire = Wire::default();
    let server = Stream::new(Recording(server, Arc::clone(&wire))).wakes_unlocked().delivers_at_once();
    let (client_tls, server_tls) = (shared_pki().client_tls(), shared_pki().server_tls());
    let (client, server) = tokio::join!(
        TlsConnection::connect(Stream::new(client).wakes_unlocked().delivers_at_once(), &client_tls, "localhost"),
        TlsConnection::accept(server, &server_tls),
    );
    (client.unwrap(), server.unwrap(), wire)
}

/// A stream that records the bytes that are written to it.
pub struct Recording(Pipe, Wire);

impl AsyncRead for Recording {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Recording {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = std::task::ready!(Pin::new(&mut self.0).poll_write(cx, bytes))?;
        self.1.lock().unwrap().extend_from_slice(&bytes[..written]);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
