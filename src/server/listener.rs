//! Listening. Connections are accepted one by one, and no failure of a connection ends the listener (rule: tcp-5).

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{ToSocketAddrs, lookup_host};
use tokio::task::coop::consume_budget;

use super::acceptor::Acceptor;
use super::builder::ListenerBuilder;
use super::incoming::Incoming;
use super::listening::Listening;
use super::listening_socket::Origin;
use super::opening::Opened;
use super::status::ListenerStatus;
use crate::address::Address;
use crate::conn::group::{DrainGroup, Drainable};
use crate::error::Error;
use crate::policy::Policy;
use crate::transport::Transport;

/// Accepts TCP connections.
///
/// [`accept`](Self::accept) returns each connection as an [`Incoming`]: the handshake has not started yet, but its
/// deadline is running. The application decides where to do the handshake. Do it in a task per connection, so that a
/// slow handshake does not delay other connections (rule: tcp-6).
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
    acceptor: Acceptor<Listening>,
    pub(super) local: Vec<SocketAddr>,
}

impl Listener {
    /// Listens on this address with the defaults of [`ListenerBuilder`].
    ///
    /// # Errors
    /// As [`ListenerBuilder::bind`].
    ///
    /// # Cancel safety
    /// Dropping the future leaves no socket open.
    #[track_caller]
    pub fn bind(addr: impl ToSocketAddrs) -> impl Future<Output = Result<Self, Error>> {
        Self::builder().bind(addr)
    }

    /// A builder for a listener with other settings.
    #[track_caller]
    pub fn builder() -> ListenerBuilder {
        ListenerBuilder::default()
    }

    /// Takes over a listening socket that was made elsewhere, or passed in by a service manager. For the effects on
    /// other holders of the socket, see [`ListenerBuilder::from_std`].
    ///
    /// # Errors
    /// As [`ListenerBuilder::from_std`].
    ///
    /// # Panics
    /// Outside of a tokio runtime with I/O enabled.
    #[track_caller]
    pub fn from_std(socket: std::net::TcpListener) -> Result<Self, Error> {
        Self::builder().from_std(socket)
    }

    /// The bound address; the first one, if there are several. Its port is never 0 (rule: tcp-8).
    #[doc(alias = "getHost")]
    pub fn local_addr(&self) -> Address {
        self.local[0].into()
    }

    /// The bound address of each socket, in the order in which they were given.
    #[doc(alias = "sockets")]
    pub fn local_addrs(&self) -> Vec<Address> {
        self.local.iter().map(|addr| (*addr).into()).collect()
    }

