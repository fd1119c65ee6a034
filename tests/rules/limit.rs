use std::collections::HashSet;
use std::future::{Future, poll_fn};
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::task::Poll;

use bowline::testing::shared_pki;
use bowline::{
    Connector, Incoming, Leftover, Listener, ListenerBuilder, RefusalReason, Split, StartTls, TcpConnection, Transport,
    UpgradableConnection,
};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::common::{BOUND, bounded};

async fn listen(builder: ListenerBuilder) -> Listener {
    builder.bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap()
}

async fn accept(listener: &Listener) -> Incoming {
    timeout(BOUND, listener.accept()).await.unwrap().unwrap()
}

async fn connect(listener: &Listener) -> TcpStream {
    TcpStream::connect(listener.local_addr().as_inet().unwrap()).await.unwrap()
}

/// A client with this address of 127.0.0.0/8.
async fn connect_from(listener: &Listener, last: u8) -> TcpConnection {
    let from = SocketAddr::from(([127, 0, 0, last], 0));
    Connector::new().bind_to(from).connect_addr(listener.local_addr()).await.unwrap()
}

/// Whether the listener accepts no connection although one waits in the backlog.
async fn is_full(listener: &Listener) -> bool {
    let mut waiting = Box::pin(listener.accept());
    for _ in 0..20 {
        if poll_fn(|cx| Poll::Ready(waiting.as_mut().poll(cx))).await.is_ready() {
            return false;
        }
        tokio::task::yield_now().await;
    }
    listener.status().is_full
}

/// rule: limit-1
#[tokio::test]
async fn at_the_bound_connections_wait_in_the_backlog_after_dropped_accepts() {
    let listener = listen(Listener::builder().max_connections(2)).await;
    let clients = [connect(&listener).await, connect(&listener).await, connect(&listener).await];
    let mut first = accept(&listener).await.into_tcp();
    assert!(!listener.status().is_full);
    let second = accept(&listener).await;
    assert!(is_full(&listener).await && is_full(&listener).await);
    first.abort();
    drop(first);
    let third = accept(&listener).await;
    assert_eq!(third.peer_addr(), clients[2].local_addr().unwrap().into());
    drop((second, third));
    assert!(!listener.status().is_full);
}

/// rule: limit-1, drain-1
#[tokio::test]
async fn a_drain_ends_an_accept_that_waits_for_a_place() {
    let listener = listen(Listener::builder().max_connections(1)).await;
    let _client = connect(&listener).await;
    let _open = accept(&listener).await;
    let (accepted, ()) = tokio::join!(timeout(BOUND, listener.accept()), async {
        tokio::task::yield_now().await;
        listener.group().begin_drain();
    });
    assert!(matches!(accepted.unwrap(), Err(bowline::Error::Draining)));
}

