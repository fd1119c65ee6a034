//! close: ends in order.

use std::time::Duration;

use bowline::protocol::{Handle, Runner};
use bowline::testing::{Kind, pair, shared_pki};
use bowline::{CloseLimit, Policy, Received, TlsConnection, Transport as _, Watermarks};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::common::{
    bounded, clog, expect, over, over_all, pattern, read_all, reset_on_drop, server_and_tokio_rustls, settle,
};
use crate::probe::{Answer, Event, Probe, pull, push, run, start};
use crate::setup::{as_client, as_server, client_and_raw, hasty, is_only_hello, plain, plain_and_raw};

/// rule: close-1, close-2, close-4, end-1
#[tokio::test]
async fn close_sends_all_then_the_marker_and_awaits_the_peers() {
    over_all(|_, a, mut b| async move {
        // Input keeps coming, and no task reads it.
        b.write_all(&[7; 20_000]).await.unwrap();
        let probe = Probe::at("data", |transport| {
            transport.write(&pattern(400_000));
            transport.close();
        });
        let running = run(probe, a);
        running.told.event("data").await;
        let before = running.told.data().len();
        b.write_all(&[8; 20_000]).await.unwrap();
        let (received, end) = read_all(&mut b).await;
        assert!(received == pattern(400_000) && end.is_ok());
        assert!(!running.task.is_finished(), "the peer's end was not awaited");
        b.close().await;
        let report = running.task.await.unwrap();
        assert!(report.is_clean() && report.marker_sent() && report.marker_received(), "{report:?}");
        assert_eq!(running.told.data().len(), before, "data was delivered behind the close");
        assert_eq!(running.told.names().last().unwrap(), "lost(closed)");
        assert_eq!((running.told.count("read_closed(Clean)"), running.told.count("write_closed")), (1, 1));
        assert!(running.handle.reason().unwrap().is_clean());
    })
    .await;
}

/// rule: close-3, close-4
#[tokio::test]
async fn a_silent_peer_or_one_that_keeps_sending_cannot_prolong_a_close() {
    over(&Kind::ALL, hasty(150), |_, a, mut b| async move {
        let running = run(Probe::at("made", |transport| transport.close()), a);
        let report = running.task.await.unwrap();
        assert_eq!((report.limit, report.marker_sent()), (Some(CloseLimit::Time), true));
        assert_eq!(running.told.names().last().unwrap(), "lost(timed_out)");
        assert!(read_all(&mut b).await.1.is_ok());
    })
    .await;
    let policy = Policy::default().close_discard(200_000);
    over(&Kind::ALL, policy, |_, a, b| async move {
        let (mut read, mut write) = tokio::io::split(b);
        let talking = tokio::spawn(async move { while write.write_all(&[1; 9_000]).await.is_ok() {} });
        let reading = tokio::spawn(async move { read.read_to_end(&mut Vec::new()).await });
        let running = run(Probe::at("made", |transport| transport.close()), a);
        assert_eq!(running.task.await.unwrap().limit, Some(CloseLimit::Bytes));
        talking.await.unwrap();
        let _ = reading.await.unwrap();
    })
    .await;
}

/// rule: close-3, close-5
#[tokio::test]
async fn a_peer_that_does_not_read_cannot_prolong_a_close_with_a_producer() {
    over(&Kind::ALL, hasty(150), |_, mut a, b| async move {
        clog(&mut a).await;
        let probe = Probe::quiet();
        let told = probe.told();
        let running = run(probe, a);
        running.handle.register_producer(push(told)).await.unwrap();
        running.handle.write(vec![b'z'; 300_000]);
        running.handle.close();
        let report = running.task.await.unwrap();
        assert_eq!(report.reason.name(), "timed_out", "{report:?}");
        let names = running.told.names();
        assert_eq!(names[names.len() - 2..], ["stop", "lost(timed_out)"]);
        drop(b);
    })
    .await;
}

