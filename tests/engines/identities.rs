//! Several identities of one server, with both engines and OpenSSL.

use std::path::Path;
use std::process::{Command, Stdio};

use bowline::config::{ClientAuth, Identity, ServerTlsBuilder};
use bowline::core::session::Step;
use bowline::rustls::{self, AlertDescription};
use bowline::testing::pki::{self, Pki};
use bowline::testing::{memory_pair, shared_pki};
use bowline::{
    ChannelBinding, ClientTls, Error, Policy, Reason, ServerTls, SessionFacts, TcpConnection, TlsConnection, TlsError,
    TlsTransport, TlsVersion, Transport, Watermarks,
};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use crate::setup::{SOON, record};
use crate::wires::{bring, server, settle, take};

const VERSIONS: [TlsVersion; 2] = [TlsVersion::V1_2, TlsVersion::V1_3];

fn of(identity: &pki::Identity) -> Identity {
    Identity::pem(identity.chain_pem(), identity.key_pem())
}

fn client(pki: &Pki, version: TlsVersion) -> ClientTls {
    ClientTls::builder().root(pki.ca_der()).min_version(version).max_version(version).build().unwrap()
}

/// The facts of both sides of one connection, client first.
async fn facts(client: &ClientTls, server: &ServerTls, name: &str) -> (SessionFacts, SessionFacts) {
    let (a, b) = memory_pair();
    let both = async { tokio::join!(TlsConnection::connect(a, client, name), TlsConnection::accept(b, server)) };
    let (client, server) = tokio::time::timeout(SOON, both).await.unwrap();
    let (mut client, mut server) = (client.unwrap(), server.unwrap());
    let facts = ((*client.tls().unwrap()).clone(), (*server.tls().unwrap()).clone());
    // The client reads the tickets.
    let (_, _) = tokio::join!(client.close(), server.close());
    facts
}

/// rule: identity-1
/// rule: identity-3
/// rule: secure-15
#[tokio::test]
async fn the_facts_name_the_identity_in_resumed_sessions_too() {
    let pki = shared_pki();
    let (a, b) = (pki.server(&["a.example"]), pki.server(&["*.b.example"]));
    for (version, express) in VERSIONS.into_iter().flat_map(|version| [(version, false), (version, true)]) {
        let builder = ServerTls::builder().add_identity(of(&a)).add_identity(of(&b).label("second"));
        let server = if express { builder.express() } else { builder }.build().unwrap();
        let client = client(pki, version);
        for resumed in [false, true] {
            for (name, identity, label) in [("a.example", &a, "a.example"), ("X.b.example", &b, "second")] {
                let (ours, theirs) = facts(&client, &server, name).await;
                assert_eq!(theirs.identity.as_deref(), Some(label), "{version} {express} {resumed}");
                assert_eq!(theirs.own_chain[0], identity.cert_der());
                assert_eq!((ours.resumed, theirs.resumed), (resumed, resumed), "{version} {express} {name}");
                assert_eq!(ours.identity, None);
                let binding = |facts: &SessionFacts| facts.channel_binding(ChannelBinding::TlsServerEndPoint).unwrap();
                assert_eq!(binding(&ours), binding(&theirs));
            }
        }
    }
}

/// The output of `openssl s_client` with these arguments, for one connection.
async fn s_client(server: &ServerTls, args: &[&str]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let args: Vec<String> = args.iter().map(ToString::to_string).collect();
    let program = tokio::task::spawn_blocking(move || {
        let run = Command::new("openssl")
            .args(["s_client", "-connect", &addr])
            .args(args)
            .stdin(Stdio::null())
            .output()
            .expect("openssl is there (Debian: openssl)");
        String::from_utf8_lossy(&[run.stdout, run.stderr].concat()).into_owned()
    });
    let serve = async {
        let (stream, _) = listener.accept().await.unwrap();
        let tcp = TcpConnection::new(stream, Policy::default()).unwrap();
        if let Ok(mut connection) = TlsConnection::accept(tcp, server).await {
            connection.close().await;
        }
        program.await.unwrap()
    };
    tokio::time::timeout(SOON, serve).await.unwrap()
}

fn builder(express: bool) -> ServerTlsBuilder {
    if express { ServerTls::builder().express() } else { ServerTls::builder() }
}

