//! Peers that violate the protocol after the handshake. The reader gets the data and then a typed reason; the right
//! alert leaves, and FIN after it. The connection never panics, waits longer than a limit, or grows without limit.
#![allow(clippy::unwrap_used)]

#[path = "garbage/setup.rs"]
mod setup;

use std::sync::LazyLock;
use std::time::Duration;

use bowline::rustls::{self, AlertDescription, ContentType};
use bowline::testing::peer::{Event, Meddler, RawTls};
use bowline::testing::raw_tcp_pair;
use bowline::{
    CloseLimit, Phase, Policy, Reason, StartTls, TcpConnection, TlsVersion, Transport, UpgradableConnection,
};
use proptest::prelude::{ProptestConfig, any, prop, prop_assert, proptest};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use self::setup::{APPLICATION_DATA, SIDES, SOON, Setup, Side, all_setups, reason_of, record, tls_error};

/// A name, an action of a peer that violates the protocol in an open session, and the alert that has to follow.
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

/// rule: end-1, end-2, end-5
#[tokio::test]
async fn violations_in_an_open_session_get_an_alert_and_fin_after_the_data() {
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

/// In debug builds rustls asserts that no alert is due any more then.
///
/// rule: end-1, end-5, half-2
#[tokio::test]
async fn violations_after_our_close_notify_end_the_read_half_without_an_alert() {
    for (name, version, setup) in all_setups() {
        for (what, sin, _) in sins(version) {
            let (mut ours, mut peer) = setup.done().await;
            ours.close_write().await.unwrap();
            sin(peer.data(b"all is well")).send().await.unwrap();
            let mut data = Vec::new();
            for _ in 0..2 {
                let error = timeout(SOON, ours.read_to_end(&mut data)).await.unwrap().unwrap_err();
                let reason = reason_of(error);
                let error = tls_error(&reason);
                assert_eq!((error.phase, error.alert_sent), (Phase::Open, None), "{name}, {what}");
            }
            assert_eq!(data, b"all is well", "{name}, {what}");
            assert_eq!(peer.observe().await, [Event::CloseNotify, Event::Fin], "{name}, {what}");
            peer.fin().unwrap();
            let report = timeout(SOON, ours.close()).await.unwrap();
            assert!(matches!(report.reason, Reason::Tls(_)) && report.marker_sent(), "{name}, {what}: {report:?}");
        }
    }
}

/// A renegotiation is refused by an alert, and a KeyUpdate is answered, but not after our close_notify: bytes that
/// leave after close_notify are plaintext.
///
/// rule: half-2, secure-7, upgrade-9
#[tokio::test]
async fn nothing_of_tls_follows_the_close_notify_of_a_downgrade() {
    for (name, version, setup) in all_setups() {
        let (ours, theirs) = raw_tcp_pair().await.unwrap();
        let mut ours = UpgradableConnection::new(TcpConnection::new(ours, Policy::default()).unwrap());
        let how = match setup.side {
            Side::Client => StartTls::client(&setup.client, "localhost"),
            Side::Server => StartTls::server(&setup.server),
        };
        let (upgraded, mut peer) = tokio::join!(ours.start_tls(how), setup.raw(theirs));
        upgraded.unwrap();
        let stopping = tokio::spawn(async move { ours.stop_tls().await.map(|()| ours) });
        assert!(peer.wait_for(Event::CloseNotify).await, "{name}: {:?}", peer.events());
        match (version, setup.side) {
            (TlsVersion::V1_2, Side::Client) => peer.record(ContentType::Handshake, &[0, 0, 0, 0]),
            (TlsVersion::V1_2, Side::Server) => peer.record(ContentType::Handshake, &hello_of_nobody()),
            _ => peer.key_update(true),
        };
        peer.close_notify().send().await.unwrap();
        let mut ours = timeout(SOON, stopping).await.unwrap().unwrap().unwrap();
        ours.write_all(b"in the clear").await.unwrap();
        ours.close_write().await.unwrap();
        assert_eq!(peer.observe().await, [Event::CloseNotify, Event::Fin], "{name}");
        assert_eq!(peer.unopened(), b"in the clear", "{name}");
    }
}

/// A ClientHello that can be parsed: TLS 1.2, a random, no session, one suite, no compression.
fn hello_of_nobody() -> Vec<u8> {
    let body = [&[3, 3][..], &[7; 32], &[0], &[0, 2, 0xc0, 0x2f], &[1, 0]].concat();
    [&[1, 0, 0, u8::try_from(body.len()).unwrap()][..], &body].concat()
}

/// rustls ends these sessions without an alert, and cannot send one of ours.
///
/// rule: end-1, end-5
#[tokio::test]
async fn endless_small_messages_end_the_session_at_a_limit() {
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
async fn bytes_after_close_notify_are_not_delivered_and_the_end_stays_clean() {
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
        // We seal with the new keys from here on.
        ours.write_all(b"understood").await.unwrap();
        assert_eq!(peer.receive(10).await, b"understood");
    }
}

/// rule: secure-13
#[tokio::test]
async fn one_answer_serves_all_key_updates_that_have_arrived() {
    const ONE_SEGMENT: usize = 20;
    for side in SIDES {
        let (mut ours, mut peer) = Setup::new(side, TlsVersion::V1_3).done().await;
        for _ in 0..ONE_SEGMENT {
            peer.key_update(true).data(b"x");
        }
        peer.send().await.unwrap();
        // The bytes are read one by one, so that more of them have arrived than were read.
        for _ in 0..ONE_SEGMENT {
            assert_eq!(ours.read_u8().await.unwrap(), b'x', "{side:?}");
        }
        ours.write_all(b"understood").await.unwrap();
        assert_eq!(peer.receive(10).await, b"understood");
        assert_eq!(peer.events(), [Event::KeyUpdate { requested: false }, Event::Data(10)], "{side:?}");
    }
}

/// rule: secure-13, write-10
#[tokio::test]
async fn thousands_of_key_update_requests_bring_few_answers() {
    const REQUESTS: usize = 5_000;
    for side in SIDES {
        let (mut ours, mut peer) = Setup::new(side, TlsVersion::V1_3).done().await;
        for _ in 0..REQUESTS {
            peer.key_update(true).data(b"x");
        }
        peer.close_notify();
        let reading = async {
            let mut data = Vec::new();
            ours.read_to_end(&mut data).await.unwrap();
            assert_eq!(data.len(), REQUESTS, "{side:?}");
            ours.close_write().await.unwrap();
        };
        let sending = async {
            peer.send().await.unwrap();
            peer.fin().unwrap();
        };
        timeout(SOON, async { tokio::join!(reading, sending) }).await.unwrap();
        let seen = peer.observe().await;
        let answers = seen.iter().filter(|event| **event == Event::KeyUpdate { requested: false }).count();
        // There is one answer each time that no more bytes had arrived, and the kernel decides how often that is.
        assert!((1..REQUESTS / 10).contains(&answers), "{side:?}: {answers}");
        assert!(seen.ends_with(&[Event::CloseNotify, Event::Fin]), "{side:?}: {seen:?}");
    }
}

/// rule: write-8, flow-4
#[tokio::test]
async fn a_peer_that_sends_while_we_do_not_read_is_held_back_by_its_socket() {
    for (name, _, setup) in all_setups() {
        let (mut ours, peer) = setup.done().await;
        // One byte is read, so that the session has seen how many bytes have arrived.
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
        let setup = setup.with(|policy| policy.close_discard(1 << 20));
        let (mut ours, mut peer) = setup.done().await;
        let talking = tokio::spawn(async move { peer.talk(u64::MAX).await });
        let report = timeout(SOON, ours.close()).await.unwrap();
        assert_eq!(report.limit, Some(CloseLimit::Bytes), "{name}: {report:?}");
        assert!(!report.is_clean() && report.discarded < 2 << 20, "{name}: {report:?}");
        timeout(SOON, talking).await.unwrap().unwrap();
    }
}

/// rule: end-5, secure-4, write-6
#[tokio::test]
async fn an_alert_leaves_after_the_data_of_a_full_socket() {
    for (name, _, setup) in all_setups() {
        let (mut ours, mut peer) = setup.done().await;
        // The peer does not read: the socket fills, and then our queue.
        while timeout(Duration::from_millis(100), ours.write(&[b'.'; 16 << 10])).await.is_ok() {}
        let queued = ours.queued();
        assert!(queued > 0, "{name}");
        peer.clear(b"what is it that you want").send().await.unwrap();
        let error = timeout(SOON, ours.read(&mut [0; 64])).await.unwrap().unwrap_err();
        assert!(tls_error(&reason_of(error)).alert_sent.is_some(), "{name}");
        // No task uses our side from here on, and the alert must leave nevertheless.
        let seen = peer.observe().await;
        let end = [Event::Alert(AlertDescription::DecodeError), Event::Fin];
        assert!(matches!(seen, [Event::Data(_), rest @ ..] if rest == end), "{name}: {seen:?}");
    }
}

/// rule: close-3, write-8, abort-2
#[tokio::test]
async fn a_stalled_peer_bounds_our_memory_and_close_and_sees_no_orderly_end() {
    for (name, _, setup) in all_setups() {
        let setup = setup.with(|policy| policy.close_timeout(Duration::from_millis(200)));
        let (mut ours, mut peer) = setup.done().await;
        while timeout(Duration::from_millis(100), ours.write(&[b'.'; 16 << 10])).await.is_ok() {}
        assert!(ours.queued() <= setup.policy.get_watermarks().high() + (20 << 10), "{name}: {}", ours.queued());
        let report = timeout(SOON, ours.close()).await.unwrap();
        assert!(report.timed_out() && !report.marker_sent(), "{name}: {report:?}");
        assert!(matches!(report.reason, Reason::TimedOut(Phase::Close)), "{name}: {report:?}");
        let seen = peer.observe().await;
        assert!(!seen.contains(&Event::CloseNotify) && seen.ends_with(&[Event::Reset]), "{name}: {seen:?}");
    }
}

/// rule: abort-1, abort-2
#[tokio::test]
async fn an_abort_into_a_full_socket_is_a_reset_without_close_notify() {
    for (name, _, setup) in all_setups() {
        let (mut ours, mut peer) = setup.done().await;
        while timeout(Duration::from_millis(100), ours.write(&[b'.'; 16 << 10])).await.is_ok() {}
        ours.abort();
        let seen = peer.observe().await;
        assert!(!seen.contains(&Event::CloseNotify) && seen.ends_with(&[Event::Reset]), "{name}: {seen:?}");
    }
}

/// No task waits for a record any more: the close waits for the FIN of the layer below, and an abort closes the socket.
///
/// rule: abort-4, close-6
#[test]
fn an_abort_ends_a_close_that_waits_for_fin_only() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for (name, _, setup) in all_setups() {
        let setup = setup.with(|policy| policy.close_timeout(None));
        let report = runtime.block_on(async {
            let (mut ours, mut peer) = setup.done().await;
            peer.close_notify().send().await.unwrap();
            assert_eq!(timeout(SOON, ours.read(&mut [0; 16])).await.unwrap().unwrap(), 0, "{name}");
            let control = ours.control();
            let closing = tokio::spawn(async move { ours.close().await });
            assert!(peer.wait_for(Event::Fin).await, "{name}: {:?}", peer.events());
            let aborting = std::thread::spawn(move || control.abort());
            let report = timeout(SOON, closing).await.unwrap().unwrap();
            aborting.join().unwrap();
            report
        });
        assert!(matches!(report.reason, Reason::Aborted), "{name}: {report:?}");
    }
}

