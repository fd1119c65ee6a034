//! Checks which keying material may be exported from a session (RFC 5705; RFC 8446, section 7.5).

use rustls::{CommonState, ProtocolVersion};

use super::hello::Hello;
use crate::error::SessionError;

/// Whether the secrets of a session are unique to this session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::core) enum Master {
    /// The handshake is not done.
    #[default]
    None,
    /// TLS 1.3, or TLS 1.2 with the extended master secret.
    Unique,
    /// TLS 1.2 without the extended master secret. RFC 7627, section 5.4: it "MUST NOT export any key material".
    Shared,
    /// TLS 1.2, with a handshake that another library did.
    Unknown,
}

impl Master {
    /// For a finished handshake. `hello` is the peer's hello.
    pub(super) fn of(common: &CommonState, hello: &Hello) -> Self {
        match (common.protocol_version(), hello.seen().map(|seen| seen.extended_master_secret)) {
            (Some(ProtocolVersion::TLSv1_3), _) | (_, Some(true)) => Self::Unique,
            (_, Some(false)) => Self::Shared,
            (_, None) => Self::Unknown,
        }
    }

    pub(super) fn check(self) -> Result<(), SessionError> {
        match self {
            Self::None => Err(SessionError::NotSecured),
            Self::Unique => Ok(()),
            Self::Shared => Err(SessionError::NoExtendedMasterSecret),
            Self::Unknown => Err(SessionError::UnknownMasterSecret),
        }
    }
}

/// The longest output that every cipher suite supports: 255 blocks of SHA-256 (RFC 5869).
const MAX_OUTPUT: usize = 255 * 32;
/// TLS 1.3 puts "tls13 " before the label, and encodes the length of both in one byte.
const MAX_LABEL: usize = 255 - 6;

/// The labels of TLS itself: with them, TLS 1.2 would export the session keys (RFC 5705, section 4).
const RESERVED: [&[u8]; 5] =
    [b"client finished", b"server finished", b"master secret", b"extended master secret", b"key expansion"];

/// Checks the arguments, because rustls panics if a context or a label is too long.
pub(super) fn check_arguments(out: &[u8], label: &[u8], context: Option<&[u8]>) -> Result<(), SessionError> {
    let problem = match (out.len(), label) {
        (0, _) => "no bytes were asked for",
        (len, _) if len > MAX_OUTPUT => "more than 8160 bytes were asked for",
        (_, []) => "the label is empty",
        (_, label) if label.len() > MAX_LABEL => "the label is longer than 249 bytes",
        (_, label) if RESERVED.contains(&label) => "the label is one of TLS itself",
        _ if context.is_some_and(|context| context.len() > 0xffff) => "the context is longer than 65,535 bytes",
        _ => return Ok(()),
    };
    Err(SessionError::BadExport(problem))
}
