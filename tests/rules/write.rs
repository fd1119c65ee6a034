use std::io::{ErrorKind, IoSlice};
use std::time::Duration;

use bowline::testing::{Kind, memory_pair, pair, pair_with, shared_pki, tcp_pair};
use bowline::{Error, Policy, Split, TlsConnection, TlsTransport, Transport, Watermarks};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::common::{
    KNOWS_DELIVERY, bounded, clog, clog_with, ended_together, expect, over, over_all, pattern, read_all,
};

/// rule: write-1
#[tokio::test]
async fn bytes_arrive_in_the_order_of_the_calls() {
    over_all(|_, mut a, mut b| async move {
        let data = pattern(3_000_000);
        let sent = data.clone();
        let writing = tokio::spawn(async move {
            // Plain writes and sequences are mixed, in sizes around the limits.
            let mut rest = &sent[..];
            for size in [1, 5, 16_383, 16_384, 16_385, 100, 65_536, 200_000, 7].iter().cycle() {
                let (now, later) = rest.split_at((*size).min(rest.len()));
                let (x, y) = now.split_at(now.len() / 3);
                match size % 2 {
                    0 => a.write_all(now).await.unwrap(),
                    _ => a.write_sequence(&[IoSlice::new(x), IoSlice::new(&[]), IoSlice::new(y)]).await.unwrap(),
                }
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            a.close().await
        });
        let (received, end) = read_all(&mut b).await;
        assert!(received == data && end.is_ok());
        b.close().await;
        assert!(writing.await.unwrap().is_clean());
    })
    .await;
}

/// rule: write-2
#[tokio::test]
async fn a_write_sequence_gets_out_by_itself_and_whole() {
    over_all(|_, mut a, mut b| async move {
        let parts: Vec<Vec<u8>> = (0..300).map(|n| vec![n as u8; n]).collect();
        let slices: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let expected = parts.concat();
        let (sent, ()) = tokio::join!(a.write_sequence(&slices), expect(&mut b, &expected));
        sent.unwrap();
    })
    .await;
}

/// rule: write-2, life-6
#[tokio::test]
async fn a_write_sequence_with_more_parts_than_one_call_accepts_is_sent() {
    for parts in [1000, 1024, 1025, 3000] {
        over_all(move |_, mut a, mut b| async move {
            let data = pattern(parts);
            // The system accepts at most 1024 parts in one call, including empty ones.
            let slices: Vec<_> = std::iter::repeat_n(&b""[..], parts).chain(data.chunks(1)).map(IoSlice::new).collect();
            let (sent, ()) = tokio::join!(a.write_sequence(&slices), expect(&mut b, &data));
            sent.unwrap();
        })
        .await;
    }
}

/// rule: write-2, write-4
#[tokio::test]
async fn a_write_sequence_after_close_write_writes_none_of_its_parts() {
    over_all(|_, mut a, mut b| async move {
        a.close_write().await.unwrap();
        let parts = [IoSlice::new(b"none"), IoSlice::new(b"of it")];
        assert_eq!(a.write_sequence(&parts).await.unwrap_err().kind(), ErrorKind::BrokenPipe);
        assert_eq!(read_all(&mut b).await.0, b"");
    })
    .await;
}

/// A task continues to write after its budget is used up. Its later writes are gathered, and leave although the task
/// never polls the connection again.
///
/// rule: write-1, write-6, write-7
#[tokio::test]
async fn bytes_that_a_busy_task_gathers_leave_when_it_waits_elsewhere() {
    over_all(|kind, mut a, mut b| async move {
        let data = pattern(60_000);
        let sent = data.clone();
        let writing = tokio::spawn(async move {
            for part in sent.chunks(100) {
                a.write_all(part).await.unwrap();
            }
            std::future::pending::<()>().await;
            drop(a);
        });
        let mut received = vec![0; data.len()];
        b.read_exact(&mut received).await.unwrap_or_else(|error| panic!("{kind}: {error}"));
        assert!(received == data);
        writing.abort();
    })
    .await;
}

/// rule: write-3, write-8, secure-1
#[tokio::test]
async fn writes_before_the_handshake_are_kept_in_order_and_bounded() {
    bounded("memory", async {
        let (client, server) = memory_pair();
        let (client_tls, server_tls) = (shared_pki().client_tls(), shared_pki().server_tls());
        let mut client = TlsConnection::client(client, &client_tls, "localhost").unwrap();
        let data = pattern(1_000_000);
        // The server does not run yet: the accepted bytes stay below the mark, and none of them is sent.
        let mut accepted = 0;
        while let Ok(result) = tokio::time::timeout(Duration::from_millis(50), client.write(&data[accepted..])).await {
            accepted += result.unwrap();
        }
        assert!(accepted > 0 && client.queued() <= 64 << 10, "{accepted} accepted, {} queued", client.queued());
        let mut server = TlsConnection::server(server, &server_tls).unwrap();
        let sending = async {
            client.write_all(&data[accepted..]).await.unwrap();
            client.close().await
        };
        let driving = async {
            let (received, end) = read_all(&mut server).await;
            assert!(received == data && end.is_ok());
            server.close().await
        };
        // A task has to read the server's flight. The client does so while it closes; a task that only writes would
        // wait.
        let (ours, theirs) = tokio::join!(sending, driving);
        assert!(ended_together(&ours, &theirs));
    })
    .await;
}

/// rule: write-4
#[tokio::test]
async fn nothing_written_after_close_write_reaches_the_wire() {
    over_all(|_, mut a, mut b| async move {
        a.write_all(b"before").await.unwrap();
        a.close_write().await.unwrap();
        let error = a.write(b"after").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
        assert!(matches!(Error::from(error), Error::SendClosed));
        let (received, end) = read_all(&mut b).await;
        assert_eq!((&received[..], end.is_ok()), (&b"before"[..], true));
    })
    .await;
}

/// rule: write-4
#[tokio::test]
async fn a_write_after_a_close_write_that_was_only_begun_is_refused() {
    over_all(|_, mut a, mut b| async move {
        let taken = clog(&mut a).await;
        // The bytes before the end have not left, so the end cannot be sent yet.
        assert!(tokio::time::timeout(Duration::from_millis(20), a.close_write()).await.is_err() || taken > 0);
        assert_eq!(a.write(b"after").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
        let (received, end) = read_all(&mut b).await;
        assert!(received.len() == taken && end.is_ok(), "{} of {taken}: {end:?}", received.len());
    })
    .await;
}

/// rule: write-5, life-5, tcp-3
#[tokio::test]
async fn every_operation_after_the_end_is_an_error_and_no_panic() {
    over_all(|_, mut a, mut b| async move {
        let (ours, _) = tokio::join!(a.close(), b.close());
        assert!(ours.is_clean(), "{ours:?}");
        assert!(a.write(b"x").await.is_err());
        assert!(a.write_vectored(&[IoSlice::new(b"x")]).await.is_err());
        assert_eq!(a.read(&mut [0; 8]).await.unwrap(), 0);
        assert!(a.flush().await.is_err() || a.queued() == 0);
        let _ = a.close_write().await;
        drop(a.cork());
        a.abort();
        a.close().await;
        let status = a.status();
        assert!(status.reason.unwrap().is_clean());
    })
    .await;
}

/// rule: write-6
#[tokio::test]
async fn accepted_bytes_leave_although_the_application_waits_for_something_else() {
    over(&Kind::ALL, Policy::default(), |kind, mut a, mut b| async move {
        let taken = clog(&mut a).await;
        if kind.is_tls() {
            assert!(a.queued() > 0, "nothing was left to be sent");
        }
        // No task uses `a` from here on, and its queued bytes leave nevertheless.
        let mut received = 0;
        let mut buf = vec![0; 64 << 10];
        while received < taken {
            received += b.read(&mut buf).await.unwrap();
        }
        assert_eq!(a.queued(), 0);
    })
    .await;
}

/// rule: write-6
#[tokio::test]
async fn accepted_bytes_leave_although_the_application_only_reads() {
    over_all(|_, mut a, mut b| async move {
        let taken = clog(&mut a).await;
        let reading = tokio::spawn(async move { (a.read(&mut [0; 1]).await.unwrap(), a) });
        let mut received = vec![0; taken];
        b.read_exact(&mut received).await.unwrap();
        b.write_all(b"!").await.unwrap();
        assert_eq!(reading.await.unwrap().0, 1);
    })
    .await;
}

/// rule: write-6
#[tokio::test]
async fn an_explicit_flush_waits_until_the_kernel_has_all() {
    over_all(|kind, mut a, mut b| async move {
        let taken = clog(&mut a).await;
        if kind.is_tls() {
            assert!(tokio::time::timeout(Duration::from_millis(50), a.flush()).await.is_err());
        }
        let reading = tokio::spawn(async move {
            let mut received = vec![0; taken];
            b.read_exact(&mut received).await.unwrap();
            b
        });
        a.flush().await.unwrap();
        assert_eq!(a.queued(), 0);
        reading.await.unwrap();
    })
    .await;
}

/// rule: write-7
#[tokio::test]
async fn writes_under_a_cork_are_merged_and_leave_when_it_is_dropped() {
    let (client, server) = pair(Kind::Tls13).await.unwrap();
    let (mut a, mut b) = (client, server);
    crate::common::settle(&mut a, &mut b).await;
    let mut corked = a.cork();
    for _ in 0..1_000 {
        corked.write_all(b"x").await.unwrap();
    }
    let nothing = tokio::time::timeout(Duration::from_millis(50), b.read(&mut [0; 1])).await;
    assert!(nothing.is_err(), "something left under the cork");
    drop(corked);
    // The bytes share one record, so one read returns all of them.
    let mut received = [0; 4_096];
    assert_eq!(b.read(&mut received).await.unwrap(), 1_000);
}

/// rule: write-7
#[tokio::test]
async fn a_cork_inside_a_cork_releases_nothing() {
    let (mut a, mut b) = pair(Kind::Tls13).await.unwrap();
    crate::common::settle(&mut a, &mut b).await;
    let mut outer = a.cork();
    outer.cork().write_all(b"one ").await.unwrap();
    outer.write_all(b"two").await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(50), b.read(&mut [0; 1])).await.is_err());
    drop(outer);
    let mut received = [0; 64];
    assert_eq!(b.read(&mut received).await.unwrap(), 7);
}

