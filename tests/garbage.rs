//! Peers that violate the protocol during a handshake. The connection ends with a typed reason, the right alert on the
//! wire, and FIN after it; it never panics, waits longer than a limit, or grows without limit.
#![allow(clippy::unwrap_used)]

#[path = "garbage/setup.rs"]
mod setup;

use std::sync::LazyLock;
use std::time::Duration;

use bowline::rustls::{self, AlertDescription};
use bowline::testing::peer::{Event, RawTls};
use bowline::testing::raw_tcp_pair;
use bowline::{Phase, Reason, TcpConnection, TlsVersion, Transport, chain};
use proptest::prelude::{ProptestConfig, any, prop, prop_assert, prop_assert_eq, proptest};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use self::setup::{
    ALERT, APPLICATION_DATA, CHANGE_CIPHER_SPEC, HANDSHAKE, SIDES, SOON, Setup, Side, record, tls_error,
};

/// Names, first bytes that no TLS peer sends, and the alerts that have to follow.
fn nonsense() -> Vec<(&'static str, Vec<u8>, AlertDescription)> {
    use AlertDescription as Alert;
    let endless_hello = [&[1, 1, 0, 0][..], &[0; 16_000]].concat();
    let part = record(HANDSHAKE, &[1, 0, 1, 0, 3, 3]);
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
        (
            "a message with data in its middle",
            [part, record(APPLICATION_DATA, b"x")].concat(),
            Alert::UnexpectedMessage,
        ),
        ("a Finished", record(HANDSHAKE, &[20, 0, 0, 2, 0, 0]), Alert::UnexpectedMessage),
        ("a hello of nonsense", record(HANDSHAKE, &[1, 0, 0, 3, 9, 9, 9]), Alert::DecodeError),
    ]
}

/// rule: secure-4, end-1
#[tokio::test]
async fn garbage_instead_of_a_handshake_gets_the_right_alert_and_fin() {
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

/// rule: end-1, secure-4, tcp-11
#[tokio::test]
async fn the_error_for_another_protocol_shows_its_first_bytes() {
    let cases: [(&[u8], Option<&str>, &str); 6] = [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", Some("HTTP"), "\"GET / HTTP/1.1\""),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", Some("HTTP"), "\"HTTP/1.1 400 Bad Request\""),
        (b"SSH-2.0-OpenSSH_9.6\r\n", Some("SSH"), "\"SSH-2.0-OpenSSH_9.6\""),
        (b"220 mail \x1b[2J\r\n", Some("SMTP or FTP"), "\"220 mail \\x1b[2J\""),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", Some("the PROXY protocol"), "\"PROXY TCP4 192.0.2.1"),
        // This text is shorter than the header of a record.
        (b"no\r\n", None, "\"no\""),
    ];
    for (side, express) in SIDES.into_iter().flat_map(|side| [(side, false), (side, true)]) {
        let mut setup = Setup::new(side, TlsVersion::V1_3);
        if express {
            (setup.client, setup.server) = (setup.client.express().unwrap(), setup.server.express().unwrap());
        }
        for (bytes, protocol, shown) in cases {
            let (ours, mut peer) = setup.before().await;
            peer.send(bytes).await.unwrap();
            peer.fin().unwrap();
            assert_eq!(peer.observe().await.last(), Some(&Event::Fin), "{side:?}, {express}, {shown}");
            assert_eq!(peer.clear_alerts(), [AlertDescription::DecodeError], "{side:?}, {express}, {shown}");
            let error = timeout(SOON, ours).await.unwrap().unwrap().unwrap_err();
            let told = chain(&error).to_string();
            assert!(told.contains("does not speak TLS") && told.contains(shown), "{side:?}, {express}: {told}");
            assert!(!told.contains("corrupt") && !told.contains(char::is_control), "{told}");
            let not_tls = tls_error(error.reason().unwrap()).not_tls.as_ref().unwrap();
            assert_eq!((&*not_tls.first_bytes, not_tls.protocol()), (&bytes[..bytes.len().min(64)], protocol));
        }
    }
}

/// rule: end-1
#[tokio::test]
async fn garbage_after_a_tls_record_is_not_reported_as_another_protocol() {
    for side in SIDES {
        let (ours, mut peer) = Setup::new(side, TlsVersion::V1_3).before().await;
        let begun = record(HANDSHAKE, &[if side == Side::Server { 1 } else { 2 }, 0, 1, 0, 3, 3]);
        peer.send(&[&begun, &b"GET / HTTP/1.1\r\n\r\n"[..]].concat()).await.unwrap();
        peer.fin().unwrap();
        let error = timeout(SOON, ours).await.unwrap().unwrap().unwrap_err();
        assert!(tls_error(error.reason().unwrap()).not_tls.is_none(), "{side:?}: {error}");
    }
}

/// rule: secure-4, end-1
#[tokio::test]
async fn a_plaintext_alert_becomes_the_reason_and_is_answered_by_fin_only() {
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
async fn silence_or_endless_input_after_our_alert_does_not_delay_the_end() {
    let bound = Duration::from_millis(200);
    for talks in [false, true] {
        let setup = Setup::new(Side::Server, TlsVersion::V1_3).with(|policy| policy.close_timeout(bound));
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

/// rule: end-1
#[tokio::test]
async fn tls_on_a_plain_port_is_only_bytes_and_ends_in_order() {
    let setup = Setup::new(Side::Server, TlsVersion::V1_3);
    let (ours, theirs) = raw_tcp_pair().await.unwrap();
    let service = tokio::spawn(async move {
        let mut plain = TcpConnection::new(ours, bowline::Policy::default()).unwrap();
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
