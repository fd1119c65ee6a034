//! What the configurations of both roles have in common.

use std::sync::Arc;

#[cfg(feature = "express")]
use rustls::SupportedCipherSuite;
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::CryptoProvider;
#[cfg(feature = "express")]
use rustls::crypto::cipher::AeadKey;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use rustls::{KeyLog, KeyLogFile, RootCertStore, SupportedProtocolVersion};

use super::identity::{IdentitySource, said};
use super::pem::Source;
use super::{ConfigWarning, TlsVersion, WarningKind, fail};
use crate::error::{ConfigProblem, Error};

/// What was said to either builder.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) identity: Option<IdentitySource>,
    pub(super) alpn: Vec<Vec<u8>>,
    pub(super) min: Option<TlsVersion>,
    pub(super) max: Option<TlsVersion>,
    pub(super) provider: Option<Arc<CryptoProvider>>,
    pub(super) key_log_from_env: bool,
    pub(super) revocation_lists: Vec<Source>,
    #[cfg(feature = "express")]
    pub(super) express: bool,
}

impl Shared {
    pub(super) fn provider(&self) -> Result<Arc<CryptoProvider>, Error> {
        self.provider.clone().or_else(feature_provider).ok_or_else(|| fail(None, ConfigProblem::NoProvider))
    }

    /// rule: secure-9
    pub(super) fn versions(&self) -> Result<&'static [&'static SupportedProtocolVersion], Error> {
        let (min, max) = (self.min.unwrap_or(TlsVersion::V1_2), self.max.unwrap_or(TlsVersion::V1_3));
        match (min, max) {
            (TlsVersion::V1_2, TlsVersion::V1_3) => Ok(rustls::ALL_VERSIONS),
            (TlsVersion::V1_2, TlsVersion::V1_2) => Ok(ONLY_1_2),
            (TlsVersion::V1_3, TlsVersion::V1_3) => Ok(ONLY_1_3),
            (TlsVersion::V1_3, TlsVersion::V1_2) => {
                Err(contradiction(format!("no version is at least {min} and at most {max}")))
            }
        }
    }

    /// RFC 7301, section 3.1: a protocol name has 1 to 255 bytes.
    pub(super) fn alpn(&self) -> Result<Vec<Vec<u8>>, Error> {
        match self.alpn.iter().find(|name| name.is_empty() || name.len() > 255) {
            Some(name) => Err(contradiction(format!("an ALPN name has 1 to 255 bytes, not {}", name.len()))),
            None => Ok(self.alpn.clone()),
        }
    }

    pub(super) fn key_log(&self) -> Option<Arc<dyn KeyLog>> {
        self.key_log_from_env.then(|| Arc::new(KeyLogFile::new()) as Arc<dyn KeyLog>)
    }

    /// Each source is tried on its own, so that an error can name its file.
    pub(super) fn revocation_lists(
        &self,
        roots: &Arc<RootCertStore>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Vec<CertificateRevocationListDer<'static>>, Error> {
        let mut all = Vec::new();
        for source in &self.revocation_lists {
            let lists = source.revocation_lists()?;
            WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone())
                .with_crls(lists.iter().cloned())
                .build()
                .map_err(|error| source.fail(ConfigProblem::BadRevocationList(error.to_string())))?;
            all.extend(lists);
        }
        Ok(all)
    }
}

static ONLY_1_2: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];
static ONLY_1_3: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// Certificates to trust: from PEM or as they are.
#[derive(Debug)]
pub(super) enum RootSource {
    Pem(Source),
    Der(CertificateDer<'static>),
}

impl RootSource {
    pub(super) fn load(self) -> Result<Vec<CertificateDer<'static>>, Error> {
        let (certs, file) = match self {
            Self::Pem(source) => (source.certificates()?, source.file()),
            Self::Der(cert) => (vec![cert], None),
        };
        for cert in &certs {
            RootCertStore::empty()
                .add(cert.clone())
                .map_err(|error| fail(file.clone(), ConfigProblem::BadCertificate(said(&error))))?;
        }
        Ok(certs)
    }
}

/// The express engine has its keys from rustls, which asks the provider whether they may be had.
#[cfg(feature = "express")]
pub(super) fn check_keys(provider: &CryptoProvider) -> Result<(), Error> {
    let gives_keys = |suite: &SupportedCipherSuite| {
        let (key, iv) = (AeadKey::from([0; 32]), [0; 12]);
        match suite {
            SupportedCipherSuite::Tls12(suite) => {
                let shape = suite.aead_alg.key_block_shape();
                let (salt, explicit) = (&iv[..shape.fixed_iv_len], &iv[..shape.explicit_nonce_len]);
                suite.aead_alg.extract_keys(key, salt, explicit).is_ok()
            }
            SupportedCipherSuite::Tls13(suite) => suite.aead_alg.extract_keys(key, iv.into()).is_ok(),
        }
    };
    match provider.cipher_suites.iter().all(gives_keys) {
        true => Ok(()),
        false => Err(contradiction("the express engine needs keys that this crypto provider does not give")),
    }
}

pub(super) fn contradiction(what: impl Into<String>) -> Error {
    fail(None, ConfigProblem::Contradiction(what.into()))
}

/// A setting of rustls's that no engine obeys (rule: secure-11).
pub(super) fn turned_off(setting: &str, so: &str) -> ConfigWarning {
    let detail = format!("{setting} is not offered here and was turned off: {so}");
    ConfigWarning { file: None, kind: WarningKind::TurnedOff, detail }
}

/// The provider of the enabled feature. rustls's process-wide default is left alone: what a connection does must not
/// depend on what another crate installed first.
fn feature_provider() -> Option<Arc<CryptoProvider>> {
    #[cfg(feature = "aws-lc-rs")]
    return Some(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    #[cfg(all(feature = "ring", not(feature = "aws-lc-rs")))]
    return Some(Arc::new(rustls::crypto::ring::default_provider()));
    #[cfg(not(any(feature = "aws-lc-rs", feature = "ring")))]
    return None;
}