/// rule: write-7
#[tokio::test]
async fn a_dropped_cork_sends_over_every_transport() {
    over_all(|_, mut a, mut b| async move {
        {
            let mut corked = a.cork();
            corked.write_all(b"one ").await.unwrap();
            corked.write_all(b"two").await.unwrap();
        }
        expect(&mut b, b"one two").await;
        let mut corked = a.cork();
        corked.write_all(b"flushed").await.unwrap();
        corked.flush().await.unwrap();
        expect(&mut b, b"flushed").await;
    })
    .await;
}

/// rule: write-7
#[tokio::test]
async fn small_writes_to_a_full_socket_are_merged() {
    let (mut a, mut b) = pair(Kind::MemoryTls).await.unwrap();
    let taken = clog(&mut a).await;
    // The pipe is full. These reads free a part of the queue, but the pipe stays full, and small writes fill the queue
    // again.
    let mut received = vec![0; taken];
    b.read_exact(&mut received[..32 << 10]).await.unwrap();
    let mut small = 0;
    while let Ok(result) = tokio::time::timeout(Duration::from_millis(50), a.write(b"0123456789")).await {
        small += result.unwrap();
    }
    assert!(small > 1_000, "{small}");
    b.read_exact(&mut received[32 << 10..]).await.unwrap();
    // Writes are merged: there are far fewer reads than writes, and each read returns at least a record.
    let (mut reads, mut got, mut buf) = (0, 0, vec![0; 16 << 10]);
    while got < small {
        got += b.read(&mut buf).await.unwrap();
        reads += 1;
    }
    assert!(reads <= small / 10 / 20, "{reads} records for {} writes", small / 10);
}

