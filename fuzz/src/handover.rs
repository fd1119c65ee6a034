//! The moment at which a session passes from the handshake to its records, and the time after it. The peer seals any
//! record, its bytes arrive in pieces of any size, and the owner calls the session in any order. Both engines must
//! deliver the same data and report the same ends.

use std::io::{ErrorKind, IoSlice};
use std::sync::LazyLock;

use bowline::core::half::{End, RecvHalf, SendHalf};
use bowline::core::session::{Session, Step};
use bowline::rustls::server::NoServerSessionStorage;
use bowline::rustls::{ClientConfig, ServerConfig};
use bowline::testing::pki::{KeyKind, Pki, Profile};
use bowline::{ClientTls, Phase, Reason, ServerTls, TlsVersion, Watermarks};

use super::always;
use super::bytes::Bytes;
use super::peer::{Peer, Reseal};
use super::record::whole_record;

const VERSIONS: [TlsVersion; 2] = [TlsVersion::V1_2, TlsVersion::V1_3];
const HANDSHAKE: u8 = 22;
const ALERT: u8 = 21;
const DATA: u8 = 23;
const TICKET: [u8; 20] = [4, 0, 0, 16, 0, 0, 1, 0, 0, 0, 0, 0, 1, 9, 0, 2, 7, 7, 0, 0];
/// The most plaintext in a record.
const RECORD: usize = 1 << 14;

/// For each engine and version: clients and servers. The server's signatures have a fixed length, so that both engines
/// get handshakes of the same length.
static CONFIGS: LazyLock<[[(ClientTls, ServerTls); 2]; 2]> = LazyLock::new(|| {
    let pki = Pki::new();
    let identity = pki.issue(Profile::server(&[]).key(KeyKind::Ed25519));
    [false, true].map(|is_express| {
        VERSIONS.map(|version| {
            let client = pki.client_tls_builder().min_version(version).max_version(version);
            let client = if is_express { client.express() } else { client };
            let server = ServerTls::builder().identity(identity.chain_der(), identity.key_der());
            let server = server.min_version(version).max_version(version);
            let server = if is_express { server.express() } else { server };
            (client.build().expect("it is valid"), server.build().expect("it is valid"))
        })
    })
});

