//! Connections that several threads use, in many orders of these threads. A lost wake-up leaves a thread that waits
//! forever: the checker then reports a deadlock. The clock stands still, and no policy has a time limit. The system has
//! an error for each TCP socket before the threads start, so no thread waits for an event of a socket.
//!
//! shuttle changes threads at each lock and each atomic operation of this crate. It treats every atomic operation as
//! sequentially consistent, so it does not find an `Ordering` that is too weak.

use std::io;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bowline::protocol::{CallbackResult, Conn, Protocol, Runner};
use bowline::testing::{Pipe, pipe, raw_tcp_pair, shared_pki};
use bowline::{
    Address, ClientTls, DrainGroup, Phase, Policy, Reason, ServerTls, SocketOptions, Split, Stream, TcpConnection,
    TlsConnection, Transport, Watermarks,
};
use shuttle::future::block_on;
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::thread::{self, JoinHandle};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

/// Calls `test` this many times with random orders, and as many times with orders that have few changes of threads
/// (PCT). `BOWLINE_ORDERS` multiplies both.
fn in_many_orders(orders: usize, test: impl Fn() + Send + Sync + 'static) {
    LazyLock::force(&TLS);
    // A timer needs a runtime with a clock. It never fires.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let _inside = runtime.enter();
    let times = std::env::var("BOWLINE_ORDERS").map_or(1, |times| times.parse().unwrap());
    let test = Arc::new(test);
    let config = || {
        let mut config = shuttle::Config::new();
        (config.stack_size, config.silence_warnings) = (1 << 20, true);
        config
    };
    let again = Arc::clone(&test);
    let random = shuttle::Runner::new(RandomScheduler::new(orders * times), config()).run(move || again());
    let pct = shuttle::Runner::new(PctScheduler::new(4, orders * times), config()).run(move || test());
    println!("{} orders", random + pct);
}

static TLS: LazyLock<(ClientTls, ServerTls)> = LazyLock::new(|| (shared_pki().client_tls(), shared_pki().server_tls()));

fn policy() -> Policy {
    Policy::default().handshake_timeout(None).close_timeout(None).idle_timeout(None).half_open_timeout(None)
}

fn streams(capacity: usize, policy: Policy) -> [Stream<Pipe>; 2] {
    let (a, b) = pipe(capacity);
    let policy = Arc::new(policy);
    [a, b].map(|end| {
        let name = || Address::Other("memory".into());
        Stream::with(end, name(), name(), Arc::clone(&policy)).wakes_unlocked().delivers_at_once()
    })
}

/// Runs a task in a thread of its own.
fn spawn<R: Send + 'static>(task: impl Future<Output = R> + Send + 'static) -> JoinHandle<R> {
    thread::spawn(move || block_on(task))
}

fn join<R, const N: usize>(threads: [JoinHandle<R>; N]) -> [R; N] {
    threads.map(|thread| thread.join().unwrap())
}

/// Writes until this fails.
async fn write_on(mut to: impl AsyncWrite + Unpin) -> io::Error {
    loop {
        if let Err(error) = to.write_all(&[1; 500]).await {
            return error;
        }
    }
}

async fn read_all(mut from: impl AsyncRead + Unpin) -> Vec<u8> {
    let mut all = Vec::new();
    from.read_to_end(&mut all).await.unwrap();
    all
}

fn reason(error: io::Error) -> Reason {
    Reason::from_io(error, Phase::Open)
}

fn sessions(capacity: usize) -> [TlsConnection<Stream<Pipe>>; 2] {
    let [client, server] = streams(capacity, policy());
    let accepting = spawn(TlsConnection::accept(server, &TLS.1));
    let client = block_on(TlsConnection::connect(client, &TLS.0, "localhost")).unwrap();
    [client, accepting.join().unwrap().unwrap()]
}

