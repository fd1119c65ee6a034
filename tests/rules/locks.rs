//! No lock is held while a task is woken. The wakers here poll their task at once: if a lock that the task needs were
//! held, they would deadlock.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, TryLockError, mpsc};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use bowline::protocol::{Runner, relay};
use bowline::testing::peer::RawTls;
use bowline::testing::{Kind, memory_pair, memory_pair_with, pair, shared_pki, tcp_pair, tls_over};
use bowline::{
    Connector, Listener, OwnedReadHalf, OwnedWriteHalf, Policy, Split, TcpConnection, TlsVersion, Transport,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::common::BOUND;

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A task that runs inside of its waker.
struct Inline {
    task: Mutex<Option<Task>>,
    again: AtomicBool,
    is_done: AtomicBool,
}

impl Inline {
    fn begin(task: impl Future<Output = ()> + Send + 'static) -> Arc<Self> {
        let task = Mutex::new(Some(Box::pin(task) as Task));
        let inline = Arc::new(Self { task, again: AtomicBool::new(false), is_done: AtomicBool::new(false) });
        inline.wake_by_ref();
        inline
    }

    fn is_done(&self) -> bool {
        self.is_done.load(Ordering::SeqCst)
    }
}

impl Wake for Inline {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.again.store(true, Ordering::SeqCst);
        while self.again.load(Ordering::SeqCst) {
            let mut task = match self.task.try_lock() {
                Ok(task) => task,
                // The task is being polled now. The call that polls it polls it once more afterwards.
                Err(TryLockError::WouldBlock) => return,
                Err(TryLockError::Poisoned(_)) => panic!("the task has panicked"),
            };
            self.again.store(false, Ordering::SeqCst);
            let waker = Waker::from(Arc::clone(self));
            let Some(future) = &mut *task else { return };
            if future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
                *task = None;
                self.is_done.store(true, Ordering::SeqCst);
            }
        }
    }
}

/// Runs on a separate thread and runtime, so that a deadlock hangs only that thread.
fn watched<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let (done, is_done) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test());
        let _ = done.send(());
    });
    match is_done.recv_timeout(BOUND) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("a task was woken under a lock that it wants"),
        Ok(()) | Err(mpsc::RecvTimeoutError::Disconnected) => thread.join().unwrap(),
    }
}

