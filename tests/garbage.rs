//! Peers that do not keep to the protocol: a typed reason, the right alert on the wire, FIN behind it, and never a panic,
//! a hang past a bound, or growth without limit.
#![allow(clippy::unwrap_used)]

use std::io;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bowline::rustls::{self, AlertDescription, ContentType};
use bowline::testing::peer::{Event, Meddler, RawTcp, RawTls};
use bowline::testing::{pki::Pki, raw_tcp_pair};
use bowline::{
    Bound, ClientTls, Error, Phase, Policy, Reason, ServerTls, TcpConnection, TlsConnection, TlsError, TlsVersion,
    Transport,
};
use proptest::prelude::{ProptestConfig, any, prop, prop_assert, prop_assert_eq, proptest};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, timeout};

const SOON: Duration = Duration::from_secs(20);
const VERSIONS: [TlsVersion; 2] = [TlsVersion::V1_2, TlsVersion::V1_3];
const SIDES: [Side; 2] = [Side::Client, Side::Server];

/// Which side is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Client,
    Server,
}

#[derive(Clone)]
struct Setup {
    side: Side,
    server: ServerTls,
    client: ClientTls,
    policy: Arc<Policy>,
}

impl Setup {
    fn new(side: Side, version: TlsVersion) -> Self {
        let pki = Pki::new();
        let client = pki.client_tls_builder().min_version(version).max_version(version).build().unwrap();
        Self { side, server: pki.server_tls(), client, policy: Arc::default() }
    }

    fn with(self, change: impl FnOnce(&mut Policy)) -> Self {
        let mut policy = Policy::clone(&self.policy);
        change(&mut policy);
        Self { policy: policy.into(), ..self }
    }

    async fn ours(self, stream: TcpStream) -> Result<TlsConnection<TcpConnection>, Error> {
        let tcp = TcpConnection::new(stream, self.policy).unwrap();
        match self.side {
            Side::Client => TlsConnection::connect(tcp, &self.client, "localhost").await,
            Side::Server => TlsConnection::accept(tcp, &self.server).await,
        }
    }

    async fn raw(&self, stream: TcpStream) -> RawTls {
        match self.side {
            Side::Server => RawTls::client(stream, &self.client, "localhost").await.unwrap(),
            Side::Client => RawTls::server(stream, &self.server).await.unwrap(),
        }
    }

    /// Our handshake under way, and a peer that has not begun.
    async fn before(&self) -> (JoinHandle<Result<TlsConnection<TcpConnection>, Error>>, RawTcp) {
        let (ours, theirs) = raw_tcp_pair().await.unwrap();
        (tokio::spawn(self.clone().ours(ours)), RawTcp::new(theirs))
    }

    /// The handshake done.
    async fn done(&self) -> (TlsConnection<TcpConnection>, RawTls) {
        let (ours, theirs) = raw_tcp_pair().await.unwrap();
        let (ours, raw) = tokio::join!(self.clone().ours(ours), self.raw(theirs));
        (ours.unwrap(), raw)
    }
}

fn tls_error(reason: &Reason) -> &TlsError {
    match reason {
        Reason::Tls(error) => error,
        other => panic!("not a failure of TLS: {other:?}"),
    }
}

fn reason_of(error: io::Error) -> Reason {
    Reason::from_io(error, Phase::Connect)
}

/// One record in the clear.
fn record(typ: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    [&[typ, 3, 3][..], &length, body].concat()
}

const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;

