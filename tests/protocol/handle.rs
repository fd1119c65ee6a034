//! The handle: what other tasks and threads can do with a connection.

use bowline::protocol::Runner;
use bowline::testing::BoxTransport;
use bowline::testing::peer::Event as Seen;
use bowline::{Policy, Transport as _};
use tokio::io::AsyncWriteExt;

use crate::common::{bounded, expect, over_all, pattern, read_all};
use crate::probe::{Probe, run, start};
use crate::setup::{as_client, client_and_raw, plain_and_raw};

/// rule: write-1, write-2
#[tokio::test]
async fn sequences_of_many_threads_do_not_mix() {
    over_all(|_, a, mut b| async move {
        let running = run(Probe::quiet(), a);
        let threads: Vec<_> = (0..4_u8)
            .map(|thread| {
                let handle = running.handle.clone();
                std::thread::spawn(move || {
                    for round in 0..50_u8 {
                        handle.write_sequence([[thread, round], [b'a', b'b']]);
                    }
                })
            })
            .collect();
        let mut all = vec![0; 4 * 50 * 4];
        tokio::io::AsyncReadExt::read_exact(&mut b, &mut all).await.unwrap();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let mut next = [0; 4];
        for part in all.chunks(4) {
            let [thread, round, b'a', b'b'] = part else { panic!("{part:?}") };
            assert_eq!(next[usize::from(*thread)], *round);
            next[usize::from(*thread)] += 1;
        }
        running.handle.abort();
        running.task.await.unwrap();
    })
    .await;
}

/// rule: write-8
#[tokio::test]
async fn the_counts_are_those_of_the_bytes() {
    over_all(|_, a, b: BoxTransport| async move {
        let running = run(Probe::quiet(), a);
        running.handle.write(pattern(100_000));
        let (mut reading, mut writing) = tokio::io::split(b);
        let (sent, expected) = (pattern(50_000), pattern(100_000));
        tokio::join!(async { writing.write_all(&sent).await.unwrap() }, expect(&mut reading, &expected));
        running.told.len(50_000).await;
        assert_eq!((running.handle.sent(), running.handle.received()), (100_000, 50_000));
        running.handle.abort();
        running.task.await.unwrap();
        assert!(running.handle.is_lost());
    })
    .await;
}

/// rule: life-3, secure-5
#[tokio::test]
async fn a_failure_ends_a_handshake_too() {
    bounded("tcp", async {
        for begins in [true, false] {
            let (running, mut raw) = if begins {
                let (a, raw) = plain_and_raw(Policy::default()).await;
                (start(Runner::new(Probe::quiet(), a).begin_tls(as_client())), raw)
            } else {
                let (a, raw) = client_and_raw(Policy::default()).await;
                (run(Probe::quiet(), a), raw)
            };
            raw.receive(1).await;
            running.handle.fail("mine");
            assert_eq!(raw.observe().await.last(), Some(&Seen::Reset));
            assert_eq!(running.task.await.unwrap().reason.to_string(), "mine");
            assert_eq!(running.told.names(), ["made", "lost(protocol)"]);
        }
    })
    .await;
}

/// rule: life-5, end-1
#[tokio::test]
async fn every_waiting_task_is_notified_of_the_loss() {
    over_all(|_, a, mut b| async move {
        let running = run(Probe::quiet(), a);
        let waiting: Vec<_> = (0..5)
            .map(|_| {
                let handle = running.handle.clone();
                tokio::spawn(async move { handle.lost().await })
            })
            .collect();
        tokio::task::yield_now().await;
        assert!(!running.handle.is_lost() && running.handle.reason().is_none());
        running.handle.close();
        assert!(read_all(&mut b).await.1.is_ok());
        b.close().await;
        for waiting in waiting {
            assert!(waiting.await.unwrap().is_clean());
        }
        running.task.await.unwrap();
    })
    .await;
}
