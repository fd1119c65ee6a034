//! The client's configuration.

use std::convert::Infallible;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
#[cfg(feature = "tokio")]
use std::time::SystemTime;

use rustls::RootCertStore;
use rustls::client::danger::ServerCertVerifier;
use rustls::client::{ClientConfig, ClientSessionStore, Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::SingleCertAndKey;

use super::blueprint::Change;
use super::cell::Cell;
use super::client_sessions::{ClientSessions, Configuration, SessionsOf};
use super::common::{Common, Revocation, RootSource, checked_alpn, contradiction, turned_off, unused_lists};
use super::fingerprint::Fingerprint;
use super::identity::IdentitySource;
use super::pem::Source;
use super::platform_roots::PlatformRoots;
use super::revocation::Lists;
use super::settings::Settings;
use super::shared_methods::{impl_builder, impl_tls};
use super::verify::{AcceptAnyServer, RootsAsServers};
use super::volume::{Reading, Volumes};
#[cfg(feature = "tokio")]
use super::x509;
use super::{ConfigWarning, TlsVersion};
use crate::core::engine::EngineKind;
use crate::core::session::Session;
use crate::error::{ConfigError, ConfigProblem, Error};
use crate::policy::Watermarks;

/// The TLS configuration of a client. Cheap to clone; made by [`ClientTls::builder`] or from an
/// `Arc<rustls::ClientConfig>`.
///
/// Clones are handles of one configuration: they share the sessions to resume, and [`replace`](Self::replace) changes
/// the configuration for all of them. [`ClientSessions`] are shared by several configurations.
///
/// ```no_run
/// use bowline::ClientTls;
///
/// // A client that trusts the system's roots, and one of a company with a certificate of its own.
/// let public = ClientTls::builder().platform_roots().alpn(["h2", "http/1.1"]).build()?;
/// let internal = ClientTls::builder()
///     .roots_pem_file("company-ca.pem")
///     .identity_pem_files("client.pem", "client.key")
///     .build()?;
/// # Ok::<(), bowline::Error>(())
/// ```
#[doc(alias = "optionsForClientTLS")]
#[doc(alias = "SSLContext")]
#[derive(Clone)]
pub struct ClientTls(Arc<Cell<ClientConfig>>);

impl_tls!(ClientTls, "ClientTlsBuilder", ClientConfig, |_, _| (),
    /// The new configuration starts with no sessions to resume, because a resumed session shows the server the
    /// certificate of the old configuration, and does not verify the server again. If both configurations have the same
    /// [`ClientSessions`] and differ in neither respect, the client continues to resume its sessions.
);

impl ClientTls {
    /// Begins a configuration. A client needs at least one root to trust.
    pub fn builder() -> ClientTlsBuilder {
        ClientTlsBuilder::default()
    }

    /// The chain that is presented to servers that ask for one, our own certificate first. `None` if there is no chain,
    /// or if the configuration came from rustls, which does not expose it.
    pub fn own_certificates(&self) -> Option<Arc<[CertificateDer<'static>]>> {
        self.0.now().own.clone()
    }

    /// The time at which our own certificate expires.
    #[cfg(feature = "tokio")]
    pub(super) fn own_not_after(&self) -> Option<SystemTime> {
        x509::validity(self.own_certificates()?.first()?).map(|(_, to)| to)
    }

    /// A session of the core, which does no I/O, with the configured engine. Its ClientHello is ready to be sent.
    #[cfg(feature = "unstable")]
    #[doc(hidden)]
    pub fn session(&self, name: ServerName<'static>, marks: Watermarks) -> Result<Session, Error> {
        self.new_session(name, marks)
    }

    /// A session with the configured engine.
    #[cfg_attr(not(feature = "tokio"), allow(dead_code))] // Only the transports call this method.
    pub(crate) fn new_session(&self, name: ServerName<'static>, marks: Watermarks) -> Result<Session, Error> {
        let settings = self.0.now();
        let own = settings.own.clone().unwrap_or_default();
        let session = Session::client(settings.engine, Arc::clone(&settings.config), name, own, marks)?;
        Ok(session.of_generation(settings.generation))
    }
}

impl From<Arc<ClientConfig>> for ClientTls {
    /// Takes a rustls configuration without checks. Early data, which bowline does not support, is turned off in a
    /// copy; [`warnings`](ClientTls::warnings) says so (rule: secure-11).
    fn from(mut config: Arc<ClientConfig>) -> Self {
        let mut warnings = Vec::new();
        if config.enable_early_data {
            warnings = turn_off_unsupported(Arc::make_mut(&mut config));
        }
        Self(Settings::new(config, None, warnings).into())
    }
}

/// Makes a [`ClientTls`]. Files are read and everything is checked by [`build`](Self::build).
#[derive(Debug, Clone, Default)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct ClientTlsBuilder {
    common: Common,
    roots: Vec<RootSource>,
    /// Trusts the roots of the system, together with `roots`. Set only with the feature `platform-roots`.
    platform_roots: bool,
    /// The roots of the platform, after they were read.
    of_platform: PlatformRoots,
    /// `build` refuses this together with any roots, so that the error names both settings.
    no_verification: bool,
    changes: Vec<Change<ClientConfig>>,
    tickets: Option<usize>,
    sessions: SessionsOf,
}

