//! The server's configuration.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ProducesTickets, ResolvesServerCert, ServerConfig};

use super::blueprint::{Change, turn_off_unsupported};
use super::cell::{self, Cell};
use super::client_auth::ClientAuth;
use super::common::Common;
use super::directory::Directory;
use super::identities::{Identity, IdentityInfo};
use super::identity::IdentitySource;
use super::in_memory::InMemory;
use super::pem::Source;
use super::settings::Settings;
use super::shared_methods::{impl_builder, impl_tls};
use super::ticket_keys::KeyFiles;
use super::ticketer::Ticketer;
use super::volume::{Reading, Volumes};
use super::{ConfigWarning, TicketKeys, TlsVersion};
use crate::core::engine::EngineKind;
use crate::core::session::Session;
use crate::error::Error;
use crate::policy::Watermarks;

/// The TLS configuration of a server. Cheap to clone; made by [`ServerTls::builder`] or from an
/// `Arc<rustls::ServerConfig>`. Clones are handles of one configuration: [`replace`](Self::replace) changes it for all
/// of them.
///
/// ```no_run
/// use bowline::ServerTls;
///
/// // A server that asks its clients for certificates of this CA, and offers HTTP/2.
/// let tls = ServerTls::builder()
///     .identity_pem_files("chain.pem", "key.pem")
///     .client_ca_pem_file("clients.pem")
///     .alpn(["h2", "http/1.1"])
///     .build()?;
/// # Ok::<(), bowline::Error>(())
/// ```
#[doc(alias = "CertificateOptions")]
#[doc(alias = "SSLContext")]
#[derive(Clone)]
pub struct ServerTls(Arc<Cell<ServerConfig>>);

impl_tls!(ServerTls, "ServerTlsBuilder", ServerConfig, cell::keep_sessions,
    /// Clients can still resume sessions of the old configuration, unless anything that decides which clients are
    /// accepted has changed: the CAs of clients, the lists of revoked certificates, or the crypto provider. A
    /// configuration that came from rustls brings its own tickets (rule: reload-3).
    ///
    /// ```
    /// # use bowline::ServerTls;
    /// # fn renew(tls: &ServerTls) -> Result<(), bowline::Error> {
    /// let renewed = ServerTls::builder().identity_pem_files("chain.pem", "key.pem").build()?;
    /// println!("generation {} is in use", tls.replace(renewed));
    /// # Ok(()) }
    /// ```
);

impl ServerTls {
    /// Begins a configuration. A server needs at least an identity.
    pub fn builder() -> ServerTlsBuilder {
        ServerTlsBuilder::default()
    }

    /// The chain that is presented to clients, our own certificate first. `None` if the configuration came from rustls,
    /// which does not expose it.
    pub fn own_certificates(&self) -> Option<Arc<[CertificateDer<'static>]>> {
        self.0.now().own.clone()
    }

    /// The identities, in the order in which they were given, for metrics and log lines. Empty if the configuration
    /// came from rustls.
    ///
    /// ```
    /// # use bowline::ServerTls;
    /// # fn show(tls: &ServerTls) {
    /// for identity in tls.identities().iter() {
    ///     println!("{} expires at {:?}", identity.name, identity.not_after);
    /// }
    /// # }
    /// ```
    pub fn identities(&self) -> Arc<[IdentityInfo]> {
        Arc::clone(&self.0.now().identities)
    }

    /// Checks everything and makes the configuration.
    pub(super) fn from_memory(read: &InMemory) -> Result<Self, Error> {
        Self(read.settings()?.into()).with_engine(&read.common)
    }

    /// The keys of the tickets in use, if servers share them: see
    /// [`ticket_keys`](ServerTlsBuilder::ticket_keys) and [`ticket_key_files`](ServerTlsBuilder::ticket_key_files).
    ///
    /// Keys from files are in use until the configuration is replaced, so call this again after a
    /// [replacement](Self::replace).
    pub fn ticket_keys(&self) -> Option<TicketKeys> {
        self.0.now().sessions.as_ref()?.keys().cloned()
    }

