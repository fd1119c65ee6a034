//! Listening: connections are taken one by one, and none of them can end the listener (rule: tcp-5).

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream, ToSocketAddrs, lookup_host};
use tokio::sync::Semaphore;
use tokio::task::coop::consume_budget;

use super::acceptor::{Acceptor, Listens, Origin};
use super::incoming::Incoming;
use super::limits::Refusal;
use crate::address::Address;
use crate::conn::group::DrainGroup;
use crate::error::{BindError, Error};
use crate::layers::tcp::TcpConnection;
use crate::policy::Policy;
use crate::transport::Transport;

/// Takes TCP connections.
///
/// [`accept`](Self::accept) hands out each connection as [`Incoming`]: not begun yet, its handshake deadline running.
/// So the handshake is done wherever the application puts it, mostly in a task for each connection, and a slow one
/// delays no other (rule: tcp-6).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use bowline::{Connector, Listener};
///
/// let listener = Listener::bind("127.0.0.1:0").await?;
/// let client = Connector::new().connect_addr(listener.local_addr()).await?;
/// let server = listener.accept().await?.into_tcp();
/// # drop((client, server));
/// # Ok(())
/// # }
/// ```
#[doc(alias = "listenTCP")]
#[doc(alias = "IListeningPort")]
#[doc(alias = "TCP4ServerEndpoint")]
#[doc(alias = "TCP6ServerEndpoint")]
#[doc(alias = "create_server")]
#[doc(alias = "start_server")]
pub struct Listener {
    acceptor: Acceptor<TcpListener>,
    local: SocketAddr,
}

impl Listens for TcpListener {
    /// With our address and the peer's.
    type Taken = (TcpStream, SocketAddr, SocketAddr);

    async fn take(&self) -> io::Result<Self::Taken> {
        let (stream, peer) = self.accept().await?;
        // A connection of which even our own address cannot be told any more is passed over (rule: tcp-1).
        let host = stream.local_addr()?;
        Ok((stream, host, peer))
    }

    fn tcp((stream, _, peer): &Self::Taken) -> Option<(&TcpStream, SocketAddr)> {
        Some((stream, *peer))
    }

    fn socket(&self) -> SockRef<'_> {
        SockRef::from(self)
    }
}

/// How a listener is doing.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ListenerStatus {
    /// How many times the system refused to hand out a connection, since the listener was opened.
    pub accept_errors: u64,
    /// What it said the last time.
    pub last_error: Option<Arc<io::Error>>,
    /// Whether accepting waits at this moment because the system refused: it is out of descriptors, or of memory.
    pub is_waiting: bool,
    /// Whether as many connections are open as [`ListenerBuilder::max_connections`] allows: the next one waits in the
    /// system's backlog.
    pub is_full: bool,
    /// How many connections were refused since the listener was opened.
    pub refused: u64,
    /// The last connection that was refused.
    pub last_refusal: Option<Refusal>,
}

impl Listener {
    /// Listens on this address with the defaults of [`ListenerBuilder`].
    ///
    /// # Errors
    /// As [`ListenerBuilder::bind`].
    ///
    /// # Cancel safety
    /// Dropping the future leaves no socket open.
    pub async fn bind(addr: impl ToSocketAddrs) -> Result<Self, Error> {
        Self::builder().bind(addr).await
    }

    /// Everything that can be chosen about a listener.
    pub fn builder() -> ListenerBuilder {
        ListenerBuilder::default()
    }

    /// Takes over a listening socket that was made elsewhere, or passed in by a service manager. For the effects on other
    /// holders of the socket, see [`ListenerBuilder::from_std`].
    ///
    /// # Errors
    /// As [`ListenerBuilder::from_std`].
    ///
    /// # Panics
    /// Outside of a tokio runtime with I/O enabled.
    pub fn from_std(socket: std::net::TcpListener) -> Result<Self, Error> {
        Self::builder().from_std(socket)
    }

    /// The address that was really bound: its port is never 0 (rule: tcp-8).
    #[doc(alias = "getHost")]
    #[doc(alias = "sockets")]
    pub fn local_addr(&self) -> Address {
        self.local.into()
    }

    /// How the listener is doing.
    pub fn status(&self) -> ListenerStatus {
        self.acceptor.status()
    }

