//! A connection between accept and the end of its handshake.

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use crate::address::Address;
use crate::config::ServerTls;
use crate::config::start_tls::StartTls;
use crate::conn::control::Control;
use crate::conn::time::{after, until};
use crate::error::{Error, Phase, Reason};
use crate::layers::tcp::TcpConnection;
use crate::layers::tls::TlsConnection;
use crate::layers::upgradable::UpgradableConnection;
use crate::transport::Transport;
use crate::transport::layer::{AsLayer, TOKEN};

/// A connection that was accepted and not begun: no byte was read or written.
///
/// It counts as an unfinished handshake of its listener until it is made into a transport, or dropped, which resets it as
/// a dropped transport is reset (rule: close-12). Its handshake deadline ([`Policy::handshake_timeout`](crate::Policy))
/// has begun; it ends nothing by itself until the handshake is awaited, so do not keep it lying about.
#[derive(Debug)]
#[must_use = "dropping it resets the connection"]
pub struct Incoming {
    connection: TcpConnection,
    deadline: Option<Instant>,
    unfinished: OwnedSemaphorePermit,
}

impl Incoming {
    /// To be called at the moment of accept: the deadline counts from here (rule: secure-5).
    pub(super) fn new(connection: TcpConnection, unfinished: OwnedSemaphorePermit) -> Self {
        let deadline = after(connection.layer(TOKEN).control().policy().handshake_timeout);
        Self { connection, deadline, unfinished }
    }

    /// The handle of the connection, which it keeps when it becomes a transport.
    pub fn control(&self) -> Control {
        self.connection.control()
    }

    /// Our address.
    #[doc(alias = "getHost")]
    #[doc(alias = "host")]
    pub fn local_addr(&self) -> Address {
        self.connection.local_addr()
    }

    /// The peer's address.
    #[doc(alias = "getPeer")]
    #[doc(alias = "peer")]
    pub fn peer_addr(&self) -> Address {
        self.connection.peer_addr()
    }

    /// When the handshake must be done, where the policy has a bound (rule: secure-5).
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// The plaintext connection. There is no handshake to wait for, so it counts as finished. One that the peer has reset
    /// before it was accepted says so when it is read.
    ///
    /// Where the group of the listener drains already, the connection is given all the same, and told at once
    /// ([`Control::draining`]).
    pub fn into_tcp(self) -> TcpConnection {
        self.connection
    }

    /// Makes the TLS handshake as server, under the deadline that runs since accept (rule: secure-5). Until it is done
    /// the connection counts as unfinished (rule: tcp-6).
    ///
    /// # Errors
    /// As those of [`TlsConnection::accept`]. [`Error::Draining`] where the group of the listener begins to drain before it
    /// is done: the connection is aborted then (rule: drain-2).
    ///
    /// # Cancel safety
    /// Dropping the future drops the connection.
    pub async fn handshake(self, tls: &ServerTls) -> Result<TlsConnection<TcpConnection>, Error> {
        // A task keeps the room of its largest wait for good: this one is over soon.
        Box::pin(self.unless_draining(|deadline, connection| async move {
            let mut connection = TlsConnection::server(connection, tls)?;
            connection.handshake_by(deadline).await?;
            Ok(connection)
        }))
        .await
    }

    /// The plaintext connection, ready to be upgraded. There is no handshake to wait for, so it counts as finished.
    pub fn into_upgradable(self) -> UpgradableConnection<TcpConnection> {
        UpgradableConnection::new(self.into_tcp())
    }

    /// As [`handshake`](Self::handshake), for a connection that can be downgraded, and upgraded again.
    ///
    /// # Errors
    /// As those of [`UpgradableConnection::start_tls`]; [`Error::Draining`] as [`handshake`](Self::handshake).
    ///
    /// # Cancel safety
    /// Dropping the future drops the connection.
    pub async fn handshake_upgradable(self, tls: &ServerTls) -> Result<UpgradableConnection<TcpConnection>, Error> {
        Box::pin(self.unless_draining(|deadline, connection| async move {
            let mut connection = UpgradableConnection::new(connection);
            connection.start_tls_by(StartTls::server(tls), deadline).await?;
            Ok(connection)
        }))
        .await
    }

    /// The handshake's deadline, what counts it as unfinished while it is kept, and the connection.
    pub(crate) fn into_parts(self) -> (Option<Instant>, OwnedSemaphorePermit, TcpConnection) {
        (self.deadline, self.unfinished, self.connection)
    }

    /// Runs what makes the connection ready (a PROXY header, a handshake) under the deadline that runs since accept
    /// (rule: secure-5). Until it is done the connection counts as unfinished (rule: tcp-6).
    ///
    /// # Errors
    /// What `begin` says; [`Reason::TimedOut`] in [`Phase::Handshake`] at the deadline, where the future and the
    /// connection in it are dropped; [`Error::Draining`] as [`handshake`](Self::handshake).
    ///
    /// # Cancel safety
    /// Dropping the future drops the connection.
    pub async fn finish<F, T>(self, begin: impl FnOnce(TcpConnection) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        self.unless_draining(|deadline, connection| async move {
            let control = connection.control();
            let outcome = until(deadline, begin(connection)).await;
            outcome.unwrap_or_else(|| {
                let reason = Reason::TimedOut(Phase::Handshake);
                control.end(reason.clone());
                Err(reason.into())
            })
        })
        .await
    }

    /// Begins the connection, and aborts it where the drain begins first (rule: drain-2).
    async fn unless_draining<F, T>(self, begin: impl FnOnce(Option<Instant>, TcpConnection) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let Self { connection, deadline, unfinished: _unfinished, .. } = self;
        let control = connection.control();
        let told = async {
            control.draining().await;
            // Here, while there is a connection: behind this, it is dropped.
            control.abort();
        };
        tokio::select! {
            biased;
            () = told => Err(Error::Draining),
            begun = begin(deadline, connection) => begun,
        }
    }
}
