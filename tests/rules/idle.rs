use std::future::Future;
use std::io::ErrorKind;
use std::time::Duration;

use bowline::testing::{BoxTransport, Kind, pair_with};
use bowline::{Phase, Policy, Reason, Transport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};

use crate::common::{BOUND, bounded, clog, ended_together, read_all, settle};

const SECOND: Duration = Duration::from_secs(1);

fn policy(idle: u64, half_open: Option<u64>) -> Policy {
    Policy::default()
        .idle_timeout(SECOND * u32::try_from(idle).unwrap())
        .half_open_timeout(half_open.map(Duration::from_secs))
}

/// Runs a check over every transport, in both roles, with a clock that stands still while bytes move.
async fn over_all_on_a_paused_clock<F, Fut>(policy: Policy, clogged: bool, check: F)
where
    F: Fn(Kind, BoxTransport, BoxTransport) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    for kind in Kind::ALL {
        for swapped in [false, true] {
            let (client, server) = pair_with(kind, policy.clone()).await.unwrap();
            let (mut a, mut b) = if swapped { (server, client) } else { (client, server) };
            settle(&mut a, &mut b).await;
            if clogged {
                clog(&mut a).await;
            }
            tokio::time::pause();
            bounded(&format!("{kind}, swapped: {swapped}"), check(kind, a, b)).await;
            tokio::time::resume();
        }
    }
}

fn assert_idle(error: std::io::Error, kind: Kind) {
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{kind}");
    let reason = Reason::from_io(error, Phase::Open);
    assert!(matches!(reason, Reason::TimedOut(Phase::Idle)), "{kind}: {reason:?}");
}

/// Sends a byte to the task that reads after its flush, which is still waiting.
#[cfg(all(target_os = "linux", not(bowline_portable)))]
async fn assert_open(
    peer: &mut BoxTransport,
    reading: tokio::task::JoinHandle<(std::io::Result<()>, std::io::Result<usize>)>,
) {
    peer.write_all(b"x").await.unwrap();
    let (flushed, read) = reading.await.unwrap();
    flushed.unwrap();
    assert_eq!(read.unwrap(), 1);
}

/// Whether this much time has passed since then, except for the rounding of a timer.
fn is_about(begin: Instant, seconds: u32) -> bool {
    let late = begin.elapsed().checked_sub(SECOND * seconds);
    late.is_some_and(|late| late < Duration::from_millis(10))
}

/// rule: idle-1
#[tokio::test]
async fn a_connection_on_which_nothing_moves_ends_as_idle_on_both_halves() {
    over_all_on_a_paused_clock(policy(30, None), false, |kind, mut a, mut b| async move {
        let begin = Instant::now();
        assert_idle(a.read(&mut [0; 1]).await.unwrap_err(), kind);
        assert!(is_about(begin, 30), "{kind}: {:?}", begin.elapsed());
        assert_idle(a.read(&mut [0; 1]).await.unwrap_err(), kind);
        assert_idle(a.write(b"x").await.unwrap_err(), kind);
        assert_idle(a.close_write().await.unwrap_err(), kind);
        let status = a.status();
        assert!(matches!(status.reason, Some(Reason::TimedOut(Phase::Idle))), "{kind}: {status:?}");
        assert!(a.control().is_ended() && !a.control().is_aborted());
        assert!(matches!(a.close().await.reason, Reason::TimedOut(Phase::Idle)), "{kind}");
        assert!(matches!(read_all(&mut b).await.1, Err(Reason::Reset(_))), "{kind}");
    })
    .await;
}

/// rule: idle-2
#[tokio::test]
async fn a_read_does_not_time_out_while_writes_make_progress() {
    over_all_on_a_paused_clock(policy(10, None), false, |kind, a, mut b| async move {
        let begin = Instant::now();
        let (mut read, mut write) = tokio::io::split(a);
        let reading = tokio::spawn(async move { (read.read(&mut [0; 1]).await, Instant::now()) });
        for _ in 0..4 {
            sleep(SECOND * 7).await;
            write.write_all(b"on the way").await.unwrap();
            b.read_exact(&mut [0; 10]).await.unwrap();
        }
        let (read, at) = reading.await.unwrap();
        assert_idle(read.unwrap_err(), kind);
        assert!(is_about(begin, 38), "{kind}: {:?}", at - begin);
    })
    .await;
}

/// rule: idle-2
#[tokio::test]
async fn a_write_does_not_time_out_while_reads_make_progress() {
    over_all_on_a_paused_clock(policy(10, None), true, |kind, a, mut b| async move {
        let begin = Instant::now();
        let (mut read, mut write) = tokio::io::split(a);
        let writing = tokio::spawn(async move {
            loop {
                if let Err(error) = write.write(&[1; 10_000]).await {
                    return (error, write);
                }
            }
        });
        for _ in 0..4 {
            sleep(SECOND * 7).await;
            b.write_all(b"x").await.unwrap();
            read.read_exact(&mut [0; 1]).await.unwrap();
        }
        let (error, mut write) = writing.await.unwrap();
        assert_idle(error, kind);
        assert!(is_about(begin, 38), "{kind}: {:?}", begin.elapsed());
        assert_idle(read.read(&mut [0; 1]).await.unwrap_err(), kind);
        assert_idle(write.shutdown().await.unwrap_err(), kind);
        drop(b);
    })
    .await;
}

