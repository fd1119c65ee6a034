//! A connection between accept and the end of its handshake.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use crate::deadline::{after, until};
use crate::{Error, Phase, Policy, Reason, ServerTls, StartTls, TcpConnection, TlsConnection, UpgradableConnection};

/// A connection that was accepted and not begun: no byte was read or written.
///
/// It counts as an unfinished handshake of its listener until it is made into a transport, or dropped, which closes
/// it. Its handshake deadline ([`Policy::handshake_timeout`]) has begun; it ends nothing by itself until the
/// handshake is awaited, so do not keep it lying about.
#[derive(Debug)]
#[must_use = "dropping it closes the connection"]
pub struct Incoming {
    stream: TcpStream,
    host: SocketAddr,
    peer: SocketAddr,
    policy: Arc<Policy>,
    deadline: Option<Instant>,
    permit: OwnedSemaphorePermit,
}

impl Incoming {
    /// To be called at the moment of accept: the deadline counts from here (rule: secure-5).
    pub(super) fn new(
        stream: TcpStream,
        host: SocketAddr,
        peer: SocketAddr,
        policy: Arc<Policy>,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        let deadline = after(policy.handshake_timeout);
        Self { stream, host, peer, policy, deadline, permit }
    }

    /// Our address.
    #[doc(alias = "getHost")]
    #[doc(alias = "local_addr")]
    pub fn host(&self) -> SocketAddr {
        self.host
    }

    /// The peer's address.
    #[doc(alias = "getPeer")]
    #[doc(alias = "peer_addr")]
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// When the handshake must be done, where the policy has a bound (rule: secure-5).
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// The plaintext connection. There is no handshake to wait for, so it counts as finished. One that the peer has reset
    /// before it was accepted says so when it is read.
    pub fn into_tcp(self) -> TcpConnection {
        TcpConnection::between(self.stream, self.host, self.peer, self.policy)
    }

    /// Makes the TLS handshake as server, under the deadline that runs since accept (rule: secure-5). Until it is done
    /// the connection counts as unfinished (rule: tcp-6).
    ///
    /// # Errors
    /// As those of [`TlsConnection::accept`].
    ///
    /// # Cancel safety
    /// Dropping the future drops the connection.
    pub async fn handshake(self, tls: &ServerTls) -> Result<TlsConnection<TcpConnection>, Error> {
        let (deadline, _unfinished, connection) = self.into_parts();
        let mut connection = TlsConnection::server(connection, tls)?;
        connection.handshake_by(deadline).await?;
        Ok(connection)
    }

    /// The plaintext connection, ready to be upgraded. There is no handshake to wait for, so it counts as finished.
    pub fn into_upgradable(self) -> UpgradableConnection<TcpConnection> {
        UpgradableConnection::new(self.into_tcp())
    }

    /// As [`handshake`](Self::handshake), for a connection that can be downgraded, and upgraded again.
    ///
    /// # Errors
    /// As those of [`UpgradableConnection::start_tls`].
    ///
    /// # Cancel safety
    /// Dropping the future drops the connection.
    pub async fn handshake_upgradable(self, tls: &ServerTls) -> Result<UpgradableConnection<TcpConnection>, Error> {
        let (deadline, _unfinished, connection) = self.into_parts();
        let mut connection = UpgradableConnection::new(connection);
        connection.start_tls_by(StartTls::server(tls), deadline).await?;
        Ok(connection)
    }

    /// The handshake's deadline, what counts it as unfinished while it is kept, and the connection.
    pub(crate) fn into_parts(self) -> (Option<Instant>, OwnedSemaphorePermit, TcpConnection) {
        let Self { stream, host, peer, policy, deadline, permit } = self;
        (deadline, permit, TcpConnection::between(stream, host, peer, policy))
    }

    /// Runs what makes the connection ready (a PROXY header, a handshake) under the deadline that runs since accept
    /// (rule: secure-5). Until it is done the connection counts as unfinished (rule: tcp-6).
    ///
    /// # Errors
    /// What `begin` says; [`Reason::TimedOut`] in [`Phase::Handshake`] at the deadline, where the future and the
    /// connection in it are dropped.
    ///
    /// # Cancel safety
    /// Dropping the future drops the connection.
    pub async fn finish<F, T>(self, begin: impl FnOnce(TcpConnection) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let (deadline, _unfinished, connection) = self.into_parts();
        let outcome = until(deadline, begin(connection)).await;
        outcome.unwrap_or_else(|| Err(Reason::TimedOut(Phase::Handshake).into()))
    }
}
