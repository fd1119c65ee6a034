//! Finished streams of tokio-rustls are taken over without losing a byte.

#![cfg(feature = "tokio-rustls")]
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use bowline::testing::{raw_tcp_pair, shared_pki};
use bowline::{Policy, Stream, TcpConnection, TlsConnection, TlsTransport, Transport};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_rustls::client::TlsStream as Client;
use tokio_rustls::server::TlsStream as Server;

async fn neighbours<S: AsyncRead + AsyncWrite + Unpin>(client: S, server: S) -> (Client<S>, Server<S>) {
    let pki = shared_pki();
    let connector = tokio_rustls::TlsConnector::from(pki.client_tls().config().clone());
    let acceptor = tokio_rustls::TlsAcceptor::from(pki.server_tls().config().clone());
    let name = bowline::config::server_name("localhost").unwrap();
    tokio::try_join!(connector.connect(name, client), acceptor.accept(server)).unwrap()
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n * 7 + n / 256) as u8).collect()
}

/// rule: write-1, end-1, close-1
#[tokio::test]
async fn both_ends_are_taken_over_and_close_in_order() {
    let (client, server) = raw_tcp_pair().await.unwrap();
    let (client, server) = neighbours(client, server).await;
    let mut client = TlsConnection::from_tokio_rustls(client, Policy::default()).unwrap();
    let mut server: TlsConnection<TcpConnection> = TlsConnection::from_tokio_rustls(server, Policy::default()).unwrap();
    assert_eq!(server.tls().unwrap().sni.as_deref(), Some("localhost"));
    assert!(client.is_secure() && !client.tls().unwrap().peer_chain.is_empty());
    let sending = tokio::spawn(async move {
        client.write_all(&pattern(500_000)).await.unwrap();
        client.close().await
    });
    let mut received = Vec::new();
    server.read_to_end(&mut received).await.unwrap();
    assert!(received == pattern(500_000));
    assert!(server.close().await.is_clean() && sending.await.unwrap().is_clean());
}

/// rule: write-1
#[tokio::test]
async fn a_stream_that_has_read_ahead_loses_nothing_at_any_place() {
    // How much was read when it is taken over: nothing, inside a record, at its end, some records on.
    for read_before in [1, 100, 4_000, 16_384, 16_385, 40_000, 99_999] {
        let (client, server) = tokio::io::duplex(200_000);
        let (mut client, mut server) = neighbours(client, server).await;
        let all = pattern(100_000);
        client.write_all(&all).await.unwrap();
        client.flush().await.unwrap();
        let mut first = vec![0; read_before];
        server.read_exact(&mut first).await.unwrap();
        let mut server = TlsConnection::from_tokio_rustls_over(server, |io| Ok(Stream::new(io))).unwrap();
        let mut rest = vec![0; all.len() - read_before];
        let reading = tokio::time::timeout(Duration::from_secs(30), server.read_exact(&mut rest));
        reading.await.expect("hangs").unwrap();
        assert!([first, rest].concat() == all, "after {read_before} bytes");
        // The other direction, and the end.
        server.write_all(&all).await.unwrap();
        let closing = tokio::spawn(async move { server.close().await });
        let mut back = Vec::new();
        client.read_to_end(&mut back).await.unwrap();
        assert!(back == all);
        client.shutdown().await.unwrap();
        assert!(closing.await.unwrap().is_clean());
    }
}
