//! Limits how many connections of a listener are open at a time, in total, per peer and before the end of their
//! handshake (rules: limit-1, limit-2, tcp-6). Workers share the limits of their port (rule: limit-4).

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::conn::control::Control;
use crate::conn::refusal::{Refusal, RefusalReason};
use crate::conn::socket;
use crate::server::peers::PeerCounts;

/// The limits of a listener. Without a limit, nothing is counted. A clone counts together with the original.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    unfinished: Arc<Semaphore>,
    total: Option<Arc<Semaphore>>,
    peers: Option<Arc<Mutex<PeerCounts>>>,
}

/// A permit for one connection of a peer, released on drop.
pub(super) struct PeerPermit {
    peers: Arc<Mutex<PeerCounts>>,
    who: IpAddr,
}

/// The permits that a connection needs before it is accepted.
pub(super) struct Places {
    pub(super) unfinished: OwnedSemaphorePermit,
    pub(super) total: Option<OwnedSemaphorePermit>,
}

/// The permits of one connection. The permit of its peer is released first, because releasing the other one wakes an
/// accept, which may accept the next connection of the same peer at once.
struct LimitPermits {
    _peer: Option<PeerPermit>,
    _total: Option<OwnedSemaphorePermit>,
}

impl Limits {
    pub(super) fn new(unfinished: usize, total: Option<usize>, per_peer: Option<usize>, ipv6_prefix: u8) -> Self {
        Self {
            unfinished: Arc::new(Semaphore::new(unfinished)),
            total: total.map(|max| Arc::new(Semaphore::new(max))),
            peers: per_peer.map(|max| Arc::new(Mutex::new(PeerCounts::new(max, ipv6_prefix)))),
        }
    }

    /// Waits until one more connection may be accepted.
    pub(super) async fn places(&self) -> Places {
        let unfinished = permit(&self.unfinished).await;
        let total = match &self.total {
            Some(total) => Some(permit(total).await),
            None => None,
        };
        Places { unfinished, total }
    }

    /// Whether the total limit is reached.
    pub(super) fn is_full(&self) -> bool {
        self.total.as_ref().is_some_and(|total| total.available_permits() == 0)
    }

    /// Takes a permit of the peer's limit for a connection, or refuses the connection with RST.
    pub(super) fn admit(&self, stream: &TcpStream, peer: SocketAddr) -> Result<Option<PeerPermit>, Refusal> {
        self.enter(peer).inspect_err(|_| socket::Options::of(stream).reset_on_drop())
    }

    /// Takes a permit of the peer's limit.
    pub(super) fn enter(&self, peer: SocketAddr) -> Result<Option<PeerPermit>, Refusal> {
        let Some(peers) = &self.peers else { return Ok(None) };
        let mut counts = lock(peers);
        let who = counts.peer(peer.ip());
        if counts.enter(who) {
            return Ok(Some(PeerPermit { peers: Arc::clone(peers), who }));
        }
        Err(Refusal { peer_addr: peer.into(), why: RefusalReason::TooManyOfPeer { max: counts.max() } })
    }
}

async fn permit(of: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    Arc::clone(of).acquire_owned().await.expect("the semaphore is never closed")
}

/// Lets a connection hold its permits until it is gone. Without limits, this does nothing.
pub(super) fn hold(control: &Control, total: Option<OwnedSemaphorePermit>, peer: Option<PeerPermit>) {
    if total.is_some() || peer.is_some() {
        control.keep(Box::new(LimitPermits { _peer: peer, _total: total }));
    }
}

impl Drop for PeerPermit {
    fn drop(&mut self) {
        lock(&self.peers).leave(self.who);
    }
}

fn lock(peers: &Mutex<PeerCounts>) -> MutexGuard<'_, PeerCounts> {
    peers.lock().unwrap_or_else(PoisonError::into_inner)
}
