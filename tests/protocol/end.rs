//! end: the reason of an end is correct.

use std::io;

use bowline::protocol::Runner;
use bowline::testing::peer::{Event as Seen, RawTls};
use bowline::testing::{Kind, raw_tcp_pair, shared_pki};
use bowline::{
    Blame, CloseLimit, Error, Phase, Policy, Reason, SocketOptions as _, TcpConnection, TlsConnection, Transport as _,
    Truncation,
};
use tokio::io::AsyncWriteExt;

use crate::common::{bounded, over, over_all, pattern, read_all, server_and_tokio_rustls, settle};
use crate::probe::{Answer, Event, KEEP, Probe, Running, run, start};
use crate::setup::{as_client, client_and_raw, hasty, plain_and_raw};

/// A server with a probe, and a peer that can seal any record.
async fn server_and_raw(probe: Probe) -> (Running, RawTls) {
    let (ours, theirs) = raw_tcp_pair().await.unwrap();
    let tcp = TcpConnection::new(ours, Policy::default()).unwrap();
    let running = run(probe, TlsConnection::server(tcp, &shared_pki().server_tls()).unwrap());
    (running, RawTls::client(theirs, &shared_pki().client_tls(), "localhost").await.unwrap())
}

/// rule: end-1
#[tokio::test]
async fn the_reason_is_reported_once_is_the_same_everywhere_and_fits_io_error() {
    over_all(|_, mut a, mut b| async move {
        settle(&mut a, &mut b).await;
        let control = a.control();
        let running = run(Probe::quiet(), a);
        b.abort();
        let report = running.task.await.unwrap();
        let told = running.told.reason().unwrap();
        for reason in [&told, &report.reason, &running.handle.reason().unwrap(), &control.report().unwrap().reason] {
            assert_eq!((reason.name(), reason.blame()), ("reset", Blame::Peer));
        }
        let copied = Reason::from_io(io::Error::from(told), Phase::Handshake);
        assert!(matches!(copied, Reason::Reset(Phase::Open)), "{copied:?}");
        assert_eq!(running.told.count("lost"), 1);
    })
    .await;
}

/// rule: end-1, life-3
#[tokio::test]
async fn the_error_of_a_callback_is_the_reason_and_can_be_matched() {
    #[derive(Debug, PartialEq)]
    struct Mine(u8);
    impl std::fmt::Display for Mine {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("mine")
        }
    }
    impl std::error::Error for Mine {}
    over_all(|_, a, mut b| async move {
        let running = run(Probe::new(|_, _| Err(Mine(7).into())), a);
        let Reason::Protocol(error) = running.task.await.unwrap().reason else { panic!() };
        assert_eq!(error.downcast_ref::<Mine>(), Some(&Mine(7)));
        let Reason::Protocol(error) = Reason::from_io(running.told.reason().unwrap().into(), Phase::Open) else {
            panic!()
        };
        assert_eq!(error.downcast_ref::<Mine>(), Some(&Mine(7)));
        assert!(read_all(&mut b).await.1.is_err());
    })
    .await;
    // An error of this crate becomes the matching reason.
    over_all(|_, a, b| async move {
        let _b = b;
        let running = run(Probe::new(|_, _| Err(Error::Ended(Reason::TimedOut(Phase::HalfOpen)).into())), a);
        assert!(matches!(running.task.await.unwrap().reason, Reason::TimedOut(Phase::HalfOpen)));
    })
    .await;
}

/// rule: end-2, half-6
#[tokio::test]
async fn a_record_cut_anywhere_is_a_truncation_after_the_data_before_it() {
    bounded("tcp", async {
        for cut in [0, 1, 4, 5, 6, 20, 500, 1_000] {
            let (running, mut raw) = server_and_raw(Probe::quiet()).await;
            raw.data(b"whole").send().await.unwrap();
            let record = raw.data(&pattern(1_000)).take_queued();
            raw.clear(&record[..cut]).send().await.unwrap();
            raw.fin().unwrap();
            raw.observe().await;
            drop(raw);
            assert_eq!(running.task.await.unwrap().reason.name(), "truncated", "{cut}");
            assert_eq!(running.told.data(), b"whole");
            assert_eq!(running.told.names()[2..4], ["data", "read_closed(Truncated)"]);
        }
    })
    .await;
}