/// Four threads use the halves of two sessions, over a layer that is full most of the time. So each pump is driven by
/// its reader, by its writer, and by the waker that the other side calls.
#[test]
fn the_pump_loses_no_wake_up() {
    in_many_orders(150, || {
        let [client, server] = sessions(300);
        let ((from_server, mut to_server), (from_client, mut to_client)) = (client.into_split(), server.into_split());
        let writing = spawn(async move {
            to_server.write_all(&[1; 900]).await.unwrap();
            to_server.write_all(&[2; 500]).await.unwrap();
            to_server.shutdown().await.unwrap();
        });
        let answering = spawn(async move {
            to_client.write_all(&[3; 700]).await.unwrap();
            to_client.shutdown().await.unwrap();
        });
        let reading = spawn(read_all(from_server));
        assert_eq!(block_on(read_all(from_client)), [[1; 900].as_slice(), &[2; 500]].concat());
        assert_eq!(reading.join().unwrap(), [3; 700]);
        join([writing, answering]);
    });
}

/// An abort from another thread ends a read and a write, whether or not they wait already.
#[test]
fn an_abort_wakes_both_halves() {
    in_many_orders(150, || {
        let [client, _server] = sessions(300);
        let control = client.control();
        let (mut read, write) = client.into_split();
        let reading = spawn(async move { read.read(&mut [0; 10]).await.unwrap_err() });
        let writing = spawn(write_on(write));
        control.abort();
        for error in join([reading, writing]) {
            assert!(matches!(reason(error), Reason::Aborted));
        }
    });
}

/// A write half waits for a handshake that no task drives. The layer below has accepted all bytes and is not read, so
/// it holds no waker: only the session itself can wake the half.
#[test]
fn an_abort_wakes_a_half_that_does_not_wait_for_its_layer() {
    in_many_orders(500, || {
        let [client, _silent] = streams(2_000, policy());
        let client = TlsConnection::client(client, &TLS.0, "localhost").unwrap();
        let control = client.control();
        let (_read, mut write) = client.into_split();
        let writing = spawn(async move { write.flush().await.unwrap_err() });
        control.abort();
        assert!(matches!(reason(writing.join().unwrap()), Reason::Aborted));
    });
}

/// A close from another thread ends a read and a write, and ends the connection in order.
#[test]
fn a_close_by_another_thread_ends_in_order() {
    in_many_orders(150, || {
        let [client, mut server] = sessions(2_000);
        let control = client.control();
        let (mut read, mut write) = client.into_split();
        let reading = spawn(async move { read.read(&mut [0; 10]).await.unwrap_err() });
        let writing = spawn(async move { write.write_all(&[1; 100]).await.is_ok() });
        let peer = spawn(async move { (read_all(&mut server).await, server.close().await) });
        let report = block_on(control.close());
        let (arrived, theirs) = peer.join().unwrap();
        assert!(report.is_clean() && theirs.is_clean(), "{report:?} {theirs:?}");
        // A write that was accepted has arrived.
        let written = if writing.join().unwrap() { 100 } else { 0 };
        assert_eq!(arrived.len(), written);
        assert!(matches!(reason(reading.join().unwrap()), Reason::Closed));
    });
}

/// A runtime for the sockets of one test. It runs only until the system has an error for them.
fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap()
}

/// A connection that its peer resets. No half knows that yet.
async fn reset() -> TcpConnection {
    let (ours, peer) = raw_tcp_pair().await.unwrap();
    let ours = TcpConnection::new(ours, policy()).unwrap();
    SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
    drop(peer);
    ours.control().lost().await;
    ours
}

/// A connection that the system gives up, because its peer does not read. No half knows that yet.
async fn given_up() -> TcpConnection {
    let (ours, _peer) = raw_tcp_pair().await.unwrap();
    SockRef::from(&ours).set_send_buffer_size(1 << 16).unwrap();
    let mut ours = TcpConnection::new(ours, policy()).unwrap();
    ours.set_user_timeout(Some(Duration::from_millis(1))).unwrap();
    let control = ours.control();
    tokio::select! {
        biased;
        () = control.lost() => ours,
        end = write_on(&mut ours) => panic!("{end}"),
    }
}

/// The system reports an error of a socket once, to one of two threads. The other one gets what follows from it: a
/// reader the end of the input, a writer a broken pipe.
fn both_halves_report(connection: TcpConnection, is_right: fn(&Reason) -> bool) {
    let (mut read, mut write) = connection.into_split();
    let reading = spawn(async move { read.read(&mut [0; 10]).await.expect_err("no clean end") });
    let writing = spawn(async move { write.write(&[1]).await.unwrap_err() });
    let reasons = join([reading, writing]).map(reason);
    assert!(reasons.iter().all(is_right), "{reasons:?}");
}

