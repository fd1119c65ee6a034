use std::time::Duration;

use bowline::testing::Kind;
use bowline::{Policy, Transport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::common::{ended_together, expect, over, over_all, pattern, read_all, settle};

/// rule: flow-4
#[tokio::test]
async fn bytes_read_ahead_stay_unread_in_order_and_the_end_follows() {
    over_all(|_, mut a, mut b| async move {
        b.write_all(&pattern(30_000)).await.unwrap();
        b.close_write().await.unwrap();
        expect(&mut a, &pattern(30_000)[..100]).await;
        // No task reads for a while; by then all bytes have arrived.
        tokio::time::sleep(Duration::from_millis(20)).await;
        let (rest, end) = read_all(&mut a).await;
        assert!(rest == pattern(30_000)[100..] && end.is_ok());
    })
    .await;
}

/// rule: flow-4
#[tokio::test]
async fn a_reader_that_pauses_stops_the_peer_and_memory_stays_bounded() {
    over_all(|_, mut a, mut b| async move {
        let taken = crate::common::clog(&mut b).await;
        let mut received = vec![0; taken];
        a.read_exact(&mut received).await.unwrap();
        assert!(received.iter().all(|byte| *byte == b'z'));
    })
    .await;
}

/// rule: flow-5
#[tokio::test]
async fn a_connection_that_is_not_read_notices_a_reset() {
    let tcp = [Kind::Tcp, Kind::Tls12, Kind::Tls13, Kind::Upgraded, Kind::TlsInTls];
    over(&tcp, Policy::default(), |kind, mut a, mut b| async move {
        settle(&mut a, &mut b).await;
        b.write_all(b"unread").await.unwrap();
        b.flush().await.unwrap();
        let control = a.control();
        let noticing = tokio::spawn(async move { control.lost().await });
        tokio::task::yield_now().await;
        assert!(!noticing.is_finished(), "{kind}");
        b.abort();
        noticing.await.unwrap();
        drop(a);
    })
    .await;
}

/// rule: flow-5
#[tokio::test]
async fn losing_a_connection_is_noticed_by_its_handle_however_it_comes() {
    over_all(|_, mut a, mut b| async move {
        let (control, other) = (a.control(), b.control());
        let (x, y) = tokio::join!(a.close(), b.close());
        assert!(ended_together(&x, &y));
        control.lost().await;
        drop(b);
        other.lost().await;
    })
    .await;
}
