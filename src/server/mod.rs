//! Listening: accepting connections, limiting them, and surviving failures of accept.

mod accept_error;
pub(crate) mod acceptor;
mod closable_socket;
mod handshakes;
pub(crate) mod incoming;
pub(crate) mod limits;
pub(crate) mod listener;
pub(crate) mod opening;
mod peers;
#[cfg(feature = "proxy")]
mod proxied;
pub(crate) mod tls_listener;
