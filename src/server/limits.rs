//! Limits how many connections of a listener are open at a time, in total and per peer (rules: limit-1, limit-2).

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::conn::control::Control;
use crate::conn::refusal::{Refusal, RefusalReason};
use crate::conn::socket;
use crate::server::peers::PeerCounts;

/// The limits of a listener. Without a limit, nothing is counted.
#[derive(Debug, Default, Clone)]
pub(super) struct Limits {
    total: Option<Arc<Semaphore>>,
    peers: Option<Arc<Mutex<PeerCounts>>>,
}

/// A permit for one connection of a peer, released on drop.
pub(super) struct PeerPermit {
    peers: Arc<Mutex<PeerCounts>>,
    who: IpAddr,
}

/// The permits of one connection. The permit of its peer is released first, because releasing the other one wakes an
/// accept, which may accept the next connection of the same peer at once.
struct LimitPermits {
    _peer: Option<PeerPermit>,
    _total: Option<OwnedSemaphorePermit>,
}

impl Limits {
    pub(super) fn new(total: Option<usize>, per_peer: Option<usize>, ipv6_prefix: u8) -> Self {
        Self {
            total: total.map(|max| Arc::new(Semaphore::new(max))),
            peers: per_peer.map(|max| Arc::new(Mutex::new(PeerCounts::new(max, ipv6_prefix)))),
        }
    }

    /// Waits for a permit of the total limit.
    pub(super) async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        let total = self.total.as_ref()?;
        Some(Arc::clone(total).acquire_owned().await.expect("the semaphore is never closed"))
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