/// rule: write-8
#[tokio::test]
async fn unsent_bytes_are_bounded_by_the_high_mark_and_can_be_counted() {
    let policy = Policy::default().watermarks(Watermarks::new(8 << 10, 32 << 10));
    let tls = [Kind::Tls12, Kind::Tls13, Kind::Upgraded, Kind::TlsInTls, Kind::MemoryTls];
    over(&tls, policy, |kind, mut a, mut b| async move {
        let layers = if kind == Kind::TlsInTls { 2 } else { 1 };
        let taken = clog(&mut a).await;
        let bound = layers * ((32 << 10) + 1024);
        assert!(a.queued() > 0 && a.queued() <= bound, "{} queued", a.queued());
        // A waiting writer continues once there is space.
        let writing = tokio::spawn(async move { (a.write(b"more").await.unwrap(), a) });
        let mut received = vec![0; taken + 4];
        b.read_exact(&mut received).await.unwrap();
        assert_eq!(writing.await.unwrap().0, 4);
    })
    .await;
}

/// A large write is accepted above the default high mark only if the socket is known to have space for it. Marks that
/// the application has set are never exceeded, even if they equal the defaults.
///
/// rule: write-8
#[tokio::test]
async fn a_large_write_goes_above_the_default_mark_where_the_socket_has_space() {
    const HIGH: usize = 64 << 10;
    let tls = [Kind::Tls12, Kind::Tls13, Kind::Upgraded, Kind::TlsInTls, Kind::MemoryTls];
    for is_own in [false, true] {
        let (defaults, marks) = (Policy::default(), Watermarks::default());
        let policy = if is_own { defaults.watermarks(Watermarks::new(marks.low(), HIGH)) } else { defaults };
        over(&tls, policy, move |kind, mut a, mut b| async move {
            let data = pattern(300_000);
            let accepted = a.write(&data).await.unwrap();
            let knows_the_socket = KNOWS_DELIVERY && !matches!(kind, Kind::TlsInTls | Kind::MemoryTls);
            assert_eq!(accepted, if knows_the_socket && !is_own { 2 * HIGH } else { HIGH }, "{kind:?}");
            expect(&mut b, &data[..accepted]).await;
        })
        .await;
    }
}

