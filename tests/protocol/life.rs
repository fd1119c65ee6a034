//! life: callbacks and their order.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bowline::protocol::{CallbackResult, Conn, Handle, Panicked, Producer, Protocol, PushProducer, Runner};
use bowline::testing::peer::{Event as Seen, RawTls};
use bowline::testing::{BoxTransport, Kind, pair, raw_tcp_pair, shared_pki};
use bowline::{Policy, Reason, TcpConnection, TlsConnection, Transport as _};
use tokio::io::AsyncWriteExt;

use crate::common::{bounded, expect, over_all, pattern, read_all, settle};
use crate::probe::{Answer, Event, Probe, Pull, Told, pull, push, quiet_panics, run};
use crate::setup::as_client;

/// rule: life-1, secure-2, half-6, half-7, close-8
#[tokio::test]
async fn the_callbacks_of_a_connection_come_in_order() {
    over_all(|kind, a, mut b: BoxTransport| async move {
        let probe = Probe::new(|event, transport| {
            if let Event::Data(data) = event {
                transport.write(data);
            }
            Ok(Answer::default())
        });
        let running = run(probe, a);
        let data = pattern(200_000);
        let (mut reading, mut writing) = tokio::io::split(&mut b);
        let sent = data.clone();
        tokio::join!(async { writing.write_all(&sent).await.unwrap() }, expect(&mut reading, &data));
        b.close_write().await.unwrap();
        let (rest, end) = read_all(&mut b).await;
        assert!(rest.is_empty() && end.is_ok());
        b.close().await;
        let report = running.task.await.unwrap();
        assert!(report.is_clean(), "{report}");
        let secured: &[&str] = if kind.is_tls() { &["secured"] } else { &[] };
        let expected = [&["made"], secured, &["data", "read_closed(Clean)", "write_closed", "lost(closed)"]].concat();
        running.told.forget("writable");
        assert_eq!(running.told.names(), expected);
        assert_eq!(running.told.data(), data);
    })
    .await;
}

/// rule: life-2
#[tokio::test]
async fn no_callback_runs_from_inside_a_call_that_a_callback_made() {
    // The probe and its producers note nested callbacks. Every call that could cause one is made here.
    over_all(|_, a, mut b| async move {
        let told = Told::default();
        let notes = told.clone();
        let probe = Probe::sharing(told, move |event, transport| {
            if matches!(event, Event::Made | Event::Data(_)) {
                transport.write(&pattern(200_000));
                let _ = transport.register_producer(push(notes.clone()));
                let _ = transport.register_producer(push(notes.clone()));
                transport.unregister_producer();
                let _ = transport.register_producer(pull(notes.clone(), pattern(1_000), 100));
                transport.set_timer(Some(Duration::ZERO));
                transport.pause_reading();
                transport.resume_reading();
                transport.handle().write("by the handle");
                if let Event::Data(_) = event {
                    transport.close_write();
                    transport.close();
                    transport.abort();
                }
            }
        });
        let running = run(probe, a);
        running.told.event("made").await;
        b.write_all(b"x").await.unwrap();
        let _ = read_all(&mut b).await;
        running.task.await.unwrap();
        assert!(!running.told.has("a callback inside"), "{:?}", running.told.names());
    })
    .await;
}

/// rule: life-3, life-1, flow-3
#[tokio::test]
async fn a_callback_that_fails_or_panics_ends_its_connection_and_no_other() {
    quiet_panics();
    for name in ["made", "secured", "data", "writable", "timer", "read_closed", "write_closed"] {
        for panics in [false, true] {
            over_all(move |kind, a, mut b| async move {
                if name == "secured" && !kind.is_tls() {
                    return;
                }
                let (other, mut other_peer) = pair(Kind::Memory).await.unwrap();
                let other = run(Probe::half_closeable(), other);
                let told = Told::default();
                let inner = if panics { Probe::panicking(told, name) } else { Probe::failing(told, name) };
                let probe = inner.after(move |event, transport| match event {
                    Event::Made => {
                        transport.write(&pattern(70_000));
                        transport.set_timer(Some(Duration::from_millis(1)));
                    }
                    Event::Data(_) if name == "write_closed" => transport.close_write(),
                    _ => {}
                });
                let running = run(probe, a);
                let _ = b.write_all(&pattern(20_000)).await;
                if name == "read_closed" {
                    let _ = b.close_write().await;
                }
                let (_, end) = read_all(&mut b).await;
                // The reset that came after the marker shows when bytes are sent.
                assert!(end.is_err() || name == "write_closed", "{name}: it looks complete");
                let Reason::Protocol(error) = running.task.await.unwrap().reason else { panic!("{name}") };
                if panics {
                    assert_eq!(error.to_string(), format!("a callback panicked: panics at {name}"));
                    assert!(error.downcast_ref::<Panicked>().is_some());
                } else {
                    assert_eq!(error.to_string(), "mine");
                }
                let names = running.told.names();
                assert!(names[names.len() - 2].starts_with(name), "{names:?}");
                assert_eq!(names.last().unwrap(), "lost(protocol)");
                assert_eq!(running.told.count("lost"), 1);
                other_peer.write_all(b"unharmed").await.unwrap();
                other.told.len(8).await;
                other.handle.abort();
                other.task.await.unwrap();
            })
            .await;
        }
    }
}

