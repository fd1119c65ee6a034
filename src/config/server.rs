//! The server's configuration.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoClientAuth, ProducesTickets, ServerConfig, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;

#[cfg(feature = "express")]
use super::common::check_keys;
use super::common::{Common, RootSource, contradiction, turned_off};
use super::identity::{IdentitySource, LoadedIdentity};
use super::pem::Source;
use super::{ConfigWarning, TlsVersion, fail};
use crate::core::session::Session;
use crate::error::{ConfigProblem, Error};
use crate::policy::Watermarks;

/// The TLS configuration of a server. Cheap to clone; made by [`ServerTls::builder`] or from an
/// `Arc<rustls::ServerConfig>`.
#[doc(alias = "CertificateOptions")]
#[doc(alias = "SSLContext")]
#[derive(Clone)]
pub struct ServerTls(Arc<Settings>);

/// One pointer, because every connection that can use TLS holds a copy.
#[derive(Clone)]
struct Settings {
    config: Arc<ServerConfig>,
    own: Option<Arc<[CertificateDer<'static>]>>,
    warnings: Arc<[ConfigWarning]>,
    express: bool,
}

impl ServerTls {
    /// Begins a configuration. A server needs at least an identity.
    pub fn builder() -> ServerTlsBuilder {
        ServerTlsBuilder::default()
    }

    /// The configuration as rustls has it.
    pub fn config(&self) -> &Arc<ServerConfig> {
        &self.0.config
    }

    /// The chain that is presented to clients, our own certificate first. `None` if the configuration came from rustls,
    /// which does not expose it.
    pub fn own_certificates(&self) -> Option<&[CertificateDer<'static>]> {
        self.0.own.as_deref()
    }

    /// A session of the pure core, with the engine that the configuration asks for.
    #[cfg(feature = "unstable")]
    #[doc(hidden)]
    pub fn session(&self, marks: Watermarks) -> Result<Session, Error> {
        self.begin(marks)
    }

    /// A session with the engine that the configuration asks for.
    #[cfg_attr(not(feature = "tokio"), allow(dead_code))] // The transports use it.
    pub(crate) fn begin(&self, marks: Watermarks) -> Result<Session, Error> {
        let (config, own) = (Arc::clone(&self.0.config), self.0.own.clone().unwrap_or_default());
        #[cfg(feature = "express")]
        if self.0.express {
            return Session::express_server(config, own, marks);
        }
        Session::server(config, own, marks)
    }

    /// The same configuration with the express engine (see [`ServerTlsBuilder::express`]). Use this for a configuration
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

impl From<Arc<ServerConfig>> for ServerTls {
    /// Takes a rustls configuration without checks. bowline does not support early data, or server data before the
    /// client's Finished. Both are turned off in a copy; [`warnings`](ServerTls::warnings) says so (rule: secure-11).
    fn from(mut config: Arc<ServerConfig>) -> Self {
        let mut warnings = Vec::new();
        if config.max_early_data_size > 0 {
            Arc::make_mut(&mut config).max_early_data_size = 0;
            warnings.push(turned_off("max_early_data_size", "early data is accepted from no client"));
        }
        if config.send_half_rtt_data {
            Arc::make_mut(&mut config).send_half_rtt_data = false;
            warnings.push(turned_off("send_half_rtt_data", "nothing is sent before the handshake is done"));
        }
        Self(Arc::new(Settings { config, own: None, warnings: warnings.into(), express: false }))
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let own = self.own_certificates().and_then(|chain| super::subject(chain.first()?));
        f.debug_struct("ServerTls").field("own", &own).field("warnings", &self.0.warnings).finish_non_exhaustive()
    }
}

/// Makes a [`ServerTls`]. Files are read and everything is checked by [`build`](Self::build).
#[derive(Debug, Default)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct ServerTlsBuilder {
    common: Common,
    client_roots: Vec<RootSource>,
    client_auth_optional: bool,
    tickets: Option<u8>,
}

impl ServerTlsBuilder {
    /// Our own certificate chain and private key from PEM files; both may be in one file. The chain starts with the
    /// server's certificate, followed by its issuer; leave out the root.
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

    /// Requires from every client a certificate that one of the CAs in this PEM file has issued (mutual TLS). May be
    /// called several times.
    ///
    /// The names of the CAs are sent to clients as a hint. You may also add a client's self-signed certificate, unless
    /// it is marked as a CA certificate. The holder of its key can then issue certificates for other clients too.
    #[doc(alias = "verify_mode")]
    #[doc(alias = "ClientAuth")]
    pub fn client_ca_pem_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.client_roots.push(RootSource::Pem(Source::File(path.into())));
        self
    }

