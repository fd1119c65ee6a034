use std::io::ErrorKind;
use std::time::Duration;

use bowline::testing::{Pipe, memory_pair, raw_tcp_pair, shared_pki, tcp_pair, tcp_pair_with};
use bowline::{
    CloseLimit, Error, Leftover, Phase, Policy, Reason, SocketOptions, StartTls, Stream, TcpConnection, TlsTransport,
    Transport, UpgradableConnection, UpgradableTransport, UpgradeError,
};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};

use crate::common::{
    KNOWS_DELIVERY, Orderly as _, bounded, ended_together, expect, pattern, poll_once, read_all, settle,
};

type Upgradable = UpgradableConnection<TcpConnection>;

async fn plain_pair() -> (Upgradable, Upgradable) {
    plain_pair_with(Policy::default()).await
}

async fn plain_pair_with(policy: Policy) -> (Upgradable, Upgradable) {
    let (client, server) = tcp_pair_with(policy).await.unwrap();
    (UpgradableConnection::new(client), UpgradableConnection::new(server))
}

fn as_client() -> StartTls {
    StartTls::client(&shared_pki().client_tls(), "localhost")
}

fn as_server() -> StartTls {
    StartTls::server(&shared_pki().server_tls())
}

async fn upgrade(client: &mut Upgradable, server: &mut Upgradable) {
    let (a, b) = tokio::join!(client.start_tls(as_client()), server.start_tls(as_server()));
    a.unwrap();
    b.unwrap();
}

fn which(result: Result<(), Error>) -> UpgradeError {
    match result.unwrap_err() {
        Error::Upgrade(error) => error,
        other => panic!("{other:?}"),
    }
}

/// rule: upgrade-1
#[tokio::test]
async fn plaintext_leaves_first_and_all_later_bytes_are_encrypted() {
    bounded("tcp", async {
        let (mut client, mut server) = plain_pair().await;
        let plain = pattern(2_000_000);
        let (sent, expected) = (plain.clone(), plain.clone());
        let sending = tokio::spawn(async move {
            client.write_all(&sent).await.unwrap();
            client.start_tls(as_client()).await.unwrap();
            client.write_all(b"secret").await.unwrap();
            client
        });
        expect(&mut server, &expected).await;
        server.start_tls(as_server()).await.unwrap();
        expect(&mut server, b"secret").await;
        assert!(sending.await.unwrap().is_secure());
    })
    .await;
}

