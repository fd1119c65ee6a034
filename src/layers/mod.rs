//! The layers of a connection: TCP or another stream at the bottom, TLS sessions on top.

pub(crate) mod stream;
pub(crate) mod tcp;
pub(crate) mod tls;
pub(crate) mod upgradable;