/// rule: identity-1
/// rule: identity-2
// This test needs RSA keys, which ring cannot generate.
#[cfg(feature = "aws-lc-rs")]
#[tokio::test]
async fn openssl_gets_the_identity_that_it_asks_for() {
    let pki = shared_pki();
    let (a, b) = (pki.server(&["a.example"]), pki.server(&["*.b.example"]));
    let rsa = pki.issue(pki::Profile::server(&["a.example"]).key(pki::KeyKind::Rsa2048));
    for express in [false, true] {
        let server = builder(express).add_identity(of(&a)).add_identity(of(&b)).add_identity(of(&rsa)).build().unwrap();
        let cases: [(&[&str], &pki::Identity); 7] = [
            (&["-servername", "a.example"], &a),
            (&["-servername", "www.B.example."], &b),
            (&["-servername", "unknown.example"], &a),
            (&["-noservername"], &a),
            (&["-servername", "a.example", "-sigalgs", "rsa_pss_rsae_sha256"], &rsa),
            (&["-noservername", "-sigalgs", "rsa_pss_rsae_sha256"], &rsa),
            (&["-servername", "a.example", "-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"], &rsa),
        ];
        for (args, expected) in cases {
            let said = s_client(&server, args).await;
            let leaf = pem_of_leaf(expected);
            assert!(said.replace("\r\n", "\n").contains(&leaf), "{args:?}: {said}");
        }
    }
}

/// The first certificate, as OpenSSL prints it.
fn pem_of_leaf(identity: &pki::Identity) -> String {
    let pem = identity.chain_pem().replace("\r\n", "\n");
    let end = pem.find("-----END").unwrap();
    pem[..end].to_owned()
}

/// Runs openssl in a folder.
fn openssl(folder: &Path, args: &str) {
    let run = Command::new("openssl").args(args.split(' ')).current_dir(folder).output().unwrap();
    assert!(run.status.success(), "{args}: {}", String::from_utf8_lossy(&run.stderr));
}

/// rule: identity-4
#[tokio::test]
async fn openssl_gets_the_ocsp_response_of_the_identity() {
    let folder = tempfile::TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    let key = "-nodes -newkey ec -pkeyopt ec_paramgen_curve:P-256";
    openssl(folder.path(), &format!("req -x509 {key} -keyout ca.key -out ca.pem -subj /CN=CA -days 2"));
    for name in ["a", "b"] {
        let leaf = "-CA ca.pem -CAkey ca.key -addext basicConstraints=critical,CA:FALSE -days 2";
        let names = format!("-subj /CN={name} -addext subjectAltName=DNS:{name}.example");
        openssl(folder.path(), &format!("req -x509 {key} -keyout {name}.key -out {name}.pem {names} {leaf}"));
        openssl(folder.path(), &format!("ocsp -issuer ca.pem -cert {name}.pem -reqout {name}.req"));
    }
    let answer = "ocsp -index index.txt -CA ca.pem -rsigner ca.pem -rkey ca.key";
    let serial = Command::new("openssl").args(["x509", "-noout", "-serial", "-in"]).arg(at("b.pem")).output().unwrap();
    let serial = String::from_utf8(serial.stdout).unwrap().trim().replace("serial=", "");
    std::fs::write(at("index.txt"), format!("V\t350101000000Z\t\t{serial}\tunknown\t/CN=b\n")).unwrap();
    openssl(folder.path(), &format!("{answer} -reqin b.req -respout b.ocsp -ndays 1"));
    openssl(folder.path(), &format!("{answer} -reqin a.req -respout unknown.ocsp -ndays 1"));

    let identity = |name: &str| Identity::pem_files(at(&format!("{name}.pem")), at(&format!("{name}.key")));
    for express in [false, true] {
        let both = builder(express).add_identity(identity("a")).add_identity(identity("b").ocsp_file(at("b.ocsp")));
        let server = both.build().unwrap();
        assert!(server.warnings().is_empty(), "{:?}", server.warnings());
        for version in ["-tls1_2", "-tls1_3"] {
            let said = s_client(&server, &[version, "-status", "-servername", "b.example"]).await;
            assert!(said.contains("OCSP Response Status: successful"), "{said}");
            let said = s_client(&server, &[version, "-status", "-servername", "a.example"]).await;
            assert!(said.contains("OCSP response: no response sent"), "{said}");
        }
    }
    let refused = |name: &str, file: &str| {
        let tls = ServerTls::builder().add_identity(identity(name).ocsp_file(at(file))).build();
        tls.unwrap_err().to_string().replace(folder.path().to_str().unwrap(), "DIR")
    };
    assert_eq!(
        refused("a", "b.ocsp"),
        "DIR/b.ocsp: the OCSP response cannot be used: it is a response for another certificate"
    );
    assert_eq!(
        refused("a", "a.pem"),
        "DIR/a.pem: the OCSP response cannot be used: it is not the DER of an OCSP response"
    );
    // RFC 6960 section 4.2.1
    for (status, name) in [
        (1, "malformedRequest"),
        (2, "internalError"),
        (3, "tryLater"),
        (4, "an unknown status"),
        (5, "sigRequired"),
        (6, "unauthorized"),
    ] {
        std::fs::write(at("refusal.ocsp"), [0x30, 3, 0x0a, 1, status]).unwrap();
        let said = refused("a", "refusal.ocsp");
        assert!(said.ends_with(&format!("the responder has answered with {name} and not with a response")), "{said}");
    }
    let tls = ServerTls::builder().add_identity(identity("a").ocsp_file(at("unknown.ocsp"))).build().unwrap();
    assert_eq!(tls.warnings()[0].kind, bowline::config::WarningKind::OcspResponse);
}

