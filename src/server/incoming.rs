//! A connection between accept and the end of its handshake.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::header_gate::HeaderGate;
use crate::address::Address;
use crate::config::ServerTls;
use crate::config::start_tls::StartTls;
use crate::conn::control::Control;
use crate::conn::options::TcpOptions;
use crate::conn::time::{after, until};
use crate::error::{Error, Phase, Reason};
use crate::layers::tcp::TcpConnection;
use crate::layers::tls::TlsConnection;
use crate::layers::upgradable::UpgradableConnection;
use crate::transport::Transport;
use crate::transport::layer::{AsLayer, TOKEN};

/// An accepted connection before its start: no byte has been read or written.
///
/// It counts as an unfinished handshake of its listener until you turn it into a transport or drop it. Dropping it
/// resets the connection, like dropping a transport (rule: close-12). The handshake deadline
/// ([`Policy::handshake_timeout`](crate::Policy)) is running already, but it only takes effect once the handshake is
/// awaited, so do not keep an `Incoming` for long.
#[derive(Debug)]
#[must_use = "dropping it resets the connection"]
pub struct Incoming {
    connection: TcpConnection,
    deadline: Option<Instant>,
    unfinished: OwnedSemaphorePermit,
    /// A drain lets the handshake finish.
    pub(super) finishes: bool,
    /// Reads the PROXY header, if one is expected and has not been read yet.
    gate: Option<Arc<HeaderGate>>,
}

impl Incoming {
    /// Must be called right after accept, because the deadline counts from here (rule: secure-5).
    pub(super) fn new(
        connection: TcpConnection,
        unfinished: OwnedSemaphorePermit,
        finishes: bool,
        gate: Option<Arc<HeaderGate>>,
    ) -> Self {
        let deadline = after(connection.layer(TOKEN).control().policy().handshake_timeout);
        Self { connection, deadline, unfinished, finishes, gate }
    }

    /// The handle of the connection. The transport made from it has the same handle.
    pub fn control(&self) -> Control {
        self.connection.control()
    }

    /// The options of the socket, and its descriptor: see [`TcpOptions`].
    pub fn as_tcp(&self) -> Option<TcpOptions<'_>> {
        self.connection.as_tcp()
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

    /// The time by which the handshake must be done, if the policy has a limit (rule: secure-5).
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// The plaintext connection. It has no handshake, so it counts as finished. If the peer has reset the connection
    /// before accept, the first read returns that error.
    ///
    /// If the group of the listener is already draining, the connection is returned all the same, and its
    /// [`Control::draining`] is ready at once.
    ///
    /// This method cannot wait for a PROXY header. If the listener expects one from this peer and it was not read yet,
    /// the connection is reset, and its reads and writes return an error that says so (rule: proxy-7): use
    /// [`begin_plaintext`](Self::begin_plaintext) instead.
    pub fn into_tcp(self) -> TcpConnection {
        if let Some(gate) = &self.gate {
            gate.end_unread(&self.connection);
        }
        self.connection
    }

    /// The plaintext connection. If the listener expects PROXY headers, this reads the header first (rule: proxy-5).
    /// Until then, the connection counts as unfinished (rule: tcp-6).
    ///
    /// # Errors
    /// A failure to read the header: see `read_proxy_header`. The connection has ended.
    ///
    /// # Cancel safety
    /// Dropping the future drops the connection.
    pub async fn begin_plaintext(mut self) -> Result<TcpConnection, Error> {
        self.pass_gate().await?;
        Ok(self.connection)
    }

    /// Does the TLS handshake as the server. The deadline counts from accept (rule: secure-5). Until the handshake is
    /// done, the connection counts as unfinished (rule: tcp-6).
    ///
    /// # Errors
    /// The errors of [`TlsConnection::accept`]. [`Error::Draining`] if the group of the listener starts to drain before
    /// the handshake is done; the connection is aborted then (rule: drain-2).
    ///
    /// # Cancel safety
    /// Dropping the future drops the connection.
    pub async fn handshake(self, tls: &ServerTls) -> Result<TlsConnection<TcpConnection>, Error> {
        // This future is boxed, because a task is as large as its largest future for its whole life, and this one ends
        // soon.
        Box::pin(self.unless_draining(|deadline, connection| async move {
            let mut connection = TlsConnection::server(connection, tls)?;
            connection.handshake_by(deadline).await?;
            Ok(connection)
        }))
        .await
    }

