//! Closing a connection of more than two layers, and one whose downgrade was dropped.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use bowline::testing::pki::Pki;
use bowline::testing::tcp_pair;
use bowline::{StartTls, TcpConnection, Transport, UpgradableConnection};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(5);

type Upgradable = UpgradableConnection<TcpConnection>;

/// Both ends of a connection with this many nested TLS sessions.
async fn pair(sessions: usize) -> (Upgradable, Upgradable) {
    let pki = Pki::new();
    let (server_tls, client_tls) = (pki.server_tls(), pki.client_tls());
    let (client, server) = tcp_pair().await.unwrap();
    let (mut client, mut server) = (Upgradable::new(client), Upgradable::new(server));
    for _ in 0..sessions {
        let (a, b) = tokio::join!(
            client.start_tls(StartTls::client(&client_tls, "localhost")),
            server.start_tls(StartTls::server(&server_tls)),
        );
        a.unwrap();
        b.unwrap();
    }
    (client, server)
}

/// rule: close-1, upgrade-8
#[tokio::test]
async fn every_layer_of_tls_in_tls_ends_by_its_own_marker() {
    let (mut client, mut server) = pair(2).await;
    server.write_all(b"last words").await.unwrap();
    let reading = async {
        let mut all = Vec::new();
        client.read_to_end(&mut all).await.unwrap();
        (all, client.close().await)
    };
    let (report, (all, theirs)) = timeout(SOON, async { tokio::join!(server.close(), reading) }).await.unwrap();
    assert_eq!(all, b"last words");
    assert!(report.is_clean() && theirs.is_clean(), "{report:?} {theirs:?}");
    assert_eq!(report.layers.len(), 3);
    assert!(report.layers.iter().all(|layer| layer.marker_sent), "{report:?}");
}

/// rule: upgrade-9, close-1
#[tokio::test]
async fn a_close_after_a_dropped_downgrade_ends_the_layer_below_too() {
    let (mut client, mut server) = pair(1).await;
    assert!(timeout(Duration::from_millis(50), server.stop_tls()).await.is_err());
    let reading = async {
        let mut all = Vec::new();
        client.read_to_end(&mut all).await.unwrap();
        client.close().await
    };
    let (report, theirs) = timeout(SOON, async { tokio::join!(server.close(), reading) }).await.unwrap();
    assert!(report.is_clean() && theirs.is_clean(), "{report:?} {theirs:?}");
    assert!(report.layers.iter().all(|layer| layer.marker_sent), "{report:?}");
}