/// rule: write-8
#[tokio::test]
async fn a_stalled_reader_leaves_at_most_the_high_mark_queued() {
    let high = Watermarks::default().high();
    let tls = [Kind::Tls12, Kind::Tls13, Kind::Upgraded, Kind::TlsInTls, Kind::MemoryTls];
    over(&tls, Policy::default(), move |kind, mut a, mut b| async move {
        let layers = if kind == Kind::TlsInTls { 2 } else { 1 };
        for size in [128 << 10, 300_000, 1 << 20] {
            let taken = clog_with(&mut a, &vec![b'z'; size]).await;
            assert!(a.queued() <= layers * (high + 1024), "{kind:?}: {} queued by writes of {size}", a.queued());
            let mut received = vec![0; taken];
            b.read_exact(&mut received).await.unwrap();
            a.flush().await.unwrap();
        }
    })
    .await;
}

/// rule: write-9
#[tokio::test]
async fn an_empty_write_has_no_effect() {
    over_all(|_, mut a, mut b| async move {
        assert_eq!(a.write(b"").await.unwrap(), 0);
        assert_eq!(a.write_vectored(&[IoSlice::new(b""), IoSlice::new(b"")]).await.unwrap(), 0);
        a.write_sequence(&[]).await.unwrap();
        a.flush().await.unwrap();
        let nothing = tokio::time::timeout(Duration::from_millis(20), b.read(&mut [0; 1])).await;
        assert!(nothing.is_err());
        a.write_all(b"x").await.unwrap();
        expect(&mut b, b"x").await;
    })
    .await;
}