/// rule: write-1, end-4, close-1
#[tokio::test]
async fn segments_of_one_byte_change_nothing() {
    for (name, version, setup) in all_setups() {
        let (ours, our_line) = raw_tcp_pair().await.unwrap();
        let (theirs, their_line) = raw_tcp_pair().await.unwrap();
        let meddler = Meddler::between(their_line, our_line).unwrap();
        meddler.to_server().trickle();
        meddler.to_client().trickle();
        let (ours, peer) = tokio::join!(setup.clone().ours(ours), setup.raw(theirs));
        let (mut ours, mut peer) = (ours.unwrap(), peer);
        let text = [b'x'; 5_000];
        peer.data(&text);
        if version == TlsVersion::V1_3 {
            peer.key_update(false);
        }
        peer.data(&text).close_notify().send().await.unwrap();
        peer.fin().unwrap();
        let mut data = Vec::new();
        timeout(SOON, ours.read_to_end(&mut data)).await.unwrap().unwrap();
        assert_eq!(data.len(), 10_000, "{name}");
        ours.write_all(&data).await.unwrap();
        assert!(timeout(SOON, ours.close()).await.unwrap().is_clean(), "{name}");
        assert_eq!(peer.observe().await, [Event::Data(10_000), Event::CloseNotify, Event::Fin], "{name}");
    }
}