/// A record, or a series of records, of the peer.
enum Op<'a> {
    Data(usize),
    Empty(usize),
    /// Data with padding (TLS 1.3).
    Padded(usize, usize),
    Record(u8, &'a [u8]),
    KeyUpdate(bool),
    /// A KeyUpdate in two records, after which the peer keeps its key.
    CutKeyUpdate,
    /// A KeyUpdate, and the start of another message.
    TwoInOne(bool),
    CutTicket(usize),
    Message(u8, usize),
    Alert(u8, u8),
    Clear(&'a [u8]),
}

impl<'a> Op<'a> {
    fn of(input: &mut Bytes<'a>) -> Self {
        match input.below(14) {
            0..=2 => Self::Data(input.size()),
            3 => Self::Empty(1 + input.below(40)),
            4 => Self::Padded(input.size() % 10_000, input.size() % 5_000),
            5 => Self::Record([20, 21, 22, 23, 24, 0, 99, 22][input.below(8)], small(input)),
            6 | 7 => Self::KeyUpdate(input.byte() & 1 == 0),
            8 => Self::CutKeyUpdate,
            9 => Self::TwoInOne(input.byte() & 1 == 0),
            10 => Self::CutTicket(input.below(21)),
            11 => Self::Message(input.below(26) as u8, input.below(8)),
            12 => Self::Alert(input.below(4) as u8, [0, 0, 90, 100, 40, 20, 255, 0][input.below(8)]),
            _ => Self::Clear(small(input)),
        }
    }

    /// Whether a session accepts these records. The plan of a run has too few of them for a flood.
    fn is_harmless(&self, kind: &Kind) -> bool {
        match *self {
            Self::Data(_) | Self::Padded(..) => true,
            Self::KeyUpdate(_) => kind.is_tls13,
            Self::CutTicket(_) => kind.is_tls13 && kind.is_client,
            Self::Alert(level, alert) => matches!(level, 1 | 2) && alert == 0,
            Self::Empty(_)
            | Self::Record(..)
            | Self::CutKeyUpdate
            | Self::TwoInOne(_)
            | Self::Message(..)
            | Self::Clear(_) => false,
        }
    }

    /// The records. The data in them is appended to `data`, until close_notify.
    fn seal(&self, n: u8, peer: &mut Peer, is_tls13: bool, sent: &mut Sent) -> Vec<Vec<u8>> {
        match *self {
            Self::Data(len) => {
                let data = vec![n; len];
                sent.data(&data);
                data.chunks(RECORD).map(|part| peer.seal(DATA, part)).collect()
            }
            Self::Empty(count) => (0..count).map(|_| peer.seal(DATA, &[])).collect(),
            // The type is sealed after the payload and before the padding.
            Self::Padded(len, padding) if is_tls13 => {
                sent.data(&vec![n; len]);
                vec![peer.seal(0, &[&vec![n; len][..], &[DATA], &vec![0; padding]].concat())]
            }
            Self::Padded(len, _) => {
                sent.data(&vec![n; len]);
                vec![peer.seal(DATA, &vec![n; len])]
            }
            // rustls loses count after an empty handshake record: see tests/engines/differences.rs.
            Self::Record(HANDSHAKE, []) => Vec::new(),
            // A server of TLS 1.2 declines another handshake, whatever the hello says.
            Self::Record(HANDSHAKE, [1, ..]) | Self::Message(1, _) if !is_tls13 => Vec::new(),
            Self::Record(typ, payload) => {
                match (typ, payload) {
                    (DATA, payload) => sent.data(payload),
                    (ALERT, [1 | 2, 0]) => sent.is_closed = true,
                    _ => {}
                }
                vec![peer.seal(typ, payload)]
            }
            Self::KeyUpdate(asks) => {
                let record = peer.seal(HANDSHAKE, &[24, 0, 0, 1, u8::from(asks)]);
                if is_tls13 {
                    peer.update_key();
                }
                vec![record]
            }
            Self::CutKeyUpdate => vec![peer.seal(HANDSHAKE, &[24, 0]), peer.seal(HANDSHAKE, &[0, 1, 0])],
            Self::TwoInOne(asks) => vec![peer.seal(HANDSHAKE, &[24, 0, 0, 1, u8::from(asks), 4, 0])],
            Self::CutTicket(at) => {
                let (first, second) = TICKET.split_at(at.min(TICKET.len()));
                let parts = [first, second].into_iter().filter(|part| !part.is_empty());
                parts.map(|part| peer.seal(HANDSHAKE, part)).collect()
            }
            Self::Message(typ, len) => {
                vec![peer.seal(HANDSHAKE, &[&[typ, 0, 0, len as u8], &vec![3; len][..]].concat())]
            }
            Self::Alert(level, alert) => {
                sent.is_closed |= alert == 0 && matches!(level, 1 | 2);
                vec![peer.seal(ALERT, &[level, alert])]
            }
            Self::Clear(bytes) => vec![bytes.to_vec()],
        }
    }
}

fn small<'a>(input: &mut Bytes<'a>) -> &'a [u8] {
    let len = input.below(12);
    input.take(len)
}

/// The data that the peer has sealed before its close_notify.
#[derive(Default)]
struct Sent {
    data: Vec<u8>,
    is_closed: bool,
}

impl Sent {
    fn data(&mut self, data: &[u8]) {
        if !self.is_closed {
            self.data.extend_from_slice(data);
        }
    }
}

