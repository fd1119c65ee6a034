//! Connections whose key is used up (TLS 1.2), with every operation and on both faces: no operation hangs, every loss
//! is reported, and a truncated message does not look complete.

use std::io::IoSlice;
use std::sync::{Arc, Mutex};

use bowline::protocol::{CallbackResult, Conn, Protocol, Runner};
use bowline::rustls::pki_types::ServerName;
use bowline::testing::{raw_tcp_pair, shared_pki, tcp_pair};
use bowline::{Error, Policy, Reason, TcpConnection, TlsConnection, TlsVersion, Transport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::keys::worn_out_after;
use crate::setup::{SOON, reason_of};
use crate::wires::{client, server};

type Tls = TlsConnection<TcpConnection>;

/// The key of one side may seal ten records. The key of the other side has the usual limit.
async fn pair(express: bool) -> (Tls, Tls) {
    let client = client(shared_pki(), TlsVersion::V1_2, express, Some(worn_out_after(10)));
    let server = server(shared_pki(), false, None);
    let (ours, theirs) = tcp_pair().await.unwrap();
    let (ours, theirs) =
        tokio::join!(TlsConnection::connect(ours, &client, "localhost"), TlsConnection::accept(theirs, &server));
    (ours.unwrap(), theirs.unwrap())
}

/// Writes one record at a time until the key is used up. Returns how many bytes were accepted.
async fn wear_out(ours: &mut Tls) -> usize {
    let mut accepted = 0;
    for _ in 0..20 {
        match ours.write(&[7; 100]).await {
            Ok(n) => accepted += n,
            Err(error) => {
                assert!(matches!(reason_of(error), Reason::KeyExhausted));
                return accepted;
            }
        }
    }
    panic!("{accepted} bytes were accepted, in one record each");
}

/// Returns all received data, and checks that the end is not a clean one.
async fn cut_off(theirs: &mut Tls) -> Vec<u8> {
    let mut all = Vec::new();
    let end = timeout(SOON, theirs.read_to_end(&mut all)).await.unwrap();
    assert!(end.is_err(), "what was cut off looks complete");
    all
}

/// rule: end-8, write-5, end-1
#[tokio::test]
async fn writes_after_the_last_record_of_a_key_fail_and_the_peer_sees_a_cut() {
    for express in [false, true] {
        let (mut ours, mut theirs) = pair(express).await;
        let accepted = wear_out(&mut ours).await;
        assert_eq!(cut_off(&mut theirs).await.len(), accepted);
        let again = ours.write_sequence(&[IoSlice::new(b"a"), IoSlice::new(b"b")]).await.unwrap_err();
        assert!(matches!(reason_of(again), Reason::KeyExhausted));
        assert!(matches!(reason_of(ours.flush().await.unwrap_err()), Reason::KeyExhausted));
        let read = timeout(SOON, ours.read(&mut [0; 16])).await.unwrap().unwrap_err();
        assert!(matches!(reason_of(read), Reason::KeyExhausted));
    }
}

/// rule: end-8, close-3, close-4, life-6
#[tokio::test]
async fn a_close_after_the_last_record_of_a_key_ends_and_reports_why() {
    for express in [false, true] {
        let (mut ours, mut theirs) = pair(express).await;
        wear_out(&mut ours).await;
        let peer = tokio::spawn(async move {
            cut_off(&mut theirs).await;
            theirs.close().await;
        });
        let report = timeout(SOON, ours.close()).await.unwrap();
        assert!(matches!(report.reason, Reason::KeyExhausted), "{report:?}");
        assert!(!report.is_clean() && !report.marker_sent(), "{report:?}");
        assert_eq!(report.reason.name(), "tls");
        peer.await.unwrap();
    }
}

/// rule: end-8, half-2, life-6
#[tokio::test]
async fn a_close_with_a_used_up_key_does_not_look_complete() {
    for (express, closes_write) in [(false, false), (false, true), (true, false), (true, true)] {
        let (mut ours, mut theirs) = pair(express).await;
        for _ in 0..6 {
            ours.write_all(&[7; 100]).await.unwrap();
        }
        // The cork makes the session accept these bytes without sealing them. They are more than the key may still
        // seal.
        ours.cork().write_all(&[7; 16 << 10]).await.unwrap();
        let peer = tokio::spawn(async move { (cut_off(&mut theirs).await.len(), theirs) });
        ours.cork().write_all(&[7; 60 << 10]).await.unwrap_err();
        if closes_write {
            let error = timeout(SOON, ours.close_write()).await.unwrap().unwrap_err();
            assert!(matches!(reason_of(error), Reason::KeyExhausted));
        }
        let (_, theirs) = peer.await.unwrap();
        drop(theirs);
        let report = timeout(SOON, ours.close()).await.unwrap();
        assert!(matches!(report.reason, Reason::KeyExhausted), "{report:?}");
    }
}

/// rule: abort-1, abort-4, life-6
#[test]
fn an_abort_ends_a_close_after_the_last_record_of_a_key() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for express in [false, true] {
        let report = runtime.block_on(async {
            // The peer does not read, so it does not see our end.
            let (mut ours, _theirs) = pair(express).await;
            wear_out(&mut ours).await;
            let control = ours.control();
            let closing = tokio::spawn(async move { ours.close().await });
            tokio::task::yield_now().await;
            let aborting = std::thread::spawn(move || control.abort());
            let report = timeout(SOON, closing).await.unwrap().unwrap();
            aborting.join().unwrap();
            report
        });
        assert!(matches!(report.reason, Reason::Aborted), "{report:?}");
    }
}

