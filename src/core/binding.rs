//! Channel bindings (RFC 5056): bytes that both ends of one TLS session know, and that no other session has.

use std::fmt;
use std::sync::Arc;

use rustls::SupportedCipherSuite;
use rustls::crypto::CryptoProvider;
use rustls::crypto::hash::HashAlgorithm;

use crate::certificate::{Certificate, Digest, HashOf};
use crate::error::SessionError;

/// The channel bindings that [`SessionFacts::channel_binding`](crate::SessionFacts::channel_binding) returns.
///
/// `tls-unique` is not offered: it does not exist in TLS 1.3, and is not safe in TLS 1.2 without the extended master
/// secret (RFC 9266, section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ChannelBinding {
    /// `tls-server-end-point` (RFC 5929, section 4): the hash of the server's certificate. The hash function is that of
    /// the certificate's signature, but SHA-256 replaces MD5 and SHA-1. All sessions with the same certificate have the
    /// same value.
    ///
    /// A certificate with an Ed25519 signature has no such value, because that signature uses no hash function in the
    /// sense of RFC 5929. For RSASSA-PSS, the parameters of the signature name the hash function.
    TlsServerEndPoint,
    /// `tls-exporter` (RFC 9266): 32 bytes of exported keying material, another value for each session. In TLS 1.2 it
    /// needs the extended master secret.
    TlsExporter,
}

impl ChannelBinding {
    /// The name in IANA's registry, as SCRAM and GS2 send it: `tls-server-end-point`, `tls-exporter`.
    pub fn name(self) -> &'static str {
        match self {
            Self::TlsServerEndPoint => "tls-server-end-point",
            Self::TlsExporter => "tls-exporter",
        }
    }
}

impl fmt::Display for ChannelBinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// RFC 9266, section 2. The context is empty, which is not the same as no context in TLS 1.2.
pub(super) const EXPORTER_LABEL: &[u8] = b"EXPORTER-Channel-Binding";
pub(super) const EXPORTER_CONTEXT: Option<&[u8]> = Some(&[]);
pub(super) const EXPORTER_LEN: usize = 32;

/// The provider of the configuration, whose cipher suites have hash functions for a certificate. `None` for a session
/// that another library started.
#[derive(Clone)]
pub(super) struct Hashes(pub(super) Option<Arc<CryptoProvider>>);

impl Hashes {
    /// The binding `tls-server-end-point` of this certificate.
    pub(super) fn end_point(&self, certificate: &[u8]) -> Result<Vec<u8>, SessionError> {
        let hash = Certificate::from_der(certificate).and_then(|parsed| parsed.hash());
        match hash.ok_or(SessionError::UnreadableCertificate)? {
            HashOf::One(digest) => self.digest(digest, certificate),
            HashOf::Unknown(name) => Err(SessionError::UnsupportedHash(name)),
            HashOf::Undefined(algorithm) => Err(SessionError::NoHashFunction { algorithm }),
        }
    }

    fn digest(&self, digest: Digest, bytes: &[u8]) -> Result<Vec<u8>, SessionError> {
        let (wanted, name) = match digest {
            Digest::Sha256 => (HashAlgorithm::SHA256, "SHA-256"),
            Digest::Sha384 => (HashAlgorithm::SHA384, "SHA-384"),
            Digest::Sha512 => (HashAlgorithm::SHA512, "SHA-512"),
        };
        let suites = self.0.iter().flat_map(|provider| &provider.cipher_suites);
        let mut hashes = suites.map(|suite| match suite {
            SupportedCipherSuite::Tls12(suite) => suite.common.hash_provider,
            SupportedCipherSuite::Tls13(suite) => suite.common.hash_provider,
        });
        match hashes.find(|hash| hash.algorithm() == wanted) {
            Some(hash) => Ok(hash.hash(bytes).as_ref().to_vec()),
            None => of_library(digest, bytes).ok_or(SessionError::UnsupportedHash(name)),
        }
    }
}

/// Computes SHA-512 with the library of the enabled feature, because no cipher suite of TLS uses SHA-512.
#[cfg(feature = "aws-lc-rs")]
fn of_library(digest: Digest, bytes: &[u8]) -> Option<Vec<u8>> {
    use aws_lc_rs::digest::{SHA256, SHA384, SHA512, digest as hash};
    Some(hash([&SHA256, &SHA384, &SHA512][digest as usize], bytes).as_ref().to_vec())
}

#[cfg(all(feature = "ring", not(feature = "aws-lc-rs")))]
fn of_library(digest: Digest, bytes: &[u8]) -> Option<Vec<u8>> {
    use ring::digest::{SHA256, SHA384, SHA512, digest as hash};
    Some(hash([&SHA256, &SHA384, &SHA512][digest as usize], bytes).as_ref().to_vec())
}

#[cfg(not(any(feature = "aws-lc-rs", feature = "ring")))]
fn of_library(_: Digest, _: &[u8]) -> Option<Vec<u8>> {
    None
}
