//! The listeners that a `TlsListener` accepts from.

use std::fmt;
use std::future::{Future, ready};
use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::header_gate::HeaderGate;
use super::listener::Listener;
use crate::address::Address;
use crate::conn::control::Control;
use crate::conn::group::{DrainGroup, Drainable};
use crate::error::Error;
use crate::layers::tcp::TcpConnection;
use crate::policy::Policy;
use crate::transport::Transport;
use crate::transport::layer::Token;

/// Any listener of this crate: a [`Listener`], or the [`EndpointListener`](crate::EndpointListener) of an endpoint
/// string, also on a Unix socket. A [`TlsListener`](crate::TlsListener) accepts from it.
///
/// The trait is sealed: only listeners of this crate implement it.
pub trait AnyListener: Send + Sync + 'static {
    /// The connections of the listener: in plaintext, or as the endpoint string describes them.
    type Connection: Transport;
    #[doc(hidden)]
    type Begun: Begun<Connection = Self::Connection>;

    #[doc(hidden)]
    fn accept_begun(&self, _: Token) -> impl Future<Output = Result<Fresh<Self::Begun>, Error>> + Send;

    #[doc(hidden)]
    fn facts(&self, _: Token) -> Facts;

    /// Whether a drain takes the backlog, and lets handshakes finish.
    #[doc(hidden)]
    fn finishes(&self, _: Token) -> bool;

    #[doc(hidden)]
    fn set_finishes(&self, _: Token, finishes: bool);
}

/// The parts of a listener that stay the same for all of its connections.
pub struct Facts {
    pub(crate) local: Address,
    pub(crate) group: DrainGroup,
    pub(crate) policy: Arc<Policy>,
    /// The listening sockets, so that the listener can close them.
    pub(crate) socket: Arc<dyn Drainable>,
}

impl fmt::Debug for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Facts").field("local", &self.local).field("group", &self.group).finish_non_exhaustive()
    }
}

/// An accepted connection. Nothing was read from it.
#[derive(Debug)]
pub struct Fresh<B> {
    pub(crate) control: Control,
    /// The deadline of the handshake.
    pub(crate) deadline: Option<Instant>,
    /// The connection counts as unfinished while this permit is held.
    pub(crate) unfinished: OwnedSemaphorePermit,
    /// Reads the PROXY header, if the listener expects headers.
    pub(crate) gate: Option<Arc<HeaderGate>>,
    pub(crate) begun: B,
}

/// An accepted socket, from which the listener makes the connection that its settings describe.
// This type is public because the public trait `AnyListener` names it.
#[allow(unreachable_pub, reason = "Rust 1.85 warns here, and later versions do not")]
pub trait Begun: Send + 'static {
    type Connection;

    /// Reads the PROXY header at the start of the connection.
    #[doc(hidden)]
    fn pass(&mut self, gate: &HeaderGate) -> impl Future<Output = Result<(), Error>> + Send;

    /// Makes the connection, and does the handshake that the endpoint string asks for.
    fn finish(self, deadline: Option<Instant>) -> impl Future<Output = Result<Self::Connection, Error>> + Send;
}

impl AnyListener for Listener {
    type Connection = TcpConnection;
    type Begun = TcpConnection;

    async fn accept_begun(&self, _: Token) -> Result<Fresh<TcpConnection>, Error> {
        let incoming = self.accept().await?;
        let (control, gate) = (incoming.control(), incoming.gate());
        let (deadline, unfinished, begun) = incoming.into_parts();
        Ok(Fresh { control, deadline, unfinished, gate, begun })
    }

    fn facts(&self, _: Token) -> Facts {
        let (local, group) = (self.local_addr(), self.group().clone());
        Facts { local, group, policy: self.policy(), socket: self.socket() }
    }

    fn finishes(&self, _: Token) -> bool {
        self.finishes()
    }

    fn set_finishes(&self, _: Token, finishes: bool) {
        self.set_finishes(finishes);
    }
}

impl Begun for TcpConnection {
    type Connection = Self;

    fn pass(&mut self, gate: &HeaderGate) -> impl Future<Output = Result<(), Error>> + Send {
        gate.pass(self)
    }

    fn finish(self, _: Option<Instant>) -> impl Future<Output = Result<Self, Error>> + Send {
        ready(Ok(self))
    }
}
