//! TCP, TLS and STARTTLS-upgradable transports that end exactly as the application meant them to.

pub mod core;
mod error;
mod policy;

pub use error::{
    BindError, Blame, ConfigError, ConfigProblem, ConnectAttempt, ConnectError, EndpointError, Error, Phase, Reason,
    TlsError, UpgradeError,
};
pub use policy::{Leftover, Policy, Role, Truncation, Watermarks};
pub use rustls;
