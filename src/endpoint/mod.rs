//! Endpoint strings such as `tls:example.org:443`: parsing, printing, connecting and listening.

#[cfg(feature = "tokio")]
pub(crate) mod open;
pub(crate) mod parse;