/// What no TLS peer sends first, what it is called, and the alert that is due.
fn nonsense() -> Vec<(&'static str, Vec<u8>, AlertDescription)> {
    use AlertDescription as Alert;
    let endless_hello = [&[1, 1, 0, 0][..], &[0; 16_000]].concat();
    let longest_hello = [&[1, 0xff, 0xff, 0xff][..], &[0; 100]].concat();
    vec![
        ("HTTP", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(), Alert::DecodeError),
        ("an HTTP answer", b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), Alert::DecodeError),
        ("an SSH banner", b"SSH-2.0-OpenSSH_9.6\r\n".to_vec(), Alert::DecodeError),
        ("zeros", vec![0; 64], Alert::DecodeError),
        ("a record of 64 KiB", vec![HANDSHAKE, 3, 1, 0xff, 0xff], Alert::DecodeError),
        ("another protocol's version", vec![HANDSHAKE, 2, 0, 0, 4, 1, 2, 3, 4], Alert::DecodeError),
        ("data", record(APPLICATION_DATA, b"too early"), Alert::UnexpectedMessage),
        ("a change of ciphers", record(CHANGE_CIPHER_SPEC, &[1]), Alert::UnexpectedMessage),
        ("an alert of one byte", record(ALERT, &[2]), Alert::DecodeError),
        ("an empty record", record(HANDSHAKE, &[]), Alert::DecodeError),
        ("a message of 64 KiB", record(HANDSHAKE, &endless_hello).repeat(8), Alert::DecodeError),
        ("a message of 16 MiB", record(HANDSHAKE, &longest_hello), Alert::DecodeError),
        ("a Finished", record(HANDSHAKE, &[20, 0, 0, 2, 0, 0]), Alert::UnexpectedMessage),
        ("a hello of nonsense", record(HANDSHAKE, &[1, 0, 0, 3, 9, 9, 9]), Alert::DecodeError),
    ]
}

/// rule: secure-4, end-1
#[tokio::test]
async fn nonsense_instead_of_a_handshake_is_told_by_the_right_alert_and_fin() {
    for side in SIDES {
        let setup = Setup::new(side, TlsVersion::V1_3);
        for (what, bytes, alert) in nonsense() {
            let (ours, mut peer) = setup.before().await;
            peer.send(&bytes).await.unwrap();
            assert_eq!(peer.observe().await.last(), Some(&Event::Fin), "{side:?}, {what}");
            assert_eq!(peer.clear_alerts(), [alert], "{side:?}, {what}");
            peer.fin().unwrap();
            let error = timeout(SOON, ours).await.unwrap().unwrap().unwrap_err();
            let error = tls_error(error.reason().unwrap());
            assert_eq!((error.phase, error.alert_sent), (Phase::Handshake, Some(alert)), "{side:?}, {what}");
        }
    }
}

/// rule: secure-4, end-1
#[tokio::test]
async fn an_alert_of_the_peers_in_the_clear_is_the_reason_and_is_answered_by_fin_only() {
    for side in SIDES {
        let setup = Setup::new(side, TlsVersion::V1_3);
        for alert in [AlertDescription::HandshakeFailure, AlertDescription::UnknownCA] {
            let (ours, mut peer) = setup.before().await;
            peer.send(&record(ALERT, &[2, alert.into()])).await.unwrap();
            assert_eq!(peer.observe().await.last(), Some(&Event::Fin));
            assert_eq!(peer.clear_alerts(), []);
            peer.fin().unwrap();
            let error = timeout(SOON, ours).await.unwrap().unwrap().unwrap_err();
            let error = tls_error(error.reason().unwrap());
            assert_eq!((&error.error, error.alert_sent), (&rustls::Error::AlertReceived(alert), None));
        }
    }
}