/// Changes the records on their way.
fn meddle(pieces: &mut Vec<Vec<u8>>, how: usize, place: usize, bits: u8) {
    let n = pieces.len();
    if n == 0 {
        return;
    }
    match how {
        0 => {
            let piece = &mut pieces[place % n];
            let len = piece.len().max(1);
            if let Some(byte) = piece.get_mut(usize::from(bits) * 7 % len) {
                *byte ^= 1 << (bits % 8);
            }
        }
        1 => pieces.truncate(place % n),
        2 if n > 1 => pieces.swap(place % (n - 1), place % (n - 1) + 1),
        3 => pieces.insert(place % n, pieces[place % n].clone()),
        4 => drop(pieces.remove(place % n)),
        5 => {
            // If fewer bytes were missing, those of the next record could be the right ones by chance.
            const LEAST_MISSING: usize = 8;
            let piece = &mut pieces[place % n];
            piece.truncate(usize::from(bits) % (piece.len().saturating_sub(LEAST_MISSING) + 1));
        }
        _ => {}
    }
}

struct Owner {
    session: Session,
    received: Vec<u8>,
    accepted: Vec<u8>,
    secured: usize,
    is_aborted: bool,
}

impl Owner {
    fn note(&mut self, step: Step, data: &[u8]) {
        self.received.extend_from_slice(data);
        if step == Step::Secured {
            self.secured += 1;
            assert!(self.received.is_empty() && self.secured == 1);
            assert!(self.session.facts().is_some());
        }
    }

    fn step(&mut self, room: usize) -> Step {
        let mut out = vec![0; room];
        let (step, n) = self.session.step_into(&mut out);
        self.note(step, &out[..n]);
        step
    }

    /// Does all steps until the session needs input or has ended. Returns whether it has ended.
    fn drive(&mut self, room: usize) -> bool {
        loop {
            match self.step(room) {
                Step::Data => {
                    let mut out = vec![0; room];
                    let n = self.session.read(&mut out);
                    self.received.extend_from_slice(&out[..n]);
                }
                Step::Secured => {}
                Step::NeedInput => return false,
                Step::Ended => return true,
            }
        }
    }

    /// Passes bytes as a read of the layer would. Returns their number.
    fn deliver(&mut self, wire: &[u8], room: usize) -> usize {
        let is_simple = self.session.awaits_data();
        if !is_simple && self.drive(room) {
            return wire.len();
        }
        let space = self.session.input_space();
        let n = wire.len().min(space.len());
        space[..n].copy_from_slice(&wire[..n]);
        if is_simple && n > 0 {
            let mut out = vec![0; room];
            if let Some(read) = self.session.read_record(n, &mut out) {
                self.received.extend_from_slice(&out[..read]);
            }
        } else {
            self.session.handle_input(n);
        }
        n
    }

    fn write(&mut self, n: u8, len: usize) {
        let (bytes, may) = (vec![n; len], self.session.send().may_write());
        match self.session.write(&[IoSlice::new(&bytes)]) {
            Ok(accepted) => {
                assert!(may);
                self.accepted.extend_from_slice(&bytes[..accepted]);
            }
            Err(_) => assert!(!may, "refused although open"),
        }
    }

    /// As `write`, to a layer that accepts so many bytes.
    fn write_through(&mut self, n: u8, len: usize, mut space: usize, peer: &mut Peer) {
        let (bytes, may) = (vec![n; len], self.session.send().may_write());
        let written = self.session.write_through(&[IoSlice::new(&bytes)], None, |parts| {
            let mut taken = 0;
            for part in parts {
                let n = part.len().min(space);
                peer.receive(&part[..n]);
                (taken, space) = (taken + n, space - n);
            }
            if taken == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(taken) }
        });
        match written {
            Ok(accepted) => {
                assert!(may);
                self.accepted.extend_from_slice(&bytes[..accepted]);
            }
            Err(_) => assert!(!may, "refused although open"),
        }
    }

    fn transmit(&mut self, most: usize, peer: &mut Peer) -> bool {
        let records = self.session.transmit();
        let n = records.len().min(most);
        let bytes = records[..n].to_vec();
        self.session.transmitted(n);
        peer.receive(&bytes);
        n > 0
    }

    /// The end of each half, in words that both engines have.
    fn ends(&self) -> [String; 2] {
        let send = match self.session.send() {
            SendHalf::Broken(reason) => format!("broken: {}", reason.name()),
            send => format!("{send:?}"),
        };
        let recv = match self.session.recv() {
            RecvHalf::Broken(reason) => format!("broken: {}", reason.name()),
            recv => format!("{recv:?}"),
        };
        [send, recv]
    }
}

