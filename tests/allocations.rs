//! What the callback face allocates, and what it keeps. In a program of its own, because the allocator and the
//! descriptors are those of the whole process.
//!
//! Measured: a protocol that echoes over TCP costs none in the steady state; over TLS 1.3 it costs four, rustls's, both ends
//! together.
#![allow(clippy::unwrap_used)]
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use bowline::Transport;
use bowline::protocol::{Outcome, Protocol, Runner, UpgradableTransport};
use bowline::testing::{Kind, pair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The system's allocator, counted.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call is passed on as it came to the system's allocator, whose promises these are.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(place, layout, size) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// What is counted is the whole process: one test at a time.
static TURN: Mutex<()> = Mutex::new(());

struct Echo;

impl Protocol for Echo {
    fn data_received(&mut self, transport: &mut dyn UpgradableTransport, data: &[u8]) -> Outcome<usize> {
        transport.write(data);
        Ok(data.len())
    }
}

const ROUNDS: u64 = 1_000;

async fn exchange(peer: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin), rounds: u64) -> u64 {
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    let mut answer = [0; 100];
    for _ in 0..rounds {
        peer.write_all(&[7; 100]).await.unwrap();
        peer.read_exact(&mut answer).await.unwrap();
    }
    ALLOCATIONS.load(Ordering::Relaxed) - before
}

/// Allocations for each echo, of both ends together where the peer is one of ours.
async fn for_each_echo(kind: Kind) -> f64 {
    let (mut peer, ours) = pair(kind).await.unwrap();
    let running = tokio::spawn(Runner::new(Echo, ours).run());
    exchange(&mut peer, 100).await;
    let count = exchange(&mut peer, ROUNDS).await;
    peer.close().await;
    running.await.unwrap();
    count as f64 / ROUNDS as f64
}

/// rule: life-4, write-7
#[test]
fn an_echo_costs_no_allocation_of_ours() {
    let _turn = TURN.lock().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (tcp, tls) = runtime.block_on(async { (for_each_echo(Kind::Tcp).await, for_each_echo(Kind::Tls13).await) });
    println!("allocations for each echo: {tcp:.2} over TCP, {tls:.2} over TLS 1.3, both ends together");
    assert!(tcp <= 0.01, "{tcp} allocations for each echo over TCP");
    assert!(tls <= 4.5, "{tls} allocations for each echo over TLS 1.3, both ends together");
}

#[cfg(target_os = "linux")]
fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Handles are kept, one for each way to end.
///
/// rule: life-4
#[cfg(target_os = "linux")]
#[test]
fn after_the_end_there_is_no_descriptor_and_no_task_although_handles_are_kept() {
    let _turn = TURN.lock().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let before = (descriptors(), tokio::runtime::Handle::current().metrics().num_alive_tasks());
        let mut handles = Vec::new();
        for kind in Kind::ALL {
            for how in 0..4 {
                let (mut peer, ours) = pair(kind).await.unwrap();
                let runner = Runner::new(Echo, ours);
                let handle = runner.handle();
                let task = tokio::spawn(runner.run());
                handle.set_timer(Some(std::time::Duration::from_secs(3_600)));
                exchange(&mut peer, 1).await;
                match how {
                    0 => handle.close(),
                    1 => handle.abort(),
                    2 => handle.fail("mine"),
                    _ => task.abort(),
                }
                peer.close().await;
                drop(peer);
                let _ = task.await;
                handles.push(handle);
            }
        }
        let after = (descriptors(), tokio::runtime::Handle::current().metrics().num_alive_tasks());
        assert_eq!(after, before);
        assert!(handles.iter().all(|handle| handle.is_lost()));
    });
}
