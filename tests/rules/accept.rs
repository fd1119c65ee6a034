use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bowline::testing::shared_pki;
use bowline::{
    Connector, Error, Listener, Policy, Reason, StartTls, TcpConnection, TlsConnection, TlsListener,
    TlsListenerBuilder, TlsTransport, Transport, UpgradableConnection,
};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::common::{bounded, expect};

type Errors = Arc<Mutex<Vec<String>>>;

/// The settings, a listener, its address, and what is reported about failed handshakes.
async fn listening() -> (TlsListenerBuilder, Listener, SocketAddr, Errors) {
    let listener = Listener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().as_inet().unwrap();
    let errors = Errors::default();
    let noted = Arc::clone(&errors);
    let builder = TlsListener::builder().on_error(move |_, error| noted.lock().unwrap().push(error.to_string()));
    (builder, listener, address, errors)
}

async fn connect(address: SocketAddr) -> Result<TlsConnection<TcpConnection>, Error> {
    let tcp = Connector::new().connect_addr(address).await?;
    TlsConnection::connect(tcp, &shared_pki().client_tls(), "localhost").await
}

/// rule: accept-1, tcp-6
#[tokio::test]
async fn silent_and_failing_clients_delay_nobody() {
    bounded("silent clients", async {
        let (builder, listener, address, errors) = listening().await;
        let mut listener = builder.tls(listener, shared_pki().server_tls());
        let mut silent = Vec::new();
        for _ in 0..50 {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let mut confused = TcpStream::connect(address).await.unwrap();
        confused.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let clients = tokio::spawn(async move {
            let mut clients = Vec::new();
            for _ in 0..10 {
                let mut client = connect(address).await.unwrap();
                client.write_all(b"x").await.unwrap();
                clients.push(client);
            }
            clients
        });
        for _ in 0..10 {
            // A call that is dropped loses nothing.
            let dropped = tokio::time::timeout(Duration::ZERO, listener.accept()).await;
            let mut connection = match dropped {
                Ok(accepted) => accepted.unwrap(),
                Err(_) => listener.accept().await.unwrap(),
            };
            assert!(connection.is_secure());
            expect(&mut connection, b"x").await;
        }
        confused.read_to_end(&mut Vec::new()).await.unwrap();
        drop(confused);
        clients.await.unwrap();
        while errors.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        let errors = errors.lock().unwrap().clone();
        assert!(errors.len() == 1 && errors[0].contains("TLS"), "{errors:?}");
    })
    .await;
}

/// rule: accept-1, life-7
#[tokio::test]
async fn a_preparation_that_panics_ends_only_its_own_connection() {
    bounded("panics", async {
        let (builder, listener, address, errors) = listening().await;
        let count = std::sync::atomic::AtomicUsize::new(0);
        let mut listener = builder.prepare(listener, move |tcp| {
            let number = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            assert_ne!(number, 0, "the first one panics at once");
            async move {
                assert_ne!(number, 1, "the second one panics in its future");
                Ok(tcp)
            }
        });
        for _ in 0..2 {
            // The reset may come before the client knows that it is connected.
            if let Ok(mut client) = TcpStream::connect(address).await {
                assert!(client.read(&mut [0]).await.is_err());
            }
        }
        let client = TcpStream::connect(address).await.unwrap();
        let accepted = listener.accept().await.unwrap();
        assert_eq!(accepted.peer_addr(), client.local_addr().unwrap().into());
        let errors = errors.lock().unwrap().clone();
        assert!(errors.len() == 2 && errors.iter().all(|error| error.contains("panicked")), "{errors:?}");
    })
    .await;
}

/// rule: accept-2
#[tokio::test]
async fn a_peer_with_many_silent_connections_displaces_its_own() {
    bounded("a full listener", async {
        let (builder, listener, address, errors) = listening().await;
        let group = listener.group().clone();
        let mut listener = builder.max_waiting(8).tls(listener, shared_pki().server_tls());
        // The slow client has another address than the silent ones below.
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        let slow = socket.connect(address).await.unwrap();
        while group.connections() == 0 {
            tokio::task::yield_now().await;
        }
        let mut silent = Vec::new();
        for _ in 0..20 {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        // The first ones were displaced.
        for client in &mut silent[..10] {
            assert!(client.read(&mut [0]).await.is_err());
        }
        let slow = TcpConnection::new(slow, Policy::default()).unwrap();
        let client =
            tokio::spawn(async move { TlsConnection::connect(slow, &shared_pki().client_tls(), "localhost").await });
        let accepted = listener.accept().await.unwrap();
        assert_eq!(accepted.peer_addr().as_inet().unwrap().ip().to_string(), "127.0.0.2");
        let _slow = client.await.unwrap().unwrap();
        // Another client of the address with the silent clients gets a place too.
        let another = tokio::spawn(connect(address));
        listener.accept().await.unwrap();
        another.await.unwrap().unwrap();
        let errors = errors.lock().unwrap().clone();
        assert!(errors.len() >= 13 && errors.iter().all(|error| error == &Reason::Aborted.to_string()), "{errors:?}");
    })
    .await;
}

/// rule: accept-1
#[tokio::test]
async fn the_first_byte_tells_tls_from_plaintext() {
    bounded("both on one port", async {
        let (builder, listener, address, _) = listening().await;
        let mut listener = builder.tls_or_plaintext(listener, shared_pki().server_tls());
        let mut plain = TcpStream::connect(address).await.unwrap();
        plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let mut accepted = listener.accept().await.unwrap();
        assert!(!accepted.is_secure());
        expect(&mut accepted, b"GET / HTTP/1.1\r\n\r\n").await;
        let answering = tokio::spawn(async move { accepted.close_with(b"HTTP/1.1 400 Bad Request\r\n\r\n").await });
        let mut answer = String::new();
        plain.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "HTTP/1.1 400 Bad Request\r\n\r\n");
        drop(plain);
        answering.await.unwrap();

        let client = tokio::spawn(connect(address));
        let mut accepted = listener.accept().await.unwrap();
        assert!(accepted.is_secure());
        let mut client = client.await.unwrap().unwrap();
        client.write_all(b"x").await.unwrap();
        expect(&mut accepted, b"x").await;
    })
    .await;
}

/// rule: accept-1, upgrade-2
#[tokio::test]
async fn a_dialogue_before_starttls_runs_in_the_task_of_the_connection() {
    bounded("starttls", async {
        let (builder, listener, address, _) = listening().await;
        let mut listener = builder.prepare(listener, |tcp| async move {
            let mut connection = UpgradableConnection::new(tcp);
            let mut line = String::new();
            connection.read_line(&mut line).await?;
            connection.write_all(b"go\n").await?;
            connection.start_tls(StartTls::server(&shared_pki().server_tls())).await?;
            Ok(connection)
        });
        let _silent = TcpStream::connect(address).await.unwrap();
        let client = tokio::spawn(async move {
            let mut client = UpgradableConnection::new(Connector::new().connect_addr(address).await.unwrap());
            client.write_all(b"STARTTLS\n").await.unwrap();
            expect(&mut client, b"go\n").await;
            client.start_tls(StartTls::client(&shared_pki().client_tls(), "localhost")).await.unwrap();
            client
        });
        assert!(listener.accept().await.unwrap().is_secure());
        client.await.unwrap();
    })
    .await;
}

/// rule: accept-3, drain-2
#[tokio::test]
async fn a_drain_finishes_handshakes_if_it_should() {
    for finishes in [true, false] {
        bounded(&format!("finishes: {finishes}"), async move {
            let (builder, listener, address, errors) = listening().await;
            let group = listener.group().clone();
            let mut listener = builder.finish_on_drain(finishes).tls(listener, shared_pki().server_tls());
            let tcp = Connector::new().connect_addr(address).await.unwrap();
            while group.connections() == 0 {
                tokio::task::yield_now().await;
            }
            group.begin_drain();
            let client =
                tokio::spawn(async move { TlsConnection::connect(tcp, &shared_pki().client_tls(), "localhost").await });
            if finishes {
                let accepted = listener.accept().await.unwrap();
                assert!(accepted.control().is_draining());
            }
            assert!(matches!(listener.accept().await, Err(Error::Draining)));
            assert!(matches!(listener.accept().await, Err(Error::Draining)));
            assert_eq!(client.await.unwrap().is_ok(), finishes);
            assert_eq!(errors.lock().unwrap().len(), usize::from(!finishes));
        })
        .await;
    }
}

/// rule: accept-2
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_handshake_that_is_done_as_it_is_displaced_does_not_stop_the_listener() {
    bounded("a victim that is done", async {
        let (builder, listener, address, errors) = listening().await;
        let (polled, mut is_polled) = tokio::sync::mpsc::unbounded_channel();
        let (go, gone) = std::sync::mpsc::channel::<()>();
        let gone = Mutex::new(Some(gone));
        let mut listener = builder.max_waiting(2).prepare(listener, move |tcp| {
            let (first, polled) = (gone.lock().unwrap().take(), polled.clone());
            async move {
                polled.send(()).unwrap();
                match first {
                    // The listener displaces this connection while the poll blocks. At the end of the poll, the
                    // preparation is done.
                    Some(gone) => tokio::task::block_in_place(|| gone.recv().unwrap()),
                    None => std::future::pending().await,
                }
                Ok(tcp)
            }
        });
        let first = TcpStream::connect(address).await.unwrap();
        is_polled.recv().await.unwrap();
        let _silent = TcpStream::connect(address).await.unwrap();
        is_polled.recv().await.unwrap();
        let _third = TcpStream::connect(address).await.unwrap();
        // During this sleep, the listener displaces the first connection.
        tokio::time::sleep(Duration::from_millis(50)).await;
        go.send(()).unwrap();
        // The silent connection is displaced instead, and the third one gets its place, although no connection is
        // accepted.
        is_polled.recv().await.unwrap();
        let accepted = listener.accept().await.unwrap();
        assert_eq!(accepted.peer_addr(), first.local_addr().unwrap().into());
        assert_eq!(*errors.lock().unwrap(), [Reason::Aborted.to_string()]);
    })
    .await;
}

/// rule: accept-4, drain-3
#[tokio::test]
async fn a_ready_connection_that_nobody_accepts_holds_a_drain_for_a_limited_time() {
    bounded("nobody accepts", async {
        let policy = Policy::default().handshake_timeout(Duration::from_millis(50));
        let listener = Listener::builder().policy(policy).bind("127.0.0.1:0").await.unwrap();
        let (address, group) = (listener.local_addr().as_inet().unwrap(), listener.group().clone());
        let (ready, mut is_ready) = tokio::sync::mpsc::unbounded_channel();
        let errors = Errors::default();
        let noted = Arc::clone(&errors);
        let builder = TlsListener::builder().on_error(move |_, error| noted.lock().unwrap().push(error.to_string()));
        let mut listener = builder.prepare(listener, move |tcp| {
            let ready = ready.clone();
            async move {
                ready.send(()).unwrap();
                Ok(tcp)
            }
        });
        let mut client = TcpStream::connect(address).await.unwrap();
        is_ready.recv().await.unwrap();
        assert_eq!(group.drain(None).await.to_string(), "1 connection ended: 1 aborted");
        assert!(client.read(&mut [0]).await.is_err());
        assert!(matches!(listener.accept().await, Err(Error::Draining)));
        assert_eq!(*errors.lock().unwrap(), [Error::Draining.to_string()]);
    })
    .await;
}

/// rule: accept-5
#[tokio::test]
async fn the_port_is_free_when_the_listener_was_dropped() {
    let (builder, listener, address, _) = listening().await;
    let listener = builder.tls(listener, shared_pki().server_tls());
    tokio::task::yield_now().await;
    assert!(std::net::TcpListener::bind(address).is_err());
    drop(listener);
    std::net::TcpListener::bind(address).unwrap();
}

/// rule: accept-5
#[cfg(unix)]
#[tokio::test]
async fn every_accept_after_the_loss_of_the_socket_says_so() {
    bounded("the socket is lost", async {
        let (builder, listener, _, _) = listening().await;
        let duplicate = listener.with_fds(|fd| fd.try_clone_to_owned().unwrap()).unwrap().remove(0);
        let mut listener = builder.tls(listener, shared_pki().server_tls());
        socket2::Socket::from(duplicate).shutdown(std::net::Shutdown::Both).unwrap();
        for _ in 0..3 {
            assert!(matches!(listener.accept().await, Err(Error::Bind(_))));
        }
    })
    .await;
}