    /// The group of the connections that it accepts: a handle to drain them, and to count them. That of the listener alone,
    /// unless [`ListenerBuilder::group`] chose another one.
    #[doc(alias = "handle")]
    #[doc(alias = "stopListening")]
    pub fn group(&self) -> &DrainGroup {
        self.acceptor.group()
    }

    /// The next connection.
    ///
    /// It waits while as many handshakes are unfinished, or as many connections open, as the listener allows; further
    /// connections then wait in the system's backlog (rules: tcp-6, limit-1). What happens to one connection is never an error here: it is passed over. Where
    /// the system is out of descriptors or memory, it waits a little, longer each time, up to a second, and goes on by
    /// itself when there are some (rule: tcp-5); [`status`](Self::status) tells.
    ///
    /// Several tasks may accept from one listener.
    ///
    /// # Errors
    /// [`Error::Bind`]: the listening socket is no longer usable (it was shut down, or the runtime that it belongs to has
    /// ended). Every later call fails too. [`Error::Draining`]: the [group](Self::group) drains, and the listener is closed;
    /// the fault is ours. A call that fails costs the task's budget, so that a loop that continues after an error does not
    /// keep other tasks from running (rule: life-6).
    ///
    /// # Cancel safety
    /// Safe: when the future is dropped, no connection is lost (rule: tcp-7).
    pub async fn accept(&self) -> Result<Incoming, Error> {
        let ((stream, host, peer), pass) = self.acceptor.accept().await?;
        let connection = TcpConnection::between(stream, host, peer, self.acceptor.policy());
        let unfinished = pass.hand_to(&connection.control());
        Ok(Incoming::new(connection, unfinished))
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("local_addr", &self.local).field("status", &self.status()).finish()
    }
}

/// What can be chosen about a [`Listener`].
#[derive(Debug, Clone)]
pub struct ListenerBuilder {
    pub(super) policy: Arc<Policy>,
    pub(super) backlog: u32,
    pub(super) max_unfinished: usize,
    pub(super) max_connections: Option<usize>,
    pub(super) max_per_peer: Option<usize>,
    pub(super) ipv6_prefix: u8,
    pub(super) dual_stack: bool,
    pub(super) group: DrainGroup,
}

impl Default for ListenerBuilder {
    fn default() -> Self {
        Self {
            policy: Arc::default(),
            backlog: 1024,
            max_unfinished: 4096,
            max_connections: None,
            max_per_peer: None,
            ipv6_prefix: 64,
            dual_stack: false,
            group: DrainGroup::new(),
        }
    }
}

impl ListenerBuilder {
    /// What the connections allow. The handshake deadline counts from accept (rule: secure-5).
    pub fn policy(self, policy: impl Into<Arc<Policy>>) -> Self {
        Self { policy: policy.into(), ..self }
    }

    /// How many connections the system keeps for us until they are accepted; default 1024. The system has a bound of
    /// its own (on Linux `net.core.somaxconn`).
    pub fn backlog(self, backlog: u32) -> Self {
        Self { backlog, ..self }
    }

    /// How many connections may be between accept and the end of their handshake; default 4096, at least 1.
    ///
    /// Each costs a descriptor and some kilobytes. Anybody who can reach the port can hold that many for the length of
    /// the handshake deadline, so a bound below 1000 makes it cheap to keep others out.
    pub fn max_unfinished(self, max: usize) -> Self {
        Self { max_unfinished: max.clamp(1, Semaphore::MAX_PERMITS), ..self }
    }

    /// How many connections of this listener may be open at a time, unfinished ones too; default: no bound. At the bound
    /// [`Listener::accept`] waits, and further connections wait in the system's backlog until one is gone (rule: limit-1).
    ///
    /// One counts until its socket is gone, whatever became of it: upgraded, split, dropped.
    #[doc(alias = "LimitTotalConnectionsFactory")]
    pub fn max_connections(self, max: usize) -> Self {
        Self { max_connections: Some(max.clamp(1, Semaphore::MAX_PERMITS)), ..self }
    }

    /// How many connections one peer may have open at a time with this listener; default: no bound, at least 1. Further ones are
    /// refused by RST before anything is built for them, and [`Listener::status`] tells of them (rule: limit-2).
    ///
    /// A peer is an IPv4 address, or an IPv6 network of 64 bits: a host mostly has one of its own, and picks any of its
    /// 2⁶⁴ addresses. [`per_peer_ipv6_prefix`](Self::per_peer_ipv6_prefix) changes that. Behind a proxy all peers are one:
    /// set no bound there.
    #[doc(alias = "LimitConnectionsByPeer")]
    pub fn max_per_peer(self, max: usize) -> Self {
        Self { max_per_peer: Some(max.max(1)), ..self }
    }