    /// The same from PEM text in memory.
    pub fn client_ca_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.client_roots.push(RootSource::Pem(Source::Bytes(pem.into())));
        self
    }

    /// Also accepts clients that present no certificate. A certificate that a client does present must still be valid.
    pub fn client_auth_optional(mut self) -> Self {
        self.client_auth_optional = true;
        self
    }

    /// Lists of revoked client certificates, from a PEM file. May be called several times.
    ///
    /// Once one list is given, every certificate of a client's chain is checked strictly: each issuer in the chain
    /// needs a list, and a list that is past its next update does not count.
    pub fn client_crl_pem_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.common.revocation_lists.push(Source::File(path.into()));
        self
    }

    /// The same from PEM text in memory.
    pub fn client_crl_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.common.revocation_lists.push(Source::Bytes(pem.into()));
        self
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

    /// The number of tickets that the server sends to a client to resume TLS 1.3 sessions; default 2, as in rustls.
    /// With `0` no TLS 1.3 session is resumed.
    ///
    /// A ticket is used once. A client that opens many connections at once resumes as many of them as it has tickets,
    /// so send one ticket for each such connection. Each ticket costs about 250 bytes after every handshake. If you set
    /// your own crypto provider, each ticket also takes one of the 256 entries of the session cache.
    #[doc(alias = "send_tls13_tickets")]
    #[doc(alias = "num_tickets")]
    pub fn send_tickets(mut self, count: u8) -> Self {
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
    /// Sessions are resumed by stateless tickets, encrypted by the provider of the enabled feature. If the caller sets
    /// a provider, sessions are resumed from a cache in memory instead, so that their secrets are never encrypted with
    /// a cipher that the caller has not chosen.
    ///
    /// # Errors
    /// [`ConfigError`](crate::ConfigError): a mistake in the configuration.
    pub fn build(mut self) -> Result<ServerTls, Error> {
        let provider = self.common.provider()?;
        let identity = self.common.identity.take().ok_or_else(|| fail(None, ConfigProblem::NoIdentity))?;
        let LoadedIdentity { certified, mut warnings } = identity.load(&provider, true)?;
        warnings.extend(self.common.unused_lists(&self.client_roots));
        let own = certified.cert.clone();
        let mut config = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(self.common.versions()?)
            .map_err(|error| contradiction(error.to_string()))?
            .with_client_cert_verifier(self.client_verifier(&provider)?)
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        config.alpn_protocols = self.common.alpn()?;
        if let Some(count) = self.tickets {
            config.send_tls13_tickets = count.into();
        }
        if let Some(key_log) = self.common.key_log() {
            config.key_log = key_log;
        }
        if self.common.provider.is_none() {
            config.ticketer = feature_ticketer().unwrap_or(config.ticketer);
        }
        let made = ServerTls(Arc::new(Settings {
            config: Arc::new(config),
            own: Some(own.into()),
            warnings: warnings.into(),
            express: false,
        }));
        #[cfg(feature = "express")]
        if self.common.express {
            return made.express();
        }
        Ok(made)
    }

    fn client_verifier(&self, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ClientCertVerifier>, Error> {
        if self.client_roots.is_empty() {
            return match (self.client_auth_optional, self.common.revocation_lists.is_empty()) {
                (false, true) => Ok(Arc::new(NoClientAuth)),
                (true, _) => Err(contradiction("optional client certificates need a CA that vouches for them")),
                (_, false) => Err(contradiction("a list of revoked client certificates needs a CA of clients")),
            };
        }
        let mut roots = RootCertStore::empty();
        for source in &self.client_roots {
            roots.add_parsable_certificates(source.load()?);
        }
        let roots = Arc::new(roots);
        let lists = self.common.revocation_lists(&roots, provider)?;
        let mut verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone())
            .with_crls(lists)
            .enforce_revocation_expiration();
        if self.client_auth_optional {
            verifier = verifier.allow_unauthenticated();
        }
        verifier.build().map_err(|error| contradiction(error.to_string()))
    }

    fn identity_source(mut self, source: IdentitySource) -> Self {
        self.common.identity = Some(source);
        self
    }
}

fn feature_ticketer() -> Option<Arc<dyn ProducesTickets>> {
    #[cfg(feature = "aws-lc-rs")]
    return rustls::crypto::aws_lc_rs::Ticketer::new().ok();
    #[cfg(all(feature = "ring", not(feature = "aws-lc-rs")))]
    return rustls::crypto::ring::Ticketer::new().ok();
    #[cfg(not(any(feature = "aws-lc-rs", feature = "ring")))]
    return None;
}