/// rule: upgrade-2, upgrade-3
#[tokio::test]
async fn a_command_injected_after_starttls_is_never_carried_out() {
    for policy in [None, Some(Leftover::Refuse), Some(Leftover::Feed)] {
        let (mut raw, server) = raw_tcp_pair().await.unwrap();
        let mut server = UpgradableConnection::new(TcpConnection::new(server, Policy::default()).unwrap());
        raw.write_all(b"STARTTLS\r\nRCPT TO:<victim>\r\n").await.unwrap();
        let mut line = String::new();
        server.read_line(&mut line).await.unwrap();
        assert_eq!(line, "STARTTLS\r\n");
        let how = policy.map_or(as_server(), |policy| as_server().leftover(policy));
        let refusal = which(server.start_tls(how).await);
        assert!(matches!(refusal, UpgradeError::Leftover { count: 18 }), "{refusal:?}");
        // The connection has ended: reads return no data, no bytes leave, and the reason is kept.
        assert!(matches!(Error::from(server.read(&mut [0; 64]).await.unwrap_err()), Error::Upgrade(_)));
        assert!(server.write(b"250 ok").await.is_err());
        assert_eq!(server.status().reason.unwrap().name(), "protocol");
        assert_eq!(raw.read(&mut [0; 64]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
}

/// rule: upgrade-2
#[tokio::test]
async fn a_client_refuses_any_leftover() {
    let (client, mut raw) = raw_tcp_pair().await.unwrap();
    let mut client = UpgradableConnection::new(TcpConnection::new(client, Policy::default()).unwrap());
    raw.write_all(b"220 go ahead\r\n\x16\x03\x03").await.unwrap();
    let mut line = String::new();
    client.read_line(&mut line).await.unwrap();
    assert!(matches!(which(client.start_tls(as_client()).await), UpgradeError::Leftover { count: 3 }));
}

/// rule: upgrade-2
#[tokio::test]
async fn a_client_hello_glued_to_the_command_works() {
    bounded("memory", async {
        // One read of the pipe takes everything that has arrived, so the ClientHello is in the server's inbox.
        let (client, server) = memory_pair();
        let mut server: UpgradableConnection<Stream<Pipe>> = UpgradableConnection::new(server);
        let client = tokio::spawn(async move {
            let mut client = UpgradableConnection::new(client);
            client.write_all(b"STARTTLS\r\n").await.unwrap();
            client.start_tls(as_client()).await.unwrap();
            client.write_all(b"secured").await.unwrap();
            client
        });
        tokio::time::sleep(Duration::from_millis(20)).await;
        let mut line = String::new();
        server.read_line(&mut line).await.unwrap();
        server.start_tls(as_server()).await.unwrap();
        expect(&mut server, b"secured").await;
        client.await.unwrap();
    })
    .await;
}

/// A server that has sent many bytes, which its peer has not read, and that then waits for a ClientHello.
async fn server_that_waits_for_tls(is_nested: bool, sent: &[u8], policy: Policy) -> (Upgradable, Upgradable) {
    let (mut client, mut server) = plain_pair_with(policy).await;
    server.set_send_buffer_size(1 << 20).unwrap();
    if is_nested {
        upgrade(&mut client, &mut server).await;
    }
    server.write_all(sent).await.unwrap();
    server.flush().await.unwrap();
    assert!(poll_once(&mut Box::pin(server.start_tls(as_server()))).await.is_pending());
    (client, server)
}

/// rule: close-9, close-14, upgrade-7
#[tokio::test]
async fn a_close_that_gives_up_an_upgrade_waits_for_the_bytes_before_it() {
    bounded("tcp", async {
        for is_nested in [false, true] {
            let (client, mut server) = server_that_waits_for_tls(is_nested, b"", Policy::default()).await;
            let report = server.close().await;
            assert_eq!(report.reason.name(), "closed", "nothing can be lost: {report:?}");
            drop(client);

            let (mut client, mut server) =
                server_that_waits_for_tls(is_nested, &pattern(300_000), Policy::default()).await;
            // The server's system holds bytes that are never read. A ClientHello has the same effect.
            client.write_all(b"unread").await.unwrap();
            client.flush().await.unwrap();
            let closing = tokio::spawn(async move { server.close().await });
            tokio::time::sleep(Duration::from_millis(30)).await;
            assert!(!KNOWS_DELIVERY || !closing.is_finished(), "the peer has not read it");
            let (received, end) = read_all(&mut client).await;
            // Without knowledge of the delivery, the close does not wait, and RST discards bytes on their way.
            let is_whole = received == pattern(300_000);
            assert!(!KNOWS_DELIVERY || is_whole, "{} bytes, {end:?}", received.len());
            let report = closing.await.unwrap();
            assert!(report.ended_last(), "{report:?}");

            // A close that is dropped and called again continues.
            let (mut client, mut server) =
                server_that_waits_for_tls(is_nested, &pattern(300_000), Policy::default()).await;
            let is_dropped = tokio::time::timeout(Duration::from_millis(30), server.close()).await.is_err();
            assert_eq!(is_dropped, KNOWS_DELIVERY);
            let (received, _) = read_all(&mut client).await;
            assert!(!KNOWS_DELIVERY || received == pattern(300_000));
            let report = server.close().await;
            assert!(report.ended_last() && report.limit.is_none(), "{report:?}");

            let hasty = Policy::default().close_timeout(Duration::from_millis(300));
            let (client, mut server) = server_that_waits_for_tls(is_nested, &pattern(300_000), hasty).await;
            let report = server.close().await;
            assert_eq!(report.reason.name(), "unconfirmed", "{report:?}");
            assert_eq!(report.limit, KNOWS_DELIVERY.then_some(CloseLimit::Time));
            drop(client);
        }
    })
    .await;
}

/// rule: upgrade-4
#[tokio::test]
async fn the_role_is_the_callers_choice_or_that_of_the_tcp_side() {
    // The side that connected is the server, as in FTP's data connections.
    let (mut a, mut b) = plain_pair().await;
    let (x, y) = tokio::join!(a.start_tls(as_server()), b.start_tls(as_client()));
    x.unwrap();
    y.unwrap();
    settle(&mut a, &mut b).await;
    // The connection chooses the role.
    let (mut a, mut b) = plain_pair().await;
    let how = || StartTls::as_made(&shared_pki().client_tls(), "localhost", &shared_pki().server_tls());
    let (x, y) = tokio::join!(a.start_tls(how()), b.start_tls(how()));
    x.unwrap();
    y.unwrap();
    assert!(!a.tls().unwrap().peer_chain.is_empty(), "the side that connected has seen a certificate");
    assert!(b.tls().unwrap().peer_chain.is_empty());
}

/// rule: upgrade-5
#[tokio::test]
async fn an_upgrade_at_the_wrong_time_is_an_error_and_changes_nothing() {
    let (mut a, mut b) = plain_pair().await;
    assert!(matches!(which(a.stop_tls().await), UpgradeError::NotSecure));
    a.close_write().await.unwrap();
    assert!(matches!(which(a.start_tls(as_client()).await), UpgradeError::SendClosed));
    assert_eq!(b.read(&mut [0; 1]).await.unwrap(), 0);
    assert!(matches!(which(b.start_tls(as_server()).await), UpgradeError::PeerEnded));
    // The refusals have changed nothing: bytes still flow, and the end is clean.
    b.write_all(b"plain").await.unwrap();
    expect(&mut a, b"plain").await;
    let (x, y) = tokio::join!(a.close(), b.close());
    assert!(ended_together(&x, &y));
    assert!(matches!(which(a.start_tls(as_client()).await), UpgradeError::Failed(Reason::Closed)));
}

/// rule: upgrade-5
#[tokio::test]
async fn an_upgrade_of_an_ended_connection_reports_how_it_ended() {
    let (mut a, mut b) = plain_pair().await;
    a.abort();
    assert!(matches!(which(a.start_tls(as_client()).await), UpgradeError::Failed(Reason::Aborted)));
    assert!(b.read(&mut [0; 1]).await.is_err());
    assert!(matches!(which(b.start_tls(as_server()).await), UpgradeError::Failed(Reason::Reset(_))));
}

/// rule: upgrade-5
#[tokio::test]
async fn an_upgrade_that_was_given_up_is_not_begun_again() {
    let (mut a, b) = plain_pair().await;
    assert!(tokio::time::timeout(Duration::from_millis(20), a.start_tls(as_client())).await.is_err());
    assert!(matches!(which(a.start_tls(as_client()).await), UpgradeError::InProgress));
    assert!(a.write(b"in the clear?").await.is_err());
    assert!(a.read(&mut [0; 1]).await.is_err());
    a.close().await;
    drop(b);
}

/// rule: upgrade-6, upgrade-10, secure-3, tcp-1, tcp-2
#[tokio::test]
async fn success_gives_the_same_operations_and_addresses_and_the_facts() {
    let (mut a, mut b) = plain_pair().await;
    let (host, peer) = (a.local_addr(), a.peer_addr());
    assert!(a.tls().is_none() && !a.is_secure());
    upgrade(&mut a, &mut b).await;
    assert_eq!((a.local_addr(), a.peer_addr()), (host.clone(), peer));
    assert_eq!(b.peer_addr(), host);
    let facts = a.tls().unwrap();
    assert_eq!((facts.version_name().as_str(), facts.resumed), ("TLSv1.3", false));
    assert_eq!(facts.sni.as_deref(), Some("localhost"));
    assert_eq!(b.tls().unwrap().sni.as_deref(), Some("localhost"));
    assert!(!facts.peer_chain.is_empty() && facts.peer_chain == b.tls().unwrap().own_chain);
    a.set_nodelay(false).unwrap();
    assert!(!a.nodelay().unwrap());
    settle(&mut a, &mut b).await;
    let (x, y) = tokio::join!(a.close(), b.close());
    assert!(ended_together(&x, &y));
    assert!(a.tls().is_some(), "the facts stay");
}

/// rule: upgrade-6
#[tokio::test]
async fn a_failure_is_reported_on_both_sides_and_ends_the_connection() {
    let (mut a, mut b) = plain_pair().await;
    let wrong = StartTls::client(&shared_pki().client_tls(), "another.example");
    let (x, y) = tokio::join!(a.start_tls(wrong), b.start_tls(as_server()));
    let UpgradeError::Failed(Reason::Tls(ours)) = which(x) else { panic!() };
    let UpgradeError::Failed(Reason::Tls(theirs)) = which(y) else { panic!() };
    assert_eq!((ours.phase, theirs.phase), (Phase::Handshake, Phase::Handshake));
    assert!(matches!(ours.error, bowline::rustls::Error::InvalidCertificate(_)), "{ours:?}");
    assert!(matches!(theirs.error, bowline::rustls::Error::AlertReceived(_)), "{theirs:?}");
    assert!(a.write(b"in the clear?").await.is_err());
    assert!(a.read(&mut [0; 1]).await.is_err());
    assert!(a.control().is_ended() && b.control().is_ended());
}

/// rule: upgrade-7, half-5, close-9
#[tokio::test]
async fn half_close_close_and_abort_right_after_the_upgrade() {
    bounded("close", async {
        let (mut a, mut b) = plain_pair().await;
        upgrade(&mut a, &mut b).await;
        a.write_all(b"last").await.unwrap();
        let (report, received) = tokio::join!(a.close(), async {
            let received = read_all(&mut b).await;
            b.close().await;
            received
        });
        assert!(report.is_clean() && received.0 == b"last");
        let (mut a, mut b) = plain_pair().await;
        upgrade(&mut a, &mut b).await;
        a.abort();
        assert!(matches!(read_all(&mut b).await.1, Err(Reason::Reset(_))));
    })
    .await;
}

/// rule: upgrade-8, abort-5
#[tokio::test]
async fn tls_inside_tls_inside_tls() {
    let (mut a, mut b) = plain_pair().await;
    for _ in 0..3 {
        upgrade(&mut a, &mut b).await;
        settle(&mut a, &mut b).await;
    }
    let data = pattern(300_000);
    let sent = data.clone();
    let sending = tokio::spawn(async move {
        a.write_all(&sent).await.unwrap();
        (a.close().await, a)
    });
    let (received, end) = read_all(&mut b).await;
    assert!(received == data && end.is_ok());
    b.close().await;
    let (report, _a) = sending.await.unwrap();
    assert!(report.is_clean() && report.layers.len() == 4, "{report:?}");
}

/// rule: upgrade-9
#[tokio::test]
async fn downgrade_and_upgrade_again_lose_nothing() {
    let (mut a, mut b) = plain_pair().await;
    for round in 0..3 {
        upgrade(&mut a, &mut b).await;
        a.write_all(b"in tls").await.unwrap();
        expect(&mut b, b"in tls").await;
        let (x, y) = tokio::join!(a.stop_tls(), b.stop_tls());
        x.unwrap();
        y.unwrap();
        assert!(!a.is_secure() && a.tls().is_none(), "round {round}");
        settle(&mut a, &mut b).await;
    }
    let (x, y) = tokio::join!(a.close(), b.close());
    assert!(ended_together(&x, &y));
}

/// rule: upgrade-9
#[tokio::test]
async fn plaintext_glued_to_the_close_notify_is_the_first_that_is_delivered() {
    for unread in [false, true] {
        let (mut a, mut b) = plain_pair().await;
        upgrade(&mut a, &mut b).await;
        if unread {
            a.write_all(b"unread, in tls; ").await.unwrap();
        }
        // `a` goes first and does not wait before it writes: its close_notify and the plaintext arrive together.
        let first = tokio::spawn(async move {
            a.stop_tls().await.unwrap();
            a.write_all(b"plain at once").await.unwrap();
            a
        });
        b.stop_tls().await.unwrap();
        let expected: &[u8] = if unread { b"unread, in tls; plain at once" } else { b"plain at once" };
        expect(&mut b, expected).await;
        first.await.unwrap();
    }
}

/// rule: upgrade-9
#[tokio::test]
async fn a_downgrade_that_is_met_by_fin_or_silence_ends_the_connection() {
    let policy = Policy::default().close_timeout(Duration::from_millis(100));
    let (mut a, mut b) = plain_pair_with(policy.clone()).await;
    upgrade(&mut a, &mut b).await;
    assert!(matches!(which(a.stop_tls().await), UpgradeError::Failed(Reason::TimedOut(Phase::Close))));
    assert!(a.write(b"in the clear?").await.is_err());
    let (mut a, mut b) = plain_pair_with(policy).await;
    upgrade(&mut a, &mut b).await;
    drop(b);
    let failure = which(a.stop_tls().await);
    assert!(matches!(failure, UpgradeError::Failed(Reason::Truncated(_) | Reason::Reset(_))), "{failure:?}");
}

/// rule: upgrade-9
#[tokio::test]
async fn a_downgrade_keeps_a_bounded_number_of_bytes_of_a_peer_that_does_not_end() {
    let (mut a, mut b) = plain_pair().await;
    upgrade(&mut a, &mut b).await;
    let talking = tokio::spawn(async move { while b.write_all(&[b'.'; 64 << 10]).await.is_ok() {} });
    let UpgradeError::NoEnd { bytes } = which(a.stop_tls().await) else { panic!("not the limit") };
    assert!(bytes > 1 << 20 && bytes < 2 << 20, "{bytes} bytes");
    talking.await.unwrap();
}

/// rule: upgrade-9
#[tokio::test]
async fn a_dropped_downgrade_may_be_resumed() {
    let (mut a, mut b) = plain_pair().await;
    upgrade(&mut a, &mut b).await;
    assert!(tokio::time::timeout(Duration::from_millis(20), a.stop_tls()).await.is_err());
    assert!(a.write(b"in the clear?").await.is_err(), "the peer still speaks TLS");
    let (x, y) = tokio::join!(a.stop_tls(), b.stop_tls());
    x.unwrap();
    y.unwrap();
    settle(&mut a, &mut b).await;
}

/// rule: upgrade-9
#[tokio::test]
async fn a_downgrade_of_tls_in_tls_lands_on_the_session_beneath() {
    let (mut a, mut b) = plain_pair().await;
    upgrade(&mut a, &mut b).await;
    upgrade(&mut a, &mut b).await;
    let (x, y) = tokio::join!(a.stop_tls(), b.stop_tls());
    x.unwrap();
    y.unwrap();
    assert!(a.is_secure() && b.is_secure());
    settle(&mut a, &mut b).await;
    let (x, y) = tokio::join!(a.close(), b.close());
    assert!(ended_together(&x, &y) && x.layers.len() == 2);
}

/// rule: upgrade-6, abort-4
#[tokio::test]
async fn a_handle_from_before_the_upgrade_aborts_after_it() {
    let (mut a, mut b) = plain_pair().await;
    let control = a.control();
    upgrade(&mut a, &mut b).await;
    control.abort();
    assert_eq!(a.read(&mut [0; 1]).await.unwrap_err().kind(), ErrorKind::ConnectionAborted);
    assert!(matches!(read_all(&mut b).await.1, Err(Reason::Reset(_))));
}

/// rule: upgrade-6, upgrade-8
#[tokio::test]
async fn all_of_it_works_on_trait_objects() {
    let (a, b) = tcp_pair().await.unwrap();
    let mut a: Box<dyn UpgradableTransport> = Box::new(UpgradableConnection::new(a));
    let mut b: Box<dyn UpgradableTransport> = Box::new(UpgradableConnection::new(b));
    let (x, y) = tokio::join!(a.start_tls(as_client()), b.start_tls(as_server()));
    x.unwrap();
    y.unwrap();
    assert!(a.is_secure() && a.as_tcp().unwrap().nodelay().unwrap());
    a.write_all(b"x").await.unwrap();
    expect(&mut b, b"x").await;
    a.close_write().await.unwrap();
    assert_eq!(b.read(&mut [0; 1]).await.unwrap(), 0);
    let (x, y) = tokio::join!(a.close(), b.close());
    assert!(ended_together(&x, &y));
}

/// rule: secure-5, upgrade-6
#[tokio::test]
async fn an_upgrade_that_stalls_ends_at_the_deadline() {
    let policy = Policy::default().handshake_timeout(Duration::from_millis(100));
    let (mut a, _b) = plain_pair_with(policy).await;
    let failure = which(a.start_tls(as_client()).await);
    assert!(matches!(failure, UpgradeError::Failed(Reason::TimedOut(Phase::Handshake))), "{failure:?}");
}

/// rule: upgrade-2, upgrade-8
#[tokio::test]
async fn leftover_inside_the_same_record_is_refused_in_tls_too() {
    let (mut a, mut b) = plain_pair().await;
    upgrade(&mut a, &mut b).await;
    a.write_all(b"STARTTLS\r\nEVIL").await.unwrap();
    let mut line = [0; 10];
    b.read_exact(&mut line).await.unwrap();
    assert!(matches!(which(b.start_tls(as_server()).await), UpgradeError::Leftover { count: 4 }));
}

/// rule: upgrade-5, secure-8
#[tokio::test]
async fn a_name_that_is_none_is_refused_before_anything_is_begun() {
    let (mut a, mut b) = plain_pair().await;
    let error = a.start_tls(StartTls::client(&shared_pki().client_tls(), "not a name!")).await.unwrap_err();
    assert!(matches!(error, Error::Config(_)), "{error:?}");
    settle(&mut a, &mut b).await;
}

/// rule: close-9
#[tokio::test]
async fn closing_inside_an_inner_handshake_ends_the_outer_session_in_order() {
    let (mut a, mut b) = plain_pair().await;
    upgrade(&mut a, &mut b).await;
    assert!(tokio::time::timeout(Duration::from_millis(20), a.start_tls(as_server())).await.is_err());
    assert!(matches!(a.close().await.reason, Reason::Closed));
    let (inner, end) = read_all(&mut b).await;
    assert_eq!((&inner[..], end.is_ok()), (&b""[..], true));
}

/// rule: upgrade-9, close-1
#[tokio::test]
async fn a_downgrade_that_was_given_up_keeps_no_layer_from_ending_in_order() {
    let (mut a, mut b) = plain_pair().await;
    upgrade(&mut a, &mut b).await;
    assert!(tokio::time::timeout(Duration::from_millis(20), a.stop_tls()).await.is_err());
    let (ours, theirs) = tokio::join!(a.close(), async {
        read_all(&mut b).await.1.unwrap();
        b.close().await
    });
    assert!(ended_together(&ours, &theirs), "{ours:?} {theirs:?}");
    assert!(ours.layers.iter().all(|layer| layer.marker_sent), "{ours:?}");
}

/// rule: upgrade-9, close-12
#[tokio::test]
async fn a_drop_after_a_downgrade_is_like_any_drop_in_plaintext() {
    let (mut a, mut b) = plain_pair().await;
    upgrade(&mut a, &mut b).await;
    let (x, y) = tokio::join!(a.stop_tls(), b.stop_tls());
    x.unwrap();
    y.unwrap();
    settle(&mut a, &mut b).await;
    drop(a);
    let (_, end) = read_all(&mut b).await;
    assert!(matches!(end, Err(Reason::Reset(_))), "it looks complete: {end:?}");
}

/// rule: half-10, upgrade-8
#[tokio::test]
async fn the_bound_of_a_half_open_connection_holds_through_an_upgradable_layer() {
    bounded("one pair", async {
        let policy = Policy::default().half_open_timeout(Duration::from_millis(100));
        let (client, server) = plain_pair_with(policy).await;
        let ends = bowline::testing::tls_over((client, server), bowline::TlsVersion::V1_3).await.unwrap();
        let (mut a, mut b) = ends;
        b.write_all(b"bye").await.unwrap();
        b.close_write().await.unwrap();
        assert_eq!(read_all(&mut a).await.0, b"bye");
        let error = loop {
            if let Err(error) = a.write_all(&[1; 100_000]).await {
                break error;
            }
        };
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        drop(b);
    })
    .await;
}
