//! How many connections a listener has open at a time, in all and of one peer (rules: limit-1, limit-2).

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::address::Address;
use crate::conn::control::Control;
use crate::conn::socket;
use crate::server::peers::PeerCounts;

/// A connection that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refusal {
    /// Whose it was.
    #[doc(alias = "peer")]
    pub peer_addr: Address,
    /// Why it was refused.
    pub why: RefusalReason,
}

/// Why a connection was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RefusalReason {
    /// The peer has as many connections as [`ListenerBuilder::max_per_peer`](crate::ListenerBuilder::max_per_peer) allows.
    TooManyOfPeer {
        /// The bound.
        max: usize,
    },
}

/// The bounds of a listener. Where none is set, nothing is counted.
#[derive(Debug, Default)]
pub(super) struct Limits {
    total: Option<Arc<Semaphore>>,
    peers: Option<Arc<Mutex<PeerCounts>>>,
}

/// A place among the connections of one peer, given back on drop.
pub(super) struct PeerPlace {
    peers: Arc<Mutex<PeerCounts>>,
    who: IpAddr,
}

/// The places that one connection takes up. The place of its peer is given back first, because the other place wakes an
/// accept, which may take the next connection of the same peer at once.
struct Places {
    _peer: Option<PeerPlace>,
    _total: Option<OwnedSemaphorePermit>,
}

impl Limits {
    pub(super) fn new(total: Option<usize>, per_peer: Option<usize>, ipv6_prefix: u8) -> Self {
        Self {
            total: total.map(|max| Arc::new(Semaphore::new(max))),
            peers: per_peer.map(|max| Arc::new(Mutex::new(PeerCounts::new(max, ipv6_prefix)))),
        }
    }

    /// Waits for a place among all.
    pub(super) async fn place(&self) -> Option<OwnedSemaphorePermit> {
        let total = self.total.as_ref()?;
        Some(Arc::clone(total).acquire_owned().await.expect("the semaphore is never closed"))
    }

    /// Whether the bound of all connections is reached.
    pub(super) fn is_full(&self) -> bool {
        self.total.as_ref().is_some_and(|total| total.available_permits() == 0)
    }

    /// Takes a place among those of its peer for a connection, or refuses it, by RST.
    pub(super) fn admit(&self, stream: &TcpStream, peer: SocketAddr) -> Result<Option<PeerPlace>, Refusal> {
        let Some(peers) = &self.peers else { return Ok(None) };
        let mut counts = lock(peers);
        let who = counts.peer(peer.ip());
        if counts.enter(who) {
            return Ok(Some(PeerPlace { peers: Arc::clone(peers), who }));
        }
        socket::Options::of(stream).reset_on_drop();
        Err(Refusal { peer_addr: peer.into(), why: RefusalReason::TooManyOfPeer { max: counts.max() } })
    }
}

/// Lets a connection hold its places until it is gone. One without any costs nothing.
pub(super) fn hold(control: &Control, total: Option<OwnedSemaphorePermit>, peer: Option<PeerPlace>) {
    if total.is_some() || peer.is_some() {
        control.keep(Box::new(Places { _peer: peer, _total: total }));
    }
}

impl Drop for PeerPlace {
    fn drop(&mut self) {
        lock(&self.peers).leave(self.who);
    }
}

fn lock(peers: &Mutex<PeerCounts>) -> MutexGuard<'_, PeerCounts> {
    peers.lock().unwrap_or_else(PoisonError::into_inner)
}
