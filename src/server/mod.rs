//! Listening: accepting connections, limiting them, and surviving failures of accept.

mod accept_error;
mod accepting;
pub(crate) mod acceptor;
mod backlog;
pub(crate) mod builder;
mod client_hello;
mod closable_socket;
#[cfg(feature = "proxy")]
mod forwarded;
mod handshakes;
#[cfg(feature = "proxy")]
pub(crate) mod header_gate;
#[cfg(not(feature = "proxy"))]
#[path = "no_header_gate.rs"]
pub(crate) mod header_gate;
pub(crate) mod incoming;
pub(crate) mod limits;
pub(crate) mod listener;
mod listening;
pub(crate) mod listening_socket;
mod opening;
mod peers;
#[cfg(feature = "proxy")]
mod proxied;
mod ready;
pub(crate) mod source;
pub(crate) mod status;
#[cfg(feature = "stream")]
pub(crate) mod stream;
pub(crate) mod tls_builder;
#[cfg(feature = "starttls")]
mod tls_by_dialogue;
mod tls_by_hello;
pub(crate) mod tls_listener;
