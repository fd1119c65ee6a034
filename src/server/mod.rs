//! Listening: accepting connections, limiting them, and surviving failures of accept.

mod accept_error;
mod accepting;
pub(crate) mod acceptor;
mod client_hello;
mod closable_socket;
#[cfg(feature = "proxy")]
mod forwarded;
mod handshakes;
pub(crate) mod incoming;
pub(crate) mod limits;
pub(crate) mod listener;
pub(crate) mod opening;
mod peers;
#[cfg(feature = "proxy")]
mod proxied;
mod ready;
pub(crate) mod status;
mod tls_by_hello;
pub(crate) mod tls_listener;
