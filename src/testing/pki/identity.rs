//! A certificate chain with its private key.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use rcgen::{Certificate, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::files::write_file;

/// A certificate chain with its private key, in several formats.
pub struct Identity {
    stem: String,
    chain_pem: String,
    key_pem: String,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Identity {
    pub(super) fn issued(stem: &str, chain: &[Certificate], key: &KeyPair) -> Self {
        let chain_pem: String = chain.iter().map(Certificate::pem).collect();
        Self::from_pem(stem, chain_pem, key.serialize_pem()).expect("what rcgen writes can be read")
    }

    /// `None` if one of the two cannot be parsed.
    pub(super) fn from_pem(stem: &str, chain_pem: String, key_pem: String) -> Option<Self> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(chain_pem.as_bytes()).collect::<Result<_, _>>().ok()?;
        let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).ok()?;
        (!chain.is_empty()).then(|| Self { stem: stem.to_owned(), chain_pem, key_pem, chain, key })
    }

    /// The chain as PEM: the end-entity certificate first, without the root.
    pub fn chain_pem(&self) -> &str {
        &self.chain_pem
    }

    /// The private key as PEM (PKCS#8).
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// The chain as DER: the end-entity certificate first, without the root.
    pub fn chain_der(&self) -> Vec<CertificateDer<'static>> {
        self.chain.clone()
    }

    /// The end-entity certificate as DER.
    pub fn cert_der(&self) -> CertificateDer<'static> {
        self.chain[0].clone()
    }

    /// The private key as DER.
    pub fn key_der(&self) -> PrivateKeyDer<'static> {
        self.key.clone_key()
    }

    /// Writes the chain and the key into a directory that exists, as `server.pem` and `server.key` or as `client.pem`
    /// and `client.key`, and returns both paths. Existing files with these names are replaced. Only the owner can read
    /// the key, from its first byte on (mode 0600; on Windows according to the directory).
    ///
    /// # Errors
    /// The system's error with the file.
    pub fn write_to(&self, dir: impl AsRef<Path>) -> io::Result<(PathBuf, PathBuf)> {
        self.write_as(dir, &self.stem)
    }

    /// As [`write_to`](Self::write_to), as `STEM.pem` and `STEM.key`.
    ///
    /// # Errors
    /// The system's error with the file.
    pub fn write_as(&self, dir: impl AsRef<Path>, stem: &str) -> io::Result<(PathBuf, PathBuf)> {
        let [chain, key] = ["pem", "key"].map(|extension| dir.as_ref().join(format!("{stem}.{extension}")));
        write_file(&key, &self.key_pem, true)?;
        write_file(&chain, &self.chain_pem, false)?;
        Ok((chain, key))
    }
}

impl fmt::Debug for Identity {
    /// Does not show the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subject = self.chain.first().and_then(crate::config::subject);
        f.debug_struct("Identity").field("subject", &subject).finish_non_exhaustive()
    }
}