/// rule: idle-1
#[tokio::test]
async fn a_flush_that_waits_times_out_too() {
    over_all_on_a_paused_clock(policy(10, None), true, |kind, mut a, b| async move {
        if a.queued() > 0 {
            let begin = Instant::now();
            assert_idle(a.flush().await.unwrap_err(), kind);
            // The queued bytes have waited since the peer accepted no more. Over a socket, the peer's system accepted
            // some of them after the last write, at an unknown time.
            let most = SECOND * if kind.has_socket() { 21 } else { 11 };
            assert!(begin.elapsed() > SECOND * 9 && begin.elapsed() < most, "{kind}: {:?}", begin.elapsed());
        }
        drop(b);
    })
    .await;
}

/// rule: idle-4
#[tokio::test]
async fn a_connection_that_the_application_is_busy_with_is_not_idle() {
    over_all_on_a_paused_clock(policy(10, None), false, |kind, mut a, b| async move {
        let begin = Instant::now();
        // A library reads while a request is processed.
        let control = a.control();
        let reading = tokio::spawn(async move { a.read(&mut [0; 1]).await });
        let (first, second) = (control.busy(), control.busy());
        sleep(SECOND * 25).await;
        drop(first);
        sleep(SECOND * 10).await;
        assert!(!reading.is_finished(), "{kind}");
        drop(second);
        assert_idle(reading.await.unwrap().unwrap_err(), kind);
        assert!(is_about(begin, 25 + 10 + 10), "{kind}: {:?}", begin.elapsed());
        drop(b);
    })
    .await;
}

/// rule: idle-2
#[cfg(all(target_os = "linux", not(bowline_portable)))]
#[tokio::test]
async fn a_peer_that_slowly_takes_what_the_system_holds_is_not_idle() {
    use std::pin::pin;
    use std::task::Poll;

    use bowline::SocketOptions;

    use crate::common::poll_once;

    for kind in [Kind::Tcp, Kind::Tls13] {
        let (mut a, mut b) = pair_with(kind, policy(10, None)).await.unwrap();
        settle(&mut a, &mut b).await;
        a.as_tcp().unwrap().set_send_buffer_size(1 << 20).unwrap();
        b.as_tcp().unwrap().set_recv_buffer_size(256 << 10).unwrap();
        // Our system holds most of the bytes. The peer needs longer than the idle time to read them.
        let taken = clog(&mut a).await;
        tokio::time::pause();
        bounded(&kind.to_string(), async move {
            let begin = Instant::now();
            let reading = tokio::spawn(async move { (a.flush().await, a.read(&mut [0; 1]).await) });
            let mut received = 0;
            while received < taken {
                sleep(SECOND * 3).await;
                // The clock stands still, but the kernel needs real time to move the bytes.
                std::thread::sleep(Duration::from_millis(5));
                let next = (received + taken / 12).min(taken);
                for _ in 0..200 {
                    let mut buf = vec![0; next - received];
                    if buf.is_empty() {
                        break;
                    }
                    match poll_once(&mut pin!(b.read(&mut buf))).await {
                        Poll::Ready(read) => received += read.unwrap(),
                        Poll::Pending => std::thread::sleep(Duration::from_millis(1)),
                    }
                }
            }
            assert!(begin.elapsed() > SECOND * 25 && !reading.is_finished(), "{:?}", begin.elapsed());
            assert_open(&mut b, reading).await;
        })
        .await;
        tokio::time::resume();
    }
}

/// rule: idle-2
#[cfg(all(target_os = "linux", not(bowline_portable)))]
#[tokio::test]
async fn the_last_bytes_that_the_peer_takes_count_as_traffic() {
    for kind in [Kind::Tcp, Kind::Tls13] {
        let (mut a, mut b) = pair_with(kind, policy(10, None)).await.unwrap();
        settle(&mut a, &mut b).await;
        let taken = clog(&mut a).await;
        tokio::time::pause();
        bounded(&kind.to_string(), async move {
            let reading = tokio::spawn(async move { (a.flush().await, a.read(&mut [0; 1]).await) });
            // One check, after 10 seconds, finds bytes that our system holds. The peer takes all of them before the
            // next check.
            sleep(SECOND * 18).await;
            // While a blocking task runs, the paused clock stands still, also if the reads have to wait.
            let (done, is_done) = std::sync::mpsc::channel::<()>();
            let holds_the_clock = tokio::task::spawn_blocking(move || is_done.recv().is_err());
            b.read_exact(&mut vec![0; taken]).await.unwrap();
            drop(done);
            assert!(holds_the_clock.await.unwrap());
            sleep(SECOND * 8).await;
            assert!(!reading.is_finished(), "idle since the check at 10 seconds");
            assert_open(&mut b, reading).await;
        })
        .await;
        tokio::time::resume();
    }
}

