//! Two peers of different speeds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bowline::testing::{BoxTransport, Kind, pair};
use bowline::{SocketOptions, Transport, relay};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::time::sleep;

use crate::setup::{bounded, spawn};

/// A relay seals the bytes that it reads from a plaintext leg. Larger reads need fewer system calls on both legs.
#[tokio::test]
async fn plain_tcp_reads_ahead_more_in_bulk_and_less_after_it() {
    bounded("tcp", async {
        let (mut client, mut server) = bowline::testing::tcp_pair().await.unwrap();
        let sending = tokio::spawn(async move {
            client.write_all(&vec![b'b'; 8 << 20]).await.unwrap();
            client
        });
        let mut lengths = Vec::new();
        while lengths.iter().sum::<usize>() < 8 << 20 {
            let n = server.fill_buf().await.unwrap().len();
            server.consume(n);
            lengths.push(n);
        }
        assert!(lengths[0] <= 33 << 10 && lengths.iter().max() == Some(&(64 << 10)), "{lengths:?}");

        let mut client = sending.await.unwrap();
        for answer in [&b"a short one"[..], &[b'l'; 40 << 10]] {
            client.write_all(answer).await.unwrap();
            let n = server.fill_buf().await.unwrap().len();
            assert!(n <= 33 << 10, "{n}");
            server.consume(n);
        }
    })
    .await;
}

/// The limit for the bytes in transit: in the relay, in the two peers, and in the systems' buffers between them.
const HELD: u64 = 2 << 20;
const MIB: u64 = 1 << 20;

/// The result of a run.
struct Run {
    most_held: u64,
    seconds: f64,
}

/// Sends this many bytes through a relay to a peer that reads at a tenth of the relay's speed, which is measured first.
/// The bytes that were sent and have not arrived are in transit. The systems' buffers are made small, so that they hold
/// few of these bytes.
async fn ten_to_one(kinds: (Kind, Kind), bytes: u64) -> Run {
    let (mut client, a) = pair(kinds.0).await.unwrap();
    let (b, mut backend) = pair(kinds.1).await.unwrap();
    for end in [&client, &a, &b, &backend] {
        narrow(end);
    }
    let sent = Arc::new(AtomicU64::new(0));
    let counting = Arc::clone(&sent);
    let begun = Instant::now();
    let relaying = spawn(a, b);
    let sending = tokio::spawn(async move {
        let block = vec![b'z'; 64 << 10];
        let mut left = bytes;
        while left > 0 {
            let n = client.write(&block[..left.min(block.len() as u64) as usize]).await.unwrap();
            counting.fetch_add(n as u64, Ordering::Relaxed);
            left -= n as u64;
        }
        client.close_write().await.unwrap();
        client
    });
    let (mut received, mut most_held, mut buf) = (0, 0, vec![0; 64 << 10]);
    let measured = bytes / 10;
    let mut pause = Duration::ZERO;
    loop {
        let n = backend.read(&mut buf).await.unwrap() as u64;
        if n == 0 {
            break;
        }
        received += n;
        most_held = most_held.max(sent.load(Ordering::Relaxed).saturating_sub(received));
        if received < measured {
            pause = begun.elapsed() * 10;
            continue;
        }
        // From here on, the reader is ten times as slow as for the first `measured` bytes.
        let due = pause.mul_f64((received - measured) as f64 / measured as f64);
        let ahead = due.saturating_sub(begun.elapsed());
        if ahead > Duration::from_millis(2) {
            sleep(ahead.min(Duration::from_millis(50))).await;
        }
    }
    assert_eq!(received, bytes);
    let seconds = begun.elapsed().as_secs_f64();
    let mut client = sending.await.unwrap();
    tokio::join!(client.close(), backend.close());
    let report = relaying.await.unwrap();
    assert!(report.is_clean() && report.a_to_b == bytes, "{report:?}");
    Run { most_held, seconds }
}

