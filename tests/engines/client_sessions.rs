//! Sessions that several configurations of a client share, with both engines.

use std::sync::{Arc, Mutex};

use bowline::config::{ClientSessions, ClientTlsBuilder};
use bowline::rustls::NamedGroup;
use bowline::rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use bowline::rustls::pki_types::ServerName;
use bowline::testing::memory_pair;
use bowline::testing::pki::{Identity, Pki};
use bowline::{
    ClientTls, Reason, ServerTls, StartTls, TlsConnection, TlsTransport, TlsVersion, Transport, UpgradableConnection,
};

use crate::setup::SOON;

const VERSIONS: [TlsVersion; 2] = [TlsVersion::V1_2, TlsVersion::V1_3];

fn cases() -> impl Iterator<Item = (TlsVersion, bool)> {
    VERSIONS.into_iter().flat_map(|version| [(version, false), (version, true)])
}

fn server(pki: &Pki, express: bool) -> ServerTls {
    let me = pki.server(&["localhost", "a.test", "b.test", "c.test"]);
    let builder = ServerTls::builder().identity_pem(me.chain_pem(), me.key_pem()).client_ca_pem(pki.ca_pem());
    if express { builder.express() } else { builder }.build().unwrap()
}

/// The configuration of a client, always from the same contents.
fn client(pki: &Pki, me: &Identity, (version, express): (TlsVersion, bool)) -> ClientTlsBuilder {
    let builder = ClientTls::builder().roots_pem(pki.ca_pem()).identity_pem(me.chain_pem(), me.key_pem());
    let builder = builder.min_version(version).max_version(version);
    if express { builder.express() } else { builder }
}

/// Whether the session was resumed.
async fn resumes(client: &ClientTls, server: &ServerTls) -> bool {
    resumes_as(client, server, "localhost").await
}

async fn resumes_as(client: &ClientTls, server: &ServerTls, name: &str) -> bool {
    let (a, b) = memory_pair();
    let both = async { tokio::join!(TlsConnection::connect(a, client, name), TlsConnection::accept(b, server)) };
    let (client, server) = tokio::time::timeout(SOON, both).await.unwrap();
    let (mut client, mut server) = (client.unwrap(), server.unwrap());
    let resumed = client.tls().unwrap().resumed;
    assert_eq!(resumed, server.tls().unwrap().resumed);
    // The client reads the tickets.
    let (_, _) = tokio::join!(client.close(), server.close());
    resumed
}

/// rule: ticket-11
#[tokio::test]
async fn configurations_with_the_same_trust_resume_each_others_sessions_and_no_others_do() {
    let pki = Pki::new();
    let (me, somebody, other_ca) = (pki.client("me"), pki.client("somebody"), Pki::new());
    for case in cases() {
        let (server, sessions) = (server(&pki, case.1), ClientSessions::new());
        let build = |builder: ClientTlsBuilder| builder.sessions(&sessions).build().unwrap();
        let first = build(client(&pki, &me, case));
        assert!(!resumes(&first, &server).await && resumes(&first, &server).await);
        // A client is built again, also with another ALPN and the other engine.
        drop(first);
        assert!(resumes(&build(client(&pki, &me, case)), &server).await, "{case:?}");
        let again = build(client(&pki, &me, (case.0, !case.1)).alpn(["other"]));
        assert!(resumes(&again, &server).await, "{case:?}");
        // This client has the same files, but its own `ClientSessions`.
        let stranger = client(&pki, &me, case).sessions(&ClientSessions::new()).build().unwrap();
        assert!(!resumes(&stranger, &server).await);
        // With another certificate, another root, a revocation list or a change of its own, nothing is resumed.
        let others = [
            client(&pki, &somebody, case),
            client(&pki, &me, case).root(other_ca.ca_der()),
            client(&pki, &me, case).crl_pem(pki.crl_pem()),
            client(&pki, &me, case).customize(|_| ()),
        ];
        for (number, other) in others.into_iter().enumerate() {
            let other = build(other);
            assert!(!resumes(&other, &server).await, "{case:?} {number}");
            assert!(resumes(&other, &server).await, "{case:?} {number}");
        }
        // The other configurations have taken no ticket of the first one.
        assert!(resumes(&again, &server).await, "{case:?}");
        sessions.clear();
        assert!(!resumes(&again, &server).await && resumes(&again, &server).await);
    }
}

