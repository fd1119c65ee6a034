//! Ends in order.

use std::time::Duration;

use bowline::testing::{Kind, pair, raw_tcp_pair, tcp_pair};
use bowline::{CloseReport, Policy, Reason, SocketOptions, TcpConnection, Transport, Truncation, relay};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::setup::{Joined, PAIRS, bounded, expect, over, pattern, read_all, server_and_tokio_rustls, settle, spawn};

/// rule: flow-6, half-1, half-2
#[tokio::test]
async fn orderly_ends_on_both_sides_are_complete_and_clean_on_both() {
    over(&PAIRS, Policy::default(), |joined| async move {
        let Joined { mut one, mut other, relayed, .. } = joined;
        let asking = tokio::spawn(async move {
            one.write_all(&pattern(300_000)).await.unwrap();
            one.close_write().await.unwrap();
            let (answer, end) = read_all(&mut one).await;
            assert!(end.is_ok() && answer == pattern(200_000));
            one.close().await
        });
        let (question, end) = read_all(&mut other).await;
        assert!(end.is_ok() && question == pattern(300_000));
        other.write_all(&pattern(200_000)).await.unwrap();
        let reports: [CloseReport; 2] = [other.close().await, asking.await.unwrap()];
        assert!(reports.iter().all(CloseReport::is_clean), "{reports:?}");
        let ends = relayed.await.unwrap();
        assert!(ends.is_clean(), "{ends:?}");
        assert_eq!((ends.from_one, ends.from_other), (300_000, 200_000));
        assert!(ends.one.marker_sent() && ends.one.marker_received());
    })
    .await;
}

/// rule: flow-6, half-1, half-2
#[tokio::test]
async fn a_half_close_is_forwarded_and_the_other_direction_continues() {
    over(&PAIRS, Policy::default(), |joined| async move {
        let Joined { mut one, mut other, relayed, .. } = joined;
        one.write_all(b"that was all").await.unwrap();
        one.close_write().await.unwrap();
        let (heard, end) = read_all(&mut other).await;
        assert!(heard == b"that was all" && end.is_ok());
        // The answer comes long after the end, and is larger than all buffers on the way.
        for round in 0..5 {
            other.write_all(&[round; 100_000]).await.unwrap();
            expect(&mut one, &[round; 100_000]).await;
        }
        let sending = async {
            other.write_all(&pattern(8_000_000)).await.unwrap();
            other.close_write().await.unwrap();
        };
        let ((rest, end), ()) = tokio::join!(read_all(&mut one), sending);
        assert!(rest == pattern(8_000_000) && end.is_ok());
        let (x, y) = tokio::join!(one.close(), other.close());
        assert!(x.is_clean() && y.is_clean() && relayed.await.unwrap().is_clean());
    })
    .await;
}

/// rule: flow-6, close-11
#[tokio::test]
async fn both_sides_closing_at_once_end_clean() {
    over(&PAIRS, Policy::default(), |joined| async move {
        let Joined { mut one, mut other, relayed, .. } = joined;
        settle(&mut one, &mut other).await;
        let (x, y) = tokio::join!(one.close(), other.close());
        assert!(x.is_clean() && y.is_clean());
        assert!(relayed.await.unwrap().is_clean());
    })
    .await;
}

/// rule: flow-6, end-3
#[tokio::test]
async fn a_truncation_that_the_policy_tolerates_is_passed_on_as_an_end_in_order() {
    let policy = Policy::default().truncation(Truncation::Tolerate);
    let (leg, mut client) = server_and_tokio_rustls(policy).await;
    bounded("tolerated truncation", async move {
        let (back, mut backend) = tcp_pair().await.unwrap();
        let relayed = spawn(leg, back);
        settle(&mut client, &mut backend).await;
        client.write_all(b"framed by itself").await.unwrap();
        client.get_mut().0.shutdown().await.unwrap();
        let (heard, end) = read_all(&mut backend).await;
        assert!(heard == b"framed by itself" && end.is_ok());
        backend.write_all(b"answer").await.unwrap();
        assert!(backend.close().await.is_clean());
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "answer");
        drop(client);
        let report = relayed.await.unwrap();
        assert!(matches!(report.a.reason, Reason::Truncated(_)) && report.b.is_clean(), "{report:?}");
        assert_eq!((report.a_to_b, report.b_to_a), (17, 7));
    })
    .await;
}

