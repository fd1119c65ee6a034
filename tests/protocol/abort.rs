//! abort: ends at once.

use std::time::Duration;

use bowline::protocol::{Producer, Runner};
use bowline::testing::peer::{Event as Seen, RawTls};
use bowline::testing::{Kind, raw_tcp_pair, shared_pki};
use bowline::{Policy, Reason, TcpConnection, TlsConnection, Transport as _};
use tokio::io::AsyncWriteExt;

use crate::common::{bounded, clog, expect, over, over_all, pattern, read_all, settle};
use crate::probe::{Event, Probe, Pull, push, run, start};
use crate::setup::{as_client, as_server, client_and_raw, hasty, is_only_hello, plain, plain_and_raw};

/// rule: abort-1, flow-3
#[tokio::test]
async fn abort_throws_the_queue_away_stops_the_producer_and_resets() {
    over_all(|_, mut a, mut b| async move {
        clog(&mut a).await;
        let probe = Probe::quiet();
        let told = probe.told();
        let running = run(probe, a);
        running.handle.register_producer(push(told)).await.unwrap();
        running.handle.write(vec![b'z'; 3_000_000]);
        running.told.event("pause").await;
        running.handle.abort();
        let report = running.task.await.unwrap();
        assert_eq!((report.reason.name(), running.handle.queued()), ("aborted", 0));
        running.told.forget("secured");
        assert_eq!(running.told.names(), ["made", "pause", "stop", "lost(aborted)"]);
        assert!(matches!(read_all(&mut b).await.1, Err(Reason::Reset(_))));
    })
    .await;
}

/// rule: abort-2, abort-5
#[tokio::test]
async fn no_record_leaves_after_an_abort() {
    bounded("tcp", async {
        for round in 0..20 {
            let (ours, theirs) = raw_tcp_pair().await.unwrap();
            let tcp = TcpConnection::new(ours, Policy::default()).unwrap();
            let probe = Probe::at("data", |transport| {
                transport.write(b"dropped");
                transport.abort();
                transport.write(b"too");
                transport.close();
                transport.close_write();
            });
            let running = run(probe, TlsConnection::server(tcp, &shared_pki().server_tls()).unwrap());
            let mut raw = RawTls::client(theirs, &shared_pki().client_tls(), "localhost").await.unwrap();
            raw.data(b"hello").send().await.unwrap();
            assert_eq!(raw.observe().await, [Seen::Reset], "round {round}");
            assert_eq!(running.task.await.unwrap().reason.name(), "aborted");
        }
    })
    .await;
}

/// Aborts in each callback in turn. After it, only the end is reported.
///
/// rule: abort-3, life-2, abort-5
#[tokio::test]
async fn abort_works_inside_every_callback() {
    for name in ["made", "secured", "data", "writable", "timer", "read_closed", "write_closed"] {
        over_all(move |kind, a, mut b| async move {
            if name == "secured" && !kind.is_tls() {
                return;
            }
            let probe = Probe::on(move |event, transport| {
                match event {
                    Event::Made => {
                        transport.write(&pattern(70_000));
                        transport.set_timer(Some(Duration::from_millis(1)));
                    }
                    Event::Data(_) if name == "write_closed" => transport.close_write(),
                    _ => {}
                }
                if event.name().starts_with(name) {
                    transport.abort();
                    transport.abort();
                    transport.write(b"dropped");
                }
            });
            let running = run(probe, a);
            let _ = b.write_all(&pattern(20_000)).await;
            if name == "read_closed" {
                let _ = b.close_write().await;
            }
            let (received, end) = read_all(&mut b).await;
            assert!(pattern(70_000).starts_with(&received), "{name}");
            let is_marked = name == "write_closed" && end.is_ok();
            assert!(is_marked || matches!(end, Err(Reason::Reset(_))), "{name}: {end:?}");
            assert_eq!(running.task.await.unwrap().reason.name(), "aborted", "{name}");
            let names = running.told.names();
            assert!(names[names.len() - 2].starts_with(name), "{name}: {names:?}");
            assert_eq!(names.last().unwrap(), "lost(aborted)", "{name}");
        })
        .await;
    }
}

