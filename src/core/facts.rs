//! The result of a handshake.

use std::fmt;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::{CipherSuite, HandshakeKind, NamedGroup, ProtocolVersion};

use crate::escape::escaped;

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
}

impl fmt::Debug for SessionFacts {
    /// Shows only the number of certificates, because their bytes are not readable.
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
            .finish()
    }
}

impl SessionFacts {
    pub(crate) fn of(
        tls: &rustls::CommonState,
        sni: Option<String>,
        own_chain: Arc<[CertificateDer<'static>]>,
    ) -> Self {
        Self {
            version: tls.protocol_version().unwrap_or(ProtocolVersion::Unknown(0)),
            cipher: tls.negotiated_cipher_suite().map_or(CipherSuite::Unknown(0), |suite| suite.suite()),
            group: tls.negotiated_key_exchange_group().map(|group| group.name()),
            alpn: tls.alpn_protocol().map(<[u8]>::to_vec),
            sni,
            resumed: tls.handshake_kind() == Some(HandshakeKind::Resumed),
            peer_chain: tls.peer_certificates().map_or_else(Arc::default, Arc::from),
            own_chain,
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
