//! half: one direction ends, the other stays open.

use std::time::Duration;

use bowline::protocol::Runner;
use bowline::testing::Kind;
use bowline::testing::peer::{Event as Seen, RawTls};
use bowline::{End, Policy, TcpConnection, TlsConnection, Transport as _, Watermarks};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::common::{bounded, clog, expect, over, over_all, pattern, read_all, reset_on_drop, server_and_tokio_rustls};
use crate::probe::{Event, Probe, pull, push, run, start};
use crate::setup::{as_client, as_server, hasty, plain};

/// rule: half-1, half-2, half-7
#[tokio::test]
async fn close_write_ends_one_half_and_reading_continues() {
    over_all(|_, a, mut b| async move {
        let probe = Probe::at("made", |transport| {
            transport.write(b"question");
            transport.close_write();
        });
        let running = run(probe, a);
        let (question, end) = read_all(&mut b).await;
        assert_eq!((&question[..], end.is_ok()), (&b"question"[..], true));
        running.told.event("write_closed").await;
        b.write_all(&pattern(1_000_000)).await.unwrap();
        running.told.len(1_000_000).await;
        b.close().await;
        assert!(running.task.await.unwrap().is_clean());
        assert!(running.told.data() == pattern(1_000_000));
        running.told.forget("secured");
        assert_eq!(running.told.names(), ["made", "write_closed", "data", "read_closed(Clean)", "lost(closed)"]);
    })
    .await;
}

/// rule: half-2, secure-2
#[tokio::test]
async fn the_wire_shows_close_notify_and_then_fin() {
    for version in [bowline::TlsVersion::V1_2, bowline::TlsVersion::V1_3] {
        bounded("tcp", async move {
            let (ours, theirs) = bowline::testing::raw_tcp_pair().await.unwrap();
            let pki = bowline::testing::shared_pki();
            let tcp = TcpConnection::new(ours, Policy::default()).unwrap();
            let probe = Probe::at("secured", |transport| {
                transport.write(b"data");
                transport.close_write();
            });
            let running = run(probe, TlsConnection::server(tcp, &pki.server_tls()).unwrap());
            let client_tls = pki.client_tls_builder().min_version(version).max_version(version).build().unwrap();
            let mut raw = RawTls::client(theirs, &client_tls, "localhost").await.unwrap();
            assert_eq!(raw.observe().await, [Seen::Data(4), Seen::CloseNotify, Seen::Fin]);
            // Our end of sending does not stop the decryption of what the peer sends.
            raw.data(b"answer").close_notify().send().await.unwrap();
            raw.fin().unwrap();
            assert!(running.task.await.unwrap().is_clean());
            assert_eq!(running.told.data(), b"answer");
        })
        .await;
    }
}

/// rule: half-3
#[tokio::test]
async fn a_second_close_write_is_nothing_and_kills_nothing() {
    over_all(|_, a, mut b| async move {
        let probe = Probe::on(|event, transport| match event {
            Event::Made | Event::Data(_) | Event::WriteClosed => {
                transport.close_write();
                transport.close_write();
            }
            _ => {}
        });
        let running = run(probe, a);
        running.told.event("write_closed").await;
        for round in 1..=3 {
            b.write_all(&[1; 1_000]).await.unwrap();
            running.told.len(round * 1_000).await;
            running.handle.close_write();
        }
        b.close().await;
        assert!(running.task.await.unwrap().is_clean());
        assert_eq!(running.told.count("write_closed"), 1);
        running.handle.close_write();
    })
    .await;
}

