//! Behaviour without free descriptors. This is a program of its own, because the limit is for the whole process.
#![cfg(unix)]
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bowline::testing::{shared_pki, tcp_pair};
use bowline::{
    Address, ConfigProblem, Connector, Error, Listener, Policy, Reloader, ServerEndpoint, ServerTls, StartTls,
    Transport as _, UpgradableConnection,
};
use rustix::process::{Resource, getrlimit, setrlimit};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::yield_now;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(10);
const LIMIT: u64 = 256;

/// Runs one test at a time, on a runtime of its own, under the limit.
fn under_the_limit(test: impl Future<Output = ()>) {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = Some(LIMIT);
    setrlimit(Resource::Nofile, limit).unwrap();
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

async fn listen() -> Listener {
    Listener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap()
}

/// Takes every descriptor that is left.
fn take_all() -> Vec<File> {
    std::iter::from_fn(|| File::open("/dev/null").ok()).collect()
}

/// Connects a socket that has its descriptor already.
fn connect(socket: &Socket, addr: SocketAddr) -> Address {
    socket.connect(&addr.into()).unwrap();
    socket.local_addr().unwrap().as_socket().unwrap().into()
}

/// rule: tcp-5
#[test]
fn a_listener_out_of_descriptors_recovers_by_itself() {
    under_the_limit(async {
        let listener = listen().await;
        let sockets = [(); 3].map(|()| Socket::new(Domain::IPV4, Type::STREAM, None).unwrap());
        let taken = take_all();
        let peers = sockets.each_ref().map(|socket| connect(socket, listener.local_addr().as_inet().unwrap()));
        let give_back = async {
            while listener.status().accept_errors < 3 {
                yield_now().await;
            }
            assert!(listener.status().last_error.is_some());
            drop(taken);
        };
        let accept_all = async {
            let mut accepted = Vec::new();
            for _ in &peers {
                accepted.push(listener.accept().await.unwrap());
            }
            accepted
        };
        let (accepted, ()) = timeout(SOON, async { tokio::join!(accept_all, give_back) }).await.unwrap();
        assert_eq!(accepted.iter().map(|incoming| incoming.peer_addr()).collect::<Vec<_>>(), peers);
        assert!(!listener.status().is_waiting);
    });
}

/// rule: tcp-5, tcp-7
#[test]
fn an_accept_dropped_without_descriptors_keeps_its_wait_and_connections() {
    under_the_limit(async {
        let listener = listen().await;
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let taken = take_all();
        let peer = connect(&socket, listener.local_addr().as_inet().unwrap());
        while listener.status().accept_errors == 0 {
            let _ = timeout(Duration::from_millis(1), listener.accept()).await;
        }
        for _ in 0..1_000 {
            assert!(timeout(Duration::ZERO, listener.accept()).await.is_err());
        }
        // Without the wait, the system would have refused each of these accepts. On a busy machine, they may last
        // longer than many waits.
        assert!(listener.status().accept_errors < 500, "{:?}", listener.status());
        drop(taken);
        assert_eq!(timeout(SOON, listener.accept()).await.unwrap().unwrap().peer_addr(), peer);
    });
}

/// rule: tcp-5, life-4
#[test]
fn fifteen_hundred_rounds_leak_no_descriptor() {
    under_the_limit(async {
        let listener = listen().await;
        let connector = Connector::new();
        for _ in 0..1_500 {
            let client = connector.connect_addr(listener.local_addr()).await.unwrap();
            let server = timeout(SOON, listener.accept()).await.unwrap().unwrap().into_tcp();
            drop((client, server));
        }
        assert_eq!(listener.status().accept_errors, 0);
    });
}

/// rule: tcp-5
#[test]
fn a_unix_listener_out_of_descriptors_recovers_by_itself() {
    under_the_limit(async {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.sock");
        let endpoint = ServerEndpoint::unix(path.to_str().unwrap()).unwrap();
        let listener = endpoint.listen(Policy::default()).await.unwrap();
        let sockets = [(); 3].map(|()| Socket::new(Domain::UNIX, Type::STREAM, None).unwrap());
        let taken = take_all();
        for socket in &sockets {
            socket.connect(&SockAddr::unix(&path).unwrap()).unwrap();
        }
        let give_back = async {
            while listener.status().accept_errors < 3 {
                yield_now().await;
            }
            assert!(listener.status().is_waiting);
            drop(taken);
        };
        let accept_all = async {
            for _ in &sockets {
                drop(listener.accept().await.unwrap());
            }
        };
        timeout(SOON, async { tokio::join!(accept_all, give_back) }).await.unwrap();
        assert!(!listener.status().is_waiting);
    });
}

fn is_out_of_descriptors(error: &std::io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::MFILE.raw_os_error())
}

