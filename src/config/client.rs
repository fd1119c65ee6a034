//! The client's configuration.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::client::danger::ServerCertVerifier;
use rustls::client::{ClientConfig, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::SingleCertAndKey;

#[cfg(feature = "express")]
use super::common::check_keys;
use super::common::{Common, RootSource, contradiction, turned_off};
use super::identity::IdentitySource;
use super::pem::Source;
use super::revocation::Lists;
use super::tickets;
use super::verify::{AcceptAnyServer, RootsAsServers};
use super::{ConfigWarning, TlsVersion};
use crate::core::session::Session;
#[cfg(feature = "platform-roots")]
use crate::error::chain;
use crate::error::{ConfigError, ConfigProblem, Error};
use crate::policy::Watermarks;

/// The TLS configuration of a client. Cheap to clone; made by [`ClientTls::builder`] or from an
/// `Arc<rustls::ClientConfig>`.
///
/// Clones share the cache of sessions to resume.
#[doc(alias = "optionsForClientTLS")]
#[doc(alias = "SSLContext")]
#[derive(Clone)]
pub struct ClientTls(Arc<Settings>);

/// One pointer, because every connection that can use TLS holds a copy.
#[derive(Clone)]
struct Settings {
    config: Arc<ClientConfig>,
    own: Option<Arc<[CertificateDer<'static>]>>,
    warnings: Arc<[ConfigWarning]>,
    express: bool,
}

impl ClientTls {
    /// Begins a configuration. A client needs at least one root to trust.
    pub fn builder() -> ClientTlsBuilder {
        ClientTlsBuilder::default()
    }

    /// The configuration as rustls has it.
    pub fn config(&self) -> &Arc<ClientConfig> {
        &self.0.config
    }

    /// The chain that is presented to servers that ask for one, our own certificate first. `None` if there is no chain,
    /// or if the configuration came from rustls, which does not expose it.
    pub fn own_certificates(&self) -> Option<&[CertificateDer<'static>]> {
        self.0.own.as_deref()
    }

    /// A session of the pure core, with the engine that the configuration asks for. The ClientHello waits to be transmitted.
    #[cfg(feature = "unstable")]
    #[doc(hidden)]
    pub fn session(&self, name: ServerName<'static>, marks: Watermarks) -> Result<Session, Error> {
        self.begin(name, marks)
    }

    /// A session with the engine that the configuration asks for.
    #[cfg_attr(not(feature = "tokio"), allow(dead_code))] // The transports use it.
    pub(crate) fn begin(&self, name: ServerName<'static>, marks: Watermarks) -> Result<Session, Error> {
        let (config, own) = (Arc::clone(&self.0.config), self.0.own.clone().unwrap_or_default());
        #[cfg(feature = "express")]
        if self.0.express {
            return Session::express_client(config, name, own, marks);
        }
        Session::client(config, name, own, marks)
    }

    /// The same configuration with the express engine (see [`ClientTlsBuilder::express`]). Use this for a configuration
    /// that came from rustls. Key extraction (`enable_secret_extraction`) is turned on in a copy.
    ///
    /// # Errors
    /// [`ConfigError`](crate::ConfigError): the crypto provider does not let keys be extracted. The caller has to fix
    /// this.
    #[cfg(feature = "express")]
    pub fn express(mut self) -> Result<Self, Error> {
        check_keys(self.0.config.crypto_provider())?;
        let settings = Arc::make_mut(&mut self.0);
        Arc::make_mut(&mut settings.config).enable_secret_extraction = true;
        settings.express = true;
        Ok(self)
    }

    /// Whether connections of this configuration use the express engine.
    pub fn is_express(&self) -> bool {
        self.0.express
    }

    /// Problems that do not stop the configuration from working. Log them.
    pub fn warnings(&self) -> &[ConfigWarning] {
        &self.0.warnings
    }
}

impl From<Arc<ClientConfig>> for ClientTls {
    /// Takes a rustls configuration without checks. Early data, which bowline does not support, is turned off in a
    /// copy; [`warnings`](ClientTls::warnings) says so (rule: secure-11).
    fn from(mut config: Arc<ClientConfig>) -> Self {
        let mut warnings = Vec::new();
        if config.enable_early_data {
            Arc::make_mut(&mut config).enable_early_data = false;
            warnings.push(turned_off("enable_early_data", "nothing is sent before the handshake is done"));
        }
        Self(Arc::new(Settings { config, own: None, warnings: warnings.into(), express: false }))
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let own = self.own_certificates().and_then(|chain| super::subject(chain.first()?));
        f.debug_struct("ClientTls").field("own", &own).field("warnings", &self.0.warnings).finish_non_exhaustive()
    }
}

/// Makes a [`ClientTls`]. Files are read and everything is checked by [`build`](Self::build).
#[derive(Debug, Default)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct ClientTlsBuilder {
    common: Common,
    roots: Vec<RootSource>,
    /// Set only with the feature `platform-roots`.
    platform_roots: bool,
    no_verification: bool,
    tickets: Option<usize>,
}

impl ClientTlsBuilder {
    /// Adds the certificates in this PEM file as trusted roots. May be called several times.
    ///
    /// You may also add a server's own self-signed certificate; its names and dates are then checked as usual. This
    /// includes a certificate that is marked as a CA (`openssl req -x509` makes such certificates), if the server
    /// presents exactly this certificate. A server certificate that another authority issued does not work as a root:
    /// add the issuer's certificate instead. Verification uses only the name and the key of a root, so the holder of
    /// its key can issue certificates for any other name.
    #[doc(alias = "load_verify_locations")]
    #[doc(alias = "trustRootFromCertificates")]
    #[doc(alias = "RootCAs")]
    pub fn roots_pem_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.roots.push(RootSource::Pem(Source::File(path.into())));
        self
    }

    /// The same from PEM text in memory.
    pub fn roots_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.roots.push(RootSource::Pem(Source::Bytes(pem.into())));
        self
    }

    /// The same for one certificate, as DER.
    pub fn root(mut self, cert: CertificateDer<'static>) -> Self {
        self.roots.push(RootSource::Der(cert));
        self
    }

    /// Trusts the roots of the operating system, in addition to the roots that you add. The roots are read when the
    /// configuration is built. The [warnings](ClientTls::warnings) say how many of them cannot be used.
    #[cfg(feature = "platform-roots")]
    #[doc(alias = "platformTrust")]
    #[doc(alias = "create_default_context")]
    pub fn platform_roots(mut self) -> Self {
        self.platform_roots = true;
        self
    }

    /// Accepts any certificate. The connection is then encrypted, but the identity of the server is unknown. Use this
    /// for tests, and to inspect a server that is known to be broken (rule: secure-8).
    #[doc(alias = "InsecureSkipVerify")]
    #[doc(alias = "CERT_NONE")]
    pub fn dangerous_no_verification(mut self) -> Self {
        self.no_verification = true;
        self
    }

    /// Lists of revoked server certificates, from a PEM file. May be called several times.
    ///
    /// Once one list is given, every certificate of a server's chain is checked strictly: each issuer in the chain
    /// needs a list, and a list that is past its next update does not count. A root that a server presents as its own
    /// certificate is its own issuer, so it needs a list too.
    pub fn crl_pem_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.common.revocation_lists.push(Source::File(path.into()));
        self
    }

    /// The same from PEM text in memory.
    pub fn crl_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.common.revocation_lists.push(Source::Bytes(pem.into()));
        self
    }

    /// Our own certificate chain and private key from PEM files; both may be in one file. The chain starts with the
    /// client's certificate, followed by its issuer; leave out the root.
    #[doc(alias = "load_cert_chain")]
    pub fn identity_pem_files(self, chain: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.identity_source(IdentitySource::Pem { chain: Source::File(chain.into()), key: Source::File(key.into()) })
    }

    /// The same from PEM text in memory.
    pub fn identity_pem(self, chain: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        self.identity_source(IdentitySource::Pem { chain: Source::Bytes(chain.into()), key: Source::Bytes(key.into()) })
    }

    /// The same as DER.
    pub fn identity(self, chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Self {
        self.identity_source(IdentitySource::Der { chain, key })
    }

    /// The application protocols to agree on, the preferred one first: `["h2", "http/1.1"]`. Default: no ALPN.
    #[doc(alias = "set_alpn_protocols")]
    #[doc(alias = "NextProtos")]
    pub fn alpn(mut self, protocols: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Self {
        self.common.alpn = protocols.into_iter().map(|name| name.as_ref().to_vec()).collect();
        self
    }

    /// The oldest version to speak; default TLS 1.2 (rule: secure-9).
    #[doc(alias = "minimum_version")]
    pub fn min_version(mut self, version: TlsVersion) -> Self {
        self.common.min = Some(version);
        self
    }

    /// The newest version to speak; default TLS 1.3.
    #[doc(alias = "maximum_version")]
    pub fn max_version(mut self, version: TlsVersion) -> Self {
        self.common.max = Some(version);
        self
    }

    /// The crypto provider. Default: the provider of the enabled feature; `aws-lc-rs` is preferred to `ring`.
    pub fn provider(mut self, provider: Arc<CryptoProvider>) -> Self {
        self.common.provider = Some(provider);
        self
    }

    /// The number of tickets that a client keeps for each name to resume TLS 1.3 sessions; default 16. The newest
    /// tickets are kept. Each ticket is used once. So connections that start at the same time need one ticket each, and
    /// the server has to send enough tickets
    /// ([`ServerTlsBuilder::send_tickets`](crate::config::ServerTlsBuilder::send_tickets)).
    ///
    /// `0` turns resumption off, for TLS 1.2 too. The client remembers the 32 most recently used names.
    #[doc(alias = "Resumption")]
    #[doc(alias = "ClientSessionCache")]
    pub fn keep_tickets(mut self, count: usize) -> Self {
        self.tickets = Some(count);
        self
    }

    /// Writes the session keys to the file that the environment variable `SSLKEYLOGFILE` names, for Wireshark and
    /// similar tools. Anyone who can read that file can decrypt the connections. Without this call, the variable has no
    /// effect. Without the variable, this call has no effect.
    #[doc(alias = "keylog_filename")]
    #[doc(alias = "KeyLogWriter")]
    pub fn key_log_file_from_env(mut self) -> Self {
        self.common.key_log_from_env = true;
        self
    }

    /// Uses the express engine: rustls does the handshake, and this crate's own record layer opens and seals the
    /// records after it, with the same crypto provider. It uses less CPU per byte and less memory per idle connection.
    /// In return, fewer people have reviewed this record layer than rustls's, and the traffic keys leave rustls for
    /// this crate's memory. Leave it off unless you need the speed, and always leave it off if a cryptographic module
    /// has to be used exactly as it was validated.
    ///
    /// The provider must allow key extraction, as the providers of the features do; otherwise the configuration fails.
    /// For rustls's own cipher suites, the AEAD is called directly. For any other suite, it is called through rustls,
    /// which is slower.
    #[cfg(feature = "express")]
    pub fn express(mut self) -> Self {
        self.common.express = true;
        self
    }

    /// Reads the files, checks everything and makes the configuration.
    ///
    /// # Errors
    /// [`ConfigError`](crate::ConfigError): a mistake in the configuration.
    pub fn build(mut self) -> Result<ClientTls, Error> {
        let provider = self.common.provider()?;
        let versions = self.common.versions()?;
        let mut warnings = Vec::new();
        let verifier = self.verifier(&provider, &mut warnings)?;
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(versions)
            .map_err(|error| contradiction(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let identity = self.common.identity.take().map(|source| source.load(&provider, false)).transpose()?;
        let mut own = None;
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                own = Some(identity.certified.cert.clone().into());
                warnings.extend(identity.warnings);
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity.certified)))
            }
        };
        config.alpn_protocols = self.common.alpn()?;
        config.resumption = tickets::resumption(self.tickets.unwrap_or(tickets::TICKETS));
        if let Some(key_log) = self.common.key_log() {
            config.key_log = key_log;
        }
        let made =
            ClientTls(Arc::new(Settings { config: Arc::new(config), own, warnings: warnings.into(), express: false }));
        #[cfg(feature = "express")]
        if self.common.express {
            return made.express();
        }
        Ok(made)
    }

    fn verifier(
        &mut self,
        provider: &Arc<CryptoProvider>,
        warnings: &mut Vec<ConfigWarning>,
    ) -> Result<Arc<dyn ServerCertVerifier>, Error> {
        if self.no_verification {
            return self.accept_any(provider);
        }
        let mut named = Vec::new();
        for source in &self.roots {
            named.extend(source.load()?);
        }
        warnings.extend(self.common.unused_lists(&self.roots));
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(named.iter().cloned());
        self.add_platform_roots(&mut roots, warnings);
        if roots.is_empty() {
            // Reported here, because the build fails: its warnings would never be seen.
            let said: Vec<&str> = warnings.iter().map(|warning| warning.detail.as_str()).collect();
            let found = (!said.is_empty()).then(|| said.join("; "));
            return Err(ConfigError::new(None, ConfigProblem::NoRoots).found(found).into());
        }
        let roots = Arc::new(roots);
        let lists = self.common.revocation_lists(&roots, provider)?;
        let webpki = WebPkiServerVerifier::builder_with_provider(roots, provider.clone())
            .with_crls(lists.iter().cloned())
            .enforce_revocation_expiration()
            .build()
            .map_err(|error| contradiction(error.to_string()))?;
        let lists = Lists { lists, algorithms: provider.signature_verification_algorithms };
        Ok(Arc::new(RootsAsServers { roots: named, webpki, lists }))
    }

    fn accept_any(&self, provider: &CryptoProvider) -> Result<Arc<dyn ServerCertVerifier>, Error> {
        let trusts_somebody = !self.roots.is_empty() || self.platform_roots || !self.common.revocation_lists.is_empty();
        match trusts_somebody {
            true => Err(contradiction("whom to trust, and to trust anybody, do not go together")),
            false => Ok(Arc::new(AcceptAnyServer(provider.signature_verification_algorithms))),
        }
    }

    #[cfg(feature = "platform-roots")]
    fn add_platform_roots(&self, roots: &mut RootCertStore, warnings: &mut Vec<ConfigWarning>) {
        if !self.platform_roots {
            return;
        }
        let mut found = rustls_native_certs::load_native_certs();
        let mut details: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
        // rustls's parser skips a section that begins in the middle of a line (rule: secure-12).
        if let Some(file) = std::env::var_os("SSL_CERT_FILE") {
            match Source::File(file.into()).certificates() {
                Ok(certs) => found.certs.extend(certs.into_iter().map(|cert| cert.item)),
                Err(error) => details.push(chain(&error).to_string()),
            }
            found.certs.sort_unstable_by(|a, b| a.as_ref().cmp(b.as_ref()));
            found.certs.dedup();
        }
        let (_, unusable) = roots.add_parsable_certificates(found.certs);
        if unusable > 0 {
            details.push(format!("{unusable} root certificates of the platform cannot be parsed"));
        }
        let kind = super::WarningKind::PlatformRoots;
        warnings.extend(details.into_iter().map(|detail| ConfigWarning { file: None, kind, detail }));
    }

    #[cfg(not(feature = "platform-roots"))]
    fn add_platform_roots(&self, _: &mut RootCertStore, _: &mut Vec<ConfigWarning>) {}

    fn identity_source(mut self, source: IdentitySource) -> Self {
        self.common.identity = Some(source);
        self
    }
}
