//! Connections of every kind.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::address::Address;
use crate::client::reconnect::Reconnector;
use crate::config::start_tls::StartTls;
use crate::core::backoff::Backoff;
use crate::error::ConfigProblem;
use crate::error::{Blame, Phase, Reason};
use crate::layers::upgradable::UpgradableConnection;
use crate::policy::Leftover;
use crate::transport::{TlsTransport, Transport, UpgradableTransport};

/// Bytes arrive in both directions, and both sides end cleanly.
async fn talk(client: &mut impl Transport, server: &mut impl Transport) {
    let asking = async {
        client.write_all(b"question").await.unwrap();
        client.close_write().await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "answer");
        client.close().await
    };
    let answering = async {
        let mut question = String::new();
        server.read_to_string(&mut question).await.unwrap();
        assert_eq!(question, "question");
        server.close_with(b"answer").await
    };
    let (ours, theirs) = timeout(SOON, async { tokio::join!(asking, answering) }).await.unwrap();
    assert!(ended_together(&ours, &theirs), "{ours}; {theirs}");
}

/// rule: tcp-8
#[tokio::test]
async fn tcp_is_plaintext_on_the_port_that_was_really_bound() {
    for text in ["tcp:0:interface=127.0.0.1", "tcp:127.0.0.1:0:backlog=5", "tcp:localhost:0"] {
        let listener = listen(text).await;
        let local = listener.local_addr();
        assert_ne!(local.as_inet().unwrap().port(), 0);
        let (ours, theirs) = meet(&listener, &client(&format!("tcp:{local}"))).await;
        let (mut ours, mut theirs) = (ours.unwrap(), theirs.unwrap());
        assert!(!ours.is_secure() && !theirs.is_secure());
        assert_eq!((ours.peer_addr(), theirs.peer_addr()), (local, ours.local_addr()));
        talk(&mut ours, &mut theirs).await;
        assert!(listener.start_tls().is_none() && listener.server_tls().is_none());
    }
}

#[tokio::test]
async fn a_port_alone_is_every_ipv4_address() {
    let listener = listen("tcp:0").await;
    let local = listener.local_addr().as_inet().unwrap();
    assert!(local.is_ipv4() && local.ip().is_unspecified());
    let (ours, theirs) = meet(&listener, &client(&format!("tcp:127.0.0.1:{}", local.port()))).await;
    talk(&mut ours.unwrap(), &mut theirs.unwrap()).await;
}

/// rule: secure-1, secure-8, upgrade-10
#[tokio::test]
async fn tls_returns_after_the_handshake_with_the_agreed_settings() {
    let files = Files::new();
    let listener = listen(&format!("tls:0:interface=127.0.0.1:{}:alpn=h2,imap:max=1.3", files.cert("server"))).await;
    assert!(listener.server_tls().unwrap().warnings().is_empty());
    let port = listener.local_addr().as_inet().unwrap().port();
    for (host, name, sni) in [
        ("localhost", "", Some("localhost")),
        ("127.0.0.1", "", None),
        ("127.0.0.1", ":name=localhost", Some("localhost")),
    ] {
        let endpoint = client(&format!("tls:{host}:{port}:ca={}:alpn=imap{name}:max=1.2", files.ca()));
        let (ours, theirs) = meet(&listener, &endpoint).await;
        let (mut ours, mut theirs) = (ours.unwrap(), theirs.unwrap());
        let facts = theirs.tls().unwrap();
        assert_eq!((facts.version_name().as_str(), facts.alpn.as_deref()), ("TLSv1.2", Some(&b"imap"[..])));
        assert_eq!(facts.sni.as_deref(), sni, "{endpoint}");
        talk(&mut ours, &mut theirs).await;
    }
}

