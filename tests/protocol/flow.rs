//! flow: producers, watermarks, pauses.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bowline::protocol::{Handle, Producer, PushProducer};
use bowline::testing::{Kind, pair_with};
use bowline::{Error, Policy, Transport as _, Watermarks};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::common::{clog, expect, over, over_all, pattern, read_all, settle};
use crate::probe::{Answer, Event, Probe, Pull, Told, pull, push, run};

fn tight() -> Policy {
    Policy::default().watermarks(Watermarks::new(10_000, 40_000))
}

/// rule: flow-1
#[tokio::test]
async fn a_second_producer_is_an_error_and_leaves_the_first() {
    over_all(|_, a, mut b| async move {
        let second = Told::default();
        let (late, told) = (second.clone(), Told::default());
        let mut producer = Some(push(told.clone()));
        let probe = Probe::on(move |event, transport| {
            if let Event::Made = event {
                transport.register_producer(producer.take().unwrap()).unwrap();
                let refused = transport.register_producer(push(late.clone()));
                assert!(matches!(refused, Err(Error::Producer)));
                let refused = transport.register_producer(pull(late.clone(), vec![0; 10], 10));
                assert!(matches!(refused, Err(Error::Producer)));
            }
        });
        let running = run(probe, a);
        running.told.event("made").await;
        let refused = running.handle.register_producer(push(second.clone())).await;
        assert!(matches!(refused, Err(Error::Producer)));
        // The first producer is registered: a close waits for it.
        running.handle.close();
        running.handle.write("the first's");
        expect(&mut b, b"the first's").await;
        running.handle.abort();
        running.task.await.unwrap();
        assert_eq!(told.names(), ["stop"]);
        assert!(second.names().is_empty(), "{:?}", second.names());
    })
    .await;
}

/// rule: flow-1, life-2
#[tokio::test]
async fn a_producer_registered_too_late_is_stopped_after_the_call() {
    for how in ["close", "close_write", "abort"] {
        over_all(move |_, a, mut b| async move {
            let probe = Probe::half_closeable();
            let told = probe.told();
            let late = told.clone();
            let probe = Probe::sharing(told, move |event, transport| {
                if let Event::Made = event {
                    match how {
                        "close" => transport.close(),
                        "close_write" => transport.close_write(),
                        _ => transport.abort(),
                    }
                    transport.register_producer(push(late.clone())).unwrap();
                    transport.unregister_producer();
                    transport.register_producer(pull(late.clone(), vec![0; 10], 10)).unwrap();
                    late.note("returned");
                }
            });
            let running = run(probe, a);
            running.told.until(|told| told.count("stop") == 2).await;
            assert_eq!(running.told.names()[..4], ["made", "returned", "stop", "stop"]);
            let (received, _) = read_all(&mut b).await;
            assert!(received.is_empty());
            b.close().await;
            running.task.await.unwrap();
            // A producer that is registered on an ended connection is stopped at once.
            let told = Told::default();
            running.handle.register_producer(push(told.clone())).await.unwrap();
            assert_eq!(told.names(), ["stop"]);
        })
        .await;
    }
}

/// Writes by its handle until it is paused.
struct Eager {
    handle: Handle,
    told: Told,
    is_paused: Arc<AtomicBool>,
}

impl PushProducer for Eager {
    fn pause(&mut self) {
        assert!(!self.is_paused.swap(true, Ordering::SeqCst), "paused twice in a row");
        self.told.note("pause");
    }

    fn resume(&mut self) {
        assert!(self.is_paused.swap(false, Ordering::SeqCst), "resumed and not paused");
        let marks = self.handle.control().policy().get_watermarks();
        assert!(self.handle.queued() <= marks.low(), "resumed above the low mark");
        self.told.note("resume");
    }

    fn stop(&mut self) {
        self.told.note("stop");
    }
}

