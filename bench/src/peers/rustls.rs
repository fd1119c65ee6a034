//! tokio-rustls, and the rustls configurations that it shares with bowline.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::crypto::aws_lc_rs::{cipher_suite, kx_group};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{CipherSuite, ClientConfig, HandshakeKind, ProtocolVersion, RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::{Facts, Stack};
use crate::error::Result;
use crate::pki::Pki;
use crate::setup::Setup;
use crate::spec::Tls;

/// Both configurations.
#[derive(Debug, Clone)]
pub struct Configs {
    pub client: Arc<ClientConfig>,
    pub server: Arc<ServerConfig>,
}

impl Configs {
    pub fn new(pki: &Pki, setup: Setup) -> Result<Self> {
        let mut provider = aws_lc_rs::default_provider();
        provider.cipher_suites =
            vec![cipher_suite::TLS13_AES_128_GCM_SHA256, cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256];
        provider.kx_groups = vec![if setup.post_quantum { kx_group::X25519MLKEM768 } else { kx_group::X25519 }];
        let provider = Arc::new(provider);
        let versions: &[&rustls::SupportedProtocolVersion] = match setup.tls {
            Tls::V13 => &[&rustls::version::TLS13],
            Tls::V12 => &[&rustls::version::TLS12],
        };
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(pki.ca.as_bytes())?)?;
        let mut client = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(versions)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let chain = vec![CertificateDer::from_pem_slice(pki.cert.as_bytes())?];
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)?
            .with_no_client_auth()
            .with_single_cert(chain, PrivateKeyDer::from_pem_slice(pki.key.as_bytes())?)?;
        if setup.resume {
            server.ticketer = aws_lc_rs::Ticketer::new()?;
            server.send_tls13_tickets = 1;
        } else {
            client.resumption = rustls::client::Resumption::disabled();
            server.send_tls13_tickets = 0;
        }
        if setup.http2 {
            server.alpn_protocols = vec![b"h2".to_vec()];
        }
        Ok(Self { client: Arc::new(client), server: Arc::new(server) })
    }
}

#[derive(Clone)]
pub struct TokioRustls {
    connector: TlsConnector,
    acceptor: TlsAcceptor,
    name: ServerName<'static>,
    limit: Option<usize>,
}

impl TokioRustls {
    pub fn new(pki: &Pki, setup: Setup) -> Result<Self> {
        let configs = Configs::new(pki, setup)?;
        let (connector, acceptor) = (configs.client.into(), configs.server.into());
        Ok(Self { connector, acceptor, name: ServerName::try_from("localhost")?, limit: None })
    }

    /// Sets how many bytes of a write rustls accepts at a time. Its default is 64 KiB.
    pub fn limit(self, bytes: usize) -> Self {
        Self { limit: Some(bytes), ..self }
    }

    fn limited(&self, mut stream: TlsStream<TcpStream>) -> TlsStream<TcpStream> {
        if self.limit.is_some() {
            match &mut stream {
                TlsStream::Client(stream) => stream.get_mut().1.set_buffer_limit(self.limit),
                TlsStream::Server(stream) => stream.get_mut().1.set_buffer_limit(self.limit),
            }
        }
        stream
    }
}

impl Stack for TokioRustls {
    type Stream = TlsStream<TcpStream>;
    const FLUSHES: bool = true;

    async fn connect(&self, tcp: TcpStream) -> Result<Self::Stream> {
        Ok(self.limited(self.connector.connect(self.name.clone(), tcp).await?.into()))
    }

    async fn accept(&self, tcp: TcpStream) -> Result<Self::Stream> {
        Ok(self.limited(self.acceptor.accept(tcp).await?.into()))
    }

    fn facts(stream: &Self::Stream) -> Option<Facts> {
        let common = stream.get_ref().1;
        Some(facts(
            common.protocol_version()?,
            common.negotiated_cipher_suite()?.suite(),
            common.handshake_kind()? == HandshakeKind::Resumed,
        ))
    }
}

/// Converts rustls's facts to ours.
pub fn facts(version: ProtocolVersion, suite: CipherSuite, resumed: bool) -> Facts {
    Facts {
        version: match version {
            ProtocolVersion::TLSv1_3 => "1.3".to_owned(),
            ProtocolVersion::TLSv1_2 => "1.2".to_owned(),
            other => format!("{other:?}"),
        },
        aes128: matches!(
            suite,
            CipherSuite::TLS13_AES_128_GCM_SHA256 | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
        ),
        resumed,
    }
}
