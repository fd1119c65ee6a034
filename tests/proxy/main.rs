//! The PROXY header at the start of accepted connections, from sockets of our own and from real proxies.
#![allow(clippy::unwrap_used)]

mod faces;
mod listening;
mod real;

use std::time::Duration;

use bowline::proxy::{ProxyError, ProxyHeader, ProxyProtocol};
use bowline::testing::shared_pki;
use bowline::{
    Blame, ClientTls, Error, Incoming, Listener, Phase, Policy, Reason, ServerTls, TcpConnection, TlsConnection,
    Transport,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Ends a hang; this is not a test of speed.
const BOUND: Duration = Duration::from_secs(60);
const CLIENT: &str = "192.0.2.7:51000";

fn loopback() -> ProxyProtocol {
    ProxyProtocol::require("127.0.0.0/8,::1".parse().unwrap())
}

fn header() -> ProxyHeader {
    ProxyHeader::new(addr(CLIENT), addr("198.51.100.1:443"))
}

fn addr(text: &str) -> std::net::SocketAddr {
    text.parse().unwrap()
}

/// A client's socket, and the connection that was accepted from it.
async fn accepted(policy: Policy) -> (TcpStream, Incoming) {
    let listener = Listener::builder().policy(policy).bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().as_inet().unwrap()).await.unwrap();
    client.set_nodelay(true).unwrap();
    (client, listener.accept().await.unwrap())
}

async fn proxied(proxy: &ProxyProtocol, mut tcp: TcpConnection) -> Result<TcpConnection, Error> {
    proxy.read(&mut tcp).await.map(|_| tcp)
}

/// The result of `proxy` for a connection on which the peer sends these bytes and ends.
async fn after(proxy: ProxyProtocol, bytes: &[u8]) -> Result<TcpConnection, Error> {
    let (mut client, incoming) = accepted(Policy::default()).await;
    client.write_all(bytes).await.unwrap();
    client.shutdown().await.unwrap();
    let mut tcp = incoming.into_tcp();
    let outcome = timeout(BOUND, proxy.read(&mut tcp)).await.unwrap();
    if outcome.as_ref().is_err_and(|error| matches!(error, Error::Proxy(_))) {
        // The connection is still held here, so the refusal itself has reset it, and not a drop.
        let reset = timeout(BOUND, client.read(&mut [0])).await.unwrap().unwrap_err();
        assert_eq!(reset.kind(), std::io::ErrorKind::ConnectionReset);
    }
    outcome.map(|_| tcp)
}

/// rule: proxy-2
#[tokio::test]
async fn no_byte_is_lost_wherever_the_header_is_cut() {
    for bytes in [header().encode_v1(), header().encode_v2()] {
        for cut in 0..=bytes.len() {
            let (mut client, incoming) = accepted(Policy::default()).await;
            let all = [&bytes, &b"hello"[..]].concat();
            let sender = async {
                client.write_all(&all[..cut]).await.unwrap();
                // The reader takes the first part before the second one is sent.
                tokio::task::yield_now().await;
                tokio::time::sleep(Duration::from_millis(1)).await;
                client.write_all(&all[cut..]).await.unwrap();
                client.shutdown().await.unwrap();
            };
            let reader = async {
                let mut tcp = incoming.finish(|tcp| async { proxied(&loopback(), tcp).await }).await.unwrap();
                let mut text = String::new();
                tcp.read_to_string(&mut text).await.unwrap();
                assert_eq!(text, "hello", "cut at {cut}");
                assert_eq!(tcp.peer_addr().to_string(), CLIENT);
            };
            timeout(BOUND, async { tokio::join!(sender, reader) }).await.unwrap();
        }
    }
}

