//! A handshake that fails sends an alert to the peer, even if rustls has none.

use std::sync::Arc;

use bowline::core::session::Session;
use bowline::rustls::{AlertDescription as Alert, ClientConfig, Error};
use bowline::testing::pki::Pki;
use bowline::testing::shared_pki;
use bowline::{ClientTls, Reason, ServerTls, TlsVersion};

use crate::setup::{ALERT, VERSIONS, record};
use crate::wires::{bring, client, server, sessions, settle, take};

/// A server, and a client whose certificate chain has about this many bytes.
fn builders(pki: &Pki, version: TlsVersion, express: bool, bytes: usize) -> (ClientTls, ServerTls) {
    let alice = pki.client("alice");
    let mut chain = alice.chain_der();
    let length = chain.iter().map(|cert| cert.len()).sum::<usize>();
    for _ in 0..bytes / length {
        chain.extend(alice.chain_der());
    }
    let client = ClientTls::builder().root(pki.ca_der()).identity(chain, alice.key_der());
    let client = client.min_version(version).max_version(version);
    let me = pki.server(&[]);
    let server = ServerTls::builder().identity(me.chain_der(), me.key_der()).client_ca_pem(pki.ca_pem());
    let (client, server) = if express { (client.express(), server.express()) } else { (client, server) };
    (client.build().unwrap(), server.build().unwrap())
}

/// The failure, and the alert that was sent for it.
fn failure(session: &Session) -> Option<(Error, Option<Alert>)> {
    session.failure().map(|reason| match reason {
        Reason::Tls(error) => (error.error.clone(), error.alert_sent),
        other => panic!("not a failure of TLS: {other:?}"),
    })
}

fn alert_received(session: &Session) -> Option<Alert> {
    match failure(session) {
        Some((Error::AlertReceived(alert), _)) => Some(alert),
        _ => None,
    }
}

/// rule: secure-4, secure-10
#[test]
fn a_client_whose_chain_is_too_long_receives_an_alert() {
    let pki = Pki::new();
    for version in VERSIONS {
        for express in [false, true] {
            // This is longer than a message may be.
            let (client, server) = builders(&pki, version, express, 165_000);
            let mut both = sessions(&client, &server);
            settle(&mut both);
            let (error, sent) = failure(&both[1]).unwrap();
            println!("{version} {express}: {error:?} {sent:?}; {:?}", failure(&both[0]));
            assert!(matches!(error, Error::InvalidMessage(_)), "{error:?}");
            // rustls's buffered API seals no alert of ours, as docs/alerts.md says.
            let expected = (version == TlsVersion::V1_2 || express).then_some(Alert::DecodeError);
            assert_eq!((sent, alert_received(&both[0])), (expected, expected), "{version}, express {express}");
        }
    }
}

/// rule: secure-10
///
/// The message is short enough, but it takes too much memory with the headers of its records. After encryption has
/// begun, the only alert that can be sent is decode_error: the session names it, and not the alert for its error.
#[test]
fn the_alert_that_was_really_sent_is_named() {
    let pki = Pki::new();
    for express in [false, true] {
        let (client, server) = builders(&pki, TlsVersion::V1_3, express, 55_000);
        let mut config = ClientConfig::clone(&client.config());
        config.max_fragment_size = Some(64);
        let client = ClientTls::from(Arc::new(config));
        let mut both = sessions(&client, &server);
        settle(&mut both);
        let expected = express.then_some(Alert::DecodeError);
        assert_eq!(failure(&both[1]), Some((Error::PeerSentOversizedRecord, expected)));
        assert_eq!(alert_received(&both[0]), expected);
    }
}

fn give(session: &mut Session, bytes: &[u8]) {
    bring(session, bytes);
    let _ = session.step();
}

/// Overwrites each key share of this group and length: zeros are no key.
fn spoil_shares(hello: &mut [u8]) {
    for (group, length) in [(0x11ec_u16, 1216_usize), (0x11ec, 1120), (0x001d, 32)] {
        let head = [group.to_be_bytes(), u16::try_from(length).unwrap().to_be_bytes()].concat();
        if let Some(at) = hello.windows(4).position(|bytes| bytes == head) {
            hello[at + 4..at + 4 + length].fill(0);
        }
    }
}

/// rule: secure-10
#[test]
fn an_invalid_key_share_is_answered_by_an_alert_on_both_sides() {
    for express in [false, true] {
        let tls = (client(shared_pki(), TlsVersion::V1_3, express, None), server(shared_pki(), express, None));
        for spoil_server in [false, true] {
            let mut both = sessions(&tls.0, &tls.1);
            let mut hello = take(&mut both[0]);
            if !spoil_server {
                spoil_shares(&mut hello);
            }
            give(&mut both[1], &hello);
            if spoil_server {
                let mut flight = take(&mut both[1]);
                spoil_shares(&mut flight);
                give(&mut both[0], &flight);
            }
            settle(&mut both);
            let (finder, told) = if spoil_server { (&both[0], &both[1]) } else { (&both[1], &both[0]) };
            let (_, sent) = failure(finder).unwrap();
            assert_eq!((sent, alert_received(told)), (Some(Alert::IllegalParameter), Some(Alert::IllegalParameter)));
        }
    }
}

/// Changes, removes or doubles a byte, at a different place for each seed.
fn meddle(bytes: &mut Vec<u8>, seed: u64) {
    let random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23) ^ seed;
    let at = random as usize % bytes.len();
    match random >> 32 & 7 {
        0 => drop(bytes.remove(at)),
        1 => bytes.insert(at, bytes[at]),
        bit => bytes[at] ^= 1 << bit,
    }
}

/// rule: secure-4, secure-10
#[test]
fn every_failure_of_a_changed_flight_has_an_alert() {
    let mut failed = 0;
    for version in VERSIONS {
        for express in [false, true] {
            let tls = (client(shared_pki(), version, express, None), server(shared_pki(), express, None));
            for seed in 0..400 {
                let mut both = sessions(&tls.0, &tls.1);
                let mut flight = take(&mut both[0]);
                let at_client = seed % 2 == 0;
                if at_client {
                    give(&mut both[1], &flight);
                    flight = take(&mut both[1]);
                }
                meddle(&mut flight, seed);
                let finder = &mut both[usize::from(!at_client)];
                give(finder, &flight);
                let Some((error, sent)) = failure(finder) else { continue };
                failed += 1;
                let is_told = !finder.transmit().is_empty() && sent.is_some();
                let what = format!("{version}, express {express}, {seed}: {error:?}, {sent:?}");
                assert!(is_told || matches!(error, Error::AlertReceived(_)), "{what}");
            }
        }
    }
    assert!(failed > 500, "only {failed} of 1600 were failures");
}

/// rule: secure-10
#[test]
fn too_many_warnings_before_a_handshake_are_answered_by_an_alert() {
    const WARNING: [u8; 2] = [1, 112];
    for express in [false, true] {
        let server = server(shared_pki(), express, None);
        let mut session = server.session(bowline::Watermarks::default()).unwrap();
        give(&mut session, &record(ALERT, &WARNING).repeat(9));
        let (_, sent) = failure(&session).unwrap();
        assert_eq!(sent, Some(Alert::IllegalParameter));
        assert_eq!(take(&mut session), record(ALERT, &[2, u8::from(Alert::IllegalParameter)]));
    }
}
