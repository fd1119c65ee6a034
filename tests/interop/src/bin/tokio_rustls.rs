//! The peer tokio-rustls.

use std::io::{Error, ErrorKind, Result};
use std::sync::Arc;

use bowline_interop::{Options, Report, Sockets, Step, dialogue, pattern, reset_on_close};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
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
    let tls = tls(&options);
    let sockets = Sockets::open(&options).await;
    for _ in 0..options.connections {
        let mut report = Report::default();
        let tcp = sockets.next().await;
        if let Err(error) = run(&options, &tls, tcp, &mut report).await {
            let end = match error.kind() {
                ErrorKind::UnexpectedEof => "truncated",
                ErrorKind::ConnectionReset => "reset",
                _ => "failed",
            };
            report.set("end", end);
            report.set("error", error.to_string());
        }
        report.print();
    }
}

async fn run(options: &Options, tls: &Tls, mut tcp: TcpStream, report: &mut Report) -> Result<()> {
    if options.starttls {
        dialogue(options, &mut tcp).await;
    }
    let mut stream: TlsStream<TcpStream> = match tls {
        Tls::Client(tls) => tls.connect(ServerName::try_from("localhost").expect("a name"), tcp).await?.into(),
        Tls::Server(tls) => tls.accept(tcp).await?.into(),
    };
    let played = play(options, &mut stream, report).await;
    let session = stream.get_ref().1;
    report.set("version", session.protocol_version().map(|version| format!("{version:?}")));
    report.set("group", session.negotiated_key_exchange_group().map(|group| format!("{:?}", group.name())));
    report.set("alpn", session.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned()));
    report.set("resumed", session.handshake_kind() == Some(HandshakeKind::Resumed));
    report.set("peer", session.peer_certificates().and_then(|chain| bowline::config::subject(chain.first()?)));
    played
}

async fn play(options: &Options, stream: &mut TlsStream<TcpStream>, report: &mut Report) -> Result<()> {
    let mut buffer = vec![0; 64 << 10];
    for step in &options.script {
        match *step {
            Step::Send(n) => stream.write_all(&pattern(n)).await?,
            Step::Tiny(n) => {
                for _ in 0..n {
                    stream.write_all(b"x").await?;
                    stream.flush().await?;
                }
            }
            Step::Recv(mut left) => {
                stream.flush().await?;
                while left > 0 {
                    let most = left.min(buffer.len());
                    let read = stream.read(&mut buffer[..most]).await?;
                    report.receive(&buffer[..read]);
                    if read == 0 {
                        return Err(Error::other("a clean end, too early"));
                    }
                    left -= read;
                }
            }
            Step::End => loop {
                stream.flush().await?;
                let read = stream.read(&mut buffer).await?;
                report.receive(&buffer[..read]);
                if read == 0 {
                    report.set("end", "clean");
                    break;
                }
            },
            // `shutdown` sends close_notify and FIN, and reading continues.
            Step::Half | Step::Close => stream.shutdown().await?,
            Step::Fin => {
                stream.flush().await?;
                stream.get_mut().0.shutdown().await?;
            }
            Step::Abort => {
                stream.flush().await?;
                reset_on_close(stream.get_ref().0);
                return Ok(());
            }
            Step::Update => {
                let updated = match stream {
                    TlsStream::Client(stream) => stream.get_mut().1.refresh_traffic_keys(),
                    TlsStream::Server(stream) => stream.get_mut().1.refresh_traffic_keys(),
                };
                updated.map_err(Error::other)?;
            }
        }
    }
    Ok(())
}
