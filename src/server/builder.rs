//! The settings of a listener.

use std::panic::Location;
use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::address::IpFamily;
use crate::conn::group::DrainGroup;
use crate::policy::Policy;
use crate::server::limits::Limits;

/// The settings of a [`Listener`](crate::Listener).
#[derive(Debug, Clone)]
pub struct ListenerBuilder {
    pub(super) policy: Arc<Policy>,
    pub(super) backlog: u32,
    pub(super) max_unfinished: usize,
    pub(super) max_connections: Option<usize>,
    pub(super) max_per_peer: Option<usize>,
    pub(super) ipv6_prefix: u8,
    /// A socket for IPv6 accepts IPv4 too.
    pub(super) dual_stack: bool,
    /// Sets `SO_REUSEPORT`.
    pub(super) reuse_port: bool,
    pub(super) family: Option<IpFamily>,
    pub(super) group: DrainGroup,
    /// The place in the code that made the builder.
    pub(super) place: &'static Location<'static>,
    /// A drain lets handshakes finish.
    pub(super) finishes: bool,
    /// The limits that the workers of a port share.
    pub(super) shared: Option<Limits>,
    #[cfg(feature = "proxy")]
    pub(super) proxy: Option<crate::proxy::ProxyProtocol>,
}

impl Default for ListenerBuilder {
    #[track_caller]
    fn default() -> Self {
        Self {
            policy: Arc::default(),
            backlog: 1024,
            max_unfinished: 4096,
            max_connections: None,
            max_per_peer: None,
            ipv6_prefix: 64,
            dual_stack: false,
            reuse_port: false,
            family: None,
            group: DrainGroup::new(),
            place: Location::caller(),
            finishes: false,
            shared: None,
            #[cfg(feature = "proxy")]
            proxy: None,
        }
    }
}

impl ListenerBuilder {
    /// The policy of the connections. The handshake deadline counts from accept (rule: secure-5).
    pub fn policy(self, policy: impl Into<Arc<Policy>>) -> Self {
        Self { policy: policy.into(), ..self }
    }

    pub(crate) fn its_policy(&self) -> Arc<Policy> {
        Arc::clone(&self.policy)
    }

    /// The number of connections that may wait in the system's backlog until they are accepted; default 1024. The
    /// system limits it too (on Linux by `net.core.somaxconn`).
    pub fn backlog(self, backlog: u32) -> Self {
        Self { backlog, ..self }
    }

    /// The largest number of connections between accept and the end of their handshake; default 4096, at least 1.
    ///
    /// Each of them costs a descriptor and some kilobytes. Any client that can reach the port can occupy all of them
    /// until the handshake deadline, so a limit below 1000 makes a denial of service cheap.
    pub fn max_unfinished(self, max: usize) -> Self {
        Self { max_unfinished: max.clamp(1, Semaphore::MAX_PERMITS), ..self }
    }

    /// The largest number of open connections of this listener, including unfinished ones; default: no limit. At the
    /// limit, [`Listener::accept`](crate::Listener::accept) waits, and new connections wait in the system's backlog
    /// until a connection is gone (rule: limit-1).
    ///
    /// A connection counts until its socket is closed, also after an upgrade, a split or a drop.
    #[doc(alias = "LimitTotalConnectionsFactory")]
    pub fn max_connections(self, max: usize) -> Self {
        Self { max_connections: Some(max.clamp(1, Semaphore::MAX_PERMITS)), ..self }
    }

    /// The largest number of open connections of one peer with this listener; at least 1, default: no limit. Further
    /// connections are refused with RST before anything is allocated for them, and
    /// [`Listener::status`](crate::Listener::status) counts them (rule: limit-2).
    ///
    /// A peer is an IPv4 address or an IPv6 network of 64 bits, because a host usually has such a network and can use
    /// any of its 2⁶⁴ addresses. [`per_peer_ipv6_prefix`](Self::per_peer_ipv6_prefix) changes the length. If the
    /// clients come through a proxy, they all have the proxy's address, unless the proxy names them in a PROXY header
    /// (feature `proxy`).
    #[doc(alias = "LimitConnectionsByPeer")]
    pub fn max_per_peer(self, max: usize) -> Self {
        Self { max_per_peer: Some(max.max(1)), ..self }
    }

    /// The number of leading bits of an IPv6 address that identify a peer for [`max_per_peer`](Self::max_per_peer);
    /// default 64. With 128, every address is a separate peer, so a client with a whole network is not limited.
    pub fn per_peer_ipv6_prefix(self, bits: u8) -> Self {
        Self { ipv6_prefix: bits.min(128), ..self }
    }

    /// The group of the connections. Several listeners that share a group drain together. Default: a new group.
    pub fn group(self, group: &DrainGroup) -> Self {
        Self { group: group.clone(), ..self }
    }

    /// Whether a drain accepts the connections in the system's backlog, and lets handshakes finish within their
    /// deadline (rule: drain-5); default `false`: the drain resets both. With `true`, no client is cut off whose
    /// connection the system had accepted before the drain.
    ///
    /// Continue to accept until [`Error::Draining`](crate::Error::Draining): [`DrainGroup::drain`] waits for these
    /// connections. The [`Control::draining`](crate::Control::draining) of each of them is ready at once. A connection
    /// that nobody has accepted at the deadline of the drain is reset.
    ///
    /// On Linux, the system ignores new clients while the drain empties the backlog, which takes about a millisecond,
    /// and refuses them afterwards. A listening socket may have other holders if it was passed in, or if its descriptor
    /// was lent to the application. In this case, the system does not ignore new clients, and a connection that arrives
    /// at this moment is left to the other holders, or is reset.
    pub fn finish_on_drain(self, finish: bool) -> Self {
        Self { finishes: finish, ..self }
    }

    /// Whether `[::]` accepts IPv4 connections too, with peers like `[::ffff:192.0.2.1]`; default: no.
    ///
    /// Operating systems have different defaults, so this option is always set. With the default, `0.0.0.0` and `[::]`
    /// can both be bound to the same port.
    #[doc(alias = "IPV6_V6ONLY")]
    pub fn dual_stack(self, dual_stack: bool) -> Self {
        Self { dual_stack, ..self }
    }

    /// Listens on the addresses of this family only, if a name has addresses of both; default: on all of them.
    #[doc(alias = "AF_INET")]
    #[doc(alias = "AF_INET6")]
    pub fn only(self, family: IpFamily) -> Self {
        Self { family: Some(family), ..self }
    }

    /// Whether other sockets with this option may be bound to the same port (`SO_REUSEPORT`); default: no. On Linux,
    /// the system then spreads new connections over the sockets. See [`bind_workers`](Self::bind_workers).
    ///
    /// All sockets of a port need the option, and on Linux they must belong to the same user. Windows has no such
    /// option, and there opening the listener fails.
    #[doc(alias = "SO_REUSEPORT")]
    pub fn reuse_port(self, reuse_port: bool) -> Self {
        Self { reuse_port, ..self }
    }

    /// The limits of a listener: those that it shares, or its own.
    pub(super) fn limits(&self) -> Limits {
        let new = || Limits::new(self.max_unfinished, self.max_connections, self.max_per_peer, self.ipv6_prefix);
        self.shared.clone().unwrap_or_else(new)
    }

    /// The backlog as an argument of listen(2).
    pub(crate) fn system_backlog(&self) -> i32 {
        i32::try_from(self.backlog).unwrap_or(i32::MAX)
    }
}
