//! Connections that a listener has refused.

use crate::address::Address;

/// A connection that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refusal {
    /// The address of the peer.
    #[doc(alias = "peer")]
    pub peer_addr: Address,
    /// The reason of the refusal.
    pub why: RefusalReason,
}

/// The reason for refusing a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RefusalReason {
    /// The peer has as many connections as [`ListenerBuilder::max_per_peer`](crate::ListenerBuilder::max_per_peer)
    /// allows.
    TooManyOfPeer {
        /// The limit.
        max: usize,
    },
}
