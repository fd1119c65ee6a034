//! The listening TCP sockets of one listener.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};

use super::backlog;
use super::listening_socket::{Listens, Origin};
use super::opening::Opened;
use crate::error::Error;
use crate::layers::tcp::TcpConnection;
use crate::policy::Policy;

/// The listening sockets, of which there is at least one.
pub(super) struct Listening {
    sockets: Vec<ListeningSocket>,
    /// The socket that is polled first. It changes, so that a busy socket does not delay the others.
    next: AtomicUsize,
    /// The application has got the descriptors, and may have duplicated them.
    is_lent: AtomicBool,
}

/// A listening TCP socket, and what is known in advance about the sockets that are accepted from it.
struct ListeningSocket {
    socket: TcpListener,
    /// Our address on each accepted socket; `None` if the system must be asked.
    host: Option<SocketAddr>,
    /// Whether accepted sockets have `TCP_NODELAY` set from the start.
    gives_nodelay: bool,
    /// We have opened the socket. Otherwise it was passed in.
    is_ours: bool,
}

/// A connection that was taken out of the backlog.
pub(super) struct AcceptedSocket {
    stream: TcpStream,
    host: SocketAddr,
    peer: SocketAddr,
    /// `TCP_NODELAY` is set already.
    has_nodelay: bool,
}

impl Listening {
    /// Takes these sockets, and returns their addresses too.
    pub(super) fn new(opened: Vec<Opened>, origin: Origin) -> Result<(Self, Vec<SocketAddr>), Error> {
        let (mut local, mut sockets) = (Vec::new(), Vec::new());
        for (socket, gives_nodelay) in opened {
            socket.set_nonblocking(true)?;
            let addr = socket.local_addr()?;
            let host = host_of_accepted(addr, origin);
            let is_ours = origin == Origin::BoundHere;
            sockets.push(ListeningSocket { socket: TcpListener::from_std(socket)?, host, gives_nodelay, is_ours });
            local.push(addr);
        }
        Ok((Self { sockets, next: AtomicUsize::new(0), is_lent: AtomicBool::new(false) }, local))
    }
}

impl AcceptedSocket {
    pub(super) fn into_connection(self, policy: Arc<Policy>) -> TcpConnection {
        let take_over = if self.has_nodelay { TcpConnection::with_nodelay } else { TcpConnection::between };
        take_over(self.stream, self.host, self.peer, policy)
    }
}

/// As [`AcceptedSocket`], outside of a runtime.
pub(super) struct WaitingSocket {
    waiting: backlog::Waiting,
    host: Option<SocketAddr>,
    /// `TCP_NODELAY` is set already.
    has_nodelay: bool,
}

impl ListeningSocket {
    fn take_all(&self) -> impl Iterator<Item = WaitingSocket> {
        let (host, has_nodelay) = (self.host, self.gives_nodelay);
        let all = backlog::take_all(&SockRef::from(&self.socket));
        all.into_iter().map(move |waiting| WaitingSocket { waiting, host, has_nodelay })
    }
}

impl Listens for Listening {
    type Accepted = AcceptedSocket;
    type Waiting = WaitingSocket;

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<AcceptedSocket>> {
        let first = if self.sockets.len() > 1 { self.next.fetch_add(1, Ordering::Relaxed) } else { 0 };
        for at in 0..self.sockets.len() {
            let from = &self.sockets[(first + at) % self.sockets.len()];
            let Poll::Ready(accepted) = from.socket.poll_accept(cx) else { continue };
            let (stream, peer) = accepted?;
            // A connection is skipped if the system no longer knows even our own address (rule: tcp-1).
            let host = from.host.map_or_else(|| stream.local_addr(), Ok)?;
            return Poll::Ready(Ok(AcceptedSocket { stream, host, peer, has_nodelay: from.gives_nodelay }));
        }
        Poll::Pending
    }

    fn tcp(accepted: &AcceptedSocket) -> Option<(&TcpStream, SocketAddr)> {
        Some((&accepted.stream, accepted.peer))
    }

    fn lend(&self) {
        self.is_lent.store(true, Ordering::Relaxed);
    }

    fn take_backlog(&mut self) -> Vec<WaitingSocket> {
        let is_lent = *self.is_lent.get_mut();
        let is_quiet =
            |from: &ListeningSocket| from.is_ours && !is_lent && backlog::ignore_new(&SockRef::from(&from.socket));
        let quiet: Vec<bool> = self.sockets.iter().map(is_quiet).collect();
        let mut all: Vec<_> = self.sockets.iter().flat_map(ListeningSocket::take_all).collect();
        if quiet.contains(&true) {
            // New clients are ignored from now on, but another CPU may still be adding a connection to the backlog. So
            // the backlog is taken a second time.
            std::thread::sleep(Duration::from_millis(1));
            all.extend(self.sockets.iter().flat_map(ListeningSocket::take_all));
        }
        all
    }

    fn resume(waiting: WaitingSocket) -> io::Result<AcceptedSocket> {
        let WaitingSocket { waiting: backlog::Waiting { stream, peer }, host, has_nodelay } = waiting;
        let stream = TcpStream::from_std(stream)?;
        let host = host.map_or_else(|| stream.local_addr(), Ok)?;
        Ok(AcceptedSocket { stream, host, peer, has_nodelay })
    }

    fn reset_on_drop(waiting: &WaitingSocket) {
        let _ = SockRef::from(&waiting.waiting.stream).set_linger(Some(Duration::ZERO));
    }

    fn sockets(&self) -> Vec<SockRef<'_>> {
        self.sockets.iter().map(|one| SockRef::from(&one.socket)).collect()
    }
}

/// Our address on each connection that is accepted from this listening socket. `None` if it may differ between
/// connections: a socket that was passed in may be transparent (`IP_TRANSPARENT`, ip(7)), and then accepts
/// connections to any address.
pub(super) fn host_of_accepted(listener: SocketAddr, origin: Origin) -> Option<SocketAddr> {
    let is_own = match origin {
        Origin::BoundHere => !listener.ip().to_canonical().is_unspecified(),
        Origin::HandedIn => false,
    };
    is_own.then_some(listener)
}
