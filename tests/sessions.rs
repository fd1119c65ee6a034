//! Two sessions of `core`, which do no I/O, connected by the test: every split point of the byte stream, and random
//! interleavings of the operations of both sides.

#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;
use std::io::IoSlice;

use bowline::core::half::{End, RecvHalf, SendHalf};
use bowline::core::session::{Session, Step};
use bowline::testing::shared_pki;
use bowline::{Phase, Reason, TlsVersion, Watermarks};
use proptest::prelude::*;

/// A session, and the bytes that are in transit to it.
struct Side {
    session: Session,
    incoming: VecDeque<u8>,
    fin: bool,
    reset: bool,
    fin_sent: bool,
    sent: Vec<u8>,
    received: Vec<u8>,
    secured: usize,
}

impl Side {
    fn new(session: Session) -> Self {
        let (incoming, sent, received) = (VecDeque::new(), Vec::new(), Vec::new());
        Self { session, incoming, fin: false, reset: false, fin_sent: false, sent, received, secured: 0 }
    }
}

fn sides(version: TlsVersion, marks: Watermarks) -> [Side; 2] {
    let pki = shared_pki();
    let tls = pki.client_tls_builder().min_version(version).max_version(version).build().unwrap();
    let name = bowline::config::server_name("localhost").unwrap();
    let client = tls.session(name, marks).unwrap();
    let server = pki.server_tls().session(marks).unwrap();
    [Side::new(client), Side::new(server)]
}

/// Moves up to `max` sealed bytes from one side onto the wire of the other, and then the end.
fn transmit(sides: &mut [Side; 2], from: usize, max: usize) -> usize {
    let records = sides[from].session.transmit();
    let n = records.len().min(max);
    let bytes = records[..n].to_vec();
    if sides[1 - from].reset {
        sides[from].session.handle_write_lost(Reason::Reset(Phase::Open));
        return 0;
    }
    sides[1 - from].incoming.extend(bytes);
    if n > 0 {
        sides[from].session.transmitted(n);
    }
    if sides[from].session.is_done_sending() && !sides[from].fin_sent {
        sides[from].fin_sent = true;
        sides[1 - from].fin = true;
    }
    n
}

/// Passes up to `max` bytes in transit to a side, or the end, and lets it read the opened data.
fn receive(side: &mut Side, max: usize) -> bool {
    let n = side.incoming.len().min(max);
    let mut bytes: Vec<u8> = side.incoming.drain(..n).collect();
    while !bytes.is_empty() {
        // The session decides how much input space it offers.
        let space = side.session.input_space();
        let fitting = bytes.len().min(space.len());
        space[..fitting].copy_from_slice(&bytes[..fitting]);
        side.session.handle_input(fitting);
        bytes.drain(..fitting);
    }
    let mut progress = n > 0;
    loop {
        match side.session.step() {
            Step::Data => {
                let mut out = [0; 999];
                let n = side.session.read(&mut out);
                side.received.extend_from_slice(&out[..n]);
                progress = true;
            }
            Step::Secured => {
                side.secured += 1;
                assert!(side.received.is_empty(), "data ahead of the handshake's end");
                progress = true;
            }
            Step::Ended => return progress,
            Step::NeedInput if side.incoming.is_empty() && side.reset => {
                side.session.handle_read_lost(Reason::Reset(Phase::Open));
                progress = true;
            }
            Step::NeedInput if side.incoming.is_empty() && side.fin => {
                side.session.handle_eof();
                progress = true;
            }
            Step::NeedInput => return progress,
        }
    }
}

fn write(side: &mut Side, bytes: &[u8]) {
    let accepted = side.session.write(&[IoSlice::new(bytes)]).unwrap();
    side.sent.extend_from_slice(&bytes[..accepted]);
}

/// Transfers bytes in both directions until there are no more.
fn settle(sides: &mut [Side; 2]) {
    let mut moves = true;
    while moves {
        moves = false;
        for n in 0..2 {
            moves |= transmit(sides, n, usize::MAX) > 0;
            moves |= receive(&mut sides[n], 30_000);
        }
    }
}

/// rule: end-2, end-4, half-2, half-5, write-3, secure-2
#[test]
fn every_split_point_of_the_byte_stream_gives_the_same() {
    for version in [TlsVersion::V1_2, TlsVersion::V1_3] {
        for from in 0..2 {
            let mut split = 0;
            loop {
                let mut both = sides(version, Watermarks::default());
                write(&mut both[0], b"from the client, accepted ahead of the handshake");
                write(&mut both[1], b"from the server");
                both[0].session.close_write();
                both[1].session.close_write();
                // The bytes of the side `from` arrive in two parts: the first `split` bytes, and the rest.
                let mut left = split;
                let mut moves = true;
                while moves {
                    moves = false;
                    for n in 0..2 {
                        let max = if n == from && left > 0 { left } else { usize::MAX };
                        let sent = transmit(&mut both, n, max);
                        if n == from {
                            left = left.saturating_sub(sent);
                        }
                        moves |= sent > 0;
                        moves |= receive(&mut both[1 - n], 30_000);
                    }
                }
                assert_eq!(both[0].received, both[1].sent, "{version} {from} {split}");
                assert_eq!(both[1].received, both[0].sent, "{version} {from} {split}");
                for side in &both {
                    assert!(matches!(side.session.recv(), RecvHalf::Ended(End::Clean)));
                    assert!(matches!(side.session.send(), SendHalf::Finished));
                    assert_eq!(side.secured, 1);
                }
                if left > 0 {
                    // `from` has sent fewer bytes than `split`, so all offsets were tried.
                    break;
                }
                split += 1;
            }
            assert!(split > 300, "{split}");
        }
    }
}