/// rule: ticket-11
/// rule: reload-3
#[tokio::test]
async fn a_replacement_keeps_the_sessions_that_its_trust_allows() {
    let pki = Pki::new();
    let (me, renewed) = (pki.client("me"), pki.client("me"));
    for case in cases() {
        let (server, sessions) = (server(&pki, case.1), ClientSessions::new());
        let build = |me: &Identity| client(&pki, me, case).sessions(&sessions);
        let tls = build(&me).build().unwrap();
        assert!(!resumes(&tls, &server).await);
        assert_eq!(tls.replace(build(&me).alpn(["new"]).build().unwrap()), 2);
        assert!(resumes(&tls, &server).await, "{case:?}");
        assert_eq!(tls.replace(build(&renewed).build().unwrap()), 3);
        assert!(!resumes(&tls, &server).await && resumes(&tls, &server).await, "{case:?}");
        assert_eq!(tls.replace(build(&renewed).crl_pem(pki.crl_pem()).build().unwrap()), 4);
        assert!(!resumes(&tls, &server).await && resumes(&tls, &server).await, "{case:?}");
        // The first configuration is in use again, with its sessions.
        assert_eq!(tls.replace(build(&me).build().unwrap()), 5);
        assert!(resumes(&tls, &server).await, "{case:?}");
    }
}

/// rule: ticket-11
#[tokio::test]
async fn the_sessions_are_limited_in_names_and_tickets() {
    let pki = Pki::new();
    let (me, somebody) = (pki.client("me"), pki.client("somebody"));
    for case in cases() {
        let (server, sessions) = (server(&pki, case.1), ClientSessions::with_limits(2, 1));
        let tls = client(&pki, &me, case).sessions(&sessions).build().unwrap();
        let other = client(&pki, &somebody, case).sessions(&sessions).build().unwrap();
        assert!(!resumes_as(&tls, &server, "a.test").await && !resumes_as(&tls, &server, "b.test").await);
        // "a.test" is used after "b.test", so "b.test" makes space for the third name.
        assert!(resumes_as(&tls, &server, "a.test").await);
        assert!(!resumes_as(&tls, &server, "c.test").await);
        assert!(resumes_as(&tls, &server, "a.test").await && !resumes_as(&tls, &server, "b.test").await);
        // The names of another configuration count towards the same limit.
        assert!(!resumes_as(&other, &server, "a.test").await && !resumes_as(&other, &server, "b.test").await);
        assert!(!resumes_as(&tls, &server, "b.test").await);
        for (names, tickets) in [(0, 1), (1, 0)] {
            let none = ClientSessions::with_limits(names, tickets);
            let tls = client(&pki, &me, case).sessions(&none).build().unwrap();
            assert!(!resumes(&tls, &server).await && !resumes(&tls, &server).await, "{case:?}");
        }
    }
    let both = client(&pki, &me, (TlsVersion::V1_3, false)).keep_tickets(3).sessions(&ClientSessions::new()).build();
    assert!(both.unwrap_err().to_string().contains("keep_tickets"));
}

/// A store of an application, for one name.
#[derive(Debug, Default)]
struct OneName {
    tls12: Mutex<Option<Tls12ClientSessionValue>>,
    tls13: Mutex<Vec<Tls13ClientSessionValue>>,
    is_broken: bool,
}

impl ClientSessionStore for OneName {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, value: Tls12ClientSessionValue) {
        *self.tls12.lock().unwrap() = Some(value);
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        assert!(!self.is_broken, "this panic is a part of the test");
        self.tls12.lock().unwrap().clone()
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.tls12.lock().unwrap().take();
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        let mut kept = self.tls13.lock().unwrap();
        kept.push(value);
        kept.truncate(8);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        assert!(!self.is_broken, "this panic is a part of the test");
        self.tls13.lock().unwrap().pop()
    }
}

/// rule: ticket-11
#[tokio::test]
async fn the_application_can_keep_the_sessions_itself() {
    let pki = Pki::new();
    let me = pki.client("me");
    for case in cases() {
        let (server, store) = (server(&pki, case.1), Arc::new(OneName::default()));
        let builder = client(&pki, &me, case).session_store(Arc::clone(&store) as Arc<dyn ClientSessionStore>);
        assert!(!format!("{builder:?}").contains("OneName"));
        let tls = builder.build().unwrap();
        assert!(!resumes(&tls, &server).await && resumes(&tls, &server).await, "{case:?}");
        let kept = (store.tls12.lock().unwrap().is_some(), store.tls13.lock().unwrap().is_empty());
        assert_eq!(kept, (case.0 == TlsVersion::V1_2, case.0 == TlsVersion::V1_2));
        // rustls does not resume a session with the verifier of another configuration.
        let other = client(&pki, &me, case).session_store(store).build().unwrap();
        assert!(!resumes(&other, &server).await, "{case:?}");
    }
}

/// rule: life-7
#[tokio::test]
async fn a_store_that_panics_at_the_start_of_a_session_fails_the_upgrade() {
    let pki = Pki::new();
    let me = pki.client("me");
    for case in cases() {
        let store = Arc::new(OneName { is_broken: true, ..OneName::default() });
        let tls = client(&pki, &me, case).session_store(store).build().unwrap();
        let (ours, _theirs) = memory_pair();
        let mut connection = UpgradableConnection::new(ours);
        connection.start_tls(StartTls::client(&tls, "localhost")).await.unwrap_err();
        let report = connection.close().await;
        let Reason::Tls(tls) = &report.reason else { panic!("{case:?}: {report}") };
        assert!(tls.error.to_string().contains("panicked"), "{case:?}: {tls:?}");
    }
}
