//! Ends that are not orderly: the relay must not turn them into an orderly end.

use std::time::Duration;

use bowline::testing::{Kind, pair_with, tcp_pair, tcp_pair_with};
use bowline::{End, Policy, Reason, Received, RecvHalf, RelayReport, SocketOptions, TcpConnection, Transport, relay};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use crate::setup::{
    BOUND, Joined, PAIRS, assert_reset, bounded, expect, joined, over, pattern, read_all, server_and_tokio_rustls,
    settle, spawn, with_sockets,
};

/// rule: flow-6, end-2, abort-2, close-12
#[tokio::test]
async fn a_truncation_is_passed_on_as_an_abort() {
    over(&PAIRS, Policy::default(), |joined| async move {
        let Joined { mut one, mut other, relayed, kinds, .. } = joined;
        settle(&mut one, &mut other).await;
        one.write_all(b"half of a mess").await.unwrap();
        expect(&mut other, b"half of a mess").await;
        drop(one);
        let (rest, end) = read_all(&mut other).await;
        assert!(rest.is_empty());
        assert_reset(&end);
        let ends = relayed.await.unwrap();
        let how = if kinds.0.is_tls() && kinds.0.has_socket() { "truncated" } else { "reset" };
        assert_eq!(ends.reasons(), (how, "aborted"));
        assert!(!ends.other.marker_sent());
    })
    .await;
}

/// rule: flow-6, abort-1, abort-2
#[tokio::test]
async fn a_reset_is_passed_on_as_an_abort() {
    over(&PAIRS, Policy::default(), |joined| async move {
        let Joined { mut one, mut other, relayed, .. } = joined;
        settle(&mut one, &mut other).await;
        one.write_all(b"half of a mess").await.unwrap();
        expect(&mut other, b"half of a mess").await;
        one.abort();
        let (rest, end) = read_all(&mut other).await;
        assert!(rest.is_empty());
        assert_reset(&end);
        let ends = relayed.await.unwrap();
        assert_eq!(ends.reasons(), ("reset", "aborted"));
        assert_eq!(ends.one.layers.first().unwrap().received, Received::Reset);
        assert!(!ends.other.marker_sent());
    })
    .await;
}

/// rule: flow-6, abort-4, end-7
#[tokio::test]
async fn an_abort_of_one_leg_is_an_abort_of_the_other() {
    over(&PAIRS, Policy::default(), |joined| async move {
        let Joined { mut one, mut other, relayed, controls, .. } = joined;
        settle(&mut one, &mut other).await;
        controls[0].abort();
        for peer in [&mut one, &mut other] {
            assert_reset(&read_all(peer).await.1);
        }
        assert_eq!(relayed.await.unwrap().reasons(), ("aborted", "aborted"));
    })
    .await;
}

/// rule: flow-6, abort-4
#[tokio::test]
async fn an_abort_of_a_leg_whose_peer_has_ended_in_order_ends_the_other_one_too() {
    over(&PAIRS, Policy::default(), |joined| async move {
        let Joined { mut one, mut other, relayed, controls, .. } = joined;
        one.close_write().await.unwrap();
        assert!(read_all(&mut other).await.1.is_ok());
        controls[0].abort();
        assert_eq!(relayed.await.unwrap().reasons(), ("aborted", "aborted"));
        assert_reset(&read_all(&mut one).await.1);
    })
    .await;
}

/// rule: flow-6, secure-4, end-1
#[tokio::test]
async fn a_tls_failure_sends_its_alert_and_aborts_the_other_leg() {
    bounded("garbage", async {
        let (leg, mut client) = server_and_tokio_rustls(Policy::default()).await;
        let (back, mut backend) = tcp_pair().await.unwrap();
        let relayed = spawn(leg, back);
        settle(&mut client, &mut backend).await;
        client.get_mut().0.write_all(b"\x17\x03\x03\x00\x20 this is thirty-two bytes of junk").await.unwrap();
        assert_reset(&read_all(&mut backend).await.1);
        let told = client.read(&mut [0; 16]).await.unwrap_err();
        assert!(bowline::chain(&told).to_string().contains("BadRecordMac"), "{told}");
        // FIN must follow the alert, because an RST could overtake the alert.
        assert_eq!(client.get_mut().0.read(&mut [0; 16]).await.unwrap(), 0);
        drop(client);
        let report = relayed.await.unwrap();
        assert_eq!((report.a.reason.name(), report.b.reason.name()), ("tls", "aborted"));
    })
    .await;
}