/// rule: end-3
#[tokio::test]
async fn a_policy_that_tolerates_truncation_does_not_hide_it() {
    let policy = Policy::default().truncation(Truncation::Tolerate);
    let (server, mut client) = server_and_tokio_rustls(policy).await;
    client.write_all(b"framed").await.unwrap();
    client.flush().await.unwrap();
    let mut socket = client.into_inner().0;
    socket.shutdown().await.unwrap();
    let running = run(Probe::quiet(), server);
    running.told.event("read_closed(Truncated)").await;
    drop(socket);
    let report = running.task.await.unwrap();
    assert_eq!((running.told.data(), report.is_clean()), (b"framed".to_vec(), false));
}

/// rule: end-4
#[tokio::test]
async fn data_and_close_notify_and_junk_in_one_segment() {
    bounded("tcp", async {
        let (running, mut raw) = server_and_raw(Probe::at("read_closed", |transport| transport.write(b"bye"))).await;
        raw.data(b"data").close_notify().data(b"behind the marker").clear(b"junk").send().await.unwrap();
        assert_eq!(raw.receive(3).await, b"bye");
        running.handle.close();
        assert_eq!(raw.observe().await, [Seen::Data(3), Seen::CloseNotify, Seen::Fin]);
        raw.fin().unwrap();
        assert!(running.task.await.unwrap().is_clean());
        assert_eq!(running.told.data(), b"data");
        assert_eq!(running.told.names()[2..4], ["data", "read_closed(Clean)"]);
    })
    .await;
}

/// rule: end-5
#[tokio::test]
async fn the_first_error_is_the_reason() {
    bounded("a bad record, then a reset", async {
        let (running, mut raw) = server_and_raw(Probe::quiet()).await;
        raw.data(b"good").clear(b"\x17\x03\x03\x00\x20garbage garbage garbage garbage ").send().await.unwrap();
        raw.observe().await;
        // The alert comes first, and then FIN.
        assert!(matches!(raw.events(), [Seen::Data(_) | Seen::Alert(_), .., Seen::Fin]), "{:?}", raw.events());
        raw.reset().await;
        let Reason::Tls(error) = running.task.await.unwrap().reason else { panic!() };
        assert_eq!(error.error, bowline::rustls::Error::DecryptError);
        assert_eq!(running.told.data(), b"good");
        assert_eq!(running.told.names().last().unwrap(), "lost(tls)");
    })
    .await;
    // The callback aborts, and then fails.
    over_all(|_, a, b| async move {
        let _b = b;
        let probe = Probe::new(|_, transport| {
            transport.abort();
            Err("too late to matter".into())
        });
        let running = run(probe, a);
        assert_eq!(running.task.await.unwrap().reason.name(), "aborted");
        running.told.forget("made");
        assert_eq!(running.told.names(), ["lost(aborted)"]);
    })
    .await;
}

/// rule: end-6, secure-4
#[tokio::test]
async fn an_end_inside_the_handshake_is_a_failure_of_the_handshake() {
    bounded("tcp", async {
        for is_reset in [false, true] {
            for begins in [false, true] {
                let (running, mut raw) = if begins {
                    let (a, raw) = plain_and_raw(Policy::default()).await;
                    (start(Runner::new(Probe::quiet(), a).begin_tls(as_client())), raw)
                } else {
                    let (a, raw) = client_and_raw(Policy::default()).await;
                    (run(Probe::quiet(), a), raw)
                };
                raw.receive(1).await;
                if is_reset {
                    raw.reset().await;
                }
                drop(raw.fin());
                drop(raw);
                let reason = running.task.await.unwrap().reason;
                assert_eq!(reason.phase(), Some(Phase::Handshake), "{reason:?}");
                assert_eq!(running.told.names(), ["made", &format!("lost({})", reason.name())]);
            }
        }
    })
    .await;
}

