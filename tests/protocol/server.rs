//! Servers of protocols: which connections are accepted, and how a drain ends them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bowline::protocol::{CallbackResult, Conn, Protocol, Server, every};
use bowline::testing::shared_pki;
use bowline::{Connector, Incoming, Listener, TcpConnection, TlsConnection, Transport as _};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::common::{bounded, expect, read_all};

#[derive(Clone, Default)]
struct Echo {
    drained: Arc<AtomicUsize>,
}

impl Protocol for Echo {
    fn data_received(&mut self, transport: &mut dyn Conn, data: &[u8]) -> CallbackResult<usize> {
        transport.write(data);
        Ok(data.len())
    }

    fn draining(&mut self, transport: &mut dyn Conn) -> CallbackResult {
        self.drained.fetch_add(1, Ordering::SeqCst);
        transport.write(b"bye");
        transport.close();
        Ok(())
    }
}

async fn client(address: std::net::SocketAddr) -> TcpConnection {
    Connector::new().connect_addr(address).await.unwrap()
}

/// rule: drain-1, drain-2, life-1
#[tokio::test]
async fn every_protocol_is_notified_of_a_drain_once_and_the_server_ends() {
    bounded("a drain", async {
        for tls in [false, true] {
            let echo = Echo::default();
            let listener = Listener::bind("127.0.0.1:0").await.unwrap();
            let (address, group) = (listener.local_addr().as_inet().unwrap(), listener.group().clone());
            let made = echo.clone();
            let server = Server::new(listener, every(move || made.clone()));
            let server = if tls { server.tls(&shared_pki().server_tls()) } else { server };
            let serving = tokio::spawn(server.run());

            let mut peers: Vec<Box<dyn bowline::Transport>> = Vec::new();
            for _ in 0..5 {
                let tcp = client(address).await;
                let client_tls = shared_pki().client_tls();
                let mut peer: Box<dyn bowline::Transport> = match tls {
                    true => Box::new(TlsConnection::connect(tcp, &client_tls, "localhost").await.unwrap()),
                    false => Box::new(tcp),
                };
                peer.write_all(b"?").await.unwrap();
                expect(&mut peer, b"?").await;
                peers.push(peer);
            }
            // This handshake never finishes, and must not delay the drain.
            let mut stalled = client(address).await;
            if tls {
                stalled.write_all(b"\x16").await.unwrap();
            }
            let draining = tokio::spawn(async move { group.drain(Duration::from_secs(30)).await });
            for mut peer in peers {
                let (last, end) = read_all(&mut peer).await;
                assert!(last == b"bye" && end.is_ok());
                assert!(peer.close().await.is_clean());
            }
            let _ = stalled.read_to_end(&mut Vec::new()).await;
            stalled.close().await;
            let report = draining.await.unwrap();
            assert!(report.count(bowline::Outcome::Closed) >= 5 && report.cut_off == 0, "{report}");
            serving.await.unwrap().unwrap();
            assert_eq!(echo.drained.load(Ordering::SeqCst), if tls { 5 } else { 6 });
            assert_eq!(report.count(bowline::Outcome::Aborted), usize::from(tls), "{report}");
        }
    })
    .await;
}

/// rule: tcp-5
#[tokio::test]
async fn a_factory_may_refuse_and_the_peer_is_reset() {
    bounded("a refusal", async {
        let listener = Listener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().as_inet().unwrap();
        let asked = AtomicUsize::new(0);
        // Every second connection is refused.
        let factory = move |_: &Incoming| asked.fetch_add(1, Ordering::SeqCst).is_multiple_of(2).then(Echo::default);
        let serving = tokio::spawn(Server::new(listener, factory).run());
        for round in 0..6 {
            // The reset of a refused connection may arrive before `connect` returns.
            let Ok(mut peer) = Connector::new().connect_addr(address).await else {
                assert_eq!(round % 2, 1);
                continue;
            };
            let written = peer.write_all(b"?").await;
            let answer = peer.read(&mut [0; 1]).await;
            if round % 2 == 0 {
                assert_eq!((written.is_ok(), answer.unwrap()), (true, 1));
            } else {
                assert!(written.is_err() || answer.is_err());
            }
        }
        serving.abort();
    })
    .await;
}
