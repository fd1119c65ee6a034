//! The file of a Unix socket.

use std::collections::HashSet;
use std::future::{Future, poll_fn};
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::pin::pin;
use std::task::Poll;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::*;
use crate::address::Address;
use crate::endpoint::open::unix;
use crate::error::Blame;
use crate::transport::Transport;

struct Place {
    dir: tempfile::TempDir,
    path: PathBuf,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.sock");
        Self { dir, path }
    }

    fn endpoint(&self) -> String {
        format!("unix:{}", self.path.display())
    }

    /// The error of opening the socket.
    async fn refusal(&self) -> String {
        match server(&self.endpoint()).listen(Policy::default()).await {
            Err(Error::Bind(error)) => {
                assert_eq!(error.addr, Address::Unix(Some(self.path.clone())));
                assert_eq!(error.error.kind(), io::ErrorKind::AddrInUse, "{error}");
                crate::error::chain(&error).to_string()
            }
            other => panic!("{other:?}"),
        }
    }

    /// A socket on which nobody listens.
    fn leave_dead(&self) {
        drop(std::os::unix::net::UnixListener::bind(&self.path).unwrap());
    }
}

#[tokio::test]
async fn a_unix_socket_transfers_bytes_in_both_directions() {
    let place = Place::new();
    let listener = listen(&place.endpoint()).await;
    assert_eq!(listener.local_addr(), Address::Unix(Some(place.path.clone())));
    let (ours, theirs) = meet(&listener, &client(&place.endpoint())).await;
    let (mut ours, mut theirs) = (ours.unwrap(), theirs.unwrap());
    assert_eq!((theirs.local_addr(), theirs.peer_addr()), (listener.local_addr(), Address::Unix(None)));
    ours.write_all(b"hello").await.unwrap();
    let (report, ()) = tokio::join!(ours.close(), async {
        let mut heard = String::new();
        theirs.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "hello");
        assert!(theirs.close().await.is_clean());
    });
    assert!(report.is_clean());
}

#[tokio::test]
async fn a_path_with_separators_in_it_is_escaped() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a:b=c d\\\u{fc}.sock");
    let endpoint = ServerEndpoint::unix(path.to_str().unwrap()).unwrap();
    let listener = server(&endpoint.to_string()).listen(Policy::default()).await.unwrap();
    assert!(path.metadata().unwrap().file_type().is_socket());
    let (ours, theirs) = meet(&listener, &ClientEndpoint::unix(path.to_str().unwrap()).unwrap()).await;
    assert!(ours.is_ok() && theirs.is_ok());
}

#[tokio::test]
async fn the_socket_gets_the_mode_of_the_endpoint() {
    let place = Place::new();
    for mode in ["600", "666", "620"] {
        let _listener = listen(&format!("{}:mode={mode}", place.endpoint())).await;
        let found = place.path.metadata().unwrap().permissions().mode() & 0o7777;
        assert_eq!(format!("{found:o}"), mode);
    }
}

