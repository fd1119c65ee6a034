//! The identities of a server: each is a certificate chain with its key, and the names for which it is used.

use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, DnsName, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::common::contradiction;
use super::identity::{IdentitySource, LoadedIdentity};
use super::passphrase::Passphrase;
use super::pem::Source;
use super::volume::Volumes;
use super::{ClientAuth, ConfigWarning, ocsp, x509};
use crate::certificate::{AlternativeName, Certificate};
use crate::error::Error;

/// An identity of a server, to add to others with
/// [`ServerTlsBuilder::add_identity`](super::ServerTlsBuilder::add_identity). It is read and checked when the
/// configuration is built.
///
/// ```no_run
/// use bowline::ServerTls;
/// use bowline::config::Identity;
///
/// let tls = ServerTls::builder()
///     .identity_pem_files("example.com.pem", "example.com.key") // the default
///     .add_identity(Identity::pem_files("example.org.pem", "example.org.key").ocsp_file("example.org.ocsp"))
///     .build()?;
/// # Ok::<(), bowline::Error>(())
/// ```
#[doc(alias = "sni_hosts")]
#[doc(alias = "GetCertificate")]
#[derive(Debug, Clone, Hash)]
#[must_use = "an identity does nothing until it is added to a builder"]
pub struct Identity {
    source: IdentitySource,
    label: Option<String>,
    names: Option<Vec<String>>,
    ocsp: Option<Source>,
    alpn: Option<Vec<Vec<u8>>>,
    client_auth: Option<ClientAuth>,
}

impl Identity {
    /// From PEM files; both may be one file. The chain starts with our own certificate, followed by its issuer; leave
    /// out the root.
    pub fn pem_files(chain: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        Self::of(IdentitySource::Pem { chain: Source::File(chain.into()), key: Source::File(key.into()) })
    }

    /// As [`pem_files`](Self::pem_files), from PEM text in memory.
    pub fn pem(chain: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        Self::of(IdentitySource::Pem { chain: Source::Bytes(chain.into()), key: Source::Bytes(key.into()) })
    }

    /// As [`pem_files`](Self::pem_files), as DER.
    pub fn der(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Self {
        Self::of(IdentitySource::Der { chain, key })
    }

    pub(super) fn of(source: IdentitySource) -> Self {
        Self { source, label: None, names: None, ocsp: None, alpn: None, client_auth: None }
    }

    /// The name of the identity in [`ServerTls::identities`](super::ServerTls::identities), in the facts of a
    /// connection and in metrics. Default: the first DNS name of the certificate, or else its subject.
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// Sets the server names for which this identity is used, instead of the DNS names in its certificate.
    /// `*.example.com` covers every name with exactly one label more than `example.com`. Write a name outside ASCII in
    /// its `xn--` form.
    pub fn names(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.names = Some(names.into_iter().map(Into::into).collect());
        self
    }

    /// An OCSP response for the certificate, as DER (RFC 6960). It is sent to each client that asks for it ("stapled",
    /// RFC 6066 section 8).
    pub fn ocsp_response(mut self, response: impl Into<Vec<u8>>) -> Self {
        self.ocsp = Some(Source::Bytes(response.into()));
        self
    }

    /// As [`ocsp_response`](Self::ocsp_response), from a file, as `openssl ocsp -respout` writes it.
    pub fn ocsp_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.ocsp = Some(Source::File(path.into()));
        self
    }

