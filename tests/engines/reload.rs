//! A configuration that is replaced while it is in use, with both engines.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bowline::config::{ClientTlsBuilder, ServerTlsBuilder};
use bowline::testing::pki::{Identity, Pki};
use bowline::testing::{memory_pair, shared_pki, tcp_pair};
use bowline::{
    ClientTls, Connector, Listener, ServerTls, SessionFacts, StartTls, TlsConnection, TlsListener, TlsTransport,
    TlsVersion, Transport, UpgradableConnection,
};

use crate::setup::SOON;

const VERSIONS: [TlsVersion; 2] = [TlsVersion::V1_2, TlsVersion::V1_3];

fn server(express: bool, identity: &Identity) -> ServerTlsBuilder {
    let builder = ServerTls::builder().identity_pem(identity.chain_pem(), identity.key_pem());
    if express { builder.express() } else { builder }
}

fn client(pki: &Pki, express: bool, version: TlsVersion) -> ClientTlsBuilder {
    let builder = ClientTls::builder().root(pki.ca_der()).min_version(version).max_version(version);
    if express { builder.express() } else { builder }
}

/// The facts of both sides of one connection, client first. Tickets have been read.
async fn facts(client: &ClientTls, server: &ServerTls) -> Result<(SessionFacts, SessionFacts), bowline::Error> {
    let (a, b) = memory_pair();
    let both = async { tokio::join!(TlsConnection::connect(a, client, "localhost"), TlsConnection::accept(b, server)) };
    let (client, server) = tokio::time::timeout(SOON, both).await.unwrap();
    let (mut client, mut server) = (client?, server?);
    let facts = ((*client.tls().unwrap()).clone(), (*server.tls().unwrap()).clone());
    let (_, _) = tokio::join!(client.close(), server.close());
    Ok(facts)
}

/// rule: reload-1
/// rule: reload-2
#[tokio::test]
async fn a_handshake_keeps_the_configuration_with_which_it_began() {
    let pki = shared_pki();
    let (a, b) = (pki.server(&["localhost"]), pki.server(&["localhost"]));
    for express in [false, true] {
        let tls = server(express, &a).build().unwrap();
        let client = client(pki, express, TlsVersion::V1_3).build().unwrap();
        let (ours, theirs) = memory_pair();
        let under_way = TlsConnection::accept(theirs, &tls);
        assert_eq!(tls.clone().replace(server(express, &b).build().unwrap()), 2);
        let (ours, theirs) = tokio::join!(TlsConnection::connect(ours, &client, "localhost"), under_way);
        let (ours, theirs) = (ours.unwrap(), theirs.unwrap());
        assert_eq!(ours.tls().unwrap().peer_chain[0], a.cert_der());
        assert_eq!(theirs.tls().unwrap().own_chain[0], a.cert_der());
        assert_eq!(theirs.tls().unwrap().generation, Some(1));
        let (ours, theirs) = facts(&client, &tls).await.unwrap();
        assert_eq!((&ours.peer_chain[0], &theirs.own_chain[0]), (&b.cert_der(), &b.cert_der()));
        assert_eq!((ours.generation, theirs.generation, tls.generation()), (Some(1), Some(2), 2));
    }
}

/// rule: reload-1
#[tokio::test]
async fn listeners_and_upgrades_use_the_replacement() {
    let pki = shared_pki();
    let (a, b) = (pki.server(&["localhost"]), pki.server(&["localhost"]));
    for express in [false, true] {
        let tls = server(express, &a).build().unwrap();
        let client = client(pki, express, TlsVersion::V1_3).build().unwrap();
        let mut listener = TlsListener::new(Listener::bind("127.0.0.1:0").await.unwrap(), tls.clone());
        let upgrade = StartTls::server(&tls);
        tls.replace(server(express, &b).build().unwrap());

        let tcp = Connector::new().connect_addr(listener.local_addr()).await.unwrap();
        let (ours, theirs) = tokio::join!(TlsConnection::connect(tcp, &client, "localhost"), listener.accept());
        assert_eq!(ours.unwrap().tls().unwrap().peer_chain[0], b.cert_der());
        assert_eq!(theirs.unwrap().tls().unwrap().generation, Some(2));

        let (ours, theirs) = tcp_pair().await.unwrap();
        let mut theirs = UpgradableConnection::new(theirs);
        let (ours, done) = tokio::join!(TlsConnection::connect(ours, &client, "localhost"), theirs.start_tls(upgrade));
        done.unwrap();
        assert_eq!(ours.unwrap().tls().unwrap().peer_chain[0], b.cert_der());
    }
}