    /// How many bits of an IPv6 address say who it is, for [`max_per_peer`](Self::max_per_peer); default 64. With 128 every
    /// address is a peer of its own, and whoever has a network has no bound.
    pub fn per_peer_ipv6_prefix(self, bits: u8) -> Self {
        Self { ipv6_prefix: bits.min(128), ..self }
    }

    /// The group that its connections belong to, so that several listeners drain as one; default: one of the listener's
    /// own.
    pub fn group(self, group: &DrainGroup) -> Self {
        Self { group: group.clone(), ..self }
    }

    /// Whether `[::]` takes IPv4 connections too, with peers like `[::ffff:192.0.2.1]`; default no.
    ///
    /// The system's own default differs from one to the next, so it is always set: by default an address means what it
    /// says, and `0.0.0.0` and `[::]` can be bound beside each other on the same port.
    #[doc(alias = "IPV6_V6ONLY")]
    pub fn dual_stack(self, dual_stack: bool) -> Self {
        Self { dual_stack, ..self }
    }

    /// Opens the listener. Of a name with several addresses, the first that can be bound is.
    ///
    /// On Unix `SO_REUSEADDR` is set: a restarted service gets its port back at once. (Windows means something else by
    /// it, and there it is not set.)
    ///
    /// # Errors
    /// [`Error::Bind`] with the address and what the system said of it: the port is taken, or may not be used (rule:
    /// tcp-8). A name that does not resolve is [`Error::Ended`] with the resolver's error. The fault is the system's.
    ///
    /// # Cancel safety
    /// Dropping the future leaves no socket open.
    ///
    /// # Panics
    /// Outside of a tokio runtime with I/O enabled.
    pub async fn bind(self, addr: impl ToSocketAddrs) -> Result<Listener, Error> {
        let mut failed = Error::from(io::Error::new(io::ErrorKind::NotFound, "there is no address to listen on"));
        for addr in lookup_host(addr).await? {
            match self.open(addr) {
                Ok(socket) => return self.take(socket, Origin::BoundHere),
                Err(error) => failed = BindError { addr: addr.into(), error: Arc::new(error) }.into(),
            }
        }
        // rule: life-6. The next call fails at once too.
        consume_budget().await;
        Err(failed)
    }

    /// Takes over a socket that listens. The backlog and the choice of the address are those it was made with.
    ///
    /// Other processes may hold the socket too: a service manager, a parent, the next version of the service. So we set it to
    /// non-blocking mode, which they share with us, and change nothing else (rule: tcp-10). A drain ends waiting accepts and
    /// closes our descriptor. The socket keeps listening for its other holders, and clients in its backlog wait for them. If
    /// nobody else holds the socket, this closes it.
    ///
    /// # Errors
    /// The system's, where the socket cannot be used: the fault of who made it.
    ///
    /// # Panics
    /// Outside of a tokio runtime with I/O enabled.
    pub fn from_std(self, socket: std::net::TcpListener) -> Result<Listener, Error> {
        self.take(socket, Origin::HandedIn)
    }

    fn take(self, socket: std::net::TcpListener, origin: Origin) -> Result<Listener, Error> {
        socket.set_nonblocking(true)?;
        let local = socket.local_addr()?;
        let socket = TcpListener::from_std(socket)?;
        Ok(Listener { acceptor: Acceptor::new(socket, origin, local.into(), self), local })
    }

    /// The backlog, as listen(2) takes it.
    pub(crate) fn system_backlog(&self) -> i32 {
        i32::try_from(self.backlog).unwrap_or(i32::MAX)
    }

    fn open(&self, addr: SocketAddr) -> io::Result<std::net::TcpListener> {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        #[cfg(unix)]
        socket.set_reuse_address(true)?;
        if addr.is_ipv6() {
            socket.set_only_v6(!self.dual_stack)?;
        }
        socket.bind(&addr.into())?;
        socket.listen(self.system_backlog())?;
        Ok(socket.into())
    }
}

#[cfg(test)]
mod tests;
