use std::collections::HashSet;
use std::future::{Future, pending, poll_fn};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::{Instant, timeout};

use super::*;
use crate::address::Address;
use crate::conn::options::SocketOptions;
use crate::error::{Phase, Reason};
use tokio::net::TcpStream;

use crate::server::listening::host_of_accepted;
use crate::transport::Transport;

/// Limits the wait for an event that must come.
const SOON: Duration = Duration::from_secs(10);

async fn open(builder: ListenerBuilder) -> Listener {
    builder.bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap()
}

async fn connect(listener: &Listener) -> TcpStream {
    TcpStream::connect(listener.local_addr().as_inet().unwrap()).await.unwrap()
}

async fn accept(listener: &Listener) -> Incoming {
    timeout(SOON, listener.accept()).await.unwrap().unwrap()
}

/// Polls once.
async fn poll_once<F: Future>(future: &mut Pin<Box<F>>) -> Poll<F::Output> {
    poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await
}

async fn is_pending<F: Future>(future: &mut Pin<Box<F>>) -> bool {
    poll_once(future).await.is_pending()
}

/// Returns when the runtime has processed all socket events so far.
async fn catch_up() {
    let other = open(Listener::builder()).await;
    let _client = connect(&other).await;
    let _server = accept(&other).await;
}

/// rule: tcp-8
#[tokio::test]
async fn port_0_reports_the_port_that_was_bound() {
    let listener = Listener::bind("127.0.0.1:0").await.unwrap();
    assert_ne!(listener.local_addr().as_inet().unwrap().port(), 0);
    let client = connect(&listener).await;
    let incoming = accept(&listener).await;
    assert_eq!(
        (incoming.local_addr(), incoming.peer_addr()),
        (listener.local_addr(), client.local_addr().unwrap().into())
    );
    let server = incoming.into_tcp();
    assert_eq!(server.peer_addr(), client.local_addr().unwrap().into());
}

/// rule: tcp-8
#[tokio::test]
async fn a_taken_port_is_an_error_that_names_it() {
    let first = open(Listener::builder()).await;
    let error = Listener::bind(first.local_addr().as_inet().unwrap()).await.unwrap_err();
    assert!(error.to_string().contains(&first.local_addr().to_string()), "{error}");
    match error {
        Error::Bind(error) => assert_eq!(error.error.kind(), io::ErrorKind::AddrInUse),
        other => panic!("{other}"),
    }
}

/// rule: tcp-8
#[tokio::test]
async fn an_unresolvable_name_is_reported_as_the_cause() {
    // The name is invalid, so no resolver is asked and no packet leaves this host.
    let error = Listener::bind("no\0name:80").await.unwrap_err();
    assert!(matches!(error.reason(), Some(Reason::Io(_))), "{error}");
}

/// rule: tcp-8
#[cfg(unix)]
#[tokio::test]
async fn a_port_with_connections_in_time_wait_can_be_bound_again() {
    let listener = open(Listener::builder()).await;
    let addr = listener.local_addr().as_inet().unwrap();
    let client = connect(&listener).await;
    // The side that closes first is the one that keeps TIME_WAIT.
    accept(&listener).await.into_tcp().close_write().await.unwrap();
    drop(listener);
    client.readable().await.unwrap();
    drop(client);
    Listener::bind(addr).await.unwrap();
}

#[tokio::test]
async fn ipv6_accepts_ipv4_only_with_dual_stack() {
    for (dual_stack, accepted) in [(false, false), (true, true)] {
        let builder = Listener::builder().dual_stack(dual_stack);
        let Ok(listener) = builder.bind((Ipv6Addr::UNSPECIFIED, 0)).await else {
            return eprintln!("this host has no IPv6");
        };
        let port = listener.local_addr().as_inet().unwrap().port();
        assert_eq!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_ok(), accepted);
    }
}

#[tokio::test]
async fn a_socket_made_elsewhere_is_taken_over() {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listener = Listener::from_std(socket).unwrap();
    let client = connect(&listener).await;
    assert_eq!(accept(&listener).await.peer_addr(), client.local_addr().unwrap().into());
}