fn narrow(end: &BoxTransport) {
    // A pipe in memory has no such buffers.
    if let Some(tcp) = end.as_tcp() {
        tcp.set_send_buffer_size(64 << 10).unwrap();
        tcp.set_recv_buffer_size(64 << 10).unwrap();
    }
}

async fn holds_little(kinds: (Kind, Kind), bytes: u64) {
    let run = ten_to_one(kinds, bytes).await;
    println!(
        "{} to {}: {} MiB in {:.1} s, at most {} KiB on the way",
        kinds.0,
        kinds.1,
        bytes / MIB,
        run.seconds,
        run.most_held / 1024
    );
    assert!(run.most_held < HELD, "{} bytes were held", run.most_held);
}

/// rule: flow-6, write-8
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_peer_makes_the_fast_one_wait_and_memory_stays_bounded() {
    for (kinds, mib) in [
        ((Kind::Tcp, Kind::Tcp), 64),
        ((Kind::Tls13, Kind::Tcp), 16),
        ((Kind::Tcp, Kind::Tls13), 16),
        ((Kind::Memory, Kind::MemoryTls), 8),
    ] {
        bounded(&format!("{kinds:?}"), holds_little(kinds, mib * MIB)).await;
    }
}

/// As the test above, with 1 GiB, and with a limit for the memory of the process: `cargo test --release --all-features
/// --test relay -- --ignored --nocapture`.
///
/// rule: flow-6, write-8
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute or more"]
async fn a_gibibyte_goes_through_at_ten_to_one_in_little_memory() {
    for kinds in [(Kind::Tcp, Kind::Tcp), (Kind::Tls13, Kind::Tcp), (Kind::Tcp, Kind::Tls13)] {
        // Code and configuration are read into memory once.
        ten_to_one(kinds, 16 * MIB).await;
        let before = resident();
        holds_little(kinds, 1024 * MIB).await;
        let grown = resident().saturating_sub(before);
        println!("  the process grew by {} KiB", grown / 1024);
        assert!(grown < HELD);
    }
}

/// The largest number of bytes of memory that the process has had; 0 if the system does not report it.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0 kB");
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap_or(0) * 1024
}

/// Prints the throughput next to that of `tokio::io::copy_bidirectional` over the same transports, without assertions:
/// `cargo test --release --all-features --test relay -- --ignored --nocapture throughput`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn throughput_beside_copy_bidirectional() {
    for kinds in [(Kind::Tcp, Kind::Tcp), (Kind::Tls13, Kind::Tcp), (Kind::Tcp, Kind::Tls13)] {
        for ours in [true, false, true, false] {
            let (mut client, mut a) = pair(kinds.0).await.unwrap();
            let (mut b, mut backend) = pair(kinds.1).await.unwrap();
            let begun = Instant::now();
            let relaying = tokio::spawn(async move {
                if ours {
                    relay(&mut a, &mut b).await;
                } else {
                    tokio::io::copy_bidirectional(&mut a, &mut b).await.unwrap();
                }
            });
            let sending = tokio::spawn(async move {
                let block = vec![b'z'; 64 << 10];
                for _ in 0..16 * 1024 {
                    client.write_all(&block).await.unwrap();
                }
                client.close_write().await.unwrap();
                client
            });
            let (mut received, mut buf) = (0, vec![0; 256 << 10]);
            loop {
                match backend.read(&mut buf).await.unwrap() {
                    0 => break,
                    n => received += n as u64,
                }
            }
            let rate = received as f64 / 1e6 / begun.elapsed().as_secs_f64();
            let which = if ours { "relay" } else { "copy_bidirectional" };
            println!("{} to {}: {rate:.0} MB/s, {which}", kinds.0, kinds.1);
            let mut client = sending.await.unwrap();
            tokio::join!(client.close(), backend.close());
            relaying.await.unwrap();
        }
    }
}