/// Records that a peer may seal or send: the kind, and the amount.
type Doing = (u8, usize);

fn do_it(peer: &mut RawTls, version: TlsVersion, (kind, len): Doing) {
    let ticket = [4, 0, 0, 16, 0, 0, 1, 0, 0, 0, 0, 0, 1, 9, 0, 2, 7, 7, 0, 0];
    let is_tls13 = version == TlsVersion::V1_3;
    match kind {
        0 => peer.data(&vec![1; len * 60]),
        1 => peer.record(ContentType::Handshake, &[]),
        2 if is_tls13 => peer.record(ContentType::from(0), &[&[22][..], &vec![0; len * 20]].concat()),
        3 if is_tls13 => peer.key_update(len % 2 == 0),
        4 => peer.record(ContentType::Handshake, &ticket),
        5 => peer.record(ContentType::Handshake, &ticket[..2]).record(ContentType::Handshake, &ticket[2..]),
        6 => peer.record(ContentType::ApplicationData, &[]),
        7 => peer.close_notify(),
        8 => peer.clear(&record(APPLICATION_DATA, &vec![7; len])),
        9 => peer.record(ContentType::Alert, &[1, 90]),
        10 => peer.record(ContentType::Handshake, &[0, 0, 0, 0]),
        11 => peer.record(ContentType::Handshake, &hello_of_nobody()),
        _ => peer.data(&vec![2; len]),
    };
}