    /// A session of the core, which does no I/O, with the configured engine.
    #[cfg(feature = "unstable")]
    #[doc(hidden)]
    pub fn session(&self, marks: Watermarks) -> Result<Session, Error> {
        self.new_session(marks)
    }

    /// A session with the configured engine.
    #[cfg_attr(not(feature = "tokio"), allow(dead_code))] // Only the transports call this method.
    pub(crate) fn new_session(&self, marks: Watermarks) -> Result<Session, Error> {
        // Our own chain is left empty here: the certificate resolver records the identity that it chooses in the
        // handshake.
        let settings = self.0.now();
        let session = Session::server(settings.engine, Arc::clone(&settings.config), Arc::default(), marks)?;
        let session = session.of_generation(settings.generation);
        Ok(match &settings.choices {
            None => session,
            Some(choices) => session.choosing(settings.engine, choices.clone()),
        })
    }
}

impl From<Arc<ServerConfig>> for ServerTls {
    /// Takes a rustls configuration without checks. bowline does not support early data, or server data before the
    /// client's Finished. Both are turned off in a copy; [`warnings`](ServerTls::warnings) says so (rule: secure-11).
    fn from(mut config: Arc<ServerConfig>) -> Self {
        let mut warnings = Vec::new();
        if config.max_early_data_size > 0 || config.send_half_rtt_data {
            warnings = turn_off_unsupported(Arc::make_mut(&mut config));
        }
        Self(Settings::new(config, None, warnings).into())
    }
}

/// Makes a [`ServerTls`]. Files are read and everything is checked by [`build`](Self::build).
#[derive(Debug, Clone, Default)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct ServerTlsBuilder {
    common: Common,
    more_identities: Vec<MoreIdentities>,
    default_identity: Option<String>,
    /// Refuses a client that asks for a name that no identity has. If false, such a client gets the default identity.
    refuse_unknown_names: bool,
    client_auth: ClientAuth,
    tickets: Option<u8>,
    ticketer: Ticketer,
    resolver: Option<Arc<dyn ResolvesServerCert>>,
    changes: Vec<Change<ServerConfig>>,
}

impl_builder!(ServerTlsBuilder, ServerTls);

/// Identities after the first one.
#[derive(Debug, Clone)]
enum MoreIdentities {
    One(Box<Identity>),
    Directory(PathBuf),
}

impl ServerTlsBuilder {
    /// Adds an identity. May be called several times. An identity from [`identity_pem_files`](Self::identity_pem_files)
    /// comes before all of these.
    ///
    /// The server chooses an identity by the server name that the client asks for (SNI): the identity whose certificate
    /// contains this name, or else an identity with a wildcard for it (`*.example.com` covers one label more, as in
    /// `www.example.com`). The comparison ignores upper case and a dot at the end. If several identities have the name,
    /// the server uses the first one whose kind of key the client supports (ECDSA or RSA). A client that asks for no
    /// name, or for an unknown one, gets the [default identity](Self::default_identity) (rules: identity-1,
    /// identity-2).
    #[doc(alias = "crt-list")]
    #[doc(alias = "ResolvesServerCertUsingSni")]
    pub fn add_identity(mut self, identity: Identity) -> Self {
        self.more_identities.push(MoreIdentities::One(Box::new(identity)));
        self
    }

