//! Settings that client and server configurations share.

use std::cmp::Reverse;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

#[cfg(feature = "express")]
use rustls::SupportedCipherSuite;
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::CryptoProvider;
#[cfg(feature = "express")]
use rustls::crypto::cipher::AeadKey;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use rustls::{KeyLog, KeyLogFile, NamedGroup, RootCertStore, SupportedProtocolVersion};

use super::identity::{IdentitySource, said};
use super::passphrase::Passphrase;
use super::pem::Source;
use super::volume::Volumes;
use super::{ConfigWarning, TlsVersion, WarningKind, fail, x509};
use crate::error::{ConfigProblem, Error};

/// The settings that both builders accept.
#[derive(Debug, Clone, Default)]
pub(super) struct Common {
    pub(super) identity: Option<IdentitySource>,
    pub(super) passphrase: Passphrase,
    pub(super) alpn: Vec<Vec<u8>>,
    pub(super) min: Option<TlsVersion>,
    pub(super) max: Option<TlsVersion>,
    pub(super) provider: Option<Arc<CryptoProvider>>,
    pub(super) groups: Option<Vec<NamedGroup>>,
    /// Writes the keys to the file that `SSLKEYLOGFILE` names.
    pub(super) key_log_from_env: bool,
    pub(super) revocation: Revocation,
    #[cfg(feature = "express")]
    /// Uses the express engine.
    pub(super) express: bool,
}

impl Hash for Common {
    /// Leaves the passphrase out, because it does not change what is in a file.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let versions = (self.min, self.max);
        (&self.identity, &self.alpn, versions, self.provider_id(), &self.revocation).hash(state);
        #[cfg(feature = "express")]
        self.express.hash(state);
        self.key_log_from_env.hash(state);
        self.groups.as_ref().map(|groups| groups.iter().map(|group| u16::from(*group)).collect::<Vec<_>>()).hash(state);
    }
}

impl Common {
    /// Reads the files now.
    pub(super) fn read_files(&mut self, volumes: &mut Volumes) {
        if let Some(identity) = &mut self.identity {
            identity.read_files(volumes);
        }
        self.revocation.read_files(volumes);
    }

    /// The identity of the provider: it is different for any two providers that exist at the same time. `None` is the
    /// provider of the feature.
    pub(super) fn provider_id(&self) -> Option<usize> {
        self.provider.as_ref().map(|provider| Arc::as_ptr(provider).addr())
    }

    pub(super) fn provider(&self) -> Result<Arc<CryptoProvider>, Error> {
        let provider = self.provider.clone().or_else(feature_provider);
        let provider = provider.ok_or_else(|| fail(None, ConfigProblem::NoProvider))?;
        let Some(groups) = &self.groups else { return Ok(provider) };
        let known =
            || provider.kx_groups.iter().map(|group| format!("{:?}", group.name())).collect::<Vec<_>>().join(", ");
        let find = |name: &NamedGroup| {
            let found = provider.kx_groups.iter().find(|group| group.name() == *name);
            found.copied().ok_or_else(|| contradiction(format!("the crypto provider has {}, not {name:?}", known())))
        };
        let kx_groups = groups.iter().map(find).collect::<Result<Vec<_>, _>>()?;
        match kx_groups.is_empty() {
            true => Err(contradiction("a key exchange needs at least one group")),
            false => Ok(Arc::new(CryptoProvider { kx_groups, ..(*provider).clone() })),
        }
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

    pub(super) fn key_log(&self) -> Option<Arc<dyn KeyLog>> {
        self.key_log_from_env.then(|| Arc::new(KeyLogFile::new()) as Arc<dyn KeyLog>)
    }
}

/// A warning for each revocation list in a file of roots, if no revocation list was configured.
pub(super) fn unused_lists<'a>(
    roots: &'a [RootSource],
    revocation: &Revocation,
) -> impl Iterator<Item = ConfigWarning> + use<'a> {
    let roots = if revocation.lists.is_empty() { roots } else { &[] };
    roots.iter().filter_map(RootSource::unused_list)
}

/// Lists of revoked certificates, and how strictly they are used.
#[derive(Debug, Clone, Default, Hash)]
pub(super) struct Revocation {
    pub(super) lists: Vec<Source>,
    /// Checks only the peer's own certificate against the lists, not the certificates of its issuers.
    pub(super) leaf_only: bool,
    /// Accepts a certificate for which there is no list.
    pub(super) tolerate_unknown: bool,
}

impl Revocation {
    /// Reads the files now.
    pub(super) fn read_files(&mut self, volumes: &mut Volumes) {
        self.lists.iter_mut().for_each(|list| list.read(volumes));
    }