/// rule: flow-6, secure-4
#[tokio::test]
async fn the_alert_of_a_tls_failure_gets_through_a_full_leg() {
    bounded("garbage behind a full socket", async {
        let (leg, mut client) = server_and_tokio_rustls(Policy::default()).await;
        let (back, mut backend) = tcp_pair().await.unwrap();
        let relayed = spawn(leg, back);
        let block = [b'z'; 16 << 10];
        while let Ok(written) = timeout(Duration::from_millis(100), backend.write(&block)).await {
            written.unwrap();
        }
        client.get_mut().0.write_all(b"\x17\x03\x03\x00\x20 this is thirty-two bytes of junk").await.unwrap();
        assert_reset(&read_all(&mut backend).await.1);
        let told = client.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert!(bowline::chain(&told).to_string().contains("BadRecordMac"), "{told}");
        drop(client);
        let report = relayed.await.unwrap();
        assert_eq!((report.a.reason.name(), report.b.reason.name()), ("tls", "aborted"));
    })
    .await;
}

/// rule: flow-6, abort-2
#[tokio::test]
async fn a_peer_that_truncates_and_reads_on_is_reset_and_gets_no_marker() {
    bounded("a peer that reads on", async {
        let (leg, mut client) = server_and_tokio_rustls(Policy::default()).await;
        let (back, mut backend) = tcp_pair().await.unwrap();
        let relayed = spawn(leg, back);
        settle(&mut client, &mut backend).await;
        backend.write_all(b"half of an ans").await.unwrap();
        let mut half = [0; 14];
        client.read_exact(&mut half).await.unwrap();
        client.get_mut().0.shutdown().await.unwrap();
        let end = client.read(&mut [0; 16]).await.unwrap_err();
        assert_eq!(end.kind(), std::io::ErrorKind::ConnectionReset);
        let report = relayed.await.unwrap();
        assert_eq!((report.a.reason.name(), report.b.reason.name()), ("truncated", "aborted"));
    })
    .await;
}

/// rule: flow-6, flow-5
#[tokio::test]
async fn a_reset_of_a_leg_is_noticed_while_the_other_slow_leg_stops_reading() {
    over(&with_sockets(), Policy::default(), |joined| async move {
        let Joined { one, mut other, relayed, .. } = joined;
        // All buffers in between are full, and the receiving peer does not read.
        let block = [b'z'; 16 << 10];
        while let Ok(written) = timeout(Duration::from_millis(100), other.write(&block)).await {
            written.unwrap();
        }
        other.abort();
        assert_eq!(relayed.await.unwrap().reasons(), ("aborted", "reset"));
        let mut one = one;
        assert_reset(&read_all(&mut one).await.1);
    })
    .await;
}

/// rule: flow-6, flow-5
#[tokio::test]
async fn a_reset_is_noticed_of_a_leg_whose_answer_is_awaited() {
    over(&with_sockets(), Policy::default(), |joined| async move {
        let Joined { mut one, mut other, relayed, .. } = joined;
        one.close_write().await.unwrap();
        assert!(read_all(&mut other).await.1.is_ok());
        other.abort();
        assert_reset(&read_all(&mut one).await.1);
        assert_eq!(relayed.await.unwrap().reasons(), ("aborted", "reset"));
    })
    .await;
}

/// rule: flow-6, flow-5
#[tokio::test]
async fn a_peer_lost_after_its_half_close_is_noticed_before_the_answer() {
    over(&with_sockets(), Policy::default(), |joined| async move {
        let Joined { mut one, mut other, relayed, .. } = joined;
        one.write_all(b"question").await.unwrap();
        one.close_write().await.unwrap();
        let (heard, end) = read_all(&mut other).await;
        assert!(heard == b"question" && end.is_ok());
        one.abort();
        assert_eq!(relayed.await.unwrap().reasons(), ("reset", "aborted"));
        // The clean end that the peer has read stays clean, and its answer is refused by a reset.
        let refused = async { while other.write(&[0; 1000]).await.is_ok() {} };
        timeout(BOUND, refused).await.unwrap();
    })
    .await;
}

