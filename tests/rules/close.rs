use std::time::Duration;

use bowline::testing::{Kind, memory_pair, pair, pair_with, raw_tcp_pair, shared_pki};
use bowline::{CloseLimit, LayerKind, Phase, Policy, Reason, Received, TcpConnection, TlsConnection, Transport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use crate::common::{
    KNOWS_DELIVERY, Orderly as _, bounded, clog, ended_together, expect, over, over_all, patient, pattern, read_all,
    reset_on_drop, server_and_tokio_rustls, settle,
};

fn hasty(close: Duration) -> Policy {
    Policy::default().close_timeout(close)
}

/// rule: close-1, close-4, end-1
#[tokio::test]
async fn close_sends_all_then_the_markers_and_awaits_the_peers() {
    over_all(|kind, mut a, mut b| async move {
        let data = pattern(400_000);
        let sent = data.clone();
        let closing = tokio::spawn(async move {
            a.write_all(&sent).await.unwrap();
            (a.close().await, a)
        });
        let (received, end) = read_all(&mut b).await;
        assert!(received == data && end.is_ok());
        assert!(!closing.is_finished(), "the peer's end was not awaited");
        let theirs = b.close().await;
        let (ours, a) = closing.await.unwrap();
        assert!(ours.is_clean() && theirs.ended_last(), "{kind}: {ours:?} {theirs:?}");
        for report in [&ours, &theirs] {
            assert!(report.marker_sent() && report.marker_received(), "{kind}: {report:?}");
            assert_eq!(report.limit, None);
            assert!(report.layers.iter().all(|layer| layer.marker_sent && layer.received == Received::Marker));
            let expected = match kind {
                Kind::Tcp => vec![LayerKind::Tcp],
                Kind::Tls12 | Kind::Tls13 | Kind::Upgraded => vec![LayerKind::Tls, LayerKind::Tcp],
                Kind::TlsInTls => vec![LayerKind::Tls, LayerKind::Tls, LayerKind::Tcp],
                Kind::Memory => vec![LayerKind::Stream],
                Kind::MemoryTls => vec![LayerKind::Tls, LayerKind::Stream],
                other => panic!("{other}"),
            };
            assert_eq!(report.layers.iter().map(|layer| layer.kind).collect::<Vec<_>>(), expected);
        }
        if kind.has_socket() && KNOWS_DELIVERY {
            assert_eq!(ours.unacknowledged, Some(0));
        }
        assert!(a.control().is_ended());
    })
    .await;
}

/// rule: close-2
#[tokio::test]
async fn a_hundred_closes_with_unread_input_lose_nothing() {
    for round in 0..100 {
        let kind = [Kind::Tcp, Kind::Tls12, Kind::Tls13, Kind::Upgraded][round % 4];
        bounded(&format!("{kind}, round {round}"), async move {
            let (mut a, mut b) = pair(kind).await.unwrap();
            // The peer sends input while `a` closes; `a` never reads it.
            b.write_all(&[7; 20_000]).await.unwrap();
            let data = pattern(500_000);
            let sent = data.clone();
            let closing = tokio::spawn(async move {
                a.write_all(&sent).await.unwrap();
                a.close().await
            });
            b.write_all(&[8; 20_000]).await.unwrap();
            let (received, end) = read_all(&mut b).await;
            assert!(received == data && end.is_ok(), "{} of {}: {end:?}", received.len(), data.len());
            b.close().await;
            let report = closing.await.unwrap();
            assert!(report.is_clean() && report.discarded == 40_000, "{report:?}");
        })
        .await;
    }
}

/// rule: close-3, close-4, tcp-9
#[tokio::test]
async fn a_silent_peer_holds_a_close_no_longer_than_the_bound() {
    over(&Kind::ALL, hasty(Duration::from_millis(200)), |_, mut a, mut b| async move {
        settle(&mut a, &mut b).await;
        let report = a.close().await;
        assert!(matches!(report.reason, Reason::TimedOut(Phase::Close)), "{report:?}");
        assert!(report.timed_out() && report.marker_sent() && !report.marker_received());
        assert!(a.control().is_ended());
        // All bytes were sent, so the peer sees an orderly end.
        assert!(read_all(&mut b).await.1.is_ok());
    })
    .await;
}

/// rule: close-3
#[tokio::test]
async fn a_peer_that_reads_nothing_holds_a_close_no_longer_than_the_bound() {
    over(&Kind::ALL, hasty(Duration::from_millis(200)), |kind, mut a, mut b| async move {
        clog(&mut a).await;
        let report = a.close().await;
        assert!(report.timed_out(), "{report:?}");
        let (_, end) = read_all(&mut b).await;
        if kind.is_tls() {
            assert!(!report.marker_sent());
            assert!(matches!(end, Err(Reason::Reset(_))), "what was cut looks like an end in order: {end:?}");
        }
    })
    .await;
}

/// rule: close-3
#[tokio::test]
async fn a_peer_that_talks_without_end_holds_a_close_no_longer_than_the_bounds() {
    // A slow machine may need longer than 300 ms for the bytes, so each limit is tested with a large value of the other
    // one.
    let limits = [(300, u64::MAX, CloseLimit::Time), (30_000, 300_000, CloseLimit::Bytes)];
    for (millis, bytes, expected) in limits {
        let policy = hasty(Duration::from_millis(millis)).close_discard(bytes);
        over(&Kind::ALL, policy, move |kind, mut a, b| async move {
            let (mut read, mut write) = tokio::io::split(b);
            let talking = tokio::spawn(async move { while write.write_all(&[1; 9_000]).await.is_ok() {} });
            let reading = tokio::spawn(async move { read.read_to_end(&mut Vec::new()).await });
            a.read_exact(&mut [0; 1]).await.unwrap();
            let report = a.close().await;
            assert_eq!(report.limit, Some(expected), "{kind}: {report:?}");
            assert!(report.discarded > 0);
            talking.await.unwrap();
            let _ = reading.await.unwrap();
        })
        .await;
    }
}

/// rule: close-4, close-6
#[tokio::test]
async fn a_second_close_gives_the_same_report() {
    over_all(|_, mut a, mut b| async move {
        let (first, _) = tokio::join!(a.close(), b.close());
        let second = a.close().await;
        assert_eq!(format!("{first:?}"), format!("{second:?}"));
        assert!(a.control().report().is_some());
    })
    .await;
}

/// rule: close-6
#[tokio::test]
async fn close_after_loss_reports_the_loss() {
    over_all(|_, mut a, mut b| async move {
        settle(&mut a, &mut b).await;
        b.abort();
        let (_, end) = read_all(&mut a).await;
        assert!(matches!(end, Err(Reason::Reset(_))), "{end:?}");
        let report = a.close().await;
        assert!(matches!(report.reason, Reason::Reset(_)), "{report:?}");
    })
    .await;
}

/// rule: close-6, half-9
#[tokio::test]
async fn close_after_close_write_and_after_the_peers_end_is_clean() {
    over_all(|_, mut a, mut b| async move {
        a.close_write().await.unwrap();
        b.close_write().await.unwrap();
        assert_eq!(a.read(&mut [0; 1]).await.unwrap(), 0);
        let (ours, theirs) = tokio::join!(a.close(), b.close());
        assert!(ended_together(&ours, &theirs), "{ours:?} {theirs:?}");
    })
    .await;
}

/// rule: close-7
#[tokio::test]
async fn a_bare_fin_in_answer_to_our_close_is_unconfirmed() {
    let (mut server, mut client) = server_and_tokio_rustls(Policy::default()).await;
    server.write_all(b"all of it").await.unwrap();
    let closing = tokio::spawn(async move { server.close().await });
    let mut all = Vec::new();
    client.read_to_end(&mut all).await.unwrap();
    assert_eq!(all, b"all of it");
    drop(client.into_inner().0);
    let report = closing.await.unwrap();
    assert!(matches!(report.reason, Reason::Unconfirmed), "{report:?}");
    assert_eq!(report.layers[0].received, Received::BareEnd);
}

/// rule: close-7
#[tokio::test]
async fn a_reset_in_answer_to_our_close_is_a_reset() {
    let (mut server, mut client) = server_and_tokio_rustls(Policy::default()).await;
    server.write_all(b"all of it").await.unwrap();
    let closing = tokio::spawn(async move { server.close().await });
    client.read_to_end(&mut Vec::new()).await.unwrap();
    reset_on_drop(client.get_ref().0);
    drop(client);
    let report = closing.await.unwrap();
    assert!(matches!(report.reason, Reason::Reset(_)), "{report:?}");
    assert!(report.marker_sent());
}

/// rule: close-8
#[tokio::test]
async fn queued_bytes_arrive_completely_when_the_peer_closes_first() {
    over_all(|_, mut a, mut b| async move {
        let data = pattern(3_000_000);
        let sent = data.clone();
        b.close_write().await.unwrap();
        let writing = tokio::spawn(async move {
            assert_eq!(a.read(&mut [0; 1]).await.unwrap(), 0);
            a.write_all(&sent).await.unwrap();
            a.close().await
        });
        let (received, end) = read_all(&mut b).await;
        assert!(received == data && end.is_ok());
        b.close().await;
        assert!(writing.await.unwrap().ended_last());
    })
    .await;
}

/// rule: close-9
#[tokio::test]
async fn close_inside_the_handshake_finishes_it_for_what_was_accepted() {
    bounded("memory", async {
        let (client, server) = memory_pair();
        let (client_tls, server_tls) = (shared_pki().client_tls(), shared_pki().server_tls());
        let mut client = TlsConnection::client(client, &client_tls, "localhost").unwrap();
        client.write_all(b"last words").await.unwrap();
        let serving = async {
            let mut server = TlsConnection::accept(server, &server_tls).await.unwrap();
            let (received, end) = read_all(&mut server).await;
            assert_eq!((&received[..], end.is_ok()), (&b"last words"[..], true));
            server.close().await
        };
        let (ours, theirs) = tokio::join!(client.close(), serving);
        assert!(ended_together(&ours, &theirs), "{ours:?} {theirs:?}");
    })
    .await;
}

/// rule: close-9
#[tokio::test]
async fn close_during_the_handshake_without_accepted_bytes_sends_no_alert() {
    bounded("tcp", async {
        let (client, mut raw) = raw_tcp_pair().await.unwrap();
        let client = TcpConnection::new(client, Policy::default()).unwrap();
        let mut client = TlsConnection::client(client, &shared_pki().client_tls(), "localhost").unwrap();
        let begun = tokio::time::timeout(Duration::from_millis(50), client.handshake()).await;
        assert!(begun.is_err());
        let report = client.close().await;
        assert!(report.reason.is_clean(), "{report:?}");
        assert!(!report.marker_sent());
        let mut wire = Vec::new();
        raw.read_to_end(&mut wire).await.unwrap();
        // The peer gets only the ClientHello, and no alert after it.
        assert_eq!(wire[0], 22);
        let hello = 5 + usize::from(wire[3]) * 256 + usize::from(wire[4]);
        assert_eq!(wire.len(), hello, "something followed the ClientHello");
    })
    .await;
}

/// rule: close-10
#[tokio::test]
async fn data_that_waits_to_be_read_is_not_delivered_after_close() {
    over_all(|_, mut a, mut b| async move {
        b.write_all(b"first").await.unwrap();
        expect(&mut a, b"fir").await;
        b.write_all(b"second").await.unwrap();
        let (report, _) = tokio::join!(a.close(), async {
            read_all(&mut b).await.1.unwrap();
            b.close().await
        });
        assert!(report.is_clean(), "{report:?}");
        assert_eq!(a.read(&mut [0; 16]).await.unwrap(), 0);
    })
    .await;
}

/// rule: close-11
#[tokio::test]
async fn both_sides_closing_at_once_end_clean() {
    over_all(|_, mut a, mut b| async move {
        a.write_all(&pattern(30_000)).await.unwrap();
        b.write_all(&pattern(30_000)).await.unwrap();
        let (ours, theirs) = tokio::join!(a.close(), b.close());
        assert!(ended_together(&ours, &theirs), "{ours:?} {theirs:?}");
    })
    .await;
}

/// rule: close-12
#[tokio::test]
async fn a_dropped_transport_never_looks_complete() {
    over_all(|kind, mut a, mut b| async move {
        settle(&mut a, &mut b).await;
        a.write_all(b"half a mess").await.unwrap();
        a.flush().await.unwrap();
        drop(a);
        let (_, end) = read_all(&mut b).await;
        let end = end.unwrap_err();
        match kind {
            Kind::Tcp | Kind::Memory | Kind::MemoryTls => assert!(matches!(end, Reason::Reset(_)), "{end:?}"),
            _ => assert!(matches!(end, Reason::Truncated(_)), "{end:?}"),
        }
    })
    .await;
}

/// rule: close-12, life-4
#[test]
fn drop_needs_no_runtime() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let pairs = runtime.block_on(async {
        let mut pairs = Vec::new();
        for kind in Kind::ALL {
            let (mut a, b) = pair(kind).await.unwrap();
            clog(&mut a).await;
            pairs.push((a, b));
        }
        pairs
    });
    drop(runtime);
    drop(pairs);
}

