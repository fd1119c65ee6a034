//! A certificate chain and its private key, checked to belong together.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::InconsistentKeys;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SigningKey};

use super::pem::Source;
use super::{ConfigWarning, fail, x509};
use crate::error::{ConfigProblem, Error};

/// What was said about an identity; read and checked when the configuration is built.
#[derive(Debug)]
pub(super) enum IdentitySource {
    Pem { chain: Source, key: Source },
    Der { chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static> },
}

/// An identity that can be used.
pub(super) struct LoadedIdentity {
    pub(super) certified: CertifiedKey,
    pub(super) warnings: Vec<ConfigWarning>,
}

impl IdentitySource {
    pub(super) fn load(self, provider: &CryptoProvider, server: bool) -> Result<LoadedIdentity, Error> {
        let (files, chain, key) = self.read()?;
        if chain.is_empty() {
            return Err(fail(files.chain, ConfigProblem::NoCertificate));
        }
        let key = provider
            .key_provider
            .load_private_key(key)
            .map_err(|error| fail(files.key.clone(), ConfigProblem::UnusableKey(said(&error))))?;
        let warnings = x509::warnings(files.chain.clone(), &chain, server);
        Ok(LoadedIdentity { certified: matched(chain, key, files)?, warnings })
    }

    fn read(self) -> Result<(Files, Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), Error> {
        match self {
            Self::Pem { chain, key } => {
                let files = Files { chain: chain.file(), key: key.file() };
                Ok((files, chain.certificates()?, key.private_key()?))
            }
            Self::Der { chain, key } => Ok((Files { chain: None, key: None }, chain, key)),
        }
    }
}

struct Files {
    chain: Option<PathBuf>,
    key: Option<PathBuf>,
}

fn matched(chain: Vec<CertificateDer<'static>>, key: Arc<dyn SigningKey>, files: Files) -> Result<CertifiedKey, Error> {
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        // A key in hardware need not tell its public half: then the first handshake shows it.
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(certified),
        Err(rustls::Error::InconsistentKeys(_)) => match place_of_leaf(&certified) {
            Some(position) => Err(fail(files.chain, ConfigProblem::ChainOrder { position })),
            None => Err(fail(files.key, ConfigProblem::KeyMismatch)),
        },
        Err(error) => Err(fail(files.chain, ConfigProblem::BadCertificate(said(&error)))),
    }
}

/// Which certificate of the chain the key belongs to, counted from one.
fn place_of_leaf(certified: &CertifiedKey) -> Option<usize> {
    let belongs = |cert: &CertificateDer<'static>| {
        CertifiedKey::new(vec![cert.clone()], certified.key.clone()).keys_match().is_ok()
    };
    certified.cert.iter().position(belongs).map(|index| index + 1)
}

/// What rustls says, without the words that our own message has already.
pub(super) fn said(error: &rustls::Error) -> String {
    match error {
        rustls::Error::General(what) => what.clone(),
        rustls::Error::InvalidCertificate(what) => format!("{what:?}"),
        other => other.to_string(),
    }
}