/// rule: close-5, flow-2
#[tokio::test]
async fn close_waits_for_a_pull_producer_and_sends_its_last_bytes() {
    over_all(|_, a, mut b| async move {
        let probe = Probe::quiet();
        let told = probe.told();
        let producer = pull(told, pattern(300_000), 7_000);
        let running = run(probe, a);
        let registered = running.handle.register_producer(producer);
        running.handle.close();
        running.handle.write("dropped? no: the producer is there");
        registered.await.unwrap();
        // Input that comes during the wait is discarded.
        b.write_all(b"late").await.unwrap();
        let (received, end) = read_all(&mut b).await;
        let expected = [b"dropped? no: the producer is there", &pattern(300_000)[..]].concat();
        assert!(received == expected && end.is_ok(), "{} bytes: {end:?}", received.len());
        b.close().await;
        assert!(running.task.await.unwrap().is_clean());
        assert!(!running.told.has("stop") && !running.told.has("data"));
        assert_eq!(running.told.count("produce"), 300_000_usize.div_ceil(7_000));
    })
    .await;
}

/// rule: close-5
#[tokio::test]
async fn close_waits_for_a_push_producer_that_is_not_paused() {
    over_all(|_, a, mut b| async move {
        let probe = Probe::quiet();
        let told = probe.told();
        let running = run(probe, a);
        running.handle.register_producer(push(told)).await.unwrap();
        running.handle.write("first ");
        running.handle.close();
        expect(&mut b, b"first ").await;
        b.write_all(b"late").await.unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(20), b.read(&mut [0; 1])).await.is_err());
        running.handle.write("last");
        running.handle.unregister_producer();
        running.handle.write("dropped");
        let (received, end) = read_all(&mut b).await;
        assert_eq!((&received[..], end.is_ok()), (&b"last"[..], true));
        b.close().await;
        assert!(running.task.await.unwrap().is_clean());
        assert_eq!((running.told.count("stop"), running.told.count("data")), (0, 0));
        assert_eq!(running.handle.dropped(), 7);
    })
    .await;
}

/// rule: close-5, flow-2
#[tokio::test]
async fn close_waits_for_a_push_producer_that_is_paused() {
    let policy = Policy::default().watermarks(Watermarks::new(10_000, 20_000));
    over(&Kind::ALL, policy, |_, mut a, mut b| async move {
        let taken = clog(&mut a).await;
        let probe = Probe::quiet();
        let told = probe.told();
        let running = run(probe, a);
        running.handle.register_producer(push(told)).await.unwrap();
        running.handle.write(pattern(100_000));
        running.told.event("pause").await;
        running.handle.close();
        let mut clogged = vec![0; taken];
        b.read_exact(&mut clogged).await.unwrap();
        expect(&mut b, &pattern(100_000)).await;
        running.told.event("resume").await;
        running.handle.write("last");
        running.handle.unregister_producer();
        let (received, end) = read_all(&mut b).await;
        assert_eq!((&received[..], end.is_ok()), (&b"last"[..], true));
        b.close().await;
        assert!(running.task.await.unwrap().is_clean());
        running.told.forget("writable");
        let names: Vec<String> = running.told.names().into_iter().filter(|name| !name.contains("secured")).collect();
        assert_eq!(names, ["made", "pause", "resume", "read_closed(Clean)", "write_closed", "lost(closed)"]);
    })
    .await;
}

/// rule: close-5, close-6
#[tokio::test]
async fn the_peers_end_and_a_second_close_do_not_cut_the_producer_off() {
    over_all(|_, a, mut b| async move {
        let probe = Probe::quiet();
        let told = probe.told();
        let running = run(probe, a);
        running.handle.register_producer(push(told)).await.unwrap();
        running.handle.close();
        b.close_write().await.unwrap();
        running.told.event("read_closed(Clean)").await;
        running.handle.close();
        running.handle.close_write();
        running.handle.write("all of it");
        running.handle.unregister_producer();
        let (received, end) = read_all(&mut b).await;
        assert_eq!((&received[..], end.is_ok()), (&b"all of it"[..], true));
        b.close().await;
        assert!(running.task.await.unwrap().is_clean());
    })
    .await;
}

