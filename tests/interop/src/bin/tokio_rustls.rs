//! The peer tokio-rustls.

use std::io::{Error, Result};
use std::sync::Arc;

use bowline_interop::peer::{self, Library};
use bowline_interop::{Options, Report};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::rustls::crypto::aws_lc_rs::{self, kx_group};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ClientConfig, HandshakeKind, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

enum Tls {
    Client(TlsConnector),
    Server(TlsAcceptor),
}

fn tls(options: &Options) -> Tls {
    let mut provider = aws_lc_rs::default_provider();
    if options.post_quantum {
        provider.kx_groups = vec![kx_group::X25519MLKEM768];
    }
    let provider = Arc::new(provider);
    let versions = if options.tls13 { [&TLS13] } else { [&TLS12] };
    let certs = |file: &str| -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_file_iter(file).expect("a file").collect::<std::result::Result<_, _>>().expect("PEM")
    };
    let key = PrivateKeyDer::from_pem_file(&options.key).expect("a key");
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certs(&options.ca));
    let alpn: Vec<Vec<u8>> = options.alpn.iter().map(|name| name.clone().into_bytes()).collect();
    if options.server {
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_protocol_versions(&versions).expect("a version");
        let builder = if options.client_auth {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.expect("roots"))
        } else {
            builder.with_no_client_auth()
        };
        let mut config = builder.with_single_cert(certs(&options.cert), key).expect("an identity");
        config.alpn_protocols = alpn;
        config.ticketer = aws_lc_rs::Ticketer::new().expect("random bytes");
        return Tls::Server(Arc::new(config).into());
    }
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&versions).expect("a version");
    let builder = builder.with_root_certificates(roots);
    let mut config = if options.client_auth {
        builder.with_client_auth_cert(certs(&options.cert), key).expect("an identity")
    } else {
        builder.with_no_client_auth()
    };
    config.alpn_protocols = alpn;
    Tls::Client(Arc::new(config).into())
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let options = Options::parse();
    peer::serve(&options, &tls(&options)).await;
}

impl Library for Tls {
    type Stream = TlsStream<TcpStream>;

    async fn open(&self, tcp: TcpStream) -> Result<Self::Stream> {
        Ok(match self {
            Self::Client(tls) => tls.connect(ServerName::try_from("localhost").expect("a name"), tcp).await?.into(),
            Self::Server(tls) => tls.accept(tcp).await?.into(),
        })
    }

    fn facts(&self, stream: &Self::Stream, report: &mut Report) {
        let session = stream.get_ref().1;
        report.set("version", session.protocol_version().map(|version| format!("{version:?}")));
        report.set("group", session.negotiated_key_exchange_group().map(|group| format!("{:?}", group.name())));
        report.set("alpn", session.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned()));
        report.set("resumed", session.handshake_kind() == Some(HandshakeKind::Resumed));
        report.set("peer", session.peer_certificates().and_then(|chain| bowline::config::subject(chain.first()?)));
    }

    async fn fin(&self, stream: &mut Self::Stream) -> Result<()> {
        stream.get_mut().0.shutdown().await
    }

    fn reset_on_close(&self, stream: &Self::Stream) -> Result<()> {
        stream.get_ref().0.set_zero_linger()
    }

    fn update(&self, stream: &mut Self::Stream, _report: &mut Report) -> Result<()> {
        let updated = match stream {
            TlsStream::Client(stream) => stream.get_mut().1.refresh_traffic_keys(),
            TlsStream::Server(stream) => stream.get_mut().1.refresh_traffic_keys(),
        };
        updated.map_err(Error::other)
    }
}