    /// Calls `f` with the descriptor of each socket, for options that this crate does not know
    /// (`SO_ATTACH_REUSEPORT_CBPF`, `TCP_FASTOPEN`), and returns what it returned. `None` if the sockets are closed:
    /// after a drain has begun, and after `accept` has returned [`Error::Bind`].
    ///
    /// Do not accept from a descriptor, and do not make it blocking. A lock is held during the call, so `f` must not
    /// use this listener. A duplicate of the descriptor keeps the socket listening after a drain, for example for the
    /// next version of the service.
    #[cfg(unix)]
    #[doc(alias = "AsFd")]
    pub fn with_fds<R>(&self, mut f: impl FnMut(std::os::fd::BorrowedFd<'_>) -> R) -> Option<Vec<R>> {
        self.acceptor.with_sockets(|socket| f(std::os::fd::AsFd::as_fd(&*socket)))
    }

    /// Calls `f` with each socket, for options that this crate does not know, and returns what it returned. `None` if
    /// the sockets are closed: after a drain has begun, and after `accept` has returned [`Error::Bind`]. Do not accept
    /// from a socket, and do not make it blocking. A lock is held during the call, so `f` must not use this listener.
    #[cfg(windows)]
    #[doc(alias = "AsSocket")]
    pub fn with_sockets<R>(&self, mut f: impl FnMut(std::os::windows::io::BorrowedSocket<'_>) -> R) -> Option<Vec<R>> {
        self.acceptor.with_sockets(|socket| f(std::os::windows::io::AsSocket::as_socket(&*socket)))
    }

    /// The state of the listener.
    pub fn status(&self) -> ListenerStatus {
        self.acceptor.status()
    }

    /// The group of the connections, to drain and count them: its own, unless [`ListenerBuilder::group`] set another.
    #[doc(alias = "handle")]
    #[doc(alias = "stopListening")]
    pub fn group(&self) -> &DrainGroup {
        self.acceptor.group()
    }

    /// The listening sockets, to close them.
    pub(super) fn socket(&self) -> Arc<dyn Drainable> {
        self.acceptor.socket()
    }

    /// Whether a drain takes the backlog, and lets handshakes finish.
    pub(super) fn finishes(&self) -> bool {
        self.acceptor.finishes()
    }

    pub(super) fn set_finishes(&self, finishes: bool) {
        self.acceptor.set_finishes(finishes);
    }

    pub(super) fn policy(&self) -> Arc<Policy> {
        self.acceptor.policy()
    }

    /// The next connection.
    ///
    /// It waits while as many handshakes are unfinished, or as many connections open, as the listener allows; further
    /// connections then wait in the system's backlog (rules: tcp-6, limit-1). The failure of a single connection is
    /// never an error here: the connection is skipped. If the system is out of descriptors or memory, this method
    /// retries after a wait that grows up to one second, until accepting succeeds again (rule: tcp-5).
    /// [`status`](Self::status) shows such failures.
    ///
    /// Several tasks may accept from one listener.
    ///
    /// # Errors
    /// [`Error::Bind`]: the listening socket is no longer usable (it was shut down, or the runtime that it belongs to
    /// has ended). If there are several sockets, the others are closed. Every later call fails too.
    /// [`Error::Draining`]: the [group](Self::group) drains, and the listener is closed; [`Error::blame`] is
    /// [`Blame::Us`](crate::Blame::Us). A call that fails costs the task's budget, so that a loop that continues after
    /// an error does not keep other tasks from running (rule: life-6).
    ///
    /// # Cancel safety
    /// Cancel safe: no connection is lost when the future is dropped (rule: tcp-7).
    pub async fn accept(&self) -> Result<Incoming, Error> {
        let (accepted, permits) = self.acceptor.accept().await?;
        let connection = accepted.into_connection(self.acceptor.policy());
        let unfinished = permits.hand_to(&connection.control());
        Ok(Incoming::new(connection, unfinished, self.acceptor.finishes(), self.acceptor.gate()))
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("local_addrs", &self.local).field("status", &self.status()).finish()
    }
}

impl ListenerBuilder {
    /// Opens the listener, with a socket for each of the addresses. If the port is 0, the first address gets any free
    /// port, and the others the same one.
    ///
    /// An address that this computer does not have, or whose family is switched off, is skipped if another one can be
    /// used: `localhost` often has an IPv6 address where IPv6 is off. Any other failure is an error, and then no socket
    /// stays open.
    ///
    /// On Unix `SO_REUSEADDR` is set, so that a restarted service gets its port back at once. On Windows the option has
    /// another meaning, so it is not set.
    ///
    /// # Errors
    /// [`Error::Bind`] with the address and the system's error: the port is in use, or not permitted (rule: tcp-8). If
    /// the name does not resolve, [`Error::Ended`] with the resolver's error. [`Error::blame`] is the system.
    ///
    /// # Cancel safety
    /// Dropping the future leaves no socket open.
    ///
    /// # Panics
    /// Outside of a tokio runtime with I/O enabled.
    pub async fn bind(self, addr: impl ToSocketAddrs) -> Result<Listener, Error> {
        let addrs: Vec<SocketAddr> = lookup_host(addr).await?.collect();
        let opened = self.open_all(&addrs).and_then(|sockets| self.take(sockets, Origin::BoundHere));
        if opened.is_err() {
            // rule: life-6. The next call may fail at once too, so a failed call costs budget.
            consume_budget().await;
        }
        opened
    }

    /// Opens this many listeners on the same addresses, one for each worker, with [`reuse_port`](Self::reuse_port).
    /// They share the group, the policy and the limits (rule: limit-4).
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    ///
    /// # Cancel safety
    /// Dropping the future leaves no socket open.
    ///
    /// # Panics
    /// Outside of a tokio runtime with I/O enabled.
    pub async fn bind_workers(self, workers: usize, addr: impl ToSocketAddrs) -> Result<Vec<Listener>, Error> {
        let shared = Some(self.limits());
        let each = Self { shared, ..self }.reuse_port(true);
        let first = each.clone().bind(addr).await?;
        let addrs = first.local.clone();
        let mut listeners = vec![first];
        for _ in 1..workers {
            listeners.push(each.clone().bind(&addrs[..]).await?);
        }
        Ok(listeners)
    }

    /// Takes over a socket that already listens. Its address and its backlog stay as they are.
    ///
    /// Other processes may hold the socket too: a service manager, a parent, the next version of the service. So we set
    /// it to non-blocking mode, which they share with us, and change nothing else (rule: tcp-10). A drain ends waiting
    /// accepts and closes our descriptor. The socket keeps listening for its other holders, and clients in its backlog
    /// wait for them. If nobody else holds the socket, this closes it.
    ///
    /// # Errors
    /// The system's error if the socket cannot be used. The creator of the socket caused it.
    ///
    /// # Panics
    /// Outside of a tokio runtime with I/O enabled.
    pub fn from_std(self, socket: std::net::TcpListener) -> Result<Listener, Error> {
        // rule: tcp-10. We do not change the options of a socket that others hold, so `TCP_NODELAY` is set on each
        // accepted socket.
        self.take(vec![(socket, false)], Origin::HandedIn)
    }

    /// As [`from_std`](Self::from_std), for several sockets: one listener accepts from all of them.
    ///
    /// # Errors
    /// As [`from_std`](Self::from_std); also if there is no socket.
    ///
    /// # Panics
    /// Outside of a tokio runtime with I/O enabled.
    pub fn from_std_all(self, sockets: impl IntoIterator<Item = std::net::TcpListener>) -> Result<Listener, Error> {
        let sockets: Vec<_> = sockets.into_iter().map(|socket| (socket, false)).collect();
        if sockets.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "there is no socket to accept from").into());
        }
        self.take(sockets, Origin::HandedIn)
    }

    fn take(self, sockets: Vec<Opened>, origin: Origin) -> Result<Listener, Error> {
        let (listening, local) = Listening::new(sockets, origin)?;
        let addr = local[0].into();
        Ok(Listener { acceptor: Acceptor::new(listening, addr, self), local })
    }
}

#[cfg(test)]
mod several;
#[cfg(test)]
mod tests;