/// A relay that has read all bytes of a peer and its end, but could forward only a few of them. Then that peer is lost,
/// and the relay continues. Returns the relay's report, and the other peer.
async fn reset_behind_an_end_in_order(
    kind: Kind,
    policy: &Policy,
) -> (tokio::task::JoinHandle<RelayReport>, TcpConnection) {
    let (mut client, mut a) = pair_with(kind, policy.clone()).await.unwrap();
    let (mut b, backend) = tcp_pair_with(policy.clone()).await.unwrap();
    backend.set_recv_buffer_size(4 << 10).unwrap();
    b.set_send_buffer_size(200 << 10).unwrap();
    client.write_all(&pattern(WHOLE)).await.unwrap();
    client.close_write().await.unwrap();
    while !matches!(a.status().recv, RecvHalf::Ended(End::Clean)) {
        assert!(timeout(Duration::from_millis(5), relay(&mut a, &mut b)).await.is_err());
    }
    client.abort();
    (tokio::spawn(async move { relay(&mut a, &mut b).await }), backend)
}

const WHOLE: usize = 120_000;

/// rule: flow-6, half-8
#[tokio::test]
async fn data_that_ended_in_order_arrives_whole_after_a_reset_of_its_leg() {
    for kind in [Kind::Tcp, Kind::Tls13] {
        bounded(&kind.to_string(), async move {
            let (relayed, mut backend) = reset_behind_an_end_in_order(kind, &Policy::default()).await;
            let (heard, end) = read_all(&mut backend).await;
            assert!(end.is_ok() && heard == pattern(WHOLE), "{} {end:?}", heard.len());
            let report = relayed.await.unwrap();
            assert_eq!((report.a.reason.name(), report.b.reason.name()), ("reset", "aborted"));
        })
        .await;
    }
}

/// rule: flow-6, close-3
#[tokio::test]
async fn the_bytes_of_an_orderly_end_are_waited_for_no_longer_than_a_close() {
    let policy = Policy::default().close_timeout(Duration::from_millis(300));
    bounded("a peer that does not read", async move {
        let (relayed, mut backend) = reset_behind_an_end_in_order(Kind::Tcp, &policy).await;
        let begun = Instant::now();
        let report = relayed.await.unwrap();
        assert!(begun.elapsed() >= Duration::from_millis(250), "{:?}", begun.elapsed());
        assert_eq!((report.a.reason.name(), report.b.reason.name()), ("reset", "aborted"));
        let (heard, end) = read_all(&mut backend).await;
        assert_reset(&end);
        assert!(heard.len() < WHOLE && pattern(WHOLE).starts_with(&heard));
    })
    .await;
}

/// rule: flow-6, half-10
#[tokio::test]
async fn a_silent_half_open_leg_times_out_and_the_other_leg_is_aborted() {
    let policy = Policy::default().half_open_timeout(Duration::from_millis(100));
    over(&PAIRS, policy, |joined| async move {
        let Joined { mut one, mut other, relayed, .. } = joined;
        one.close_write().await.unwrap();
        assert!(read_all(&mut other).await.1.is_ok());
        // This peer stays silent forever.
        let ends = relayed.await.unwrap();
        assert_eq!(ends.reasons(), ("aborted", "timed_out"), "{ends:?}");
        drop((one, other));
    })
    .await;
}

/// rule: flow-6, write-4
#[tokio::test]
async fn bytes_for_a_send_half_that_was_ended_before_have_nowhere_to_go() {
    bounded("an ended half", async {
        let (mut client, mut front) = tcp_pair().await.unwrap();
        let (mut back, mut backend) = tcp_pair().await.unwrap();
        back.close_write().await.unwrap();
        client.write_all(b"lost").await.unwrap();
        let report = relay(&mut front, &mut back).await;
        assert_eq!((report.a.reason.name(), report.b.reason.name()), ("aborted", "aborted"));
        assert_reset(&read_all(&mut client).await.1);
        assert!(backend.write_all(&[0; 10]).await.is_err() || backend.read(&mut [0]).await.is_ok());
    })
    .await;
}

/// rule: flow-6, life-5
#[tokio::test]
async fn transports_that_have_ended_before_are_reported_as_what_they_are() {
    bounded("ended before", async {
        let Joined { mut one, mut other, relayed, .. } =
            joined((Kind::Tcp, Kind::Tls13), &Policy::default(), false).await;
        one.abort();
        other.abort();
        relayed.await.unwrap();
        let (mut a, mut x) = tcp_pair().await.unwrap();
        let (mut b, mut y) = tcp_pair().await.unwrap();
        tokio::join!(a.close(), x.close());
        b.abort();
        let report = relay(&mut a, &mut b).await;
        assert_eq!((report.a.reason.name(), report.b.reason.name()), ("closed", "aborted"));
        assert!(matches!(read_all(&mut y).await.1, Err(Reason::Reset(_))));
    })
    .await;
}