/// rule: flow-6
#[tokio::test]
async fn trait_objects_of_any_type_are_joined() {
    bounded("trait objects", async {
        let (mut client, mut front) = pair(Kind::Tls13).await.unwrap();
        let (mut back, mut backend) = tcp_pair().await.unwrap();
        let relayed = tokio::spawn(async move {
            let front: &mut dyn Transport = front.as_mut();
            relay(front, &mut back).await
        });
        settle(&mut client, &mut backend).await;
        tokio::join!(client.close(), backend.close());
        let report = relayed.await.unwrap();
        assert!(report.is_clean());
        assert_eq!(report.to_string(), "1 bytes there, 1 bytes back; there: closed in order; back: closed in order");
    })
    .await;
}

/// rule: close-14, flow-6
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_leg_whose_peer_reads_nothing_after_its_end_is_unconfirmed() {
    const MUCH: usize = 300_000;
    for is_read in [false, true] {
        bounded("tcp", async move {
            let policy =
                Policy::default().close_timeout(std::time::Duration::from_millis(if is_read { 30_000 } else { 300 }));
            let (mut client, front) = bowline::testing::tcp_pair_with(policy.clone()).await.unwrap();
            let (back, mut service) = bowline::testing::tcp_pair_with(policy).await.unwrap();
            front.set_send_buffer_size(1 << 20).unwrap();
            let relayed = spawn(front, back);
            client.close_write().await.unwrap();
            read_all(&mut service).await.1.unwrap();
            service.write_all(&pattern(MUCH)).await.unwrap();
            assert!(service.close().await.is_clean());
            if is_read {
                assert!(read_all(&mut client).await.0 == pattern(MUCH));
            }
            let report = relayed.await.unwrap();
            assert_eq!(report.a.reason.name(), if is_read { "closed" } else { "unconfirmed" }, "{report:?}");
            assert!(report.b.is_clean());
            assert_eq!(report.is_clean(), is_read);
        })
        .await;
    }
}

/// A second descriptor of a connection's socket.
fn linger(socket: &std::net::TcpStream) -> Option<Duration> {
    socket2::SockRef::from(socket).linger().unwrap()
}

/// rule: flow-7
#[tokio::test]
async fn the_system_would_reset_a_leg_of_a_killed_relay_until_it_ends_in_order() {
    let (mut client, a) = raw_tcp_pair().await.unwrap();
    let (mut backend, b) = raw_tcp_pair().await.unwrap();
    let [(a, a_socket), (b, b_socket)] = [a, b].map(|stream| {
        let stream = stream.into_std().unwrap();
        let beside = stream.try_clone().unwrap();
        (TcpConnection::new(TcpStream::from_std(stream).unwrap(), Policy::default()).unwrap(), beside)
    });
    let relayed = spawn(a, b);
    settle(&mut client, &mut backend).await;
    assert_eq!([&a_socket, &b_socket].map(linger), [Some(Duration::ZERO); 2]);
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    let (question, end) = read_all(&mut backend).await;
    assert!(question == b"question" && end.is_ok());
    assert_eq!([&a_socket, &b_socket].map(linger), [Some(Duration::ZERO), None]);
    backend.write_all(b"answer").await.unwrap();
    backend.shutdown().await.unwrap();
    let (answer, end) = read_all(&mut client).await;
    assert!(answer == b"answer" && end.is_ok());
    assert_eq!(linger(&a_socket), None);
    assert!(relayed.await.unwrap().is_clean());
}
