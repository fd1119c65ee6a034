//! Known faults of Twisted, one test for each, named after the fault.

use bowline::protocol::{Producer, Runner};
use bowline::testing::peer::{Event as Seen, RawTls};
use bowline::testing::{Kind, memory_pair, raw_tcp_pair, shared_pki};
use bowline::{Policy, Reason, TcpConnection, TlsConnection, Transport as _, UpgradableConnection, Watermarks};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::common::{bounded, clog, expect, over, over_all, pattern, read_all};
use crate::probe::{Answer, Event, KEEP, Probe, Pull, Running, Told, pull, push, quiet_panics, run, start};
use crate::setup::{as_client, as_server, hasty, plain, plain_and_raw};

/// A TLS server with a probe, and a peer that sees every record.
async fn watched(probe: Probe) -> (Running, RawTls) {
    let (ours, theirs) = raw_tcp_pair().await.unwrap();
    let tcp = TcpConnection::new(ours, Policy::default()).unwrap();
    let running = run(probe, TlsConnection::server(tcp, &shared_pki().server_tls()).unwrap());
    (running, RawTls::client(theirs, &shared_pki().client_tls(), "localhost").await.unwrap())
}

/// Twisted's TLS half-close shuts the socket's send side without a close_notify: its peer sees a truncation.
///
/// rule: half-2
#[tokio::test]
async fn a_bare_fin_on_half_close_under_tls() {
    bounded("tcp", async {
        let (running, mut raw) = watched(Probe::at("secured", |transport| transport.close_write())).await;
        assert_eq!(raw.observe().await, [Seen::CloseNotify, Seen::Fin]);
        raw.close_notify().send().await.unwrap();
        raw.fin().unwrap();
        assert!(running.task.await.unwrap().is_clean());
    })
    .await;
}

/// Twisted takes a second `loseWriteConnection` for a failed write, and drops a connection whose data was still being
/// read.
///
/// rule: half-3
#[tokio::test]
async fn a_second_half_close_that_kills_the_link() {
    over_all(|_, a, mut b| async move {
        let running = run(Probe::at("made", |transport| transport.close_write()), a);
        running.told.event("write_closed").await;
        running.handle.close_write();
        b.write_all(&pattern(100_000)).await.unwrap();
        running.told.len(100_000).await;
        b.close().await;
        assert!(running.task.await.unwrap().is_clean());
    })
    .await;
}

/// Twisted never sends the FIN of a half-close that was requested while a pull producer was registered.
///
/// rule: half-4
#[tokio::test]
async fn a_fin_that_is_never_sent_after_a_pull_producer() {
    over_all(|_, a, mut b| async move {
        let running = run(Probe::half_closeable(), a);
        drop(running.handle.register_producer(pull(running.told.clone(), pattern(30_000), 4_000)));
        running.handle.close_write();
        let (received, end) = read_all(&mut b).await;
        assert!(received == pattern(30_000) && end.is_ok());
        b.close().await;
        running.task.await.unwrap();
    })
    .await;
}

/// When both halves have ended, Twisted notifies a half-closeable protocol of both ends, but never of the connection's
/// end.
///
/// rule: close-13, life-1
#[tokio::test]
async fn both_halves_closed_and_no_end() {
    over_all(|_, a, mut b| async move {
        let running = run(Probe::at("made", |transport| transport.close_write()), a);
        b.close_write().await.unwrap();
        assert!(running.task.await.unwrap().is_clean());
        assert_eq!(running.told.names().last().unwrap(), "lost(closed)");
    })
    .await;
}

/// Twisted's `loseConnection` over TLS waits for a push producer only while it is paused. It cuts off a producer that
/// writes.
///
/// rule: close-5
#[tokio::test]
async fn an_unpaused_push_producer_that_close_cuts_off() {
    over_all(|_, a, mut b| async move {
        let running = run(Probe::quiet(), a);
        running.handle.register_producer(push(running.told.clone())).await.unwrap();
        running.handle.close();
        for part in pattern(20_000).chunks(5_000) {
            running.handle.write(part);
            tokio::task::yield_now().await;
        }
        running.handle.unregister_producer();
        let (received, end) = read_all(&mut b).await;
        assert!(received == pattern(20_000) && end.is_ok());
        b.close().await;
        running.task.await.unwrap();
    })
    .await;
}