/// rule: close-13
#[tokio::test]
async fn a_connection_both_of_whose_halves_have_ended_is_gone() {
    over_all(|_, mut a, mut b| async move {
        let control = a.control();
        a.close_write().await.unwrap();
        assert!(!control.is_ended());
        b.close_write().await.unwrap();
        assert_eq!(a.read(&mut [0; 1]).await.unwrap(), 0);
        assert!(a.status().reason.unwrap().is_clean());
        let ended = Instant::now() + Duration::from_secs(10);
        while !control.is_ended() && Instant::now() < ended {
            // The TLS layer has read close_notify, and FIN may come a little later.
            let _ = a.read(&mut [0; 1]).await;
            tokio::task::yield_now().await;
        }
        assert!(control.is_ended(), "the socket is still there");
    })
    .await;
}

/// rule: close-6
#[tokio::test]
async fn close_may_be_dropped_and_called_again() {
    over_all(|_, mut a, mut b| async move {
        let data = pattern(1_000_000);
        let sent = data.clone();
        let closing = tokio::spawn(async move {
            a.write_all(&sent).await.unwrap();
            while tokio::time::timeout(Duration::from_millis(1), a.close()).await.is_err() {}
            a.close().await
        });
        let (received, end) = read_all(&mut b).await;
        assert!(received == data && end.is_ok());
        b.close().await;
        assert!(closing.await.unwrap().is_clean());
    })
    .await;
}

