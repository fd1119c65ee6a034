//! write-10: answers to a peer that does not read.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bowline::protocol::{Conn, Reading};
use bowline::testing::{BoxTransport, Kind};
use bowline::{DrainGroup, Policy, SocketOptions as _, Transport as _, Watermarks};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::common::{clog, expect, over, over_all, pattern, read_all, settle};
use crate::probe::{Answer, Event, KEEP, Probe, Running, pull, run};

const HIGH: usize = 40_000;
/// The largest number of bytes that one call delivers.
const LENT: usize = 33 << 10;
/// The bytes that TLS adds to the records of a full queue.
const FRAMES: usize = 2_000;

fn tight() -> Policy {
    Policy::default().watermarks(Watermarks::new(10_000, HIGH))
}

fn echo() -> Probe {
    Probe::new(|event, transport| {
        if let Event::Data(data) = event {
            transport.write(data);
        }
        Ok(Answer::default())
    })
}

/// Makes the kernel's buffers small, if the two are connected through the kernel.
fn small_buffers(transport: &BoxTransport) {
    if let Some(tcp) = transport.as_tcp() {
        tcp.set_send_buffer_size(64 << 10).unwrap();
        tcp.set_recv_buffer_size(64 << 10).unwrap();
    }
}

/// An echo whose peer sends without reading until it can send no more. Returns how much the peer sent.
async fn held(probe: Probe, a: BoxTransport, b: &mut BoxTransport) -> (Running, usize) {
    small_buffers(&a);
    small_buffers(b);
    let running = run(probe, a);
    let sent = clog(b).await;
    (running, sent)
}

/// rule: write-10
#[tokio::test]
async fn reading_stops_while_a_peer_does_not_read_its_answers() {
    for by_handle in [false, true] {
        over(&Kind::ALL, tight(), move |kind, a, mut b| async move {
            let probe = Probe::new(move |event, transport| {
                if let Event::Data(data) = event {
                    if by_handle { transport.handle().write(data) } else { transport.write(data) }
                }
                Ok(Answer::default())
            });
            let (running, sent) = held(probe, a, &mut b).await;
            let queued = running.handle.queued();
            assert!((1..=HIGH + LENT + FRAMES).contains(&queued), "{kind}: {queued} bytes of answers queued");
            // No data is lost, and the exchange continues.
            expect(&mut b, &vec![b'z'; sent]).await;
            b.write_all(&pattern(1_000)).await.unwrap();
            expect(&mut b, &pattern(1_000)).await;
            b.close().await;
            assert!(running.task.await.unwrap().is_clean());
        })
        .await;
    }
}

/// Answers each byte with 4,000 bytes, one byte at a time.
fn each_by_4000(most: Arc<AtomicUsize>) -> Probe {
    Probe::new(move |event, transport: &mut dyn Conn| {
        let Event::Data(data) = event else { return Ok(Answer::default()) };
        let mut unread = data.len();
        while unread > 0 && transport.reading() == Reading::Open {
            transport.write(&[b'a'; 4_000]);
            most.fetch_max(transport.queued(), Ordering::SeqCst);
            unread -= 1;
        }
        Ok(Answer { unread, ..KEEP })
    })
}

/// rule: write-10
#[tokio::test]
async fn delivery_stops_between_messages_where_the_protocol_looks() {
    over(&Kind::ALL, tight(), |kind, a, mut b| async move {
        small_buffers(&a);
        small_buffers(&b);
        let most = Arc::new(AtomicUsize::new(0));
        let running = run(each_by_4000(Arc::clone(&most)), a);
        b.write_all(&[b'q'; 1_000]).await.unwrap();
        let mut answers = vec![0; 4_000_000];
        b.read_exact(&mut answers).await.unwrap();
        let most = most.load(Ordering::SeqCst);
        assert!((HIGH..=HIGH + 4_000 + FRAMES).contains(&most), "{kind}: {most} bytes of answers queued");
        running.handle.close();
        b.close().await;
        running.task.await.unwrap();
    })
    .await;
}

/// rule: write-10, half-11, close-8
#[tokio::test]
async fn a_peer_that_ends_before_it_reads_gets_all_answers() {
    over(&Kind::ALL, tight(), |kind, a, mut b| async move {
        let (running, sent) = held(echo(), a, &mut b).await;
        let (mut read, mut write) = tokio::io::split(b);
        let mut answers = Vec::new();
        let (ended, read) = tokio::join!(write.shutdown(), read.read_to_end(&mut answers));
        ended.unwrap();
        assert_eq!((read.unwrap(), running.told.data().len()), (sent, sent), "{kind}");
        assert!(running.task.await.unwrap().is_clean(), "{kind}");
    })
    .await;
}

/// rule: write-10, flow-5
#[tokio::test]
async fn a_reset_is_noticed_while_answers_wait() {
    let tcp = [Kind::Tcp, Kind::Tls12, Kind::Tls13, Kind::Upgraded, Kind::TlsInTls];
    over(&tcp, tight(), |_, mut a, mut b| async move {
        settle(&mut a, &mut b).await;
        let (running, _) = held(echo(), a, &mut b).await;
        b.abort();
        assert_eq!(running.handle.lost().await.name(), "reset");
        running.task.await.unwrap();
    })
    .await;
}