    /// Adds every identity in a directory, in the order of their names: each pair `NAME.pem` and `NAME.key`, and each
    /// folder `NAME` with `tls.crt` and `tls.key` in it, as Kubernetes mounts secrets. The directory itself may contain
    /// `tls.crt` and `tls.key`. `NAME.ocsp` or `tls.ocsp` is the OCSP response. Names that begin with a dot are ignored
    /// (rule: identity-5).
    ///
    /// The directory is read by [`build`](Self::build). If Kubernetes replaces the files of a volume in the meantime,
    /// all files are from one revision (rule: identity-6). A mistake in one file is an error, and names the file.
    pub fn identities_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.more_identities.push(MoreIdentities::Directory(dir.into()));
        self
    }

    /// Sets the identity for clients that ask for no name or for an unknown one, by its name in
    /// [`ServerTls::identities`]. Default: the first identity.
    #[doc(alias = "default_server")]
    pub fn default_identity(mut self, name: impl Into<String>) -> Self {
        self.default_identity = Some(name.into());
        self
    }

    /// Refuses a client that asks for an unknown name, with the alert `unrecognized_name` (RFC 6066 section 3), instead
    /// of using the default identity. A client that asks for no name still gets the default identity.
    #[doc(alias = "strict-sni")]
    #[doc(alias = "ssl_reject_handshake")]
    pub fn refuse_unknown_names(mut self) -> Self {
        self.refuse_unknown_names = true;
        self
    }

    /// Requires from every client a certificate that one of the CAs in this PEM file has issued (mutual TLS). May be
    /// called several times.
    ///
    /// The names of the CAs are sent to clients as a hint. You may also add a client's self-signed certificate, unless
    /// it is marked as a CA certificate. The holder of its key can then issue certificates for other clients too.
    #[doc(alias = "verify_mode")]
    #[doc(alias = "ClientAuth")]
    pub fn client_ca_pem_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.client_auth = self.client_auth.ca_pem_file(path);
        self
    }

    /// As [`client_ca_pem_file`](Self::client_ca_pem_file), from PEM text in memory.
    pub fn client_ca_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.client_auth = self.client_auth.ca_pem(pem);
        self
    }

    /// Also accepts clients that present no certificate. A certificate that a client does present must still be valid.
    pub fn client_auth_optional(mut self) -> Self {
        self.client_auth = self.client_auth.optional();
        self
    }

    /// Lists of revoked client certificates, from a PEM file. May be called several times.
    ///
    /// Once one list is given, every certificate of a client's chain is checked strictly: each issuer in the chain
    /// needs a list, and a list that is past its next update does not count.
    pub fn client_crl_pem_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.client_auth = self.client_auth.crl_pem_file(path);
        self
    }

    /// As [`client_crl_pem_file`](Self::client_crl_pem_file), from PEM text in memory.
    pub fn client_crl_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.client_auth = self.client_auth.crl_pem(pem);
        self
    }

    /// Checks only the client's own certificate against the lists, not the certificates of its issuers.
    #[doc(alias = "only_check_end_entity_revocation")]
    pub fn client_crl_leaf_only(mut self) -> Self {
        self.client_auth = self.client_auth.crl_leaf_only();
        self
    }

    /// Accepts a client's certificate whose issuer has no list, or only a list for other certificates. A list that is
    /// past its next update is still an error.
    #[doc(alias = "allow_unknown_revocation_status")]
    pub fn client_crl_tolerate_unknown_status(mut self) -> Self {
        self.client_auth = self.client_auth.crl_tolerate_unknown_status();
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

    /// Sets how the tickets for resumed sessions are encrypted: for example, with keys that several servers share.
    /// Default: with a random key of this configuration.
    ///
    /// A ticket is used only under the policy for client certificates under which it was made: the same CAs, revocation
    /// lists and settings, also in another process with the same ticketer (rule: identity-8).
    ///
    /// This replaces [`ticket_keys`](Self::ticket_keys), which is simpler for keys that servers share.
    pub fn ticketer(mut self, ticketer: Arc<dyn ProducesTickets>) -> Self {
        self.ticketer = Ticketer::Chosen(ticketer);
        self
    }

    /// Encrypts the tickets for resumed sessions with these keys, so that a client can resume its session on each
    /// server that has them. This replaces [`ticketer`](Self::ticketer). [`build`](Self::build) fails for a crypto
    /// provider whose cipher suites are not those of rustls's providers for aws-lc-rs or ring (rule: ticket-7).
    #[doc(alias = "SetSessionTicketKeys")]
    #[doc(alias = "ssl_session_ticket_key")]
    #[doc(alias = "tls-ticket-keys")]
    pub fn ticket_keys(mut self, keys: &TicketKeys) -> Self {
        self.ticketer = Ticketer::Keys(keys.clone());
        self
    }

    /// As [`ticket_keys`](Self::ticket_keys), with keys from files. A file has one of two forms:
    ///
    /// - one key of 48 or 80 random bytes, as nginx reads it (`openssl rand 80`);
    /// - at least three such keys, each in base64 on a line of its own, as HAProxy reads it. The last but one seals new
    ///   tickets, so that the last one can be distributed before it is used. All of them open tickets.
    ///
    /// The first file has the key that seals new tickets. The keys of all files open tickets. The first 16 bytes of a
    /// key are its name. Only the keys are shared with these programs, not the tickets: each program has its own
    /// format.
    ///
    /// The files are read by [`build`](Self::build), with all other files. To rotate the keys, build again and
    /// [replace](ServerTls::replace) the configuration: then the certificates and the keys change together (rule:
    /// ticket-8).
    #[doc(alias = "ssl_session_ticket_key")]
    #[doc(alias = "tls-ticket-keys")]
    pub fn ticket_key_files(mut self, files: impl IntoIterator<Item = impl Into<PathBuf>>) -> Self {
        self.ticketer = Ticketer::Files(KeyFiles::new(files));
        self
    }

    /// Chooses the certificates by the application, instead of identities of the builder.
    ///
    /// [`SessionFacts::own_chain`](crate::SessionFacts::own_chain) and the channel bindings know the chain that was
    /// chosen (rule: identity-9).
    #[doc(alias = "GetCertificate")]
    pub fn cert_resolver(mut self, resolver: Arc<dyn ResolvesServerCert>) -> Self {
        self.resolver = Some(resolver);
        self
    }

    /// Changes rustls's configuration, for a setting that the builder does not have. May be called several times. Each
    /// change is applied when the configuration is built, in this order, also to the configuration of an identity with
    /// its own settings.
    ///
    /// The rest of the builder stays in effect: the warnings, the chain in the facts, the express engine. Settings that
    /// bowline does not support are turned off, with a warning (rules: identity-9, secure-11).
    ///
    /// ```
    /// # let builder = bowline::ServerTls::builder();
    /// let builder = builder.customize(|config| config.ignore_client_order = true);
    /// ```
    pub fn customize(mut self, change: impl Fn(&mut ServerConfig) + Send + Sync + 'static) -> Self {
        self.changes.push(Change(Arc::new(change)));
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
    pub fn build(self) -> Result<ServerTls, Error> {
        ServerTls::from_memory(&self.read_files(Reading::First)?)
    }

    /// Reads all files, in one revision.
    pub(super) fn read_files(&self, reading: Reading) -> Result<InMemory, Error> {
        Volumes::read(reading, |volumes| {
            let Self { mut common, default_identity, mut client_auth, mut ticketer, resolver, changes, .. } =
                self.clone();
            let mut warnings = Vec::new();
            let mut identities: Vec<Identity> = common.identity.take().map(Identity::of).into_iter().collect();
            for member in &self.more_identities {
                match member {
                    MoreIdentities::One(identity) => identities.push((**identity).clone()),
                    MoreIdentities::Directory(dir) => {
                        let listed = Directory::list(dir, volumes)?;
                        warnings.extend(listed.warnings());
                        for identity in listed.identities() {
                            identities.push(identity.in_memory(volumes)?);
                        }
                    }
                }
            }
            common.read_files(volumes);
            identities.iter_mut().for_each(|identity| identity.read_files(volumes));
            client_auth.read_files(volumes);
            ticketer.read_files(volumes);
            let (refuse_unknown_names, tickets) = (self.refuse_unknown_names, self.tickets);
            Ok(InMemory {
                common,
                identities,
                warnings,
                default_identity,
                refuse_unknown_names,
                client_auth,
                tickets,
                ticketer,
                resolver,
                changes,
            })
        })
    }
}
