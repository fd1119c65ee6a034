//! write: order and acceptance.

use bowline::protocol::{Handle, Runner};
use bowline::testing::{BoxTransport, Kind, memory_pair_with, shared_pki};
use bowline::{Policy, TlsConnection, Transport as _, UpgradableConnection, Watermarks};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::common::{bounded, clog, expect, over, over_all, pattern, read_all, settle};
use crate::probe::{Event, Probe, run, start};
use crate::setup::{as_client, as_server, hasty, plain, recorded, records};

/// rule: write-1, write-2
#[tokio::test]
async fn writes_and_sequences_arrive_in_the_order_of_the_calls() {
    over_all(|_, a, mut b| async move {
        let data = pattern(600_000);
        let sent = data.clone();
        let running = run(
            Probe::at("made", move |transport| {
                for (n, chunk) in sent.chunks(7_001).enumerate() {
                    let (x, y) = chunk.split_at(chunk.len() / 3);
                    match n % 3 {
                        0 => transport.write(chunk),
                        1 => transport.write_sequence(&mut [x, b"", y].into_iter()),
                        _ => chunk.chunks(999).for_each(|part| transport.write(part)),
                    }
                }
                assert_eq!(transport.queued(), 600_000);
                transport.close();
            }),
            a,
        );
        let (received, end) = read_all(&mut b).await;
        assert!(received == data && end.is_ok());
        b.close().await;
        assert!(running.task.await.unwrap().is_clean());
        assert_eq!(running.handle.sent(), 600_000);
    })
    .await;
}

/// rule: write-1, write-4
#[tokio::test]
async fn calls_by_the_handle_and_the_transport_in_turn_keep_their_order() {
    over_all(|_, a, mut b| async move {
        let running = run(
            Probe::at("made", |transport| {
                let handle = transport.handle();
                handle.write("1");
                transport.write(b"2");
                handle.write_sequence(["3", "4"]);
                transport.write_sequence(&mut [&b"5"[..]].into_iter());
                handle.write("6");
                transport.close();
                handle.write("dropped");
                transport.write(b"dropped");
            }),
            a,
        );
        let (received, end) = read_all(&mut b).await;
        assert_eq!((&received[..], end.is_ok()), (&b"123456"[..], true));
        b.close().await;
        running.task.await.unwrap();
        assert_eq!(running.handle.dropped(), 14);
    })
    .await;
}

/// Calls of other tasks during a sequence take effect after the sequence.
///
/// rule: write-2
#[tokio::test]
async fn nothing_comes_between_the_parts_of_a_sequence() {
    over_all(|_, a, mut b| async move {
        let probe = Probe::at("made", |transport| {
            let handle = transport.handle();
            transport.write_sequence(&mut [&b"one "[..], b"two ", b"three "].into_iter().inspect(|part| {
                handle.write("between ");
                if *part == b"two " {
                    handle.close();
                }
            }));
        });
        let running = run(probe, a);
        let (received, end) = read_all(&mut b).await;
        assert_eq!((&received[..], end.is_ok()), (&b"one two three between between "[..], true));
        b.close().await;
        running.task.await.unwrap();
    })
    .await;
}

/// rule: write-2, write-4
#[tokio::test]
async fn bytes_written_after_an_end_are_dropped_and_counted() {
    over_all(|_, a, mut b| async move {
        let probe = Probe::at("made", |transport| {
            transport.write(b"kept");
            transport.close_write();
            transport.write(b"dropped");
            transport.write_sequence(&mut [&b"all"[..], b"of it"].into_iter());
            assert_eq!((transport.dropped(), transport.queued()), (15, 4));
            transport.close();
            transport.write(b"!");
            assert_eq!(transport.dropped(), 16);
        });
        let running = run(probe, a);
        let (received, end) = read_all(&mut b).await;
        assert_eq!((&received[..], end.is_ok()), (&b"kept"[..], true));
        b.close().await;
        assert!(running.task.await.unwrap().is_clean());
        assert_eq!(running.handle.dropped(), 16);
    })
    .await;
    over_all(|_, a, mut b| async move {
        let running = run(
            Probe::at("made", |transport| {
                transport.abort();
                transport.write(b"dropped");
                transport.write_sequence(&mut [&b"too"[..]].into_iter());
            }),
            a,
        );
        assert!(read_all(&mut b).await.0.is_empty());
        running.task.await.unwrap();
        assert_eq!(running.handle.dropped(), 10);
    })
    .await;
}

