//! Two ends of one connection.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};

use crate::policy::Policy;
use crate::tcp::TcpConnection;

/// Two ends of a TCP connection on loopback: the one that connected, and the one that accepted.
pub async fn tcp_pair() -> io::Result<(TcpConnection, TcpConnection)> {
    tcp_pair_with(Policy::default()).await
}

/// The same, with this policy on both ends.
pub async fn tcp_pair_with(policy: impl Into<Arc<Policy>>) -> io::Result<(TcpConnection, TcpConnection)> {
    let policy = policy.into();
    let (client, server) = raw_tcp_pair().await?;
    Ok((TcpConnection::new(client, Arc::clone(&policy))?, TcpConnection::new(server, policy)?))
}

/// Two ends of a TCP connection on loopback, as bare sockets.
pub async fn raw_tcp_pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let (client, server) = tokio::try_join!(TcpStream::connect(address), listener.accept())?;
    Ok((client, server.0))
}