/// rule: idle-1
#[tokio::test]
async fn time_without_a_waiting_task_does_not_count_as_idle() {
    over_all_on_a_paused_clock(policy(10, None), false, |kind, mut a, mut b| async move {
        // The service needs this time to compute an answer, and no task waits for the peer.
        sleep(SECOND * 12).await;
        let begin = Instant::now();
        assert!(timeout(SECOND * 9, a.read(&mut [0; 1])).await.is_err(), "{kind}");
        b.write_all(b"x").await.unwrap();
        a.read_exact(&mut [0; 1]).await.unwrap();
        sleep(SECOND * 12).await;
        assert_idle(a.read(&mut [0; 1]).await.unwrap_err(), kind);
        assert!(is_about(begin, 9 + 12 + 10), "{kind}: {:?}", begin.elapsed());
    })
    .await;
}

/// rule: idle-3
#[tokio::test]
async fn without_a_bound_silence_is_no_matter() {
    over_all_on_a_paused_clock(Policy::default(), false, |kind, mut a, mut b| async move {
        let (mut one, mut other) = ([0; 1], [0; 1]);
        let long = SECOND * 50;
        let (read, read_too) = tokio::join!(timeout(long, a.read(&mut one)), timeout(long, b.read(&mut other)));
        assert!(read.is_err() && read_too.is_err(), "{kind}");
    })
    .await;
}

/// rule: idle-3, half-10
#[tokio::test]
async fn the_bound_of_a_half_open_connection_wins_where_there_is_one() {
    for half_open in [Some(5), Some(30), None] {
        over_all_on_a_paused_clock(policy(10, half_open), false, move |kind, mut a, b| async move {
            let expected = half_open.unwrap_or(10);
            a.close_write().await.unwrap();
            // The clock stands still, but the peer's system needs real time to acknowledge what it has received.
            std::thread::sleep(Duration::from_millis(60));
            let begin = Instant::now();
            let error = a.read(&mut [0; 1]).await.unwrap_err();
            assert!(is_about(begin, expected as u32), "{kind}: {:?}", begin.elapsed());
            let phase = Reason::from_io(error, Phase::Open).phase();
            let half = if half_open.is_some() { Phase::HalfOpen } else { Phase::Idle };
            assert_eq!(phase, Some(half), "{kind}");
            drop(b);
        })
        .await;
    }
}

/// rule: idle-3, close-3
#[tokio::test]
async fn a_close_has_its_own_bound_and_no_other() {
    let policy = policy(10, None).close_timeout(SECOND * 25);
    over_all_on_a_paused_clock(policy, false, |kind, mut a, b| async move {
        let begin = Instant::now();
        let report = a.close().await;
        assert!(matches!(report.reason, Reason::TimedOut(Phase::Close)), "{kind}: {report:?}");
        assert!(is_about(begin, 25), "{kind}: {:?}", begin.elapsed());
        drop(b);
    })
    .await;
}

/// rule: tcp-9, idle-1
#[tokio::test]
async fn zero_and_unlimited_bounds_neither_panic_nor_spin() {
    for kind in Kind::ALL {
        let policy = Policy::default()
            .handshake_timeout(Duration::MAX)
            .close_timeout(Duration::MAX)
            .idle_timeout(Duration::MAX)
            .half_open_timeout(Duration::MAX)
            .close_discard(u64::MAX);
        let (mut a, mut b) = pair_with(kind, policy).await.unwrap();
        settle(&mut a, &mut b).await;
        a.close_write().await.unwrap();
        assert_eq!(b.read(&mut [0]).await.unwrap(), 0);
        let (a, b) = tokio::join!(a.close(), b.close());
        assert!(ended_together(&a, &b), "{kind}: {a} {b}");

        let mut policy = Policy::default().close_timeout(Duration::ZERO).close_discard(0);
        let (mut a, _b) = pair_with(kind, policy.clone()).await.unwrap();
        assert_eq!(
            tokio::time::timeout(BOUND, a.close()).await.unwrap().limit,
            Some(bowline::CloseLimit::Time),
            "{kind}"
        );
        policy = policy.idle_timeout(Duration::ZERO);
        // Kinds with TLS may fail here, because a handshake has to wait.
        let Ok((mut a, _b)) = pair_with(kind, policy).await else { continue };
        assert!(tokio::time::timeout(BOUND, a.read(&mut [0])).await.unwrap().is_err(), "{kind}");
    }
    let policy = Policy::default().close_discard(0);
    let (mut a, mut b) = pair_with(Kind::Tls13, policy).await.unwrap();
    settle(&mut a, &mut b).await;
    // A bound of 0 bytes still accepts an end.
    let (a, b) = tokio::join!(a.close(), b.close());
    assert!(ended_together(&a, &b), "{a} {b}");
}
