use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bowline::testing::{Kind, shared_pki, tcp_pair};
use bowline::{
    Connector, Error, Keepalive, Listener, Phase, Policy, Reason, SocketOptions, TcpTransport, TlsConnection, Transport,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::common::{BOUND, Orderly as _, bounded, over_all, settle};

/// rule: tcp-1
#[tokio::test]
async fn addresses_are_numeric_and_stay_readable_after_the_end() {
    over_all(|kind, mut a, mut b| async move {
        let (host, peer) = (a.local_addr(), a.peer_addr());
        assert_eq!((b.local_addr(), b.peer_addr()), (peer.clone(), host.clone()));
        if kind.has_socket() {
            assert!(host.as_inet().unwrap().ip().is_loopback() && peer.as_inet().is_some());
        }
        a.abort();
        let _ = b.close().await;
        assert_eq!((a.local_addr(), a.peer_addr()), (host.clone(), peer.clone()));
        assert_eq!((a.control().local_addr(), a.control().peer_addr()), (host, peer));
    })
    .await;
}

/// rule: tcp-1
#[tokio::test]
async fn ipv6_addresses_are_reported_unchanged() {
    let listener = Listener::bind("[::1]:0").await.unwrap();
    let client = Connector::new().connect_addr(listener.local_addr()).await.unwrap();
    let server = listener.accept().await.unwrap().into_tcp();
    assert_eq!(client.peer_addr(), listener.local_addr());
    assert_eq!(server.peer_addr(), client.local_addr());
    assert!(server.peer_addr().to_string().starts_with("[::1]:"));
}

/// rule: tcp-2
#[tokio::test]
async fn options_reach_the_real_socket_through_every_layer() {
    over_all(|kind, a, _b| async move {
        assert_eq!(a.as_tcp().is_some(), kind.has_socket());
        let Some(a) = a.as_tcp() else { return };
        assert!(a.nodelay().unwrap(), "on by default");
        a.set_nodelay(false).unwrap();
        assert!(!a.nodelay().unwrap());
        assert_eq!(a.keepalive().unwrap(), None);
        let wanted = Keepalive::new().idle(Duration::from_secs(33)).interval(Duration::from_secs(7)).count(4);
        a.set_keepalive(Some(wanted)).unwrap();
        assert_eq!(a.keepalive().unwrap(), Some(wanted));
        a.set_keepalive(Some(Keepalive::new().idle(Duration::from_secs(44)))).unwrap();
        assert_eq!(a.keepalive().unwrap(), Some(wanted.idle(Duration::from_secs(44))), "the other values stay");
        a.set_keepalive(None).unwrap();
        assert_eq!(a.keepalive().unwrap(), None);
        a.set_send_buffer_size(64 << 10).unwrap();
        a.set_recv_buffer_size(64 << 10).unwrap();
        let (send, recv) = a.buffer_sizes().unwrap();
        assert!(send >= 64 << 10 && recv >= 64 << 10);
        if cfg!(target_os = "linux") {
            a.set_user_timeout(Some(Duration::from_secs(9))).unwrap();
            assert_eq!(a.user_timeout().unwrap(), Some(Duration::from_secs(9)));
        }
    })
    .await;
}

/// rule: tcp-3
#[tokio::test]
async fn options_after_the_end_are_errors() {
    over_all(|_, mut a, mut b| async move {
        settle(&mut a, &mut b).await;
        a.abort();
        if let Some(a) = a.as_tcp() {
            assert!(a.nodelay().is_err() && a.set_nodelay(true).is_err());
        }
        let _ = b.close().await;
        if let Some(b) = b.as_tcp() {
            assert!(b.set_keepalive(None).is_err() && b.buffer_sizes().is_err());
        }
    })
    .await;
}

/// rule: tcp-6, secure-5
#[tokio::test]
async fn two_hundred_stalled_handshakes_delay_no_other() {
    bounded("tls", async {
        let policy = Policy::default().handshake_timeout(Duration::from_secs(3));
        let listener = Listener::builder().policy(policy).bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().as_inet().unwrap();
        let serving = tokio::spawn(async move {
            let tls = shared_pki().server_tls();
            let mut stalled = tokio::task::JoinSet::new();
            for _ in 0..250 {
                let incoming = listener.accept().await.unwrap();
                let tls = tls.clone();
                stalled.spawn(async move {
                    match incoming.handshake(&tls).await {
                        Ok(mut connection) => {
                            let mut buf = [0; 1];
                            connection.read_exact(&mut buf).await.unwrap();
                            connection.write_all(&buf).await.unwrap();
                            connection.close().await;
                            "served".to_owned()
                        }
                        Err(error) => format!("{:?}", error.reason().unwrap()),
                    }
                });
            }
            stalled.join_all().await
        });
        // Some of these clients send nothing, the others only the first bytes of a ClientHello.
        let mut silent = Vec::new();
        for n in 0..200 {
            let mut socket = TcpStream::connect(address).await.unwrap();
            socket.write_all(&b"\x16\x03\x01\x02\x00\x01"[..n % 7]).await.unwrap();
            silent.push(socket);
        }
        let client_tls = shared_pki().client_tls();
        for _ in 0..50 {
            let tcp = Connector::new().connect_addr(address).await.unwrap();
            let mut client = TlsConnection::connect(tcp, &client_tls, "localhost").await.unwrap();
            client.write_all(b"x").await.unwrap();
            client.read_exact(&mut [0; 1]).await.unwrap();
            assert!(client.close().await.ended_last());
        }
        let outcomes = serving.await.unwrap();
        let served = outcomes.iter().filter(|outcome| *outcome == "served").count();
        let timed_out = outcomes.iter().filter(|outcome| *outcome == "TimedOut(Handshake)").count();
        assert_eq!((served, timed_out), (50, 200));
        drop(silent);
    })
    .await;
}

/// rule: tcp-8
#[tokio::test]
async fn a_taken_port_is_an_error_that_names_it() {
    let first = Listener::bind("127.0.0.1:0").await.unwrap();
    let address = first.local_addr().as_inet().unwrap();
    assert_ne!(address.port(), 0);
    let error = Listener::bind(address).await.unwrap_err();
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    assert!(matches!(error, Error::Bind(error) if error.addr == address.into()));
}

/// rule: tcp-4
#[tokio::test]
async fn the_error_of_a_refused_connection_lists_every_address() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address: SocketAddr = taken.local_addr().unwrap();
    drop(taken);
    let Error::Connect(error) = Connector::new().connect_addr(address).await.unwrap_err() else { panic!() };
    let tried: HashSet<_> = error.attempts.iter().filter_map(|attempt| attempt.addr.as_inet()).collect();
    assert!(tried.contains(&address) && !error.timed_out, "{error}");
}