    pub(super) fn is_set(&self) -> bool {
        !self.lists.is_empty() || self.leaf_only || self.tolerate_unknown
    }

    /// Each list is parsed separately, so that an error can name its file and line.
    pub(super) fn load(
        &self,
        roots: &Arc<RootCertStore>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Vec<CertificateRevocationListDer<'static>>, Error> {
        let mut all = Vec::new();
        for source in &self.lists {
            for list in source.revocation_lists()? {
                let bad = |why| source.fail_at(list.line, ConfigProblem::BadRevocationList(why));
                WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone())
                    .with_crls([list.item.clone()])
                    .build()
                    .map_err(|error| bad(error.to_string()))?;
                all.push(list.item);
            }
        }
        // webpki uses only the first list of an issuer, so the first one has to be the newest.
        all.sort_by_key(|list| Reverse(x509::time_of_list(list)));
        Ok(all)
    }
}

/// RFC 7301, section 3.1: a protocol name has 1 to 255 bytes.
pub(super) fn checked_alpn(names: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, Error> {
    match names.iter().find(|name| name.is_empty() || name.len() > 255) {
        Some(name) => Err(contradiction(format!("an ALPN name has 1 to 255 bytes, not {}", name.len()))),
        None => Ok(names.to_vec()),
    }
}

static ONLY_1_2: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];
static ONLY_1_3: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// Certificates to trust, as PEM or DER.
#[derive(Debug, Clone, Hash)]
pub(super) enum RootSource {
    Pem(Source),
    Der(CertificateDer<'static>),
}

impl RootSource {
    /// Reads the file now.
    pub(super) fn read_file(&mut self, volumes: &mut Volumes) {
        if let Self::Pem(source) = self {
            source.read(volumes);
        }
    }

    /// All certificates of the source, each usable as a root (rule: secure-12).
    pub(super) fn load(&self) -> Result<Vec<CertificateDer<'static>>, Error> {
        match self {
            Self::Pem(source) => {
                let bad = |line, why| source.fail_at(line, ConfigProblem::BadCertificate(why));
                let certs = source.certificates()?.into_iter();
                let checked = certs.map(|cert| match unfit(&cert.item) {
                    Some(why) => Err(bad(cert.line, why)),
                    None => Ok(cert.item),
                });
                checked.collect()
            }
            Self::Der(cert) => match unfit(cert) {
                Some(why) => Err(fail(None, ConfigProblem::BadCertificate(why))),
                None => Ok(vec![cert.clone()]),
            },
        }
    }

    /// A revocation list in a file of roots is not used: the caller must pass it as a revocation list.
    pub(super) fn unused_list(&self) -> Option<ConfigWarning> {
        let Self::Pem(source) = self else { return None };
        let line = source.stray_list()?;
        let detail =
            format!("the list of revoked certificates in line {line} is not used: pass it as a revocation list too");
        Some(ConfigWarning { file: source.file(), kind: WarningKind::UnusedList, detail })
    }
}

/// Why a certificate cannot be a root; `None` if it can.
fn unfit(cert: &CertificateDer<'static>) -> Option<String> {
    let error = RootCertStore::empty().add(cert.clone()).err()?;
    Some(x509::unreadable(cert).unwrap_or_else(|| said(&error)))
}

/// Checks that the provider allows key extraction: the express engine gets its keys from rustls in this way.
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
        false => Err(contradiction(
            "the express engine needs traffic keys, and this crypto provider does not let them be extracted",
        )),
    }
}

pub(super) fn contradiction(what: impl Into<String>) -> Error {
    fail(None, ConfigProblem::Contradiction(what.into()))
}

/// A rustls setting that no engine obeys (rule: secure-11).
pub(super) fn turned_off(setting: &str, so: &str) -> ConfigWarning {
    let detail = format!("{setting} is not supported and was turned off: {so}");
    ConfigWarning { file: None, kind: WarningKind::TurnedOff, detail }
}

/// The provider of the enabled feature. rustls's process-wide default is not used: otherwise the behaviour of a
/// connection would depend on which crate installed its provider first.
pub(super) fn feature_provider() -> Option<Arc<CryptoProvider>> {
    #[cfg(feature = "aws-lc-rs")]
    return Some(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    #[cfg(all(feature = "ring", not(feature = "aws-lc-rs")))]
    return Some(Arc::new(rustls::crypto::ring::default_provider()));
    #[cfg(not(any(feature = "aws-lc-rs", feature = "ring")))]
    return None;
}