/// rule: close-6, close-13
#[tokio::test]
async fn close_after_close_write_and_after_the_peers_end_and_twice_is_one_end() {
    over_all(|_, a, mut b| async move {
        let probe = Probe::on(|event, transport| match event {
            Event::Made => transport.close_write(),
            Event::ReadClosed(_) => {
                transport.close();
                transport.close();
                transport.close_write();
            }
            _ => {}
        });
        let running = run(probe, a);
        assert!(read_all(&mut b).await.1.is_ok());
        b.close().await;
        assert!(running.task.await.unwrap().is_clean());
        for once in ["read_closed(Clean)", "write_closed", "lost(closed)"] {
            assert_eq!(running.told.count(once), 1, "{once}");
        }
        running.handle.close();
        running.handle.close_write();
        assert_eq!(running.told.count("lost"), 1);
    })
    .await;
}

/// rule: close-7
#[tokio::test]
async fn a_bare_fin_or_a_reset_in_answer_is_reported_as_what_it_is() {
    for is_reset in [false, true] {
        let (server, mut client) = server_and_tokio_rustls(Policy::default()).await;
        let probe = Probe::at("secured", |transport| {
            transport.write(b"all of it");
            transport.close();
        });
        let running = run(probe, server);
        let mut all = Vec::new();
        client.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"all of it");
        if is_reset {
            reset_on_drop(client.get_ref().0);
        }
        drop(client.into_inner().0);
        let report = running.task.await.unwrap();
        assert_eq!(report.layers[0].received, if is_reset { Received::Reset } else { Received::BareEnd });
        let name = if is_reset { "lost(reset)" } else { "lost(unconfirmed)" };
        assert_eq!(running.told.names(), ["made", "secured", "write_closed", name]);
    }
}

/// rule: close-8, half-6
#[tokio::test]
async fn queued_bytes_arrive_completely_when_the_peer_closes_first() {
    over_all(|_, a, mut b| async move {
        b.close_write().await.unwrap();
        let running = run(Probe::at("made", |transport| transport.write(&pattern(3_000_000))).closing(), a);
        let (received, end) = read_all(&mut b).await;
        assert!(received == pattern(3_000_000) && end.is_ok());
        b.close().await;
        assert!(running.task.await.unwrap().is_clean());
        running.told.forget("writable");
        running.told.forget("secured");
        assert_eq!(running.told.names(), ["made", "read_closed(Clean)", "write_closed", "lost(closed)"]);
    })
    .await;
}

/// rule: close-9
#[tokio::test]
async fn close_before_the_handshake_without_queued_bytes_sends_no_alert() {
    bounded("begin_tls", async {
        let (a, mut raw) = plain_and_raw(Policy::default()).await;
        let running = start(Runner::new(Probe::at("made", |transport| transport.close()), a).begin_tls(as_client()));
        raw.observe().await;
        assert!(is_only_hello(raw.received()), "{:?}", raw.received());
        drop(raw);
        assert_eq!(running.task.await.unwrap().reason.name(), "closed");
        assert_eq!(running.told.names(), ["made", "lost(closed)"]);
    })
    .await;
    bounded("a TLS connection", async {
        let (a, mut raw) = client_and_raw(Policy::default()).await;
        let running = run(Probe::at("made", |transport| transport.close()), a);
        let report = running.task.await.unwrap();
        assert!(report.reason.is_clean() && !report.marker_sent());
        assert_eq!(running.told.names(), ["made", "lost(closed)"]);
        raw.observe().await;
        assert!(is_only_hello(raw.received()), "{:?}", raw.received());
    })
    .await;
    bounded("by the handle, in the middle", async {
        for begins in [true, false] {
            let (running, mut raw) = if begins {
                let (a, raw) = plain_and_raw(Policy::default()).await;
                (start(Runner::new(Probe::quiet(), a).begin_tls(as_client())), raw)
            } else {
                let (a, raw) = client_and_raw(Policy::default()).await;
                (run(Probe::quiet(), a), raw)
            };
            assert!(!raw.receive(1).await.is_empty());
            running.handle.close();
            raw.observe().await;
            assert!(is_only_hello(raw.received()));
            drop(raw);
            assert_eq!(running.task.await.unwrap().reason.name(), "closed");
        }
    })
    .await;
}