/// Twisted loses the last write of a producer on a closing connection: unregistering the producer ends the connection
/// at once.
///
/// rule: close-5
#[tokio::test]
async fn a_tail_that_is_lost_when_the_producer_unregisters() {
    over_all(|_, mut a, mut b| async move {
        let taken = clog(&mut a).await;
        let running = run(Probe::quiet(), a);
        running.handle.register_producer(push(running.told.clone())).await.unwrap();
        running.handle.close();
        running.handle.write(pattern(200_000));
        running.handle.unregister_producer();
        let (received, end) = read_all(&mut b).await;
        assert!(received[taken..] == pattern(200_000) && end.is_ok());
        b.close().await;
        assert!(running.task.await.unwrap().is_clean());
    })
    .await;
}

/// Twisted's `loseConnection` over TLS waits for the peer's close_notify without a bound.
///
/// rule: close-3
#[tokio::test]
async fn a_close_that_waits_for_ever_for_a_silent_peer() {
    over(&Kind::ALL, hasty(50), |_, a, b| async move {
        let _b = b;
        let running = run(Probe::at("made", |transport| transport.close()), a);
        assert_eq!(running.task.await.unwrap().reason.name(), "timed_out");
        assert_eq!(running.told.count("lost"), 1);
    })
    .await;
}

/// Twisted's TLS reports an abort as a lost connection, so the protocol cannot see which side caused it.
///
/// rule: end-7
#[tokio::test]
async fn an_abort_that_is_reported_as_a_loss() {
    over_all(|_, a, b| async move {
        let _b = b;
        let running = run(Probe::at("made", |transport| transport.abort()), a);
        assert!(matches!(running.task.await.unwrap().reason, Reason::Aborted));
        assert!(matches!(running.told.reason(), Some(Reason::Aborted)));
    })
    .await;
}

/// Twisted's TLS still delivers records that it has read after `abortConnection` and after `pauseProducing`.
///
/// rule: abort-3, flow-4
#[tokio::test]
async fn data_that_is_delivered_after_abort_and_after_pause() {
    for pauses in [true, false] {
        over_all(move |_, a, mut b| async move {
            for part in pattern(50_000).chunks(500) {
                b.write_all(part).await.unwrap();
            }
            let probe =
                Probe::at("data", move |transport| if pauses { transport.pause_reading() } else { transport.abort() });
            let running = run(probe, a);
            running.told.event("data").await;
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
            assert_eq!(running.told.count("data"), 1);
            running.handle.abort();
            running.task.await.unwrap();
            assert_eq!(running.told.count("data"), 1);
        })
        .await;
    }
}

/// In Twisted, bytes that a protocol writes in `handshakeCompleted` leave before those that it wrote in
/// `connectionMade`.
///
/// rule: write-3
#[tokio::test]
async fn a_write_in_handshake_done_that_overtakes() {
    bounded("tcp", async {
        let (a, mut b) = plain().await;
        let probe = Probe::on(|event, transport| match event {
            Event::Made => transport.write(b"first "),
            Event::Secured => transport.write(b"second"),
            _ => {}
        });
        let running = start(Runner::new(probe, a).begin_tls(as_client()));
        b.start_tls(as_server()).await.unwrap();
        expect(&mut b, b"first second").await;
        running.handle.abort();
        running.task.await.unwrap();
    })
    .await;
}

/// After an exception in `connectionMade` or in a producer, Twisted never calls `connectionLost` for the connection.
///
/// rule: life-3
#[tokio::test]
async fn an_exception_that_swallows_connection_lost() {
    quiet_panics();
    for name in ["made", "data"] {
        over_all(move |_, a, mut b| async move {
            let running = run(Probe::panicking(Told::default(), name), a);
            let _ = b.write_all(b"x").await;
            assert_eq!(running.task.await.unwrap().reason.name(), "protocol");
            assert_eq!(running.told.count("lost(protocol)"), 1);
        })
        .await;
    }
    over_all(|_, a, b| async move {
        let _b = b;
        let running = run(Probe::quiet(), a);
        let producer = Pull(running.told.clone(), |_: &mut dyn bowline::protocol::Conn| panic!("panics at produce"));
        drop(running.handle.register_producer(Producer::pull(producer)));
        assert_eq!(running.task.await.unwrap().reason.name(), "protocol");
        let names = running.told.names();
        assert_eq!(names[names.len() - 2..], ["stop", "lost(protocol)"]);
    })
    .await;
}

