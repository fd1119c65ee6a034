use std::future::{Future, poll_fn};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::task::Poll;
use std::time::Duration;

use bowline::testing::{BoxTransport, Kind, pair, shared_pki, tcp_pair};
use bowline::{
    Blame, Connector, DrainGroup, DrainReport, Error, Incoming, Listener, Reason, Split, StartTls, TlsConnection,
    Transport, UpgradableConnection,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::common::{BOUND, bounded, over_all, read_all, settle};

async fn listen(group: &DrainGroup) -> Listener {
    Listener::builder().group(group).bind("127.0.0.1:0").await.unwrap()
}

async fn accept(listener: &Listener) -> (TcpStream, Incoming) {
    let client = TcpStream::connect(listener.local_addr().as_inet().unwrap()).await.unwrap();
    (client, timeout(BOUND, listener.accept()).await.unwrap().unwrap())
}

async fn is_refused(addr: SocketAddr) -> bool {
    matches!(TcpStream::connect(addr).await, Err(error) if error.kind() == ErrorKind::ConnectionRefused)
}

fn assert_draining<T: std::fmt::Debug>(result: Result<T, Error>) {
    let error = result.unwrap_err();
    assert!(matches!(error, Error::Draining), "{error:?}");
    assert_eq!(error.blame(), Blame::Us);
    assert!(matches!(Reason::from(error), Reason::Aborted));
}

/// The counts that are not 0.
fn counts(report: &DrainReport) -> Vec<(&'static str, usize)> {
    report.iter().filter(|(_, count)| *count > 0).map(|(outcome, count)| (outcome.name(), count)).collect()
}

/// rule: drain-1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_accept_polled_while_a_drain_starts_returns_draining() {
    for _ in 0..200 {
        let group = DrainGroup::new();
        let listener = listen(&group).await;
        let accepting = tokio::spawn(async move {
            // Accept is called again and again, so that the drain begins during a poll.
            loop {
                if let Ok(accepted) = timeout(Duration::ZERO, listener.accept()).await {
                    return accepted.map(drop);
                }
            }
        });
        let drain = tokio::task::spawn_blocking(move || group.begin_drain());
        let (accepted, begun) = timeout(BOUND, async { tokio::join!(accepting, drain) }).await.unwrap();
        begun.unwrap();
        assert_draining(accepted.unwrap());
    }
}

/// rule: drain-1
#[tokio::test]
async fn the_listeners_of_a_draining_group_accept_no_connection() {
    let group = DrainGroup::new();
    let listeners = [listen(&group).await, listen(&group).await];
    // One accept is polled repeatedly, the other one waits and is not polled.
    let mut asleep = Box::pin(listeners[1].accept());
    assert!(poll_fn(|cx| Poll::Ready(asleep.as_mut().poll(cx))).await.is_pending());
    let waiting = async { tokio::join!(listeners[0].accept(), listeners[0].accept()) };
    let begin = async {
        tokio::task::yield_now().await;
        group.begin_drain();
        group.begin_drain();
    };
    let ((one, other), ()) = timeout(BOUND, async { tokio::join!(waiting, begin) }).await.unwrap();
    assert_draining(one);
    assert_draining(other);
    assert_draining(listeners[0].accept().await);
    for listener in &listeners {
        assert!(is_refused(listener.local_addr().as_inet().unwrap()).await);
    }
    assert_draining(asleep.await);
    // A listener that joins after the drain has begun is shut down at once.
    let late = listen(&group).await;
    assert_draining(late.accept().await);
    assert!(is_refused(late.local_addr().as_inet().unwrap()).await);
}

/// rule: drain-1
#[tokio::test]
async fn a_drain_concerns_its_own_group_only() {
    let (one, other) = (Listener::bind("127.0.0.1:0").await.unwrap(), Listener::bind("127.0.0.1:0").await.unwrap());
    one.group().begin_drain();
    let (_client, incoming) = accept(&other).await;
    assert!(one.group().is_draining() && !other.group().is_draining());
    assert!(!incoming.into_tcp().control().is_draining());
}