/// rule: secure-5, tcp-6
#[tokio::test]
async fn the_deadline_of_a_handshake_runs_from_accept() {
    let policy = Policy::default().handshake_timeout(Duration::from_millis(200));
    let listener = Listener::builder().policy(policy).bind("127.0.0.1:0").await.unwrap();
    let _client = TcpStream::connect(listener.local_addr().as_inet().unwrap()).await.unwrap();
    let incoming = listener.accept().await.unwrap();
    // The time before the handshake counts too.
    tokio::time::sleep_until(incoming.deadline().unwrap() - Duration::from_millis(20)).await;
    let tls = shared_pki().server_tls();
    let began = tokio::time::Instant::now();
    let error = incoming.handshake(&tls).await.unwrap_err();
    assert!(matches!(error.reason(), Some(Reason::TimedOut(Phase::Handshake))));
    assert!(began.elapsed() < Duration::from_millis(200), "the deadline was begun anew");
}

/// rule: tcp-2
#[tokio::test]
async fn a_connection_inherits_the_options_of_the_socket_beneath() {
    fn has_options(transport: &impl TcpTransport) -> bool {
        transport.nodelay().unwrap()
    }
    let (a, b) = tcp_pair().await.unwrap();
    assert!(has_options(&a));
    let (a, _b) = bowline::testing::tls_over((a, b), bowline::TlsVersion::V1_3).await.unwrap();
    assert!(has_options(&a) && has_options(&bowline::UpgradableConnection::new(a)));
    let (a, _b) = bowline::testing::pair(Kind::MemoryTls).await.unwrap();
    assert!(a.as_tcp().is_none() && a.as_tls().is_some());
}

/// rule: tcp-7
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_tasks_accept_from_one_listener_and_no_connection_is_lost() {
    let listener = Arc::new(Listener::bind("127.0.0.1:0").await.unwrap());
    let addr = listener.local_addr().as_inet().unwrap();
    // This accept waits and is never polled again. It must not keep connections from the other tasks.
    let mut asleep = Box::pin(listener.accept());
    assert!(std::future::poll_fn(|cx| std::task::Poll::Ready(asleep.as_mut().poll(cx))).await.is_pending());
    let (accepted, mut counted) = tokio::sync::mpsc::unbounded_channel();
    let accepting: Vec<_> = (0..4)
        .map(|_| {
            let (listener, accepted) = (Arc::clone(&listener), accepted.clone());
            tokio::spawn(async move {
                loop {
                    // Half of the accepts are dropped early.
                    let one = timeout(Duration::from_millis(1), listener.accept()).await;
                    if let Ok(incoming) = one {
                        accepted.send(incoming.unwrap().into_tcp()).unwrap();
                    }
                    let incoming = listener.accept().await.unwrap();
                    accepted.send(incoming.into_tcp()).unwrap();
                }
            })
        })
        .collect();
    let mut clients = Vec::new();
    for _ in 0..200 {
        clients.push(TcpStream::connect(addr).await.unwrap());
    }
    for _ in 0..200 {
        timeout(BOUND, counted.recv()).await.expect("a connection stayed in the backlog").unwrap();
    }
    accepting.iter().for_each(tokio::task::JoinHandle::abort);
    drop(asleep);
}

/// rule: tcp-12, tcp-3
#[tokio::test]
async fn what_the_system_knows_of_a_connection_can_be_read_on_every_layer() {
    over_all(|kind, mut a, mut b| async move {
        settle(&mut a, &mut b).await;
        let control = a.control();
        let info = control.tcp_info();
        if cfg!(any(target_os = "linux", target_os = "android")) && kind.has_socket() {
            let info = info.unwrap();
            let traffic = control.traffic();
            assert!(info.round_trip < BOUND && info.max_segment > 500 && info.congestion_window > 0, "{info:?}");
            assert!(info.received_bytes.is_none_or(|bytes| bytes >= traffic.received), "{info:?} {traffic:?}");
            // Everything has arrived, but the peer's system may acknowledge it a little later. Its count includes SYN
            // as a byte.
            assert!(info.acknowledged_bytes.is_none_or(|bytes| bytes <= traffic.sent + 1), "{info:?} {traffic:?}");
            // On a busy machine, the system may send a segment twice, because its acknowledgement is late.
            assert!(info.retransmitted_segments < 10, "{info:?}");
        } else {
            assert!(matches!(Error::from(info.unwrap_err()), Error::Unsupported(_)), "{kind}");
        }
        a.abort();
        drop(a);
        assert!(control.tcp_info().is_err());
        drop(b);
    })
    .await;
}
