//! The kinds of `TlsListener`, over the listeners of endpoint strings and with a dialogue before TLS.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bowline::starttls::{self, Dialogue, Server};
use bowline::testing::shared_pki;
use bowline::{
    ClientEndpoint, Connector, Error, Listener, ListenerBuilder, Policy, ServerEndpoint, StartTls, TlsListener,
    TlsListenerBuilder, TlsTransport, Transport, UpgradableConnection, UpgradableTransport,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::common::{bounded, expect};

type Errors = Arc<Mutex<Vec<String>>>;

fn noting() -> (TlsListenerBuilder, Errors) {
    let errors = Errors::default();
    let noted = Arc::clone(&errors);
    (TlsListener::builder().on_error(move |_, error| noted.lock().unwrap().push(error.to_string())), errors)
}

async fn listen(builder: ListenerBuilder) -> (Listener, std::net::SocketAddr) {
    let listener = builder.bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().as_inet().unwrap();
    (listener, address)
}

/// A Unix socket in a directory of its own.
#[cfg(unix)]
async fn unix(builder: ListenerBuilder) -> (bowline::EndpointListener, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let endpoint: ServerEndpoint = format!("unix:{}", dir.path().join("socket").display()).parse().unwrap();
    (endpoint.listen_with(builder).await.unwrap(), dir)
}

#[cfg(unix)]
async fn connect_unix(dir: &tempfile::TempDir) -> bowline::BoxConnection {
    let endpoint: ClientEndpoint = format!("unix:{}", dir.path().join("socket").display()).parse().unwrap();
    endpoint.connect().await.unwrap()
}

/// rule: accept-1, accept-6
#[cfg(unix)]
#[tokio::test]
async fn tls_over_a_unix_socket_is_accepted_after_the_handshake() {
    bounded("Unix", async {
        let (listener, dir) = unix(Listener::builder().max_unfinished(3)).await;
        let (builder, errors) = noting();
        let mut listener = builder.tls(listener, shared_pki().server_tls());
        let _silent = connect_unix(&dir).await;
        let mut client = connect_unix(&dir).await;
        let client = tokio::spawn(async move {
            client.start_tls(StartTls::client(&shared_pki().client_tls(), "localhost")).await.unwrap();
            client.write_all(b"x").await.unwrap();
            client
        });
        let mut accepted = listener.accept().await.unwrap();
        assert!(accepted.is_secure());
        assert_eq!(accepted.local_addr(), listener.local_addr());
        expect(&mut accepted, b"x").await;
        client.await.unwrap();
        drop(listener);
        assert!(!dir.path().join("socket").exists());
        assert!(errors.lock().unwrap().is_empty());
    })
    .await;
}

/// rule: accept-3, accept-6, drain-5
#[cfg(unix)]
#[tokio::test]
async fn a_drain_finishes_what_waits_at_a_unix_socket() {
    for finishes in [true, false] {
        bounded(&format!("finishes: {finishes}"), async move {
            let (listener, dir) = unix(Listener::builder().finish_on_drain(finishes)).await;
            let group = listener.group().clone();
            let (builder, errors) = noting();
            let mut listener = builder.tls(listener, shared_pki().server_tls());
            let handshaking = connect_unix(&dir).await;
            while group.connections() == 0 {
                tokio::task::yield_now().await;
            }
            // Nothing runs between this connect and the drain, so the connection is in the backlog.
            let waiting = std::os::unix::net::UnixStream::connect(dir.path().join("socket")).unwrap();
            group.begin_drain();
            let waiting = bowline::Stream::from_std(waiting, Policy::default()).unwrap();
            let waiting = Box::new(UpgradableConnection::new(waiting));
            let clients = [handshaking, waiting].map(|mut client: bowline::BoxConnection| {
                tokio::spawn(async move {
                    let tls = StartTls::client(&shared_pki().client_tls(), "localhost");
                    client.start_tls(tls).await.map(|()| client)
                })
            });
            if finishes {
                for _ in 0..2 {
                    let accepted = listener.accept().await;
                    assert!(accepted.is_ok_and(|accepted| accepted.is_secure()), "{:?}", errors.lock().unwrap());
                }
            }
            assert!(matches!(listener.accept().await, Err(Error::Draining)));
            for client in clients {
                assert_eq!(client.await.unwrap().is_ok(), finishes);
            }
        })
        .await;
    }
}

/// rule: accept-1, accept-6
#[tokio::test]
async fn an_endpoint_string_says_when_its_connections_are_ready() {
    bounded("endpoints", async {
        let dir = tempfile::tempdir().unwrap();
        let identity = shared_pki().server(&["localhost"]);
        std::fs::write(dir.path().join("server.pem"), identity.chain_pem()).unwrap();
        std::fs::write(dir.path().join("server.key"), identity.key_pem()).unwrap();
        // A path of Windows has characters that must be escaped in an endpoint string.
        let at = dir.path().display().to_string().replace('\\', r"\\").replace(':', r"\:");
        for (kind, files) in [("tcp", String::new()), ("tls", format!(":cert={at}/server.pem:key={at}/server.key"))] {
            let endpoint: ServerEndpoint = format!("{kind}:0:interface=127.0.0.1{files}").parse().unwrap();
            let (builder, errors) = noting();
            let mut listener = builder.endpoint(endpoint.listen(Policy::default()).await.unwrap());
            let address = listener.local_addr();
            let client = tokio::spawn(async move {
                let tcp = Connector::new().connect_addr(address).await.unwrap();
                let mut client = UpgradableConnection::new(tcp);
                if kind == "tls" {
                    let tls = StartTls::client(&shared_pki().client_tls(), "localhost");
                    client.start_tls(tls).await.unwrap();
                }
                client.write_all(b"x").await.unwrap();
                client
            });
            let mut accepted = listener.accept().await.unwrap();
            assert_eq!(accepted.is_secure(), kind == "tls");
            expect(&mut accepted, b"x").await;
            client.await.unwrap();
            assert!(errors.lock().unwrap().is_empty());
        }
    })
    .await;
}

/// rule: accept-1, accept-6
#[tokio::test]
async fn a_dialogue_before_tls_is_done_before_accept_returns() {
    bounded("STARTTLS", async {
        let (listener, address) = listen(Listener::builder()).await;
        let (builder, errors) = noting();
        let dialogue = || Server::new(Dialogue::Smtp).name("mail.example");
        let mut listener = builder.starttls(listener, shared_pki().server_tls(), dialogue);
        let _silent = TcpStream::connect(address).await.unwrap();
        let mut leaving = TcpStream::connect(address).await.unwrap();
        leaving.write_all(b"QUIT\r\n").await.unwrap();
        let mut said = String::new();
        leaving.read_to_string(&mut said).await.unwrap();
        assert!(said.starts_with("220 mail.example") && said.contains("221"), "{said}");
        drop(leaving);
        let client = tokio::spawn(async move {
            let mut client = UpgradableConnection::new(Connector::new().connect_addr(address).await.unwrap());
            starttls::client(&mut client, Dialogue::Smtp, &shared_pki().client_tls(), "localhost").await.unwrap();
            client
        });
        assert!(listener.accept().await.unwrap().is_secure());
        client.await.unwrap();
        while errors.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        assert!(errors.lock().unwrap()[0].contains("left"), "{errors:?}");
    })
    .await;
}

/// rule: accept-6, secure-5
#[tokio::test(start_paused = true)]
async fn a_dialogue_and_its_handshake_have_one_deadline() {
    let limit = Duration::from_secs(30);
    let (listener, address) = listen(Listener::builder().policy(Policy::default().handshake_timeout(limit))).await;
    let group = listener.group().clone();
    let (failed, mut failures) = tokio::sync::mpsc::unbounded_channel();
    let builder = TlsListener::builder().on_error(move |_, error| failed.send(error.to_string()).unwrap());
    let _listener = builder.starttls(listener, shared_pki().server_tls(), || Server::new(Dialogue::Ldap));
    let mut client = TcpStream::connect(address).await.unwrap();
    while group.connections() == 0 {
        tokio::task::yield_now().await;
    }
    let begun = tokio::time::Instant::now();
    tokio::time::advance(limit - Duration::from_secs(1)).await;
    // The client sends its request, gets the answer that begins the handshake, and is silent then.
    client.write_all(b"\x30\x1d\x02\x01\x01\x77\x18\x80\x161.3.6.1.4.1.1466.20037").await.unwrap();
    assert_ne!(client.read(&mut [0; 100]).await.unwrap(), 0);
    let failure = failures.recv().await.unwrap();
    assert!(failure.contains("timed out") || failure.contains("time limit"), "{failure}");
    assert!(begun.elapsed() < limit + Duration::from_secs(1), "{:?}", begun.elapsed());
}

/// rule: accept-1
#[tokio::test]
async fn plaintext_is_accepted_like_everything_else() {
    bounded("plaintext", async {
        let (listener, address) = listen(Listener::builder()).await;
        let mut listener = TlsListener::builder().plaintext(listener);
        let client = TcpStream::connect(address).await.unwrap();
        assert_eq!(listener.accept().await.unwrap().peer_addr(), client.local_addr().unwrap().into());
        listener.group().begin_drain();
        assert!(matches!(listener.accept().await, Err(Error::Draining)));
    })
    .await;
}

/// rule: accept-3
#[cfg(feature = "stream")]
#[tokio::test]
async fn a_stream_of_connections_ends_after_the_last_one_of_a_drain() {
    use futures_core::Stream;
    bounded("a stream", async {
        let (listener, address) = listen(Listener::builder().finish_on_drain(true)).await;
        let group = listener.group().clone();
        let mut connections = TlsListener::builder().plaintext(listener).into_stream();
        let mut next = async || {
            let next = std::future::poll_fn(|cx| std::pin::Pin::new(&mut connections).poll_next(cx)).await;
            next.map(|accepted| accepted.unwrap().peer_addr())
        };
        let client = TcpStream::connect(address).await.unwrap();
        assert_eq!(next().await, Some(client.local_addr().unwrap().into()));
        let last = std::net::TcpStream::connect(address).unwrap();
        group.begin_drain();
        assert_eq!(next().await, Some(last.local_addr().unwrap().into()));
        assert_eq!(next().await, None);
        assert_eq!(next().await, None);
    })
    .await;
}

/// rule: accept-4, drain-3
#[tokio::test]
async fn a_connection_that_waits_among_ready_ones_holds_a_drain_for_a_limited_time() {
    for finishes in [true, false] {
        bounded(&format!("nobody accepts; finishes: {finishes}"), async move {
            let policy = Policy::default().handshake_timeout(Duration::from_secs(20));
            let (listener, address) = listen(Listener::builder().policy(policy).finish_on_drain(finishes)).await;
            let group = listener.group().clone();
            let (builder, errors) = noting();
            let mut listener = builder.max_waiting(1).plaintext(listener);
            let mut clients = [TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap()];
            while group.connections() < 2 {
                tokio::task::yield_now().await;
            }
            // The task of the first connection, which needs no input, makes it ready.
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            // The drain has no deadline, so only the listener can end the unfinished handshake. The deadline of the
            // second connection counts from its accept, so it passes before the time for which a drain waits.
            tokio::time::pause();
            tokio::time::advance(Duration::from_secs(1)).await;
            let report = group.drain(None).await;
            tokio::time::resume();
            let expected = if finishes { (2, 0) } else { (1, 1) };
            assert_eq!((report.total(), report.handshakes), expected, "{report}");
            for client in &mut clients {
                assert!(client.read(&mut [0]).await.is_err());
            }
            assert!(matches!(listener.accept().await, Err(Error::Draining)));
            assert_eq!(errors.lock().unwrap().len(), 2);
        })
        .await;
    }
}

/// rule: accept-5, tcp-5
#[cfg(unix)]
#[tokio::test]
async fn a_listener_that_has_lost_its_socket_says_so_during_a_drain_too() {
    bounded("the socket is lost", async {
        let (listener, _) = listen(Listener::builder()).await;
        let duplicate = listener.with_fds(|fd| fd.try_clone_to_owned().unwrap()).unwrap().remove(0);
        socket2::Socket::from(duplicate).shutdown(std::net::Shutdown::Both).unwrap();
        assert!(matches!(listener.accept().await, Err(Error::Bind(_))));
        listener.group().begin_drain();
        assert!(matches!(listener.accept().await, Err(Error::Bind(_))));
    })
    .await;
}
