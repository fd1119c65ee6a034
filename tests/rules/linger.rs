use std::io::{ErrorKind, IoSlice};
use std::time::Duration;

use bowline::testing::{Kind, pair, pair_with};
use bowline::{CloseLimit, Lingering, Policy, Reason, Transport};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::time::sleep;

use crate::common::{BOUND, KNOWS_DELIVERY, Orderly as _, clog, over, over_all, pattern, read_all, settle};

const SECOND: Duration = Duration::from_secs(1);

/// The peer reads slowly, and its receive buffer is full most of the time.
async fn read_slowly(transport: &mut (impl AsyncRead + Unpin)) -> (Vec<u8>, std::io::Result<()>) {
    let (mut data, mut some) = (Vec::new(), vec![0; 30_000]);
    loop {
        match transport.read(&mut some).await {
            Ok(0) => return (data, Ok(())),
            Ok(n) => data.extend_from_slice(&some[..n]),
            Err(error) => return (data, Err(error)),
        }
        tokio::task::yield_now().await;
    }
}

/// rule: close-15, close-2
#[tokio::test]
async fn the_end_of_an_answer_reaches_a_peer_that_sends_what_nobody_reads() {
    // This limit is longer than any pause of the peer on a slow machine.
    let policy = Policy::default().close_quiet(BOUND).close_timeout(None);
    over(&Kind::ALL, policy, |_, mut a, b| async move {
        let mut library = Lingering::new(b);
        a.write_all(b"a body that nobody reads").await.unwrap();
        let answer = pattern(3_000_000);
        let sent = answer.clone();
        let answering = tokio::spawn(async move {
            library.write_all(&sent).await.unwrap();
            library.shutdown().await.unwrap();
            let control = library.control();
            drop(library);
            control
        });
        // Some of the request body is still in transit after the end of the answer.
        a.write_all(&[b'y'; 20_000]).await.unwrap();
        let (received, end) = read_slowly(&mut a).await;
        assert!(received == answer && end.is_ok(), "{} bytes, {end:?}", received.len());
        assert!(a.close().await.ended_last());
        let control = answering.await.unwrap();
        let report = control.report().unwrap();
        assert!(report.is_clean() && report.discarded == 20_024, "{report:?}");
    })
    .await;
}

