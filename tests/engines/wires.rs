//! Two sessions of `core`, which do no I/O, driven by the test: every pair of engines, in every version.

use std::io::IoSlice;
use std::sync::Arc;

use bowline::core::facts::SessionFacts;
use bowline::core::half::{End, RecvHalf, SendHalf};
use bowline::core::session::{Session, Step};
use bowline::rustls::ServerConfig;
use bowline::rustls::crypto::CryptoProvider;
use bowline::rustls::server::{ClientHello, ResolvesServerCert};
use bowline::rustls::sign::CertifiedKey;
use bowline::testing::pki::Pki;
use bowline::testing::shared_pki;
use bowline::{ClientTls, Reason, ServerTls, TlsVersion, Watermarks};

use crate::setup::VERSIONS;

/// Takes the records that a session has to send.
pub(crate) fn take(session: &mut Session) -> Vec<u8> {
    take_up_to(session, usize::MAX)
}

/// As `take`, but at most `most` bytes.
pub(crate) fn take_up_to(session: &mut Session, most: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() < most && !session.transmit().is_empty() {
        let n = session.transmit().len().min(most - all.len());
        all.extend_from_slice(&session.transmit()[..n]);
        session.transmitted(n);
    }
    all
}

/// Passes bytes to a session, like a layer that has received them.
pub(crate) fn bring(session: &mut Session, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let space = session.input_space();
        let n = bytes.len().min(space.len());
        space[..n].copy_from_slice(&bytes[..n]);
        session.handle_input(n);
        bytes = &bytes[n..];
    }
}

/// A client with this engine, whatever the environment variable says.
pub(crate) fn client(
    pki: &Pki,
    version: TlsVersion,
    express: bool,
    provider: Option<Arc<CryptoProvider>>,
) -> ClientTls {
    let builder = ClientTls::builder().root(pki.ca_der()).min_version(version).max_version(version);
    let builder = if express { builder.express() } else { builder };
    let builder = provider.into_iter().fold(builder, |builder, provider| builder.provider(provider));
    builder.build().unwrap()
}

pub(crate) fn server(pki: &Pki, express: bool, provider: Option<Arc<CryptoProvider>>) -> ServerTls {
    let me = pki.server(&[]);
    let builder = ServerTls::builder().identity(me.chain_der(), me.key_der());
    let builder = if express { builder.express() } else { builder };
    let builder = provider.into_iter().fold(builder, |builder, provider| builder.provider(provider));
    builder.build().unwrap()
}

pub(crate) fn sessions(client: &ClientTls, server: &ServerTls) -> [Session; 2] {
    let name = bowline::config::server_name("localhost").unwrap();
    let marks = Watermarks::default();
    [client.session(name, marks).unwrap(), server.session(marks).unwrap()]
}

/// Transfers all bytes that can be transferred, and returns what each side reads.
pub(crate) fn settle(both: &mut [Session; 2]) -> [Vec<u8>; 2] {
    let mut read = [Vec::new(), Vec::new()];
    let mut moves = true;
    while moves {
        moves = false;
        for n in 0..2 {
            let records = both[n].transmit().to_vec();
            both[n].transmitted(records.len());
            moves |= !records.is_empty();
            let mut rest = &records[..];
            while !rest.is_empty() {
                let space = both[1 - n].input_space();
                let len = rest.len().min(space.len());
                space[..len].copy_from_slice(&rest[..len]);
                both[1 - n].handle_input(len);
                rest = &rest[len..];
            }
            read_all(&mut both[1 - n], &mut read[1 - n]);
        }
    }
    read
}

fn read_all(session: &mut Session, into: &mut Vec<u8>) {
    loop {
        match session.step() {
            Step::Data => {
                // Both ways of reading are used: one copies, the other borrows.
                let mut some = [0; 777];
                let n = session.read(&mut some);
                into.extend_from_slice(&some[..n]);
                into.extend_from_slice(session.plaintext());
                let rest = session.plaintext().len();
                session.consume(rest);
            }
            Step::Secured => {}
            Step::NeedInput | Step::Ended => return,
        }
    }
}

/// Sends the data in both directions at once, and closes.
pub(crate) fn exchange(both: &mut [Session; 2], data: &[u8]) -> [Vec<u8>; 2] {
    let mut received = settle(both);
    let mut left = [data, data];
    while left.iter().any(|left| !left.is_empty()) {
        for n in 0..2 {
            let (a, b) = left[n].split_at(left[n].len() / 3);
            let accepted = both[n].write(&[IoSlice::new(a), IoSlice::new(b)]).unwrap();
            left[n] = &left[n][accepted..];
        }
        for (all, more) in received.iter_mut().zip(settle(both)) {
            all.extend(more);
        }
    }
    both.iter_mut().for_each(Session::close_write);
    for (all, more) in received.iter_mut().zip(settle(both)) {
        all.extend(more);
    }
    received
}

pub(crate) fn assert_clean(both: &[Session; 2], what: &str) {
    for session in both {
        assert!(matches!(session.recv(), RecvHalf::Ended(End::Clean)), "{what}: {:?}", session.recv());
        assert!(matches!(session.send(), SendHalf::Finished), "{what}: {:?}", session.send());
        assert_eq!(session.queued(), 0, "{what}");
    }
}

fn told(facts: &SessionFacts) -> (String, String, Option<String>, bool, usize, usize) {
    (
        facts.version_name(),
        facts.cipher_name(),
        facts.sni.clone(),
        facts.resumed,
        facts.peer_chain.len(),
        facts.own_chain.len(),
    )
}

