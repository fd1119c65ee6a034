//! close-14: `closed` means that our last bytes have arrived.

use std::time::Duration;

use bowline::testing::{BoxTransport, Kind, raw_tcp_pair};
use bowline::{CloseLimit, DrainGroup, Outcome, Policy, Reason, SocketOptions, Stream, TcpConnection, Transport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::common::{
    KNOWS_DELIVERY, Orderly as _, bounded, over, over_all, pattern, read_all, reset_on_drop, server_and_tokio_rustls,
};

const SOCKETS: [Kind; 5] = [Kind::Tcp, Kind::Tls12, Kind::Tls13, Kind::Upgraded, Kind::TlsInTls];

/// More bytes than the system of a peer that reads nothing accepts, and fewer than our system accepts.
const MUCH: usize = 300_000;

fn hasty(millis: u64) -> Policy {
    Policy::default().close_timeout(Duration::from_millis(millis))
}

/// The peer ends its half first, and does not read our later writes. Our system has accepted them, but the peer's
/// system has not.
async fn write_behind_the_peers_end(a: &mut BoxTransport, b: &mut BoxTransport) {
    a.as_tcp().unwrap().set_send_buffer_size(1 << 20).unwrap();
    b.close_write().await.unwrap();
    assert_eq!(a.read(&mut [0; 1]).await.unwrap(), 0);
    a.write_all(&pattern(MUCH)).await.unwrap();
    a.flush().await.unwrap();
}

/// The peer reads all bytes in the end.
async fn read_at_last(b: &mut BoxTransport) {
    let (received, end) = read_all(b).await;
    assert!(received == pattern(MUCH) && end.is_ok());
}

/// rule: close-14
#[tokio::test]
async fn a_peer_that_ended_first_and_then_resets_makes_no_clean_close() {
    over_all(|kind, mut a, mut b| async move {
        b.close_write().await.unwrap();
        assert_eq!(a.read(&mut [0; 1]).await.unwrap(), 0);
        let closing = tokio::spawn(async move {
            let _ = a.write_all(&pattern(2_000_025)).await;
            a.close().await
        });
        b.read_exact(&mut [0; 2048]).await.unwrap();
        b.abort();
        let report = closing.await.unwrap();
        let is_known = KNOWS_DELIVERY || !matches!(report.reason, Reason::Unconfirmed);
        assert!(!is_known || matches!(report.reason, Reason::Reset(_)), "{kind}: {report:?}");
        assert!(!report.is_clean());
    })
    .await;
}

/// rule: close-14, close-3
#[tokio::test]
async fn a_peer_that_reads_nothing_after_its_end_is_unconfirmed_at_the_limit() {
    over(&SOCKETS, hasty(300), |kind, mut a, mut b| async move {
        write_behind_the_peers_end(&mut a, &mut b).await;
        let report = a.close().await;
        assert!(matches!(report.reason, Reason::Unconfirmed), "{kind}: {report:?}");
        assert!(report.marker_sent() && report.marker_received());
        if KNOWS_DELIVERY {
            assert_eq!(report.limit, Some(CloseLimit::Time));
            assert!(report.unacknowledged.unwrap() > 0);
        } else {
            assert_eq!((report.limit, report.unacknowledged), (None, None), "nothing to wait for");
        }
        drop(b);
    })
    .await;
}

/// rule: close-14, close-8
#[tokio::test]
async fn a_close_waits_until_a_slow_peer_has_all_of_it() {
    for half_first in [false, true] {
        over(&SOCKETS, Policy::default(), move |_, mut a, mut b| async move {
            write_behind_the_peers_end(&mut a, &mut b).await;
            let closing = tokio::spawn(async move {
                if half_first {
                    a.close_write().await.unwrap();
                }
                (a.close().await, a)
            });
            tokio::time::sleep(Duration::from_millis(30)).await;
            assert!(!KNOWS_DELIVERY || !closing.is_finished(), "the peer has not read it");
            read_at_last(&mut b).await;
            let (report, a) = closing.await.unwrap();
            assert!(report.ended_last(), "{report:?}");
            assert!(a.control().is_ended() && b.close().await.is_clean());
        })
        .await;
    }
}

/// rule: close-14, close-13
#[tokio::test]
async fn an_end_without_a_close_is_closed_only_after_all_has_arrived() {
    over(&SOCKETS, Policy::default(), |_, mut a, mut b| async move {
        write_behind_the_peers_end(&mut a, &mut b).await;
        a.close_write().await.unwrap();
        let control = a.control();
        if KNOWS_DELIVERY {
            assert!(a.status().reason.is_none(), "it is not known yet");
            assert!(!control.is_ended());
        }
        read_at_last(&mut b).await;
        control.lost().await;
        assert!(control.is_ended());
        assert!(a.status().reason.unwrap().ended_last());
        assert!(a.close().await.ended_last());
    })
    .await;
}

/// rule: close-14, drain-3
#[tokio::test]
async fn a_drain_counts_a_dropped_connection_by_what_has_arrived() {
    for has_read in [false, true] {
        over(&SOCKETS, Policy::default(), move |_, mut a, mut b| async move {
            let group = DrainGroup::new();
            group.join(&a.control());
            group.begin_drain();
            write_behind_the_peers_end(&mut a, &mut b).await;
            a.close_write().await.unwrap();
            if has_read {
                read_at_last(&mut b).await;
                a.control().lost().await;
            }
            drop(a);
            let is_known = has_read && KNOWS_DELIVERY;
            let expected = if is_known { Outcome::Closed } else { Outcome::Unconfirmed };
            let report = group.drain(None).await;
            assert_eq!((report.total(), report.count(expected)), (1, 1), "{report}");
            assert_eq!(report.is_clean(), is_known);
        })
        .await;
    }
}

/// rule: close-14
#[tokio::test]
async fn a_reset_after_the_peers_answer_leaves_a_close_clean() {
    let (mut server, mut client) = server_and_tokio_rustls(Policy::default()).await;
    server.write_all(b"all of it").await.unwrap();
    let closing = tokio::spawn(async move { server.close().await });
    client.read_to_end(&mut Vec::new()).await.unwrap();
    client.get_mut().1.send_close_notify();
    client.flush().await.unwrap();
    reset_on_drop(client.get_ref().0);
    drop(client);
    let report = closing.await.unwrap();
    assert!(report.is_clean(), "{report:?}");
}

/// rule: close-14
#[tokio::test]
async fn a_stream_without_acknowledgements_uses_the_order_of_the_ends() {
    for is_first in [true, false] {
        bounded("a pipe of tokio's", async move {
            let (ours, mut theirs) = tokio::io::duplex(4096);
            let mut ours = Stream::new(ours);
            if !is_first {
                theirs.shutdown().await.unwrap();
                assert_eq!(ours.read(&mut [0; 1]).await.unwrap(), 0);
            }
            ours.write_all(b"last").await.unwrap();
            let (report, ()) = tokio::join!(ours.close(), async {
                theirs.read_to_end(&mut Vec::new()).await.unwrap();
                theirs.shutdown().await.unwrap();
            });
            assert_eq!(report.reason.name(), if is_first { "closed" } else { "unconfirmed" });
            assert_eq!(report.unacknowledged, None);
        })
        .await;
    }
}

/// rule: close-14
#[cfg(unix)]
#[tokio::test]
async fn bytes_taken_by_a_unix_socket_have_arrived() {
    let (ours, mut theirs) = tokio::net::UnixStream::pair().unwrap();
    let mut ours = Stream::from(ours);
    theirs.shutdown().await.unwrap();
    assert_eq!(ours.read(&mut [0; 1]).await.unwrap(), 0);
    ours.write_all(b"last").await.unwrap();
    assert!(ours.close().await.is_clean());
    let mut last = String::new();
    theirs.read_to_string(&mut last).await.unwrap();
    assert_eq!(last, "last");
}

/// rule: close-14
///
/// The runtime has no clock: a timer would panic.
#[test]
fn a_confirmed_close_sets_no_timer() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    runtime.block_on(async {
        let policy = Policy::default().close_timeout(None);
        let (ours, mut theirs) = raw_tcp_pair().await.unwrap();
        let mut ours = TcpConnection::new(ours, policy).unwrap();
        ours.write_all(&pattern(100_000)).await.unwrap();
        let (report, ()) = tokio::join!(ours.close(), async {
            theirs.read_to_end(&mut Vec::new()).await.unwrap();
            drop(theirs);
        });
        assert!(report.is_clean(), "{report:?}");
    });
}