#[derive(Debug, Clone)]
enum Op {
    Write(usize, usize),
    CloseWrite(usize),
    BeginClose(usize),
    Abort(usize),
    Cork(usize),
    Uncork(usize),
    Flush(usize),
    Transmit(usize, usize),
    Receive(usize, usize),
}

fn op() -> impl Strategy<Value = Op> {
    let side = 0..2_usize;
    let size = prop_oneof![Just(0_usize), 1..10_usize, 1_000..40_000_usize];
    prop_oneof![
        6 => (side.clone(), size.clone()).prop_map(|(side, n)| Op::Write(side, n)),
        1 => side.clone().prop_map(Op::CloseWrite),
        1 => side.clone().prop_map(Op::BeginClose),
        1 => side.clone().prop_map(Op::Cork),
        1 => side.clone().prop_map(Op::Uncork),
        1 => side.clone().prop_map(Op::Flush),
        8 => (side.clone(), 1..3_000_usize).prop_map(|(side, n)| Op::Transmit(side, n)),
        8 => (side.clone(), 1..3_000_usize).prop_map(|(side, n)| Op::Receive(side, n)),
        1 => (side, 0..20_u8).prop_map(|(side, dice)| if dice == 0 { Op::Abort(side) } else { Op::Flush(side) }),
    ]
}

/// Performs one operation, and checks the conditions that must always hold.
fn perform(both: &mut [Side; 2], op: &Op, aborted: &mut bool) {
    match *op {
        Op::Write(n, size) => {
            let bytes = vec![size as u8; size];
            let may = both[n].session.send().may_write();
            match both[n].session.write(&[IoSlice::new(&bytes)]) {
                Ok(accepted) => {
                    assert!(may);
                    both[n].sent.extend_from_slice(&bytes[..accepted]);
                }
                Err(_) => assert!(!may, "refused although open"),
            }
        }
        Op::CloseWrite(n) => both[n].session.close_write(),
        Op::BeginClose(n) => {
            both[n].session.begin_close();
            both[n].session.close_write();
        }
        Op::Abort(n) => {
            both[n].session.abort();
            assert!(both[n].session.transmit().is_empty(), "something leaves after an abort");
            both[1 - n].reset = true;
            both[n].incoming.clear();
            *aborted = true;
        }
        Op::Cork(n) => both[n].session.cork(),
        Op::Uncork(n) => both[n].session.uncork(),
        Op::Flush(n) => both[n].session.flush(),
        Op::Transmit(n, max) => {
            transmit(both, n, max);
        }
        Op::Receive(n, max) => {
            receive(&mut both[n], max);
        }
    }
    for n in 0..2 {
        assert!(both[1 - n].sent.starts_with(&both[n].received), "lost, repeated or reordered");
        assert!(both[n].session.queued() <= 64 * 1024 + 32 * 1024, "{}", both[n].session.queued());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// rule: write-1, write-3, write-4, write-7, write-8, half-2, half-3, half-5, close-11, abort-2, abort-3, end-1
    #[test]
    fn random_interleavings_lose_nothing_and_end_right(
        ops in proptest::collection::vec(op(), 1..120),
        tls12 in any::<bool>(),
    ) {
        let version = if tls12 { TlsVersion::V1_2 } else { TlsVersion::V1_3 };
        let mut both = sides(version, Watermarks::default());
        let mut aborted = false;
        for op in &ops {
            perform(&mut both, op, &mut aborted);
        }
        for side in &mut both {
            side.session.uncork();
            side.session.close_write();
        }
        settle(&mut both);
        if aborted {
            for side in &both {
                let ended = match side.session.recv() {
                    RecvHalf::Aborted | RecvHalf::Broken(_) => true,
                    // If the peer's clean end came before the reset, it stays clean.
                    RecvHalf::Ended(End::Clean) => true,
                    RecvHalf::Open | RecvHalf::Ending(_) | RecvHalf::Ended(_) => false,
                };
                prop_assert!(ended, "{:?}", side.session.recv());
            }
        } else {
            for n in 0..2 {
                prop_assert_eq!(&both[n].received, &both[1 - n].sent);
                prop_assert!(matches!(both[n].session.recv(), RecvHalf::Ended(End::Clean)), "{:?}", both[n].session.recv());
                prop_assert!(matches!(both[n].session.send(), SendHalf::Finished), "{:?}", both[n].session.send());
                prop_assert_eq!(both[n].secured, 1);
                prop_assert_eq!(both[n].session.queued(), 0);
            }
        }
    }
}