/// rule: write-1, end-4, half-2, secure-3, secure-7, close-11
#[test]
fn every_pair_of_engines_agrees_on_facts_with_every_suite() {
    let data: Vec<u8> = (0..200_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for version in VERSIONS {
        let default = client(shared_pki(), version, false, None);
        let provider = Arc::clone(default.config().crypto_provider());
        let suites = provider.cipher_suites.iter().filter(|suite| usable(**suite, version));
        let mut spoken = 0;
        for suite in suites {
            let provider = Arc::new(CryptoProvider { cipher_suites: vec![*suite], ..CryptoProvider::clone(&provider) });
            let mut all_told = Vec::new();
            for (ours, theirs) in [(false, false), (false, true), (true, false), (true, true)] {
                let what = format!("{suite:?}, {ours}, {theirs}");
                let client = client(shared_pki(), version, ours, Some(Arc::clone(&provider)));
                let server = server(shared_pki(), theirs, None);
                let mut both = sessions(&client, &server);
                assert_eq!([both[0].is_express(), both[1].is_express()], [ours, theirs], "{what}");
                let received = exchange(&mut both, &data);
                assert!(received[0] == data && received[1] == data, "{what}");
                assert_clean(&both, &what);
                all_told.push(both.map(|session| told(session.facts().unwrap())));
            }
            assert!(all_told.iter().all(|told| *told == all_told[0]), "{all_told:?}");
            assert_eq!(all_told[0][1].2.as_deref(), Some("localhost"));
            spoken += 1;
        }
        assert_eq!(spoken, 3, "{version}");
    }
}

/// The test PKI makes certificates for ECDSA.
fn usable(suite: bowline::rustls::SupportedCipherSuite, version: TlsVersion) -> bool {
    let is_tls13 = suite.tls13().is_some();
    is_tls13 == (version == TlsVersion::V1_3) && (is_tls13 || format!("{suite:?}").contains("ECDSA"))
}

/// rule: secure-3
#[test]
fn a_ticket_from_a_server_resumes_a_session_of_the_express_engine() {
    for version in VERSIONS {
        for theirs in [false, true] {
            let (client, server) = (client(shared_pki(), version, true, None), server(shared_pki(), theirs, None));
            let mut resumed = Vec::new();
            for _ in 0..3 {
                let mut both = sessions(&client, &server);
                exchange(&mut both, b"some");
                assert_clean(&both, &format!("{version} {theirs}"));
                resumed.push(both[0].facts().unwrap().resumed);
            }
            assert_eq!(resumed, [false, true, true], "{version} {theirs}");
        }
    }
}

/// rule: secure-4
#[test]
fn a_failed_handshake_is_reported_the_same_by_both_engines() {
    for version in VERSIONS {
        let strangers = Pki::new();
        let mut all = Vec::new();
        for express in [false, true] {
            let client = client(&strangers, version, express, None);
            let mut both = sessions(&client, &server(shared_pki(), express, None));
            settle(&mut both);
            all.push(both.map(|session| session.failure().cloned().map(|reason| format!("{reason:?}"))));
        }
        assert!(all[0][0].is_some());
        assert_eq!(all[0], all[1]);
    }
}

/// Sends an endless hello in records of one byte. Returns the largest number of bytes that the session holds until it
/// fails, and its failure.
fn endless_hello(mut session: Session) -> (usize, String) {
    let message = [&[1, 0, 0xff, 0xff][..], &[0; 0xffff]].concat();
    let mut most = 0;
    for byte in message {
        let record = [22, 3, 1, 0, 1, byte];
        let space = session.input_space();
        space[..record.len()].copy_from_slice(&record);
        session.handle_input(record.len());
        match session.step() {
            Step::NeedInput => session.handle_idle(),
            Step::Ended => break,
            step => panic!("{step:?}"),
        }
        most += record.len();
    }
    (most, format!("{:?}", session.failure()))
}

/// rule: write-10, secure-4
#[test]
fn a_hello_in_records_of_one_byte_fails_at_64_kilobytes() {
    let by = |express| endless_hello(server(shared_pki(), express, None).session(Watermarks::default()).unwrap());
    let (rustls, express) = (by(false), by(true));
    assert!((60_000..=0xffff).contains(&express.0), "{express:?}");
    assert!(express.0.abs_diff(rustls.0) <= 6 && express.1 == rustls.1, "{rustls:?} {express:?}");
    assert!(express.1.contains("PeerSentOversizedRecord"), "{express:?}");
}

/// Application code that rustls calls.
#[derive(Debug)]
struct Panics;

impl ResolvesServerCert for Panics {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        panic!("a resolver that panics, in a test")
    }
}

/// rule: life-7, end-1
#[test]
fn a_resolver_that_panics_fails_its_own_session() {
    for version in VERSIONS {
        for express in [false, true] {
            let sound = server(shared_pki(), false, None);
            let mut config = ServerConfig::clone(&sound.config());
            config.cert_resolver = Arc::new(Panics);
            let server = ServerTls::from(Arc::new(config));
            let server = if express { server.express().unwrap() } else { server };
            let mut both = sessions(&client(shared_pki(), version, false, None), &server);
            settle(&mut both);
            assert!(matches!(both[1].failure(), Some(Reason::Tls(_))), "{version} {express}: {:?}", both[1].failure());
            assert!(both[1].is_done_sending() && both[1].facts().is_none(), "{version} {express}");
        }
    }
}