/// rule: reload-2
#[test]
fn the_same_contents_keep_the_generation() {
    let pki = Pki::new();
    let (a, b) = (pki.server(&["localhost"]), pki.server(&["localhost"]));
    let tls = server(false, &a).build().unwrap();
    let before = tls.config();
    assert_eq!(tls.replace(tls.clone()), 1);
    assert_eq!(tls.replace(server(false, &a).build().unwrap()), 1);
    assert!(std::sync::Arc::ptr_eq(&tls.config(), &before));
    let other: [ServerTlsBuilder; 7] = [
        server(false, &b),
        server(true, &b),
        server(true, &b).alpn(["h2"]),
        server(true, &b).send_tickets(4),
        server(true, &b).client_ca_pem(pki.ca_pem()),
        server(true, &b).client_ca_pem(pki.ca_pem()).client_auth_optional(),
        server(true, &b).client_ca_pem(pki.ca_pem()).client_crl_pem(pki.crl_pem()),
    ];
    for (builder, generation) in other.into_iter().zip(2..) {
        assert_eq!(tls.replace(builder.clone().build().unwrap()), generation);
        assert_eq!(tls.replace(builder.build().unwrap()), generation);
    }
    // Code of the application cannot be compared: two configurations are the same only if they have the same object.
    let change = |config: &mut bowline::rustls::ServerConfig| config.ignore_client_order = true;
    let changed = server(true, &b).customize(change);
    assert_eq!(tls.replace(changed.clone().build().unwrap()), 9);
    assert_eq!(tls.replace(changed.build().unwrap()), 9);
    assert_eq!(tls.replace(server(true, &b).customize(change).build().unwrap()), 10);
    // A configuration that came from rustls cannot be compared either: only the same `Arc` counts as the same.
    let from = ServerTls::from(tls.config());
    assert_eq!(from.replace(ServerTls::from(tls.config())), 1);
    assert_eq!(from.replace(server(false, &a).build().unwrap()), 2);
    let copy = bowline::rustls::ServerConfig::clone(&from.config());
    assert_eq!(from.replace(ServerTls::from(std::sync::Arc::new(copy))), 3);
}

/// rule: reload-2
#[test]
fn the_same_roots_of_the_platform_keep_the_generation() {
    let pki = shared_pki();
    let builder = ClientTls::builder().platform_roots().root(pki.ca_der());
    let tls = builder.clone().build().unwrap();
    assert_eq!(tls.replace(builder.clone().build().unwrap()), 1);
    assert_eq!(tls.replace(builder.root(Pki::new().ca_der()).build().unwrap()), 2);
}

