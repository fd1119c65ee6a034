//! TCP, TLS and STARTTLS-upgradable transports that end exactly as the application meant them to.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod config;
pub mod core;
mod endpoint;
mod error;
mod policy;

#[cfg(feature = "tokio")]
mod address;
#[cfg(feature = "tokio")]
mod close;
#[cfg(feature = "tokio")]
mod connect;
#[cfg(feature = "tokio")]
mod control;
#[cfg(feature = "tokio")]
mod deadline;
#[cfg(feature = "tokio")]
mod idle;
#[cfg(feature = "tokio")]
mod layer;
#[cfg(feature = "tokio")]
mod listen;
#[cfg(feature = "tokio")]
mod pump;
#[cfg(feature = "tokio")]
mod socket;
#[cfg(feature = "tokio")]
mod stream;
#[cfg(feature = "tokio")]
mod tcp;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(feature = "tokio")]
mod tls;
#[cfg(feature = "tokio")]
mod transport;
#[cfg(feature = "tokio")]
mod upgrade;
#[cfg(feature = "tokio")]
mod verbs;

pub use config::{ClientTls, ServerTls, TlsVersion};
pub use core::facts::SessionFacts;
pub use core::half::{End, RecvHalf, SendHalf};
pub use endpoint::{Endpoint, EndpointKind};
pub use error::{
    BindError, Blame, ConfigError, ConfigProblem, ConnectAttempt, ConnectError, EndpointError, Error, Phase, Reason,
    TlsError, UpgradeError,
};
pub use policy::{Leftover, Policy, Role, Truncation, Watermarks};
pub use rustls;

#[cfg(feature = "tokio")]
pub use self::{
    address::Address,
    close::{Bound, Close, CloseReport, FloorKind, FloorReport, Received},
    connect::Connector,
    control::Control,
    listen::{Incoming, Listener, ListenerBuilder, ListenerStatus},
    socket::Keepalive,
    stream::Stream,
    tcp::{TcpConnection, TcpReadHalf, TcpWriteHalf},
    tls::{TlsConnection, TlsReadHalf, TlsWriteHalf},
    transport::{Status, TcpTransport, TlsTransport, Transport, UpgradableTransport},
    upgrade::{StartTls, Starting, Stopping, UpgradableConnection},
    verbs::{CloseWrite, Corked, WriteSequence},
};
