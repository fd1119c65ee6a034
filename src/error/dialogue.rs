//! Errors of the plaintext dialogue before TLS.

use std::error::Error as StdError;
use std::fmt;

use super::Blame;
use crate::escape::escaped;

/// Why the plaintext dialogue before TLS did not lead to TLS. The [`Blame`] is always the peer's.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DialogueError {
    /// The peer refused, with these words. The connection is still in plaintext and can be used further.
    Declined(PeerWords),
    /// The server does not list TLS among its features. The connection is still in plaintext and can be used further.
    NotOffered,
    /// The protocol does not allow these bytes here. The connection has ended.
    Unexpected(PeerWords),
    /// These bytes came before the question that they seem to answer, or before the go-ahead. An attacker may have
    /// injected them (rule: upgrade-2). The connection has ended.
    Early(PeerWords),
    /// The peer's part of the dialogue is longer than the limit, or does not end. The connection has ended.
    TooLong {
        /// The largest number of bytes that the peer may send before TLS.
        limit: usize,
    },
    /// The client keeps sending commands without requesting TLS. The connection has ended.
    TooManyCommands {
        /// The largest number of commands that a client may send before TLS.
        limit: usize,
    },
    /// The client ended the dialogue in plaintext with a command of its protocol, for example `QUIT`. We have answered
    /// it, and the connection can be closed.
    Left,
}

impl DialogueError {
    /// The party that caused the error.
    pub fn blame(&self) -> Blame {
        Blame::Peer
    }

    /// Whether both sides are in the same state, so that the connection can be used further in plaintext, or can be
    /// closed in order. Otherwise the connection has ended with this error.
    pub fn may_go_on(&self) -> bool {
        match self {
            Self::Declined(_) | Self::NotOffered | Self::Left => true,
            Self::Unexpected(_) | Self::Early(_) | Self::TooLong { .. } | Self::TooManyCommands { .. } => false,
        }
    }
}

impl fmt::Display for DialogueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Declined(words) => write!(f, "the peer did not agree to TLS: it said {words}"),
            Self::NotOffered => f.write_str("the peer did not agree to TLS: its list of extensions has no STARTTLS"),
            Self::Unexpected(words) => {
                write!(f, "the peer did not agree to TLS: the protocol does not allow {words} here")
            }
            Self::Early(words) => {
                write!(f, "the peer sent bytes before it was their turn, which are refused before TLS: {words}")
            }
            Self::TooLong { limit } => write!(f, "the peer sent more than {limit} bytes before TLS"),
            Self::TooManyCommands { limit } => {
                write!(f, "the client sent {limit} commands in plaintext, and did not ask for TLS")
            }
            Self::Left => f.write_str("the client left before it asked for TLS"),
        }
    }
}

impl StdError for DialogueError {}

/// The peer's words in an error: at most 200 bytes of them. `Display` escapes them and puts them in quotes (rule:
/// tcp-11).
#[derive(Clone, PartialEq, Eq)]
pub struct PeerWords {
    bytes: Vec<u8>,
    /// The peer sent more than is kept.
    is_cut: bool,
}

impl PeerWords {
    #[cfg(feature = "starttls")]
    pub(crate) fn new(words: &[u8]) -> Self {
        const SHOWN: usize = 200;
        let shown = words.get(..SHOWN).unwrap_or(words);
        Self { bytes: shown.to_vec(), is_cut: shown.len() < words.len() }
    }

    /// The bytes as the peer sent them, up to the limit.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Display for PeerWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"{}", escaped(&self.bytes), if self.is_cut { "..." } else { "" })
    }
}

impl fmt::Debug for PeerWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