#[test]
fn both_halves_report_a_reset() {
    let runtime = runtime();
    in_many_orders(300, move || {
        both_halves_report(runtime.block_on(reset()), |reason| matches!(reason, Reason::Reset(Phase::Open)));
    });
}

/// The system takes half a second to give a connection up, so each order has many connections.
#[test]
fn both_halves_report_that_the_system_gave_up() {
    let runtime = runtime();
    in_many_orders(2, move || {
        let lost = runtime.block_on(async {
            let mut lost = JoinSet::new();
            (0..32).for_each(|_| drop(lost.spawn(given_up())));
            lost.join_all().await
        });
        for connection in lost {
            both_halves_report(connection, |reason| matches!(reason, Reason::TimedOut(Phase::Open)));
        }
    });
}

/// Connections leave a group, join it, and wait for its drain, while it drains.
#[test]
fn a_drain_waits_for_every_member_and_for_no_other() {
    in_many_orders(400, || {
        let group = DrainGroup::new();
        let [member, other] = streams(100, policy());
        let [late, _last] = streams(100, policy());
        assert!(group.join(&member.control()) && group.join(&other.control()));
        let leaving = spawn(async move { drop(member) });
        let closing = spawn(async move {
            other.control().draining().await;
            drop(other);
        });
        let joining = {
            let group = group.clone();
            spawn(async move {
                assert!(group.join(&late.control()));
                late.control().draining().await;
                drop(late);
            })
        };
        let also_draining = {
            let group = group.clone();
            spawn(async move { group.drain(None).await })
        };
        let report = block_on(group.drain(None));
        let second = also_draining.join().unwrap();
        join([leaving, closing, joining]);
        assert_eq!(group.connections(), 0);
        // `other` ends only after the drain has begun. The two others may end before it, or join after it.
        for report in [report, second] {
            assert!((1..=3).contains(&report.total()) && report.cut_off == 0, "{report:?}");
        }
    });
}

struct Sink;

impl Protocol for Sink {
    fn data_received(&mut self, _: &mut dyn Conn, data: &[u8]) -> CallbackResult<usize> {
        Ok(data.len())
    }
}

/// Handles write from two threads, wait for space, and close: the task gets every command, and every waiting thread
/// continues.
#[test]
fn a_mailbox_loses_no_command() {
    in_many_orders(300, || {
        let [ours, mut theirs] = streams(60, policy().watermarks(Watermarks::new(20, 100)));
        let runner = Runner::new(Sink, ours);
        let handle = runner.handle();
        let running = spawn(runner.run());
        let reading = spawn(async move {
            let all = read_all(&mut theirs).await;
            theirs.close().await;
            all
        });
        join([1, 2].map(|byte| {
            let handle = handle.clone();
            spawn(async move {
                for _ in 0..3 {
                    handle.write([byte; 50]);
                    handle.writable().await.unwrap();
                }
            })
        }));
        handle.close();
        let reason = block_on(handle.lost());
        let report = running.join().unwrap();
        let all = reading.join().unwrap();
        assert!(report.is_clean(), "{report:?} {reason:?}");
        for byte in [1, 2] {
            assert_eq!(all.iter().filter(|got| **got == byte).count(), 150);
        }
    });
}

/// An abort, a write and a command meet the end of the task.
#[test]
fn a_handle_survives_the_end_of_its_task() {
    in_many_orders(300, || {
        let [ours, _theirs] = streams(60, policy());
        let runner = Runner::new(Sink, ours);
        let [waiting, writing] = [runner.handle(), runner.handle()];
        let control = writing.control().clone();
        let running = spawn(runner.run());
        let waiting = spawn(async move { waiting.lost().await });
        let writing = spawn(async move {
            writing.write([1; 200]);
            let _ = writing.writable().await;
        });
        control.abort();
        assert!(!running.join().unwrap().is_clean());
        assert!(matches!(waiting.join().unwrap(), Reason::Aborted));
        writing.join().unwrap();
    });
}