    /// The application protocols to negotiate for this identity, instead of those of the server. With none, no protocol
    /// is negotiated.
    ///
    /// The server name that the client asks for chooses the protocols. If several identities have the name, the
    /// protocols of the first one are used (rule: identity-7).
    pub fn alpn(mut self, protocols: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Self {
        self.alpn = Some(protocols.into_iter().map(|name| name.as_ref().to_vec()).collect());
        self
    }

    /// Which certificates of clients are accepted for this identity, instead of the policy of the server.
    ///
    /// The server name that the client asks for chooses the policy. If several identities have the name, the policy of
    /// the first one is used (rule: identity-7). A session that began under another policy is not resumed
    /// (rule: identity-8).
    ///
    /// In HTTP, check that the host of each request is the name for which the connection was made (`sni` in
    /// [`SessionFacts`](crate::SessionFacts)). Otherwise a client can connect with a name that does not have this
    /// policy, and then send a request for a name that has it.
    pub fn client_auth(mut self, policy: ClientAuth) -> Self {
        self.client_auth = Some(policy);
        self
    }

    /// Reads the files of this identity, and returns it with their contents. Fails if a file cannot be read.
    pub(super) fn in_memory(mut self, volumes: &mut Volumes) -> Result<Self, Error> {
        self.read_files(volumes);
        self.source.check_read()?;
        self.ocsp.iter().try_for_each(|source| source.bytes().map(drop))?;
        Ok(self)
    }

    /// Reads the files now.
    pub(super) fn read_files(&mut self, volumes: &mut Volumes) {
        self.source.read_files(volumes);
        if let Some(source) = &mut self.ocsp {
            source.read(volumes);
        }
        if let Some(policy) = &mut self.client_auth {
            policy.read_files(volumes);
        }
    }

    pub(super) fn load(&self, provider: &CryptoProvider, passphrase: &Passphrase) -> Result<Loaded, Error> {
        let LoadedIdentity { mut certified, mut warnings } = self.source.load(provider, passphrase, true)?;
        if let Some(source) = &self.ocsp {
            let (response, warning) = ocsp::read(source, &certified.cert[0])?;
            certified.ocsp = Some(response);
            warnings.extend(warning);
        }
        let names = match &self.names {
            None => names_of(&certified.cert[0]),
            Some(names) => names.iter().map(|name| chosen_name(name)).collect::<Result<_, _>>()?,
        };
        Ok(Loaded {
            file: self.source.file(),
            label: self.label.clone(),
            names,
            certified: Arc::new(certified),
            alpn: self.alpn.clone(),
            client_auth: self.client_auth.clone(),
            warnings,
        })
    }
}

/// An identity that can be used.
pub(super) struct Loaded {
    pub(super) file: Option<PathBuf>,
    label: Option<String>,
    /// In lower case, without the dot at the end.
    pub(super) names: Vec<String>,
    pub(super) certified: Arc<CertifiedKey>,
    pub(super) alpn: Option<Vec<Vec<u8>>>,
    pub(super) client_auth: Option<ClientAuth>,
    pub(super) warnings: Vec<ConfigWarning>,
}

/// An identity of a configuration: see [`ServerTls::identities`](super::ServerTls::identities).
#[derive(Clone)]
#[non_exhaustive]
pub struct IdentityInfo {
    /// The name of the identity. No other identity of the configuration has it.
    pub name: Arc<str>,
    /// The server names for which the identity is used, in lower case. `*.example.com` is a wildcard.
    pub server_names: Vec<String>,
    /// Whether the identity is used for clients that ask for no name, and for an unknown name.
    pub is_default: bool,
    /// The certificates that clients get, our own one first.
    pub chain: Arc<[CertificateDer<'static>]>,
    /// The time from which our own certificate is valid.
    pub not_before: Option<SystemTime>,
    /// The time at which our own certificate expires.
    pub not_after: Option<SystemTime>,
}

impl fmt::Debug for IdentityInfo {
    /// Shows only the number of certificates, because their bytes are not readable.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdentityInfo")
            .field("name", &self.name)
            .field("server_names", &self.server_names)
            .field("is_default", &self.is_default)
            .field("chain", &self.chain.len())
            .field("not_before", &self.not_before)
            .field("not_after", &self.not_after)
            .finish()
    }
}

/// Describes the identities, and gives each one a unique name.
pub(super) fn describe(all: &[Loaded]) -> Result<Vec<IdentityInfo>, Error> {
    let mut taken = HashSet::new();
    for label in all.iter().filter_map(|loaded| loaded.label.as_deref()) {
        if !taken.insert(label.to_owned()) {
            return Err(contradiction(format!("two identities have the name {label:?}")));
        }
    }
    Ok(all.iter().map(|loaded| loaded.describe(&mut taken)).collect())
}

impl Loaded {
    fn describe(&self, taken: &mut HashSet<String>) -> IdentityInfo {
        let chain: Arc<[_]> = self.certified.cert.clone().into();
        let validity = x509::validity(&chain[0]);
        let name = self.label.clone().unwrap_or_else(|| self.default_label(taken)).into();
        IdentityInfo {
            name,
            server_names: self.names.clone(),
            is_default: false,
            chain,
            not_before: validity.map(|(from, _)| from),
            not_after: validity.map(|(_, to)| to),
        }
    }

    /// A certificate with another kind of key often has the same names.
    fn default_label(&self, taken: &mut HashSet<String>) -> String {
        let subject = || x509::subject(&self.certified.cert[0]);
        let base = self.names.first().cloned().or_else(subject).unwrap_or_else(|| "unnamed".into());
        let numbered = (2..).map(|n| format!("{base} #{n}"));
        let free = std::iter::once(base.clone()).chain(numbered).find(|label| taken.insert(label.clone()));
        free.unwrap_or(base)
    }
}

/// The DNS names of a certificate. A name that no client can ask for is left out.
fn names_of(cert: &CertificateDer<'_>) -> Vec<String> {
    let names = Certificate::from_der(cert).and_then(|parsed| parsed.alternative_names()).and_then(Result::ok);
    let dns = names.unwrap_or_default().into_iter().filter_map(|name| match name {
        AlternativeName::Dns(name) => server_name(&name),
        _ => None,
    });
    dns.collect()
}

fn chosen_name(name: &str) -> Result<String, Error> {
    server_name(name).ok_or_else(|| {
        let why = if name.is_ascii() { "" } else { "; a name outside ASCII is given in its `xn--` form" };
        contradiction(format!("{name:?} is neither a DNS name nor a wildcard such as *.example.com{why}"))
    })
}

/// A DNS name, or a wildcard for one label (RFC 9525, section 6.3), in lower case and without the dot at the end.
fn server_name(name: &str) -> Option<String> {
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    DnsName::try_from(name.strip_prefix("*.").unwrap_or(&name)).ok()?;
    Some(name)
}
