//! Reads the PROXY header of each connection of a listener, before everything else. Then the limit per peer counts the
//! client.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use super::accept_error::AcceptErrors;
use super::builder::ListenerBuilder;
use super::limits::Limits;
use crate::conn::control::Observers;
use crate::conn::refusal::RefusalReason;
use crate::error::Error;
use crate::layers::tcp::TcpConnection;
use crate::policy::Policy;
use crate::proxy::{Expected, ProxyError, ProxyProtocol};
use crate::transport::Transport;

pub(crate) struct HeaderGate {
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
    pub(super) async fn pass(&self, tcp: &mut TcpConnection) -> Result<(), Error> {
        let expects = tcp.peer_addr().as_inet().is_some_and(|peer| self.expects_from(peer.ip()));
        let header = self.proxy.read(tcp).await?;
        // The header names no client: this is a connection of the proxy itself, or the proxy does not name the client.
        if !expects || header.is_some_and(|header| header.source().is_none()) {
            return Ok(());
        }
        match tcp.peer_addr().as_inet() {
            Some(client) => self.admit(tcp, client),
            None => Ok(()),
        }
    }

    fn admit(&self, tcp: &TcpConnection, client: SocketAddr) -> Result<(), Error> {
        let control = tcp.control();
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
    /// so does [`TlsListener`](crate::TlsListener). [`Incoming::into_tcp`](crate::Incoming::into_tcp) cannot wait: use
    /// [`Incoming::begin_plaintext`](crate::Incoming::begin_plaintext) instead. Unix sockets have no headers.
    pub fn proxy(self, proxy: ProxyProtocol) -> Self {
        Self { proxy: Some(proxy), ..self }
    }

    /// `None`: no connection begins with a header.
    pub(crate) fn proxy_or_none(self, proxy: Option<ProxyProtocol>) -> Self {
        Self { proxy, ..self }
    }
}
