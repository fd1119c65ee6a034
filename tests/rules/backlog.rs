//! Drains that accept the connections in the backlog.

use std::io::{ErrorKind, Read};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bowline::testing::shared_pki;
use bowline::{DrainGroup, Error, Listener, Policy, TcpConnection, TlsConnection, TlsListener, Transport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::common::bounded;

async fn listen() -> (Listener, SocketAddr, DrainGroup) {
    let listener = Listener::builder().finish_on_drain(true).bind("127.0.0.1:0").await.unwrap();
    let (address, group) = (listener.local_addr().as_inet().unwrap(), listener.group().clone());
    (listener, address, group)
}

async fn connect_all(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    let mut clients = Vec::new();
    for _ in 0..count {
        clients.push(TcpStream::connect(address).await.unwrap());
    }
    clients
}

async fn assert_reset(clients: Vec<TcpStream>) {
    for mut client in clients {
        assert_eq!(client.read(&mut [0]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
}

/// rule: drain-5, drain-1
#[tokio::test]
async fn a_drain_takes_what_waits_in_the_backlog() {
    bounded("the backlog", async {
        let (listener, address, group) = listen().await;
        let clients = connect_all(address, 20).await;
        // Drains may begin outside of a runtime.
        let beginning = group.clone();
        std::thread::spawn(move || beginning.begin_drain()).join().unwrap();
        assert_eq!(TcpStream::connect(address).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
        let draining = tokio::spawn(async move { group.drain(None).await });
        for client in &clients {
            let mut connection = listener.accept().await.unwrap().into_tcp();
            assert_eq!(connection.peer_addr(), client.local_addr().unwrap().into());
            assert!(connection.control().is_draining());
            tokio::spawn(async move { connection.close_with(b"bye").await });
        }
        for _ in 0..2 {
            assert!(matches!(listener.accept().await, Err(Error::Draining)));
        }
        for mut client in clients {
            let mut text = String::new();
            client.read_to_string(&mut text).await.unwrap();
            assert_eq!(text, "bye");
        }
        assert_eq!(draining.await.unwrap().to_string(), "20 connections ended: 20 closed");
    })
    .await;
}

/// rule: drain-5, drain-3
#[tokio::test]
async fn what_nobody_takes_is_reset_at_the_deadline_of_the_drain() {
    bounded("nobody accepts", async {
        let (listener, address, group) = listen().await;
        let clients = connect_all(address, 2).await;
        let report = group.drain(Duration::from_millis(20)).await;
        assert_eq!(report.to_string(), "2 connections ended: 2 aborted (2 of them at the deadline)");
        assert!(matches!(listener.accept().await, Err(Error::Draining)));
        assert_reset(clients).await;
    })
    .await;
}

/// rule: drain-5
#[tokio::test]
async fn a_drain_ends_when_the_listener_with_the_backlog_is_dropped() {
    bounded("the listener is dropped", async {
        let (listener, address, group) = listen().await;
        let clients = connect_all(address, 2).await;
        group.begin_drain();
        let draining = tokio::spawn(async move { group.drain(None).await });
        tokio::task::yield_now().await;
        drop(listener);
        assert_eq!(draining.await.unwrap().total(), 0);
        assert_reset(clients).await;
    })
    .await;
}

/// rule: drain-5, limit-1
#[tokio::test]
async fn the_backlog_is_taken_at_the_bound_of_all_connections_too() {
    bounded("a full listener", async {
        let builder = Listener::builder().finish_on_drain(true).max_connections(1);
        let listener = builder.bind("127.0.0.1:0").await.unwrap();
        let (address, group) = (listener.local_addr().as_inet().unwrap(), listener.group().clone());
        let clients = connect_all(address, 3).await;
        let first = listener.accept().await.unwrap();
        group.begin_drain();
        let accepting = tokio::spawn(async move {
            let mut count = 0;
            while let Ok(incoming) = listener.accept().await {
                incoming.into_tcp().abort();
                count += 1;
            }
            count
        });
        tokio::task::yield_now().await;
        assert!(!accepting.is_finished());
        drop(first);
        assert_eq!(accepting.await.unwrap(), 2);
        drop(clients);
    })
    .await;
}

/// rule: drain-5, accept-3
#[tokio::test]
async fn handshakes_of_the_backlog_are_finished() {
    bounded("handshakes", async {
        let policy = Policy::default().handshake_timeout(Duration::from_secs(30));
        let listener = Listener::builder().policy(policy).bind("127.0.0.1:0").await.unwrap();
        let (address, group) = (listener.local_addr().as_inet().unwrap(), listener.group().clone());
        let mut listener = TlsListener::builder().finish_on_drain(true).tls(listener, shared_pki().server_tls());
        let mut clients = Vec::new();
        for _ in 0..10 {
            // Nothing else runs before the drain, so the connections stay in the backlog.
            clients.push(std::net::TcpStream::connect(address).unwrap());
        }
        group.begin_drain();
        for tcp in clients {
            let client = tokio::spawn(read_over_tls(tcp));
            listener.accept().await.unwrap().close_with(b"bye").await;
            assert_eq!(client.await.unwrap(), "bye");
        }
        assert!(matches!(listener.accept().await, Err(Error::Draining)));
        let report = group.drain(None).await;
        assert!(report.is_clean() && report.total() == 10, "{report}");
    })
    .await;
}

async fn read_over_tls(tcp: std::net::TcpStream) -> String {
    tcp.set_nonblocking(true).unwrap();
    let tcp = TcpConnection::new(TcpStream::from_std(tcp).unwrap(), Policy::default()).unwrap();
    let mut client = TlsConnection::connect(tcp, &shared_pki().client_tls(), "localhost").await.unwrap();
    let mut text = String::new();
    client.read_to_string(&mut text).await.unwrap();
    client.close().await;
    text
}

/// rule: drain-5
#[tokio::test]
async fn handshakes_that_the_application_does_are_finished_too() {
    bounded("handshakes", async {
        let (listener, address, group) = listen().await;
        let early = std::net::TcpStream::connect(address).unwrap();
        let begun = listener.accept().await.unwrap();
        let waiting = std::net::TcpStream::connect(address).unwrap();
        group.begin_drain();
        for (tcp, incoming) in [(early, begun), (waiting, listener.accept().await.unwrap())] {
            let client = tokio::spawn(read_over_tls(tcp));
            let mut connection = incoming.handshake(&shared_pki().server_tls()).await.unwrap();
            connection.close_with(b"bye").await;
            assert_eq!(client.await.unwrap(), "bye");
        }
    })
    .await;
}

/// rule: drain-5
///
/// Clients connect all the time, and the drain begins at some moment. Each client that is connected gets an answer.
#[cfg(any(target_os = "linux", target_os = "android"))]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_connect_as_the_drain_begins_are_served_or_refused() {
    // A client that is ignored tries again after a second, so this costs a second each time.
    for _ in 0..2 {
        bounded("clients that keep connecting", async {
            let (listener, address, group) = listen().await;
            let mut listener = TlsListener::builder().prepare(listener, |tcp| async { Ok(tcp) });
            let stop = Arc::new(AtomicBool::new(false));
            let clients: Vec<_> = (0..3)
                .map(|_| {
                    let stop = Arc::clone(&stop);
                    std::thread::spawn(move || {
                        let (mut served, mut cut_off) = (0, Vec::new());
                        while !stop.load(Ordering::SeqCst) {
                            let mut client = match std::net::TcpStream::connect(address) {
                                Ok(client) => client,
                                Err(error) => {
                                    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
                                    break;
                                }
                            };
                            match client.read_exact(&mut [0]) {
                                Ok(()) => served += 1,
                                Err(error) => cut_off.push(error),
                            }
                        }
                        (served, cut_off)
                    })
                })
                .collect();
            let serving = tokio::spawn(async move {
                let mut count = 0;
                while let Ok(mut connection) = listener.accept().await {
                    count += 1;
                    tokio::spawn(async move {
                        let _ = connection.write_all(b"x").await;
                        connection.close().await;
                    });
                }
                count
            });
            tokio::time::sleep(Duration::from_millis(20)).await;
            group.drain(None).await;
            stop.store(true, Ordering::SeqCst);
            let mut all_served = 0;
            for client in clients {
                let (served, cut_off) = tokio::task::spawn_blocking(|| client.join().unwrap()).await.unwrap();
                assert!(cut_off.is_empty(), "{cut_off:?}");
                all_served += served;
            }
            assert_eq!(serving.await.unwrap(), all_served);
        })
        .await;
    }
}