/// Both sides of a handshake, with its result.
async fn handshake(client: &ClientTls, server: &ServerTls, name: &str) -> [Result<SessionFacts, Error>; 2] {
    let (a, b) = memory_pair();
    let client = async {
        let mut connection = TlsConnection::connect(a, client, name).await?;
        let mut buf = [0];
        // A server refuses a client's certificate only after the client's handshake, in TLS 1.3.
        let read = connection.read(&mut buf).await.map_err(Error::from)?;
        assert_eq!(read, 0);
        connection.close().await;
        Ok((*connection.tls().unwrap()).clone())
    };
    let server = async {
        let mut connection = TlsConnection::accept(b, server).await?;
        connection.close().await;
        Ok((*connection.tls().unwrap()).clone())
    };
    let (client, server) = tokio::time::timeout(SOON, async { tokio::join!(client, server) }).await.unwrap();
    [client, server]
}

fn tls_error(result: &Result<SessionFacts, Error>) -> &TlsError {
    match result {
        Err(Error::Ended(Reason::Tls(error))) => error,
        other => panic!("{other:?}"),
    }
}

/// rule: identity-7
#[tokio::test]
async fn an_identity_can_have_its_own_protocols_and_client_certificates() {
    let pki = shared_pki();
    let (a, b, c) = (pki.server(&["a.example"]), pki.server(&["*.b.example"]), pki.server(&["c.example"]));
    let person = pki.client("somebody");
    for (version, express) in VERSIONS.into_iter().flat_map(|version| [(version, false), (version, true)]) {
        let server = builder(express)
            .alpn(["h2", "http/1.1"])
            .add_identity(of(&a))
            .add_identity(of(&b).client_auth(ClientAuth::none().ca_pem(pki.ca_pem())))
            .add_identity(of(&c).alpn(["acme"]))
            .build()
            .unwrap();
        let with = |protocol: &str| pki.client_tls_builder().min_version(version).max_version(version).alpn([protocol]);
        let certificate = |builder: bowline::config::ClientTlsBuilder| {
            builder.identity(person.chain_der(), person.key_der()).build().unwrap()
        };

        let [ours, theirs] = handshake(&certificate(with("h2")), &server, "x.b.example").await;
        let (ours, theirs) = (ours.unwrap(), theirs.unwrap());
        assert_eq!(theirs.peer_chain[0], person.cert_der());
        assert_eq!((theirs.identity.as_deref(), theirs.sni.as_deref()), (Some("*.b.example"), Some("x.b.example")));
        assert_eq!((ours.alpn.as_deref(), ours.peer_chain[0].clone()), (Some(&b"h2"[..]), b.cert_der()));

        let [ours, theirs] = handshake(&with("h2").build().unwrap(), &server, "x.b.example").await;
        assert_eq!(tls_error(&theirs).error, rustls::Error::NoCertificatesPresented);
        assert!(matches!(tls_error(&ours).error, rustls::Error::AlertReceived(_)), "{ours:?}");

        let [_, theirs] = handshake(&certificate(with("h2")), &server, "a.example").await;
        let theirs = theirs.unwrap();
        assert!(theirs.peer_chain.is_empty() && theirs.alpn.as_deref() == Some(b"h2"));
        assert_eq!(theirs.own_chain[0], a.cert_der());

        let [ours, _] = handshake(&with("acme").build().unwrap(), &server, "c.example").await;
        assert_eq!(ours.unwrap().alpn.as_deref(), Some(&b"acme"[..]));
        let [_, theirs] = handshake(&with("acme").build().unwrap(), &server, "a.example").await;
        assert_eq!(tls_error(&theirs).error, rustls::Error::NoApplicationProtocol);
    }
}

