//! The mistakes in a header.

use std::fmt;

use crate::address::Address;
use crate::escape::escaped;

/// A header of the PROXY protocol that is malformed. The fault is with the proxy, or with a peer that pretends to be a
/// proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyHeaderError {
    offset: usize,
    found: String,
    expected: &'static str,
}

impl ProxyHeaderError {
    /// The most bytes of the header that an error shows.
    const SHOWN: usize = 40;

    pub(super) fn new(offset: usize, found: &[u8], expected: &'static str) -> Self {
        let shown = &found[..found.len().min(Self::SHOWN)];
        let cut = if shown.len() < found.len() { "..." } else { "" };
        Self { offset, found: format!("\"{}\"{cut}", escaped(shown)), expected }
    }

    /// An error about a number.
    pub(super) fn number(offset: usize, found: impl fmt::Display, expected: &'static str) -> Self {
        Self { offset, found: found.to_string(), expected }
    }

    /// The position of the mistake, in bytes from the start of the header.
    pub fn offset(&self) -> usize {
        self.offset
    }
}

impl fmt::Display for ProxyHeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { offset, found, expected } = self;
        write!(f, "the PROXY header is malformed at byte {offset}: found {found}, expected {expected}")
    }
}

impl std::error::Error for ProxyHeaderError {}

/// A connection that was refused because of its PROXY header.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProxyError {
    /// The header is malformed.
    Malformed(ProxyHeaderError),
    /// The connection must begin with a header and does not. The most frequent cause: a client has connected directly
    /// to the port that is meant for proxies.
    Missing {
        /// The first bytes of the connection, at most 16.
        found: Vec<u8>,
    },
    /// The peer is not in the trusted networks.
    Untrusted(Address),
    /// The client that the header names has too many connections
    /// (`ListenerBuilder::max_per_peer`).
    Refused {
        /// The client's address.
        client: Address,
        /// The limit.
        max: usize,
    },
}

#[cfg(feature = "tokio")]
impl ProxyError {
    pub(crate) fn missing(received: &[u8]) -> Self {
        Self::Missing { found: received[..received.len().min(16)].to_vec() }
    }
}

impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(error) => error.fmt(f),
            Self::Missing { found } => {
                write!(f, "the connection must begin with a PROXY header, and begins with \"{}\"", escaped(found))
            }
            Self::Untrusted(peer) => {
                write!(f, "{peer} is not in the trusted networks, from which a PROXY header is required")
            }
            Self::Refused { client, max } => write!(f, "{client} has {max} connections already, which is the limit"),
        }
    }
}

impl std::error::Error for ProxyError {}