/// rule: flow-2, write-8
#[tokio::test]
async fn a_push_producer_is_paused_at_the_high_mark_and_resumed_at_the_low_mark() {
    over(&Kind::ALL, tight(), |kind, mut a, mut b| async move {
        let taken = clog(&mut a).await;
        let running = run(Probe::quiet(), a);
        let is_paused = Arc::new(AtomicBool::new(false));
        let told = running.told.clone();
        let producer = Eager { handle: running.handle.clone(), told, is_paused: Arc::clone(&is_paused) };
        running.handle.register_producer(Producer::push(producer)).await.unwrap();
        let mut written = 0;
        for round in 1..=3 {
            while !is_paused.load(Ordering::SeqCst) {
                running.handle.write(pattern(4_000));
                written += 4_000;
                tokio::task::yield_now().await;
            }
            assert_eq!((running.told.count("pause"), running.told.count("resume")), (round, round - 1), "{kind}");
            let queued = running.handle.queued();
            // Bytes that were queued before this producer registered are not its own.
            let most = if round == 1 { usize::MAX } else { 40_000 + 4_000 + 17_000 };
            assert!((40_000..=most).contains(&queued), "{kind}: {queued} bytes queued");
            let mut some = vec![0; if round == 1 { taken + written } else { written } - 9_000];
            b.read_exact(&mut some).await.unwrap();
            written = 9_000;
            running.told.until(|told| told.count("resume") == round).await;
        }
        running.handle.abort();
        running.task.await.unwrap();
        assert_eq!(running.told.count("stop"), 1);
    })
    .await;
}

/// rule: flow-2, write-8
#[tokio::test]
async fn a_pull_producer_is_asked_once_each_time_the_queue_is_empty() {
    over(&Kind::ALL, tight(), |kind, mut a, mut b| async move {
        let taken = clog(&mut a).await;
        let running = run(Probe::quiet(), a);
        let most = Arc::new(Mutex::new(0));
        let seen = Arc::clone(&most);
        let mut rounds = 0;
        let producer = Pull(running.told.clone(), move |transport: &mut dyn bowline::protocol::Conn| {
            assert_eq!(transport.queued(), 0, "asked although there is no room");
            transport.write(&[b'z'; 3_000]);
            let mut most = seen.lock().unwrap();
            *most = transport.queued().max(*most);
            rounds += 1;
            if rounds == 100 {
                transport.unregister_producer();
            }
            Ok(())
        });
        running.handle.register_producer(Producer::pull(producer)).await.unwrap();
        for _ in 0..200 {
            tokio::task::yield_now().await;
        }
        // Over TLS, one piece may be queued in the session. The producer is not called again, however often the task is
        // woken.
        assert!(running.told.count("produce") <= 1, "{kind}: asked {} times", running.told.count("produce"));
        let mut all = vec![0; taken + 300_000];
        b.read_exact(&mut all).await.unwrap();
        assert_eq!((running.told.count("produce"), *most.lock().unwrap()), (100, 3_000));
        running.handle.abort();
        running.task.await.unwrap();
        assert!(!running.told.has("stop"));
    })
    .await;
}

/// rule: flow-1, life-4
#[tokio::test]
async fn a_producer_that_is_done_is_dropped_at_once_and_another_may_follow() {
    over_all(|_, a, mut b| async move {
        let kept = Arc::new(());
        let running = run(Probe::quiet(), a);
        for round in 1..=2 {
            let held = Arc::clone(&kept);
            let producer = Pull(running.told.clone(), move |transport: &mut dyn bowline::protocol::Conn| {
                let _ = &held;
                transport.write(b"piece");
                transport.unregister_producer();
                Ok(())
            });
            running.handle.register_producer(Producer::pull(producer)).await.unwrap();
            expect(&mut b, b"piece").await;
            assert_eq!((running.told.count("produce"), Arc::strong_count(&kept)), (round, 1));
        }
        running.handle.abort();
        running.task.await.unwrap();
        assert!(!running.told.has("stop"));
    })
    .await;
}

/// A producer that writes nothing when it is called is not called again until it has written.
///
/// rule: flow-2
#[tokio::test]
async fn a_pull_producer_that_writes_later_is_asked_once_for_what_it_writes() {
    over_all(|_, a, mut b| async move {
        let running = run(Probe::quiet(), a);
        let producer = Pull(running.told.clone(), |transport: &mut dyn bowline::protocol::Conn| {
            transport.write(b"");
            Ok(())
        });
        running.handle.register_producer(Producer::pull(producer)).await.unwrap();
        for round in 1..=3 {
            running.told.until(|told| told.count("produce") == round).await;
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
            assert_eq!(running.told.count("produce"), round);
            running.handle.write("piece");
            expect(&mut b, b"piece").await;
        }
        running.handle.abort();
        running.task.await.unwrap();
        assert_eq!(running.told.count("stop"), 1);
    })
    .await;
}