/// rule: identity-2
#[tokio::test]
async fn an_unknown_name_can_be_refused() {
    let pki = shared_pki();
    let a = pki.server(&["a.example", "127.0.0.1"]);
    for (version, express) in VERSIONS.into_iter().flat_map(|version| [(version, false), (version, true)]) {
        let server = builder(express).add_identity(of(&a)).refuse_unknown_names().build().unwrap();
        let client = client(pki, version);
        for name in ["a.example", "127.0.0.1"] {
            let [ours, theirs] = handshake(&client, &server, name).await;
            assert_eq!(
                (ours.unwrap().version, theirs.unwrap().identity.as_deref()),
                (rustls_version(version), Some("a.example"))
            );
        }
        let [ours, theirs] = handshake(&client, &server, "b.example").await;
        let alert = AlertDescription::UnrecognisedName;
        assert_eq!(tls_error(&ours).error, rustls::Error::AlertReceived(alert));
        assert_eq!(tls_error(&theirs).alert_sent, Some(alert));
        let text = bowline::chain(&theirs.unwrap_err()).to_string();
        let expected = "TLS failed in phase handshake (alert UnrecognisedName sent): other error: the client asks for \
                        \"b.example\", and no identity has this name";
        assert_eq!(text, expected);
        let said = s_client(&server, &["-servername", "b.example"]).await;
        assert!(said.contains("unrecognized name"), "{said}");
        let said = s_client(&server, &["-servername", "A.example."]).await;
        assert!(said.replace("\r\n", "\n").contains(&pem_of_leaf(&a)), "{said}");
    }
}

fn rustls_version(version: TlsVersion) -> rustls::ProtocolVersion {
    if version == TlsVersion::V1_2 { rustls::ProtocolVersion::TLSv1_2 } else { rustls::ProtocolVersion::TLSv1_3 }
}

/// rule: identity-8
#[tokio::test]
async fn no_ticket_is_used_under_another_policy_for_client_certificates() {
    let pki = shared_pki();
    let (ca, other_ca) = (pki.ca_pem(), Pki::new().ca_pem());
    let person = pki.client("somebody");
    for (version, express) in VERSIONS.into_iter().flat_map(|version| [(version, false), (version, true)]) {
        let ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().unwrap();
        let server = |policy: &dyn Fn(ServerTlsBuilder) -> ServerTlsBuilder| {
            let builder = builder(express).add_identity(of(&pki.server(&[]))).ticketer(ticketer.clone());
            policy(builder).build().unwrap()
        };
        let optional = |ca: &str| {
            let ca = ca.to_owned();
            server(&move |builder| builder.client_ca_pem(ca.as_str()).client_auth_optional())
        };
        let client = || {
            let builder = pki.client_tls_builder().min_version(version).max_version(version);
            builder.identity(person.chain_der(), person.key_der()).build().unwrap()
        };
        // The ticket of the first server is presented to the second one.
        let cases = [
            (server(&|builder| builder), server(&|builder| builder), true),
            (optional(&ca), optional(&ca), true),
            (server(&|builder| builder), optional(&ca), false),
            (optional(&ca), server(&|builder| builder.client_ca_pem(ca.as_str())), false),
            (optional(&ca), optional(&format!("{ca}{other_ca}")), false),
            (
                optional(&ca),
                server(&|b| b.client_ca_pem(ca.as_str()).client_auth_optional().client_crl_pem(pki.crl_pem())),
                false,
            ),
        ];
        for (number, (first, second, resumed)) in cases.into_iter().enumerate() {
            let client = client();
            let [ours, _] = handshake(&client, &first, "localhost").await;
            assert!(!ours.unwrap().resumed);
            let [ours, _] = handshake(&client, &second, "localhost").await;
            assert_eq!(ours.unwrap().resumed, resumed, "{number} {version} {express}");
        }
    }
}

/// A server that chooses its configuration by the hello.
fn choosing(pki: &Pki, express: bool) -> ServerTls {
    let (a, b) = (pki.server(&["localhost"]), pki.server(&["b.example"]));
    builder(express).add_identity(of(&a)).add_identity(of(&b).alpn(["own"])).build().unwrap()
}

