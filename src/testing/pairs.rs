//! The two ends of one connection, over any transport.

use std::fmt;
use std::io;
use std::net::Ipv4Addr;
use std::sync::{Arc, OnceLock};

use tokio::net::{TcpListener, TcpStream};

use super::pipe::pipe;
use super::pki::Pki;
use crate::address::Address;
use crate::config::start_tls::StartTls;
use crate::config::{ClientTls, ServerTls, TlsVersion};
use crate::error::Error;
use crate::layers::stream::Stream;
use crate::layers::tcp::TcpConnection;
use crate::layers::tls::TlsConnection;
use crate::layers::upgradable::UpgradableConnection;
use crate::policy::Policy;
use crate::transport::Transport;

/// Any transport.
pub type BoxTransport = Box<dyn Transport>;

/// The transports for a test that must hold for all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// TCP on loopback.
    Tcp,
    /// TLS 1.2 over TCP.
    Tls12,
    /// TLS 1.3 over TCP.
    Tls13,
    /// An upgradable connection over TCP, upgraded to TLS 1.3.
    Upgraded,
    /// TLS 1.3 in TLS 1.3 over TCP: an upgradable connection, upgraded twice.
    TlsInTls,
    /// An in-memory pipe.
    Memory,
    /// TLS 1.3 over an in-memory pipe.
    MemoryTls,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Tcp, Self::Tls12, Self::Tls13, Self::Upgraded, Self::TlsInTls, Self::Memory, Self::MemoryTls];

    /// Whether application data is encrypted.
    pub fn is_tls(self) -> bool {
        !matches!(self, Self::Tcp | Self::Memory)
    }

    /// Whether the transport uses a TCP socket.
    pub fn has_socket(self) -> bool {
        !matches!(self, Self::Memory | Self::MemoryTls)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The two ends of a connection of this kind, client and server, after their handshakes.
///
/// # Errors
/// The system has no socket or no port left.
pub async fn pair(kind: Kind) -> Result<(BoxTransport, BoxTransport), Error> {
    pair_with(kind, Policy::default()).await
}

/// As the function above, with this policy on both ends.
///
/// # Errors
/// The system has no socket or no port left, or a handshake took longer than the policy allows.
pub async fn pair_with(kind: Kind, policy: impl Into<Arc<Policy>>) -> Result<(BoxTransport, BoxTransport), Error> {
    let policy = policy.into();
    match kind {
        Kind::Tcp => boxed(tcp_pair_with(policy).await?),
        Kind::Tls12 => boxed(tls_over(tcp_pair_with(policy).await?, TlsVersion::V1_2).await?),
        Kind::Tls13 => boxed(tls_over(tcp_pair_with(policy).await?, TlsVersion::V1_3).await?),
        Kind::Upgraded => boxed(upgraded_over(tcp_pair_with(policy).await?, 1).await?),
        Kind::TlsInTls => boxed(upgraded_over(tcp_pair_with(policy).await?, 2).await?),
        Kind::Memory => boxed(memory_pair_with(policy)),
        Kind::MemoryTls => boxed(tls_over(memory_pair_with(policy), TlsVersion::V1_3).await?),
    }
}

fn boxed<T: Transport>((client, server): (T, T)) -> Result<(BoxTransport, BoxTransport), Error> {
    Ok((Box::new(client), Box::new(server)))
}

/// The two ends of a TCP connection on loopback: the connecting end and the accepting end.
///
/// # Errors
/// The system has no socket or no port left.
pub async fn tcp_pair() -> io::Result<(TcpConnection, TcpConnection)> {
    tcp_pair_with(Policy::default()).await
}

/// As the function above, with this policy on both ends.
///
/// # Errors
/// The system has no socket or no port left.
pub async fn tcp_pair_with(policy: impl Into<Arc<Policy>>) -> io::Result<(TcpConnection, TcpConnection)> {
    let policy = policy.into();
    let (client, server) = raw_tcp_pair().await?;
    let (host, peer) = (client.local_addr()?, client.peer_addr()?);
    let client = TcpConnection::between(client, host, peer, Arc::clone(&policy));
    client.control().set_connected();
    client.control().announce(std::panic::Location::caller());
    Ok((client, TcpConnection::new(server, policy)?))
}

/// The two ends of a TCP connection on loopback, as plain sockets.
///
/// # Errors
/// The system has no socket or no port left.
pub async fn raw_tcp_pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let (client, server) = tokio::try_join!(TcpStream::connect(address), listener.accept())?;
    Ok((client, server.0))
}

/// The two ends of a connection in memory with a capacity of 64 KiB in each direction.
pub fn memory_pair() -> (Stream<super::Pipe>, Stream<super::Pipe>) {
    memory_pair_with(Policy::default())
}

/// As the function above, with this policy on both ends.
pub fn memory_pair_with(policy: impl Into<Arc<Policy>>) -> (Stream<super::Pipe>, Stream<super::Pipe>) {
    let policy = policy.into();
    let (client, server) = pipe(64 << 10);
    let name = |end: &str| Address::Other(format!("memory:{end}"));
    let client =
        Stream::with(client, name("client"), name("server"), Arc::clone(&policy)).wakes_unlocked().delivers_at_once();
    let server = Stream::with(server, name("server"), name("client"), policy).wakes_unlocked().delivers_at_once();
    (client, server)
}

/// TLS of one version on top of two ends.
///
/// # Errors
/// A transport has ended, or the handshake took longer than its policy allows.
pub async fn tls_over<T: Transport>(
    (client, server): (T, T),
    version: TlsVersion,
) -> Result<(TlsConnection<T>, TlsConnection<T>), Error> {
    let (client_tls, server_tls) = (client_tls(version)?, server_tls());
    let (client, server) = tokio::join!(
        TlsConnection::connect(client, &client_tls, "localhost"),
        TlsConnection::accept(server, &server_tls),
    );
    Ok((client?, server?))
}

/// Two upgradable ends that have been upgraded to TLS 1.3 this many times.
///
/// # Errors
/// A transport has ended, a handshake took longer than its policy allows, or the policy allows fewer sessions.
pub async fn upgraded_over<T: Transport>(
    (client, server): (T, T),
    times: usize,
) -> Result<(UpgradableConnection<T>, UpgradableConnection<T>), Error> {
    let (client_tls, server_tls) = (client_tls(TlsVersion::V1_3)?, server_tls());
    let (mut client, mut server) = (UpgradableConnection::new(client), UpgradableConnection::new(server));
    for _ in 0..times {
        let (ours, theirs) = tokio::join!(
            client.start_tls(StartTls::client(&client_tls, "localhost")),
            server.start_tls(StartTls::server(&server_tls)),
        );
        ours?;
        theirs?;
    }
    Ok((client, server))
}

/// One PKI for all pairs of a process, because making keys takes time.
pub fn shared_pki() -> &'static Pki {
    static PKI: OnceLock<Pki> = OnceLock::new();
    PKI.get_or_init(Pki::new)
}

fn server_tls() -> ServerTls {
    static TLS: OnceLock<ServerTls> = OnceLock::new();
    TLS.get_or_init(|| shared_pki().server_tls()).clone()
}

fn client_tls(version: TlsVersion) -> Result<ClientTls, Error> {
    shared_pki().client_tls_builder().min_version(version).max_version(version).build()
}
