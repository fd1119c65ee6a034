//! A reset that does not take the socket from its holders.

use std::ops::Deref;
use std::task::Context;

use tokio::net::TcpStream;

use crate::conn::socket::Options;

pub(crate) struct SharedSocket(TcpStream);

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
        Self(stream)
    }

    /// Always `Some` on Linux.
    #[inline]
    pub(crate) fn get(&self) -> Option<SocketRef<'_>> {
        Some(SocketRef(&self.0))
    }

    /// The same for a half that may have to wait for the socket: the system wakes it if the socket is reset.
    #[inline]
    pub(crate) fn get_for(&self, _half: usize, _: &mut Context<'_>) -> Option<SocketRef<'_>> {
        self.get()
    }

    /// Sends RST at once, although other tasks may wait on the socket (rules: abort-1, abort-4).
    ///
    /// Connecting to "no address" dissolves the connection the way a close with linger zero would, and wakes every waiter.
    /// The descriptor stays, connected to nothing.
    pub(crate) fn reset(&self) {
        Options::of(&self.0).reset_on_drop();
        let _ = rustix::net::connect_unspec(&self.0);
    }
}
