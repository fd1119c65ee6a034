//! Finished streams of tokio-rustls are taken over without losing a byte.

#![cfg(feature = "tokio-rustls")]
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use bowline::testing::peer::{Event, RawTls};
use bowline::testing::{raw_tcp_pair, shared_pki};
use bowline::{Phase, Policy, Reason, Stream, TcpConnection, TlsConnection, TlsTransport, Transport};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream as Client;
use tokio_rustls::rustls;
use tokio_rustls::server::TlsStream as Server;

async fn tokio_rustls_pair<S: AsyncRead + AsyncWrite + Unpin>(client: S, server: S) -> (Client<S>, Server<S>) {
    let pki = shared_pki();
    let connector = tokio_rustls::TlsConnector::from(pki.client_tls().config());
    let acceptor = tokio_rustls::TlsAcceptor::from(pki.server_tls().config());
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
    let (client, server) = tokio_rustls_pair(client, server).await;
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
async fn a_stream_that_has_read_ahead_loses_no_bytes_at_any_offset() {
    // The takeover comes after a few bytes, inside a record, at its end, and some records later.
    for read_before in [1, 100, 4_000, 16_384, 16_385, 40_000, 99_999] {
        let (client, server) = tokio::io::duplex(200_000);
        let (mut client, mut server) = tokio_rustls_pair(client, server).await;
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
        // The other direction works too, and so does the end.
        server.write_all(&all).await.unwrap();
        let closing = tokio::spawn(async move { server.close().await });
        let mut back = Vec::new();
        client.read_to_end(&mut back).await.unwrap();
        assert!(back == all);
        client.shutdown().await.unwrap();
        assert!(closing.await.unwrap().is_clean());
    }
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), future).await.expect("hangs")
}

/// The client's tokio-rustls stream, and a server that seals the records that the test chooses.
async fn with_raw_server() -> (Client<TcpStream>, RawTls) {
    let (client, server) = raw_tcp_pair().await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(shared_pki().client_tls().config());
    let name = bowline::config::server_name("localhost").unwrap();
    let tls = shared_pki().server_tls();
    let (client, raw) = tokio::join!(connector.connect(name, client), RawTls::server(server, &tls));
    (client.unwrap(), raw.unwrap())
}

const APPLICATION_DATA: u8 = 23;

/// A record that was not sealed with any key.
fn bad_record() -> Vec<u8> {
    [&[APPLICATION_DATA, 3, 3, 0, 64][..], &[7; 64]].concat()
}

/// rule: end-2, secure-4
#[tokio::test]
async fn data_before_a_failure_is_delivered_and_the_failure_after_it() {
    let cases: [(usize, &[usize]); 5] =
        [(0, &[11]), (0, &[11, 20_000]), (100, &[500]), (1, &[5, 5, 5, 40_000]), (0, &[])];
    for (read_before, writes) in cases {
        let (mut ours, mut peer) = with_raw_server().await;
        let all = pattern(writes.iter().sum());
        let mut received = vec![0; read_before];
        let mut rest = &all[..];
        for (n, len) in writes.iter().enumerate() {
            peer.data(&rest[..*len]);
            rest = &rest[*len..];
            if n == 0 && read_before > 0 {
                // tokio-rustls opens everything that has arrived.
                peer.send().await.unwrap();
                ours.read_exact(&mut received).await.unwrap();
            }
        }
        peer.clear(&bad_record()).send().await.unwrap();
        let mut ours = TlsConnection::from_tokio_rustls(ours, Policy::default()).unwrap();
        let failure = soon(ours.read_to_end(&mut received)).await.unwrap_err();
        assert!(received == all, "{writes:?}: {} bytes arrived", received.len());
        let again = ours.read(&mut [0; 9]).await.unwrap_err();
        for error in [failure, again] {
            assert!(matches!(Reason::from_io(error, Phase::Open), Reason::Tls(_)), "{writes:?}");
        }
        let seen = peer.observe().await;
        assert!(matches!(seen[..], [Event::Alert(_), Event::Fin]), "{writes:?}: {seen:?}");
        drop(peer);
        let report = soon(ours.close()).await;
        assert!(matches!(report.reason, Reason::Tls(_)), "{report}");
    }
}

