use std::io::ErrorKind;
use std::time::Duration;

use bowline::config::TlsVersion;
use bowline::testing::{Kind, memory_pair, pair, pair_with, shared_pki};
use bowline::{End, Phase, Policy, Reason, RecvHalf, Split, TcpConnection, TlsConnection, Transport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::common::{
    Orderly as _, bounded, clog, ended_together, expect, over, over_all, pattern, read_all, reset_on_drop,
    server_and_tokio_rustls, settle,
};

/// rule: half-1, half-2
#[tokio::test]
async fn close_write_ends_one_half_and_reading_continues() {
    over_all(|_, mut a, mut b| async move {
        a.write_all(b"question").await.unwrap();
        a.close_write().await.unwrap();
        let (question, end) = read_all(&mut b).await;
        assert_eq!((&question[..], end.is_ok()), (&b"question"[..], true));
        let answer = pattern(1_000_000);
        let sent = answer.clone();
        let answering = tokio::spawn(async move {
            b.write_all(&sent).await.unwrap();
            b.close().await
        });
        let (received, end) = read_all(&mut a).await;
        assert!(received == answer && end.is_ok());
        assert!(a.close().await.is_clean());
        assert!(answering.await.unwrap().ended_last());
    })
    .await;
}

/// rule: half-2
#[tokio::test]
async fn the_peer_sees_close_notify_and_then_fin() {
    let (mut server, mut client) = server_and_tokio_rustls(Policy::default()).await;
    server.write_all(b"data").await.unwrap();
    server.close_write().await.unwrap();
    let mut data = Vec::new();
    // tokio-rustls fails this read if FIN came without close_notify.
    client.read_to_end(&mut data).await.unwrap();
    assert_eq!(data, b"data");
    let (mut socket, _) = client.into_inner();
    assert_eq!(socket.read(&mut [0; 16]).await.unwrap(), 0, "FIN follows");
}

/// rule: half-3, half-7
#[tokio::test]
async fn a_second_close_write_is_nothing() {
    over_all(|_, mut a, mut b| async move {
        a.close_write().await.unwrap();
        a.close_write().await.unwrap();
        assert!(a.status().send.is_finished());
        b.write_all(b"still read").await.unwrap();
        expect(&mut a, b"still read").await;
    })
    .await;
}

/// rule: half-3
#[tokio::test]
async fn close_write_after_loss_is_an_error_and_no_panic() {
    over_all(|_, mut a, mut b| async move {
        settle(&mut a, &mut b).await;
        b.abort();
        let _ = read_all(&mut a).await;
        let first = a.close_write().await;
        let second = a.close_write().await;
        assert!(first.is_err() && second.is_err());
    })
    .await;
}

/// rule: half-5
#[tokio::test]
async fn close_write_before_the_handshake_is_done_waits_for_it() {
    bounded("memory", async {
        let (client, server) = memory_pair();
        let (client_tls, server_tls) = (shared_pki().client_tls(), shared_pki().server_tls());
        let mut client = TlsConnection::client(client, &client_tls, "localhost").unwrap();
        client.write_all(b"early").await.unwrap();
        let serving = async {
            let mut server = TlsConnection::accept(server, &server_tls).await.unwrap();
            let (received, end) = read_all(&mut server).await;
            assert_eq!((&received[..], end.is_ok()), (&b"early"[..], true));
            server.write_all(b"late").await.unwrap();
            server.close().await
        };
        let using = async {
            client.close_write().await.unwrap();
            let (received, end) = read_all(&mut client).await;
            assert_eq!((&received[..], end.is_ok()), (&b"late"[..], true));
            client.close().await
        };
        let (theirs, ours) = tokio::join!(serving, using);
        assert!(ended_together(&ours, &theirs));
    })
    .await;
}

/// rule: half-2, half-7
#[tokio::test]
async fn a_close_write_that_was_only_started_continues_by_itself() {
    over_all(|_, mut a, mut b| async move {
        let taken = clog(&mut a).await;
        let _ = tokio::time::timeout(Duration::from_millis(20), a.close_write()).await;
        // No task uses `a` from here on; the marker still leaves after the bytes.
        let (received, end) = read_all(&mut b).await;
        assert!(received.len() == taken && end.is_ok(), "{} of {taken}: {end:?}", received.len());
        assert!(a.status().send.is_finished());
    })
    .await;
}

/// rule: half-6
#[tokio::test]
async fn the_peers_end_is_reported_after_its_data_and_sending_continues() {
    over_all(|_, mut a, mut b| async move {
        b.write_all(&pattern(50_000)).await.unwrap();
        b.close_write().await.unwrap();
        let (received, end) = read_all(&mut a).await;
        assert!(received == pattern(50_000) && end.is_ok());
        assert!(matches!(a.status().recv, RecvHalf::Ended(End::Clean)));
        assert_eq!(a.read(&mut [0; 1]).await.unwrap(), 0, "it is told again to whoever asks again");
        let sent = tokio::spawn(async move {
            a.write_all(&pattern(300_000)).await.unwrap();
            a.close().await
        });
        let (received, end) = read_all(&mut b).await;
        assert!(received == pattern(300_000) && end.is_ok());
        b.close().await;
        assert!(sent.await.unwrap().ended_last());
    })
    .await;
}

/// rule: half-8
#[tokio::test]
async fn a_clean_end_stays_clean_when_a_reset_follows() {
    let (mut server, mut client) = server_and_tokio_rustls(Policy::default()).await;
    client.write_all(b"whole").await.unwrap();
    client.get_mut().1.send_close_notify();
    client.flush().await.unwrap();
    reset_on_drop(client.get_ref().0);
    let (received, end) = read_all(&mut server).await;
    drop(client);
    assert_eq!((&received[..], end.is_ok()), (&b"whole"[..], true));
    // The server sees the reset when it sends.
    while server.write_all(&[0; 4_096]).await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert!(matches!(server.status().recv, RecvHalf::Ended(End::Clean)), "{:?}", server.status());
    assert_eq!(server.read(&mut [0; 1]).await.unwrap(), 0);
}

/// rule: half-9, close-3
#[tokio::test]
async fn close_after_close_write_ends_within_the_bound_although_the_peer_talks() {
    let policy = Policy::default().close_timeout(Duration::from_millis(200));
    over(&Kind::ALL, policy, |kind, mut a, b| async move {
        a.close_write().await.unwrap();
        let (mut read, mut write) = tokio::io::split(b);
        let talking = tokio::spawn(async move { while write.write_all(&[1; 9_000]).await.is_ok() {} });
        let report = a.close().await;
        assert!(report.limit.is_some() && report.marker_sent(), "{kind}: {report:?}");
        talking.await.unwrap();
        let _ = read.read_to_end(&mut Vec::new()).await;
    })
    .await;
}

/// rule: half-10
#[tokio::test]
async fn a_half_open_connection_has_an_idle_bound_of_its_own() {
    let policy = Policy::default().half_open_timeout(Duration::from_millis(100));
    over(&Kind::ALL, policy, |kind, mut a, mut b| async move {
        // While both halves are open, this bound does not apply.
        assert!(tokio::time::timeout(Duration::from_millis(150), a.read(&mut [0; 1])).await.is_err());
        a.close_write().await.unwrap();
        for _ in 0..3 {
            b.write_all(b"still there").await.unwrap();
            expect(&mut a, b"still there").await;
        }
        let error = a.read(&mut [0; 1]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{kind}");
        assert!(matches!(Reason::from_io(error, Phase::Open), Reason::TimedOut(Phase::HalfOpen)));
    })
    .await;
}

/// rule: half-1
#[tokio::test]
async fn halves_that_were_split_end_apart_and_can_be_reunited() {
    let (client, mut server) = bowline::testing::tcp_pair().await.unwrap();
    let (mut read, mut write) = client.into_split();
    write.write_all(b"x").await.unwrap();
    write.shutdown().await.unwrap();
    assert_eq!(read_all(&mut server).await.0, b"x");
    server.write_all(b"y").await.unwrap();
    expect(&mut read, b"y").await;
    let mut client = TcpConnection::reunite(read, write).unwrap();
    let (ours, theirs) = tokio::join!(client.close(), server.close());
    assert!(ended_together(&ours, &theirs));
}

/// rule: half-1, close-12
#[tokio::test]
async fn a_half_that_is_dropped_ends_nothing() {
    let (client, server) = bowline::testing::tcp_pair().await.unwrap();
    let (client, mut server) = bowline::testing::tls_over((client, server), bowline::TlsVersion::V1_3).await.unwrap();
    let (mut read, write) = client.into_split();
    drop(write);
    server.write_all(b"still read").await.unwrap();
    expect(&mut read, b"still read").await;
    drop(read);
    assert!(matches!(read_all(&mut server).await.1, Err(Reason::Truncated(_))));
}

/// rule: half-2
#[tokio::test]
async fn half_close_works_both_ways_in_turn_over_every_transport() {
    for kind in Kind::ALL {
        let (mut a, mut b) = pair(kind).await.unwrap();
        b.close_write().await.unwrap();
        a.write_all(b"to the half that listens").await.unwrap();
        expect(&mut b, b"to the half that listens").await;
        let (ours, theirs) = tokio::join!(a.close(), b.close());
        assert!(ended_together(&ours, &theirs), "{kind}: {ours:?} {theirs:?}");
    }
    // The smallest possible watermarks change nothing.
    let policy = Policy::default().watermarks(bowline::Watermarks::new(0, 1));
    let (mut a, mut b) = pair_with(Kind::Tls13, policy).await.unwrap();
    let writing = tokio::spawn(async move {
        a.write_all(b"tight").await.unwrap();
        a.close_write().await.unwrap();
        a
    });
    assert_eq!(read_all(&mut b).await.0, b"tight");
    writing.await.unwrap();
}

/// rule: half-10
#[tokio::test]
async fn a_write_that_stalls_after_the_peers_end_is_idle_too() {
    let policy = Policy::default().half_open_timeout(Duration::from_millis(100));
    over(&Kind::ALL, policy, |kind, mut a, mut b| async move {
        b.close_write().await.unwrap();
        assert_eq!(a.read(&mut [0; 1]).await.unwrap(), 0);
        let error = loop {
            if let Err(error) = a.write_all(&[1; 100_000]).await {
                break error;
            }
        };
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{kind}");
        drop(b);
    })
    .await;
}

/// rule: half-10
#[tokio::test]
async fn a_task_that_waits_when_the_connection_becomes_half_open_is_bounded() {
    let policy = Policy::default().half_open_timeout(Duration::from_millis(100));
    over(&Kind::ALL, policy.clone(), |_, a, b| async move {
        let (mut read, mut write) = tokio::io::split(a);
        let reading = tokio::spawn(async move { read.read(&mut [0; 1]).await });
        tokio::time::sleep(Duration::from_millis(10)).await;
        write.shutdown().await.unwrap();
        assert_eq!(reading.await.unwrap().unwrap_err().kind(), ErrorKind::TimedOut);
        drop(b);
    })
    .await;
    over(&Kind::ALL, policy, |_, a, mut b| async move {
        let (mut read, mut write) = tokio::io::split(a);
        let writing = tokio::spawn(async move {
            loop {
                if let Err(error) = write.write_all(&[1; 100_000]).await {
                    return error.kind();
                }
            }
        });
        tokio::time::sleep(Duration::from_millis(30)).await;
        b.close_write().await.unwrap();
        assert_eq!(read.read(&mut [0; 1]).await.unwrap(), 0);
        assert_eq!(writing.await.unwrap(), ErrorKind::TimedOut);
    })
    .await;
}

/// The transports whose end waits for capacity: those with a TLS session, whose marker follows the queued bytes.
const SESSIONS: [Kind; 5] = [Kind::Tls12, Kind::Tls13, Kind::Upgraded, Kind::TlsInTls, Kind::MemoryTls];

fn hasty(millis: u64) -> Policy {
    Policy::default().close_timeout(Duration::from_millis(millis))
}

fn assert_given_up(error: std::io::Error) {
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    let reason = Reason::from_io(error, Phase::Open);
    assert!(matches!(reason, Reason::TimedOut(Phase::Close)), "{reason:?}");
}

/// rule: half-12, tcp-9
#[tokio::test]
async fn close_write_to_a_peer_that_reads_nothing_ends_at_the_limit() {
    over(&SESSIONS, hasty(200), |_, mut a, mut b| async move {
        clog(&mut a).await;
        let control = a.control();
        assert_given_up(a.close_write().await.unwrap_err());
        assert_given_up(a.read(&mut [0; 1]).await.unwrap_err());
        assert!(matches!(control.report().unwrap().reason, Reason::TimedOut(Phase::Close)));
        assert!(read_all(&mut b).await.1.is_err(), "what was cut off looks complete");
    })
    .await;
}

/// rule: half-12, tcp-9
#[tokio::test]
async fn a_library_that_knows_only_shutdown_has_the_bound_too() {
    over(&SESSIONS, hasty(200), |_, mut a, b| async move {
        clog(&mut a).await;
        let (mut read, mut write) = tokio::io::split(a);
        let reading = tokio::spawn(async move { read.read(&mut [0; 1]).await });
        assert_given_up(write.shutdown().await.unwrap_err());
        assert_given_up(reading.await.unwrap().unwrap_err());
        drop(b);
    })
    .await;
}

/// rule: half-12, tcp-9
#[tokio::test]
async fn the_end_of_a_split_half_has_the_bound_too() {
    bounded("tls in two halves", async {
        let (client, server) = bowline::testing::tcp_pair_with(hasty(200)).await.unwrap();
        let (client, peer) = bowline::testing::tls_over((client, server), TlsVersion::V1_3).await.unwrap();
        let (_read, mut write) = client.into_split();
        clog(&mut write).await;
        assert_given_up(write.shutdown().await.unwrap_err());
        drop(peer);
    })
    .await;
}

/// rule: half-12
#[tokio::test(start_paused = true)]
async fn a_peer_that_reads_slowly_is_not_cut_off_by_the_bound() {
    let (mut a, mut b) = pair_with(Kind::MemoryTls, hasty(1000)).await.unwrap();
    clog(&mut a).await;
    let ending = tokio::spawn(async move { (a.close_write().await, a) });
    let mut rest = Vec::new();
    for _ in 0.. {
        // The waits add up to several times the bound, but each wait is shorter than the bound.
        tokio::time::sleep(Duration::from_millis(400)).await;
        let mut some = vec![0; 9000];
        match b.read(&mut some).await.unwrap() {
            0 => break,
            n => rest.extend_from_slice(&some[..n]),
        }
    }
    assert!(rest.len() > 64 << 10, "there was nothing to wait for");
    let (ended, a) = ending.await.unwrap();
    ended.unwrap();
    drop(a);
}

/// rule: secure-5, half-5, tcp-9
#[tokio::test]
async fn a_write_half_waits_for_an_undriven_handshake_until_its_deadline() {
    let policy = Policy::default().handshake_timeout(Duration::from_millis(200));
    for what in ["write", "flush", "shutdown"] {
        let policy = policy.clone();
        bounded(what, async move {
            let (client, _silent) = bowline::testing::memory_pair_with(policy);
            let client = TlsConnection::client(client, &shared_pki().client_tls(), "localhost").unwrap();
            let (_read, mut write) = client.into_split();
            let waited = match what {
                "write" => write.write_all(&[0; 1_000_000]).await,
                "flush" => write.flush().await,
                _ => write.shutdown().await,
            };
            let reason = Reason::from_io(waited.unwrap_err(), Phase::Open);
            assert!(matches!(reason, Reason::TimedOut(Phase::Handshake)), "{reason:?}");
        })
        .await;
    }
}
