//! The result of a handshake.

use std::fmt;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::{CipherSuite, HandshakeKind, NamedGroup, ProtocolVersion};

use super::binding::{ChannelBinding, EXPORTER_LEN, Hashes};
use crate::certificate::{AlternativeName, Certificate, MAX_NAMES, TooMany};
use crate::error::{Error, SessionError};
use crate::escape::escaped;
use crate::policy::Role;

/// The facts of a session that are known before its handshake.
pub(super) struct InitialFacts {
    pub(super) role: Role,
    pub(super) sni: Option<String>,
    pub(super) own_chain: Arc<[CertificateDer<'static>]>,
    /// The name of the server's identity.
    pub(super) identity: Option<Arc<str>>,
    /// The generation of our configuration.
    pub(super) generation: Option<u64>,
    pub(super) hashes: Hashes,
}

/// The facts of a TLS session. They are available from the end of the handshake on, even after the connection has
/// ended (rule: secure-3).
#[doc(alias = "getPeerCertificate")]
#[doc(alias = "negotiatedProtocol")]
#[doc(alias = "ssl_object")]
#[derive(Clone)]
#[non_exhaustive]
pub struct SessionFacts {
    /// TLS 1.2 or TLS 1.3.
    pub version: ProtocolVersion,
    /// The cipher suite.
    pub cipher: CipherSuite,
    /// The key exchange group; `None` for a resumed TLS 1.2 session, which exchanges no keys.
    pub group: Option<NamedGroup>,
    /// The application protocol that ALPN chose.
    pub alpn: Option<Vec<u8>>,
    /// The name that the client requested (SNI). A client that connects to an IP address sends none.
    pub sni: Option<String>,
    /// Whether an earlier session was resumed.
    pub resumed: bool,
    /// The peer's certificates, the end-entity certificate first; empty if the peer sent none.
    pub peer_chain: Arc<[CertificateDer<'static>]>,
    /// Our own certificates. They are known only if the configuration was made from an identity. Empty if a
    /// certificate resolver of the application chose them.
    pub own_chain: Arc<[CertificateDer<'static>]>,
    /// On a server, the name of the identity that the connection uses: see
    /// [`ServerTls::identities`](crate::ServerTls::identities). `None` on a client, and with a configuration that came
    /// from rustls.
    pub identity: Option<Arc<str>>,
    /// The [generation](crate::ServerTls::generation) of our configuration when the handshake began. `None` if another
    /// library began the session.
    pub generation: Option<u64>,
    role: Role,
    /// For `tls-server-end-point`, which is computed only when it is requested.
    hashes: Hashes,
    /// `tls-exporter`.
    exporter: Result<[u8; EXPORTER_LEN], Box<SessionError>>,
}

impl fmt::Debug for SessionFacts {
    /// Shows only the number of certificates, because their bytes are not readable, and no channel bindings, because
    /// they may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionFacts")
            .field("version", &self.version)
            .field("cipher", &self.cipher)
            .field("group", &self.group)
            .field("alpn", &self.alpn.as_deref().map(|alpn| escaped(alpn).to_string()))
            .field("sni", &self.sni)
            .field("resumed", &self.resumed)
            .field("peer_chain", &self.peer_chain.len())
            .field("own_chain", &self.own_chain.len())
            .field("identity", &self.identity)
            .field("generation", &self.generation)
            .finish()
    }
}

impl SessionFacts {
    pub(super) fn of(tls: &rustls::CommonState, known: InitialFacts) -> Self {
        let InitialFacts { role, sni, own_chain, identity, generation, hashes } = known;
        Self {
            version: tls.protocol_version().unwrap_or(ProtocolVersion::Unknown(0)),
            cipher: tls.negotiated_cipher_suite().map_or(CipherSuite::Unknown(0), |suite| suite.suite()),
            group: tls.negotiated_key_exchange_group().map(|group| group.name()),
            alpn: tls.alpn_protocol().map(<[u8]>::to_vec),
            sni,
            resumed: tls.handshake_kind() == Some(HandshakeKind::Resumed),
            peer_chain: tls.peer_certificates().map_or_else(Arc::default, Arc::from),
            own_chain,
            identity,
            generation,
            role,
            hashes,
            exporter: Err(Box::new(SessionError::NotSecured)),
        }
    }

    /// Facts for tests: TLS 1.3, no ALPN, no certificates. Change the fields that a test needs. There is no session, so
    /// there are no channel bindings.
    ///
    /// ```
    /// use bowline::testing::{Recorder, pki::Pki};
    /// use bowline::{Role, SessionFacts};
    ///
    /// let mut facts = SessionFacts::for_tests(Role::Server);
    /// facts.alpn = Some(b"h2".to_vec());
    /// facts.peer_chain = Pki::new().client("alice").chain_der().into();
    /// let recorder = Recorder::secure(facts);
    /// # let _ = recorder;
    /// ```
    #[cfg(feature = "testing")]
    pub fn for_tests(role: Role) -> Self {
        Self {
            version: ProtocolVersion::TLSv1_3,
            cipher: CipherSuite::TLS13_AES_256_GCM_SHA384,
            group: Some(NamedGroup::X25519),
            alpn: None,
            sni: None,
            resumed: false,
            peer_chain: Arc::default(),
            own_chain: Arc::default(),
            identity: None,
            generation: None,
            role,
            hashes: Hashes(None),
            exporter: Err(Box::new(SessionError::NotSecured)),
        }
    }

