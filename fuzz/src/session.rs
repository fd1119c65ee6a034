//! Two sessions and a wire that the input changes. Both engines must deliver the same data and report the same ends.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::{Arc, LazyLock};

use bowline::core::half::{End, RecvHalf, SendHalf};
use bowline::core::session::{Session, Step};
use bowline::rustls::crypto::{CipherSuiteCommon, CryptoProvider};
use bowline::rustls::{SupportedCipherSuite, Tls13CipherSuite};
use bowline::testing::pki::{KeyKind, Pki, Profile};
use bowline::{ClientTls, Phase, Reason, ServerTls, TlsVersion, Watermarks};

use super::always;
use super::bytes::Bytes;

const VERSIONS: [TlsVersion; 2] = [TlsVersion::V1_2, TlsVersion::V1_3];

/// A key of this provider seals four records of TLS 1.3, so that most records follow a KeyUpdate.
fn short_lived_keys(usual: &CryptoProvider) -> Arc<CryptoProvider> {
    let cipher_suites = usual.cipher_suites.iter().map(|suite| match suite {
        SupportedCipherSuite::Tls13(suite) => SupportedCipherSuite::Tls13(Box::leak(Box::new(Tls13CipherSuite {
            common: CipherSuiteCommon {
                suite: suite.common.suite,
                hash_provider: suite.common.hash_provider,
                confidentiality_limit: 4,
            },
            hkdf_provider: suite.hkdf_provider,
            aead_alg: suite.aead_alg,
            quic: None,
        }))),
        suite @ SupportedCipherSuite::Tls12(_) => *suite,
    });
    Arc::new(CryptoProvider { cipher_suites: cipher_suites.collect(), ..usual.clone() })
}

type Configs = ([ClientTls; 2], ServerTls);

/// For each engine, with usual keys and with short-lived ones: the clients of each version, and the server. Signatures of
/// a fixed length, and no resumption, so that the handshakes of both engines have the same length in each run.
static CONFIGS: LazyLock<[[Configs; 2]; 2]> = LazyLock::new(|| {
    let pki = Pki::new();
    let identity = pki.issue(Profile::server(&[]).key(KeyKind::Ed25519));
    let usual = pki.client_tls();
    let usual = usual.config();
    let providers = [Arc::clone(usual.crypto_provider()), short_lived_keys(usual.crypto_provider())];
    [false, true].map(|is_express| {
        providers.each_ref().map(|provider| {
            let clients = VERSIONS.map(|version| {
                let builder = pki.client_tls_builder().provider(Arc::clone(provider));
                let builder = builder.min_version(version).max_version(version).keep_tickets(0);
                let builder = if is_express { builder.express() } else { builder };
                builder.build().expect("the test PKI is valid")
            });
            let builder = ServerTls::builder().identity(identity.chain_der(), identity.key_der());
            let builder = builder.provider(Arc::clone(provider));
            let builder = if is_express { builder.express() } else { builder };
            (clients, builder.build().expect("the test PKI is valid"))
        })
    })
});

struct Side {
    session: Session,
    /// Records on the way to this side.
    incoming: VecDeque<Vec<u8>>,
    fin: bool,
    reset: bool,
    fin_sent: bool,
    sent: Vec<u8>,
    received: Vec<u8>,
    /// The wire to this side was changed.
    is_meddled: bool,
    secured: usize,
}

impl Side {
    fn new(session: Session) -> Self {
        Self {
            session,
            incoming: VecDeque::new(),
            fin: false,
            reset: false,
            fin_sent: false,
            sent: Vec::new(),
            received: Vec::new(),
            is_meddled: false,
            secured: 0,
        }
    }

    fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let space = self.session.input_space();
            let n = bytes.len().min(space.len());
            space[..n].copy_from_slice(&bytes[..n]);
            self.session.handle_input(n);
            bytes = &bytes[n..];
        }
    }

    /// Does all steps; reads with a buffer of `room` bytes.
    fn step(&mut self, room: usize) {
        let mut out = vec![0; room];
        loop {
            let (step, n) = self.session.step_into(&mut out);
            self.received.extend_from_slice(&out[..n]);
            match step {
                Step::Data if n == 0 => {
                    let n = self.session.read(&mut out);
                    self.received.extend_from_slice(&out[..n]);
                    assert!(n > 0, "data that cannot be read");
                }
                Step::Data => {}
                Step::Secured => {
                    self.secured += 1;
                    assert!(self.received.is_empty() && self.secured == 1);
                }
                Step::Ended => return,
                Step::NeedInput if self.incoming.is_empty() && self.reset => {
                    self.session.handle_read_lost(Reason::Reset(Phase::Open));
                }
                Step::NeedInput if self.incoming.is_empty() && self.fin => self.session.handle_eof(),
                Step::NeedInput => {
                    self.session.handle_idle();
                    return;
                }
            }
        }
    }

    /// The end of each half, in words that both engines have.
    fn ends(&self) -> [String; 2] {
        let broken = |reason: &Reason| format!("broken: {}", reason.name());
        let send = match self.session.send() {
            SendHalf::Broken(reason) => broken(reason),
            send => format!("{send:?}"),
        };
        let recv = match self.session.recv() {
            RecvHalf::Broken(reason) => broken(reason),
            RecvHalf::Ending(end) => format!("{:?}", RecvHalf::Ended(*end)),
            recv => format!("{recv:?}"),
        };
        [send, recv]
    }
}