/// rule: tcp-4
#[test]
fn a_connect_without_descriptors_says_so_and_succeeds_later() {
    under_the_limit(async {
        let listener = listen().await;
        let connector = Connector::new();
        let taken = take_all();
        let failed = timeout(SOON, connector.connect_addr(listener.local_addr())).await.unwrap();
        drop(taken);
        let Err(Error::Connect(error)) = failed else { panic!("{failed:?}") };
        assert!(!error.timed_out);
        assert_eq!(error.attempts.len(), 1);
        assert!(is_out_of_descriptors(&error.attempts[0].error), "{error:?}");
        connector.connect_addr(listener.local_addr()).await.unwrap();
    });
}

/// An upgrade, a downgrade, data and a close use the socket that they have.
///
/// rule: life-4
#[test]
fn an_open_connection_needs_no_further_descriptor() {
    under_the_limit(async {
        let (client, server) = tcp_pair().await.unwrap();
        let (client_tls, server_tls) = (shared_pki().client_tls(), shared_pki().server_tls());
        let (mut client, mut server) = (UpgradableConnection::new(client), UpgradableConnection::new(server));
        let _taken = take_all();
        let talk = async {
            for _ in 0..2 {
                let (ours, theirs) = tokio::join!(
                    client.start_tls(StartTls::client(&client_tls, "localhost")),
                    server.start_tls(StartTls::server(&server_tls)),
                );
                ours.unwrap();
                theirs.unwrap();
                client.write_all(b"secret").await.unwrap();
                client.flush().await.unwrap();
                let mut read = [0; 6];
                server.read_exact(&mut read).await.unwrap();
                let (ours, theirs) = tokio::join!(client.stop_tls(), server.stop_tls());
                ours.unwrap();
                theirs.unwrap();
            }
            let (ours, theirs) = tokio::join!(client.close(), server.close());
            assert!(ours.is_clean() && theirs.is_clean(), "{ours:?}, {theirs:?}");
        };
        timeout(SOON, talk).await.unwrap();
    });
}

/// rule: reload-6
#[test]
fn a_reload_without_descriptors_keeps_the_old_certificate_and_succeeds_later() {
    under_the_limit(async {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("server.pem");
        let write = || {
            let identity = shared_pki().server(&["localhost"]);
            fs::write(&path, format!("{}{}", identity.chain_pem(), identity.key_pem())).unwrap();
        };
        write();
        let files = ServerTls::builder().identity_pem_files(&path, &path);
        let tls = files.clone().build().unwrap();
        let reloader = Reloader::builder().every(Duration::from_secs(100_000)).server(&tls, files).start();
        reloader.reload_now().await.unwrap();
        let before = tls.generation();
        write();
        let taken = take_all();
        let failed = timeout(SOON, reloader.reload_now()).await.unwrap();
        drop(taken);
        let Err(Error::Config(error)) = failed else { panic!("{failed:?}") };
        let ConfigProblem::Unreadable(error) = &error.problem else { panic!("{error:?}") };
        assert!(is_out_of_descriptors(error), "{error:?}");
        assert_eq!(tls.generation(), before);
        let reloaded = timeout(SOON, reloader.reload_now()).await.unwrap().unwrap();
        assert!(reloaded.is_new && tls.generation() > before);
    });
}
