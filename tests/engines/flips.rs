//! One byte of a handshake's flight is changed. Both engines must end in the same way and send the same alert. The
//! hellos of the client are constants, because each hello that rustls makes is different.

use bowline::core::session::Session;
use bowline::rustls::{AlertDescription as Alert, Error, NamedGroup};
use bowline::testing::pki::{KeyKind, Pki, Profile};
use bowline::{ClientTls, Reason, ServerTls, TlsVersion, Watermarks};

use crate::setup::{ALERT, HANDSHAKE, VERSIONS, record};
use crate::wires::{bring, sessions, take};

const CHANGES: [u8; 3] = [0x01, 0x80, 0xff];

/// The ClientHello of RFC 8448, section 3, which offers TLS 1.3 only.
const TLS13_HELLO: &str = "\
    010000c00303cb34ecb1e78163ba1c38c6dacb196a6dffa21a8d9912ec18a2ef6283024dece7000006130113031302010000910000000b\
    0009000006736572766572ff01000100000a00140012001d00170018001901000101010201030104002300000033002600240\
    01d002099381de560e4bd43d23d8e435a7dbafeb3c06e51c13cae4d5413691e529aaf2c002b0003020304000d0020001e0403050306030\
    203080408050806040105010601020104020502060202020\
    02d00020101001c00024001";

/// A ClientHello that offers TLS 1.2 only: ECDHE with AES-128-GCM, the extended master secret, and ALPN.
const TLS12_HELLO: &str = "\
    0100006e0303cb34ecb1e78163ba1c38c6dacb196a6dffa21a8d9912ec18a2ef6283024dece7000004c02bc02f01000041\
    0000000b0009000006736572766572000a00060004001d0017000b00020100000d0008000604030807080400170000\
    ff0100010000100005000302683200230000";

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.chars().filter_map(|digit| digit.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// The end of a session, and the alert that it has sent.
#[derive(Debug, Clone, PartialEq, Eq)]
struct End {
    reason: String,
    alert_sent: Option<Alert>,
    /// The alert on the wire. The inner value is `None` if the alert is encrypted.
    alert: Option<Option<u8>>,
}

impl End {
    /// Gives a session these bytes, and then the end of the stream.
    fn of(session: &mut Session, input: &[u8]) -> Self {
        let is_over = |session: &Session| session.failure().is_some();
        bring(session, input);
        let _ = session.step();
        let mut sent = take(session);
        if !is_over(session) {
            session.handle_eof();
            let _ = session.step();
            sent.extend(take(session));
        }
        let (reason, alert_sent) = match session.failure() {
            Some(Reason::Tls(error)) => (format!("{:?}", error.error), error.alert_sent),
            Some(reason) => (format!("{reason:?}"), None),
            None => ("open".to_owned(), None),
        };
        Self { reason, alert_sent, alert: last_alert(&sent) }
    }

    /// Whether the session has sent an alert for a failure that it found itself, and no alert otherwise.
    fn is_told(&self, session: &Session) -> bool {
        match session.failure() {
            Some(Reason::Tls(error)) if matches!(error.error, Error::AlertReceived(_)) => true,
            Some(Reason::Tls(_)) => match self.alert {
                Some(Some(alert)) => self.alert_sent == Some(Alert::from(alert)),
                Some(None) => self.alert_sent.is_some(),
                None => false,
            },
            _ => self.alert.is_none() && self.alert_sent.is_none(),
        }
    }
}

/// The alert in the last record, if that is an alert: a record of type 21, or a sealed one with two bytes of plaintext.
fn last_alert(mut sent: &[u8]) -> Option<Option<u8>> {
    const SEALED_TLS13: usize = 2 + 1 + 16;
    const SEALED_TLS12: usize = 8 + 2 + 16;
    let mut last = None;
    while let Some(header) = sent.first_chunk::<5>() {
        let (body, rest) = sent[5..].split_at(usize::from(u16::from_be_bytes([header[3], header[4]])));
        last = match (header[0], body.len()) {
            (ALERT, 2) => Some(Some(body[1])),
            (ALERT, SEALED_TLS12) | (23, SEALED_TLS13) => Some(None),
            _ => None,
        };
        sent = rest;
    }
    last
}

/// The configurations with each engine. The messages of these groups and of this kind of key always have the same
/// length.
fn configurations(pki: &Pki, version: TlsVersion) -> [(ClientTls, ServerTls); 2] {
    let me = pki.issue(Profile::server(&["localhost"]).key(KeyKind::Ed25519));
    [false, true].map(|express| {
        let groups = [NamedGroup::X25519];
        let client = ClientTls::builder().root(pki.ca_der()).min_version(version).max_version(version).alpn(["h2"]);
        let server = ServerTls::builder().identity(me.chain_der(), me.key_der()).alpn(["h2"]);
        let (client, server) = (client.key_exchange_groups(groups), server.key_exchange_groups(groups));
        match express {
            true => (client.express().build().unwrap(), server.express().build().unwrap()),
            false => (client.build().unwrap(), server.build().unwrap()),
        }
    })
}

fn compare(what: &str, ends: [(End, bool); 2]) {
    let [(rustls, rustls_told), (express, express_told)] = ends;
    assert_eq!(rustls, express, "{what}");
    assert!(rustls_told && express_told, "{what}: {rustls:?}");
}

/// rule: end-1, secure-4, secure-10
#[test]
fn a_server_ends_alike_with_both_engines_whatever_byte_of_a_hello_is_changed() {
    let pki = Pki::new();
    let mut failures = 0;
    for (version, hello) in [(TlsVersion::V1_2, bytes(TLS12_HELLO)), (TlsVersion::V1_3, bytes(TLS13_HELLO))] {
        let both = configurations(&pki, version);
        let hello = record(HANDSHAKE, &hello);
        for (at, change) in (0..=hello.len()).flat_map(|at| CHANGES.map(|change| (at, change))) {
            let mut hello = hello.clone();
            // For `at` after the last byte, the hello stays unchanged.
            hello.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= change);
            let ends = both.each_ref().map(|(_, server)| {
                let mut session = server.session(Watermarks::default()).unwrap();
                let end = End::of(&mut session, &hello);
                let is_told = end.is_told(&session);
                (end, is_told)
            });
            failures += usize::from(ends[0].0.alert.is_some());
            compare(&format!("{version}, byte {at} ^ {change:02x}"), ends);
        }
    }
    assert!(failures > 500, "only {failures} were failures");
}