/// The results of a run.
#[derive(Debug, PartialEq)]
struct Seen {
    received: Vec<u8>,
    ends: [String; 2],
    secured: usize,
    /// The bytes that we have written, and those of them that the peer has read. They are compared only if both engines
    /// have accepted the same number, which depends on the length of their records.
    written: (Vec<u8>, Vec<u8>),
    is_closed: bool,
    /// Whether we have answered a KeyUpdate. An answer may be left out before a failure.
    has_answered: bool,
}

/// How a run begins.
struct Kind {
    is_client: bool,
    is_tls13: bool,
    is_resumed: bool,
    marks: Watermarks,
    is_resealed: bool,
    has_half_rtt: bool,
    is_corked: bool,
}

impl Kind {
    fn of(byte: u8) -> Self {
        let has = |bit: u8| byte >> bit & 1 == 1;
        Self {
            is_client: has(0),
            is_tls13: has(1),
            is_resumed: has(2),
            marks: if has(3) { Watermarks::new(100, 3_000) } else { Watermarks::default() },
            is_resealed: has(4),
            has_half_rtt: has(5),
            is_corked: has(6),
        }
    }

    fn pair(&self, is_express: bool, reseal: Option<Reseal>, half_rtt: Vec<u8>) -> (Owner, Peer) {
        let version = usize::from(self.is_tls13);
        let (client, server) = &CONFIGS[usize::from(is_express)][version];
        // The peer's own tickets, but no key of the express engine.
        let (peer_client, peer_server) = &CONFIGS[0][version];
        let (client_config, server_config);
        let (session, peer) = if self.is_client {
            let name = bowline::config::server_name("localhost").expect("it is a name");
            let session = client.session(name, self.marks);
            server_config = self.server(peer_server);
            (session, Peer::server(&server_config, reseal, half_rtt))
        } else {
            client_config = self.client(peer_client);
            (server.session(self.marks), Peer::client(&client_config, reseal))
        };
        let session = session.expect("the configuration is valid");
        (Owner { session, received: Vec::new(), accepted: Vec::new(), secured: 0, is_aborted: false }, peer)
    }

