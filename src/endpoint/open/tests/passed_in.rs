//! Sockets that the process was started with, here by numbers: tests/programs/activation.rs has whole processes.

use std::net::TcpListener;
use std::os::fd::{AsFd, IntoRawFd, OwnedFd, RawFd};

use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};

use super::*;
use crate::transport::Transport;

/// A descriptor as it is after exec: without an owner, and without close-on-exec.
fn as_inherited(socket: impl Into<OwnedFd>) -> RawFd {
    let socket = socket.into();
    fcntl_setfd(&socket, fcntl_getfd(&socket).unwrap() - FdFlags::CLOEXEC).unwrap();
    socket.into_raw_fd()
}

async fn refusal(number: RawFd) -> String {
    let error = server(&format!("fd:{number}")).listen(Policy::default()).await.unwrap_err();
    crate::error::chain(&error).to_string()
}

/// rule: tcp-10
#[tokio::test]
async fn a_passed_in_socket_is_taken_over_by_its_number_once() {
    let managers = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = managers.local_addr().unwrap();
    let number = as_inherited(managers.try_clone().unwrap());
    let listener = listen(&format!("fd:{number}")).await;
    assert_eq!(listener.local_addr(), addr.into());
    let (ours, theirs) = meet(&listener, &client(&format!("tcp:{addr}"))).await;
    assert_eq!(theirs.unwrap().local_addr(), addr.into());
    drop(ours);
    let again = refusal(number).await;
    assert!(again.contains("was not passed in: this process has opened it, or has taken it over"), "{again}");
    listener.group().begin_drain();
    managers.set_nonblocking(true).unwrap();
    let _client = std::net::TcpStream::connect(addr).unwrap();
    assert!(managers.accept().is_ok());
}

#[tokio::test]
async fn a_passed_in_socket_can_have_tls() {
    let files = Files::new();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = socket.local_addr().unwrap();
    let listener = listen(&format!("fd:{}:{}", as_inherited(socket), files.cert("server"))).await;
    let client = client(&format!("tls:{addr}:ca={}:name=localhost", files.ca()));
    let (ours, theirs) = meet(&listener, &client).await;
    assert!(ours.unwrap().as_tls().unwrap().is_secure() && theirs.unwrap().as_tls().unwrap().is_secure());
}

#[tokio::test]
async fn unix_sockets_can_be_passed_in() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.sock");
    let socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let listener = listen(&format!("fd:{}", as_inherited(socket))).await;
    let (ours, theirs) = meet(&listener, &client(&format!("unix:{}", path.display()))).await;
    assert!(ours.is_ok() && theirs.is_ok());
    let files = Files::new();
    let other = std::os::unix::net::UnixListener::bind(dir.path().join("y.sock")).unwrap();
    let endpoint = server(&format!("fd:{}:{}", as_inherited(other), files.cert("server")));
    let error = endpoint.listen(Policy::default()).await.unwrap_err();
    assert!(crate::error::chain(&error).to_string().contains("TLS arguments are for TCP sockets"), "{error}");
}

/// rule: proxy-1
#[cfg(feature = "proxy")]
#[tokio::test]
async fn a_passed_in_unix_socket_has_headers_if_its_peers_are_trusted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.sock");
    let socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let passed_in = |trusted| {
        let number = as_inherited(socket.try_clone().unwrap());
        server(&format!("fd:{number}:proxy=require:trusted={trusted}"))
    };
    let error = passed_in("127.0.0.1").listen(Policy::default()).await.unwrap_err();
    assert!(crate::error::chain(&error).to_string().contains("its peers are not trusted"), "{error}");
    let listener = passed_in("unix").listen(Policy::default()).await.unwrap();
    let mut client = std::os::unix::net::UnixStream::connect(&path).unwrap();
    std::io::Write::write_all(&mut client, b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 443\r\n").unwrap();
    let begun = timeout(SOON, async { listener.accept().await.unwrap().begin().await }).await.unwrap().unwrap();
    assert_eq!(begun.peer_addr().to_string(), "192.0.2.7:4711");
}

#[tokio::test]
async fn what_was_not_passed_in_is_left_alone() {
    let own = TcpListener::bind("127.0.0.1:0").unwrap();
    let number = std::os::fd::AsRawFd::as_raw_fd(&own);
    assert!(refusal(number).await.contains("this process has opened it"));
    assert!(fcntl_getfd(own.as_fd()).is_ok());
    assert!(refusal(60_000).await.contains("descriptor 60000 is not open"));
    let file = as_inherited(std::fs::File::open("Cargo.toml").unwrap());
    assert!(refusal(file).await.contains("is not a listening stream socket"));
    let connected = std::net::TcpStream::connect(own.local_addr().unwrap()).unwrap();
    assert!(cfg!(not(target_os = "linux")) || refusal(as_inherited(connected)).await.contains("is not a listening"));
}

/// rule: tcp-2
#[tokio::test]
async fn the_descriptors_are_lent_for_the_time_of_a_call() {
    let tcp = crate::server::listener::Listener::bind("127.0.0.1:0").await.unwrap();
    let addr = tcp.local_addr().as_inet().unwrap();
    let named = |fd: std::os::fd::BorrowedFd<'_>| rustix::net::getsockname(fd).unwrap();
    assert_eq!(tcp.with_fds(named).unwrap(), [addr.into()]);
    let _client = std::net::TcpStream::connect(addr).unwrap();
    let incoming = tcp.accept().await.unwrap();
    let socket_of = |options: crate::conn::options::TcpOptions<'_>| options.with_fd(|fd| Ok(named(fd)));
    assert_eq!(socket_of(incoming.as_tcp().unwrap()).unwrap(), addr.into());
    let mut connection = incoming.into_tcp();
    assert_eq!(socket_of(connection.as_tcp().unwrap()).unwrap(), addr.into());
    connection.abort();
    let gone = socket_of(connection.as_tcp().unwrap()).unwrap_err();
    assert_eq!(gone.kind(), std::io::ErrorKind::NotConnected);
    tcp.group().begin_drain();
    assert!(tcp.with_fds(|_| ()).is_none());
    let (stream, other) = std::os::unix::net::UnixStream::pair().unwrap();
    let mut unix = crate::layers::stream::Stream::from_std(stream, Policy::default()).unwrap();
    assert!(unix.get_ref().is_some());
    drop(other);
    unix.close().await;
    assert!(unix.get_ref().is_none());
}
