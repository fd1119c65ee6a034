//! `tls-server-end-point` for certificates of every signature, made by openssl.

use std::path::Path;
use std::process::{Command, Stdio};

use bowline::rustls::ServerConfig;
use bowline::{ChannelBinding, ClientTls, ServerTls, SessionError, TlsTransport};

use crate::{ENGINES, VERSIONS, pair_of, session_error};

/// A self-signed certificate with its key, as PEM.
fn certificate(folder: &Path, key: &str, args: &[&str]) -> (Vec<u8>, Vec<u8>) {
    let made = Command::new("openssl")
        .args(["req", "-x509", "-nodes", "-newkey"])
        .args(key.split(' '))
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "2"])
        .args(args)
        .args(["-keyout", "key.pem", "-out", "cert.pem"])
        .current_dir(folder)
        .stdout(Stdio::null())
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    (std::fs::read(folder.join("cert.pem")).unwrap(), std::fs::read(folder.join("key.pem")).unwrap())
}

/// The hash of a certificate, by openssl.
fn hash(folder: &Path, digest: &str) -> Vec<u8> {
    let der = Command::new("openssl")
        .args(["x509", "-in", "cert.pem", "-outform", "DER", "-out", "cert.der"])
        .current_dir(folder)
        .status();
    assert!(der.unwrap().success());
    let hash =
        Command::new("openssl").args(["dgst", digest, "-binary", "cert.der"]).current_dir(folder).output().unwrap();
    hash.stdout
}

/// rule: secure-15
#[tokio::test]
async fn the_hash_is_that_of_the_signature_and_equal_on_both_sides() {
    let ec = "ec -pkeyopt ec_paramgen_curve:P-256";
    let pss = ["-sigopt", "rsa_padding_mode:pss"];
    let pss_of = |digest| [pss[0], pss[1], "-sigopt", "rsa_pss_saltlen:-1", digest].to_vec();
    let two = [&pss_of("-sha384")[..], &["-sigopt", "rsa_mgf1_md:sha256"]].concat();
    let undefined = |name: &str| Err(SessionError::NoHashFunction { algorithm: name.into() });
    let cases: Vec<(&str, Vec<&str>, Result<&str, SessionError>)> = vec![
        ("rsa:2048", vec!["-sha1"], Ok("-sha256")),
        ("rsa:2048", vec!["-md5"], Ok("-sha256")),
        ("rsa:2048", vec!["-sha256"], Ok("-sha256")),
        ("rsa:2048", vec!["-sha384"], Ok("-sha384")),
        ("rsa:2048", vec!["-sha512"], Ok("-sha512")),
        ("rsa:2048", pss_of("-sha256"), Ok("-sha256")),
        ("rsa:2048", pss_of("-sha512"), Ok("-sha512")),
        ("rsa:2048", two, undefined("RSASSA-PSS with two hash functions")),
        (ec, vec!["-sha1"], Ok("-sha256")),
        (ec, vec!["-sha384"], Ok("-sha384")),
        (ec, vec!["-sha512"], Ok("-sha512")),
        (ec, vec!["-sha224"], Err(SessionError::UnsupportedHash("SHA-224"))),
        ("ed25519", vec![], undefined("Ed25519")),
    ];
    let folder = tempfile::tempdir().unwrap();
    let mut turn = 0;
    for (key, args, expected) in cases {
        let (cert, private) = certificate(folder.path(), key, &args);
        let expected = expected.map(|digest| hash(folder.path(), digest));
        // All pairs of an engine and a version are tested, each several times.
        for _ in 0..2 {
            let (version, engines) = (VERSIONS[turn % 2], ENGINES[turn / 2 % 4]);
            turn += 1;
            let client = ClientTls::builder().dangerous_no_verification().min_version(version).max_version(version);
            let server = ServerTls::builder().identity_pem(cert.clone(), private.clone());
            let client = if engines.0 { client.express() } else { client }.build().unwrap();
            let server = if engines.1 { server.express() } else { server }.build().unwrap();
            let (client, server) = pair_of(&client, &server).await;
            for facts in [client.tls().unwrap(), server.tls().unwrap()] {
                let binding = facts.channel_binding(ChannelBinding::TlsServerEndPoint);
                match &expected {
                    Ok(hash) => assert_eq!(&binding.unwrap(), hash, "{key} {args:?}"),
                    Err(error) => assert_eq!(&session_error(binding), error),
                }
            }
        }
    }
}

/// rule: secure-15
#[tokio::test]
async fn a_certificate_that_a_resolver_chose_is_reported_as_unknown() {
    let pki = bowline::testing::shared_pki();
    let identity = pki.server(&[]);
    let provider = crate::server(&identity, false).config().crypto_provider().clone();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(identity.chain_der(), identity.key_der())
        .unwrap();
    let server = ServerTls::from(std::sync::Arc::new(config));
    let (client, server) = pair_of(&crate::client(pki, VERSIONS[1], false), &server).await;
    let binding = ChannelBinding::TlsServerEndPoint;
    assert_eq!(session_error(server.tls().unwrap().channel_binding(binding)), SessionError::NoServerCertificate);
    assert_eq!(client.tls().unwrap().channel_binding(binding).unwrap().len(), 32);
}