/// The results of a run.
#[derive(Debug, PartialEq)]
struct Seen {
    /// The data is compared only if both runs have sent the same: what a session accepts depends on the length of its
    /// records, which the engines have different.
    sent: [Vec<u8>; 2],
    received: [Vec<u8>; 2],
    /// Whether all data has arrived.
    is_whole: [bool; 2],
    /// The runs are not comparable: the handshake was changed, and the order of a hello's extensions is random, so each
    /// run changes something else; or keys were used up on a wire with faults. With rustls, a KeyUpdate then asks for an
    /// answer, so the fault meets other records.
    is_random: bool,
    ends: [[String; 2]; 2],
    secured: [usize; 2],
}

/// Everything that a side has sealed leaves, as records.
fn transmit(sides: &mut [Side; 2], from: usize) {
    loop {
        let bytes = sides[from].session.transmit().to_vec();
        if bytes.is_empty() {
            break;
        }
        if sides[1 - from].reset {
            return sides[from].session.handle_write_lost(Reason::Reset(Phase::Open));
        }
        let mut rest = &bytes[..];
        while rest.len() >= 5 {
            let n = 5 + usize::from(u16::from_be_bytes([rest[3], rest[4]]));
            let (record, after) = rest.split_at(n.min(rest.len()));
            sides[1 - from].incoming.push_back(record.to_vec());
            rest = after;
        }
        assert!(rest.is_empty(), "half a record is sent");
        sides[from].session.transmitted(bytes.len());
    }
    if sides[from].session.is_done_sending() && !sides[from].fin_sent {
        sides[from].fin_sent = true;
        sides[1 - from].fin = true;
    }
}

fn play(input: &[u8], is_express: bool) -> Seen {
    let mut input = Bytes::new(input);
    let kind = input.byte();
    let marks = if kind & 2 == 0 { Watermarks::default() } else { Watermarks::new(100, 3_000) };
    let has_short_keys = kind >> 3 & 1 == 1;
    let (clients, server) = &CONFIGS[usize::from(is_express)][usize::from(has_short_keys)];
    let name = bowline::config::server_name("localhost").expect("it is a name");
    let client = clients[usize::from(kind & 1)].session(name, marks).expect("the configuration is valid");
    let server = server.session(marks).expect("the configuration is valid");
    let mut sides = [Side::new(client), Side::new(server)];
    if kind & 4 != 0 {
        settle(&mut sides);
        // One half, or both, may end before anything else.
        for (n, side) in sides.iter_mut().enumerate() {
            if kind >> 4 >> n & 1 == 1 {
                side.session.close_write();
            }
        }
        settle(&mut sides);
    }
    let (mut ops, mut is_aborted, mut is_random) = (0, false, false);
    while !input.is_empty() && ops < 60 {
        ops += 1;
        let n = input.below(2);
        match input.below(15) {
            0 | 1 => {
                let bytes = vec![ops; input.size()];
                let may = sides[n].session.send().may_write();
                match sides[n].session.write(&[IoSlice::new(&bytes)]) {
                    Ok(accepted) => {
                        assert!(may);
                        sides[n].sent.extend_from_slice(&bytes[..accepted]);
                    }
                    Err(_) => assert!(!may, "refused although open"),
                }
            }
            2 => sides[n].session.close_write(),
            3 => {
                sides[n].session.begin_close();
                sides[n].session.close_write();
            }
            4 if input.byte() > 200 => {
                sides[n].session.abort();
                assert!(sides[n].session.transmit().is_empty(), "something leaves after an abort");
                sides[1 - n].reset = true;
                sides[n].incoming.clear();
                is_aborted = true;
            }
            5 => sides[n].session.cork(),
            6 => sides[n].session.uncork(),
            7 => sides[n].session.flush(),
            8 | 4 => transmit(&mut sides, n),
            9 | 10 => {
                // This delivers one record, or a part of it.
                let part = input.byte();
                if let Some(record) = sides[n].incoming.pop_front() {
                    let first = if part < 128 { record.len() } else { record.len() * usize::from(part - 128) / 128 };
                    sides[n].pass(&record[..first]);
                    if first < record.len() {
                        sides[n].incoming.push_front(record[first..].to_vec());
                    }
                }
                let room = 1 + input.size();
                sides[n].step(room);
            }
            11 => {
                let (place, bits) = (input.byte(), input.byte());
                if let Some(record) = sides[n].incoming.front_mut()
                    && bits != 0
                {
                    let place = usize::from(place) % record.len();
                    record[place] ^= bits;
                    sides[n].is_meddled = true;
                }
            }
            12 => {
                let len = 1 + input.below(40);
                let bytes = input.take(len);
                sides[n].incoming.push_front(bytes.to_vec());
                sides[n].is_meddled = true;
            }
            // Several records arrive at once.
            13 => {
                for _ in 0..1 + input.below(5) {
                    if let Some(record) = sides[n].incoming.pop_front() {
                        sides[n].pass(&record);
                    }
                }
                let room = 1 + input.size();
                sides[n].step(room);
            }
            _ => match input.below(4) {
                0 => {
                    sides[n].incoming.pop_back();
                    sides[n].is_meddled = true;
                }
                1 if sides[n].incoming.len() > 1 => {
                    sides[n].incoming.rotate_left(1);
                    sides[n].is_meddled = true;
                }
                1 => {}
                2 => {
                    sides[n].fin = true;
                    sides[n].is_meddled = true;
                    sides[n].incoming.clear();
                }
                _ => {
                    sides[n].reset = true;
                    sides[n].incoming.clear();
                }
            },
        }
        let is_done = sides.iter().all(|side| side.secured == 1);
        is_random |= !is_done && sides.iter().any(|side| side.is_meddled);
        check(&sides);
    }
    for side in &mut sides {
        side.session.uncork();
        side.session.close_write();
    }
    settle(&mut sides);
    check(&sides);
    for n in 0..2 {
        let is_clean = matches!(sides[n].session.recv(), RecvHalf::Ended(End::Clean));
        if is_clean {
            assert_eq!(sides[n].received, sides[1 - n].sent, "a clean end after loss");
        }
    }
    let is_calm = !is_aborted && sides.iter().all(|side| !side.is_meddled && !side.reset);
    for n in 0..2 {
        if is_calm {
            assert_eq!(sides[n].received, sides[1 - n].sent);
            assert_eq!(sides[n].ends(), ["Finished", "Ended(Clean)"]);
        }
    }
    Seen {
        ends: [sides[0].ends(), sides[1].ends()],
        secured: [sides[0].secured, sides[1].secured],
        is_random: is_random || has_short_keys && !is_calm,
        is_whole: [0, 1].map(|n| sides[n].received == sides[1 - n].sent),
        sent: [0, 1].map(|n| sides[n].sent.clone()),
        received: sides.map(|side| side.received),
    }
}