/// rule: tcp-1
#[tokio::test]
async fn our_address_is_the_one_that_the_client_has_connected_to() {
    let local = Ipv4Addr::LOCALHOST;
    let mut cases = vec![
        (Listener::bind((local, 0)).await.unwrap(), local.into()),
        (Listener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.unwrap(), local.into()),
        (Listener::from_std(std::net::TcpListener::bind((local, 0)).unwrap()).unwrap(), local.into()),
    ];
    if let Ok(six) = Listener::bind((Ipv6Addr::LOCALHOST, 0)).await {
        cases.push((six, Ipv6Addr::LOCALHOST.into()));
        let both = || Listener::builder().dual_stack(true);
        cases.push((both().bind((Ipv6Addr::UNSPECIFIED, 0)).await.unwrap(), local.into()));
        cases.push((both().bind((local.to_ipv6_mapped(), 0)).await.unwrap(), local.into()));
        cases.push((both().bind((Ipv4Addr::UNSPECIFIED.to_ipv6_mapped(), 0)).await.unwrap(), local.into()));
    }
    for (listener, ip) in cases {
        let bound = listener.local_addr().as_inet().unwrap();
        let client = TcpStream::connect(std::net::SocketAddr::new(ip, bound.port())).await.unwrap();
        let incoming = accept(&listener).await;
        let (host, peer) = (incoming.local_addr().as_inet().unwrap(), client.peer_addr().unwrap());
        assert_eq!((host.ip().to_canonical(), host.port()), (peer.ip(), peer.port()), "{bound}");
    }
}

/// A listener that was passed in may accept connections to any address. rule: tcp-1
#[test]
fn a_wildcard_listener_asks_the_system_for_our_address() {
    let one = SocketAddr::from((Ipv4Addr::LOCALHOST, 80));
    assert_eq!(host_of_accepted(one, Origin::BoundHere), Some(one));
    assert_eq!(host_of_accepted(one, Origin::HandedIn), None);
    for any in ["0.0.0.0:80", "[::]:80", "[::ffff:0.0.0.0]:80"] {
        assert_eq!(host_of_accepted(any.parse().unwrap(), Origin::BoundHere), None, "{any}");
    }
}

/// rule: tcp-2, tcp-10
#[tokio::test]
async fn accepted_sockets_have_no_delay_and_a_given_listener_is_unchanged() {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let other_handle = Socket::from(socket.try_clone().unwrap());
    for listener in [open(Listener::builder()).await, Listener::from_std(socket).unwrap()] {
        let _client = connect(&listener).await;
        let server = accept(&listener).await.into_tcp();
        assert!(server.nodelay().unwrap());
        server.set_nodelay(false).unwrap();
        assert!(!server.nodelay().unwrap());
        let _client = connect(&listener).await;
        assert!(accept(&listener).await.into_tcp().nodelay().unwrap(), "what one turned off is on for the next");
    }
    assert!(!other_handle.tcp_nodelay().unwrap());
}

/// rule: tcp-5
#[tokio::test]
async fn a_reset_before_accept_does_not_affect_other_connections() {
    let listener = open(Listener::builder()).await;
    for _ in 0..20 {
        let rude = socket2::Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        rude.connect(&listener.local_addr().as_inet().unwrap().into()).unwrap();
        rude.set_linger(Some(Duration::ZERO)).unwrap();
    }
    let good = connect(&listener).await.local_addr().unwrap().into();
    while accept(&listener).await.peer_addr() != good {}
}

/// rule: tcp-5
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_listening_socket_that_was_shut_down_is_an_error_that_names_it() {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let other_handle = Socket::from(socket.try_clone().unwrap());
    let listener = Listener::from_std(socket).unwrap();
    other_handle.shutdown(std::net::Shutdown::Read).unwrap();
    let error = timeout(SOON, listener.accept()).await.unwrap().unwrap_err();
    assert!(error.to_string().contains(&listener.local_addr().to_string()), "{error}");
    assert_eq!(listener.status().accept_errors, if cfg!(bowline_portable) { 10 } else { 1 });
    assert!(listener.with_fds(|_| ()).is_none());
}

/// rule: tcp-7
#[tokio::test]
async fn an_accept_that_is_dropped_loses_no_connection() {
    let listener = open(Listener::builder()).await;
    let mut clients = Vec::new();
    for _ in 0..50 {
        clients.push(connect(&listener).await);
    }
    let mut missing: HashSet<Address> = clients.iter().map(|client| client.local_addr().unwrap().into()).collect();
    let collect = async {
        while !missing.is_empty() {
            // Each future is dropped at its first wait, and no connection may be lost with it.
            match poll_once(&mut Box::pin(listener.accept())).await {
                Poll::Ready(incoming) => assert!(missing.remove(&incoming.unwrap().peer_addr())),
                Poll::Pending => yield_now().await,
            }
        }
    };
    timeout(SOON, collect).await.unwrap();
}