/// rule: half-4, close-5
#[tokio::test]
async fn close_write_waits_for_the_producer_and_goes_out_once_it_leaves() {
    over_all(|_, a, mut b| async move {
        let probe = Probe::half_closeable();
        let told = probe.told();
        let running = run(probe, a);
        let registered = running.handle.register_producer(pull(told, pattern(200_000), 9_000));
        running.handle.close_write();
        registered.await.unwrap();
        let (received, end) = read_all(&mut b).await;
        assert!(received == pattern(200_000) && end.is_ok());
        b.write_all(b"still read").await.unwrap();
        running.told.len(10).await;
        b.close().await;
        assert!(running.task.await.unwrap().is_clean());
        assert!(!running.told.has("stop"));
    })
    .await;
    over_all(|_, a, mut b| async move {
        let probe = Probe::half_closeable();
        let told = probe.told();
        let running = run(probe, a);
        running.handle.register_producer(push(told)).await.unwrap();
        running.handle.close_write();
        running.handle.write("first ");
        expect(&mut b, b"first ").await;
        b.write_all(b"meanwhile").await.unwrap();
        running.told.len(9).await;
        assert!(!running.told.has("write_closed"));
        running.handle.write("last");
        running.handle.unregister_producer();
        let (received, end) = read_all(&mut b).await;
        assert_eq!((&received[..], end.is_ok()), (&b"last"[..], true));
        b.close().await;
        assert!(running.task.await.unwrap().is_clean());
        assert!(!running.told.has("stop"));
    })
    .await;
}

/// rule: half-5
#[tokio::test]
async fn close_write_before_the_handshake_is_done_waits_for_it() {
    for early in [&b"early"[..], b""] {
        bounded("begin_tls", async move {
            let (a, mut b) = plain().await;
            let probe = Probe::at("made", move |transport| {
                transport.write(early);
                transport.close_write();
            });
            let running = start(Runner::new(probe, a).begin_tls(as_client()));
            b.start_tls(as_server()).await.unwrap();
            let (received, end) = read_all(&mut b).await;
            assert_eq!((&received[..], end.is_ok()), (early, true));
            b.write_all(b"late").await.unwrap();
            b.close().await;
            assert!(running.task.await.unwrap().is_clean());
            let expected = ["made", "secured", "write_closed", "data", "read_closed(Clean)", "lost(closed)"];
            assert_eq!(running.told.names(), expected);
        })
        .await;
    }
}

/// rule: half-6
#[tokio::test]
async fn a_half_closeable_protocol_continues_to_send_after_the_peers_end() {
    over_all(|_, a, mut b| async move {
        let running = run(Probe::half_closeable(), a);
        b.write_all(&pattern(50_000)).await.unwrap();
        b.close_write().await.unwrap();
        running.told.event("read_closed(Clean)").await;
        assert!(running.told.data() == pattern(50_000), "the end is told behind the data");
        running.handle.write(pattern(300_000));
        expect(&mut b, &pattern(300_000)).await;
        running.handle.write("more");
        running.handle.close();
        let (received, end) = read_all(&mut b).await;
        assert_eq!((&received[..], end.is_ok()), (&b"more"[..], true));
        b.close().await;
        assert!(running.task.await.unwrap().is_clean());
        assert_eq!(running.told.count("read_closed"), 1);
    })
    .await;
}

/// rule: half-6, end-2
#[tokio::test]
async fn a_truncated_end_is_reported_as_truncated_after_the_data() {
    let (server, mut client) = server_and_tokio_rustls(Policy::default()).await;
    client.write_all(&pattern(40_000)).await.unwrap();
    client.flush().await.unwrap();
    let mut socket = client.into_inner().0;
    socket.shutdown().await.unwrap();
    let running = run(Probe::quiet(), server);
    running.told.event("read_closed(Truncated)").await;
    assert!(running.told.data() == pattern(40_000));
    drop(socket);
    assert_eq!(running.task.await.unwrap().reason.name(), "truncated");
    assert_eq!(running.told.count("read_closed"), 1);
}

/// rule: half-7
#[tokio::test]
async fn the_end_of_our_half_is_reported_only_after_the_marker_has_left() {
    over_all(|_, mut a, mut b| async move {
        let taken = clog(&mut a).await;
        let probe = Probe::at("made", |transport| {
            transport.write(b"last");
            transport.close_write();
        });
        let running = run(probe, a);
        b.write_all(b"meanwhile").await.unwrap();
        running.told.len(9).await;
        assert!(!running.told.has("write_closed"), "told ahead of the bytes");
        let (received, end) = read_all(&mut b).await;
        assert!(received.len() == taken + 4 && end.is_ok());
        running.told.event("write_closed").await;
        b.close().await;
        running.task.await.unwrap();
        assert_eq!(running.told.count("write_closed"), 1);
    })
    .await;
}