static SETUPS: LazyLock<Vec<(String, TlsVersion, Setup)>> = LazyLock::new(|| all_setups().collect());

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// rule: end-1, close-3
    #[test]
    fn no_sealed_record_of_a_peer_causes_a_panic(
        which in 0..4_usize,
        half_closed in any::<bool>(),
        doings in prop::collection::vec(((0..16_u8, 0..300_usize), any::<bool>()), 1..12),
    ) {
        let (name, version, setup) = &SETUPS[which];
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let ended = runtime.block_on(async {
            let (mut ours, mut peer) = setup.done().await;
            if half_closed {
                ours.close_write().await.unwrap();
            }
            // The reads are in a task of their own, so that a panic is reported as its result.
            let reading = tokio::spawn(async move {
                let _ = ours.read_to_end(&mut Vec::new()).await;
                let _ = ours.write(b"x").await;
                ours.close().await
            });
            for (doing, leaves) in &doings {
                do_it(&mut peer, *version, *doing);
                if *leaves {
                    let _ = peer.send().await;
                }
            }
            let _ = peer.send().await;
            let _ = peer.fin();
            let watching = tokio::spawn(async move { peer.observe().await.len() });
            let ended = timeout(SOON, reading).await;
            watching.abort();
            ended
        });
        prop_assert!(matches!(ended, Ok(Ok(_))), "{name}, half-closed {half_closed}: {ended:?}");
    }
}
