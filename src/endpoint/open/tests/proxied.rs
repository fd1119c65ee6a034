//! PROXY headers on Unix sockets.

use std::future::{Future, poll_fn};
use std::task::Poll;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::*;
use crate::proxy::{ProxyHeader, ProxyProtocol};
use crate::server::listener::Listener;
use crate::server::tls_listener::TlsListener;
use crate::transport::Transport;

const CLIENT: &str = "192.0.2.7:4711";

fn header() -> ProxyHeader {
    let addr = |text: &str| text.parse::<std::net::SocketAddr>().unwrap();
    ProxyHeader::new(addr(CLIENT), addr("192.0.2.1:443"))
}

/// A listener on a Unix socket whose endpoint has these arguments, and a client that has sent these bytes and then `x`.
async fn sent(arguments: &str, first: &[u8]) -> (tempfile::TempDir, EndpointListener, UnixStream) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.sock");
    let builder = Listener::builder().max_per_peer(1);
    let endpoint = server(&format!("unix:{}:{arguments}", path.display()));
    let listener = endpoint.listen_with(builder).await.unwrap();
    let mut client = UnixStream::connect(path).await.unwrap();
    client.write_all(first).await.unwrap();
    client.write_all(b"x").await.unwrap();
    (dir, listener, client)
}

/// rule: proxy-1, proxy-4, proxy-5
#[tokio::test]
async fn a_unix_socket_reads_the_headers_of_its_peers_if_they_are_trusted() {
    let (v1, v2) = (header().encode_v1(), header().encode_v2());
    // Each case has the arguments of the endpoint, the first bytes of the client, and the peer that the server sees.
    // `None` stands for a refused connection.
    let cases: [(&str, &[u8], Option<&str>); 6] = [
        ("proxy=require:trusted=unix", &v1, Some(CLIENT)),
        ("proxy=require:trusted=10.0.0.0/8,unix", &v2, Some(CLIENT)),
        ("proxy=accept:trusted=unix", &v2, Some(CLIENT)),
        ("proxy=accept:trusted=unix", b"", Some("unix:")),
        ("proxy=require:trusted=unix", b"", None),
        ("proxy=off", b"", Some("unix:")),
    ];
    for (arguments, first, expected) in cases {
        for is_ready in [false, true] {
            let (_dir, listener, mut client) = sent(arguments, first).await;
            let begun = match is_ready {
                false => listener.accept().await.unwrap().begin().await,
                true if expected.is_none() => continue,
                true => TlsListener::builder().endpoint(listener).accept().await,
            };
            let Some(expected) = expected else {
                assert!(matches!(begun, Err(Error::Proxy(_))), "{arguments}: {begun:?}");
                assert_eq!(client.read(&mut [0]).await.unwrap_or(0), 0);
                continue;
            };
            let mut begun = begun.unwrap();
            assert_eq!(begun.peer_addr().to_string(), expected, "{arguments}");
            assert_eq!(begun.control().via().is_some(), expected == CLIENT);
            assert_eq!(begun.read_u8().await.unwrap(), b'x', "{arguments}");
            assert_eq!(begun.control().payload().received, 1);
        }
    }
}

/// rule: proxy-2, proxy-3, proxy-5, secure-5
#[tokio::test]
async fn a_header_on_a_unix_socket_is_read_in_any_pieces_and_has_a_deadline() {
    let header = header().encode_v2();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.sock");
    let endpoint = server(&format!("unix:{}:proxy=require:trusted=unix", path.display()));
    let listener = endpoint.listen(Policy::default().handshake_timeout(Duration::from_millis(500))).await.unwrap();
    for cut in [0, 1, 12, 17, header.len() - 1] {
        let mut client = UnixStream::connect(&path).await.unwrap();
        client.write_all(&header[..cut]).await.unwrap();
        let mut beginning = Box::pin(listener.accept().await.unwrap().begin());
        assert!(poll_fn(|cx| Poll::Ready(beginning.as_mut().poll(cx).is_pending())).await);
        client.write_all(&header[cut..]).await.unwrap();
        let begun = timeout(SOON, beginning).await.unwrap().unwrap();
        assert_eq!(begun.peer_addr().to_string(), CLIENT);
    }
    let _silent = UnixStream::connect(&path).await.unwrap();
    let late = timeout(SOON, listener.accept().await.unwrap().begin()).await.unwrap().unwrap_err();
    assert!(matches!(late, Error::Ended(Reason::TimedOut(crate::error::Phase::Handshake))), "{late}");
}

/// rule: proxy-5, limit-2
#[tokio::test]
async fn the_limit_per_peer_counts_the_clients_on_a_unix_socket() {
    let (_dir, listener, _one) = sent("proxy=require:trusted=unix", &header().encode_v1()).await;
    let crate::Address::Unix(Some(path)) = listener.local_addr() else { panic!() };
    let _kept = listener.accept().await.unwrap().begin().await.unwrap();
    let mut again = UnixStream::connect(path).await.unwrap();
    again.write_all(&header().encode_v1()).await.unwrap();
    let refused = listener.accept().await.unwrap().begin().await.unwrap_err();
    assert!(matches!(refused, Error::Proxy(crate::proxy::ProxyError::Refused { max: 1, .. })), "{refused}");
    assert_eq!(listener.status().refused, 1);
}

/// rule: proxy-1
#[tokio::test]
async fn a_unix_socket_whose_peers_are_not_trusted_is_not_opened() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.sock");
    let place = path.display();
    let refusal = |opened: Result<EndpointListener, Error>| {
        let error = opened.unwrap_err();
        assert!(matches!(error, Error::Config(_)), "{error:?}");
        let text = crate::error::chain(&error).to_string();
        assert!(text.contains("add `unix` to the trusted networks"), "{text}");
    };
    for how in ["accept", "require"] {
        let endpoint = server(&format!("unix:{place}:proxy={how}:trusted=127.0.0.1"));
        refusal(endpoint.listen(Policy::default()).await);
    }
    let networks = || ProxyProtocol::require("10.0.0.0/8".parse().unwrap());
    let endpoint = server(&format!("unix:{place}"));
    refusal(endpoint.listen_with(Listener::builder().proxy(networks())).await);
    assert!(!path.exists());
    let socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
    refusal(EndpointListener::from_std_unix(socket, Listener::builder().proxy(networks())));
}