/// rule: close-9, write-3
#[tokio::test]
async fn close_before_the_handshake_finishes_it_for_queued_bytes() {
    let last_words = || {
        Probe::at("made", |transport| {
            transport.write(b"last words");
            transport.close();
        })
    };
    let expected = ["made", "secured", "read_closed(Clean)", "write_closed", "lost(closed)"];
    bounded("begin_tls", async move {
        for is_client in [true, false] {
            let (a, mut b) = plain().await;
            let (ours, theirs) = if is_client { (as_client(), as_server()) } else { (as_server(), as_client()) };
            let running = start(Runner::new(last_words(), a).begin_tls(ours));
            b.start_tls(theirs).await.unwrap();
            let (received, end) = read_all(&mut b).await;
            assert_eq!((&received[..], end.is_ok()), (&b"last words"[..], true));
            b.close().await;
            assert!(running.task.await.unwrap().is_clean());
            assert_eq!(running.told.names(), expected);
        }
    })
    .await;
    bounded("a TLS connection", async move {
        let (a, b) = bowline::testing::tcp_pair().await.unwrap();
        let running = run(last_words(), TlsConnection::server(a, &shared_pki().server_tls()).unwrap());
        let mut b = TlsConnection::connect(b, &shared_pki().client_tls(), "localhost").await.unwrap();
        let (received, end) = read_all(&mut b).await;
        assert_eq!((&received[..], end.is_ok()), (&b"last words"[..], true));
        b.close().await;
        assert!(running.task.await.unwrap().is_clean());
        assert_eq!(running.told.names(), expected);
    })
    .await;
}

/// rule: close-9, close-5
#[tokio::test]
async fn close_before_the_handshake_with_a_producer_finishes_the_handshake() {
    bounded("begin_tls", async {
        let (a, mut b) = plain().await;
        let probe = Probe::quiet();
        let told = probe.told();
        let runner = Runner::new(probe, a).begin_tls(as_client());
        let handle = runner.handle();
        let registered = handle.register_producer(pull(told, pattern(50_000), 9_000));
        handle.close();
        let running = start(runner);
        registered.await.unwrap();
        b.start_tls(as_server()).await.unwrap();
        let (received, end) = read_all(&mut b).await;
        assert!(received == pattern(50_000) && end.is_ok());
        b.close().await;
        assert!(running.task.await.unwrap().is_clean());
    })
    .await;
}

