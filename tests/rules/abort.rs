use std::io::ErrorKind;
use std::time::Duration;

use bowline::testing::{Kind, memory_pair, pair, raw_tcp_pair, shared_pki};
use bowline::{Phase, Policy, Reason, Split, TcpConnection, TlsConnection, Transport};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};

use crate::common::{bounded, clog, expect, over_all, read_all, server_and_tokio_rustls, settle};

fn is_reset(end: &Result<(), Reason>) -> bool {
    matches!(end, Err(Reason::Reset(_)))
}

/// rule: abort-1, abort-2, abort-5
#[tokio::test]
async fn a_hundred_aborts_never_look_complete() {
    for round in 0..100 {
        let kind = [Kind::Tls12, Kind::Tls13, Kind::Upgraded, Kind::TlsInTls][round % 4];
        bounded(&format!("{kind}, round {round}"), async move {
            let (mut a, mut b) = pair(kind).await.unwrap();
            a.write_all(&[5; 10_000]).await.unwrap();
            a.abort();
            let (_, end) = read_all(&mut b).await;
            assert!(is_reset(&end), "{end:?}");
        })
        .await;
    }
}

/// rule: abort-1
#[tokio::test]
async fn abort_returns_at_once_with_full_buffers_and_a_peer_that_does_not_read() {
    over_all(|_, mut a, mut b| async move {
        clog(&mut a).await;
        a.abort();
        assert_eq!(a.queued(), 0);
        assert!(matches!(a.status().reason, Some(Reason::Aborted)));
        let (_, end) = read_all(&mut b).await;
        assert!(is_reset(&end), "{end:?}");
    })
    .await;
}

/// rule: abort-3, end-7
#[tokio::test]
async fn every_use_of_an_aborted_transport_returns_aborted() {
    over_all(|_, mut a, mut b| async move {
        settle(&mut a, &mut b).await;
        a.abort();
        for _ in 0..2 {
            assert_eq!(a.read(&mut [0; 1]).await.unwrap_err().kind(), ErrorKind::ConnectionAborted);
            assert_eq!(a.write(b"x").await.unwrap_err().kind(), ErrorKind::ConnectionAborted);
            assert_eq!(a.close_write().await.unwrap_err().kind(), ErrorKind::ConnectionAborted);
        }
        a.abort();
        assert!(matches!(a.close().await.reason, Reason::Aborted));
    })
    .await;
}

/// rule: abort-4, end-7
#[tokio::test]
async fn a_handle_aborts_while_both_halves_are_in_use_elsewhere() {
    over_all(|_, a, mut b| async move {
        let control = a.control();
        let (mut read, mut write) = tokio::io::split(a);
        let reading = tokio::spawn(async move { read.read(&mut [0; 1]).await });
        let writing = tokio::spawn(async move {
            loop {
                if let Err(error) = write.write_all(&[9; 50_000]).await {
                    return error;
                }
            }
        });
        tokio::time::sleep(Duration::from_millis(20)).await;
        let other = control.clone();
        std::thread::spawn(move || other.abort()).join().unwrap();
        assert_eq!(reading.await.unwrap().unwrap_err().kind(), ErrorKind::ConnectionAborted);
        assert_eq!(writing.await.unwrap().kind(), ErrorKind::ConnectionAborted);
        assert!(control.is_aborted());
        assert!(is_reset(&read_all(&mut b).await.1));
    })
    .await;
}

/// rule: abort-4
#[tokio::test]
async fn a_handle_aborts_while_owned_halves_wait() {
    bounded("tls halves", async {
        let pair = bowline::testing::tcp_pair().await.unwrap();
        let (a, mut b) = bowline::testing::tls_over(pair, bowline::TlsVersion::V1_3).await.unwrap();
        let control = a.control();
        let (mut read, mut write) = a.into_split();
        let reading = tokio::spawn(async move { read.read(&mut [0; 1]).await });
        let writing = tokio::spawn(async move { while write.write_all(&[9; 50_000]).await.is_ok() {} });
        tokio::time::sleep(Duration::from_millis(20)).await;
        control.abort();
        assert_eq!(reading.await.unwrap().unwrap_err().kind(), ErrorKind::ConnectionAborted);
        writing.await.unwrap();
        assert!(is_reset(&read_all(&mut b).await.1));
    })
    .await;
}

/// rule: abort-3
#[tokio::test]
async fn records_that_were_read_already_are_not_delivered_after_abort() {
    over_all(|_, mut a, mut b| async move {
        b.write_all(b"one two three").await.unwrap();
        assert!(!a.fill_buf().await.unwrap().is_empty());
        a.control().abort();
        let error = a.read(&mut [0; 64]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
        assert!(a.fill_buf().await.is_err());
    })
    .await;
    // The same holds for the rest of a record in the engine, after a part of the record was read.
    over_all(|_, mut a, mut b| async move {
        b.write_all(b"one two three").await.unwrap();
        a.read_exact(&mut [0; 3]).await.unwrap();
        a.control().abort();
        let error = a.read(&mut [0; 64]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
    })
    .await;
}

/// rule: abort-2, abort-3
#[tokio::test]
async fn abort_inside_the_handshake_sends_no_alert_and_leaks_nothing() {
    bounded("tcp", async {
        let (client, mut raw) = raw_tcp_pair().await.unwrap();
        let client = TcpConnection::new(client, Policy::default()).unwrap();
        let mut client = TlsConnection::client(client, &shared_pki().client_tls(), "localhost").unwrap();
        client.write_all(b"secret, queued before the handshake").await.unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(20), client.handshake()).await.is_err());
        client.abort();
        let mut wire = Vec::new();
        let error = raw.read_to_end(&mut wire).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        let hello = 5 + usize::from(wire[3]) * 256 + usize::from(wire[4]);
        assert_eq!((wire[0], wire.len()), (22, hello), "something followed the ClientHello");
        assert!(matches!(client.handshake().await.unwrap_err().reason(), Some(Reason::Aborted)));
    })
    .await;
}