/// rule: proxy-4
#[tokio::test]
async fn the_client_is_the_peer_on_every_layer_and_the_proxy_is_via() {
    let (mut client, incoming) = accepted(Policy::default()).await;
    let proxy_addr = client.local_addr().unwrap();
    let identity = shared_pki().server(&["localhost"]);
    let tls = ServerTls::builder().identity_pem(identity.chain_pem(), identity.key_pem()).build().unwrap();
    let connected = async {
        client.write_all(&header().with_authority("example.org").encode_v2()).await.unwrap();
        let tcp = TcpConnection::new(client, Policy::default()).unwrap();
        let roots = ClientTls::builder().roots_pem(shared_pki().ca_pem()).build().unwrap();
        TlsConnection::connect(tcp, &roots, "localhost").await.unwrap()
    };
    let served = incoming.finish(|tcp| async {
        assert_eq!(tcp.control().via(), None, "before the header is read");
        TlsConnection::accept(proxied(&loopback(), tcp).await?, &tls).await
    });
    let (_client, served) = timeout(BOUND, async { tokio::join!(connected, served) }).await.unwrap();
    let served = served.unwrap();
    let control = served.control();
    assert_eq!(served.peer_addr().to_string(), CLIENT);
    assert_eq!(control.peer_addr().to_string(), CLIENT);
    assert_eq!(control.via().unwrap().as_inet(), Some(proxy_addr));
    assert_eq!(control.proxy_header().unwrap().authority(), Some("example.org"));
}

/// rule: proxy-4
#[tokio::test]
async fn a_header_without_a_client_leaves_the_address_of_the_socket() {
    for header in [ProxyHeader::local(), ProxyHeader::unknown()] {
        for bytes in [header.encode_v1(), header.encode_v2()] {
            let tcp = after(loopback(), &bytes).await.unwrap();
            assert!(tcp.peer_addr().to_string().starts_with("127.0.0.1:"));
            assert_eq!(tcp.control().via(), None);
            assert!(tcp.control().proxy_header().is_some());
        }
    }
}

/// rule: proxy-1
#[tokio::test]
async fn a_header_from_an_untrusted_peer_is_the_applications_bytes_or_refused() {
    let elsewhere = || "192.0.2.0/24".parse().unwrap();
    let bytes = header().encode_v1();
    let mut tcp = after(ProxyProtocol::accept(elsewhere()), &bytes).await.unwrap();
    let mut read = Vec::new();
    tcp.read_to_end(&mut read).await.unwrap();
    assert_eq!(read, bytes);
    assert_eq!(tcp.control().via(), None);

    let error = after(ProxyProtocol::require(elsewhere()), &bytes).await.unwrap_err();
    assert!(matches!(error, Error::Proxy(ProxyError::Untrusted(_))), "{error}");
    assert_eq!(error.blame(), Blame::Peer);
}

/// rule: proxy-2
#[tokio::test]
async fn where_a_header_may_come_first_its_absence_loses_nothing() {
    for bytes in [&b"PRO"[..], b"", b"POST / HTTP/1.1\r\n", b"\r\n\r\nhello"] {
        let outcome = after(ProxyProtocol::accept("127.0.0.1".parse().unwrap()), bytes).await;
        if bytes == b"PRO" {
            // These bytes are the beginning of a header, so the end within them is a truncation.
            assert!(matches!(outcome, Err(Error::Ended(Reason::Truncated(Phase::Handshake)))), "{outcome:?}");
            continue;
        }
        let mut read = Vec::new();
        outcome.unwrap().read_to_end(&mut read).await.unwrap();
        assert_eq!(read, bytes);
    }
}

/// rule: proxy-3
#[tokio::test]
async fn a_missing_or_malformed_header_resets_the_connection() {
    let error = after(loopback(), b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n").await.unwrap_err();
    assert!(error.to_string().ends_with(r#"begins with "GET / HTTP/1.1\r\n""#), "{error}");
    let error = after(loopback(), b"PROXY TCP4 nobody 127.0.0.1 1 2\r\n").await.unwrap_err();
    assert!(error.to_string().contains("at byte 11: found \"nobody\", expected an IPv4 address"), "{error}");
    let mut corrupted = header().encode_v2();
    corrupted[17] ^= 1;
    let error = after(loopback(), &corrupted).await.unwrap_err();
    assert!(error.to_string().contains("expected the CRC-32C of this header"), "{error}");
    assert!(matches!(after(loopback(), b"").await, Err(Error::Ended(Reason::Truncated(Phase::Handshake)))));
}

/// rule: proxy-3, secure-5
#[tokio::test]
async fn a_header_that_does_not_come_ends_at_the_deadline_of_the_handshake() {
    let (client, incoming) = accepted(Policy::default().handshake_timeout(Duration::from_millis(50))).await;
    let outcome = incoming.finish(|tcp| async { proxied(&loopback(), tcp).await });
    let outcome = timeout(BOUND, outcome).await.unwrap();
    assert!(matches!(outcome, Err(Error::Ended(Reason::TimedOut(Phase::Handshake)))), "{outcome:?}");
    drop(client);
}