/// The peer causes every callback: it sends, ends its half, and then reads everything.
///
/// rule: close-10, life-1, life-2
#[tokio::test]
async fn close_works_inside_every_callback() {
    for name in ["made", "secured", "data", "writable", "timer", "read_closed", "write_closed"] {
        over_all(move |kind, a, mut b| async move {
            if name == "secured" && !kind.is_tls() {
                return;
            }
            let ends_first = name == "write_closed";
            let mut is_closed = false;
            let probe = Probe::on(move |event, transport| {
                assert!(!is_closed || !matches!(event, Event::Data(_)), "data behind the close");
                match event {
                    Event::Made => {
                        transport.write(&pattern(70_000));
                        transport.set_timer(Some(Duration::from_millis(1)));
                    }
                    Event::Data(_) if ends_first => transport.close_write(),
                    _ => {}
                }
                if event.name().starts_with(name) && !is_closed {
                    transport.close();
                    transport.write(b"dropped");
                    is_closed = true;
                }
            });
            let running = run(probe, a);
            b.write_all(b"hello").await.unwrap();
            expect(&mut b, &pattern(70_000)).await;
            if name == "read_closed" {
                b.close_write().await.unwrap();
            }
            let (received, end) = read_all(&mut b).await;
            assert!(received.is_empty() && end.is_ok(), "{name}: {end:?}");
            b.close().await;
            let report = running.task.await.unwrap();
            assert!(report.is_clean(), "{name}: {report:?}");
            assert_eq!(running.told.names().last().unwrap(), "lost(closed)");
            assert!(!running.told.has("a callback inside"));
        })
        .await;
    }
}

/// rule: close-10
#[tokio::test]
async fn close_inside_the_producers_own_callback_and_inside_tls_stopped() {
    over_all(|_, a, mut b| async move {
        let probe = Probe::quiet();
        let told = probe.told();
        let mut rounds = 0;
        let producer = crate::probe::Pull(told, move |transport: &mut dyn bowline::protocol::Conn| {
            rounds += 1;
            transport.write(b"piece ");
            match rounds {
                1 => transport.close(),
                3 => transport.unregister_producer(),
                _ => {}
            }
            Ok(())
        });
        let running = run(probe, a);
        running.handle.register_producer(bowline::protocol::Producer::pull(producer)).await.unwrap();
        let (received, end) = read_all(&mut b).await;
        assert_eq!((&received[..], end.is_ok()), (&b"piece piece piece "[..], true));
        b.close().await;
        assert!(running.task.await.unwrap().is_clean());
    })
    .await;
    bounded("tls_stopped", async {
        let (a, mut b) = plain().await;
        let probe = Probe::on(|event, transport| match event {
            Event::Secured => transport.stop_tls().unwrap(),
            Event::Plain => transport.close(),
            _ => {}
        });
        let running = start(Runner::new(probe, a).begin_tls(as_client()));
        b.start_tls(as_server()).await.unwrap();
        b.stop_tls().await.unwrap();
        assert!(read_all(&mut b).await.1.is_ok());
        b.close().await;
        assert!(running.task.await.unwrap().is_clean());
    })
    .await;
}

/// rule: close-10
#[tokio::test]
async fn close_while_reading_is_paused_delivers_nothing() {
    over_all(|_, a, mut b| async move {
        b.write_all(&pattern(30_000)).await.unwrap();
        let probe = Probe::at("made", |transport| transport.pause_reading());
        let running = run(probe, a);
        running.told.event("made").await;
        tokio::task::yield_now().await;
        running.handle.close();
        running.handle.resume_reading();
        assert!(read_all(&mut b).await.1.is_ok());
        b.close().await;
        let report = running.task.await.unwrap();
        assert!(report.is_clean() && report.discarded == 30_000, "{report:?}");
        assert!(!running.told.has("data"));
    })
    .await;
}

/// Bytes that were left unread are not delivered again, and neither are bytes that come after the close.
///
/// rule: close-10
#[tokio::test]
async fn unprocessed_bytes_are_not_delivered_after_a_close() {
    over_all(|_, a, mut b| async move {
        let probe = Probe::new(|event, transport| {
            if let Event::Data(data) = event {
                transport.close();
                return Ok(Answer { unread: data.len(), ..Answer::default() });
            }
            Ok(Answer::default())
        });
        let running = run(probe, a);
        b.write_all(b"first").await.unwrap();
        running.told.event("data").await;
        b.write_all(b"second").await.unwrap();
        assert!(read_all(&mut b).await.1.is_ok());
        b.close().await;
        running.task.await.unwrap();
        assert_eq!(running.told.data(), b"first");
    })
    .await;
}