/// rule: secure-8
#[tokio::test]
async fn tls_refuses_another_name_and_an_unknown_ca() {
    let files = Files::new();
    let listener = listen(&format!("tls:127.0.0.1:0:{}", files.cert("server"))).await;
    let local = listener.local_addr();
    for arguments in [format!(":ca={}:name=elsewhere.invalid", files.ca()), String::new()] {
        let endpoint = client(&format!("tls:{local}{arguments}"));
        let connecting = async { endpoint.connect().await.map(drop) };
        let accepting = async {
            let _ = listener.accept().await?.begin().await;
            std::future::pending::<Result<(), Error>>().await
        };
        // Without `ca=` the platform's roots are trusted. If the platform has none, the client does not even connect.
        let error = tokio::select! {
            ours = connecting => ours.unwrap_err(),
            accepted = accepting => accepted.unwrap_err(),
        };
        let nobody = matches!(&error, Error::Config(error) if matches!(error.problem, ConfigProblem::NoRoots));
        assert!(error.blame() == Blame::PeerTls || (nobody && arguments.is_empty()), "{error}");
    }
}

#[tokio::test]
async fn tls_requires_a_client_certificate() {
    let files = Files::new();
    let of_server = format!("tls:127.0.0.1:0:{}:client-ca={}", files.cert("server"), files.ca());
    for (optional, with_cert, subject) in [
        ("", true, Some("alice")),
        ("", false, None),
        (":client-optional", true, Some("alice")),
        (":client-optional", false, None),
    ] {
        let listener = listen(&format!("{of_server}{optional}")).await;
        let cert = if with_cert { format!(":{}", files.cert("client")) } else { String::new() };
        let endpoint = client(&format!("tls:{}:ca={}{cert}", listener.local_addr(), files.ca()));
        let (_ours, theirs) = meet(&listener, &endpoint).await;
        assert_eq!(theirs.is_ok(), with_cert || !optional.is_empty(), "{optional} {cert}");
        let chain = theirs.ok().and_then(|theirs| Some(theirs.tls()?.peer_chain.clone())).unwrap_or_default();
        let told = chain.first().and_then(crate::config::subject);
        assert_eq!(told.map(|told| told.contains("alice")), subject.map(|_| true));
    }
}

/// rule: upgrade-6, upgrade-10
#[tokio::test]
async fn starttls_is_plaintext_until_both_start_tls_as_their_endpoints_say() {
    let files = Files::new();
    let listener = listen(&format!("starttls:127.0.0.1:0:{}", files.cert("server"))).await;
    let endpoint = client(&format!("starttls:{}:ca={}:name=localhost", listener.local_addr(), files.ca()));
    let connector = endpoint.connector(Policy::default()).unwrap();
    let (ours, incoming) = tokio::join!(connector.connect(), listener.accept());
    let (mut ours, incoming) = (ours.unwrap(), incoming.unwrap());
    let how = incoming.start_tls().unwrap();
    let mut theirs = incoming.begin().await.unwrap();
    assert!(!ours.is_secure() && !theirs.is_secure());
    ours.write_all(b"STARTTLS\r\n").await.unwrap();
    let mut command = [0; 10];
    theirs.read_exact(&mut command).await.unwrap();
    let (client_end, server_end) = tokio::join!(ours.start_tls(connector.start_tls().unwrap()), theirs.start_tls(how));
    client_end.unwrap();
    server_end.unwrap();
    assert_eq!(theirs.tls().unwrap().sni.as_deref(), Some("localhost"));
    talk(&mut ours, &mut theirs).await;
}

/// rule: upgrade-4, upgrade-8
#[tokio::test]
async fn a_boxed_connection_is_upgraded_like_any_other_and_knows_its_side() {
    let (files, pki) = (Files::new(), Pki::new());
    let path = files.path().join("x.sock");
    let listener = listen(&format!("unix:{}", path.display())).await;
    let (ours, theirs) = meet(&listener, &client(&format!("unix:{}", path.display()))).await;
    // The boxed connections are upgraded, then wrapped in connections that are upgraded as well: TLS in TLS.
    let (mut ours, mut theirs) = (ours.unwrap(), theirs.unwrap());
    let how = StartTls::as_made(&pki.client_tls(), "localhost", &pki.server_tls());
    let (a, b) = tokio::join!(UpgradableTransport::start_tls(&mut ours, how.clone()), theirs.start_tls(how.clone()));
    a.unwrap();
    b.unwrap();
    let (mut ours, mut theirs) = (UpgradableConnection::new(ours), UpgradableConnection::new(theirs));
    let (a, b) = tokio::join!(ours.start_tls(how.clone()), theirs.start_tls(how.leftover(Leftover::Feed)));
    a.unwrap();
    b.unwrap();
    assert_eq!(ours.peer_addr(), Address::Unix(Some(path)));
    talk(&mut ours, &mut theirs).await;
}

