//! The listening socket of an endpoint.

use super::unix;
use crate::server::listener::Listener;

// Without Unix sockets the second variant is empty.
#[cfg_attr(not(unix), allow(clippy::large_enum_variant))]
pub(super) enum Socket {
    Inet(Listener),
    Unix(unix::Listening),
}
