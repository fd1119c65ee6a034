use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixListener, UnixStream};

use super::*;
use crate::server::listener::Listener;

/// A path of its own for each test, without a file.
fn place(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("bowline-handover-{name}-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    path
}

async fn listener() -> Listener {
    Listener::bind("127.0.0.1:0").await.unwrap()
}

fn offer(path: &PathBuf, listener: &Listener) -> OpenOffer {
    let mut offer = Offer::new().ready_timeout(Duration::from_secs(5));
    offer.add("https", listener).unwrap();
    offer.open(path).unwrap()
}

// rule: handover-1
#[tokio::test]
async fn a_successor_accepts_from_the_same_socket_and_its_backlog() {
    let (path, old) = (place("same"), listener().await);
    let addr = old.local_addr().as_inet().unwrap();
    let taken = tokio::spawn(offer(&path, &old).taken());
    // This client waits in the backlog while the process is replaced.
    let mut client = TcpStream::connect(addr).await.unwrap();
    let mut handover = Handover::take(&path).await.unwrap().unwrap();
    assert_eq!(handover.names().collect::<Vec<_>>(), ["https"]);
    let new = Listener::builder().from_std_all(handover.sockets("https")).unwrap();
    assert_eq!(new.local_addr(), old.local_addr());
    assert_eq!(handover.sockets("https").len(), 0);
    handover.ready().await.unwrap();
    taken.await.unwrap().unwrap();
    assert!(!path.exists(), "the path is free for the next offer");
    old.group().drain(Duration::ZERO).await;
    let mut served = new.accept().await.unwrap().into_tcp();
    served.write_all(b"here").await.unwrap();
    let mut answer = [0; 4];
    client.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"here");
    TcpStream::connect(addr).await.expect("the socket never stopped listening");
}

// rule: handover-1
#[tokio::test]
async fn a_drain_that_takes_the_backlog_leaves_the_socket_to_the_successor() {
    let (path, old) = (place("backlog"), Listener::builder().finish_on_drain(true).bind("127.0.0.1:0").await.unwrap());
    let addr = old.local_addr().as_inet().unwrap();
    let taken = tokio::spawn(offer(&path, &old).taken());
    let mut handover = Handover::take(&path).await.unwrap().unwrap();
    let new = Listener::builder().from_std_all(handover.sockets("https")).unwrap();
    handover.ready().await.unwrap();
    taken.await.unwrap().unwrap();
    old.group().drain(Duration::ZERO).await;
    let connecting = tokio::time::timeout(Duration::from_secs(20), TcpStream::connect(addr));
    let client = connecting.await.expect("the system answers new clients").unwrap();
    drop(new.accept().await.unwrap());
    drop(client);
}

// rule: handover-2
#[tokio::test]
async fn a_successor_that_fails_changes_nothing() {
    let (path, old) = (place("fails"), listener().await);
    let taken = tokio::spawn(offer(&path, &old).taken());
    drop(Handover::take(&path).await.unwrap().unwrap());
    let mut strange = UnixStream::connect(&path).await.unwrap();
    strange.write_all(b"?").await.unwrap();
    let mut all = Vec::new();
    strange.read_to_end(&mut all).await.unwrap();
    assert!(!taken.is_finished());
    let again = Handover::take(&path).await.unwrap().unwrap();
    again.ready().await.unwrap();
    taken.await.unwrap().unwrap();
}

// rule: handover-2
#[tokio::test(start_paused = true)]
async fn a_successor_that_is_never_ready_does_not_keep_others_waiting() {
    let (path, old) = (place("never"), listener().await);
    let taken = tokio::spawn(offer(&path, &old).taken());
    let hangs = Handover::take(&path).await.unwrap().unwrap();
    let next = Handover::take(&path).await.unwrap().unwrap();
    next.ready().await.unwrap();
    taken.await.unwrap().unwrap();
    assert!(hangs.ready().await.is_err());
}

#[tokio::test]
async fn without_a_predecessor_there_is_nothing_to_take() {
    let path = place("nobody");
    assert!(Handover::take(&path).await.unwrap().is_none());
    // A file that a killed process has left.
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    assert!(Handover::take(&path).await.unwrap().is_none());
    drop(Offer::new().open(&path).unwrap());
    assert!(!path.exists());
}

#[tokio::test]
async fn an_offer_that_is_dropped_leaves_the_listener_alone() {
    let (path, old) = (place("dropped"), listener().await);
    drop(offer(&path, &old));
    assert!(Handover::take(&path).await.unwrap().is_none());
    let client = TcpStream::connect(old.local_addr().as_inet().unwrap()).await.unwrap();
    drop(old.accept().await.unwrap());
    drop(client);
}

// rule: handover-3
#[tokio::test]
async fn only_this_user_may_ask() {
    use std::os::unix::fs::PermissionsExt;
    let path = place("mode");
    let offer = Offer::new().open(&path).unwrap();
    let second = Offer::new().open(&path).unwrap_err();
    assert!(crate::chain(&second).to_string().contains("another listener uses this path"), "{second}");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    drop(offer);
}

// rule: handover-4
#[tokio::test(start_paused = true)]
async fn a_predecessor_that_answers_wrongly_or_not_at_all_is_an_error() {
    let path = place("wrong");
    let silent = UnixListener::bind(&path).unwrap();
    let error = Handover::take(&path).await.unwrap_err();
    assert!(error.to_string().contains("does not hand its sockets over"), "{error}");
    let answering = tokio::spawn(async move {
        // The first connection is that of the call above.
        for answer in [b"".as_slice(), b"hello", b"bowline-handover 1 1\nhttps\n"] {
            let (mut asking, _) = silent.accept().await.unwrap();
            asking.write_all(answer).await.ok();
        }
    });
    for problem in ["where \"bowline-handover 1 \" was expected", "names 1 sockets and sent 0"] {
        let error = Handover::take(&path).await.unwrap_err();
        assert!(error.to_string().contains(problem), "{error}");
    }
    answering.await.unwrap();
    std::fs::remove_file(&path).unwrap();
}

#[tokio::test]
async fn a_name_that_cannot_be_sent_is_refused() {
    let (mut offer, old) = (Offer::new(), listener().await);
    for name in ["", "a b", "a\n", &"x".repeat(65)] {
        assert!(offer.add(name, &old).unwrap_err().to_string().contains("is not a name for a socket"), "{name:?}");
    }
    old.group().drain(Duration::ZERO).await;
    assert!(matches!(offer.add("https", &old), Err(Error::Draining)));
}