/// rule: tcp-8
#[tokio::test]
async fn a_bad_certificate_is_reported_with_its_file_before_the_port_is_open() {
    let files = Files::new();
    let taken = listen("tcp:127.0.0.1:0").await.local_addr();
    let _taken = listen(&format!("tcp:{taken}")).await;
    std::fs::write(files.path().join("empty.pem"), "").unwrap();
    for kind in ["tls", "starttls"] {
        let bad = format!("{kind}:{taken}:cert={0}/empty.pem:key={0}/server.key", files.path().display());
        let Error::Config(error) = server(&bad).listen(Policy::default()).await.unwrap_err() else { panic!() };
        assert_eq!(error.file, Some(files.path().join("empty.pem")));
        let good = format!("{kind}:{taken}:{}", files.cert("server"));
        let Error::Bind(error) = server(&good).listen(Policy::default()).await.unwrap_err() else { panic!() };
        assert_eq!(error.addr, taken);
    }
    let Error::Config(error) = client(&format!("tls:{taken}:ca=/nonexistent/ca")).connect().await.unwrap_err() else {
        panic!()
    };
    assert_eq!(error.file.as_deref(), Some(Path::new("/nonexistent/ca")));
}

/// rule: tcp-4
#[tokio::test]
async fn bind_is_the_address_that_is_connected_from() {
    let listener = listen("tcp:127.0.0.1:0").await;
    let (ours, theirs) = meet(&listener, &client(&format!("tcp:{}:bind=127.0.0.1", listener.local_addr()))).await;
    assert_eq!(theirs.unwrap().peer_addr(), ours.unwrap().local_addr());
    let Error::Connect(error) =
        client(&format!("tcp:{}:bind=[::1]", listener.local_addr())).connect().await.unwrap_err()
    else {
        panic!()
    };
    assert!(crate::error::chain(&error).to_string().contains("other family"), "{error}");
}

/// rule: tcp-4, tcp-9, secure-5
#[tokio::test]
async fn timeout_bounds_the_handshake_too_and_each_attempt_of_a_reconnector() {
    let files = Files::new();
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let tls = format!("tls:{}:ca={}:timeout=0.2", silent.local_addr().unwrap(), files.ca());
    let connecting = async { client(&tls).connect().await };
    let ended = tokio::time::timeout(Duration::from_secs(20), connecting).await;
    let error = ended.expect("the endpoint's bound, not the policy's").unwrap_err();
    assert!(matches!(error.reason(), Some(Reason::TimedOut(Phase::Handshake))), "{error}");

    let connector = client(&tls).connector(Policy::default()).unwrap();
    let mut again =
        Reconnector::new(|| connector.connect()).backoff(Backoff::new().initial(Duration::ZERO)).max_attempts(2);
    let gave_up = tokio::time::timeout(Duration::from_secs(20), again.next()).await.unwrap().unwrap_err();
    assert!(gave_up.attempts == 2 && gave_up.last.blame() == Blame::Time, "{gave_up}");

    // A `starttls` connection is in plaintext and connected now; the upgrade has the policy's bound.
    let starttls = client(&tls.replacen("tls:", "starttls:", 1)).connect().await.unwrap();
    assert!(!starttls.is_secure());
}

/// rule: secure-5
#[tokio::test]
async fn the_policy_bounds_a_handshake_under_a_longer_timeout_too() {
    let files = Files::new();
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let tls = format!("tls:{}:ca={}:timeout=3600", silent.local_addr().unwrap(), files.ca());
    let policy = Policy::default().handshake_timeout(Duration::from_millis(200));
    let connector = client(&tls).connector(policy).unwrap();
    let error = tokio::time::timeout(Duration::from_secs(20), connector.connect()).await.unwrap().unwrap_err();
    assert!(matches!(error.reason(), Some(Reason::TimedOut(Phase::Handshake))), "{error}");
}