    /// The plaintext connection, ready to be upgraded. It has no handshake yet, so it counts as finished. Like
    /// [`into_tcp`](Self::into_tcp), this method cannot wait for a PROXY header: call `read_proxy_header` first.
    pub fn into_upgradable(self) -> UpgradableConnection<TcpConnection> {
        UpgradableConnection::new(self.into_tcp())
    }

    /// As [`handshake`](Self::handshake), for a connection that can be downgraded, and upgraded again.
    ///
    /// # Errors
    /// The errors of [`UpgradableConnection::start_tls`], and [`Error::Draining`] as in [`handshake`](Self::handshake).
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

    /// Whether a drain lets the handshake finish.
    pub(crate) fn finishes(&self) -> bool {
        self.finishes
    }

    pub(super) fn connection_mut(&mut self) -> &mut TcpConnection {
        &mut self.connection
    }

    /// Reads the PROXY header of the connection, if the listener expects headers
    /// ([`ListenerBuilder::proxy`](crate::ListenerBuilder::proxy)). [`handshake`](Self::handshake) and the other
    /// methods that wait do this themselves. A second call does nothing.
    ///
    /// # Errors
    /// The errors of [`ProxyProtocol::read`](crate::proxy::ProxyProtocol::read);
    /// [`ProxyError::Refused`](crate::proxy::ProxyError) if the client has too many connections; [`Reason::TimedOut`]
    /// in [`Phase::Handshake`] at the deadline of the handshake; [`Error::Draining`] as in
    /// [`handshake`](Self::handshake). After an error the connection has ended.
    ///
    /// # Cancel safety
    /// Cancel safe: received bytes stay in the connection.
    #[cfg(feature = "proxy")]
    pub async fn read_proxy_header(&mut self) -> Result<(), Error> {
        self.pass_gate().await
    }

    /// Whether a PROXY header is still to be read.
    pub(crate) fn has_gate(&self) -> bool {
        self.gate.is_some()
    }

    pub(crate) async fn pass_gate(&mut self) -> Result<(), Error> {
        let Some(gate) = self.gate.clone() else { return Ok(()) };
        gate.pass_by(&mut self.connection, self.deadline, self.finishes).await?;
        self.gate = None;
        Ok(())
    }

    pub(crate) fn gate(&self) -> Option<Arc<HeaderGate>> {
        self.gate.clone()
    }

    /// The handshake's deadline, the permit that counts the connection as unfinished while it is held, and the
    /// connection.
    pub(crate) fn into_parts(self) -> (Option<Instant>, OwnedSemaphorePermit, TcpConnection) {
        (self.deadline, self.unfinished, self.connection)
    }

    /// Runs `begin`, which makes the connection ready (a PROXY header, a handshake). The deadline counts from accept
    /// (rule: secure-5). Until `begin` is done, the connection counts as unfinished (rule: tcp-6).
    ///
    /// # Errors
    /// The error of `begin`; [`Reason::TimedOut`] in [`Phase::Handshake`] at the deadline, when the future and the
    /// connection in it are dropped; [`Error::Draining`] as in [`handshake`](Self::handshake).
    ///
    /// # Cancel safety
    /// Dropping the future drops the connection.
    pub async fn finish<F, T>(self, begin: impl FnOnce(TcpConnection) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        self.unless_draining(|deadline, connection| async move {
            let control = connection.control();
            let expires = async {
                until(deadline, std::future::pending::<()>()).await;
                // The reason must be set before the connection is dropped, because a drop would set another one.
                control.end(Reason::TimedOut(Phase::Handshake));
            };
            tokio::select! {
                biased;
                begun = begin(connection) => begun,
                () = expires => Err(Reason::TimedOut(Phase::Handshake).into()),
            }
        })
        .await
    }

    /// Starts the connection, and aborts it if the drain starts first (rule: drain-2).
    async fn unless_draining<F, T>(
        mut self,
        begin: impl FnOnce(Option<Instant>, TcpConnection) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        self.pass_gate().await?;
        let Self { connection, deadline, unfinished: _unfinished, finishes, gate: _ } = self;
        let control = connection.control();
        let told = async {
            control.draining().await;
            // The abort must come before the connection is dropped, because a drop would set another reason.
            control.abort_unready();
        };
        tokio::select! {
            biased;
            () = told, if !finishes => Err(Error::Draining),
            begun = begin(deadline, connection) => begun,
        }
    }
}