    /// A server that resumes no session, if this run begins with a full handshake.
    fn server(&self, server: &ServerTls) -> ServerConfig {
        let mut config = (*server.config()).clone();
        if !self.is_resumed {
            config.ticketer = std::sync::Arc::new(NoTickets);
            config.session_storage = std::sync::Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        config
    }

    fn client(&self, client: &ClientTls) -> ClientConfig {
        let mut config = (*client.config()).clone();
        if !self.is_resumed {
            config.resumption = bowline::rustls::client::Resumption::disabled();
        }
        config
    }
}

#[derive(Debug)]
struct NoTickets;

impl bowline::rustls::server::ProducesTickets for NoTickets {
    fn enabled(&self) -> bool {
        false
    }
    fn lifetime(&self) -> u32 {
        0
    }
    fn encrypt(&self, _: &[u8]) -> Option<Vec<u8>> {
        None
    }
    fn decrypt(&self, _: &[u8]) -> Option<Vec<u8>> {
        None
    }
}

/// A handshake whose tickets the next one uses.
fn prime(kind: &Kind, is_express: bool) {
    let (mut owner, mut peer) = kind.pair(is_express, None, Vec::new());
    for _ in 0..4 {
        owner.transmit(usize::MAX, &mut peer);
        let wire = peer.transmit();
        let mut rest = &wire[..];
        while !rest.is_empty() {
            rest = &rest[owner.deliver(rest, 100)..];
        }
        owner.drive(100);
    }
    assert!(peer.is_open() && owner.secured == 1);
}

fn play(input: &[u8], is_express: bool) -> Seen {
    let mut input = Bytes::new(input);
    let kind = Kind::of(input.byte());
    let early = input.below(4);
    let early: Vec<_> = (0..early).map(|_| (input.below(4), input.size())).collect();
    let extra = small(&mut input).to_vec();
    let cut = usize::from(input.byte()) * 5;
    let reseal = (kind.is_resealed && kind.is_tls13).then_some(Reseal { extra: extra.clone(), cut });
    let half_rtt = input.size() % 20_000 + 1;
    let half_rtt = if kind.has_half_rtt && kind.is_client && kind.is_tls13 {
        vec![b'h'; half_rtt.min(RECORD)]
    } else {
        Vec::new()
    };
    let plan: Vec<_> = (0..input.below(10)).map(|_| Op::of(&mut input)).collect();
    let (meddling, place, bits) = (input.below(12), input.below(256), input.byte());
    let ending = input.below(3);

    if kind.is_resumed {
        prime(&kind, is_express);
    }
    let mut sent = Sent { data: half_rtt.clone(), is_closed: false };
    let (mut owner, mut peer) = kind.pair(is_express, reseal, half_rtt);
    if kind.is_corked {
        owner.session.cork();
    }
    let mut ops = 0_u8;
    for (what, size) in early {
        ops += 1;
        match what {
            0 | 1 => owner.write(ops, size),
            2 => owner.session.close_write(),
            _ => owner.session.begin_close(),
        }
    }
    // The flights before the last one arrive unchanged.
    let flights = match (kind.is_client, kind.is_tls13, kind.is_resumed) {
        (true, false, false) | (false, _, _) => 1,
        (true, _, _) => 0,
    };
    let is_harmless =
        plan.iter().all(|op| op.is_harmless(&kind)) && meddling > 7 && (!kind.is_resealed || extra.is_empty());
    let (mut wire, mut plan) = (Vec::new(), Some(plan));
    for flight in 0..=flights {
        owner.transmit(usize::MAX, &mut peer);
        wire = peer.transmit();
        if flight < flights {
            while !wire.is_empty() {
                let n = owner.deliver(&wire, 100);
                wire.drain(..n);
            }
            owner.drive(100);
        }
    }
    if let 6 | 7 = meddling {
        let mut records = split(&wire);
        meddle(&mut records, if meddling == 6 { 0 } else { 5 }, place, bits);
        wire = records.concat();
    }
    let mut more = |peer: &mut Peer, wire: &mut Vec<u8>| {
        wire.extend(peer.transmit());
        if let (true, Some(plan)) = (peer.is_open(), plan.take_if(|_| peer.is_open())) {
            let mut pieces: Vec<_> = Vec::new();
            for (n, op) in plan.iter().enumerate() {
                pieces.extend(op.seal(b'0' + n as u8, peer, kind.is_tls13, &mut sent));
            }
            meddle(&mut pieces, meddling, place, bits);
            wire.extend(pieces.concat());
        }
    };
    more(&mut peer, &mut wire);
    let mut turns = 0;
    while !input.is_empty() && turns < 60 {
        (turns, ops) = (turns + 1, ops + 1);
        match input.below(16) {
            0..=3 => {
                let n = (1 + input.size()).min(wire.len());
                let n = owner.deliver(&wire[..n], 1 + input.size());
                wire.drain(..n);
            }
            4 | 5 => {
                let _ = owner.step(input.size());
            }
            6 => owner.write(ops, input.size()),
            7 => {
                let (len, space) = (input.size(), input.size());
                owner.write_through(ops, len, space, &mut peer);
            }
            8 => owner.session.close_write(),
            9 => {
                owner.session.begin_close();
                owner.session.close_write();
            }
            10 => {
                owner.transmit(1 + input.size(), &mut peer);
            }
            11 => while owner.transmit(usize::MAX, &mut peer) {},
            12 => match input.below(4) {
                0 => owner.session.cork(),
                1 => owner.session.uncork(),
                2 => owner.session.flush(),
                _ => owner.session.handle_idle(),
            },
            13 => {
                let n = input.size();
                let plaintext = owner.session.plaintext();
                let n = n.min(plaintext.len());
                let read = plaintext[..n].to_vec();
                if n > 0 {
                    owner.session.consume(n);
                    owner.received.extend(read);
                }
            }
            14 if input.byte() > 220 => {
                owner.session.abort();
                owner.is_aborted = true;
                assert!(owner.session.transmit().is_empty(), "something leaves after an abort");
            }
            14 => {}
            _ => {
                let mut key = [0; 32];
                assert!(
                    owner.secured == 0
                        || owner.session.failure().is_some()
                        || owner.session.export(&mut key, b"EXPORTER-x", None).is_ok()
                );
            }
        }
        more(&mut peer, &mut wire);
    }
    // Everything arrives, then the end.
    for _ in 0..10_000 {
        more(&mut peer, &mut wire);
        let n = owner.deliver(&wire, 5_000);
        wire.drain(..n);
        owner.drive(5_000);
        owner.session.handle_idle();
        // The end of the handshake may be in bytes that had arrived before, and then the client's Finished leaves now.
        let sends = owner.transmit(usize::MAX, &mut peer);
        if n == 0 && !sends {
            break;
        }
    }
    match ending {
        0 | 1 => owner.session.handle_eof(),
        _ => owner.session.handle_read_lost(Reason::Reset(Phase::Open)),
    }
    let has_ended = owner.drive(5_000);
    assert!(has_ended, "the session has not ended after the end of its layer");
    owner.session.uncork();
    owner.session.close_write();
    while owner.transmit(usize::MAX, &mut peer) {}
    check(&owner, &peer, &sent);
    if is_harmless && !owner.is_aborted {
        assert!(peer.is_open() && owner.secured == 1 && owner.received == sent.data);
        assert_eq!(matches!(owner.session.recv(), RecvHalf::Ended(End::Clean)), sent.is_closed);
    }
    let has_failed = owner.session.failure().is_some();
    if owner.is_aborted {
        // An abort discards what is queued, and the engines queue the answer to a KeyUpdate at different times.
        peer.seen = super::peer::Seen::default();
    }
    Seen {
        received: owner.received.clone(),
        ends: owner.ends(),
        secured: owner.secured,
        written: (owner.accepted.clone(), std::mem::take(&mut peer.seen.data)),
        is_closed: peer.seen.is_closed,
        has_answered: peer.seen.has_updated && !has_failed,
    }
}

/// Checks the conditions that must always hold.
fn check(owner: &Owner, peer: &Peer, sent: &Sent) {
    assert!(sent.data.starts_with(&owner.received), "lost, repeated or reordered");
    assert!(owner.accepted.starts_with(&peer.seen.data), "the peer reads something else");
    assert!(!peer.seen.is_late, "a record after the last one");
    // If something follows the server's Finished in the same record, rustls has sent the client's Finished already, and
    // seals the alert with the key before it.
    let has_old_key = owner.secured == 0;
    if let (Some(error), false) = (&peer.seen.garbage, has_old_key) {
        panic!("the peer cannot open our records: {error:?}");
    }
    if matches!(owner.session.recv(), RecvHalf::Ended(End::Clean)) {
        assert!(sent.is_closed && owner.received == sent.data, "a clean end after loss");
    }
    if matches!(owner.session.send(), SendHalf::Finished) && peer.is_open() {
        assert!(peer.seen.is_closed && peer.seen.data == owner.accepted, "finished, but the peer has not seen it");
    }
}

/// Splits bytes into records.
fn split(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    while let Some(n) = whole_record(bytes) {
        let (record, rest) = bytes.split_at(n);
        records.push(record.to_vec());
        bytes = rest;
    }
    records.push(bytes.to_vec());
    records
}

/// A difference between the two engines, if this run has found one.
fn difference(input: &[u8]) -> Option<String> {
    let by_rustls = play(input, false);
    let by_express = play(input, true);
    let ends = [&by_rustls, &by_express].map(|seen| (&seen.ends, seen.secured));
    if ends[0] != ends[1] {
        return Some(format!("the engines end in different ways: {ends:?}"));
    }
    if by_rustls.received != by_express.received {
        return Some("the engines have received different data".to_owned());
    }
    let is_alike = by_rustls.written.0 != by_express.written.0 || by_rustls == by_express;
    (!is_alike).then(|| "the peer has seen different data".to_owned())
}

pub fn run(input: &[u8]) {
    always(|| difference(input));
}

/// For each kind of start: several records that arrive with the last flight, in one piece and in small ones, and the
/// calls that may come before them.
pub fn seeds() -> Vec<Vec<u8>> {
    let (data, update, ask, ticket, close) = ([0, 50], [6, 1], [6, 0], [10, 5], [12, 1, 0]);
    let all_at_once = [[0, 255, 255], [0, 255, 255]].concat();
    let in_pieces = [0, 9, 100].repeat(40);
    let mut seeds = Vec::new();
    for kind in 0..128_u8 {
        let calls: [&[u8]; 3] =
            [&all_at_once, &in_pieces, &[&[6, 30, 7, 90, 20, 8, 0, 255, 255, 11][..], &in_pieces].concat()];
        let calls = calls[usize::from(kind) % 3];
        // No early calls, nothing after Finished, and no change on the way.
        let plan = [&[6][..], &data, &ask, &data, &ticket, &update, &close].concat();
        seeds.push([&[kind, 0, 0, 30, 77][..], &plan, &[11, 0, 0, 0], calls].concat());
        if kind & 0b1_0010 == 0b1_0010 {
            // An early write and an early end; a message and the start of one after Finished; a changed record.
            let plan = [&[5][..], &data, &[2, 0, 255], &ask, &data, &close].concat();
            let extra = [&[7][..], &[24, 0, 0, 1, 0, 4, 0]].concat();
            seeds.push([&[kind, 2, 0, 40, 2, 0][..], &extra, &[3, 10], &plan, &[0, 1, 9, 0], calls].concat());
        }
    }
    // One thing at a time, between data.
    let things: [&[u8]; 24] = [
        &[3, 31],
        &[3, 33],
        &[4, 10, 90],
        &[5, 0, 1, 1],
        &[5, 1, 1, 1],
        &[5, 2, 2, 4, 0],
        &[5, 2, 6, 4, 0, 0, 9, 0, 0],
        &[5, 3, 3, 8, 8, 8],
        &[5, 4, 3, 1, 2, 3],
        &[5, 6, 1, 1],
        &[6, 0],
        &[6, 1],
        &[8],
        &[9, 0],
        &[10, 3],
        &[10, 20],
        &[11, 0, 0],
        &[11, 13, 3],
        &[11, 24, 2],
        &[12, 1, 2],
        &[12, 2, 4],
        &[12, 3, 4],
        &[13, 6, 20, 3, 3, 0, 1, 1],
        &[13, 7, 21, 3, 3, 0, 2, 1, 0],
    ];
    for kind in 0..4_u8 {
        for thing in things {
            let plan = [&[4][..], &data, thing, &data, &close].concat();
            seeds.push([&[kind, 0, 0, 30, 77][..], &plan, &[11, 0, 0, 0], &in_pieces].concat());
        }
    }
    seeds
}