/// rule: tcp-4, tcp-9
#[cfg(target_os = "linux")]
#[tokio::test]
async fn timeout_limits_a_connect_without_an_answer() {
    let files = Files::new();
    let path = files.path().join("x.sock");
    // Neither listener accepts, so the backlogs fill up and the system lets the next connection wait.
    let inet = listen("tcp:127.0.0.1:0:backlog=1").await;
    let _unix = listen(&format!("unix:{}:backlog=1", path.display())).await;
    for endpoint in [format!("tcp:{}:timeout=0.1", inet.local_addr()), format!("unix:{}:timeout=0.1", path.display())] {
        let mut connected = Vec::new();
        let error = loop {
            match client(&endpoint).connect().await {
                Ok(connection) => connected.push(connection),
                Err(error) => break error,
            }
        };
        assert_eq!(error.blame(), Blame::Time, "{error}");
        assert!(connected.len() <= 3, "{}", connected.len());
    }
}

/// rule: proxy-4
#[cfg(feature = "proxy")]
#[tokio::test]
async fn a_header_goes_before_tls_and_describes_the_connection_in_front() {
    use crate::proxy::{ProxyHeader, ProxyProtocol};
    use crate::testing::pki::Profile;

    let (pki, dir) = (crate::testing::shared_pki(), tempfile::tempdir().unwrap());
    let (chain, key) = pki.server(&["localhost"]).write_to(dir.path()).unwrap();
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, pki.ca_pem()).unwrap();
    let server_tls = pki.server_tls_builder().client_ca_pem(pki.ca_pem()).alpn(["x/1"]).build().unwrap();
    let client = pki.issue(Profile::client("alice"));
    let client_tls = pki.client_tls_builder().identity(client.chain_der(), client.key_der()).alpn(["x/1"]);
    let (front, behind) = crate::testing::tcp_pair().await.unwrap();
    let client_tls = client_tls.build().unwrap();
    let handshakes = tokio::join!(
        crate::TlsConnection::connect(front, &client_tls, "localhost"),
        crate::TlsConnection::accept(behind, &server_tls)
    );
    let (_front, accepted) = (handshakes.0.unwrap(), handshakes.1.unwrap());
    let header = ProxyHeader::describing(&accepted);

    let service = crate::Listener::bind("127.0.0.1:0").await.unwrap();
    let text = format!("tls:{}:ca={}:name=localhost", service.local_addr(), ca.display());
    let connector = text.parse::<ClientEndpoint>().unwrap().connector(Policy::default()).unwrap();
    let service_tls = crate::ServerTls::builder().identity_pem_files(chain, key).build().unwrap();
    let serving = async {
        let prepared = service.accept().await.unwrap().finish(|mut tcp| async move {
            let proxy = ProxyProtocol::require("127.0.0.1".parse().unwrap());
            let header = proxy.read(&mut tcp).await?.unwrap();
            Ok((header, crate::TlsConnection::accept(tcp, &service_tls).await?))
        });
        prepared.await.unwrap()
    };
    let bytes = header.encode_v2();
    let (mut ours, (read, mut theirs)) = timeout(SOON, async {
        let (ours, theirs) = tokio::join!(connector.connect_with_prefix(&bytes), serving);
        (ours.unwrap(), theirs)
    })
    .await
    .unwrap();
    assert_eq!((read.alpn(), read.authority()), (Some(&b"x/1"[..]), Some("localhost")));
    let tls = read.tls().unwrap();
    assert_eq!((tls.version.as_deref(), tls.common_name.as_deref()), (Some("TLSv1.3"), Some("alice")));
    assert!(tls.is_verified && tls.has_certificate && tls.cipher.is_some());
    assert_eq!((read.source(), read.destination()), (Some(&accepted.peer_addr()), Some(&accepted.local_addr())));
    assert_eq!(theirs.peer_addr(), accepted.peer_addr());
    talk(&mut ours, &mut theirs).await;
}
