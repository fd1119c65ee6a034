//! Several identities of one server, with both engines and OpenSSL.

use std::path::Path;
use std::process::{Command, Stdio};

use bowline::config::Identity;
use bowline::testing::pki::{self, KeyKind, Pki, Profile};
use bowline::testing::{memory_pair, shared_pki};
use bowline::{
    ChannelBinding, ClientTls, Policy, ServerTls, SessionFacts, TcpConnection, TlsConnection, TlsTransport, TlsVersion,
    Transport,
};
use tokio::net::TcpListener;

use crate::setup::SOON;

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

fn builder(express: bool) -> bowline::config::ServerTlsBuilder {
    if express { ServerTls::builder().express() } else { ServerTls::builder() }
}

/// rule: identity-1
/// rule: identity-2
#[tokio::test]
async fn openssl_gets_the_identity_that_it_asks_for() {
    let pki = shared_pki();
    let (a, b) = (pki.server(&["a.example"]), pki.server(&["*.b.example"]));
    let rsa = pki.issue(Profile::server(&["a.example"]).key(KeyKind::Rsa2048));
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
    std::fs::write(at("later.ocsp"), [0x30, 3, 0x0a, 1, 3]).unwrap();
    let said = refused("a", "later.ocsp");
    assert!(said.ends_with("the responder has answered with tryLater and not with a response"), "{said}");
    let tls = ServerTls::builder().add_identity(identity("a").ocsp_file(at("unknown.ocsp"))).build().unwrap();
    assert_eq!(tls.warnings()[0].kind, bowline::config::WarningKind::OcspResponse);
}