/// rule: tcp-10
#[tokio::test]
async fn mode_is_given_to_the_socket_and_to_nothing_that_was_put_in_its_place() {
    let mode_of = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o7777;
    let place = Place::new();
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    socket.bind(&socket2::SockAddr::unix(&place.path).unwrap()).unwrap();
    let precious = place.dir.path().join("precious");
    std::fs::write(&precious, "").unwrap();
    std::fs::set_permissions(&precious, std::fs::Permissions::from_mode(0o600)).unwrap();
    // Another user who may write in the directory could do this between bind and chmod.
    std::fs::remove_file(&place.path).unwrap();
    symlink(&precious, &place.path).unwrap();
    let _ = unix::set_mode(&place.path, &socket, 0o666);
    assert_eq!(mode_of(&precious), 0o600);
    std::fs::remove_file(&place.path).unwrap();
    std::fs::hard_link(&precious, &place.path).unwrap();
    #[cfg(target_os = "linux")]
    assert_eq!(unix::set_mode(&place.path, &socket, 0o666).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    #[cfg(target_os = "linux")]
    assert_eq!(mode_of(&precious), 0o600);
}

#[tokio::test]
async fn the_socket_is_removed_with_its_listener_and_another_one_is_not() {
    let place = Place::new();
    drop(listen(&place.endpoint()).await);
    assert!(!place.path.exists());
    let listener = listen(&place.endpoint()).await;
    std::fs::remove_file(&place.path).unwrap();
    place.leave_dead();
    drop(listener);
    assert!(place.path.exists());
}

#[tokio::test]
async fn a_dead_socket_is_replaced() {
    let place = Place::new();
    place.leave_dead();
    let listener = listen(&place.endpoint()).await;
    let (ours, theirs) = meet(&listener, &client(&place.endpoint())).await;
    assert!(ours.is_ok() && theirs.is_ok());
}

/// rule: tcp-8
#[tokio::test]
async fn a_socket_with_a_listener_is_not_replaced() {
    let place = Place::new();
    let first = listen(&format!("{}:backlog=1", place.endpoint())).await;
    assert!(place.refusal().await.contains("another listener uses this path"));
    // A listener with a full backlog is not replaced either.
    let mut waiting = Vec::new();
    while let Ok(stream) = UnixStream::connect(&place.path).await {
        waiting.push(stream);
    }
    assert!(place.refusal().await.contains("another listener uses this path"));
    drop(waiting);
    assert!(first.accept().await.is_ok());
}

/// rule: tcp-8
#[tokio::test]
async fn a_file_that_is_not_such_a_socket_is_not_replaced() {
    let place = Place::new();
    std::fs::write(&place.path, "precious").unwrap();
    assert!(place.refusal().await.contains("not a socket"));
    assert_eq!(std::fs::read_to_string(&place.path).unwrap(), "precious");
    std::fs::remove_file(&place.path).unwrap();

    std::fs::create_dir(&place.path).unwrap();
    assert!(place.refusal().await.contains("not a socket"));
    std::fs::remove_dir(&place.path).unwrap();

    let elsewhere = Place::new();
    elsewhere.leave_dead();
    symlink(&elsewhere.path, &place.path).unwrap();
    assert!(place.refusal().await.contains("not a socket"));
    assert!(elsewhere.path.exists() && place.path.is_symlink());
    std::fs::remove_file(&place.path).unwrap();

    let _datagrams = UnixDatagram::bind(&place.path).unwrap();
    assert!(place.refusal().await.contains("cannot be tested"));
    assert!(place.path.exists());
    drop(place.dir);
}

/// rule: tcp-4, tcp-8
#[tokio::test]
async fn a_path_that_cannot_be_used_is_named() {
    let long = format!("/tmp/{}", "a".repeat(200));
    for path in ["/nonexistent/x.sock", long.as_str()] {
        let address = Address::Unix(Some(path.into()));
        let Error::Bind(error) = server(&format!("unix:{path}")).listen(Policy::default()).await.unwrap_err() else {
            panic!()
        };
        assert_eq!(error.addr, address);
        let error = client(&format!("unix:{path}")).connect().await.unwrap_err();
        assert_eq!(error.blame(), Blame::System);
        let Error::Connect(error) = error else { panic!() };
        assert_eq!((&error.attempts[0].addr, error.target), (&address, format!("unix:{path}")));
    }
    let place = Place::new();
    place.leave_dead();
    let error = io::Error::from(client(&place.endpoint()).connect().await.unwrap_err());
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
}

/// rule: tcp-7
#[tokio::test]
async fn an_accept_on_a_unix_socket_that_is_dropped_loses_no_connection() {
    let place = Place::new();
    let listener = listen(&place.endpoint()).await;
    let mut clients = Vec::new();
    for n in 0..50_u8 {
        let mut stream = UnixStream::connect(&place.path).await.unwrap();
        stream.write_all(&[n]).await.unwrap();
        clients.push(stream);
    }
    let mut missing: HashSet<u8> = (0..50).collect();
    let collect = async {
        while !missing.is_empty() {
            // The future is dropped at each of its wait points.
            let mut accepting = Box::pin(listener.accept());
            let polled = poll_fn(|cx| Poll::Ready(pin!(&mut accepting).poll(cx))).await;
            drop(accepting);
            match polled {
                Poll::Ready(incoming) => {
                    let n = incoming.unwrap().begin().await.unwrap().read_u8().await.unwrap();
                    assert!(missing.remove(&n));
                }
                Poll::Pending => tokio::task::yield_now().await,
            }
        }
    };
    timeout(SOON, collect).await.unwrap();
}
