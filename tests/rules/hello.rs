//! The ClientHello before the configuration is chosen.

use std::time::Duration;

use bowline::rustls::{AlertDescription, ClientConnection};
use bowline::testing::shared_pki;
use bowline::{
    Blame, ClientHello, Connector, Error, Incoming, Listener, Phase, Policy, Reason, TcpConnection, TlsConnection,
    TlsListener, TlsTransport, Transport, chain, relay,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::common::{Orderly as _, bounded, expect};

/// A listener, and a client's socket that it has accepted.
async fn accepted(policy: Policy) -> (Listener, Incoming, TcpStream) {
    let listener = Listener::builder().policy(policy).bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().as_inet().unwrap()).await.unwrap();
    client.set_nodelay(true).unwrap();
    let incoming = listener.accept().await.unwrap();
    (listener, incoming, client)
}

async fn handshake_of(client: TcpStream, name: &'static str) -> Result<TlsConnection<TcpConnection>, Error> {
    let tcp = TcpConnection::new(client, Policy::default()).unwrap();
    TlsConnection::connect(tcp, &shared_pki().client_tls(), name).await
}

fn assert_is_for_localhost(hello: &ClientHello) {
    assert_eq!(hello.server_name(), Some("localhost"));
    assert!(!hello.versions().is_empty());
}

/// rule: hello-1
#[tokio::test]
async fn the_session_gets_the_hello_that_was_read_before() {
    bounded("hello first", async {
        let (_listener, mut incoming, client) = accepted(Policy::default()).await;
        let client = tokio::spawn(handshake_of(client, "localhost"));
        assert_is_for_localhost(&incoming.client_hello().await.unwrap());
        // A second call reads the same bytes.
        assert_is_for_localhost(&incoming.client_hello().await.unwrap());
        let mut server = incoming.handshake(&shared_pki().server_tls()).await.unwrap();
        assert_eq!(server.tls().unwrap().sni.as_deref(), Some("localhost"));
        let mut client = client.await.unwrap().unwrap();
        client.write_all(b"after").await.unwrap();
        expect(&mut server, b"after").await;
    })
    .await;
}

/// rule: hello-1: a post-quantum hello has more bytes than a segment of an Ethernet.
#[tokio::test]
async fn a_hello_in_two_segments_is_read_whole() {
    bounded("two segments", async {
        let (_listener, mut incoming, mut client) = accepted(Policy::default()).await;
        let config = shared_pki().client_tls().config().clone();
        let mut session = ClientConnection::new(config, "localhost".try_into().unwrap()).unwrap();
        let mut bytes = Vec::new();
        session.write_tls(&mut bytes).unwrap();
        client.write_all(&bytes[..bytes.len() - 1]).await.unwrap();
        let early = tokio::time::timeout(Duration::from_millis(20), incoming.client_hello()).await;
        assert!(early.is_err(), "the last byte is missing");
        client.write_all(&bytes[bytes.len() - 1..]).await.unwrap();
        assert_is_for_localhost(&incoming.client_hello().await.unwrap());
    })
    .await;
}

/// rule: hello-1: the server to which the connection is forwarded gets the client's own hello, and does the handshake.
#[tokio::test]
async fn a_connection_is_forwarded_by_its_name_without_decryption() {
    bounded("forwarded", async {
        let behind = Listener::bind("127.0.0.1:0").await.unwrap();
        let to = behind.local_addr();
        let server = tokio::spawn(async move {
            let incoming = behind.accept().await.unwrap();
            let mut server = incoming.handshake(&shared_pki().server_tls()).await.unwrap();
            server.write_all(b"from behind").await.unwrap();
            server.close().await
        });
        let (_listener, mut incoming, client) = accepted(Policy::default()).await;
        let client = tokio::spawn(handshake_of(client, "localhost"));
        assert_is_for_localhost(&incoming.client_hello().await.unwrap());
        let mut onward = Connector::new().connect_addr(to).await.unwrap();
        let mut connection = incoming.into_tcp();
        let forwarding = tokio::spawn(async move { relay(&mut connection, &mut onward).await });
        let mut client = client.await.unwrap().unwrap();
        let mut data = Vec::new();
        client.read_to_end(&mut data).await.unwrap();
        assert_eq!(data, b"from behind");
        assert!(client.close().await.ended_last());
        assert!(server.await.unwrap().is_clean());
        forwarding.await.unwrap();
    })
    .await;
}

