use bowline::testing::{shared_pki, tcp_pair};
use bowline::{OwnedReadHalf, Split, StartTls, Transport, UpgradableConnection};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};

use crate::common::{bounded, over_all, pattern, read_all};

/// rule: traffic-1
#[tokio::test]
async fn the_bytes_that_one_side_sent_are_received_by_the_other() {
    over_all(|kind, mut a, mut b| async move {
        let (ours, theirs) = (a.control(), b.control());
        let before = ours.traffic();
        assert_eq!((before.sent > 0, before.received > 0), (kind.is_tls(), kind.is_tls()), "{kind}: the handshake");
        let sending = tokio::spawn(async move {
            a.write_all(&pattern(300_000)).await.unwrap();
            a.close().await
        });
        assert_eq!(read_all(&mut b).await.0.len(), 300_000);
        b.close().await;
        sending.await.unwrap();
        let (ours, theirs) = (ours.traffic(), theirs.traffic());
        // Each side has read everything, so each counts what the other one has sent.
        assert_eq!((ours.sent, ours.received), (theirs.received, theirs.sent), "{kind}");
        let sent = ours.sent - before.sent;
        assert!(if kind.is_tls() { sent > 300_000 && sent < 310_000 } else { sent == 300_000 }, "{kind}: {sent}");
    })
    .await;
}

/// rule: traffic-1
#[tokio::test]
async fn traffic_is_counted_through_upgrades_and_splits() {
    bounded("upgraded and split", async {
        let (client, server) = tcp_pair().await.unwrap();
        let (mut client, mut server) = (UpgradableConnection::new(client), UpgradableConnection::new(server));
        client.write_all(b"STARTTLS").await.unwrap();
        server.read_exact(&mut [0; 8]).await.unwrap();
        assert_eq!((client.control().traffic().sent, server.control().traffic().received), (8, 8));
        let (server_tls, client_tls) = (shared_pki().server_tls(), shared_pki().client_tls());
        let (ours, theirs) = tokio::join!(
            server.start_tls(StartTls::server(&server_tls)),
            client.start_tls(StartTls::client(&client_tls, "localhost")),
        );
        ours.and(theirs).unwrap();
        let secured = server.control().traffic();
        assert!(secured.received > 200 && secured.sent > 500, "{secured:?}");
        let (mut read, write) = server.into_split();
        client.write_all(b"secret").await.unwrap();
        read.read_exact(&mut [0; 6]).await.unwrap();
        let after = read.control().traffic();
        assert!(after.received >= secured.received + 6 && after.sent >= secured.sent, "{after:?}");
        drop((read, write));
    })
    .await;
}

/// rule: traffic-2
#[tokio::test]
async fn the_bytes_of_the_application_are_counted_over_every_transport() {
    over_all(|kind, mut a, mut b| async move {
        let (ours, theirs) = (a.control(), b.control());
        assert_eq!((ours.payload(), theirs.payload()), Default::default(), "{kind}: the handshake");
        let sending = tokio::spawn(async move {
            a.write_all(&pattern(300_000)).await.unwrap();
            for _ in 0..100 {
                a.write_all(b"0123456789").await.unwrap();
            }
            let answer = read_all(&mut a).await.0.len();
            a.close().await;
            answer
        });
        b.read_exact(&mut [0; 1_000]).await.unwrap();
        while theirs.payload().received < 301_000 {
            let n = b.fill_buf().await.unwrap().len();
            b.consume(n);
        }
        b.write_all(b"answer").await.unwrap();
        b.close().await;
        assert_eq!(sending.await.unwrap(), 6);
        assert_eq!((ours.payload().sent, ours.payload().received), (301_000, 6), "{kind}");
        assert_eq!((theirs.payload().sent, theirs.payload().received), (6, 301_000), "{kind}");
    })
    .await;
}

/// rule: traffic-2, upgrade-9
#[tokio::test]
async fn the_bytes_of_the_application_are_counted_through_upgrades_and_downgrades() {
    bounded("upgraded and downgraded", async {
        let (client, server) = tcp_pair().await.unwrap();
        let (mut client, mut server) = (UpgradableConnection::new(client), UpgradableConnection::new(server));
        let (server_tls, mut client_tls) = (shared_pki().server_tls(), shared_pki().client_tls());
        let mut expected = 0;
        for _ in 0..2 {
            client.write_all(b"STARTTLS").await.unwrap();
            let starting = tokio::spawn(async move {
                client.start_tls(StartTls::client(&client_tls, "localhost")).await.unwrap();
                (client, client_tls)
            });
            // The ClientHello may be read ahead together with the command.
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            assert!(server.fill_buf().await.unwrap().len() >= 8);
            server.consume(8);
            server.start_tls(StartTls::server(&server_tls)).await.unwrap();
            (client, client_tls) = starting.await.unwrap();
            client.write_all(b"secret").await.unwrap();
            server.read_exact(&mut [0; 6]).await.unwrap();
            expected += 14;
            assert_eq!((client.control().payload().sent, server.control().payload().received), (expected, expected));
            // Plaintext follows close_notify at once, in the same segment if possible.
            let stopping = tokio::spawn(async move {
                client.stop_tls().await.unwrap();
                client.write_all(b"plain").await.unwrap();
                client
            });
            server.stop_tls().await.unwrap();
            server.read_exact(&mut [0; 5]).await.unwrap();
            client = stopping.await.unwrap();
            expected += 5;
            assert_eq!((client.control().payload().sent, server.control().payload().received), (expected, expected));
        }
        assert_eq!(client.control().payload().received, 0);
        let wire = client.control().traffic();
        assert!(wire.sent > expected + 500 && wire.received > 500, "{wire:?}");
    })
    .await;
}
