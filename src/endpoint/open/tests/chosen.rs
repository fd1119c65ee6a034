//! The settings of a listener apply to every kind of endpoint.

use std::future::{Future, poll_fn};
use std::io::ErrorKind;
use std::pin::pin;
use std::task::Poll;

use tokio::io::AsyncReadExt;
use tokio::net::{TcpStream, UnixStream};

use super::*;
use crate::conn::group::DrainGroup;
use crate::server::builder::ListenerBuilder;
use crate::server::listener::Listener;
use crate::transport::Transport;

async fn listen_with(text: &str, builder: ListenerBuilder) -> EndpointListener {
    server(text).listen_with(builder).await.unwrap()
}

/// An endpoint of each kind, and a function that connects to it.
fn places(files: &Files) -> [String; 4] {
    let (cert, path) = (files.cert("server"), files.path().join("x.sock"));
    [
        "tcp:127.0.0.1:0".into(),
        format!("tls:127.0.0.1:0:{cert}"),
        format!("starttls:127.0.0.1:0:{cert}"),
        format!("unix:{}", path.display()),
    ]
}

/// A plaintext client, even if the server expects TLS.
fn to(listener: &EndpointListener) -> ClientEndpoint {
    match listener.local_addr() {
        crate::address::Address::Unix(path) => ClientEndpoint::unix(path.unwrap().to_str().unwrap()).unwrap(),
        inet => client(&format!("tcp:{inet}")),
    }
}

async fn accept(listener: &EndpointListener) -> crate::endpoint::open::EndpointIncoming {
    timeout(SOON, listener.accept()).await.unwrap().unwrap()
}

async fn is_waiting(listener: &EndpointListener) -> bool {
    let mut accepting = pin!(listener.accept());
    for _ in 0..20 {
        if poll_fn(|cx| Poll::Ready(accepting.as_mut().poll(cx))).await.is_ready() {
            return false;
        }
        tokio::task::yield_now().await;
    }
    true
}

