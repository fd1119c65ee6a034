//! Errors of a change between plaintext and TLS.

use std::error::Error as StdError;
use std::fmt;

use super::{Blame, DialogueError, Reason};

/// Why `start_tls` or `stop_tls` failed (rule: upgrade-5). Unless the error says that the connection ended, nothing has
/// changed.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum UpgradeError {
    /// An earlier upgrade was started, and its future was dropped before it finished.
    InProgress,
    /// Our send half has ended, after `close_write` or `close`.
    SendClosed,
    /// The peer's send half has ended.
    PeerEnded,
    /// `stop_tls` was called on a transport that is in plaintext.
    NotSecure,
    /// `stop_tls` waited for the peer's close_notify, but the peer kept sending data. The connection has ended.
    NoEnd {
        /// The number of bytes that came.
        bytes: usize,
    },
    /// Before the upgrade, the peer sent plaintext that the application has not read, and the policy refuses such
    /// bytes. The connection has ended (rule: upgrade-2).
    Leftover {
        /// The number of refused bytes.
        count: usize,
    },
    /// The connection already has as many TLS sessions as [`Policy::max_layers`](crate::Policy::max_layers) allows
    /// (rule: upgrade-12).
    TooManyLayers {
        /// The limit of the policy.
        limit: usize,
    },
    /// The plaintext dialogue before TLS did not lead to TLS (feature `starttls`).
    Dialogue(DialogueError),
    /// The connection ended before or during the upgrade.
    Failed(Reason),
}

impl UpgradeError {
    /// The party that caused the error.
    pub fn blame(&self) -> Blame {
        match self {
            Self::InProgress | Self::SendClosed | Self::NotSecure | Self::TooManyLayers { .. } => Blame::Us,
            Self::PeerEnded | Self::NoEnd { .. } | Self::Leftover { .. } => Blame::Peer,
            Self::Dialogue(error) => error.blame(),
            Self::Failed(reason) => reason.blame(),
        }
    }
}

impl fmt::Display for UpgradeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InProgress => f.write_str("another upgrade is under way"),
            Self::SendClosed => f.write_str("our send half has ended"),
            Self::PeerEnded => f.write_str("the peer's send half has ended"),
            Self::NotSecure => f.write_str("the transport is in plaintext"),
            Self::NoEnd { bytes } => write!(f, "the peer sent {bytes} bytes instead of its close_notify"),
            Self::Leftover { count } => {
                write!(f, "{count} bytes of plaintext were received before the upgrade and are refused")
            }
            Self::TooManyLayers { limit } => {
                write!(f, "too many layers: the policy allows {limit} TLS sessions on one connection")
            }
            Self::Dialogue(error) => error.fmt(f),
            Self::Failed(reason) => reason.fmt(f),
        }
    }
}

impl StdError for UpgradeError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Failed(reason) => reason.source(),
            Self::Dialogue(error) => error.source(),
            Self::InProgress
            | Self::SendClosed
            | Self::PeerEnded
            | Self::NotSecure
            | Self::NoEnd { .. }
            | Self::Leftover { .. }
            | Self::TooManyLayers { .. } => None,
        }
    }
}
