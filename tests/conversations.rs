//! Random conversations of two upgradable connections over a pipe of random size: data, upgrades, downgrades, ends, on
//! both sides. No byte is lost or reordered, and each side reports the end correctly.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use bowline::testing::{Pipe, pipe, shared_pki};
use bowline::{Address, Policy, Reason, StartTls, Stream, Transport, UpgradableConnection, Watermarks};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

type Connection = UpgradableConnection<Stream<Pipe>>;

/// One step that both sides do together.
#[derive(Debug, Clone)]
enum Step {
    /// Both send this many bytes, in writes of this size, and read the bytes of the other side.
    Talk {
        sizes: [usize; 2],
        piece: usize,
        corked: bool,
    },
    Upgrade,
    Downgrade,
}

#[derive(Debug, Clone, Copy)]
enum Ending {
    Close,
    HalfCloseThenClose,
    /// One side aborts, with this many bytes unread.
    Abort(usize),
    /// One side is dropped.
    Drop,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => ([0..60_000_usize, 0..60_000_usize], prop_oneof![Just(7_usize), 500..20_000_usize], any::<bool>())
            .prop_map(|(sizes, piece, corked)| Step::Talk { sizes, piece, corked }),
        2 => Just(Step::Upgrade),
        1 => Just(Step::Downgrade),
    ]
}

fn ending() -> impl Strategy<Value = Ending> {
    prop_oneof![
        3 => Just(Ending::Close),
        2 => Just(Ending::HalfCloseThenClose),
        1 => (0..100_000_usize).prop_map(Ending::Abort),
        1 => Just(Ending::Drop),
    ]
}

fn data(side: usize, size: usize) -> Vec<u8> {
    (0..size).map(|n| (n * 31 + side * 7 + n / 251) as u8).collect()
}

async fn send(connection: &mut Connection, side: usize, size: usize, piece: usize, corked: bool) {
    for chunk in data(side, size).chunks(piece) {
        if corked {
            connection.cork().write_all(chunk).await.unwrap();
        } else {
            connection.write_all(chunk).await.unwrap();
        }
    }
}

async fn talk(both: [Connection; 2], sizes: [usize; 2], piece: usize, corked: bool) -> [Connection; 2] {
    let mut tasks = Vec::new();
    for (side, connection) in both.into_iter().enumerate() {
        tasks.push(tokio::spawn(async move {
            // The same connection reads and writes: it has to read while a write waits for space in the pipe.
            let (mut read, mut write) = tokio::io::split(connection);
            let reading = async {
                let mut received = vec![0; sizes[1 - side]];
                read.read_exact(&mut received).await.unwrap();
                assert!(received == data(1 - side, sizes[1 - side]), "other bytes came than were sent");
            };
            let writing = async {
                for chunk in data(side, sizes[side]).chunks(piece) {
                    write.write_all(chunk).await.unwrap();
                }
            };
            tokio::join!(reading, writing);
            let mut connection = read.unsplit(write);
            if corked {
                send(&mut connection, side, 100, 7, true).await;
                let mut received = vec![0; 100];
                connection.read_exact(&mut received).await.unwrap();
                assert!(received == data(1 - side, 100));
            }
            connection
        }));
    }
    let mut both = Vec::new();
    for task in tasks {
        both.push(task.await.unwrap());
    }
    let [a, b] = <[Connection; 2]>::try_from(both).unwrap();
    [a, b]
}