/// rule: tcp-7
#[tokio::test]
async fn dropping_accept_at_the_limit_loses_no_connection_and_no_permit() {
    let listener = open(Listener::builder().max_unfinished(1)).await;
    let (_first, second) = (connect(&listener).await, connect(&listener).await);
    let unfinished = accept(&listener).await;
    for _ in 0..50 {
        assert!(is_pending(&mut Box::pin(listener.accept())).await);
    }
    drop(unfinished);
    assert_eq!(accept(&listener).await.peer_addr(), second.local_addr().unwrap().into());
}

/// rule: tcp-6
#[tokio::test]
async fn at_the_limit_finished_connections_continue_and_the_next_one_waits() {
    let listener = open(Listener::builder().max_unfinished(2)).await;
    let client = connect(&listener).await;
    let _finished = accept(&listener).await.into_tcp();
    let _stalled = [connect(&listener).await, connect(&listener).await];
    let [held, kept] = [accept(&listener).await, accept(&listener).await];
    let next = connect(&listener).await;
    catch_up().await;
    let mut waiting = Box::pin(listener.accept());
    assert!(is_pending(&mut waiting).await);
    assert_eq!(client.try_read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock, "still connected");
    drop(held);
    let incoming = timeout(SOON, waiting).await.unwrap().unwrap();
    assert_eq!(incoming.peer_addr(), next.local_addr().unwrap().into());
    drop(kept);
}

/// rule: tcp-6
#[tokio::test]
async fn a_handshake_counts_as_unfinished_until_it_is_done() {
    let listener = open(Listener::builder().max_unfinished(1)).await;
    let _clients = [connect(&listener).await, connect(&listener).await];
    let (done, is_done) = oneshot::channel();
    let mut handshake = Box::pin(accept(&listener).await.finish(|connection| async {
        is_done.await.unwrap();
        Ok(connection)
    }));
    assert!(is_pending(&mut handshake).await);
    catch_up().await;
    let mut waiting = Box::pin(listener.accept());
    assert!(is_pending(&mut waiting).await);
    done.send(()).unwrap();
    let _connection = timeout(SOON, handshake).await.unwrap().unwrap();
    let _next = timeout(SOON, waiting).await.unwrap().unwrap();
}

/// rule: secure-5, tcp-6
#[tokio::test(start_paused = true)]
async fn a_stalled_handshake_ends_at_the_deadline_that_runs_since_accept() {
    let listener = open(Listener::builder().max_unfinished(1)).await;
    let _clients = [connect(&listener).await, connect(&listener).await];
    let incoming = listener.accept().await.unwrap();
    let accepted = Instant::now();
    tokio::time::advance(Duration::from_secs(20)).await;
    let error = incoming.finish(|_connection| pending::<Result<(), _>>()).await.unwrap_err();
    assert!(matches!(error.reason(), Some(Reason::TimedOut(Phase::Handshake))), "{error}");
    assert_eq!(accepted.elapsed().as_secs(), 30);
    let _next = listener.accept().await.unwrap();
}

/// rule: tcp-9
#[tokio::test(start_paused = true)]
async fn without_a_handshake_timeout_there_is_no_deadline() {
    let policy = Policy::default().handshake_timeout(None);
    let listener = open(Listener::builder().policy(policy)).await;
    let _client = connect(&listener).await;
    assert_eq!(listener.accept().await.unwrap().deadline(), None);
}

/// rule: tcp-1, tcp-5, end-6
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_connection_reset_before_accept_reports_it_and_keeps_its_addresses() {
    let listener = open(Listener::builder()).await;
    let mut peers = Vec::new();
    for _ in 0..2 {
        let client = connect(&listener).await;
        peers.push(client.local_addr().unwrap());
        socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    }
    let mut plain = accept(&listener).await.into_tcp();
    assert_eq!(plain.peer_addr(), peers[0].into());
    let error = tokio::io::AsyncReadExt::read(&mut plain, &mut [0]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    let tls = crate::testing::pki::Pki::new().server_tls();
    let error = accept(&listener).await.handshake(&tls).await.unwrap_err();
    assert!(matches!(error.reason(), Some(Reason::Reset(Phase::Handshake))), "{error}");
}
