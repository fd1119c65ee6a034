//! Either leg ends at any moment, in any way.

use bowline::testing::{BoxTransport, Kind};
use bowline::{Policy, Reason, Transport};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};

use crate::setup::{Ends, Joined, bounded, byte_at, joined, pattern};

const ROUNDS: u64 = 200;
const MOST: u64 = 400_000;

/// Pseudo-random numbers, which are the same in each run.
struct Dice(u64);

impl Dice {
    fn of(round: u64) -> Self {
        Self((round + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// How one leg ends, after its peer has sent a number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kill {
    /// The peer ends its half in order.
    HalfClose,
    /// The peer aborts.
    Abort,
    /// The peer drops its connection, which is a truncation on TLS.
    Drop,
    /// The relay's side aborts the leg.
    Local,
}

const KILLS: [Kill; 4] = [Kill::HalfClose, Kill::Abort, Kill::Drop, Kill::Local];

const PAIRS: [(Kind, Kind); 6] = [
    (Kind::Tcp, Kind::Tcp),
    (Kind::Tls13, Kind::Tcp),
    (Kind::Tcp, Kind::Tls12),
    (Kind::Tls13, Kind::Tls13),
    (Kind::Memory, Kind::Tls13),
    (Kind::Upgraded, Kind::Tcp),
];

/// The bytes that a peer received, and how its connection ended.
struct Got {
    bytes: usize,
    end: Result<(), Reason>,
}

/// Reads to the end, and checks that the received bytes are the first ones that were sent.
async fn get(read: &mut ReadHalf<BoxTransport>) -> Got {
    let (mut bytes, mut buf) = (0, vec![0; 32 << 10]);
    loop {
        match read.read(&mut buf).await {
            Ok(0) => return Got { bytes, end: Ok(()) },
            Ok(n) => {
                assert!(buf[..n].iter().enumerate().all(|(i, byte)| *byte == byte_at(bytes + i)), "other bytes came");
                bytes += n;
            }
            Err(error) => return Got { bytes, end: Err(Reason::from_io(error, bowline::Phase::Open)) },
        }
    }
}

/// Sends this many bytes of the pattern, as far as possible. Returns how many were accepted.
async fn send(write: &mut WriteHalf<BoxTransport>, data: &[u8]) -> usize {
    let mut sent = 0;
    while sent < data.len() {
        match write.write(&data[sent..]).await {
            Ok(n) => sent += n,
            Err(_) => break,
        }
    }
    sent
}

/// One round: two peers send to each other, and `one` is killed after a number of bytes.
async fn round(seed: u64) {
    let mut dice = Dice::of(seed);
    let kinds = PAIRS[dice.below(PAIRS.len() as u64) as usize];
    let kill = KILLS[dice.below(KILLS.len() as u64) as usize];
    let (swapped, at, back) = (dice.below(2) == 1, dice.below(MOST) as usize, dice.below(MOST) as usize);
    let what = format!("round {seed}: {kill:?} over {kinds:?} behind {at} bytes, swapped: {swapped}");
    bounded(&what.clone(), async move {
        let Joined { one, other, controls, relayed, .. } = joined(kinds, &Policy::default(), swapped).await;
        let killer = one.control();
        let (mut one_read, mut one_write) = tokio::io::split(one);
        let (mut other_read, mut other_write) = tokio::io::split(other);
        let sending_back = tokio::spawn(async move {
            let sent = send(&mut other_write, &pattern(back)).await;
            let ended = sent == back && other_write.shutdown().await.is_ok();
            (sent, ended, other_write)
        });
        let getting = tokio::spawn(async move { (get(&mut other_read).await, other_read) });
        let getting_back = tokio::spawn(async move { (get(&mut one_read).await, one_read) });
        let sent = send(&mut one_write, &pattern(at)).await;
        match kill {
            Kill::HalfClose => one_write.shutdown().await.unwrap(),
            Kill::Abort => killer.abort(),
            Kill::Drop => getting_back.abort(),
            Kill::Local => controls[0].abort(),
        }
        if kill == Kill::Drop {
            drop(one_write);
            // This task holds the other half of the connection, and drops it when it ends.
            let _ = getting_back.await;
            let (got, _) = getting.await.unwrap();
            return not_in_order(&what, kill, &got, sent, &relayed.await.unwrap());
        }
        let (got, other_read) = getting.await.unwrap();
        let (got_back, one_read) = getting_back.await.unwrap();
        let (sent_back, has_ended, other_write) = sending_back.await.unwrap();
        if kill != Kill::HalfClose {
            assert!(got_back.end.is_err() || has_ended, "{what}");
            return not_in_order(&what, kill, &got, sent, &relayed.await.unwrap());
        }
        assert!(got.end.is_ok() && got.bytes == at && sent == at, "{what}: {} of {at}, {:?}", got.bytes, got.end);
        assert!(got_back.end.is_ok() && got_back.bytes == back && sent_back == back, "{what}");
        let (mut one, mut other) = (one_read.unsplit(one_write), other_read.unsplit(other_write));
        let (x, y) = tokio::join!(one.close(), other.close());
        let ends = relayed.await.unwrap();
        assert!(x.is_clean() && y.is_clean() && ends.is_clean(), "{what}: {ends:?}");
    })
    .await;
}

fn not_in_order(what: &str, kill: Kill, got: &Got, sent: usize, ends: &Ends) {
    assert!(matches!(got.end, Err(Reason::Reset(_))), "{what}: the other peer saw {:?}", got.end);
    assert!(got.bytes <= sent, "{what}");
    let (one, other) = ends.reasons();
    let is_right = match kill {
        Kill::HalfClose => false,
        Kill::Abort => one == "reset",
        Kill::Drop => one == "truncated" || one == "reset",
        Kill::Local => one == "aborted",
    };
    assert!(is_right && other == "aborted" && !ends.other.marker_sent(), "{what}: {ends:?}");
}

/// rule: flow-6, write-1, end-1, half-8, abort-2
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_end_of_one_leg_at_any_moment_ends_the_other_in_the_same_way() {
    for seed in 0..ROUNDS {
        round(seed).await;
    }
}