/// rule: abort-3
#[tokio::test]
async fn abort_after_close_write_and_while_closing_resets() {
    over_all(|_, mut a, mut b| async move {
        settle(&mut a, &mut b).await;
        a.close_write().await.unwrap();
        a.abort();
        // A reset does not change an end that has already come, so the peer sees the reset only when it sends.
        assert!(read_all(&mut b).await.1.is_ok());
        while b.write_all(&[0; 4_096]).await.is_ok() {
            tokio::task::yield_now().await;
        }
        let status = b.status();
        assert!(matches!(status.reason, Some(Reason::Reset(_))), "{status:?}");
    })
    .await;
    over_all(|_, mut a, mut b| async move {
        settle(&mut a, &mut b).await;
        let control = a.control();
        let closing = tokio::spawn(async move { a.close().await });
        tokio::time::sleep(Duration::from_millis(20)).await;
        control.abort();
        assert!(matches!(closing.await.unwrap().reason, Reason::Aborted));
    })
    .await;
}

/// rule: abort-3, life-5
#[tokio::test]
async fn abort_after_the_end_changes_nothing() {
    over_all(|_, mut a, mut b| async move {
        let (report, _) = tokio::join!(a.close(), b.close());
        assert!(report.is_clean());
        a.abort();
        a.control().abort();
        assert!(a.status().reason.unwrap().is_clean());
    })
    .await;
}

/// rule: abort-2
#[tokio::test]
async fn tokio_rustls_sees_a_reset_and_no_close_notify() {
    for _ in 0..20 {
        let (mut server, mut client) = server_and_tokio_rustls(Policy::default()).await;
        server.write_all(b"part of an ans").await.unwrap();
        server.abort();
        let error = client.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
}

/// rule: abort-3
#[tokio::test]
async fn an_abort_during_a_handshake_is_reported_to_its_task() {
    bounded("memory", async {
        let (client, _server) = memory_pair();
        let mut client = TlsConnection::client(client, &shared_pki().client_tls(), "localhost").unwrap();
        let control = client.control();
        let connecting = tokio::spawn(async move { client.handshake().await });
        tokio::time::sleep(Duration::from_millis(10)).await;
        control.abort();
        let error = connecting.await.unwrap().unwrap_err();
        assert!(matches!(error.reason(), Some(Reason::Aborted)), "{error:?}");
        assert_eq!(error.reason().unwrap().phase(), None::<Phase>);
    })
    .await;
}

/// rule: abort-1
#[tokio::test]
async fn a_dropped_connection_leaves_its_handle_harmless() {
    over_all(|_, mut a, mut b| async move {
        settle(&mut a, &mut b).await;
        let control = a.control();
        drop(a);
        control.abort();
        assert!(control.is_ended());
        assert!(read_all(&mut b).await.1.is_err());
        expect(&mut &b""[..], b"").await;
    })
    .await;
}

/// rule: abort-4
#[tokio::test]
async fn a_flush_that_waits_for_the_handshake_fails_at_an_abort() {
    bounded("tls halves", async {
        let (client, _server) = bowline::testing::tcp_pair().await.unwrap();
        let client = TlsConnection::client(client, &shared_pki().client_tls(), "localhost").unwrap();
        let control = client.control();
        let (_read, mut write) = client.into_split();
        let flushing = tokio::spawn(async move { write.flush().await });
        tokio::task::yield_now().await;
        control.abort();
        assert_eq!(flushing.await.unwrap().unwrap_err().kind(), ErrorKind::ConnectionAborted);
    })
    .await;
}

/// rule: end-7, upgrade-6
#[tokio::test]
async fn a_refused_or_failed_upgrade_is_no_abort_and_an_abort_is() {
    let tls = shared_pki().server_tls();
    for refuse in [true, false] {
        let (server, mut client) = bowline::testing::tcp_pair().await.unwrap();
        let mut server = bowline::UpgradableConnection::new(server);
        let control = server.control();
        client.write_all(b"STARTTLS\nno TLS at all, and long enough to be judged\n").await.unwrap();
        server.read_line(&mut String::new()).await.unwrap();
        let leftover = if refuse { bowline::Leftover::Refuse } else { bowline::Leftover::Feed };
        let failed = server.start_tls(bowline::StartTls::server(&tls).leftover(leftover)).await;
        let reason = Reason::from(failed.unwrap_err());
        assert!(matches!(
            (&reason, refuse),
            (Reason::Protocol(_), true) | (Reason::Protocol(_) | Reason::Tls(_), false)
        ));
        assert!(control.is_ended() && !control.is_aborted());
        assert_eq!(control.report().unwrap().reason.name(), reason.name());
        server.abort();
        assert!(!control.is_aborted(), "what has ended is not aborted any more");
    }
    let (mut a, _b) = pair(Kind::Upgraded).await.unwrap();
    a.abort();
    assert!(a.control().is_aborted());
    a.close().await;
    assert!(a.control().is_aborted());
}

/// An abort discards borrowed bytes. Consuming them afterwards is allowed.
///
/// rule: life-5, abort-3
#[tokio::test]
async fn consume_after_an_abort_does_nothing() {
    over_all(|kind, mut a, mut b| async move {
        b.write_all(b"hello").await.unwrap();
        b.flush().await.unwrap();
        let lent = a.fill_buf().await.unwrap().len();
        assert!(lent > 0, "{kind}");
        a.abort();
        a.consume(lent);
        assert!(a.fill_buf().await.is_err(), "{kind}");
    })
    .await;
}