    pub(super) fn with_exporter(mut self, export: impl FnOnce(&mut [u8]) -> Result<(), SessionError>) -> Self {
        let mut out = [0; EXPORTER_LEN];
        self.exporter = export(&mut out).map(|()| out).map_err(Box::new);
        self
    }

    /// The subject alternative names of the peer's certificate (RFC 5280, section 4.2.1.6): DNS names, IP addresses,
    /// URIs such as SPIFFE ids, mail addresses. Empty if the peer sent no certificate, or one without such names.
    ///
    /// The handshake has verified that a trusted authority issued the certificate, and a client has checked that it is
    /// valid for the name that it connected to. A server that accepts clients by name has to compare the names itself.
    /// With [`dangerous_no_verification`](crate::config::ClientTlsBuilder::dangerous_no_verification), the peer may
    /// have chosen any names.
    ///
    /// ```
    /// # fn is_billing(session: &bowline::SessionFacts) -> Result<bool, bowline::Error> {
    /// use bowline::AlternativeName;
    ///
    /// let billing = AlternativeName::Uri("spiffe://example.com/billing".into());
    /// Ok(session.peer_alternative_names()?.contains(&billing))
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`SessionError::UnreadableCertificate`]: the certificate or the extension is not valid DER.
    /// [`SessionError::TooManyNames`]: there are more than 1024 names. The peer's certificate has caused both. A single
    /// name that violates the RFC is not an error, but an entry [`AlternativeName::Unreadable`].
    #[doc(alias = "subjectAltName")]
    #[doc(alias = "DNSNames")]
    pub fn peer_alternative_names(&self) -> Result<Vec<AlternativeName>, Error> {
        let Some(certificate) = self.peer_chain.first() else { return Ok(Vec::new()) };
        let names = Certificate::from_der(certificate).and_then(|parsed| parsed.alternative_names());
        match names {
            Some(Ok(names)) => Ok(names),
            Some(Err(TooMany)) => Err(SessionError::TooManyNames { limit: MAX_NAMES }.into()),
            None => Err(SessionError::UnreadableCertificate.into()),
        }
    }

    /// A channel binding of the session, for SASL mechanisms such as SCRAM-SHA-256-PLUS: bytes that are equal on both
    /// sides of this session, and that an attacker between two sessions cannot make equal. It can be read after the end
    /// too.
    ///
    /// `tls-server-end-point` has 32, 48 or 64 bytes, `tls-exporter` has 32. A connection with several nested TLS
    /// sessions has bindings for each of them. [`tls`](crate::TlsTransport::tls) returns those of the innermost
    /// session, which was started last and transfers the application's data. For the bindings of an outer session, keep
    /// its facts before you start the next session.
    ///
    /// # Errors
    /// The [`SessionError`] names the condition of the [binding](ChannelBinding) that is not met.
    #[doc(alias = "get_channel_binding")]
    #[doc(alias = "TLSUnique")]
    pub fn channel_binding(&self, binding: ChannelBinding) -> Result<Vec<u8>, Error> {
        match binding {
            ChannelBinding::TlsExporter => match &self.exporter {
                Ok(bytes) => Ok(bytes.to_vec()),
                Err(error) => Err((**error).clone().into()),
            },
            ChannelBinding::TlsServerEndPoint => {
                let of_server = match self.role {
                    Role::Client => &self.peer_chain,
                    Role::Server => &self.own_chain,
                };
                let certificate = of_server.first().ok_or(SessionError::NoServerCertificate)?;
                Ok(self.hashes.end_point(certificate)?)
            }
        }
    }

    /// The version as it is usually written: `TLSv1.3`.
    pub fn version_name(&self) -> String {
        match self.version {
            ProtocolVersion::TLSv1_2 => "TLSv1.2".into(),
            ProtocolVersion::TLSv1_3 => "TLSv1.3".into(),
            other => format!("{other:?}"),
        }
    }

    /// The cipher suite by its IANA name: `TLS_AES_128_GCM_SHA256`.
    pub fn cipher_name(&self) -> String {
        let name = format!("{:?}", self.cipher);
        match name.strip_prefix("TLS13_") {
            Some(rest) => format!("TLS_{rest}"),
            None => name,
        }
    }

    /// The key exchange group by its usual name: `X25519MLKEM768`.
    pub fn group_name(&self) -> Option<String> {
        self.group.map(|group| format!("{group:?}"))
    }
}
