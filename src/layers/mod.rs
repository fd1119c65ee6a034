//! The layers that connections are made of: TCP or another stream at the bottom, TLS sessions on top.

pub(crate) mod stream;
pub(crate) mod tcp;
pub(crate) mod tls;
pub(crate) mod upgradable;