/// rule: reload-3
#[tokio::test]
async fn tickets_are_valid_after_a_new_certificate_and_not_after_a_new_client_ca_or_list() {
    let (pki, other) = (Pki::new(), Pki::new());
    let (a, b) = (pki.server(&["localhost"]), pki.server(&["localhost"]));
    let of_client = pki.client("client");
    let revoked = pki.client("revoked");
    let before = pki.crl_pem();
    pki.revoke(&revoked);
    for (version, express) in VERSIONS.into_iter().flat_map(|version| [(version, false), (version, true)]) {
        let base = |identity: &Identity| server(express, identity).client_ca_pem(pki.ca_pem());
        let cases = [
            (base(&a).client_crl_pem(before.clone()), base(&b).client_crl_pem(before.clone()), true),
            (base(&a), base(&b).alpn(["h2"]), true),
            (base(&a), base(&a).client_crl_pem(pki.crl_pem()), false),
            (base(&a).client_crl_pem(before.clone()), base(&a).client_crl_pem(pki.crl_pem()), false),
            (base(&a), base(&a).client_ca_pem(other.ca_pem()), false),
            (base(&a).client_auth_optional(), base(&a), false),
        ];
        for (number, (first, second, resumes)) in cases.into_iter().enumerate() {
            let tls = first.build().unwrap();
            let client = client(&pki, express, version);
            let client = client.identity_pem(of_client.chain_pem(), of_client.key_pem()).build().unwrap();
            assert!(!facts(&client, &tls).await.unwrap().1.resumed);
            tls.replace(second.build().unwrap());
            let (ours, theirs) = facts(&client, &tls).await.unwrap();
            assert_eq!((ours.resumed, theirs.resumed), (resumes, resumes), "{version} {express} {number}");
            assert_eq!(theirs.generation, Some(2));
        }
    }
}

/// rule: reload-3
#[tokio::test]
async fn a_client_presents_its_new_certificate_in_place_of_a_resumption() {
    let pki = shared_pki();
    let tls = ServerTls::builder().client_ca_pem(pki.ca_pem());
    let identity = pki.server(&["localhost"]);
    let tls = tls.identity_pem(identity.chain_pem(), identity.key_pem()).build().unwrap();
    let (a, b) = (pki.client("a"), pki.client("b"));
    for (version, express) in VERSIONS.into_iter().flat_map(|version| [(version, false), (version, true)]) {
        let of =
            |me: &Identity| client(pki, express, version).identity_pem(me.chain_pem(), me.key_pem()).build().unwrap();
        let handle = of(&a);
        let in_a_connector = handle.clone();
        assert_eq!(facts(&in_a_connector, &tls).await.unwrap().1.peer_chain[0], a.cert_der());
        assert!(facts(&in_a_connector, &tls).await.unwrap().1.resumed);
        assert_eq!(handle.replace(of(&b)), 2);
        let (ours, theirs) = facts(&in_a_connector, &tls).await.unwrap();
        assert_eq!((ours.generation, ours.resumed), (Some(2), false));
        assert_eq!(ours.own_chain[0], b.cert_der());
        assert_eq!(theirs.peer_chain[0], b.cert_der());
    }
}

/// `BOWLINE_SWAPS=1000` is the whole test, which takes about 20 seconds for each engine.
///
/// rule: reload-1
#[test]
fn no_handshake_fails_or_gets_a_mixed_pair_during_many_replacements() {
    let swaps: u64 = std::env::var("BOWLINE_SWAPS").ok().and_then(|swaps| swaps.parse().ok()).unwrap_or(40);
    let pki = shared_pki();
    let identities = [pki.server(&["localhost"]), pki.server(&["localhost"])];
    for express in [false, true] {
        let tls = server(express, &identities[1]).build().unwrap();
        let (client, is_over) =
            (client(pki, express, TlsVersion::V1_3).keep_tickets(0).build().unwrap(), AtomicBool::new(false));
        let mut handshakes = 0;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for swap in 0..swaps {
                    let other = server(express, &identities[swap as usize % 2]).build().unwrap();
                    assert_eq!(tls.replace(other), swap + 2);
                    std::thread::sleep(Duration::from_millis(20));
                }
                is_over.store(true, Ordering::SeqCst);
            });
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            while !is_over.load(Ordering::SeqCst) {
                let (ours, theirs) = runtime.block_on(facts(&client, &tls)).unwrap();
                let identity = &identities[theirs.generation.unwrap() as usize % 2];
                assert_eq!((&ours.peer_chain[0], &theirs.own_chain[0]), (&identity.cert_der(), &identity.cert_der()));
                handshakes += 1;
            }
        });
        assert!(handshakes >= swaps / 2, "{handshakes} handshakes during {swaps} replacements");
    }
}