/// Twisted resumes a paused producer after its peer has gone, so that it writes bytes that cannot be sent.
///
/// rule: half-11
#[tokio::test]
async fn a_producer_that_is_resumed_into_a_void() {
    let policy = Policy::default().watermarks(Watermarks::new(10_000, 20_000));
    over(&Kind::ALL, policy, |_, mut a, mut b| async move {
        let taken = clog(&mut a).await;
        let running = run(Probe::quiet(), a);
        running.handle.register_producer(push(running.told.clone())).await.unwrap();
        running.handle.write(pattern(50_000));
        running.told.event("pause").await;
        b.close_write().await.unwrap();
        running.told.event("stop").await;
        let (received, _) = read_all(&mut b).await;
        assert_eq!(received.len(), taken + 50_000);
        b.close().await;
        running.task.await.unwrap();
        assert_eq!((running.told.count("resume"), running.told.count("stop")), (0, 1));
    })
    .await;
}

/// Twisted turns a pull producer over TLS into a push producer that it calls in a loop, even if the socket accepts no
/// bytes.
///
/// rule: flow-2
#[tokio::test]
async fn an_unbounded_pull_over_tls() {
    over_all(|_, mut a, b| async move {
        clog(&mut a).await;
        let running = run(Probe::quiet(), a);
        let producer = Pull(running.told.clone(), |transport: &mut dyn bowline::protocol::Conn| {
            transport.write(&[0; 10_000]);
            Ok(())
        });
        running.handle.register_producer(Producer::pull(producer)).await.unwrap();
        for _ in 0..300 {
            tokio::task::yield_now().await;
        }
        assert!(running.told.count("produce") <= 1);
        running.handle.abort();
        running.task.await.unwrap();
        drop(b);
    })
    .await;
}

/// Twisted's line receivers deliver plaintext after the line STARTTLS in the same segment as if it had been encrypted.
///
/// rule: upgrade-3
#[tokio::test]
async fn an_injected_line_after_starttls() {
    bounded("tcp", async {
        let (a, mut raw) = plain_and_raw(Policy::default()).await;
        let probe = Probe::new(|event, transport| {
            let Event::Data(data) = event else { return Ok(KEEP) };
            assert!(!transport.is_secure(), "delivered as if it came encrypted");
            transport.start_tls(as_server())?;
            Ok(Answer { unread: data.len() - 10, ..KEEP })
        });
        let running = run(probe, a);
        raw.send(b"STARTTLS\r\nRCPT TO:<victim>\r\n").await.unwrap();
        assert_eq!(running.task.await.unwrap().reason.name(), "protocol");
        assert_eq!(running.told.count("data"), 1);
    })
    .await;
}

/// Twisted's TLS loses a ClientHello that arrives in the segment of the command, and the handshake hangs.
///
/// rule: upgrade-2
#[tokio::test]
async fn a_client_hello_glued_to_the_command() {
    bounded("memory", async {
        let (a, b) = memory_pair();
        let gluing = tokio::spawn(async move {
            let mut b = UpgradableConnection::new(b);
            b.write_all(b"STARTTLS\r\n").await.unwrap();
            b.start_tls(as_client()).await.unwrap();
            b
        });
        // The command and the ClientHello have arrived before any task reads.
        tokio::task::yield_now().await;
        let probe = Probe::new(|event, transport| {
            let Event::Data(data) = event else { return Ok(KEEP) };
            assert_eq!(data[10], 22, "the test did not glue");
            transport.start_tls(as_server())?;
            Ok(Answer { unread: data.len() - 10, ..KEEP })
        });
        let running = run(probe, UpgradableConnection::new(a));
        let mut b = gluing.await.unwrap();
        running.handle.write("secured");
        let mut secured = [0; 7];
        b.read_exact(&mut secured).await.unwrap();
        assert_eq!(&secured, b"secured");
        running.handle.abort();
        running.task.await.unwrap();
    })
    .await;
}

/// Twisted's `abortConnection` over TLS may send a close_notify, so that truncated data looks complete.
///
/// rule: abort-2
#[tokio::test]
async fn a_close_notify_on_abort() {
    bounded("tcp", async {
        let (running, mut raw) = watched(Probe::at("secured", |transport| {
            transport.write(b"part of an ans");
            transport.abort();
        }))
        .await;
        assert_eq!(raw.observe().await, [Seen::Reset]);
        running.task.await.unwrap();
    })
    .await;
}