/// rule: tcp-10
#[tokio::test]
async fn a_drain_leaves_a_listening_socket_that_was_handed_in_to_its_holders() {
    let managers = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = managers.local_addr().unwrap();
    let listener = Listener::from_std(managers.try_clone().unwrap()).unwrap();
    let accepting = async { tokio::join!(listener.accept(), listener.accept()) };
    let begin = async {
        tokio::task::yield_now().await;
        listener.group().begin_drain();
    };
    let ((one, other), ()) = timeout(BOUND, async { tokio::join!(accepting, begin) }).await.unwrap();
    assert_draining(one);
    assert_draining(other);
    assert_draining(listener.accept().await);
    // The socket keeps listening for its other owners, and keeps its backlog.
    let client = TcpStream::connect(addr).await.unwrap();
    drop(listener);
    let (_server, peer) = managers.accept().unwrap();
    assert_eq!(peer, client.local_addr().unwrap());
    // A successor can take over the same socket.
    let successor = Listener::from_std(managers).unwrap();
    let _ = accept(&successor).await;
}

/// rule: tcp-10, drain-1
#[tokio::test]
async fn a_drain_closes_a_passed_in_socket_without_other_holders() {
    let listener = Listener::from_std(std::net::TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
    listener.group().begin_drain();
    assert!(is_refused(listener.local_addr().as_inet().unwrap()).await);
}

/// A way in which a connection ends, and how it is counted.
#[derive(Debug, Clone, Copy)]
enum Ending {
    Close,
    Abort,
    Drop,
    PeerAborts,
    PeerDrops,
    Nothing,
}

impl Ending {
    const ALL: [Self; 6] = [Self::Close, Self::Abort, Self::Drop, Self::PeerAborts, Self::PeerDrops, Self::Nothing];

    /// Ends the first of the two. Returns it if it is still open.
    async fn play(self, mut ours: BoxTransport, mut theirs: BoxTransport) -> Option<BoxTransport> {
        match self {
            Self::Close => drop(tokio::join!(ours.close(), theirs.close())),
            Self::Abort => ours.abort(),
            Self::Drop => drop(ours),
            Self::PeerAborts => {
                theirs.abort();
                assert!(read_all(&mut ours).await.1.is_err());
            }
            Self::PeerDrops => {
                drop(theirs);
                let _ = read_all(&mut ours).await;
                ours.close().await;
            }
            Self::Nothing => return Some(ours),
        }
        None
    }

    fn counted(self, kind: Kind) -> (&'static str, usize) {
        match self {
            Self::Close => ("closed", 1),
            Self::Abort | Self::Nothing => ("aborted", 1),
            Self::Drop => ("dropped", 1),
            Self::PeerAborts => ("reset", 1),
            // A drop of TLS over TCP sends FIN without close_notify. Other connections are reset.
            Self::PeerDrops if kind.is_tls() && kind.has_socket() => ("truncated", 1),
            Self::PeerDrops => ("reset", 1),
        }
    }
}

/// rule: drain-2, drain-3
#[tokio::test]
async fn a_drain_notifies_every_connection_and_counts_it_by_its_outcome() {
    for kind in Kind::ALL {
        for ending in Ending::ALL {
            bounded(&format!("{kind}, {ending:?}"), async move {
                let (mut ours, mut theirs) = pair(kind).await.unwrap();
                settle(&mut ours, &mut theirs).await;
                let group = DrainGroup::new();
                assert!(group.join(&ours.control()));
                let control = ours.control();
                let told = tokio::spawn(async move { control.draining().await });
                let playing = tokio::spawn(async move {
                    told.await.unwrap();
                    ending.play(ours, theirs).await
                });
                let deadline = matches!(ending, Ending::Nothing).then_some(Duration::from_millis(50));
                let report = group.drain(deadline).await;
                assert_eq!(counts(&report), [ending.counted(kind)], "{report}");
                assert_eq!((report.total(), report.cut_off), (1, usize::from(deadline.is_some())));
                assert_eq!(report.is_clean(), matches!(ending, Ending::Close));
                let cut_off = playing.await.unwrap();
                if let Some(mut ours) = cut_off {
                    assert_eq!(ours.read(&mut [0]).await.unwrap_err().kind(), ErrorKind::ConnectionAborted);
                }
                assert_eq!(group.drain(None).await, report, "the same to whoever asks again");
                assert_eq!(group.connections(), 0);
            })
            .await;
        }
    }
}

/// rule: drain-3, abort-4
#[tokio::test]
async fn the_deadline_aborts_the_rest_and_the_report_counts_them() {
    let group = DrainGroup::new();
    let listener = listen(&group).await;
    let mut clients = Vec::new();
    let mut deaf = Vec::new();
    for n in 0..10 {
        let (client, incoming) = accept(&listener).await;
        clients.push(client);
        let mut connection = incoming.into_tcp();
        if n < 3 {
            deaf.push(connection);
        } else {
            let client = clients.pop().unwrap();
            tokio::spawn(async move {
                connection.control().draining().await;
                let client = tokio::spawn(async move {
                    let mut client = client;
                    client.read(&mut [0]).await
                });
                (connection.close().await, client.await)
            });
        }
    }
    assert_eq!(group.connections(), 10);
    let draining = tokio::spawn({
        let group = group.clone();
        async move { group.drain(BOUND).await }
    });
    // However slow the seven are, the deadline comes after them.
    timeout(BOUND, async {
        while group.connections() > 3 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    tokio::time::pause();
    let report = draining.await.unwrap();
    tokio::time::resume();
    assert_eq!(
        (
            report.total(),
            report.count(bowline::Outcome::Closed),
            report.count(bowline::Outcome::Aborted),
            report.cut_off
        ),
        (10, 7, 3, 3)
    );
    assert_eq!(report.to_string(), "10 connections ended: 7 closed, 3 aborted (3 of them at the deadline)");
    for mut client in clients {
        assert_eq!(client.read(&mut [0]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
    // No task has noticed the end yet: the descriptors are open.
    assert_eq!(group.connections(), 3);
    drop(deaf);
    assert_eq!((group.connections(), group.drain(None).await.total()), (0, 10));
}

/// rule: drain-3
#[tokio::test]
async fn connections_that_ended_before_the_drain_are_not_counted() {
    let group = DrainGroup::new();
    let (mut ours, mut theirs) = tcp_pair().await.unwrap();
    group.join(&ours.control());
    let _ = tokio::join!(ours.close(), theirs.close());
    let report = group.drain(None).await;
    assert_eq!((report.total(), report.to_string()), (0, "no connection was open".into()));
}

/// rule: drain-2
#[tokio::test]
async fn unfinished_handshakes_are_ended_by_a_drain() {
    let tls = shared_pki().server_tls();
    for late in [false, true] {
        let group = DrainGroup::new();
        let listener = listen(&group).await;
        let (mut clients, mut incomings) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            let (client, incoming) = accept(&listener).await;
            clients.push(client);
            incomings.push(incoming);
        }
        let [one, two, three] = incomings.try_into().unwrap();
        let begin = async {
            if !late {
                tokio::task::yield_now().await;
            }
            group.begin_drain();
        };
        let handshakes = async {
            if late {
                // The drain began before the handshake.
                group.draining().await;
            }
            tokio::join!(
                one.handshake(&tls),
                two.handshake_upgradable(&tls),
                three.finish(|connection| async move {
                    let _connection = connection;
                    std::future::pending::<Result<(), _>>().await
                }),
            )
        };
        let ((), (one, two, three)) = timeout(BOUND, async { tokio::join!(begin, handshakes) }).await.unwrap();
        assert_draining(one);
        assert_draining(two);
        assert_draining(three);
        for mut client in clients {
            assert_eq!(client.read(&mut [0]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
        }
        let report = group.drain(None).await;
        assert_eq!((report.handshakes, report.total(), report.cut_off), (3, 0, 0));
        assert_eq!(report.to_string(), "no connection was open; 3 handshakes were not finished");
    }
}

/// rule: drain-2
#[tokio::test]
async fn a_connection_that_joins_during_a_drain_is_notified_at_once() {
    let group = DrainGroup::new();
    let listener = listen(&group).await;
    let (_client, incoming) = accept(&listener).await;
    group.begin_drain();
    let accepted = incoming.into_tcp();
    assert!(accepted.control().is_draining());
    timeout(BOUND, accepted.control().draining()).await.unwrap();
    let (joins, _other) = tcp_pair().await.unwrap();
    assert!(!joins.control().is_draining());
    assert!(group.join(&joins.control()));
    timeout(BOUND, joins.control().draining()).await.unwrap();
}

/// rule: drain-2
#[tokio::test]
async fn draining_waits_for_ever_without_a_group_and_a_member_joins_no_other() {
    let (mut ours, _theirs) = tcp_pair().await.unwrap();
    let control = ours.control();
    let mut draining = Box::pin(control.draining());
    assert!(poll_fn(|cx| Poll::Ready(draining.as_mut().poll(cx))).await.is_pending());
    let (one, other) = (DrainGroup::new(), DrainGroup::new());
    assert!(one.join(&control) && !one.join(&control) && !other.join(&control));
    assert_eq!((one.connections(), other.connections()), (1, 0));
    ours.abort();
    drop(ours);
    let (gone, _theirs) = tcp_pair().await.unwrap();
    let control = gone.control();
    drop(gone);
    assert!(!other.join(&control));
    assert_eq!((one.connections(), other.connections()), (0, 0));
}

/// rule: drain-4, life-4
#[tokio::test]
async fn a_connection_is_a_member_exactly_until_its_socket_is_gone() {
    let group = DrainGroup::new();
    let listener = listen(&group).await;
    let (tls, client_tls) = (shared_pki().server_tls(), shared_pki().client_tls());
    // First, an incoming connection is dropped before its handshake.
    drop(accept(&listener).await);
    assert_eq!(group.connections(), 0);
    // Then a connection is upgraded and split. Its halves are dropped one after the other, and its `Control` is kept.
    let connecting = Connector::new().connect_addr(listener.local_addr()).await.unwrap();
    let mut client = UpgradableConnection::new(connecting);
    let mut server = listener.accept().await.unwrap().into_upgradable();
    let (ours, theirs) = tokio::join!(
        server.start_tls(StartTls::server(&tls)),
        client.start_tls(StartTls::client(&client_tls, "localhost")),
    );
    ours.unwrap();
    theirs.unwrap();
    let control = server.control();
    assert_eq!(group.connections(), 1);
    let (read, write) = server.into_split();
    drop(write);
    assert_eq!(group.connections(), 1);
    drop(read);
    assert_eq!(group.connections(), 0);
    assert!(control.is_ended());
    // At last, a handshake fails.
    let (mut client, incoming) = accept(&listener).await;
    client.write_all(b"this is no TLS\r\n").await.unwrap();
    let (handshake, _) = tokio::join!(incoming.handshake(&tls), async {
        let _ = client.read_to_end(&mut Vec::new()).await;
        drop(client);
    });
    assert!(handshake.is_err());
    assert_eq!(group.connections(), 0);
}

/// rule: drain-4
#[tokio::test]
async fn many_connections_come_and_go_in_any_order() {
    bounded("many", async {
        let group = DrainGroup::new();
        let listener = listen(&group).await;
        let mut open = Vec::new();
        for n in 0..200_usize {
            let (client, incoming) = accept(&listener).await;
            open.push((client, incoming.into_tcp()));
            if n % 3 == 2 {
                drop(open.swap_remove(n * 7 % open.len()));
            }
            assert_eq!(group.connections(), open.len());
        }
        let expected = open.len();
        group.begin_drain();
        for (_, connection) in &mut open {
            connection.abort();
        }
        let report = group.drain(None).await;
        assert_eq!((report.count(bowline::Outcome::Aborted), report.cut_off), (expected, 0));
    })
    .await;
}

/// rule: drain-3
#[tokio::test]
async fn a_dropped_drain_continues_and_several_tasks_may_wait() {
    over_all(|_, mut a, mut b| async move {
        let group = DrainGroup::new();
        group.join(&a.control());
        assert!(timeout(Duration::from_millis(5), group.drain(None)).await.is_err());
        assert!(group.is_draining() && !a.control().is_aborted());
        let ending = async {
            tokio::task::yield_now().await;
            tokio::join!(a.close(), b.close())
        };
        let (one, other, _) = tokio::join!(group.drain(None), group.drain(None), ending);
        assert_eq!((one.count(bowline::Outcome::Closed), one.total()), (1, 1));
        assert_eq!(one, other);
    })
    .await;
}

/// rule: drain-3
#[tokio::test]
async fn a_handshake_that_times_out_is_counted_as_that() {
    let group = DrainGroup::new();
    let policy = bowline::Policy::default().handshake_timeout(Duration::from_millis(50));
    let (ours, _theirs) = bowline::testing::tcp_pair_with(policy).await.unwrap();
    group.join(&ours.control());
    group.begin_drain();
    assert!(TlsConnection::accept(ours, &shared_pki().server_tls()).await.is_err());
    assert_eq!(counts(&group.drain(None).await), [("timed_out", 1)]);
}