/// rule: write-1
#[tokio::test]
async fn split_halves_transfer_bytes_in_both_directions_at_once() {
    let (client, server) = tcp_pair().await.unwrap();
    let (client, server) = bowline::testing::tls_over((client, server), bowline::TlsVersion::V1_3).await.unwrap();
    assert!(client.is_secure());
    bounded("split", async move {
        let data = pattern(2_000_000);
        let mut tasks = Vec::new();
        for connection in [client, server] {
            let (mut read, mut write) = connection.into_split();
            let (sent, expected) = (data.clone(), data.clone());
            tasks.push(tokio::spawn(async move {
                write.write_all(&sent).await.unwrap();
                write.shutdown().await.unwrap();
                drop(write);
            }));
            tasks.push(tokio::spawn(async move {
                let (received, end) = read_all(&mut read).await;
                assert!(received == expected && end.is_ok());
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
    })
    .await;
}

/// rule: write-1
#[tokio::test]
async fn every_size_of_write_goes_through_a_tight_mark() {
    let policy = Policy::default().watermarks(Watermarks::new(0, 1));
    let (mut a, mut b) = pair_with(Kind::MemoryTls, policy).await.unwrap();
    let writing = tokio::spawn(async move {
        a.write_all(&pattern(2_000)).await.unwrap();
        a.flush().await.unwrap();
        a
    });
    expect(&mut b, &pattern(2_000)).await;
    writing.await.unwrap();
}

/// rule: write-7, write-8
#[tokio::test]
async fn a_cork_and_a_mark_below_a_record_do_not_wait_for_each_other() {
    let policy = Policy::default().watermarks(Watermarks::new(1 << 10, 4 << 10));
    over(&Kind::ALL, policy, |_, mut a, mut b| async move {
        let writing = tokio::spawn(async move {
            a.cork().write_all(&pattern(100_000)).await.unwrap();
            a
        });
        expect(&mut b, &pattern(100_000)).await;
        writing.await.unwrap();
    })
    .await;
}

/// rule: write-6
#[tokio::test]
async fn a_task_that_waits_on_a_full_transport_is_not_woken_in_vain() {
    over(&Kind::ALL, Policy::default(), |kind, mut a, b| async move {
        let _ = clog(&mut a).await;
        let mut polls = 0;
        let waiting = std::future::poll_fn(|cx| {
            polls += 1;
            tokio::io::AsyncWrite::poll_shutdown(std::pin::Pin::new(&mut a), cx)
        });
        let _ = tokio::time::timeout(Duration::from_millis(100), waiting).await;
        assert!(polls < 10, "{kind}: polled {polls} times");
        drop(b);
    })
    .await;
}

/// rule: write-6, secure-1
#[tokio::test]
async fn tls_flushes_a_layer_that_keeps_a_queue_of_its_own() {
    bounded("a buffered stream", async {
        let (a, b) = tokio::io::duplex(64 << 10);
        let [a, b] = [a, b].map(|io| bowline::Stream::new(tokio::io::BufStream::new(io)).delivers_at_once());
        let (mut a, mut b) = bowline::testing::tls_over((a, b), bowline::TlsVersion::V1_3).await.unwrap();
        a.write_all(b"out, and not kept").await.unwrap();
        expect(&mut b, b"out, and not kept").await;
        let (ours, theirs) = tokio::join!(a.close(), b.close());
        assert!(ended_together(&ours, &theirs));
    })
    .await;
}

/// rule: write-6
#[tokio::test]
async fn a_flush_of_tls_in_tls_waits_for_the_session_beneath() {
    bounded("one pair", async {
        let (mut a, mut b) = pair(Kind::TlsInTls).await.unwrap();
        // The task writes a little at a time until bytes are queued: then the inner session has none, and the one
        // beneath it has some.
        while a.queued() == 0 {
            a.write_all(&[3; 1_000]).await.unwrap();
            // A task without budget would gather small writes. With a fresh budget, bytes are queued only because the
            // socket is full.
            tokio::task::yield_now().await;
        }
        assert!(tokio::time::timeout(Duration::from_millis(50), a.flush()).await.is_err());
        let reading = tokio::spawn(async move { b.read_to_end(&mut Vec::new()).await });
        a.flush().await.unwrap();
        assert_eq!(a.queued(), 0);
        a.close_write().await.unwrap();
        reading.await.unwrap().unwrap();
    })
    .await;
}

/// rule: write-8, life-6
#[tokio::test]
async fn watermarks_that_make_no_sense_neither_spin_nor_cut_small() {
    for (low, high) in [(16 << 10, 8 << 10), (0, 0), (usize::MAX, 0), (usize::MAX, usize::MAX), (0, usize::MAX), (7, 7)]
    {
        let policy = Policy::default().watermarks(Watermarks::new(low, high));
        over(&Kind::ALL, policy, move |_, mut a, mut b| async move {
            let data = pattern(300_000);
            let polls = std::sync::atomic::AtomicUsize::new(0);
            let write = async {
                let mut write = std::pin::pin!(a.write_all(&data));
                std::future::poll_fn(|cx| {
                    polls.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    write.as_mut().poll(cx)
                })
                .await
                .unwrap();
                a.flush().await.unwrap();
                {
                    let mut corked = a.cork();
                    corked.write_all(b"corked").await.unwrap();
                }
                a.close_write().await.unwrap();
            };
            let ((), (got, end)) = tokio::join!(write, read_all(&mut b));
            end.unwrap();
            assert!(got.strip_suffix(b"corked").is_some_and(|got| got == data));
            // A poll that finds no capacity must wait, so there are few polls.
            let polls = polls.into_inner();
            assert!(polls < 3000, "{polls} polls");
            if high < usize::MAX {
                let sent = b.control().traffic().received;
                assert!(sent < 330_000, "{sent} bytes on the wire for {} of data", data.len());
            }
        })
        .await;
    }
}