/// rule: hello-2
#[tokio::test]
async fn a_client_without_tls_can_be_answered_in_plaintext() {
    bounded("plaintext", async {
        let (_listener, mut incoming, mut client) = accepted(Policy::default()).await;
        client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let error = incoming.client_hello().await.unwrap_err();
        assert_eq!(error.blame(), Blame::PeerTls);
        let Error::Ended(Reason::Tls(error)) = error else { panic!("{error:?}") };
        assert_eq!(error.not_tls.as_ref().and_then(|not_tls| not_tls.protocol()), Some("HTTP"));
        let mut connection = incoming.into_tcp();
        expect(&mut connection, b"GET / HTTP/1.1\r\n\r\n").await;
        connection.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        let closing = tokio::spawn(async move { connection.close().await });
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 "));
        drop(client);
        closing.await.unwrap();
    })
    .await;
}

/// rule: hello-3, secure-4
#[tokio::test]
async fn a_refused_client_gets_the_alert() {
    bounded("refused", async {
        let (_listener, mut incoming, client) = accepted(Policy::default()).await;
        let client = tokio::spawn(handshake_of(client, "unknown.example"));
        let hello = incoming.client_hello().await.unwrap();
        assert_eq!(hello.server_name(), Some("unknown.example"));
        let control = incoming.control();
        let report = incoming.refuse(AlertDescription::UnrecognisedName).await;
        let Reason::Tls(error) = &report.reason else { panic!("{report}") };
        assert_eq!(error.alert_sent, Some(AlertDescription::UnrecognisedName));
        assert!(matches!(&control.report().unwrap().reason, Reason::Tls(_)));
        assert!(control.is_ended());
        let error = client.await.unwrap().unwrap_err();
        let Error::Ended(Reason::Tls(error)) = error else { panic!("{error:?}") };
        assert!(error.error.to_string().contains("UnrecognisedName"), "{error:?}");
    })
    .await;
}

/// rule: hello-1, secure-5, end-2
#[tokio::test]
async fn a_hello_is_awaited_until_the_deadline_the_end_or_a_drain() {
    bounded("no hello", async {
        let hasty = Policy::default().handshake_timeout(Duration::from_millis(50));
        let (_listener, mut incoming, mut client) = accepted(hasty).await;
        let error = incoming.client_hello().await.unwrap_err();
        assert!(matches!(error, Error::Ended(Reason::TimedOut(Phase::Handshake))), "{error:?}");
        assert!(client.read(&mut [0; 1]).await.is_err(), "the connection was not reset");

        let (_listener, mut incoming, mut client) = accepted(Policy::default()).await;
        client.write_all(&[22, 3, 1, 2, 0, 1]).await.unwrap();
        client.shutdown().await.unwrap();
        let error = incoming.client_hello().await.unwrap_err();
        assert!(matches!(error, Error::Ended(Reason::Truncated(Phase::Handshake))), "{error:?}");

        let (listener, mut incoming, _client) = accepted(Policy::default()).await;
        let drain = listener.group().drain(Duration::from_secs(5));
        let (error, _) = tokio::join!(incoming.client_hello(), drain);
        assert!(matches!(error.unwrap_err(), Error::Draining));
    })
    .await;
}

/// rule: hello-1, hello-3, accept-1
#[tokio::test]
async fn a_listener_chooses_the_configuration_by_the_hello() {
    bounded("chosen by name", async {
        let listener = Listener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().as_inet().unwrap();
        let (failed, mut failures) = tokio::sync::mpsc::unbounded_channel();
        let builder = TlsListener::builder().on_error(move |_, error| failed.send(error.clone()).unwrap());
        let mut listener = builder.tls_by_hello(listener, |hello| async move {
            // A choice may wait, for example for a database.
            tokio::task::yield_now().await;
            match hello.server_name() {
                Some("localhost") => Ok(shared_pki().server_tls()),
                _ => Err(AlertDescription::UnrecognisedName),
            }
        });
        let connect = |name| async move { handshake_of(TcpStream::connect(address).await.unwrap(), name).await };
        let known = tokio::spawn(connect("localhost"));
        let accepted = listener.accept().await.unwrap();
        assert_eq!(accepted.tls().unwrap().sni.as_deref(), Some("localhost"));
        known.await.unwrap().unwrap();
        let unknown = connect("unknown.example").await.unwrap_err();
        assert!(matches!(&unknown, Error::Ended(Reason::Tls(_))), "{unknown:?}");
        let mut plain = TcpStream::connect(address).await.unwrap();
        plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        plain.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer[..6], [21, 3, 3, 0, 2, 2], "no fatal alert");
        for expected in ["refused the ClientHello", "HTTP"] {
            let error = failures.recv().await.unwrap();
            assert!(chain(&error).to_string().contains(expected), "{}", chain(&error));
        }
    })
    .await;
}