/// rule: end-7, abort-4
#[tokio::test]
async fn a_local_abort_is_blamed_on_us() {
    over_all(|_, a, mut b| async move {
        let running = run(Probe::half_closeable(), a);
        running.told.event("made").await;
        running.handle.control().abort();
        assert!(read_all(&mut b).await.1.is_err());
        drop(b);
        let report = running.task.await.unwrap();
        assert_eq!((report.reason.name(), report.reason.blame()), ("aborted", Blame::Us));
        assert_eq!(running.told.reason().unwrap().name(), "aborted");
    })
    .await;
}

/// rule: end-1
#[tokio::test]
async fn a_line_without_an_end_does_not_take_all_memory() {
    over_all(|_, a, b| async move {
        let probe = Probe::new(|event, _| {
            Ok(Answer { unread: if let Event::Data(data) = event { data.len() } else { 0 }, ..Answer::default() })
        });
        let running = run(probe, a);
        let (_read, mut write) = tokio::io::split(b);
        let talking = tokio::spawn(async move { while write.write_all(&[b'a'; 50_000]).await.is_ok() {} });
        let Reason::Protocol(error) = running.task.await.unwrap().reason else { panic!() };
        let unread = error.downcast_ref::<bowline::protocol::Unread>().unwrap();
        assert!(unread.bytes > unread.limit && unread.bytes < 2 * unread.limit, "{unread}");
        talking.await.unwrap();
    })
    .await;
}

/// More bytes than the system of a peer that reads nothing accepts, and fewer than our system accepts.
const MUCH: usize = 300_000;

/// rule: close-14, close-8
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_close_after_the_peers_end_is_clean_only_once_the_peer_has_all_of_it() {
    const SOCKETS: [Kind; 5] = [Kind::Tcp, Kind::Tls12, Kind::Tls13, Kind::Upgraded, Kind::TlsInTls];
    for (is_half_closeable, is_read) in [(false, false), (false, true), (true, false), (true, true)] {
        let policy = hasty(if is_read { 30_000 } else { 300 });
        over(&SOCKETS, policy, move |kind, a, mut b| async move {
            a.as_tcp().unwrap().set_send_buffer_size(1 << 20).unwrap();
            let probe = Probe::new(move |event, transport| {
                if let Event::ReadClosed(_) = event {
                    transport.write(&pattern(MUCH));
                    if is_half_closeable {
                        transport.close_write();
                        return Ok(KEEP);
                    }
                }
                Ok(Answer::default())
            });
            let running = run(probe, a);
            b.close_write().await.unwrap();
            if is_read {
                running.told.event("read_closed").await;
                let (received, end) = read_all(&mut b).await;
                assert!(received == pattern(MUCH) && end.is_ok());
            }
            let report = running.task.await.unwrap();
            let expected = if is_read { "closed" } else { "unconfirmed" };
            assert_eq!(report.reason.name(), expected, "{kind}: {report:?}");
            assert_eq!(running.told.reason().unwrap().name(), expected);
            assert_eq!(report.limit, (!is_read).then_some(CloseLimit::Time));
        })
        .await;
    }
}

/// rule: end-9, close-12
#[tokio::test]
async fn a_dropped_runner_is_reported_as_dropped() {
    over_all(|kind, mut a, mut b| async move {
        settle(&mut a, &mut b).await;
        let control = a.control();
        let running = run(Probe::quiet(), a);
        running.told.event("made").await;
        running.task.abort();
        assert!(running.task.await.is_err());
        assert!(matches!(control.report().unwrap().reason, Reason::Dropped), "{kind}");
        drop(b);
    })
    .await;
}