/// rule: life-3, abort-2
#[tokio::test]
async fn a_callback_that_fails_leaves_rst_on_the_wire_and_no_close_notify() {
    quiet_panics();
    for panics in [false, true] {
        bounded("tcp", async move {
            let (ours, theirs) = raw_tcp_pair().await.unwrap();
            let tcp = TcpConnection::new(ours, Policy::default()).unwrap();
            let told = Told::default();
            let probe = if panics { Probe::panicking(told, "data") } else { Probe::failing(told, "data") };
            let running = run(probe, TlsConnection::server(tcp, &shared_pki().server_tls()).unwrap());
            let mut raw = RawTls::client(theirs, &shared_pki().client_tls(), "localhost").await.unwrap();
            raw.data(b"hello").send().await.unwrap();
            assert_eq!(raw.observe().await, [Seen::Reset]);
            running.task.await.unwrap();
        })
        .await;
    }
}

/// rule: life-3
#[tokio::test]
async fn a_panic_at_the_very_end_is_the_protocols_own_affair() {
    struct Panics(Told);
    impl Protocol for Panics {
        fn data_received(&mut self, _: &mut dyn Conn, data: &[u8]) -> CallbackResult<usize> {
            Ok(data.len())
        }
        fn connection_lost(&mut self, _: &Reason) {
            self.0.note("lost");
            panic!("too late");
        }
    }
    struct PanicsToo(Told);
    impl PushProducer for PanicsToo {
        fn pause(&mut self) {}
        fn resume(&mut self) {}
        fn stop(&mut self) {
            self.0.note("stop");
            panic!("too late, too");
        }
    }
    quiet_panics();
    over_all(|_, a, mut b| async move {
        let told = Told::default();
        let runner = Runner::new(Panics(told.clone()), a);
        let handle = runner.handle();
        let task = tokio::spawn(runner.run());
        handle.register_producer(Producer::push(PanicsToo(told.clone()))).await.unwrap();
        // When the connection ends, the requests of the producer no longer have an effect, but the producer is still
        // stopped.
        b.close().await;
        let report = task.await.unwrap();
        assert_eq!(report.reason.name(), "protocol");
        handle.register_producer(Producer::push(PanicsToo(told.clone()))).await.unwrap();
        assert_eq!(told.names(), ["stop", "lost", "stop"]);
        assert_eq!(handle.reason().unwrap().name(), "protocol");
    })
    .await;
}

/// A protocol that reports more bytes than it got has broken the contract. Only its connection ends, not the process.
///
/// rule: life-3
#[tokio::test]
async fn a_protocol_that_is_done_with_more_than_there_was_ends() {
    struct Greedy;
    impl Protocol for Greedy {
        fn data_received(&mut self, _: &mut dyn Conn, data: &[u8]) -> CallbackResult<usize> {
            Ok(data.len() + 1)
        }
    }
    over_all(|_, a, mut b| async move {
        let task = tokio::spawn(Runner::new(Greedy, a).run());
        b.write_all(b"x").await.unwrap();
        assert_eq!(task.await.unwrap().reason.name(), "protocol");
    })
    .await;
}

/// rule: life-4
#[tokio::test]
async fn after_the_end_nothing_of_the_connection_is_kept_also_not_by_its_handle() {
    for how in ["close", "abort", "fail", "reset", "dropped"] {
        over_all(move |kind, mut a, mut b| async move {
            settle(&mut a, &mut b).await;
            let kept = Arc::new(());
            let (in_protocol, in_producer) = (Arc::clone(&kept), Arc::clone(&kept));
            let told = Told::default();
            let probe = Probe::sharing(told.clone(), move |_, transport| {
                let _ = &in_protocol;
                transport.set_timer(Some(Duration::from_secs(3_600)));
            });
            let producer = Pull(told, move |_: &mut dyn bowline::protocol::Conn| {
                let _ = &in_producer;
                Ok(())
            });
            let running = run(probe, a);
            running.handle.register_producer(Producer::pull(producer)).await.unwrap();
            running.handle.write(vec![0; 100]);
            running.handle.pause_reading();
            assert_eq!(Arc::strong_count(&kept), 3);
            match how {
                "close" => {
                    running.handle.unregister_producer();
                    running.handle.close();
                    b.close().await;
                }
                "abort" => running.handle.abort(),
                "fail" => running.handle.fail("mine"),
                "reset" => {
                    running.handle.resume_reading();
                    b.abort();
                }
                _ => running.task.abort(),
            }
            let _ = running.task.await;
            assert_eq!(Arc::strong_count(&kept), 1, "{kind}, {how}");
            // After the end, a call of the handle completes at once, and its arguments are dropped.
            let late = Arc::clone(&kept);
            let producer = Pull(running.told.clone(), move |_: &mut dyn bowline::protocol::Conn| {
                let _ = &late;
                Ok(())
            });
            let reply = running.handle.register_producer(Producer::pull(producer));
            drop(running.handle.stop_tls());
            running.handle.write(vec![0; 100]);
            reply.await.unwrap();
            assert_eq!((Arc::strong_count(&kept), running.handle.queued()), (1, 0), "{kind}, {how}");
            assert!(running.handle.control().is_ended());
        })
        .await;
    }
}