/// Checks the conditions that must always hold.
fn check(sides: &[Side; 2]) {
    for n in 0..2 {
        assert!(sides[1 - n].sent.starts_with(&sides[n].received), "lost, repeated or reordered");
        assert!(sides[n].session.queued() <= 1 << 18, "{} bytes are queued", sides[n].session.queued());
    }
}

fn settle(sides: &mut [Side; 2]) {
    for _ in 0..200 {
        let mut moves = false;
        for n in 0..2 {
            transmit(sides, n);
            let side = &mut sides[1 - n];
            while let Some(record) = side.incoming.pop_front() {
                side.pass(&record);
                side.step(5_000);
                moves = true;
            }
            side.step(5_000);
        }
        if !moves {
            return;
        }
    }
    panic!("the sessions never come to rest");
}

/// A difference between the two engines, if this run has found one.
fn difference(input: &[u8]) -> Option<String> {
    let by_rustls = play(input, false);
    let by_express = play(input, true);
    if by_rustls.is_random || by_express.is_random {
        return None;
    }
    let ends = [&by_rustls, &by_express].map(|seen| (&seen.ends, seen.secured, &seen.is_whole));
    if ends[0] != ends[1] {
        return Some(format!("the engines end in different ways: {ends:?}"));
    }
    let is_alike = by_rustls.sent != by_express.sent || by_rustls == by_express;
    (!is_alike).then(|| "the engines have received different data".to_owned())
}

pub fn run(input: &[u8]) {
    always(|| difference(input));
}

pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for kind in 0..64 {
        seeds.push(vec![kind]);
        seeds.push(vec![kind, 0, 0, 50, 1, 0, 255, 0, 8, 1, 9, 0, 0, 255, 1, 8, 0, 9, 200, 10]);
        seeds.push(vec![kind, 0, 8, 1, 9, 0, 255, 1, 8, 0, 9, 0, 255, 0, 9, 0, 255, 0, 0, 9, 0, 2, 1, 3]);
        seeds.push(vec![kind, 0, 0, 9, 0, 8, 1, 11, 9, 1, 1, 9, 0, 9]);
        seeds.push(vec![kind, 1, 2, 1, 8, 0, 9, 0, 9, 0, 0, 9, 0, 8, 1, 12, 6, 21, 3, 3, 0, 2, 1, 0]);
        // Each of these writes makes a record of its own, and all of them arrive at once.
        seeds.push([&[kind][..], &[0, 0, 20, 0, 8].repeat(6), &[1, 13, 4, 90, 1, 0, 9, 1, 8, 0, 13, 4, 90]].concat());
        seeds.push(vec![kind, 0, 5, 0, 0, 250, 0, 6, 0, 8, 1, 14, 2]);
    }
    seeds
}