/// rule: limit-2
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_peer_at_its_bound_is_reset_and_reported_and_others_are_accepted() {
    let listener = listen(Listener::builder().max_per_peer(2)).await;
    let _clients = [connect_from(&listener, 2).await, connect_from(&listener, 2).await];
    let mut open = vec![accept(&listener).await.into_tcp(), accept(&listener).await.into_tcp()];
    assert_eq!((listener.status().refused, listener.status().last_refusal), (0, None));
    let mut refused = connect_from(&listener, 2).await;
    let other = connect_from(&listener, 3).await;
    assert_eq!(accept(&listener).await.peer_addr(), other.local_addr());
    assert_eq!(refused.read(&mut [0]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    let status = listener.status();
    let refusal = status.last_refusal.unwrap();
    assert_eq!((status.refused, status.accept_errors), (1, 0));
    assert_eq!(refusal.peer_addr, refused.local_addr());
    assert_eq!(refusal.why, RefusalReason::TooManyOfPeer { max: 2 });
    // One connection ends, so one more may come.
    open.pop();
    let _client = connect_from(&listener, 2).await;
    let _let_in = accept(&listener).await;
    assert_eq!(listener.status().refused, 1);
}

/// rule: limit-2
#[tokio::test]
async fn addresses_of_one_ipv6_network_are_one_peer() {
    let Ok(listener) = Listener::builder().max_per_peer(1).per_peer_ipv6_prefix(64).bind("[::1]:0").await else {
        return eprintln!("this host has no IPv6");
    };
    let _first = TcpStream::connect(listener.local_addr().as_inet().unwrap()).await.unwrap();
    let _open = accept(&listener).await;
    let mut second = TcpStream::connect(listener.local_addr().as_inet().unwrap()).await.unwrap();
    let (accepted, refused) = tokio::join!(timeout(std::time::Duration::from_millis(100), listener.accept()), async {
        second.read(&mut [0]).await.unwrap_err().kind()
    });
    assert!(accepted.is_err() && refused == ErrorKind::ConnectionReset);
}

/// rule: limit-4: the system chooses the worker of each client.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn workers_share_their_limits() {
    bounded("workers", async {
        let (accepted, mut connections) = tokio::sync::mpsc::unbounded_channel();
        let builder = Listener::builder().max_connections(2).max_unfinished(1).max_per_peer(1);
        let workers = builder.bind_workers(4, (Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let workers: Vec<_> = workers.into_iter().map(Arc::new).collect();
        for listener in &workers {
            let (listener, accepted) = (Arc::clone(listener), accepted.clone());
            tokio::spawn(async move {
                while let Ok(incoming) = listener.accept().await {
                    accepted.send(incoming).unwrap();
                }
            });
        }
        // All workers together may have one unfinished handshake, and idle workers hold no permit.
        for last in 2..34 {
            let client = connect_from(&workers[0], last).await;
            let other = connect_from(&workers[0], last + 100).await;
            let mut both = HashSet::from([client.local_addr(), other.local_addr()]);
            let first = connections.recv().await.unwrap();
            assert!(both.remove(&first.peer_addr()));
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
            assert!(connections.try_recv().is_err());
            drop(first);
            assert!(both.remove(&connections.recv().await.unwrap().peer_addr()));
        }
        // All workers together may have two connections, one for each peer.
        let _first = connect_from(&workers[0], 200).await;
        let open = connections.recv().await.unwrap().into_tcp();
        for _ in 0..12 {
            // The reset may come before the client knows that it is connected.
            let from = SocketAddr::from(([127, 0, 0, 200], 0));
            if let Ok(mut refused) = Connector::new().bind_to(from).connect_addr(workers[0].local_addr()).await {
                assert_eq!(refused.read(&mut [0]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
            }
        }
        let _second = connect_from(&workers[0], 201).await;
        let _open = connections.recv().await.unwrap().into_tcp();
        let _third = connect_from(&workers[0], 202).await;
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        assert!(connections.try_recv().is_err() && workers.iter().all(|listener| listener.status().is_full));
        drop(open);
        drop(connections.recv().await.unwrap());
    })
    .await;
}

/// The ways in which a connection can end.
async fn go(way: usize, incoming: Incoming, mut client: TcpStream) {
    let tls = shared_pki().server_tls();
    match way {
        0 => drop(incoming),
        1 => drop(incoming.into_tcp()),
        2 => incoming.into_tcp().abort(),
        3 => {
            drop(client);
            incoming.into_tcp().close().await;
        }
        4 => {
            let (read, write) = incoming.into_upgradable().into_split();
            drop(read);
            drop(write);
        }
        5 => {
            client.write_all(b"this is no TLS\r\n").await.unwrap();
            let reading = async {
                let _ = client.read_to_end(&mut Vec::new()).await;
                drop(client);
            };
            assert!(tokio::join!(incoming.handshake(&tls), reading).0.is_err());
        }
        6 => {
            let client = TcpConnection::new(client, bowline::Policy::default()).unwrap();
            let mut client = UpgradableConnection::new(client);
            let mut server = incoming.into_upgradable();
            let client_tls = shared_pki().client_tls();
            let (ours, theirs) = tokio::join!(
                server.start_tls(StartTls::server(&tls)),
                client.start_tls(StartTls::client(&client_tls, "localhost")),
            );
            ours.and(theirs).unwrap();
            let _ = tokio::join!(server.close(), client.close());
            // A closed connection no longer counts, even if a task still holds the value.
            std::mem::forget(server);
        }
        // The upgrade is refused, because bytes follow the command in plaintext.
        7 => {
            client.write_all(b"STARTTLS\r\nINJECTED").await.unwrap();
            let mut server = incoming.into_upgradable();
            server.read_line(&mut String::new()).await.unwrap();
            let how = StartTls::server(&tls).leftover(Leftover::Refuse);
            assert!(server.start_tls(how).await.is_err());
            server.close().await;
            std::mem::forget(server);
        }
        _ => drop(timeout(std::time::Duration::from_millis(5), incoming.handshake(&tls)).await),
    }
}

/// rule: limit-3
#[tokio::test]
async fn a_place_is_given_back_however_a_connection_goes() {
    for way in 0..9 {
        bounded(&format!("way {way}"), async move {
            let listener = listen(Listener::builder().max_connections(1).max_per_peer(1)).await;
            for _ in 0..2 {
                let client = connect(&listener).await;
                let incoming = accept(&listener).await;
                assert!(listener.status().is_full);
                let control = incoming.control();
                go(way, incoming, client).await;
                // The connection no longer counts, although the test still holds its `Control`.
                assert!(!listener.status().is_full && control.is_ended());
            }
            assert_eq!(listener.status().refused, 0);
        })
        .await;
    }
}