/// rule: end-1, secure-4, secure-10
#[test]
fn a_client_ends_alike_with_both_engines_whatever_byte_of_a_flight_is_changed() {
    let pki = Pki::new();
    let mut failures = 0;
    for version in VERSIONS {
        let both = configurations(&pki, version);
        let flight_of = |client: &ClientTls| {
            // Both clients connect to the same server.
            let mut both = sessions(client, &both[0].1);
            let hello = take(&mut both[0]);
            bring(&mut both[1], &hello);
            let _ = both[1].step();
            (take(&mut both[1]), both)
        };
        let length = flight_of(&both[0].0).0.len();
        // Only a sample of the bytes is changed in the certificates and in the encrypted part.
        let places = (0..length).filter(|at| *at < 160 || at % 7 == 0);
        for (at, change) in places.flat_map(|at| CHANGES.map(|change| (at, change))) {
            let ends = || {
                both.each_ref().map(|(client, _)| {
                    let (mut flight, [mut session, _]) = flight_of(client);
                    assert_eq!(flight.len(), length);
                    flight[at] ^= change;
                    let end = End::of(&mut session, &flight);
                    let is_told = end.is_told(&session);
                    (end, is_told)
                })
            };
            // Each client gets a flight of its own, with other random bytes. If a length is changed, a client reads some
            // of these bytes as the header of the next message, and about one in a hundred such pairs ends in two ways.
            // A difference between the engines is there in each attempt.
            let is_alike = |ends: &[(End, bool); 2]| ends[0] == ends[1];
            let ends = (0..4).map(|_| ends()).find(is_alike).unwrap_or_else(ends);
            failures += usize::from(ends[0].0.alert.is_some());
            compare(&format!("{version}, byte {at} ^ {change:02x}"), ends);
        }
    }
    assert!(failures > 500, "only {failures} were failures");
}