async fn play(capacity: usize, tight: bool, steps: Vec<Step>, ending: Ending) {
    let mut policy = Policy::default();
    if tight {
        policy = policy.watermarks(Watermarks::new(0, 100));
    }
    let (a, b) = pipe(capacity);
    let name = || Address::Other("pipe".into());
    let [a, b] = [a, b].map(|io| {
        UpgradableConnection::new(Stream::with(io, name(), name(), policy.clone()).wakes_unlocked().delivers_at_once())
    });
    let mut both = [a, b];
    let mut depth = 0;
    for step in steps {
        match step {
            Step::Talk { sizes, piece, corked } => both = talk(both, sizes, piece, corked).await,
            Step::Upgrade if depth < 3 => {
                let pki = shared_pki();
                let [a, b] = &mut both;
                let (x, y) = tokio::join!(
                    a.start_tls(StartTls::client(&pki.client_tls(), "localhost")),
                    b.start_tls(StartTls::server(&pki.server_tls())),
                );
                x.unwrap();
                y.unwrap();
                depth += 1;
            }
            Step::Downgrade if depth > 0 => {
                let [a, b] = &mut both;
                let (x, y) = tokio::join!(a.stop_tls(), b.stop_tls());
                x.unwrap();
                y.unwrap();
                depth -= 1;
            }
            Step::Upgrade | Step::Downgrade => {}
        }
    }
    end(both, ending).await;
}

async fn end([mut a, mut b]: [Connection; 2], ending: Ending) {
    match ending {
        Ending::Close => {
            let (x, y) = tokio::join!(a.close(), b.close());
            assert!(x.is_clean() && y.is_clean(), "{x:?} {y:?}");
        }
        Ending::HalfCloseThenClose => {
            // Start the half-close, and do not wait for it: a small pipe cannot hold the markers of all layers while
            // the other side does not read.
            let _ = tokio::time::timeout(Duration::from_millis(1), a.close_write()).await;
            let writing = tokio::spawn(async move {
                assert_eq!(b.read(&mut [0; 1]).await.unwrap(), 0);
                b.write_all(&data(1, 30_000)).await.unwrap();
                b.close().await
            });
            let mut received = Vec::new();
            a.read_to_end(&mut received).await.unwrap();
            assert!(received == data(1, 30_000));
            assert!(a.close().await.is_clean() && writing.await.unwrap().is_clean());
        }
        Ending::Abort(size) => {
            let _ = tokio::time::timeout(Duration::from_millis(5), a.write_all(&data(0, size))).await;
            a.abort();
            // An abort over a pipe takes effect at the next poll, which drops the stream.
            assert!(a.read(&mut [0; 1]).await.is_err());
            let mut received = Vec::new();
            let error = b.read_to_end(&mut received).await.unwrap_err();
            assert!(matches!(Reason::from_io(error, bowline::Phase::Open), Reason::Reset(_)));
            assert!(data(0, size).starts_with(&received));
        }
        Ending::Drop => {
            drop(a);
            assert!(b.read_to_end(&mut Vec::new()).await.is_err(), "a dropped connection looks complete");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, max_shrink_iters: 0, ..ProptestConfig::default() })]

    /// rule: write-1, write-7, upgrade-1, upgrade-8, upgrade-9, close-1, close-11, close-12, half-2, abort-1, abort-2
    #[test]
    fn random_conversations_lose_nothing_and_end_right(
        capacity in prop_oneof![Just(1_usize), 2..600_usize, 10_000..70_000_usize],
        tight in any::<bool>(),
        steps in proptest::collection::vec(step(), 0..7),
        ending in ending(),
    ) {
        // A pipe of one byte is slow, so little data is sent through it. Data that is written under a cork, while
        // nobody reads, must fit into the queue and the pipe.
        let roomy = capacity >= 10_000 && !tight;
        let steps = steps.into_iter().map(|step| fitting(step, capacity < 100, roomy)).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let play = play(capacity, tight, steps, ending);
            tokio::time::timeout(Duration::from_secs(30), play).await.expect("hangs");
        });
    }
}

fn fitting(step: Step, is_slow: bool, is_roomy: bool) -> Step {
    let part = if is_slow { 30 } else { 1 };
    match step {
        Step::Talk { sizes: [a, b], piece, corked } => {
            Step::Talk { sizes: [a / part, b / part], piece, corked: corked && is_roomy }
        }
        other => other,
    }
}