/// Advances the clock. It waits a little in real time first, because the kernel needs real time to deliver the bytes.
async fn advance(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

/// rule: close-15, close-3
#[tokio::test]
async fn a_peer_that_only_keeps_its_connection_open_is_not_awaited() {
    let policy = Policy::default().close_quiet(SECOND * 50).close_timeout(None);
    over(&Kind::ALL, policy, |kind, a, mut b| async move {
        let mut library = Lingering::new(a);
        settle(&mut library, &mut b).await;
        // Silence before the shutdown does not count, so this one is longer than the limit.
        advance(SECOND * 55).await;
        library.shutdown().await.unwrap();
        let report = library.control().report().cloned().unwrap();
        assert_eq!(report.limit, Some(CloseLimit::Silence), "{kind}");
        assert!(matches!(report.reason, Reason::Unconfirmed), "{kind}: {report:?}");
        if KNOWS_DELIVERY && kind.has_socket() {
            assert_eq!(report.unacknowledged, Some(0), "{kind}");
        }
        drop(library);
        assert!(read_all(&mut b).await.1.is_ok(), "{kind}");
    })
    .await;
}

/// rule: close-15, close-3
#[tokio::test]
async fn a_peer_that_has_just_sent_something_may_send_more() {
    let policy = Policy::default().close_quiet(SECOND * 20).close_timeout(None);
    over(&Kind::ALL, policy, |kind, a, mut b| async move {
        let mut library = Lingering::new(a);
        b.write_all(b"the first part").await.unwrap();
        let shutting_down = tokio::spawn(async move {
            library.shutdown().await.unwrap();
            library.control().report().cloned().unwrap()
        });
        for _ in 0..2 {
            b.write_all(b"and more").await.unwrap();
            sleep(Duration::from_millis(20)).await;
            advance(SECOND * 15).await;
            assert!(!shutting_down.is_finished(), "{kind}");
        }
        advance(SECOND * 10).await;
        let report = shutting_down.await.unwrap();
        assert_eq!((report.limit, report.discarded), (Some(CloseLimit::Silence), 14 + 8 + 8), "{kind}");
    })
    .await;
}

/// rule: close-15, close-3
#[tokio::test]
async fn a_peer_that_takes_nothing_is_awaited_no_longer_than_the_bound() {
    let policy = Policy::default().close_timeout(Duration::from_millis(200)).close_quiet(Duration::ZERO);
    over(&Kind::ALL, policy, |kind, mut a, mut b| async move {
        clog(&mut a).await;
        let mut library = Lingering::new(a);
        let ended = library.shutdown().await;
        let report = library.control().report().cloned().unwrap();
        // Over plain TCP, the system has the remaining bytes and our marker, and continues to send them.
        assert_eq!(ended.is_ok(), report.marker_sent(), "{kind}: {report:?}");
        // A pipe has delivered the bytes that it has accepted. Of a socket, only Linux reports what is left.
        let is_done = kind == Kind::Memory || kind == Kind::Tcp && !KNOWS_DELIVERY;
        let limit = if is_done { CloseLimit::Silence } else { CloseLimit::Time };
        assert_eq!(report.limit, Some(limit), "{kind}: {report:?}");
        drop(library);
        let (_, end) = read_all(&mut b).await;
        assert_eq!(end.is_ok(), ended.is_ok(), "{kind}: {end:?}");
    })
    .await;
}

/// rule: close-15
#[tokio::test(start_paused = true)]
async fn a_peer_that_takes_our_bytes_slowly_gets_all_of_them() {
    let policy = Policy::default().close_timeout(SECOND);
    let (mut a, mut b) = pair_with(Kind::MemoryTls, policy).await.unwrap();
    let taken = clog(&mut a).await;
    let mut library = Lingering::new(a);
    let ending = tokio::spawn(async move { library.shutdown().await });
    let mut received = 0;
    loop {
        // The waits add up to several times the limit, but each wait is shorter than the bound.
        sleep(Duration::from_millis(400)).await;
        match b.read(&mut [0; 9000]).await.unwrap() {
            0 => break,
            n => received += n,
        }
    }
    assert_eq!(received, taken);
    drop(b);
    ending.await.unwrap().unwrap();
}

/// rule: close-15, abort-1
#[tokio::test]
async fn an_abort_ends_a_shutdown_and_stays_an_abort() {
    over_all(|kind, mut a, mut b| async move {
        clog(&mut a).await;
        let mut library = Lingering::new(a);
        let control = library.control();
        let ending = tokio::spawn(async move { (library.shutdown().await, library.shutdown().await) });
        sleep(Duration::from_millis(20)).await;
        control.abort();
        let (first, second) = ending.await.unwrap();
        for ended in [first, second] {
            assert_eq!(ended.unwrap_err().kind(), ErrorKind::ConnectionAborted, "{kind}");
        }
        assert!(matches!(control.report().unwrap().reason, Reason::Aborted), "{kind}");
        // Only a pipe has delivered the end before the abort.
        assert!(read_all(&mut b).await.1.is_err() || kind == Kind::Memory, "{kind}");
    })
    .await;
}

/// rule: close-15, close-12
#[tokio::test]
async fn a_drop_without_a_finished_shutdown_is_a_truncation() {
    over_all(|kind, a, mut b| async move {
        let mut library = Lingering::new(a);
        library.write_all(b"half an answer").await.unwrap();
        library.flush().await.unwrap();
        let control = library.control();
        drop(library);
        assert!(read_all(&mut b).await.1.is_err(), "{kind}: it looks complete");
        assert!(matches!(control.report().unwrap().reason, Reason::Dropped), "{kind}");
    })
    .await;
}

/// rule: close-15, close-10
#[tokio::test]
async fn a_read_ends_when_another_task_shuts_down() {
    over_all(|kind, a, mut b| async move {
        let (mut read, mut write) = tokio::io::split(Lingering::new(a));
        let reading = tokio::spawn(async move { read.read(&mut [0; 1]).await });
        tokio::task::yield_now().await;
        let ending = tokio::spawn(async move { write.shutdown().await });
        assert_eq!(reading.await.unwrap().unwrap_err().kind(), ErrorKind::NotConnected, "{kind}");
        assert!(b.close().await.ended_last(), "{kind}");
        ending.await.unwrap().unwrap();
    })
    .await;
}

/// rule: close-15, close-6
#[tokio::test]
async fn a_shutdown_after_the_end_says_how_the_connection_ended() {
    over_all(|kind, a, mut b| async move {
        b.abort();
        let mut library = Lingering::new(a);
        assert!(library.read(&mut [0; 1]).await.is_err(), "{kind}");
        for _ in 0..2 {
            assert_eq!(library.shutdown().await.unwrap_err().kind(), ErrorKind::ConnectionReset, "{kind}");
        }
        assert!(matches!(library.control().report().unwrap().reason, Reason::Reset(_)), "{kind}");
        assert!(matches!(library.into_inner().status().reason, Some(Reason::Reset(_))), "{kind}");
    })
    .await;
}

/// rule: close-15, write-2
#[tokio::test]
async fn reads_and_writes_pass_through() {
    use tokio::io::AsyncBufReadExt;
    over_all(|kind, a, mut b| async move {
        let is_vectored = tokio::io::AsyncWrite::is_write_vectored(&a);
        let mut library = Lingering::from(a);
        assert_eq!(tokio::io::AsyncWrite::is_write_vectored(&library), is_vectored, "{kind}");
        b.write_all(b"a line\nand more").await.unwrap();
        let mut line = String::new();
        library.read_line(&mut line).await.unwrap();
        assert_eq!(line, "a line\n");
        library.read_exact(&mut [0; 8]).await.unwrap();
        let parts = [IoSlice::new(b"one "), IoSlice::new(b"two")];
        let written = library.write_vectored(&parts).await.unwrap();
        assert!(written == 7 || !is_vectored, "{kind}: {written}");
        library.get_mut().write_all(&b"one two"[written..]).await.unwrap();
        b.read_exact(&mut [0; 7]).await.unwrap();
        assert_eq!(library.get_ref().peer_addr(), library.control().peer_addr());
    })
    .await;
}

/// The wrapper is needed: without it, the end of the answer is lost (rule: close-12).
#[tokio::test]
async fn a_bare_connection_loses_the_end_of_its_answer() {
    let (mut a, mut b) = pair(Kind::Tcp).await.unwrap();
    a.write_all(b"a body that nobody reads").await.unwrap();
    b.write_all(&pattern(3_000_000)[..200_000]).await.unwrap();
    b.shutdown().await.unwrap();
    drop(b);
    assert!(read_slowly(&mut a).await.1.is_err());
}