/// rule: flow-3, life-3
#[tokio::test]
async fn a_producer_is_stopped_once_before_every_kind_of_end() {
    for how in ["reset", "abort", "peer closes", "callback fails", "fail", "producer fails", "producer panics"] {
        over_all(move |_, mut a, mut b| async move {
            settle(&mut a, &mut b).await;
            let told = Told::default();
            let probe = Probe::sharing(told.clone(), |_, _| {});
            let probe = if how == "callback fails" {
                Probe::failing(told.clone(), "data")
            } else if how == "peer closes" {
                probe.closing()
            } else {
                probe
            };
            let running = run(probe, a);
            let producer = match how {
                "producer fails" => {
                    Producer::pull(Pull(told.clone(), |_: &mut dyn bowline::protocol::Conn| Err("mine".into())))
                }
                "producer panics" => {
                    Producer::pull(Pull(told.clone(), |_: &mut dyn bowline::protocol::Conn| panic!("mine")))
                }
                _ => push(told.clone()),
            };
            running.handle.register_producer(producer).await.unwrap();
            match how {
                "reset" => b.abort(),
                "abort" => running.handle.abort(),
                "peer closes" => assert!(b.close().await.is_clean()),
                "callback fails" => b.write_all(b"x").await.unwrap(),
                "fail" => running.handle.fail("mine"),
                _ => {}
            }
            running.task.await.unwrap();
            let names = told.names();
            assert_eq!(told.count("stop"), 1, "{how}: {names:?}");
            let place = |name: &str| names.iter().position(|told| told.starts_with(name)).unwrap();
            assert!(place("stop") < place("lost"), "{how}: {names:?}");
            drop(b);
        })
        .await;
    }
}

/// rule: flow-4, secure-7
#[tokio::test]
async fn pausing_stops_at_once_and_resuming_delivers_all_of_it_and_then_the_end() {
    over_all(|_, a, mut b| async move {
        b.write_all(&pattern(60_000)).await.unwrap();
        b.close_write().await.unwrap();
        let probe = Probe::on(|event, transport| {
            if let Event::Data(_) = event {
                transport.pause_reading();
                assert!(transport.is_reading_paused());
            }
        });
        let running = run(probe, a);
        let mut rounds = 0;
        while !running.told.has("read_closed") {
            running.told.until(|told| told.count("data") > rounds || told.has("read_closed")).await;
            for _ in 0..5 {
                tokio::task::yield_now().await;
            }
            assert!(running.told.count("data") <= rounds + 1, "delivered although reading is paused");
            assert!(running.told.data().len() == 60_000 || !running.told.has("read_closed"));
            rounds = running.told.count("data");
            running.handle.resume_reading();
        }
        assert!(running.told.data() == pattern(60_000));
        running.handle.close();
        b.close().await;
        assert!(running.task.await.unwrap().is_clean());
    })
    .await;
}

/// The data and the end arrive in one segment. While reading is paused the end is not reported, even after the end of
/// our own half.
///
/// rule: flow-4, half-7
#[tokio::test]
async fn the_end_stays_unread_during_a_pause() {
    over_all(|_, a, mut b| async move {
        b.write_all(b"all of it").await.unwrap();
        b.close_write().await.unwrap();
        let probe = Probe::at("data", |transport| {
            transport.pause_reading();
            transport.close_write();
        });
        let running = run(probe, a);
        running.told.event("write_closed").await;
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        assert!(!running.told.has("read_closed"), "{:?}", running.told.names());
        running.handle.resume_reading();
        running.told.event("read_closed(Clean)").await;
        assert!(running.task.await.unwrap().is_clean());
        assert_eq!(running.told.data(), b"all of it");
        assert!(read_all(&mut b).await.1.is_ok());
    })
    .await;
}

/// rule: flow-4
#[tokio::test]
async fn unprocessed_bytes_stay_unread_too_and_are_delivered_first() {
    over_all(|_, a, mut b| async move {
        let mut is_first = true;
        let probe = Probe::new(move |event, transport| {
            if let (Event::Data(data), true) = (event, is_first) {
                is_first = false;
                transport.pause_reading();
                return Ok(Answer { unread: data.len() - 1, after_read: bowline::protocol::AfterRead::KeepWriting });
            }
            Ok(crate::probe::KEEP)
        });
        let running = run(probe, a);
        b.write_all(b"one").await.unwrap();
        running.told.event("data").await;
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert_eq!(running.told.data(), b"one");
        // The data is delivered although no more bytes come.
        running.handle.resume_reading();
        running.told.until(|told| told.data() == b"onene").await;
        b.write_all(b" two").await.unwrap();
        running.told.until(|told| told.data().ends_with(b" two")).await;
        running.handle.close();
        b.close().await;
        running.task.await.unwrap();
    })
    .await;
}