/// rule: drain-1, drain-2
#[tokio::test]
async fn one_group_drains_listeners_of_every_kind() {
    let (files, group) = (Files::new(), DrainGroup::new());
    let mut open = Vec::new();
    for place in places(&files) {
        let listener = listen_with(&place, Listener::builder().group(&group)).await;
        let ours = to(&listener).connect().await.unwrap();
        let incoming = accept(&listener).await;
        open.push((listener, ours, incoming));
    }
    assert_eq!(group.connections(), 4);
    assert!(open.iter().all(|(_, _, incoming)| !incoming.control().is_draining()));
    group.begin_drain();
    for (listener, mut ours, incoming) in open {
        let to = to(&listener);
        assert!(matches!(timeout(SOON, listener.accept()).await.unwrap(), Err(Error::Draining)), "{to}");
        assert!(to.connect().await.is_err() && listener.group().is_draining() && incoming.control().is_draining());
        match incoming.begin().await {
            Ok(mut theirs) => {
                let (theirs, ours) = timeout(SOON, async { tokio::join!(theirs.close(), ours.close()) }).await.unwrap();
                assert!(theirs.is_clean() && ended_together(&ours, &theirs), "{to}");
            }
            // rule: drain-2: an unfinished handshake is aborted.
            Err(error) => {
                assert!(matches!(error, Error::Draining), "{error}");
                assert_eq!(ours.read(&mut [0]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
            }
        }
    }
    assert!(!files.path().join("x.sock").exists());
    assert_eq!(group.drain(None).await.to_string(), "3 connections ended: 3 closed; 1 handshake was not finished");
}

/// rule: drain-3
#[tokio::test]
async fn at_the_deadline_of_a_drain_a_connection_over_a_unix_socket_is_aborted() {
    let files = Files::new();
    let listener = listen(&places(&files)[3]).await;
    let mut ours = to(&listener).connect().await.unwrap();
    let mut theirs = accept(&listener).await.begin().await.unwrap();
    let reading = tokio::spawn(async move { theirs.read(&mut [0]).await.unwrap_err().kind() });
    assert_eq!(listener.group().drain(Duration::ZERO).await.cut_off, 1);
    assert_eq!(timeout(SOON, reading).await.unwrap().unwrap(), ErrorKind::ConnectionAborted);
    assert_eq!(ours.read(&mut [0]).await.unwrap(), 0);
}

/// rule: limit-1, limit-3
#[tokio::test]
async fn at_the_bound_of_all_connections_every_kind_waits() {
    let files = Files::new();
    for place in places(&files) {
        let listener = listen_with(&place, Listener::builder().max_connections(1)).await;
        let _clients = [to(&listener).connect().await.unwrap(), to(&listener).connect().await.unwrap()];
        let first = accept(&listener).await;
        assert!(is_waiting(&listener).await && listener.status().is_full, "{place}");
        drop(first);
        let _second = accept(&listener).await;
    }
}

/// rule: tcp-6
#[tokio::test]
async fn a_connection_counts_as_unfinished_until_it_is_begun_on_every_kind() {
    let files = Files::new();
    for place in places(&files) {
        let listener = listen_with(&place, Listener::builder().max_unfinished(1)).await;
        let _clients = [to(&listener).connect().await.unwrap(), to(&listener).connect().await.unwrap()];
        let first = accept(&listener).await;
        assert!(is_waiting(&listener).await && !listener.status().is_full, "{place}");
        let is_tls = place.starts_with("tls");
        // A failed handshake no longer counts as unfinished.
        let _begun = if is_tls { timeout(Duration::ZERO, first.begin()).await.ok() } else { Some(first.begin().await) };
        let _second = accept(&listener).await;
    }
}

/// rule: limit-2
#[tokio::test]
async fn a_limit_per_peer_applies_if_peers_have_addresses() {
    let files = Files::new();
    for place in places(&files) {
        let listener = listen_with(&place, Listener::builder().max_per_peer(1)).await;
        let _clients = [to(&listener).connect().await.unwrap(), to(&listener).connect().await.unwrap()];
        let _first = accept(&listener).await;
        let is_unix = place.starts_with("unix");
        assert_eq!(is_waiting(&listener).await, !is_unix, "{place}");
        assert_eq!(listener.status().refused, u64::from(!is_unix));
    }
}

#[tokio::test]
async fn the_policy_of_a_listener_applies_to_its_connections() {
    let files = Files::new();
    let policy = Policy::default().close_timeout(Duration::from_secs(77));
    for place in places(&files) {
        let listener = listen_with(&place, Listener::builder().policy(policy.clone())).await;
        let _client = to(&listener).connect().await.unwrap();
        assert_eq!(accept(&listener).await.control().policy().close_timeout, Some(Duration::from_secs(77)), "{place}");
    }
}

/// The system keeps one connection more than the backlog.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_backlog_of_an_endpoint_overrides_that_of_the_builder() {
    let files = Files::new();
    let place = places(&files)[3].clone();
    for (text, kept) in [(format!("{place}:backlog=1"), 2), (place, 4)] {
        let _listener = listen_with(&text, Listener::builder().backlog(3)).await;
        let mut waiting = Vec::new();
        while let Ok(stream) = UnixStream::connect(files.path().join("x.sock")).await {
            waiting.push(stream);
        }
        assert_eq!(waiting.len(), kept, "{text}");
    }
}

/// rule: tcp-8
#[tokio::test]
async fn the_builder_can_accept_both_address_families() {
    let Ok(listener) = server("tcp:0:interface=[::]").listen_with(Listener::builder().dual_stack(true)).await else {
        return eprintln!("this host has no IPv6");
    };
    let port = listener.local_addr().as_inet().unwrap().port();
    let _client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    assert!(accept(&listener).await.peer_addr().as_inet().unwrap().is_ipv6());
}