/// Handshake messages in records of another length.
fn in_records_of(length: usize, records: &[u8]) -> Vec<u8> {
    let (mut message, mut rest) = (Vec::new(), records);
    while let [22, _, _, high, low, after @ ..] = rest {
        let (content, next) = after.split_at(usize::from(*high) << 8 | usize::from(*low));
        message.extend_from_slice(content);
        rest = next;
    }
    message.chunks(length).flat_map(|part| record(22, part)).collect()
}

/// rule: identity-7
#[test]
fn a_hello_in_any_records_and_segments_chooses() {
    let pki = shared_pki();
    for (version, express) in VERSIONS.into_iter().flat_map(|version| [(version, false), (version, true)]) {
        let client = pki.client_tls_builder().min_version(version).max_version(version).alpn(["own"]).build().unwrap();
        for (length, segment) in [(1, 1), (1, 5000), (100, 7), (1000, 1400), (16_384, 1), (16_384, 16_384)] {
            let name = bowline::config::server_name("B.example").unwrap();
            let server = choosing(pki, express).session(Watermarks::default()).unwrap();
            let mut both = [client.session(name, Watermarks::default()).unwrap(), server];
            let hello = in_records_of(length, &take(&mut both[0]));
            for segment in hello.chunks(segment) {
                bring(&mut both[1], segment);
                let _ = both[1].step();
            }
            settle(&mut both);
            let facts =
                both[1].facts().unwrap_or_else(|| panic!("{version} {express} {length}: {:?}", both[1].failure()));
            assert_eq!((facts.identity.as_deref(), facts.alpn.as_deref()), (Some("b.example"), Some(&b"own"[..])));
            assert!(both[0].facts().is_some());
        }
    }
}

/// Feeds the first bytes of a client to a server. Returns the error of the server and the bytes that it sends.
fn answer(server: &ServerTls, bytes: &[u8]) -> (Option<Reason>, Vec<u8>) {
    let mut session = server.session(Watermarks::default()).unwrap();
    bring(&mut session, bytes);
    while !matches!(session.step(), Step::NeedInput | Step::Ended) {}
    let answer = take(&mut session);
    (session.failure().cloned(), answer)
}

/// rule: identity-7
/// rule: secure-4
#[test]
fn bytes_that_are_no_hello_fail_as_without_a_choice() {
    let pki = shared_pki();
    for express in [false, true] {
        let (plain, choosing) = (server(pki, express, None), choosing(pki, express));
        let fatal_alert = [21, 3, 1, 0, 2, 2, 40];
        let cases: [&[u8]; 5] = [
            b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
            &fatal_alert,
            &[22, 3, 1, 0, 4, 2, 0, 0, 0],
            &[23, 3, 3, 0, 1, 0],
            &[22, 3, 1, 0xff, 0xff, 1],
        ];
        for bytes in cases {
            let ([plain, choosing], [plain_alert, alert]) = {
                let (a, b) = (answer(&plain, bytes), answer(&choosing, bytes));
                ([a.0, b.0].map(|reason| format!("{reason:?}")), [a.1, b.1])
            };
            assert_eq!((choosing, alert), (plain, plain_alert), "{express} {bytes:?}");
        }
        // A server that chooses by name refuses every record before the hello, so that no other byte can affect the
        // choice.
        let warning = [21, 3, 1, 0, 2, 1, 90];
        assert!(answer(&choosing, &warning).0.is_some());

        let name = bowline::config::server_name("localhost").unwrap();
        let hello = take(&mut pki.client_tls().session(name, Watermarks::default()).unwrap());
        assert!(answer(&choosing, &hello).0.is_none());
        for at in (0..hello.len()).filter(|at| at % 11 == 0 || *at < 100) {
            let mut broken = hello.clone();
            broken[at] ^= 0x11;
            let (plain, chosen) = (answer(&plain, &broken), answer(&choosing, &broken));
            assert!(plain.0.is_none() || chosen.0.is_some(), "{at}: {:?} {:?}", plain.0, chosen.0);
        }
        let endless = [&[1, 0, 0xff, 0xff][..], &[0; 0xffff]].concat();
        let (failure, _) = answer(&choosing, &in_records_of(1, &record(22, &endless[..16_000])));
        assert!(failure.is_some(), "{failure:?}");
    }
}