/// rule: write-3
#[tokio::test]
async fn bytes_written_before_the_handshake_is_done_leave_first_and_encrypted() {
    let probe = || {
        Probe::on(|event, transport| match event {
            Event::Made => {
                transport.write(b"one ");
                transport.write(b"two ");
            }
            Event::Secured => {
                transport.write(b"three");
                transport.close();
            }
            _ => {}
        })
    };
    bounded("begin_tls", async move {
        for is_client in [true, false] {
            let (a, mut b) = plain().await;
            let (ours, theirs) = if is_client { (as_client(), as_server()) } else { (as_server(), as_client()) };
            let running = start(Runner::new(probe(), a).begin_tls(ours));
            b.start_tls(theirs).await.unwrap();
            assert_eq!(read_all(&mut b).await.0, b"one two three");
            b.close().await;
            assert!(running.task.await.unwrap().is_clean());
            assert_eq!(running.told.count("secured"), 1);
        }
    })
    .await;
    bounded("a TLS connection", async move {
        let (a, b) = bowline::testing::tcp_pair().await.unwrap();
        let a = TlsConnection::client(a, &shared_pki().client_tls(), "localhost").unwrap();
        let running = run(probe(), a);
        let mut b = TlsConnection::accept(b, &shared_pki().server_tls()).await.unwrap();
        assert_eq!(read_all(&mut b).await.0, b"one two three");
        b.close().await;
        assert!(running.task.await.unwrap().is_clean());
    })
    .await;
}

/// rule: write-6
#[tokio::test]
async fn bytes_written_by_a_handle_leave_while_the_protocol_waits_or_pauses() {
    over_all(|_, a, mut b| async move {
        let running = run(Probe::at("data", |transport| transport.pause_reading()), a);
        running.handle.write("waiting");
        expect(&mut b, b"waiting").await;
        b.write_all(b"!").await.unwrap();
        running.told.event("data").await;
        running.handle.write("paused");
        expect(&mut b, b"paused").await;
        let other = running.handle.clone();
        std::thread::spawn(move || other.write("from a thread")).join().unwrap();
        expect(&mut b, b"from a thread").await;
        running.handle.close();
        b.close().await;
        running.task.await.unwrap();
    })
    .await;
}

/// rule: write-7
#[tokio::test]
async fn a_thousand_tiny_writes_of_one_turn_are_at_most_two_records() {
    bounded("memory", async {
        let (mut client, server, wire) = recorded().await;
        let before = wire.lock().unwrap().len();
        let probe = Probe::at("data", |transport| (0..1_000).for_each(|_| transport.write(b"x")));
        let running = run(probe, server);
        client.write_all(b"?").await.unwrap();
        expect(&mut client, &[b'x'; 1_000]).await;
        let records = records(&wire.lock().unwrap()[before..]);
        assert!(records.len() <= 2, "{records:?}");
        running.handle.abort();
        running.task.await.unwrap();
    })
    .await;
}

/// rule: write-8
#[tokio::test]
async fn queued_counts_the_queue_and_writable_is_called_once_at_the_low_mark() {
    over_all(|_, mut a, mut b| async move {
        let taken = clog(&mut a).await;
        let probe = Probe::at("made", |transport| {
            let before = transport.queued();
            transport.write(&pattern(200_000));
            assert_eq!(transport.queued(), before + 200_000);
        });
        let running = run(probe, a);
        running.told.event("made").await;
        tokio::task::yield_now().await;
        assert!(running.handle.queued() >= 100_000 && !running.told.has("writable"));
        let mut clogged = vec![0; taken];
        b.read_exact(&mut clogged).await.unwrap();
        expect(&mut b, &pattern(200_000)).await;
        running.told.event("writable").await;
        settle_with(&running.handle, &mut b).await;
        assert_eq!(running.told.count("writable"), 1);
        while running.handle.queued() > 0 {
            tokio::task::yield_now().await;
        }
        running.handle.close();
        b.close().await;
        running.task.await.unwrap();
    })
    .await;
}

async fn settle_with(handle: &Handle, b: &mut BoxTransport) {
    handle.write("settled");
    expect(b, b"settled").await;
}

/// Bytes that pass the mark and leave in the same turn have still passed the mark: a task that checked the queue waits.
///
/// rule: write-8
#[tokio::test]
async fn writable_is_called_even_if_the_kernel_accepts_all_bytes_at_once() {
    over_all(|_, a, mut b| async move {
        let probe = Probe::at("made", |transport| {
            transport.write(&pattern(65_536));
            assert!(transport.queued() >= transport.control().policy().get_watermarks().high());
        });
        let running = run(probe, a);
        expect(&mut b, &pattern(65_536)).await;
        running.told.event("writable").await;
        for _ in 0..20 {
            let data = pattern(70_000);
            running.handle.write(&data);
            let (room, ()) = tokio::join!(running.handle.writable(), expect(&mut b, &data));
            room.unwrap();
        }
        running.handle.close();
        b.close().await;
        running.task.await.unwrap();
        assert!(running.handle.writable().await.is_err());
    })
    .await;
}

