//! A certificate chain and its private key, checked to belong together.

use std::hash::{Hash, Hasher};
use std::path::PathBuf;
use std::sync::Arc;

use rustls::InconsistentKeys;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SigningKey};

use super::passphrase::Passphrase;
use super::pem::Source;
use super::volume::Volumes;
use super::{ConfigWarning, fail, key_kind, x509};
use crate::error::{ConfigError, ConfigProblem, Error};

/// The source of an identity. It is read and checked when the configuration is built.
#[derive(Debug)]
pub(super) enum IdentitySource {
    Pem { chain: Source, key: Source },
    Der { chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static> },
}

impl Clone for IdentitySource {
    fn clone(&self) -> Self {
        match self {
            Self::Pem { chain, key } => Self::Pem { chain: chain.clone(), key: key.clone() },
            Self::Der { chain, key } => Self::Der { chain: chain.clone(), key: key.clone_key() },
        }
    }
}

/// An identity that can be used.
pub(super) struct LoadedIdentity {
    pub(super) certified: CertifiedKey,
    pub(super) warnings: Vec<ConfigWarning>,
}

impl Hash for IdentitySource {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Self::Pem { chain, key } => (chain, key).hash(state),
            Self::Der { chain, key } => (chain, key.secret_der()).hash(state),
        }
    }
}

impl IdentitySource {
    /// Whether the files could be read.
    pub(super) fn check_read(&self) -> Result<(), Error> {
        match self {
            Self::Pem { chain, key } => chain.bytes().and(key.bytes()).map(drop),
            Self::Der { .. } => Ok(()),
        }
    }

    /// Reads the files now.
    pub(super) fn read_files(&mut self, volumes: &mut Volumes) {
        if let Self::Pem { chain, key } = self {
            chain.read(volumes);
            key.read(volumes);
        }
    }

    /// The file of the certificates.
    pub(super) fn file(&self) -> Option<PathBuf> {
        match self {
            Self::Pem { chain, .. } => chain.file(),
            Self::Der { .. } => None,
        }
    }

    pub(super) fn load(
        &self,
        provider: &CryptoProvider,
        passphrase: &Passphrase,
        server: bool,
    ) -> Result<LoadedIdentity, Error> {
        let (sources, chain, key) = self.read(passphrase)?;
        if chain.is_empty() {
            return Err(fail(sources.chain, ConfigProblem::NoCertificate));
        }
        for (n, cert) in chain.iter().enumerate() {
            if let Some(why) = x509::unreadable(cert) {
                return Err(sources.fail_cert(n, format!("it is number {} of the chain, and {why}", n + 1)));
            }
        }
        let kind = key_kind::told(&key);
        let key = provider.key_provider.load_private_key(key).map_err(|error| {
            let why = match kind {
                Some(kind) => format!("it is {kind}, which the crypto provider does not support ({})", said(&error)),
                None => said(&error),
            };
            sources.fail_key(ConfigProblem::UnusableKey(why))
        })?;
        let warnings = x509::warnings(sources.chain.clone(), &chain, server);
        Ok(LoadedIdentity { certified: matched(chain, key, sources)?, warnings })
    }

    fn read(
        &self,
        passphrase: &Passphrase,
    ) -> Result<(Sources, Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), Error> {
        match self {
            Self::Pem { chain, key } => {
                let certs = chain.certificates()?;
                let lines = certs.iter().map(|cert| cert.line).collect();
                let private = key.private_key(passphrase)?;
                let sources = Sources { chain: chain.file(), lines, key: key.file(), key_line: Some(private.line) };
                Ok((sources, certs.into_iter().map(|cert| cert.item).collect(), private.item))
            }
            Self::Der { chain, key } => Ok((Sources::default(), chain.clone(), key.clone_key())),
        }
    }
}

/// The files and lines from which the parts of an identity came.
#[derive(Default)]
struct Sources {
    chain: Option<PathBuf>,
    /// The line of each certificate; empty if the certificates came as DER.
    lines: Vec<usize>,
    key: Option<PathBuf>,
    key_line: Option<usize>,
}

impl Sources {
    fn fail_cert(&self, n: usize, why: String) -> Error {
        let error = ConfigError::new(self.chain.clone(), ConfigProblem::BadCertificate(why));
        error.in_line(self.lines.get(n).copied()).into()
    }

    fn fail_key(&self, problem: ConfigProblem) -> Error {
        ConfigError::new(self.key.clone(), problem).in_line(self.key_line).into()
    }
}

fn matched(
    chain: Vec<CertificateDer<'static>>,
    key: Arc<dyn SigningKey>,
    sources: Sources,
) -> Result<CertifiedKey, Error> {
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        // A key in hardware may not expose its public half. A mismatch then fails the first handshake.
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(certified),
        Err(rustls::Error::InconsistentKeys(_)) => match place_of_leaf(&certified) {
            Some(position) => Err(fail(sources.chain, ConfigProblem::ChainOrder { position })),
            None => Err(fail(sources.key, ConfigProblem::KeyMismatch)),
        },
        Err(error) => Err(sources.fail_cert(0, said(&error))),
    }
}

/// The position in the chain, counted from one, of the certificate to which the key belongs.
fn place_of_leaf(certified: &CertifiedKey) -> Option<usize> {
    let belongs = |cert: &CertificateDer<'static>| {
        CertifiedKey::new(vec![cert.clone()], certified.key.clone()).keys_match().is_ok()
    };
    certified.cert.iter().position(belongs).map(|index| index + 1)
}

/// The text of a rustls error, without the words that our own message already contains.
pub(super) fn said(error: &rustls::Error) -> String {
    match error {
        rustls::Error::General(what) => what.clone(),
        rustls::Error::InvalidCertificate(what) => format!("{what:?}"),
        other => other.to_string(),
    }
}
