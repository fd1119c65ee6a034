//! Abstract Unix sockets, and Unix sockets that were made elsewhere.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::address::Address;
use crate::layers::stream::Stream;
use crate::server::listener::Listener;
use crate::transport::Transport;

#[cfg(any(target_os = "linux", target_os = "android"))]
#[tokio::test]
async fn an_abstract_socket_has_a_name_and_no_file() {
    let name = format!("bowline test {}", std::process::id());
    let endpoint = format!("unix:@{name}");
    let listener = listen(&endpoint).await;
    assert!(!Path::new(&format!("@{name}")).exists());
    assert_eq!(listener.local_addr(), Address::UnixAbstract(name.clone().into_bytes()));
    assert_eq!(listener.local_addr().to_string(), endpoint);
    let (ours, theirs) = meet(&listener, &client(&endpoint)).await;
    let (mut ours, mut theirs) = (ours.unwrap(), theirs.unwrap());
    assert_eq!((theirs.local_addr(), theirs.peer_addr()), (listener.local_addr(), Address::Unix(None)));
    assert_eq!(ours.peer_addr(), listener.local_addr());
    ours.write_all(b"hello").await.unwrap();
    ours.close_write().await.unwrap();
    let mut heard = String::new();
    theirs.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "hello");

    // The name is taken until the listener is dropped or drained.
    match server(&endpoint).listen(Policy::default()).await {
        Err(Error::Bind(error)) => assert_eq!(error.addr, listener.local_addr()),
        other => panic!("{other:?}"),
    }
    listener.group().begin_drain();
    assert!(client(&endpoint).connect().await.is_err());
    drop(listener);
    let _again = listen(&endpoint).await;
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
#[tokio::test]
async fn an_abstract_socket_is_refused_where_there_is_none() {
    let error = server("unix:@lab").listen(Policy::default()).await.unwrap_err();
    assert!(crate::error::chain(&error).to_string().contains("unix:./@NAME"), "{error}");
    assert!(!Path::new("@lab").exists());
}

#[tokio::test]
async fn a_connection_over_a_unix_socket_knows_the_process_at_the_other_end() {
    let dir = tempfile::tempdir().unwrap();
    let endpoint = format!("unix:{}", dir.path().join("x.sock").display());
    let listener = listen(&endpoint).await;
    let (ours, theirs) = meet(&listener, &client(&endpoint)).await;
    let (ours, theirs) = (ours.unwrap(), theirs.unwrap());
    for end in [&ours, &theirs] {
        let cred = end.control().peer_cred().unwrap();
        assert_eq!(cred.uid, rustix::process::geteuid().as_raw());
        assert_eq!(cred.gid, rustix::process::getegid().as_raw());
        #[cfg(target_os = "linux")]
        assert_eq!(cred.pid, Some(std::process::id() as i32));
    }
    let tcp = listen("tcp:0:interface=127.0.0.1").await;
    let (ours, _theirs) = meet(&tcp, &client(&format!("tcp:{}", tcp.local_addr()))).await;
    assert_eq!(ours.unwrap().control().peer_cred(), None);
}

/// rule: tcp-10
#[tokio::test]
async fn unix_sockets_that_were_made_elsewhere_are_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.sock");
    let managers = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let listener = EndpointListener::from_std_unix(managers.try_clone().unwrap(), Listener::builder()).unwrap();
    assert_eq!(listener.local_addr(), Address::Unix(Some(path.clone())));
    let stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
    let mut ours = Stream::from_std(stream, Policy::default()).unwrap();
    ours.write_all(b"hello").await.unwrap();
    ours.close_write().await.unwrap();
    let mut theirs = listener.accept().await.unwrap().begin().await.unwrap();
    let mut heard = String::new();
    theirs.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "hello");
    // The manager's socket keeps listening after a drain, and the file stays.
    listener.group().begin_drain();
    drop(listener);
    assert!(std::os::unix::net::UnixStream::connect(&path).is_ok());
}

/// rule: tcp-8
#[tokio::test]
async fn strings_choose_the_versions_of_ip() {
    let both = listen("tcp:localhost:0").await;
    assert!(both.local_addrs().iter().all(|addr| addr.as_inet().unwrap().ip().is_loopback()));
    let ipv4 = listen("tcp:localhost:0:ipv4-only").await;
    assert!(ipv4.local_addrs().iter().all(|addr| addr.as_inet().unwrap().is_ipv4()));
    let Ok(dual) = server("tcp:0:dual-stack").listen(Policy::default()).await else { return };
    let port = dual.local_addr().as_inet().unwrap().port();
    for host in ["127.0.0.1", "[::1]"] {
        let (ours, theirs) = meet(&dual, &client(&format!("tcp:{host}:{port}"))).await;
        assert!(ours.is_ok() && theirs.is_ok(), "{host}");
    }
    let ipv6 = listen("tcp:0:ipv6-only").await;
    let port = ipv6.local_addr().as_inet().unwrap().port();
    assert!(client(&format!("tcp:127.0.0.1:{port}")).connect().await.is_err());
    let port = ipv4.local_addr().as_inet().unwrap().port();
    let (ours, theirs) = meet(&ipv4, &client(&format!("tcp:localhost:{port}:ipv4-only"))).await;
    assert!(ours.is_ok() && theirs.is_ok());
    match client(&format!("tcp:localhost:{port}:ipv6-only")).connect().await {
        Err(crate::Error::Connect(error)) => {
            assert!(error.attempts.iter().all(|attempt| attempt.addr.as_inet().unwrap().is_ipv6()), "{error}");
        }
        other => panic!("{other:?}"),
    }
}

/// rule: tcp-8
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_string_lets_sockets_share_a_port() {
    let first = listen("tcp:127.0.0.1:0:reuse-port").await;
    let text = format!("tcp:{}:reuse-port", first.local_addr());
    let second = listen(&text).await;
    assert_eq!(second.local_addr(), first.local_addr());
    let alone = text.trim_end_matches(":reuse-port");
    assert!(server(alone).listen(Policy::default()).await.is_err());
}