/// rule: close-3
#[tokio::test]
async fn close_notify_without_fin_is_clean_and_holds_no_longer_than_the_bound() {
    let (mut server, mut client) = server_and_tokio_rustls(hasty(Duration::from_millis(200))).await;
    client.get_mut().1.send_close_notify();
    client.flush().await.unwrap();
    let report = server.close().await;
    assert!(report.reason.ended_last(), "{report:?}");
    assert!(report.timed_out());
    assert_eq!((report.layers[0].received, report.layers[1].received), (Received::Marker, Received::Nothing));
    drop(client);
}

/// rule: close-2
#[tokio::test]
async fn a_client_that_only_writes_loses_nothing_to_unread_tickets() {
    for _ in 0..20 {
        let (mut client, mut server) = pair_with(Kind::Tls13, Policy::default()).await.unwrap();
        let data = pattern(300_000);
        let sent = data.clone();
        let writing = tokio::spawn(async move {
            client.write_all(&sent).await.unwrap();
            client.close().await
        });
        let (received, end) = read_all(&mut server).await;
        assert!(received == data && end.is_ok());
        server.close().await;
        assert!(writing.await.unwrap().is_clean());
    }
}

/// rule: close-3, close-4
#[tokio::test]
async fn the_last_bytes_of_a_close_are_within_its_bound() {
    over(&Kind::ALL, hasty(Duration::from_millis(300)), |_, mut a, mut b| async move {
        let last = vec![b'z'; 30_000_000];
        let report = a.close_with(&last).await;
        assert!(report.timed_out() && report.unwritten > 0 && !report.marker_sent(), "{report:?}");
        let (received, end) = read_all(&mut b).await;
        assert!(end.is_err() && received.len() < last.len(), "what was cut looks complete");
    })
    .await;
    over(&Kind::ALL, patient(), |_, mut a, mut b| async move {
        let closing = tokio::spawn(async move { a.close_with(&pattern(300_000)).await });
        let (received, end) = read_all(&mut b).await;
        assert!(received == pattern(300_000) && end.is_ok());
        b.close().await;
        let report = closing.await.unwrap();
        assert!(report.is_clean() && report.unwritten == 0);
    })
    .await;
}