/// rule: abort-3
#[tokio::test]
async fn abort_in_handshake_completed_sends_no_bytes_written_earlier() {
    bounded("tcp", async {
        let (ours, theirs) = raw_tcp_pair().await.unwrap();
        let tcp = TcpConnection::new(ours, Policy::default()).unwrap();
        let probe = Probe::on(|event, transport| match event {
            Event::Made => transport.write(b"secret"),
            Event::Secured => transport.abort(),
            _ => {}
        });
        let running = run(probe, TlsConnection::server(tcp, &shared_pki().server_tls()).unwrap());
        let raw = RawTls::client(theirs, &shared_pki().client_tls(), "localhost").await;
        if let Ok(mut raw) = raw {
            assert_eq!(raw.observe().await, [Seen::Reset]);
        }
        running.task.await.unwrap();
        assert_eq!(running.told.names(), ["made", "secured", "lost(aborted)"]);
    })
    .await;
}

/// rule: abort-3, close-9
#[tokio::test]
async fn abort_before_and_during_the_handshake() {
    bounded("inside made", async {
        let abort = || {
            Probe::at("made", |transport| {
                transport.write(b"secret");
                transport.abort();
            })
        };
        let (a, mut raw) = plain_and_raw(Policy::default()).await;
        let running = start(Runner::new(abort(), a).begin_tls(as_client()));
        assert_eq!(raw.observe().await, [Seen::Reset]);
        running.task.await.unwrap();
        assert_eq!(running.told.names(), ["made", "lost(aborted)"]);
        let (a, mut raw) = client_and_raw(Policy::default()).await;
        let running = run(abort(), a);
        assert_eq!(raw.observe().await, [Seen::Reset]);
        running.task.await.unwrap();
        assert_eq!(running.told.names(), ["made", "lost(aborted)"]);
    })
    .await;
    bounded("while handshaking", async {
        for begins in [true, false] {
            let (running, mut raw) = if begins {
                let (a, raw) = plain_and_raw(Policy::default()).await;
                (start(Runner::new(Probe::quiet(), a).begin_tls(as_client())), raw)
            } else {
                let (a, raw) = client_and_raw(Policy::default()).await;
                (run(Probe::quiet(), a), raw)
            };
            running.handle.write("secret");
            raw.receive(1).await;
            running.handle.abort();
            assert_eq!(raw.observe().await.last(), Some(&Seen::Reset));
            assert!(is_only_hello(raw.received()));
            running.task.await.unwrap();
            assert_eq!(running.told.names(), ["made", "lost(aborted)"]);
        }
    })
    .await;
}

/// rule: abort-3
#[tokio::test]
async fn records_that_were_read_are_not_delivered_after_an_abort() {
    over_all(|_, a, mut b| async move {
        // All bytes have arrived before the first callback.
        for part in pattern(40_000).chunks(1_000) {
            b.write_all(part).await.unwrap();
        }
        let running = run(Probe::at("data", |transport| transport.abort()), a);
        running.task.await.unwrap();
        running.told.forget("secured");
        assert_eq!(running.told.count("data"), 1);
        assert_eq!(running.told.names(), ["made", "data", "lost(aborted)"]);
        assert!(read_all(&mut b).await.1.is_err());
    })
    .await;
}