/// rule: life-5, tcp-3
#[tokio::test]
async fn every_handle_call_after_the_end_and_in_connection_lost_is_defined() {
    /// A protocol that gets its own handle before it runs.
    struct Last(Arc<Mutex<Option<Handle>>>, Told);
    impl Protocol for Last {
        fn data_received(&mut self, _: &mut dyn Conn, data: &[u8]) -> CallbackResult<usize> {
            Ok(data.len())
        }
        fn connection_lost(&mut self, _: &Reason) {
            use_all(self.0.lock().unwrap().as_ref().unwrap(), &self.1);
            self.1.note("all of it used");
        }
    }
    fn use_all(handle: &Handle, told: &Told) {
        handle.write("x");
        handle.write_sequence(["x", "y"]);
        handle.close();
        handle.close_write();
        handle.abort();
        handle.fail("mine");
        handle.pause_reading();
        handle.resume_reading();
        drop(handle.register_producer(push(told.clone())));
        handle.unregister_producer();
        drop(handle.start_tls(as_client()));
        drop(handle.stop_tls());
        handle.set_timer(Some(Duration::ZERO));
        let _ = (handle.queued(), handle.dropped(), handle.received(), handle.sent());
        let _ = (handle.is_lost(), handle.reason(), handle.local_addr(), handle.peer_addr(), format!("{handle:?}"));
        assert!(handle.control().policy().get_close_timeout().is_some());
    }
    over_all(|_, a, mut b| async move {
        let told = Told::default();
        let own = Arc::new(Mutex::new(None));
        let runner = Runner::new(Last(Arc::clone(&own), told.clone()), a);
        *own.lock().unwrap() = Some(runner.handle());
        let handle = runner.handle();
        let task = tokio::spawn(runner.run());
        b.close().await;
        let report = task.await.unwrap();
        assert!(report.is_clean(), "{report:?}");
        assert!(told.has("all of it used"));
        use_all(&handle, &told);
        assert!(handle.writable().await.is_err());
        assert!(handle.lost().await.is_clean(), "what came behind the end has changed the reason");
        assert_eq!(handle.dropped(), 6);
        assert_eq!(told.count("stop"), 2);
    })
    .await;
}

/// rule: life-5, abort-3
#[tokio::test]
async fn every_operation_of_a_transport_after_its_abort_is_defined() {
    over_all(|_, a, b| async move {
        let told = Told::default();
        let late = told.clone();
        let probe = Probe::sharing(told, move |_, transport| {
            transport.abort();
            transport.write(b"x");
            transport.write_sequence(&mut [&b"y"[..]].into_iter());
            transport.close();
            transport.close_write();
            transport.pause_reading();
            transport.resume_reading();
            transport.register_producer(push(late.clone())).unwrap();
            transport.unregister_producer();
            transport.set_timer(Some(Duration::ZERO));
            assert!(transport.start_tls(as_client()).is_err() && transport.stop_tls().is_err());
            assert_eq!((transport.queued(), transport.dropped(), transport.is_reading_paused()), (0, 2, false));
            let _ = (
                transport.local_addr(),
                transport.peer_addr(),
                transport.tls(),
                transport.is_secure(),
                transport.handle(),
            );
            assert!(transport.nodelay().is_err() && transport.set_nodelay(true).is_err());
            assert!(transport.keepalive().is_err() && transport.set_keepalive(None).is_err());
            assert!(transport.user_timeout().is_err() && transport.set_user_timeout(None).is_err());
            assert!(transport.buffer_sizes().is_err() && transport.set_send_buffer_size(1).is_err());
            assert!(transport.set_recv_buffer_size(1).is_err());
        });
        let running = run(probe, a);
        assert_eq!(running.task.await.unwrap().reason.name(), "aborted");
        assert_eq!(running.told.names(), ["made", "stop", "lost(aborted)"]);
        drop(b);
    })
    .await;
}

/// rule: life-1
#[tokio::test]
async fn the_timer_is_one_and_fires_once() {
    over_all(|_, a, mut b| async move {
        let probe = Probe::at("made", |transport| {
            transport.set_timer(Some(Duration::from_secs(3_600)));
            transport.set_timer(Some(Duration::from_millis(1)));
        });
        let running = run(probe, a);
        running.told.event("timer").await;
        running.handle.set_timer(Some(Duration::from_millis(1)));
        running.told.until(|told| told.count("timer") == 2).await;
        running.handle.set_timer(Some(Duration::from_millis(1)));
        running.handle.set_timer(None);
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert_eq!(running.told.count("timer"), 2);
        running.handle.close();
        b.close().await;
        running.task.await.unwrap();
    })
    .await;
}
