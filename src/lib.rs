//! TCP, TLS and STARTTLS-upgradable transports that end exactly as the application meant them to.

pub mod config;
mod error;
mod policy;
#[cfg(feature = "testing")]
pub mod testing;

pub use config::{ClientTls, ServerTls, TlsVersion};
pub use error::{
    BindError, Blame, ConfigError, ConfigProblem, ConnectAttempt, ConnectError, EndpointError, Error, Phase, Reason,
    TlsError, UpgradeError,
};
pub use policy::{Leftover, Policy, Role, Truncation, Watermarks};
pub use rustls;