/// rule: flow-4
#[tokio::test]
async fn a_paused_protocol_holds_the_peer_back() {
    over_all(|_, a, mut b| async move {
        let running = run(Probe::at("made", |transport| transport.pause_reading()), a);
        running.told.event("made").await;
        let taken = clog(&mut b).await;
        assert!(!running.told.has("data"));
        running.handle.resume_reading();
        running.told.len(taken).await;
        running.handle.close();
        b.close().await;
        running.task.await.unwrap();
    })
    .await;
}

/// rule: flow-5
#[tokio::test]
async fn a_paused_connection_notices_a_reset_and_reports_no_end_before_its_data() {
    let tcp = [Kind::Tcp, Kind::Tls12, Kind::Tls13, Kind::Upgraded, Kind::TlsInTls];
    for has_ended in [false, true] {
        over(&tcp, Policy::default(), move |kind, mut a, mut b| async move {
            settle(&mut a, &mut b).await;
            let running = run(Probe::at("made", |transport| transport.pause_reading()), a);
            b.write_all(&pattern(30_000)).await.unwrap();
            b.flush().await.unwrap();
            if has_ended {
                b.close_write().await.unwrap();
            }
            running.told.event("made").await;
            tokio::task::yield_now().await;
            b.abort();
            let reason = running.handle.lost().await;
            running.told.forget("secured");
            if has_ended && reason.name() == "closed" {
                panic!("{kind}: what was parked is lost, and the end is called clean");
            }
            assert_eq!(running.told.names(), ["made", "lost(reset)"], "{kind}");
            running.task.await.unwrap();
        })
        .await;
    }
}

/// rule: flow-5
#[tokio::test]
async fn an_unread_half_closeable_connection_notices_a_reset() {
    let tcp = [Kind::Tcp, Kind::Tls12, Kind::Tls13, Kind::Upgraded, Kind::TlsInTls];
    over(&tcp, Policy::default(), |_, mut a, mut b| async move {
        settle(&mut a, &mut b).await;
        let running = run(Probe::half_closeable(), a);
        b.close_write().await.unwrap();
        running.told.event("read_closed(Clean)").await;
        b.abort();
        assert_eq!(running.handle.lost().await.name(), "reset");
        running.task.await.unwrap();
    })
    .await;
}

/// rule: flow-2
#[tokio::test]
async fn a_pull_producer_is_not_asked_faster_over_tls_than_over_what_is_beneath() {
    let mut asked = Vec::new();
    for kind in [Kind::Memory, Kind::MemoryTls] {
        // No task reads, so the pipe fills. A pull producer is not called for the space in the session's own buffer.
        let (a, b) = pair_with(kind, Policy::default()).await.unwrap();
        let running = run(Probe::quiet(), a);
        let producer = Pull(running.told.clone(), |transport: &mut dyn bowline::protocol::Conn| {
            transport.write(&[0; 1_000]);
            Ok(())
        });
        running.handle.register_producer(Producer::pull(producer)).await.unwrap();
        for _ in 0..500 {
            tokio::task::yield_now().await;
        }
        asked.push(running.told.count("produce"));
        running.handle.abort();
        running.task.await.unwrap();
        drop(b);
    }
    assert!(asked[0] > 60 && asked[1] <= asked[0], "{asked:?}");
}

/// rule: abort-3, flow-4
#[tokio::test]
async fn abort_during_a_pause_ends_a_connection_with_both_halves_ended() {
    over_all(|_, a, mut b| async move {
        b.write_all(b"all of it").await.unwrap();
        b.close_write().await.unwrap();
        let probe = Probe::at("data", |transport| {
            transport.pause_reading();
            transport.close_write();
        });
        let running = run(probe, a);
        running.told.event("write_closed").await;
        assert!(read_all(&mut b).await.1.is_ok());
        running.handle.abort();
        assert_eq!(running.task.await.unwrap().reason.name(), "aborted");
        assert_eq!(running.told.names().last().unwrap(), "lost(aborted)");
        assert!(!running.told.has("read_closed"));
    })
    .await;
}
