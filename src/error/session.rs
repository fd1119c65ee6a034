//! Errors of requests for facts about a TLS session.

use std::error::Error as StdError;
use std::fmt;
use std::io;

use super::Blame;
use crate::escape::printable;

/// Why a requested fact of a TLS session is not available: a name of the peer, a channel binding, or keying material.
/// The connection itself is not affected.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum SessionError {
    /// There is no TLS session, or its handshake is not done.
    NotSecured,
    /// The certificate, or the requested extension of it, cannot be parsed. Treat it as a certificate without names.
    UnreadableCertificate,
    /// The certificate has more subject alternative names than this crate parses.
    TooManyNames {
        /// The limit.
        limit: usize,
    },
    /// `tls-server-end-point` needs the server's certificate. A server does not know its own certificate if a resolver
    /// of the application chose it, or if the configuration came from rustls.
    NoServerCertificate,
    /// RFC 5929 defines no `tls-server-end-point` for a certificate whose signature uses no hash function, or several.
    NoHashFunction {
        /// The signature algorithm of the certificate: its name, or its object identifier.
        algorithm: String,
    },
    /// Neither the crypto provider nor the library of the enabled feature has the hash function of the certificate's
    /// signature.
    UnsupportedHash(&'static str),
    /// The session is TLS 1.2 without the extended master secret (RFC 7627). Two connections may then have the same
    /// secret, so nothing may be exported from it. The peer is too old, or has the extension turned off.
    NoExtendedMasterSecret,
    /// Another library did the handshake of this TLS 1.2 session, so it is unknown whether the session has the extended
    /// master secret.
    UnknownMasterSecret,
    /// The express engine has no secret to export from, because the configuration was not made by `express()`.
    NoExporter,
    /// The arguments of an export are not allowed: a label that TLS itself uses or that is too long, a context of more
    /// than 65,535 bytes, or a length that is 0 or too large.
    BadExport(&'static str),
    /// rustls refused the export, for example because the session has failed.
    Export(rustls::Error),
}

impl SessionError {
    /// The party that caused the error.
    pub fn blame(&self) -> Blame {
        match self {
            Self::UnreadableCertificate | Self::TooManyNames { .. } | Self::NoExtendedMasterSecret => Blame::PeerTls,
            Self::NotSecured
            | Self::NoServerCertificate
            | Self::NoHashFunction { .. }
            | Self::UnsupportedHash(_)
            | Self::UnknownMasterSecret
            | Self::NoExporter
            | Self::BadExport(_)
            | Self::Export(_) => Blame::Us,
        }
    }

    pub(super) fn io_kind(&self) -> io::ErrorKind {
        match self {
            Self::UnreadableCertificate | Self::TooManyNames { .. } => io::ErrorKind::InvalidData,
            Self::NotSecured => io::ErrorKind::NotConnected,
            Self::BadExport(_) => io::ErrorKind::InvalidInput,
            Self::NoServerCertificate
            | Self::NoHashFunction { .. }
            | Self::UnsupportedHash(_)
            | Self::NoExtendedMasterSecret
            | Self::UnknownMasterSecret
            | Self::NoExporter => io::ErrorKind::Unsupported,
            Self::Export(_) => io::ErrorKind::Other,
        }
    }
}

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSecured => f.write_str("there is no TLS session, or its handshake is not done"),
            Self::UnreadableCertificate => f.write_str("the certificate, or its list of names, cannot be read"),
            Self::TooManyNames { limit } => write!(f, "the certificate has more than {limit} alternative names"),
            Self::NoServerCertificate => f.write_str("the certificate of the server is not known"),
            Self::NoHashFunction { algorithm } => {
                let algorithm = printable(algorithm);
                write!(f, "tls-server-end-point is not defined for a certificate that is signed by {algorithm}")
            }
            Self::UnsupportedHash(name) => write!(f, "the crypto provider does not have {name}"),
            Self::NoExtendedMasterSecret => {
                f.write_str("nothing may be exported from a TLS 1.2 session without the extended master secret")
            }
            Self::UnknownMasterSecret => f.write_str(
                "nothing is exported from a TLS 1.2 session of another library: it may lack the extended master secret",
            ),
            Self::NoExporter => f.write_str("the configuration of this session keeps no secret to export from"),
            Self::BadExport(why) => write!(f, "no keying material can be exported: {why}"),
            Self::Export(_) => f.write_str("no keying material could be exported"),
        }
    }
}

impl StdError for SessionError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Export(error) => Some(error),
            Self::NotSecured
            | Self::UnreadableCertificate
            | Self::TooManyNames { .. }
            | Self::NoServerCertificate
            | Self::NoHashFunction { .. }
            | Self::UnsupportedHash(_)
            | Self::NoExtendedMasterSecret
            | Self::UnknownMasterSecret
            | Self::NoExporter
            | Self::BadExport(_) => None,
        }
    }
}

impl From<SessionError> for super::Error {
    fn from(error: SessionError) -> Self {
        Self::Session(error)
    }
}