/// Waits until all of them are done.
async fn all_done(tasks: &[Arc<Inline>]) {
    while !tasks.iter().all(|task| task.is_done()) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// rule: life-7
#[test]
fn the_last_member_of_a_draining_group_wakes_without_a_lock() {
    watched(|| async {
        for kind in Kind::ALL {
            let (ours, _theirs) = pair(kind).await.unwrap();
            let group = bowline::DrainGroup::new();
            assert!(group.join(&ours.control()));
            let drained = Inline::begin({
                let group = group.clone();
                async move {
                    let report = group.drain(None).await;
                    assert_eq!((report.total(), group.connections()), (1, 0));
                }
            });
            drop(ours);
            all_done(&[drained]).await;
        }
    });
}

/// rule: life-7
#[test]
fn a_drain_that_begins_wakes_accepts_and_connections_without_a_lock() {
    watched(|| async {
        let listener = Arc::new(Listener::builder().max_per_peer(8).bind("127.0.0.1:0").await.unwrap());
        let _client = Connector::new().connect_addr(listener.local_addr()).await.unwrap();
        let connection = listener.accept().await.unwrap().into_tcp();
        let group = listener.group().clone();
        let accepting = Inline::begin({
            let listener = Arc::clone(&listener);
            async move {
                assert!(listener.accept().await.is_err());
                assert!(listener.accept().await.is_err());
                assert_eq!(listener.status().refused, 0);
            }
        });
        let told = Inline::begin({
            let (control, group) = (connection.control(), group.clone());
            async move {
                control.draining().await;
                assert_eq!(group.connections(), 1);
                control.abort();
            }
        });
        group.begin_drain();
        all_done(&[accepting, told]).await;
    });
}

/// A TLS connection of a listener that allows a single connection. Its reader is dropped, its writer remains, and tasks
/// wait for its end. Each task needs a lock.
async fn lose_by_the_writer(policy: Policy, lose: impl AsyncFnOnce(&mut RawTls, bowline::TlsWriteHalf<TcpConnection>)) {
    let listener = Listener::builder().policy(policy).max_connections(1).max_per_peer(1);
    let listener = Arc::new(listener.bind("127.0.0.1:0").await.unwrap());
    let addr = listener.local_addr().as_inet().unwrap();
    let raw = tokio::net::TcpStream::connect(addr).await.unwrap();
    let (server_tls, client_tls) = (shared_pki().server_tls(), shared_pki().client_tls());
    let incoming = listener.accept().await.unwrap();
    let (ours, peer) = tokio::join!(incoming.handshake(&server_tls), RawTls::client(raw, &client_tls, "localhost"));
    let (mut peer, (read, write)) = (peer.unwrap(), ours.unwrap().into_split());
    let (control, group) = (write.control(), listener.group().clone());
    let read = Arc::new(tokio::sync::Mutex::new(read));
    let reading = Inline::begin({
        let read = Arc::clone(&read);
        async move { while read.lock().await.read(&mut [0]).await.is_ok_and(|n| n > 0) {} }
    });
    let touch = {
        let (control, group, listener) = (control.clone(), group.clone(), Arc::clone(&listener));
        move || {
            control.abort();
            let _ = (control.traffic(), group.connections(), listener.status(), control.report());
        }
    };
    let waiting = Inline::begin({
        let (control, touch) = (control.clone(), touch.clone());
        async move {
            control.lost().await;
            touch();
        }
    });
    // The next connection waits for the permit of the first one.
    let _second = tokio::net::TcpStream::connect(addr).await.unwrap();
    let accepting = Inline::begin(async move {
        let second = listener.accept().await.unwrap();
        touch();
        drop(second);
    });
    lose(&mut peer, write).await;
    all_done(&[reading, waiting, accepting]).await;
}

/// rule: life-7
#[test]
fn the_loss_of_a_connection_wakes_without_a_lock() {
    watched(|| async {
        lose_by_the_writer(Policy::default(), async |peer, mut write| {
            peer.reset().await;
            while write.write_all(&[7; 4096]).await.is_ok() {
                tokio::task::yield_now().await;
            }
            drop(write);
        })
        .await;
        lose_by_the_writer(Policy::default(), async |_, write| write.control().abort()).await;
        let policy = Policy::default().idle_timeout(Duration::from_millis(50));
        lose_by_the_writer(policy, async |_, write| write.control().lost().await).await;
    });
}

/// rule: life-7, half-10
#[test]
fn the_end_of_a_half_wakes_the_other_one_without_a_lock() {
    watched(|| async {
        let policy = Policy::default().half_open_timeout(Duration::from_millis(50));
        for version in [TlsVersion::V1_2, TlsVersion::V1_3] {
            let (a, b) = bowline::testing::tcp_pair_with(policy.clone()).await.unwrap();
            let (a, b) = tls_over((a, b), version).await.unwrap();
            // A second session runs inside the first one.
            let (a, b) = tls_over((a, b), version).await.unwrap();
            let ((mut a_in, mut a_out), (_b_in, _b_out)) = (a.into_split(), b.into_split());
            let reading = Inline::begin(async move {
                assert!(a_in.read(&mut [0]).await.is_err(), "it is idle");
                let _ = a_in.status();
            });
            a_out.shutdown().await.unwrap();
            all_done(&[reading]).await;
        }
    });
}

/// rule: life-7
#[test]
fn an_abort_wakes_tasks_at_any_transport_without_a_lock() {
    watched(|| async {
        for kind in Kind::ALL {
            let (mut ours, _theirs) = pair(kind).await.unwrap();
            let control = ours.control();
            let reading = Inline::begin(async move {
                assert!(ours.read(&mut [0]).await.is_err());
                assert!(ours.write(b"x").await.is_err());
                assert!(ours.status().reason.is_some());
                ours.control().abort();
            });
            control.abort();
            all_done(&[reading]).await;
        }
        let policy = Policy::default().idle_timeout(Duration::from_millis(20));
        let (mut ours, _theirs) = memory_pair_with(policy);
        let reading = Inline::begin(async move {
            assert!(ours.read(&mut [0]).await.is_err());
            assert!(ours.status().reason.is_some());
        });
        all_done(&[reading]).await;
    });
}

/// A waker that panics, or counts.
struct Waking {
    panics: bool,
    times: AtomicUsize,
}

impl Waking {
    fn new(panics: bool) -> Arc<Self> {
        Arc::new(Self { panics, times: AtomicUsize::new(0) })
    }

    /// Polls with this waker a future that is not ready.
    fn poll<F: Future>(self: &Arc<Self>, future: Pin<&mut F>) {
        assert!(future.poll(&mut Context::from_waker(&Waker::from(Arc::clone(self)))).is_pending());
    }
}

impl Wake for Waking {
    fn wake(self: Arc<Self>) {
        self.times.fetch_add(1, Ordering::SeqCst);
        assert!(!self.panics, "this waker panics");
    }
}

/// rule: life-7
#[test]
fn a_waker_that_panics_does_not_stop_the_wake_of_another_task() {
    watched(|| async {
        for version in [TlsVersion::V1_2, TlsVersion::V1_3] {
            let (ours, _theirs) = tls_over(memory_pair(), version).await.unwrap();
            let control = ours.control();
            let (mut read, mut write) = ours.into_split();
            let mut room = [0];
            let (mut reading, filling) = (Box::pin(read.read(&mut room)), vec![7; 1 << 20]);
            let mut writing = Box::pin(write.write_all(&filling));
            let (bad, good) = (Waking::new(true), Waking::new(false));
            // After the yield, the task has its whole budget again.
            tokio::task::yield_now().await;
            bad.poll(reading.as_mut());
            good.poll(writing.as_mut());
            // The call must return, whichever task makes it.
            control.abort();
            assert!(bad.times.load(Ordering::SeqCst) > 0 && good.times.load(Ordering::SeqCst) > 0, "{version}");
        }
    });
}

/// rule: life-7
#[test]
fn the_two_legs_of_a_relay_of_protocols_wake_each_other_without_a_lock() {
    watched(|| async {
        for ends_in_order in [false, true] {
            let ((a, mut left), (b, mut right)) = (memory_pair(), tcp_pair().await.unwrap());
            let (one, other) = relay();
            let (one, other) = (Runner::new(one, a), Runner::new(other, b));
            let legs = [
                Inline::begin(async move { drop(one.run().await) }),
                Inline::begin(async move { drop(other.run().await) }),
            ];
            left.write_all(b"there").await.unwrap();
            let mut got = [0; 5];
            right.read_exact(&mut got).await.unwrap();
            assert_eq!(&got, b"there");
            if ends_in_order {
                tokio::join!(left.close(), right.close());
            } else {
                right.abort();
            }
            all_done(&legs).await;
        }
    });
}
