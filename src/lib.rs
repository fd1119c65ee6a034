//! TCP, TLS and STARTTLS-upgradable transports that end exactly as the application meant them to.

#![cfg_attr(test, allow(clippy::unwrap_used))]

#[cfg(feature = "tokio")]
mod connect;
#[cfg(feature = "tokio")]
mod deadline;
mod endpoint;
mod error;
#[cfg(feature = "tokio")]
mod listen;
mod policy;
#[cfg(feature = "tokio")]
mod tcp;

#[cfg(feature = "tokio")]
pub use connect::Connector;
pub use endpoint::{Endpoint, EndpointKind};
pub use error::{
    BindError, Blame, ConfigError, ConfigProblem, ConnectAttempt, ConnectError, EndpointError, Error, Phase, Reason,
    TlsError, UpgradeError,
};
#[cfg(feature = "tokio")]
pub use listen::{Incoming, Listener, ListenerBuilder, ListenerStatus};
pub use policy::{Leftover, Policy, Role, Truncation, Watermarks};
pub use rustls;
#[cfg(feature = "tokio")]
pub use tcp::TcpConnection;