/// rule: half-8
#[tokio::test]
async fn a_clean_end_stays_clean_when_a_reset_follows() {
    let (server, mut client) = server_and_tokio_rustls(Policy::default()).await;
    client.write_all(b"whole").await.unwrap();
    client.get_mut().1.send_close_notify();
    client.flush().await.unwrap();
    let running = run(Probe::half_closeable(), server);
    running.told.event("read_closed(Clean)").await;
    reset_on_drop(client.get_ref().0);
    drop(client);
    let report = running.task.await.unwrap();
    assert_eq!(report.layers[0].received, bowline::Received::Marker);
    assert_eq!(running.told.count("read_closed"), 1);
    assert!(matches!(running.told.all()[3], Event::ReadClosed(End::Clean)), "{:?}", running.told.names());
}

/// rule: half-9, close-3
#[tokio::test]
async fn close_after_close_write_ends_within_the_bound_although_the_peer_talks() {
    over(&Kind::ALL, hasty(150), |_, a, b| async move {
        let (mut read, mut write) = tokio::io::split(b);
        let running = run(Probe::at("write_closed", |transport| transport.close()), a);
        let talking = tokio::spawn(async move { while write.write_all(&[1; 9_000]).await.is_ok() {} });
        running.told.event("data").await;
        running.handle.close_write();
        let report = running.task.await.unwrap();
        assert!(report.limit.is_some() && report.marker_sent(), "{report:?}");
        talking.await.unwrap();
        let _ = read.read_to_end(&mut Vec::new()).await;
    })
    .await;
}

/// rule: half-10
#[tokio::test]
async fn a_half_open_connection_has_an_idle_bound_of_its_own() {
    let policy = Policy::default().half_open_timeout(Duration::from_millis(100));
    over(&Kind::ALL, policy, |_, a, mut b| async move {
        let running = run(Probe::half_closeable(), a);
        tokio::time::sleep(Duration::from_millis(120)).await;
        running.handle.close_write();
        b.write_all(b"still there").await.unwrap();
        running.told.len(11).await;
        let reason = running.handle.lost().await;
        assert!(matches!(reason, bowline::Reason::TimedOut(bowline::Phase::HalfOpen)), "{reason:?}");
        running.task.await.unwrap();
    })
    .await;
}

/// rule: half-11, flow-3
#[tokio::test]
async fn the_peers_end_while_the_producer_is_paused_drains_and_stops_it_once() {
    let policy = Policy::default().watermarks(Watermarks::new(10_000, 20_000));
    over(&Kind::ALL, policy, |_, mut a, mut b| async move {
        let taken = clog(&mut a).await;
        let probe = Probe::quiet();
        let told = probe.told();
        let running = run(probe, a);
        running.handle.register_producer(push(told)).await.unwrap();
        running.handle.write(pattern(100_000));
        running.told.event("pause").await;
        b.close_write().await.unwrap();
        running.told.event("stop").await;
        let (received, end) = read_all(&mut b).await;
        assert!(received.len() == taken + 100_000 && end.is_ok());
        assert!(received[taken..] == pattern(100_000));
        b.close().await;
        assert!(running.task.await.unwrap().is_clean());
        running.told.forget("secured");
        let expected = ["made", "pause", "read_closed(Clean)", "stop", "write_closed", "lost(closed)"];
        assert_eq!(running.told.names(), expected);
    })
    .await;
}

/// rule: half-12, tcp-9
#[tokio::test]
async fn close_write_to_a_peer_that_reads_nothing_ends_at_the_limit() {
    over(&Kind::ALL, hasty(200), |_, mut a, b| async move {
        clog(&mut a).await;
        let running = run(Probe::half_closeable(), a);
        running.handle.write(pattern(100_000));
        running.handle.close_write();
        let reason = running.handle.lost().await;
        assert!(matches!(reason, bowline::Reason::TimedOut(bowline::Phase::Close)), "{reason:?}");
        running.task.await.unwrap();
        drop(b);
    })
    .await;
}