/// rule: close-7, end-2
#[tokio::test]
async fn an_end_without_marker_that_came_before_the_close_is_a_truncation() {
    let (mut server, client) = server_and_tokio_rustls(Policy::default()).await;
    let mut socket = client.into_inner().0;
    socket.shutdown().await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    let report = server.close().await;
    assert!(matches!(report.reason, Reason::Truncated(_)), "{report:?}");
}

/// rule: close-3, end-1
#[tokio::test]
async fn after_a_limit_every_task_gets_the_same_reason() {
    over(&Kind::ALL, hasty(Duration::from_millis(100)), |_, mut a, b| async move {
        a.close().await;
        let error = a.read(&mut [0; 1]).await.unwrap_err();
        assert!(matches!(Reason::from_io(error, Phase::Open), Reason::TimedOut(Phase::Close)));
        assert!(matches!(a.status().reason, Some(Reason::TimedOut(Phase::Close))));
        drop(b);
    })
    .await;
}

/// rule: close-13
#[tokio::test]
async fn an_unread_connection_is_released_when_both_halves_have_ended() {
    over_all(|_, mut a, mut b| async move {
        let control = a.control();
        b.close_write().await.unwrap();
        assert_eq!(a.read(&mut [0; 1]).await.unwrap(), 0);
        a.close_write().await.unwrap();
        control.lost().await;
        assert!(control.is_ended());
        assert!(a.close().await.ended_last());
    })
    .await;
}