/// rule: close-11
#[tokio::test]
async fn both_sides_closing_at_once_end_clean() {
    over_all(|_, a, b| async move {
        let probe = || {
            Probe::at("made", |transport| {
                transport.write(&pattern(30_000));
                transport.close();
            })
        };
        let (ours, theirs) = (run(probe(), a), run(probe(), b));
        for running in [ours, theirs] {
            assert!(running.task.await.unwrap().is_clean());
            assert_eq!(running.told.names().last().unwrap(), "lost(closed)");
        }
    })
    .await;
}

/// rule: close-12, life-4
#[tokio::test]
async fn a_dropped_runner_is_a_truncation_for_the_peer_and_the_handle() {
    over_all(|_, mut a, mut b| async move {
        settle(&mut a, &mut b).await;
        let running = run(Probe::at("made", |transport| transport.write(b"half a mess")), a);
        expect(&mut b, b"half a mess").await;
        let handle = running.handle.clone();
        let waiting = tokio::spawn(async move { (handle.lost().await, handle.writable().await.is_err()) });
        running.task.abort();
        assert!(read_all(&mut b).await.1.is_err());
        let (reason, has_no_room) = waiting.await.unwrap();
        assert_eq!((reason.name(), has_no_room), ("aborted", true));
        let handle: Handle = running.handle;
        handle.write("late");
        assert_eq!((handle.queued(), handle.dropped()), (0, 4));
        assert!(handle.stop_tls().await.is_err());
        assert!(!running.told.has("lost"));
    })
    .await;
}

/// rule: close-13, half-6
#[tokio::test]
async fn a_connection_both_of_whose_halves_have_ended_ends_by_itself() {
    for ours_first in [true, false] {
        over_all(move |_, a, mut b| async move {
            let when = if ours_first { "made" } else { "read_closed" };
            let running = run(Probe::at(when, |transport| transport.close_write()), a);
            if ours_first {
                running.told.event("write_closed").await;
                assert!(!running.task.is_finished());
            }
            b.close_write().await.unwrap();
            assert!(running.task.await.unwrap().is_clean());
            let names = running.told.names();
            let expected = if ours_first {
                ["write_closed", "read_closed(Clean)", "lost(closed)"]
            } else {
                ["read_closed(Clean)", "write_closed", "lost(closed)"]
            };
            assert_eq!(names[names.len() - 3..], expected);
            assert!(read_all(&mut b).await.1.is_ok());
        })
        .await;
    }
}

/// rule: close-6
#[tokio::test]
async fn close_after_a_loss_reports_the_loss() {
    for kind in Kind::ALL {
        let (mut a, mut b) = pair(kind).await.unwrap();
        settle(&mut a, &mut b).await;
        let running = run(Probe::half_closeable(), a);
        b.abort();
        assert_eq!(running.handle.lost().await.name(), "reset");
        running.handle.close();
        assert_eq!(running.task.await.unwrap().reason.name(), "reset");
        assert_eq!(running.told.count("lost"), 1);
    }
}

/// rule: close-16: a close through the connection's own handle works for protocols too.
#[tokio::test]
async fn the_handle_of_the_connection_closes_as_the_protocols_does() {
    over_all(|_, a, mut b| async move {
        let running = run(Probe::quiet(), a);
        running.handle.write(b"bye");
        let control = running.handle.control().clone();
        let closing = tokio::spawn(async move { control.close().await });
        let (data, end) = read_all(&mut b).await;
        assert!(data == b"bye" && end.is_ok(), "{end:?}");
        assert!(b.close().await.is_clean());
        let report = closing.await.unwrap();
        assert!(report.is_clean(), "{report}");
        assert_eq!(format!("{:?}", running.task.await.unwrap()), format!("{report:?}"));
        assert_eq!(running.told.count("lost(closed)"), 1);
    })
    .await;
}
