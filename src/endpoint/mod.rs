//! Endpoint strings: `tls:example.org:443` and the like, read and printed, connected to and listened on.

#[cfg(feature = "tokio")]
pub(crate) mod open;
pub(crate) mod parse;