/// An echo service seals a record for each that its peer sends: the peer can use up its key.
///
/// rule: end-8, write-5
#[tokio::test]
async fn a_peer_that_uses_up_the_key_of_an_echo_service_ends_its_own_connection() {
    for express in [false, true] {
        let (mut service, mut peer) = pair(express).await;
        let serving = tokio::spawn(async move {
            let mut some = [0; 100];
            loop {
                let n = service.read(&mut some).await?;
                service.write_all(&some[..n]).await?;
            }
            #[allow(unreachable_code, reason = "it says what `?` converts to")]
            Ok::<(), std::io::Error>(())
        });
        let mut answers = 0;
        let lost = loop {
            if peer.write_all(b"x").await.is_err() {
                break true;
            }
            match timeout(SOON, peer.read(&mut [0; 16])).await.unwrap() {
                Ok(0) => break false,
                Ok(n) => answers += n,
                Err(_) => break true,
            }
        };
        assert!(lost, "the answers look complete");
        assert_eq!(answers, 8);
        let error = timeout(SOON, serving).await.unwrap().unwrap().unwrap_err();
        assert!(matches!(reason_of(error), Reason::KeyExhausted));
    }
}

/// Answers each byte with one byte, and notes the reason of the end.
struct Echo(Arc<Mutex<Vec<Reason>>>);

impl Protocol for Echo {
    fn data_received(&mut self, transport: &mut dyn Conn, data: &[u8]) -> CallbackResult<usize> {
        transport.write(data);
        Ok(data.len())
    }

    fn connection_lost(&mut self, reason: &Reason) {
        self.0.lock().unwrap().push(reason.clone());
    }
}

/// rule: end-8, life-1, end-1
#[tokio::test]
async fn a_protocol_learns_once_that_its_key_is_used_up() {
    for express in [false, true] {
        let (ours, mut peer) = pair(express).await;
        let lost = Arc::default();
        let running = tokio::spawn(Runner::new(Echo(Arc::clone(&lost)), ours).run());
        let mut answers = 0;
        while peer.write_all(b"x").await.is_ok() {
            match timeout(SOON, peer.read(&mut [0; 16])).await.unwrap() {
                Ok(0) => panic!("the answers look complete"),
                Ok(n) => answers += n,
                Err(_) => break,
            }
        }
        assert_eq!(answers, 8);
        drop(peer);
        let report = timeout(SOON, running).await.unwrap().unwrap();
        assert!(matches!(report.reason, Reason::KeyExhausted), "{report:?}");
        assert!(matches!(lost.lock().unwrap()[..], [Reason::KeyExhausted]), "{lost:?}");
    }
}

/// The number of records that the key has sealed before the conversion is unknown.
///
/// rule: end-8
#[tokio::test]
async fn an_adopted_session_whose_key_is_used_up_is_cut_off_too() {
    let client = client(shared_pki(), TlsVersion::V1_2, false, Some(worn_out_after(10)));
    let server = server(shared_pki(), false, None);
    let (ours, theirs) = raw_tcp_pair().await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(client.config());
    let theirs = TcpConnection::new(theirs, Policy::default()).unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let (ours, theirs) = tokio::join!(connector.connect(name, ours), TlsConnection::accept(theirs, &server));
    let (mut ours, mut theirs) = (ours.unwrap(), theirs.unwrap());
    for _ in 0..3 {
        ours.write_all(&[7; 100]).await.unwrap();
        ours.flush().await.unwrap();
    }
    let mut ours = TlsConnection::from_tokio_rustls(ours, Policy::default()).unwrap();
    let accepted = 300 + wear_out(&mut ours).await;
    assert_eq!(cut_off(&mut theirs).await.len(), accepted);
    drop(theirs);
    assert!(matches!(timeout(SOON, ours.close()).await.unwrap().reason, Reason::KeyExhausted));
}

/// Such a session never seals our marker, so no operation may wait for the marker.
///
/// rule: life-6, close-3
#[tokio::test]
async fn a_close_ends_if_close_notify_was_sent_before_the_takeover() {
    for version in crate::setup::VERSIONS {
        let (client, server) = (client(shared_pki(), version, false, None), server(shared_pki(), false, None));
        let (ours, theirs) = raw_tcp_pair().await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(client.config());
        let theirs = TcpConnection::new(theirs, Policy::default()).unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let (ours, theirs) = tokio::join!(connector.connect(name, ours), TlsConnection::accept(theirs, &server));
        let (mut ours, mut theirs) = (ours.unwrap(), theirs.unwrap());
        ours.get_mut().1.send_close_notify();
        let mut ours = TlsConnection::from_tokio_rustls(ours, Policy::default()).unwrap();
        let peer = tokio::spawn(async move {
            let read = theirs.read(&mut [0; 16]).await;
            theirs.close().await;
            read
        });
        let (closed, report) = timeout(SOON, async { (ours.close_write().await, ours.close().await) }).await.unwrap();
        assert!(closed.is_err() && matches!(report.reason, Reason::Tls(_)), "{version}: {closed:?} {report:?}");
        assert_eq!(timeout(SOON, peer).await.unwrap().unwrap().unwrap(), 0, "{version}");
    }
}

/// rule: end-1
#[test]
fn a_used_up_key_survives_the_trip_through_an_io_error() {
    let error = std::io::Error::from(Reason::KeyExhausted);
    assert!(matches!(Error::from(error), Error::Ended(Reason::KeyExhausted)));
}