/// rule: abort-3
#[tokio::test]
async fn abort_after_close_after_close_write_and_while_paused() {
    over_all(|_, a, mut b| async move {
        let running = run(Probe::at("made", |transport| transport.close()), a);
        assert!(read_all(&mut b).await.1.is_ok());
        running.handle.abort();
        assert_eq!(running.task.await.unwrap().reason.name(), "aborted");
        assert_eq!(running.told.count("lost(aborted)"), 1);
    })
    .await;
    over_all(|_, a, mut b| async move {
        let running = run(Probe::at("made", |transport| transport.close_write()), a);
        running.told.event("write_closed").await;
        running.handle.abort();
        running.handle.abort();
        assert_eq!(running.task.await.unwrap().reason.name(), "aborted");
        let names = running.told.names();
        assert_eq!(names[names.len() - 2..], ["write_closed", "lost(aborted)"]);
        while b.write_all(&[0; 4_096]).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    over_all(|_, a, mut b| async move {
        b.write_all(&pattern(30_000)).await.unwrap();
        let running = run(Probe::at("made", |transport| transport.pause_reading()), a);
        running.told.event("made").await;
        running.handle.abort();
        running.handle.resume_reading();
        assert_eq!(running.task.await.unwrap().reason.name(), "aborted");
        assert!(!running.told.has("data"));
        assert!(read_all(&mut b).await.1.is_err());
    })
    .await;
}

/// rule: abort-3, flow-3, life-2
#[tokio::test]
async fn abort_inside_the_producers_own_callback_stops_it_once() {
    over_all(|_, a, mut b| async move {
        let probe = Probe::quiet();
        let told = probe.told();
        let producer = Pull(told, |transport: &mut dyn bowline::protocol::Conn| {
            transport.write(b"dropped");
            transport.abort();
            transport.write(b"dropped");
            Ok(())
        });
        let running = run(probe, a);
        running.handle.register_producer(Producer::pull(producer)).await.unwrap();
        assert_eq!(running.task.await.unwrap().reason.name(), "aborted");
        running.told.forget("secured");
        assert_eq!(running.told.names(), ["made", "produce", "stop", "lost(aborted)"]);
        assert!(read_all(&mut b).await.0.is_empty());
    })
    .await;
}

/// A push producer that aborts when it is paused. It uses the connection's `Handle`, because a producer gets no `Conn`.
///
/// rule: abort-3, abort-4
#[tokio::test]
async fn abort_inside_pause() {
    struct Aborts(bowline::protocol::Handle, crate::probe::Told);
    impl bowline::protocol::PushProducer for Aborts {
        fn pause(&mut self) {
            self.1.note("pause");
            self.0.abort();
        }
        fn resume(&mut self) {
            self.1.note("resume");
        }
        fn stop(&mut self) {
            self.1.note("stop");
        }
    }
    over_all(|_, mut a, mut b| async move {
        clog(&mut a).await;
        let running = run(Probe::quiet(), a);
        let producer = Aborts(running.handle.clone(), running.told.clone());
        running.handle.register_producer(Producer::push(producer)).await.unwrap();
        running.handle.write(vec![0; 300_000]);
        assert_eq!(running.task.await.unwrap().reason.name(), "aborted");
        running.told.forget("secured");
        assert_eq!(running.told.names(), ["made", "pause", "stop", "lost(aborted)"]);
        assert!(read_all(&mut b).await.1.is_err());
    })
    .await;
}

/// rule: abort-4
#[tokio::test]
async fn another_thread_aborts_a_connection_that_waits() {
    over_all(|_, mut a, mut b| async move {
        settle(&mut a, &mut b).await;
        let running = run(Probe::quiet(), a);
        running.told.event("made").await;
        let handle = running.handle.clone();
        std::thread::spawn(move || handle.abort()).join().unwrap();
        assert_eq!(running.handle.lost().await.name(), "aborted");
        assert!(matches!(read_all(&mut b).await.1, Err(Reason::Reset(_))));
        running.task.await.unwrap();
    })
    .await;
}

/// rule: abort-3, upgrade-7
#[tokio::test]
async fn abort_between_plaintext_and_tls() {
    bounded("behind start_tls", async {
        let (a, mut raw) = plain_and_raw(Policy::default()).await;
        let probe = Probe::at("data", |transport| {
            transport.start_tls(as_client()).unwrap();
            transport.write(b"secret");
            transport.abort();
        });
        let running = start(Runner::new(probe, a));
        raw.send(b"go").await.unwrap();
        assert_eq!(raw.observe().await, [Seen::Reset]);
        running.task.await.unwrap();
        assert_eq!(running.told.names(), ["made", "data", "lost(aborted)"]);
    })
    .await;
    bounded("while TLS is stopped", async {
        let (a, mut b) = plain().await;
        let probe = Probe::at("secured", |transport| transport.stop_tls().unwrap());
        let running = start(Runner::new(probe, a).begin_tls(as_client()));
        b.start_tls(as_server()).await.unwrap();
        assert!(read_all(&mut b).await.1.is_ok());
        running.handle.abort();
        assert_eq!(running.task.await.unwrap().reason.name(), "aborted");
        assert_eq!(running.told.names(), ["made", "secured", "lost(aborted)"]);
        expect(&mut &b""[..], b"").await;
    })
    .await;
}

/// rule: abort-1, close-3
#[tokio::test]
async fn abort_ends_a_close_that_waits_for_a_peer() {
    over(&Kind::ALL, hasty(60_000), |_, mut a, b| async move {
        clog(&mut a).await;
        let running = run(Probe::at("made", |transport| transport.close()), a);
        running.told.event("made").await;
        tokio::task::yield_now().await;
        running.handle.abort();
        assert_eq!(running.task.await.unwrap().reason.name(), "aborted");
        drop(b);
    })
    .await;
}