/// rule: write-8
#[tokio::test]
async fn a_task_that_waits_for_space_keeps_the_queue_at_the_mark() {
    let policy = Policy::default().watermarks(Watermarks::new(10_000, 40_000));
    over(&Kind::ALL, policy, |_, a, mut b| async move {
        let running = run(Probe::quiet(), a);
        let handle = running.handle.clone();
        let writing = tokio::spawn(async move {
            let mut most = 0;
            for part in pattern(2_000_000).chunks(5_000) {
                handle.writable().await.unwrap();
                handle.write(part);
                most = most.max(handle.queued());
            }
            handle.close();
            most
        });
        let (received, end) = read_all(&mut b).await;
        assert!(received == pattern(2_000_000) && end.is_ok());
        b.close().await;
        assert!(running.task.await.unwrap().is_clean());
        let most = writing.await.unwrap();
        assert!(most <= 40_000 + 5_000 + 17_000, "{most} bytes were queued");
    })
    .await;
}

/// rule: write-8, write-3
#[tokio::test]
async fn the_marks_hold_before_the_handshake_too() {
    bounded("memory", async {
        let (a, b) = memory_pair_with(Policy::default());
        let probe = Probe::at("made", |transport| {
            transport.write(&pattern(100_000));
            assert_eq!(transport.queued(), 100_000);
        });
        let running = start(Runner::new(probe, UpgradableConnection::new(a)).begin_tls(as_client()));
        let handle = running.handle.clone();
        let waiting = tokio::spawn(async move { handle.writable().await });
        while running.handle.queued() < 100_000 {
            tokio::task::yield_now().await;
        }
        assert!(!waiting.is_finished());
        let mut b = UpgradableConnection::accept(b, &shared_pki().server_tls()).await.unwrap();
        expect(&mut b, &pattern(100_000)).await;
        waiting.await.unwrap().unwrap();
        running.told.event("writable").await;
        assert_eq!(running.told.names(), ["made", "secured", "writable"]);
        running.handle.abort();
        running.task.await.unwrap();
    })
    .await;
}

/// rule: write-9
#[tokio::test]
async fn an_empty_write_has_no_effect() {
    over_all(|_, a, mut b| async move {
        let running = run(
            Probe::at("made", |transport| {
                transport.write(b"");
                transport.write_sequence(&mut [&b""[..], b""].into_iter());
                transport.write_sequence(&mut std::iter::empty());
                transport.handle().write("");
                assert_eq!(transport.queued(), 0);
            }),
            a,
        );
        running.told.event("made").await;
        let nothing = tokio::time::timeout(std::time::Duration::from_millis(20), b.read(&mut [0; 1])).await;
        assert!(nothing.is_err());
        running.handle.close_write();
        assert!(read_all(&mut b).await.1.is_ok());
        b.close().await;
        running.task.await.unwrap();
        assert_eq!((running.handle.sent(), running.handle.dropped()), (0, 0));
    })
    .await;
}

/// rule: write-5, life-5
#[tokio::test]
async fn a_write_after_the_end_is_dropped_and_counted() {
    over_all(|_, mut a, mut b| async move {
        settle(&mut a, &mut b).await;
        let running = run(Probe::half_closeable(), a);
        b.abort();
        running.task.await.unwrap();
        running.handle.write("late");
        running.handle.write_sequence(["later", ""]);
        assert_eq!((running.handle.dropped(), running.handle.queued()), (9, 0));
    })
    .await;
}

/// rule: write-4, close-3
#[tokio::test]
async fn a_report_counts_the_bytes_that_a_close_could_not_send_in_time() {
    over(&Kind::ALL, hasty(200), |_, mut a, b| async move {
        clog(&mut a).await;
        let probe = Probe::at("made", |transport| {
            transport.write(&[b'z'; 3_000_000]);
            transport.close();
        });
        let running = run(probe, a);
        let report = running.task.await.unwrap();
        assert!(report.timed_out() && report.unwritten > 0, "{report:?}");
        assert_eq!(running.handle.sent() + report.unwritten as u64, 3_000_000);
        assert_eq!(running.told.reason().unwrap().name(), "timed_out");
        drop(b);
    })
    .await;
}