impl_builder!(ClientTlsBuilder, ClientTls);

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

    /// As [`roots_pem_file`](Self::roots_pem_file), from PEM text in memory.
    pub fn roots_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.roots.push(RootSource::Pem(Source::Bytes(pem.into())));
        self
    }

    /// As [`roots_pem_file`](Self::roots_pem_file), for one certificate as DER.
    pub fn root(mut self, cert: CertificateDer<'static>) -> Self {
        self.roots.push(RootSource::Der(cert));
        self
    }

    /// Trusts the roots of the operating system, in addition to the roots that you add. The roots are read when the
    /// configuration is built. The [warnings](ClientTls::warnings) say how many of them cannot be used.
    ///
    /// The roots are a part of the contents that [`ClientTls::replace`] compares, so a [`Reloader`](crate::Reloader)
    /// notices when the system trusts other roots. Reading them may take some milliseconds.
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
        self.common.revocation.lists.push(Source::File(path.into()));
        self
    }

    /// As [`crl_pem_file`](Self::crl_pem_file), from PEM text in memory.
    pub fn crl_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.common.revocation.lists.push(Source::Bytes(pem.into()));
        self
    }

    /// Looks only for the server's own certificate in the lists, not for those of its issuers.
    #[doc(alias = "only_check_end_entity_revocation")]
    pub fn crl_leaf_only(mut self) -> Self {
        self.common.revocation.leaf_only = true;
        self
    }

    /// Accepts a server's certificate whose issuer has no list, or only a list for other certificates. A list that is
    /// past its next update is an error all the same.
    #[doc(alias = "allow_unknown_revocation_status")]
    pub fn crl_tolerate_unknown_status(mut self) -> Self {
        self.common.revocation.tolerate_unknown = true;
        self
    }

    /// Changes rustls's configuration, for a setting that the builder does not have. May be called several times. The
    /// changes are applied when the configuration is built, in this order.
    ///
    /// The rest of the builder stays in effect: the warnings, the chain in the facts, the express engine. Settings that
    /// bowline does not support are turned off, with a warning (rules: identity-9, secure-11).
    pub fn customize(mut self, change: impl Fn(&mut ClientConfig) + Send + Sync + 'static) -> Self {
        self.changes.push(Change(Arc::new(change)));
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

    /// Shares the sessions to resume with other configurations, and with later ones. The limits are those of the
    /// [`ClientSessions`], so [`keep_tickets`](Self::keep_tickets) cannot be set too. Replaces an earlier
    /// [`session_store`](Self::session_store).
    #[doc(alias = "ClientSessionCache")]
    pub fn sessions(mut self, sessions: &ClientSessions) -> Self {
        self.sessions = SessionsOf::Shared(sessions.clone());
        self
    }

    /// Keeps the sessions to resume in a store of your own. The store cannot write them to a file or send them to
    /// another process, because rustls does not give access to their contents. It has to limit their number. rustls
    /// resumes a session only with the verifier and the client certificate of the configuration in which it began, so a
    /// store for several configurations has to keep their sessions apart; [`sessions`](Self::sessions) does that.
    /// [`keep_tickets`](Self::keep_tickets) cannot be set too.
    pub fn session_store(mut self, store: Arc<dyn ClientSessionStore>) -> Self {
        self.sessions = SessionsOf::Chosen(store);
        self
    }

    /// Reads the files, checks everything and makes the configuration.
    ///
    /// # Errors
    /// [`ConfigError`](crate::ConfigError): a mistake in the configuration.
    pub fn build(self) -> Result<ClientTls, Error> {
        self.read_files(Reading::First).build_from_memory()
    }

    /// The same builder, after its files were read.
    pub(super) fn read_files(&self, reading: Reading) -> Self {
        let read = Volumes::read(reading, |volumes| {
            let mut read = self.clone();
            read.common.read_files(volumes);
            read.roots.iter_mut().for_each(|source| source.read_file(volumes));
            Ok::<_, Infallible>(read)
        });
        let mut read = read.unwrap_or_else(|never| match never {});
        if read.platform_roots {
            read.of_platform = PlatformRoots::read();
        }
        read
    }

    pub(super) fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of((
            &self.common,
            &self.roots,
            self.platform_roots,
            &self.of_platform,
            self.no_verification,
            (self.tickets, &self.sessions),
            &self.changes,
        ))
    }

    /// The settings that are the same in all configurations that may resume each other's sessions (rule: ticket-11).
    fn trust(&self) -> Fingerprint {
        let Common { identity, min, max, groups, revocation, .. } = &self.common;
        let groups = groups.as_ref().map(|groups| groups.iter().map(|group| u16::from(*group)).collect::<Vec<_>>());
        let of_us = (identity, min, max, groups, self.common.provider_id());
        let of_servers = (&self.roots, self.platform_roots, &self.of_platform, self.no_verification, revocation);
        Fingerprint::of((of_us, of_servers, &self.changes))
    }

    pub(super) fn build_from_memory(mut self) -> Result<ClientTls, Error> {
        let (contents, trust) = (self.fingerprint(), self.trust());
        let provider = self.common.provider()?;
        let versions = self.common.versions()?;
        let mut warnings = Vec::new();
        let verifier = self.verifier(&provider, &mut warnings)?;
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(versions)
            .map_err(|error| contradiction(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&verifier));
        let identity = self
            .common
            .identity
            .take()
            .map(|source| source.load(&provider, &self.common.passphrase, false))
            .transpose()?;
        let mut own = None;
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                own = Some(identity.certified.cert.clone().into());
                warnings.extend(identity.warnings);
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity.certified)))
            }
        };
        config.alpn_protocols = checked_alpn(&self.common.alpn)?;
        self.keep_sessions(&mut config, verifier, trust)?;
        if let Some(key_log) = self.common.key_log() {
            config.key_log = key_log;
        }
        let resolver = Arc::clone(&config.client_auth_cert_resolver);
        self.changes.iter().for_each(|Change(change)| change(&mut config));
        warnings.extend(turn_off_unsupported(&mut config));
        let own = own.filter(|_| Arc::ptr_eq(&resolver, &config.client_auth_cert_resolver));
        let mut settings = Settings::new(config, own, warnings);
        settings.changes = std::mem::take(&mut self.changes).into();
        settings.contents = Some(contents);
        ClientTls(settings.into()).with_engine(&self.common)
    }

    /// Sets the place in which the sessions are kept.
    fn keep_sessions(
        &self,
        config: &mut ClientConfig,
        verifier: Arc<dyn ServerCertVerifier>,
        contents: Fingerprint,
    ) -> Result<(), Error> {
        let own = match (&self.sessions, self.tickets) {
            (SessionsOf::One, tickets) => tickets.unwrap_or(ClientSessions::TICKETS),
            (_, Some(_)) => return Err(contradiction("`keep_tickets` cannot be combined with a store for sessions")),
            (SessionsOf::Chosen(store), None) => {
                config.resumption = Resumption::store(Arc::clone(store));
                return Ok(());
            }
            (SessionsOf::Shared(sessions), None) => {
                let resolver = Arc::clone(&config.client_auth_cert_resolver);
                let alive = (self.common.provider.clone(), self.changes.clone());
                sessions.share(config, Configuration { contents, verifier, resolver, _alive: alive, number: 0 });
                return Ok(());
            }
        };
        config.resumption = ClientSessions::with_limits(NAMES, own).resumption();
        Ok(())
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
        warnings.extend(unused_lists(&self.roots, &self.common.revocation));
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(named.iter().cloned());
        self.of_platform.add_to(&mut roots, warnings);
        if roots.is_empty() {
            // The warnings are part of the error, because no configuration is made from which they could be read.
            let said: Vec<&str> = warnings.iter().map(|warning| warning.detail.as_str()).collect();
            let found = (!said.is_empty()).then(|| said.join("; "));
            return Err(ConfigError::new(None, ConfigProblem::NoRoots).found(found).into());
        }
        let roots = Arc::new(roots);
        let lists = self.common.revocation.load(&roots, provider)?;
        let Revocation { leaf_only, tolerate_unknown, .. } = self.common.revocation;
        let mut webpki = WebPkiServerVerifier::builder_with_provider(roots, provider.clone())
            .with_crls(lists.iter().cloned())
            .enforce_revocation_expiration();
        if leaf_only {
            webpki = webpki.only_check_end_entity_revocation();
        }
        if tolerate_unknown {
            webpki = webpki.allow_unknown_revocation_status();
        }
        let webpki = webpki.build().map_err(|error| contradiction(error.to_string()))?;
        let algorithms = provider.signature_verification_algorithms;
        let lists = Lists { lists, algorithms, tolerate_unknown };
        Ok(Arc::new(RootsAsServers { roots: named, webpki, algorithms, lists }))
    }

    fn accept_any(&self, provider: &CryptoProvider) -> Result<Arc<dyn ServerCertVerifier>, Error> {
        let trusts_somebody = !self.roots.is_empty() || self.platform_roots || self.common.revocation.is_set();
        match trusts_somebody {
            true => Err(contradiction("roots cannot be combined with `dangerous_no_verification`")),
            false => Ok(Arc::new(AcceptAnyServer { algorithms: provider.signature_verification_algorithms })),
        }
    }
}

/// The number of names that a configuration with sessions of its own remembers, as in rustls's own store.
const NAMES: usize = 32;

/// Turns off what bowline does not support (rule: secure-11).
fn turn_off_unsupported(config: &mut ClientConfig) -> Vec<ConfigWarning> {
    match std::mem::take(&mut config.enable_early_data) {
        true => vec![turned_off("enable_early_data", "nothing is sent before the handshake is done")],
        false => Vec::new(),
    }
}