/// rule: secure-4, secure-5, close-3
#[tokio::test]
async fn a_peer_that_answers_the_alert_with_silence_or_endless_talk_holds_nobody() {
    let bound = Duration::from_millis(200);
    for talks in [false, true] {
        let setup = Setup::new(Side::Server, TlsVersion::V1_3).with(|policy| policy.close_timeout = Some(bound));
        let (ours, mut peer) = setup.before().await;
        peer.send(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let begin = Instant::now();
        let talking = tokio::spawn(async move {
            let talked = if talks { peer.talk(u64::MAX).await } else { 0 };
            (talked, peer)
        });
        assert!(timeout(SOON, ours).await.unwrap().unwrap().is_err());
        assert!(begin.elapsed() < bound + Duration::from_secs(5));
        timeout(SOON, talking).await.unwrap().unwrap();
    }
}

/// What a peer does to an open session, and the alert that is due.
type Sin = (&'static str, fn(&mut RawTls) -> &mut RawTls, AlertDescription);

fn sins(version: TlsVersion) -> Vec<Sin> {
    use AlertDescription as Alert;
    let mut sins: Vec<Sin> = vec![
        ("HTTP", |peer| peer.clear(b"HTTP/1.1 200 OK\r\n\r\n"), Alert::DecodeError),
        ("a record of 64 KiB", |peer| peer.clear(&[APPLICATION_DATA, 3, 3, 0xff, 0xff]), Alert::DecodeError),
        ("a forged record", |peer| peer.clear(&record(APPLICATION_DATA, &[7; 64])), Alert::BadRecordMac),
        (
            "plaintext for data",
            |peer| peer.clear(&record(APPLICATION_DATA, b"in the clear, as it were")),
            Alert::BadRecordMac,
        ),
        ("too much in a record", |peer| peer.record(ContentType::ApplicationData, &TOO_MUCH), Alert::RecordOverflow),
        ("an alert of one byte", |peer| peer.record(ContentType::Alert, &[1]), Alert::DecodeError),
        ("a Finished", |peer| peer.record(ContentType::Handshake, &[20, 0, 0, 2, 0, 0]), Alert::UnexpectedMessage),
    ];
    if version == TlsVersion::V1_3 {
        let bad_update: Sin = (
            "a KeyUpdate of nonsense",
            |peer| peer.record(ContentType::Handshake, &[24, 0, 0, 1, 7]),
            Alert::IllegalParameter,
        );
        sins.push(bad_update);
    }
    sins
}

static TOO_MUCH: [u8; (1 << 14) + 1] = [0; (1 << 14) + 1];

/// Every side in every version.
fn all_setups() -> impl Iterator<Item = (String, TlsVersion, Setup)> {
    SIDES
        .into_iter()
        .flat_map(|side| VERSIONS.map(|version| (format!("{side:?}, {version:?}"), version, Setup::new(side, version))))
}

/// rule: end-1, end-2, end-5
#[tokio::test]
async fn sins_of_an_open_session_are_told_behind_the_data_by_an_alert_and_fin() {
    for (name, version, setup) in all_setups() {
        for (what, sin, alert) in sins(version) {
            let (mut ours, mut peer) = setup.done().await;
            sin(peer.data(b"all is well")).send().await.unwrap();
            let mut data = Vec::new();
            for _ in 0..2 {
                let error = timeout(SOON, ours.read_to_end(&mut data)).await.unwrap().unwrap_err();
                let reason = reason_of(error);
                let error = tls_error(&reason);
                assert_eq!((error.phase, error.alert_sent), (Phase::Open, Some(alert)), "{name}, {what}");
            }
            assert_eq!(data, b"all is well", "{name}, {what}");
            assert_eq!(peer.observe().await, [Event::Alert(alert), Event::Fin], "{name}, {what}");
            peer.fin().unwrap();
            let report = timeout(SOON, ours.close()).await.unwrap();
            assert_eq!(tls_error(&report.reason).alert_sent, Some(alert), "{name}, {what}");
        }
    }
}

/// rustls ends these without an alert, and has no way to send one of ours.
///
/// rule: end-1, end-5
#[tokio::test]
async fn what_is_small_and_has_no_end_is_ended_at_a_bound() {
    type Talk = fn(&mut RawTls) -> &mut RawTls;
    let empty: Talk = |peer| peer.record(ContentType::ApplicationData, b"");
    let key_updates: Talk = |peer| peer.key_update(true);
    let long_message: Talk = |peer| peer.record(ContentType::Handshake, &[[4, 1, 0, 0], [0; 4]].concat());
    for (name, version, setup) in all_setups() {
        let mut talks = vec![("empty records", empty)];
        if version == TlsVersion::V1_3 {
            talks.extend([("KeyUpdates", key_updates), ("a ticket of 64 KiB", long_message)]);
        }
        for (what, talk) in talks {
            let (mut ours, mut peer) = setup.done().await;
            for _ in 0..200 {
                talk(&mut peer);
            }
            peer.send().await.unwrap();
            let error = timeout(SOON, ours.read(&mut [0; 64])).await.unwrap().unwrap_err();
            assert_eq!(tls_error(&reason_of(error)).phase, Phase::Open, "{name}, {what}");
            assert_eq!(peer.observe().await.last(), Some(&Event::Fin), "{name}, {what}");
        }
    }
}

/// rule: secure-4, secure-6, end-1
#[tokio::test]
async fn a_fatal_alert_of_the_peers_is_the_reason_and_is_answered_by_fin_only() {
    for (name, _, setup) in all_setups() {
        let (mut ours, mut peer) = setup.done().await;
        peer.data(b"until now").alert(AlertDescription::AccessDenied).send().await.unwrap();
        let mut data = Vec::new();
        let reason = reason_of(ours.read_to_end(&mut data).await.unwrap_err());
        let error = tls_error(&reason);
        let received = rustls::Error::AlertReceived(AlertDescription::AccessDenied);
        assert_eq!((&data[..], &error.error, error.alert_sent), (&b"until now"[..], &received, None), "{name}");
        assert_eq!(peer.observe().await, [Event::Fin], "{name}");
        peer.fin().unwrap();
        assert!(matches!(ours.close().await.reason, Reason::Tls(_)), "{name}");
    }
}

/// rule: end-4, half-8
#[tokio::test]
async fn nothing_behind_close_notify_is_delivered_or_changes_the_clean_end() {
    type Junk = fn(&mut RawTls) -> &mut RawTls;
    let junk: [(&str, Junk); 5] = [
        ("junk", |peer| peer.clear(b"junk")),
        ("data", |peer| peer.data(b"data")),
        ("a second close_notify", |peer| peer.close_notify()),
        ("a fatal alert", |peer| peer.alert(AlertDescription::InternalError)),
        ("a record of 64 KiB", |peer| peer.clear(&[APPLICATION_DATA, 3, 3, 0xff, 0xff])),
    ];
    for (name, _, setup) in all_setups() {
        for (what, junk) in junk {
            let (mut ours, mut peer) = setup.done().await;
            junk(peer.data(b"the end").close_notify()).send().await.unwrap();
            peer.fin().unwrap();
            let mut data = Vec::new();
            for _ in 0..2 {
                timeout(SOON, ours.read_to_end(&mut data)).await.unwrap().unwrap();
            }
            assert_eq!(data, b"the end", "{name}, {what}");
            ours.write_all(b"and ours").await.unwrap();
            let report = timeout(SOON, ours.close()).await.unwrap();
            assert!(report.is_clean(), "{name}, {what}: {report:?}");
            let seen = [Event::Data(8), Event::CloseNotify, Event::Fin];
            assert_eq!(peer.observe().await, seen, "{name}, {what}");
        }
    }
}

/// rule: secure-7
#[tokio::test]
async fn a_key_update_is_answered_although_we_only_read() {
    for side in SIDES {
        let (mut ours, mut peer) = Setup::new(side, TlsVersion::V1_3).done().await;
        let reading = tokio::spawn(async move {
            let mut data = Vec::new();
            ours.read_to_end(&mut data).await.map(|_| (data, ours))
        });
        peer.data(b"old").key_update(true).data(b"new").send().await.unwrap();
        assert!(peer.wait_for(Event::KeyUpdate { requested: false }).await, "{:?}", peer.events());
        peer.close_notify().send().await.unwrap();
        let (data, mut ours) = timeout(SOON, reading).await.unwrap().unwrap().unwrap();
        assert_eq!(data, b"oldnew");
        // What we send now is sealed with the new keys.
        ours.write_all(b"understood").await.unwrap();
        assert_eq!(peer.receive(10).await, b"understood");
    }
}

/// rule: write-8, flow-4
#[tokio::test]
async fn a_peer_that_talks_to_somebody_who_does_not_read_is_held_back_by_its_socket() {
    for (name, _, setup) in all_setups() {
        let (mut ours, peer) = setup.done().await;
        // One byte is read, so that the session has seen how much there is.
        let mut peer = peer.patience(Duration::from_millis(200));
        let talking = tokio::spawn(async move { (peer.talk(64 << 20).await, peer) });
        ours.read_exact(&mut [0]).await.unwrap();
        let (sent, _peer) = timeout(SOON, talking).await.unwrap().unwrap();
        assert!(sent < 48 << 20, "{name}: {sent} bytes");
    }
}

/// rule: close-3
#[tokio::test]
async fn endless_talk_ends_a_close_at_its_bound_in_bytes() {
    for (name, _, setup) in all_setups() {
        let setup = setup.with(|policy| policy.close_discard = 1 << 20);
        let (mut ours, mut peer) = setup.done().await;
        let talking = tokio::spawn(async move { peer.talk(u64::MAX).await });
        let report = timeout(SOON, ours.close()).await.unwrap();
        assert_eq!(report.bound, Some(Bound::Bytes), "{name}: {report:?}");
        assert!(!report.is_clean() && report.discarded < 2 << 20, "{name}: {report:?}");
        timeout(SOON, talking).await.unwrap().unwrap();
    }
}

/// rule: end-1
#[tokio::test]
async fn tls_on_a_plain_port_is_only_bytes_and_ends_in_order() {
    let setup = Setup::new(Side::Server, TlsVersion::V1_3);
    let (ours, theirs) = raw_tcp_pair().await.unwrap();
    let service = tokio::spawn(async move {
        let mut plain = TcpConnection::new(ours, Arc::default()).unwrap();
        let mut begin = [0; 3];
        plain.read_exact(&mut begin).await.unwrap();
        plain.write_all(b"500 what was that?\r\n").await.unwrap();
        (begin, plain.close().await)
    });
    let failed = RawTls::client(theirs, &setup.client, "localhost").await.unwrap_err();
    assert_eq!(failed.events, [Event::Fin]);
    let (begin, report) = timeout(SOON, service).await.unwrap().unwrap();
    assert_eq!(begin, [HANDSHAKE, 3, 1]);
    assert!(report.is_clean(), "{report:?}");
}

/// A byte of the peer's handshake is flipped, each in turn. Nothing but a success or a failure of TLS can come of it; or
/// a wait for the rest of a record, where the byte was in its length, that ends with the deadline.
///
/// rule: secure-4, secure-5, end-1
#[tokio::test]
async fn a_corrupt_handshake_fails_as_tls_or_in_time() {
    let bound = Duration::from_millis(700);
    for (name, _, setup) in all_setups() {
        let setup = setup.with(|policy| policy.handshake_timeout = Some(bound));
        let mut running = JoinSet::new();
        for offset in (0..1_500).step_by(11).chain(0..16) {
            running.spawn(corrupt_at(setup.clone(), offset));
        }
        let mut failed = 0;
        while let Some(outcome) = running.join_next().await {
            match outcome.unwrap() {
                Ok(()) => {}
                Err(Error::Ended(Reason::Tls(_))) => failed += 1,
                // The peer had enough, or either side waits for more.
                Err(Error::Ended(Reason::TimedOut(Phase::Handshake) | Reason::Truncated(Phase::Handshake))) => {}
                Err(other) => panic!("{name}: {other:?}"),
            }
        }
        assert!(failed > 10, "{name}: {failed}");
    }
}

async fn corrupt_at(setup: Setup, offset: u64) -> Result<(), Error> {
    let (ours, our_line) = raw_tcp_pair().await.unwrap();
    let (theirs, their_line) = raw_tcp_pair().await.unwrap();
    let meddler = Meddler::between(their_line, our_line).unwrap();
    meddler.to_server().corrupt(offset);
    let peer = {
        let setup = setup.clone();
        tokio::spawn(async move {
            match setup.side {
                Side::Server => RawTls::client(theirs, &setup.client, "localhost").await,
                Side::Client => RawTls::server(theirs, &setup.server).await,
            }
        })
    };
    let result = timeout(SOON, setup.ours(ours)).await.unwrap().map(drop);
    drop(meddler);
    let _ = timeout(SOON, peer).await.unwrap();
    result
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    /// rule: secure-4, end-1, end-6
    #[test]
    fn random_bytes_end_a_handshake_with_a_reason_and_fin(
        is_client in any::<bool>(),
        looks_like_tls in any::<bool>(),
        mut bytes in prop::collection::vec(any::<u8>(), 1..600),
    ) {
        if looks_like_tls {
            let length = u16::try_from(bytes.len()).unwrap().to_be_bytes();
            bytes.splice(0..0, [HANDSHAKE, 3, 1, length[0], length[1]]);
        }
        let side = if is_client { Side::Client } else { Side::Server };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (result, last) = runtime.block_on(async {
            let (ours, mut peer) = SETUPS[usize::from(is_client)].before().await;
            peer.send(&bytes).await.unwrap();
            peer.fin().unwrap();
            let last = peer.observe().await.last().copied();
            (timeout(SOON, ours).await.unwrap().unwrap().map(drop), last)
        });
        let error = result.unwrap_err();
        let reason = error.reason().unwrap();
        let is_typed = matches!(reason, Reason::Tls(_) | Reason::Truncated(Phase::Handshake));
        prop_assert!(is_typed, "{side:?}: {reason:?}");
        prop_assert_eq!(last, Some(Event::Fin));
    }
}

/// Making certificates for each case would take longer than the cases.
static SETUPS: LazyLock<[Setup; 2]> =
    LazyLock::new(|| [Side::Server, Side::Client].map(|side| Setup::new(side, TlsVersion::V1_3)));
