//! Reads the PROXY header of each connection of a listener, before everything else. So the limit per peer applies to
//! the client that the header names, not to the proxy.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

use super::accept_error::AcceptErrors;
use super::builder::ListenerBuilder;
use super::limits::Limits;
use super::proxied::Headed;
use crate::conn::control::Observers;
use crate::conn::refusal::RefusalReason;
use crate::conn::time::until;
use crate::error::{ConfigError, ConfigProblem, Error, Phase, Reason};
use crate::policy::Policy;
use crate::proxy::{Expected, ProxyError, ProxyProtocol};
use crate::transport::Transport;
use crate::transport::layer::TOKEN;

/// Reads the headers of one listener.
pub struct HeaderGate {
    proxy: ProxyProtocol,
    limits: Limits,
    errors: Arc<Mutex<AcceptErrors>>,
    policy: Arc<Policy>,
}

impl HeaderGate {
    /// `None` if the listener expects no headers.
    pub(super) fn new(
        chosen: &ListenerBuilder,
        limits: &Limits,
        errors: &Arc<Mutex<AcceptErrors>>,
    ) -> Option<Arc<Self>> {
        let (limits, errors) = (limits.clone(), Arc::clone(errors));
        let proxy = chosen.proxy.clone()?;
        Some(Arc::new(Self { proxy, limits, errors, policy: Arc::clone(&chosen.policy) }))
    }

    /// Whether this peer may send a header. The limit per peer does not count such a peer, but its client
    /// (rule: proxy-5).
    pub(super) fn expects_from(&self, peer: IpAddr) -> bool {
        matches!(self.proxy.expected_from(Some(peer)), Expected::Perhaps | Expected::Header)
    }

    /// Reads the header, and counts the client. Cancel safe until the header is complete.
    pub(crate) async fn pass(&self, connection: &mut impl Headed) -> Result<(), Error> {
        let expects = self.may_begin_with_header(connection);
        let header = self.proxy.read_from(connection).await?;
        // The header names no client: this is a connection of the proxy itself, or the proxy does not name the client.
        if !expects || header.is_some_and(|header| header.source().is_none()) {
            return Ok(());
        }
        match connection.peer_addr().as_inet() {
            Some(client) => self.admit(connection, client),
            None => Ok(()),
        }
    }

    fn may_begin_with_header(&self, connection: &impl Transport) -> bool {
        matches!(self.proxy.expected_of(connection), Expected::Perhaps | Expected::Header)
    }

    /// As [`pass`](Self::pass), but waits no longer than the deadline of the handshake. A drain ends the wait too,
    /// unless it lets handshakes finish. After an error the connection has ended.
    pub(crate) async fn pass_by(
        &self,
        connection: &mut impl Headed,
        deadline: Option<Instant>,
        finishes: bool,
    ) -> Result<(), Error> {
        let control = connection.control();
        let passed = tokio::select! {
            biased;
            () = control.draining(), if !finishes => {
                control.abort_unready();
                Err(Error::Draining)
            }
            passed = until(deadline, self.pass(connection)) => passed.unwrap_or_else(|| {
                let reason = Reason::TimedOut(Phase::Handshake);
                control.end(reason.clone());
                Err(reason.into())
            }),
        };
        passed.inspect_err(|error| {
            // The connection was refused, so its socket is closed now, although the caller still holds the connection.
            connection.layer_mut(TOKEN).release(error.reason().unwrap_or(&Reason::Aborted));
        })
    }

    /// Ends a connection whose header was not read. Its first bytes are not for the application, and its peer is not
    /// the client (rule: proxy-7).
    pub(super) fn end_unread(&self, connection: &impl Transport) {
        if self.proxy.expected_of(connection) != Expected::NoHeader {
            let unread = "the PROXY header was not read: use `begin_plaintext`, `finish` or `read_proxy_header`";
            connection.control().end(Reason::Protocol(Arc::new(io::Error::other(unread))));
        }
    }

    fn admit(&self, connection: &impl Transport, client: SocketAddr) -> Result<(), Error> {
        let control = connection.control();
        match self.limits.enter(client) {
            Ok(permit) => {
                if let Some(permit) = permit {
                    control.keep_too(Box::new(permit));
                }
                Ok(())
            }
            Err(refusal) => {
                control.abort();
                self.errors.lock().unwrap_or_else(PoisonError::into_inner).handle_refusal(refusal.clone());
                if let Some(observers) = Observers::of(&self.policy) {
                    observers.tell(|observer| observer.refused(&refusal));
                }
                let RefusalReason::TooManyOfPeer { max } = refusal.why;
                Err(ProxyError::Refused { client: refusal.peer_addr, max }.into())
            }
        }
    }
}

impl std::fmt::Debug for HeaderGate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HeaderGate").field("proxy", &self.proxy).finish_non_exhaustive()
    }
}

impl ListenerBuilder {
    /// Reads a PROXY header at the start of the connections, before anything else (rule: proxy-5). It has the deadline
    /// of the handshake. Then the client is [`peer_addr`](crate::Transport::peer_addr), the proxy is
    /// [`Control::via`](crate::Control::via), and [`max_per_peer`](Self::max_per_peer) counts the client.
    ///
    /// [`Incoming::handshake`](crate::Incoming::handshake) and the other methods that wait read the header first, and
    /// so do [`TlsListener`](crate::TlsListener) and the callback interface.
    /// [`Incoming::into_tcp`](crate::Incoming::into_tcp) cannot wait: use
    /// [`Incoming::begin_plaintext`](crate::Incoming::begin_plaintext) instead (rule: proxy-7).
    ///
    /// The peers of a Unix socket have no address. They are trusted only if the trusted networks contain `unix`;
    /// otherwise opening a Unix socket with this setting is an error.
    pub fn proxy(self, proxy: ProxyProtocol) -> Self {
        Self { proxy: Some(proxy), ..self }
    }

    /// Whether a Unix socket can be opened with these settings.
    #[cfg_attr(not(unix), allow(dead_code))] // Unix sockets use it.
    pub(crate) fn check_unix(&self) -> Result<(), ConfigError> {
        match &self.proxy {
            Some(proxy) if !proxy.trusts_unix() => Err(ConfigError::new(
                None,
                ConfigProblem::Contradiction(
                    "PROXY headers are expected on a Unix socket, and its peers are not trusted: add `unix` to the \
                     trusted networks"
                        .into(),
                ),
            )),
            _ => Ok(()),
        }
    }

    /// `None`: no connection begins with a header.
    pub(crate) fn proxy_or_none(self, proxy: Option<ProxyProtocol>) -> Self {
        Self { proxy, ..self }
    }
}
