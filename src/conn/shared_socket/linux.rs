//! The reset on Linux, which leaves the socket to its holders.

use std::ops::Deref;
use std::task::Context;

use tokio::net::TcpStream;

use crate::conn::socket::Options;
use crate::conn::waiting::Waiting;

pub(crate) struct SharedSocket {
    stream: TcpStream,
    /// The tasks that wait on the socket, for an end that the system does not report to them: see
    /// [`park`](SharedSocket::park).
    waiting: Waiting,
}

/// A reference to the socket for one call.
pub(crate) struct SocketRef<'a>(&'a TcpStream);

impl Deref for SocketRef<'_> {
    type Target = TcpStream;

    #[inline]
    fn deref(&self) -> &TcpStream {
        self.0
    }
}

impl SharedSocket {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self { stream, waiting: Waiting::default() }
    }

    /// The socket. Always `Some` on Linux.
    #[inline]
    pub(crate) fn get(&self) -> Option<SocketRef<'_>> {
        Some(SocketRef(&self.stream))
    }

    /// As `get`, for a half that may have to wait for the socket. The system wakes the half's task if the socket is
    /// reset.
    #[inline]
    pub(crate) fn get_for(&self, _half: usize, _: &mut Context<'_>) -> Option<SocketRef<'_>> {
        self.get()
    }

    /// Notes a task that has found nothing to do, so that [`wake`](Self::wake) wakes it.
    pub(crate) fn park(&self, half: usize, cx: &mut Context<'_>) {
        self.waiting.park(half, cx);
    }

    /// Wakes the tasks that wait on the socket.
    pub(crate) fn wake(&self) {
        self.waiting.wake();
    }

    /// Sends RST at once, even if other tasks wait on the socket (rules: abort-1, abort-4).
    ///
    /// Connecting the socket to an unspecified address (`AF_UNSPEC`) dissolves the connection in the same way as a
    /// close with a linger time of zero, and wakes every waiting task. The descriptor stays open and is not connected
    /// any more.
    pub(crate) fn reset(&self) {
        Options::of(&self.stream).reset_on_drop();
        let _ = rustix::net::connect_unspec(&self.stream);
    }
}