/// rule: life-6, end-2
#[tokio::test]
async fn a_stream_that_failed_before_the_takeover_reports_it() {
    let (mut ours, mut peer) = with_raw_server().await;
    peer.data(b"all is well").clear(&bad_record()).send().await.unwrap();
    // tokio-rustls reports the failure, and keeps the data that it opened before.
    let mut received = Vec::new();
    soon(ours.read_to_end(&mut received)).await.unwrap_err();
    let mut ours = TlsConnection::from_tokio_rustls(ours, Policy::default()).unwrap();
    let failure = soon(ours.read_to_end(&mut received)).await.unwrap_err();
    assert_eq!(received, b"all is well");
    assert!(matches!(Reason::from_io(failure, Phase::Open), Reason::Tls(_)));
    drop(peer);
    assert!(matches!(soon(ours.close()).await.reason, Reason::Tls(_)));
}

/// A blocking client that sends early data if it has a ticket. Returns whether the server reported them as accepted.
fn early(mut stream: std::net::TcpStream, config: Arc<rustls::ClientConfig>) -> std::io::Result<bool> {
    use std::io::{Read as _, Write as _};
    let name = bowline::config::server_name("localhost").unwrap();
    let mut tls = rustls::ClientConnection::new(config, name).unwrap();
    let is_sent = tls.early_data().map(|mut early| early.write(b"early")).transpose()?.is_some();
    tls.complete_io(&mut stream)?;
    // This reads the server's tickets and then its end.
    let _ = rustls::Stream::new(&mut tls, &mut stream).read_to_end(&mut Vec::new());
    Ok(is_sent && tls.is_early_data_accepted())
}

/// rule: secure-11
#[tokio::test(flavor = "multi_thread")]
async fn unread_early_data_fails_the_conversion() {
    let provider = Arc::clone(shared_pki().client_tls().config().crypto_provider());
    // With a provider of its own, the server has a session cache in memory, which rustls requires for early data.
    let stateful = shared_pki().server_tls_builder().provider(provider).build().unwrap();
    let mut config = rustls::ServerConfig::clone(&stateful.config());
    config.max_early_data_size = 16_384;
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let mut config = rustls::ClientConfig::clone(&shared_pki().client_tls().config());
    config.enable_early_data = true;
    let config = Arc::new(config);
    let mut accepted = Vec::new();
    for _ in 0..2 {
        let (theirs, ours) = raw_tcp_pair().await.unwrap();
        let theirs = theirs.into_std().unwrap();
        theirs.set_nonblocking(false).unwrap();
        let config = Arc::clone(&config);
        let telling = tokio::task::spawn_blocking(move || early(theirs, config));
        let ours = soon(acceptor.accept(ours)).await.unwrap();
        let refused = match TlsConnection::from_tokio_rustls(ours, Policy::default()) {
            Ok(mut ours) => {
                soon(ours.close()).await;
                None
            }
            Err(error) => Some(error.kind()),
        };
        let is_accepted = telling.await.unwrap().unwrap();
        assert_eq!(refused, is_accepted.then_some(std::io::ErrorKind::InvalidInput));
        accepted.push(is_accepted);
    }
    assert_eq!(accepted, [false, true]);
}

/// rule: life-6
#[tokio::test]
async fn a_stream_that_was_shut_down_closes_with_an_error() {
    for peer_closes_first in [false, true] {
        let (mut ours, mut peer) = with_raw_server().await;
        let mut received = Vec::new();
        peer.data(b"bye").close_notify();
        if peer_closes_first {
            peer.send().await.unwrap();
            soon(ours.read_to_end(&mut received)).await.unwrap();
        }
        ours.get_mut().1.send_close_notify();
        ours.flush().await.unwrap();
        let mut ours = TlsConnection::from_tokio_rustls(ours, Policy::default()).unwrap();
        if !peer_closes_first {
            peer.send().await.unwrap();
        }
        soon(ours.read_to_end(&mut received)).await.unwrap();
        assert_eq!(received, b"bye");
        // The stream had already sent close_notify before the takeover. It cannot be sent twice, and bytes may have
        // been written after it.
        drop(peer);
        let report = soon(ours.close()).await;
        assert!(matches!(report.reason, Reason::Tls(_)), "{report}");
    }
}