/// rule: write-10, close-3, drain-2
#[tokio::test]
async fn calls_timers_drains_and_bounds_are_obeyed_while_answers_wait() {
    for how in ["abort", "fail", "close", "close_write", "drain", "timer", "idle"] {
        let policy = tight()
            .close_timeout(Duration::from_millis(50))
            .idle_timeout((how == "idle").then_some(Duration::from_millis(400)));
        over(&[Kind::Tcp, Kind::Tls13, Kind::MemoryTls], policy, move |kind, a, mut b| async move {
            let group = DrainGroup::new();
            assert!(group.join(&a.control()));
            let (running, sent) = held(echo(), a, &mut b).await;
            match how {
                "abort" => running.handle.abort(),
                "fail" => running.handle.fail("mine"),
                "close" => running.handle.close(),
                "close_write" => {
                    // Queued answers leave, later input is not answered, and the end comes last.
                    running.handle.close_write();
                    let (answers, end) = read_all(&mut b).await;
                    assert!(end.is_ok() && !answers.is_empty() && answers.len() <= sent, "{kind}: {end:?}");
                    running.handle.abort();
                }
                "drain" => {
                    group.drain(None).await;
                }
                "timer" => {
                    running.handle.set_timer(Some(Duration::ZERO));
                    running.told.event("timer").await;
                    running.handle.abort();
                }
                _ => {}
            }
            let report = running.task.await.unwrap();
            let expected: &[&str] = match how {
                "fail" => &["protocol"],
                "close" | "drain" => &["timed_out"],
                // The peer has the same limit, and may time out first.
                "idle" => &["timed_out", "reset"],
                _ => &["aborted"],
            };
            assert!(expected.contains(&report.reason.name()), "{kind}, {how}: {}", report.reason);
        })
        .await;
    }
}

/// rule: write-10
#[tokio::test]
async fn two_peers_that_both_send_first_do_not_wait_for_each_other() {
    const MUCH: usize = 500_000;
    for by in ["connection_made", "a handle", "a producer"] {
        over(&[Kind::Tcp, Kind::Tls13, Kind::MemoryTls], tight(), move |_, a, b| async move {
            small_buffers(&a);
            small_buffers(&b);
            let sends_first = || {
                let producer = Arc::new(Mutex::new(None));
                let (place, mut received) = (Arc::clone(&producer), 0);
                let probe = Probe::on(move |event, transport| match event {
                    Event::Made if by == "connection_made" => transport.write(&pattern(MUCH)),
                    Event::Made => place.lock().unwrap().take().into_iter().for_each(|producer| {
                        transport.register_producer(producer).unwrap();
                    }),
                    Event::Data(data) => {
                        // Each of the first bytes has an answer, which comes after all bytes of the sender itself.
                        received += data.len();
                        if received <= HIGH / 2 {
                            transport.write(data);
                        }
                    }
                    _ => {}
                });
                if by == "a producer" {
                    *producer.lock().unwrap() = Some(pull(probe.told(), pattern(MUCH), MUCH));
                }
                probe.closing()
            };
            let (a, b) = (run(sends_first(), a), run(sends_first(), b));
            if by == "a handle" {
                a.handle.write(pattern(MUCH));
                b.handle.write(pattern(MUCH));
            }
            tokio::join!(a.told.len(MUCH), b.told.len(MUCH));
            a.handle.close();
            assert!(b.task.await.unwrap().is_clean() && a.task.await.unwrap().is_clean());
        })
        .await;
    }
}

/// rule: write-10
#[tokio::test]
async fn a_protocol_may_choose_to_read_on_while_its_answers_are_unsent() {
    over_all(|_, a, mut b| async move {
        small_buffers(&a);
        small_buffers(&b);
        let running = run(echo().reading_on(), a);
        b.write_all(&pattern(3_000_000)).await.unwrap();
        running.told.len(3_000_000).await;
        assert!(read_exactly(&mut b, 3_000_000).await == pattern(3_000_000));
        b.close().await;
        assert!(running.task.await.unwrap().is_clean());
    })
    .await;
}

async fn read_exactly(transport: &mut BoxTransport, len: usize) -> Vec<u8> {
    let mut data = vec![0; len];
    transport.read_exact(&mut data).await.unwrap();
    data
}

/// Bytes that a protocol leaves while reading is stopped are not an incomplete message.
///
/// rule: write-10
#[tokio::test]
async fn bytes_left_while_reading_is_paused_are_not_too_much_unread() {
    over(&[Kind::Tcp, Kind::Tls13], tight(), |_, a, mut b| async move {
        let probe = each_by_4000(Arc::default()).leaving_at_most(10);
        let running = run(probe, a);
        b.write_all(&[b'q'; 1_000]).await.unwrap();
        read_exactly(&mut b, 4_000_000).await;
        b.close().await;
        assert!(running.handle.lost().await.is_clean());
    })
    .await;
}
