//! Each call that waits is polled n times and then dropped, for every n until the call succeeds. After each drop, the
//! connection must do what the section *Cancel safety* of the call says, and nothing may be left: no end of a wire, no
//! descriptor, no permit of a limit, and no memory.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bowline::starttls::{Client, Dialogue, Server};
use bowline::{Control, DrainGroup, Outcome, Policy, Stream, TlsConnection, Transport, UpgradableConnection, relay};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::cell::{CLOSE, Fault, Kind, Shape, Side, THEIRS, near};
use crate::heap;
use crate::peer::{Peer, Task};
use crate::wire::{Knob, Wire, wire};

/// With segments of this size, a handshake needs some tens of polls.
const PIECES: Fault = Fault::Pieces(130);

/// Polls the future at most `n` times. Returns `None` if the future was not ready by then.
async fn at_most<F: Future>(n: usize, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut polls = 0;
    poll_fn(|cx| {
        if polls == n {
            return Poll::Ready(None);
        }
        polls += 1;
        match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            // The future is not polled again. Returning from `at_most` drops it.
            Poll::Pending if polls == n => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Plays a call that is dropped after 0, 1, 2... polls, until it succeeds. This is done twice, and the second time must
/// not leave more memory than the first one. Prints the number of drops.
fn sweep(what: &str, play: impl AsyncFn(usize) -> bool) {
    let once = || {
        (0..).find(|n| {
            assert!(*n < 2_000, "{what}: it never succeeds");
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            runtime.block_on(play(*n))
        })
    };
    // The first time also fills caches.
    let drops = once();
    let before = heap::held();
    // The lengths of signatures vary, so the number of drops may differ.
    once();
    let grown = heap::held() - before;
    assert!(grown < 4_096, "{what}: {grown} bytes are left after {drops:?} drops");
    println!("{what}: {} drops", drops.unwrap());
}

/// One connection, and its peer.
struct Setup {
    kind: Kind,
    peer: Peer,
    knob: Knob,
    control: Control,
}

impl Setup {
    fn new(kind: Kind) -> (Self, Stream<Wire>) {
        let (ours, far, knob) = wire();
        let peer = Peer::new(far);
        let stream = near(ours);
        knob.inject(PIECES);
        (Self { kind, peer, knob, control: stream.control() }, stream)
    }

    /// An open connection.
    async fn open(kind: Kind) -> (Self, UpgradableConnection<Stream<Wire>>) {
        let (setup, stream) = Self::new(kind);
        let mut conn = UpgradableConnection::new(stream);
        if kind.is_tls() {
            let told = setup.peer.tell(Task::StartTls(kind.peers_start()));
            conn.start_tls(kind.start()).await.unwrap();
            told.await.unwrap();
        }
        (setup, conn)
    }

    fn reason(&self) -> &'static str {
        self.control.report().map_or("none", |report| report.reason.name())
    }

    /// The connection was dropped, and nothing of it is left.
    fn is_gone(&self, reason: &str, n: usize) {
        assert!(!self.knob.is_held(), "{:?}, {n} polls: its end of the wire is left", self.kind);
        assert_eq!(self.reason(), reason, "{:?}, {n} polls", self.kind);
    }
}

/// The kinds with one handshake.
fn kinds(shape: Shape) -> impl Iterator<Item = Kind> {
    Kind::all().into_iter().filter(move |kind| kind.shape == shape)
}

/// Reads the peer's data, and closes.
async fn finish(setup: &Setup, mut conn: impl Transport, n: usize) {
    let mut data = vec![0; THEIRS.len()];
    conn.read_exact(&mut data).await.unwrap();
    assert!(data == THEIRS, "{:?}, {n} polls", setup.kind);
    let report = conn.close().await;
    assert!(report.is_clean(), "{:?}, {n} polls: {report}", setup.kind);
    drop(conn);
    setup.is_gone("closed", n);
}

/// The peer sends its data, and closes after ours.
fn let_peer_finish(setup: &Setup) {
    setup.peer.tell(Task::Send(THEIRS.into()));
    setup.peer.tell(Task::ReadAll);
    setup.peer.tell(Task::Close);
}

/// rule: close-12, end-9, life-4
#[test]
fn a_dropped_connect_or_accept_leaves_nothing() {
    for kind in kinds(Shape::Tls) {
        sweep("connect or accept", async |n| {
            let (setup, stream) = Setup::new(kind);
            setup.peer.tell(Task::StartTls(kind.peers_start()));
            let_peer_finish(&setup);
            let (client, server) = kind.configs_of_engine();
            let done = match kind.side {
                Side::Client => at_most(n, TlsConnection::connect(stream, &client, "localhost")).await,
                Side::Server => at_most(n, TlsConnection::accept(stream, &server)).await,
            };
            match done {
                None => setup.is_gone("dropped", n),
                Some(conn) => {
                    finish(&setup, conn.unwrap(), n).await;
                    return true;
                }
            }
            false
        });
    }
}

/// rule: secure-5, write-3
#[test]
fn a_dropped_handshake_goes_on_in_the_next_call() {
    for kind in kinds(Shape::Tls) {
        sweep("handshake", async |n| {
            let (setup, stream) = Setup::new(kind);
            setup.peer.tell(Task::StartTls(kind.peers_start()));
            let_peer_finish(&setup);
            let (client, server) = kind.configs_of_engine();
            let mut conn = match kind.side {
                Side::Client => TlsConnection::client(stream, &client, "localhost").unwrap(),
                Side::Server => TlsConnection::server(stream, &server).unwrap(),
            };
            let done = at_most(n, conn.handshake()).await;
            if done.is_none() {
                conn.handshake().await.unwrap();
            }
            finish(&setup, conn, n).await;
            done.is_some()
        });
    }
}

/// rule: abort-3, close-3, upgrade-5
#[test]
fn after_a_dropped_upgrade_only_close_and_abort_work() {
    for kind in kinds(Shape::Upgraded).chain(kinds(Shape::Nested)) {
        sweep("start_tls", async |n| {
            let (setup, mut conn) = match kind.shape {
                Shape::Nested => Setup::open(kind).await,
                _ => {
                    let (setup, stream) = Setup::new(kind);
                    (setup, UpgradableConnection::new(stream))
                }
            };
            setup.peer.tell(Task::StartTls(kind.peers_start()));
            let_peer_finish(&setup);
            let done = at_most(n, conn.start_tls(kind.start())).await;
            if let Some(done) = done {
                done.unwrap();
                finish(&setup, conn, n).await;
                return true;
            }
            if n == 0 {
                conn.start_tls(kind.start()).await.unwrap();
                finish(&setup, conn, n).await;
                return false;
            }
            assert!(conn.read(&mut [0; 1]).await.is_err(), "{kind:?}, {n} polls");
            assert!(conn.write(b"x").await.is_err(), "{kind:?}, {n} polls");
            assert!(conn.start_tls(kind.start()).await.is_err(), "{kind:?}, {n} polls");
            assert!(conn.stop_tls().await.is_err(), "{kind:?}, {n} polls");
            let reason = if n % 2 == 0 {
                conn.abort();
                "aborted"
            } else {
                tokio::time::timeout(2 * CLOSE, conn.close()).await.unwrap().reason.name()
            };
            drop(conn);
            setup.is_gone(reason, n);
            false
        });
    }
}

/// rule: upgrade-9
#[test]
fn a_dropped_downgrade_goes_on_in_the_next_call() {
    for kind in kinds(Shape::Upgraded).chain(kinds(Shape::Nested)) {
        sweep("stop_tls", async |n| {
            let (setup, mut conn) = Setup::open(kind).await;
            setup.peer.tell(Task::Send(THEIRS.into()));
            setup.peer.tell(Task::StopTls);
            let_peer_finish(&setup);
            let done = at_most(n, conn.stop_tls()).await;
            if done.is_none() {
                if n > 0 {
                    assert!(conn.write(b"x").await.is_err(), "{kind:?}, {n} polls");
                }
                conn.stop_tls().await.unwrap();
            }
            let mut data = vec![0; THEIRS.len()];
            conn.read_exact(&mut data).await.unwrap();
            assert!(data == THEIRS, "{kind:?}, {n} polls");
            finish(&setup, conn, n).await;
            done.is_some()
        });
    }
}

/// rule: close-6, close-16
#[test]
fn a_dropped_close_goes_on_in_the_next_call() {
    for kind in Kind::all() {
        for by_handle in [false, true] {
            sweep("close", async |n| {
                let (setup, mut conn) = Setup::open(kind).await;
                setup.peer.tell(Task::Expect(THEIRS.into()));
                setup.peer.tell(Task::Close);
                conn.write_all(&THEIRS).await.unwrap();
                let control = setup.control.clone();
                // The owner of a stream without TLS has to poll it.
                let by_handle = by_handle && kind.is_tls();
                let done = match by_handle {
                    true => at_most(n, control.close()).await,
                    false => at_most(n, conn.close()).await,
                };
                if by_handle && done.is_none() && n > 0 {
                    assert!(conn.write(b"x").await.is_err(), "{kind:?}, {n} polls");
                }
                let report = match (&done, n % 2) {
                    (Some(report), _) => report.clone(),
                    (None, 0) => conn.close().await,
                    (None, _) if kind.is_tls() => control.close().await,
                    (None, _) => conn.close().await,
                };
                assert!(report.is_clean(), "{kind:?}, {n} polls: {report}");
                drop(conn);
                setup.is_gone("closed", n);
                done.is_some()
            });
        }
    }
}

/// rule: half-2, half-3, write-6
#[test]
fn a_dropped_close_write_ends_our_half_anyway() {
    for kind in Kind::all() {
        sweep("close_write", async |n| {
            let (setup, mut conn) = Setup::open(kind).await;
            setup.peer.tell(Task::Expect(THEIRS.into()));
            let_peer_finish(&setup);
            conn.write_all(&THEIRS).await.unwrap();
            let done = at_most(n, conn.close_write()).await;
            assert_eq!(conn.write(b"x").await.is_err(), n > 0, "{kind:?}, {n} polls");
            if n == 0 {
                return false;
            }
            // Over TLS, the marker leaves although only reads follow. In plaintext, a read does not send it, so
            // `close_write` is called again.
            if !kind.is_tls() && done.is_none() {
                conn.close_write().await.unwrap();
            }
            finish(&setup, conn, n).await;
            done.is_some()
        });
    }
}

/// rule: upgrade-3
#[test]
fn a_dropped_dialogue_goes_on_in_the_next_call() {
    for kind in kinds(Shape::Upgraded).filter(|kind| !kind.express) {
        sweep("negotiate", async |n| {
            let (setup, stream) = Setup::new(kind);
            let mut conn = UpgradableConnection::new(stream);
            let (mut client, mut server) = (Client::new(Dialogue::Smtp, "localhost"), Server::new(Dialogue::Smtp));
            let other = if kind.side == Side::Client { Side::Server } else { Side::Client };
            setup.peer.tell(Task::Negotiate(other));
            setup.peer.tell(Task::StartTls(kind.peers_start()));
            let_peer_finish(&setup);
            let mut done = match kind.side {
                Side::Client => at_most(n, client.negotiate(&mut conn)).await,
                Side::Server => at_most(n, server.negotiate(&mut conn)).await,
            };
            let is_done = done.is_some();
            if !is_done {
                done = Some(match kind.side {
                    Side::Client => client.negotiate(&mut conn).await,
                    Side::Server => server.negotiate(&mut conn).await,
                });
            }
            done.unwrap().unwrap();
            conn.start_tls(kind.start()).await.unwrap();
            finish(&setup, conn, n).await;
            is_done
        });
    }
}

/// rule: flow-6
#[test]
fn a_dropped_relay_goes_on_in_the_next_call() {
    for kind in Kind::all() {
        sweep("relay", async |n| {
            let (first, mut a) = Setup::open(kind).await;
            let (second, mut b) = Setup::open(kind).await;
            let answer = [b'a'; 900];
            first.peer.tell(Task::Send(THEIRS.into()));
            first.peer.tell(Task::CloseWrite);
            let answered = first.peer.tell(Task::Expect(answer.into()));
            first.peer.tell(Task::Close);
            second.peer.tell(Task::Expect(THEIRS.into()));
            second.peer.tell(Task::Send(answer.into()));
            second.peer.tell(Task::Close);
            let done = at_most(n, relay(&mut a, &mut b)).await;
            let is_done = done.is_some();
            let report = match done {
                Some(report) => report,
                None => relay(&mut a, &mut b).await,
            };
            let bytes = if is_done || n == 0 { (report.a_to_b, report.b_to_a) } else { (1_000, 900) };
            assert_eq!(bytes, (1_000, 900), "{kind:?}, {n} polls");
            answered.await.unwrap();
            let reasons = [&report.a, &report.b].map(|report| Outcome::of(&report.reason));
            let is_orderly = reasons.iter().all(|reason| matches!(reason, Outcome::Closed | Outcome::Unconfirmed));
            assert!(is_orderly, "{kind:?}, {n} polls: {report}");
            drop((a, b));
            first.is_gone(reasons[0].name(), n);
            second.is_gone(reasons[1].name(), n);
            is_done
        });
    }
}

/// rule: drain-1, drain-3
#[test]
fn a_dropped_drain_goes_on_and_counts_everything_once() {
    for kind in kinds(Shape::Tls).chain(kinds(Shape::Plain)) {
        sweep("drain", async |n| {
            let group = DrainGroup::new();
            let (setup, mut conn) = Setup::open(kind).await;
            assert!(group.join(&setup.control));
            setup.peer.tell(Task::ReadAll);
            setup.peer.tell(Task::Close);
            let control = setup.control.clone();
            let closing = tokio::spawn(async move {
                control.draining().await;
                conn.close().await
            });
            let done = at_most(n, group.drain(Duration::from_secs(60))).await;
            assert_eq!(group.is_draining(), n > 0);
            let report = match &done {
                Some(report) => report.clone(),
                None => group.drain(Duration::from_secs(60)).await,
            };
            assert!(closing.await.unwrap().is_clean());
            assert_eq!((report.total(), report.count(Outcome::Closed)), (1, 1), "{kind:?}, {n} polls: {report}");
            assert_eq!(group.connections(), 0);
            setup.is_gone("closed", n);
            done.is_some()
        });
    }
}

/// Calls that wait on real sockets. After each round, the number of descriptors is the same as before, and no permit of
/// a limit is held.
///
/// rule: life-4, tcp-5, tcp-7, limit-1
#[cfg(target_os = "linux")]
#[test]
fn dropped_waits_on_sockets_leave_no_descriptor_and_no_place() {
    use bowline::testing::shared_pki;
    use bowline::{Connector, Listener, TlsListener};

    let _turn = crate::sockets::turn();
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (server_tls, client_tls) = (shared_pki().server_tls(), shared_pki().client_tls());
        let policy = Policy::default().handshake_timeout(Duration::from_secs(20));
        let builder = Listener::builder().policy(policy).max_connections(1).max_unfinished(1);
        let listener = builder.bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr();
        let group = listener.group().clone();
        let before = descriptors();
        for call in 0..6 {
            for n in 0.. {
                let connecting = tokio::spawn({
                    let (addr, client_tls) = (addr.clone(), client_tls.clone());
                    async move {
                        let tcp = Connector::new().connect_addr(addr).await?;
                        let mut tls = TlsConnection::connect(tcp, &client_tls, "localhost").await?;
                        Ok::<_, bowline::Error>(tls.close().await)
                    }
                });
                let done = match call {
                    0 => at_most(n, Connector::new().connect_addr(addr.clone())).await.is_some(),
                    1 => at_most(n, listener.accept()).await.is_some(),
                    2 => at_most(n, listener.accept().await.unwrap().handshake(&server_tls)).await.is_some(),
                    3 => at_most(n, listener.accept().await.unwrap().handshake_upgradable(&server_tls)).await.is_some(),
                    4 => {
                        let mut incoming = listener.accept().await.unwrap();
                        let done = at_most(n, incoming.client_hello()).await.is_some();
                        // The dropped call has not consumed the bytes of the hello, so the handshake succeeds.
                        drop(incoming.handshake(&server_tls).await.unwrap());
                        done
                    }
                    _ => at_most(n, listener.accept().await.unwrap().begin_plaintext()).await.is_some(),
                };
                // A connection in the backlog is accepted and dropped, so that each round begins in the same state.
                while !connecting.is_finished() {
                    tokio::select! {
                        biased;
                        _ = tokio::time::sleep(Duration::from_millis(1)) => {}
                        accepted = listener.accept() => drop(accepted),
                    }
                }
                let _ = connecting.await;
                while let Some(accepted) = at_most(1, listener.accept()).await {
                    drop(accepted);
                }
                assert_eq!(group.connections(), 0, "call {call}, {n} polls");
                assert_eq!(descriptors(), before, "call {call}, {n} polls");
                if done {
                    break;
                }
            }
        }
        drop(listener);
        // A `TlsListener` continues its handshakes after an accept was dropped.
        let listener = Listener::builder().bind("127.0.0.1:0").await.unwrap();
        let (addr, group) = (listener.local_addr(), listener.group().clone());
        let mut listener = TlsListener::new(listener, server_tls);
        for n in 1.. {
            let client = tokio::spawn({
                let (addr, client_tls) = (addr.clone(), client_tls.clone());
                async move {
                    let tcp = Connector::new().connect_addr(addr).await?;
                    let mut tls = TlsConnection::connect(tcp, &client_tls, "localhost").await?;
                    Ok::<_, bowline::Error>(tls.close().await)
                }
            });
            let done = at_most(n, listener.accept()).await;
            let is_done = done.is_some();
            let mut accepted = match done {
                Some(accepted) => accepted.unwrap(),
                None => listener.accept().await.unwrap(),
            };
            let report = accepted.close().await;
            drop(accepted);
            assert!(client.await.unwrap().is_ok(), "{n} polls: {report}");
            assert_eq!(group.connections(), 0, "{n} polls");
            if is_done {
                break;
            }
        }
        drop(listener);
        assert_eq!(descriptors(), before - 1);
    });
}
