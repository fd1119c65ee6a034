//! `Control::close` is called while other tasks use both halves.

use std::io::ErrorKind;
use std::time::Duration;

use bowline::testing::{Kind, memory_pair, pair_with, raw_tcp_pair, shared_pki, tcp_pair, tls_over};
use bowline::{
    CloseReport, Error, Phase, Policy, Reason, Split, TcpConnection, TlsConnection, TlsVersion, Transport,
    UpgradableConnection,
};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::task::JoinHandle;

use crate::common::{
    Orderly as _, bounded, clog, expect, over, over_all, patient, pattern, poll_once, read_all, settle,
};

/// A task that reads until it gets an error, or the end.
fn read_on(mut read: impl AsyncRead + Unpin + Send + 'static) -> JoinHandle<std::io::Result<Vec<u8>>> {
    tokio::spawn(async move {
        let mut data = Vec::new();
        read.read_to_end(&mut data).await.map(|_| data)
    })
}

/// Lets the spawned tasks run until they wait in their reads.
async fn until_they_wait() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

/// Reads to the end, which must be clean.
async fn read_whole(transport: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let (data, end) = read_all(transport).await;
    assert!(end.is_ok(), "{end:?} after {} bytes", data.len());
    data
}

fn assert_same(one: &CloseReport, other: &CloseReport) {
    assert_eq!(format!("{one:?}"), format!("{other:?}"));
}

fn assert_closed<T: std::fmt::Debug>(read: std::io::Result<T>) {
    let error = Error::from(read.unwrap_err());
    assert!(matches!(error, Error::Ended(Reason::Closed)), "{error:?}");
}

/// rule: close-16, close-1, close-4
#[tokio::test]
async fn a_handle_closes_while_both_halves_are_in_use_elsewhere() {
    over_all(|_, mut a, mut b| async move {
        settle(&mut a, &mut b).await;
        let control = a.control();
        let (read, mut write) = tokio::io::split(a);
        let reading = read_on(read);
        write.write_all(b"last words").await.unwrap();
        until_they_wait().await;
        let closing = std::thread::spawn({
            let (control, runtime) = (control.clone(), tokio::runtime::Handle::current());
            move || runtime.spawn(async move { control.close().await })
        });
        assert_eq!(read_whole(&mut b).await, b"last words");
        assert!(b.close().await.ended_last());
        let report = closing.join().unwrap().await.unwrap();
        assert!(report.is_clean(), "{report}");
        assert_closed(reading.await.unwrap());
        assert_eq!(write.write(b"x").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
        assert_same(control.report().unwrap(), &report);
        assert!(control.is_ended());
    })
    .await;
}

/// rule: close-16, close-2: input is discarded, and no read returns the end after it, which would make a message look
/// complete.
#[tokio::test]
async fn a_reader_that_was_busy_does_not_take_the_end_for_complete_input() {
    over_all(|_, mut a, mut b| async move {
        settle(&mut a, &mut b).await;
        b.write_all(&pattern(3_000)).await.unwrap();
        let first = a.fill_buf().await.unwrap().len();
        assert!(first > 0);
        a.consume(1);
        let control = a.control();
        let closing = tokio::spawn(async move { control.close().await });
        until_they_wait().await;
        for _ in 0..2 {
            assert_closed(a.read(&mut [0; 16]).await);
            assert_closed(a.fill_buf().await.map(|_| ()));
        }
        b.write_all(&pattern(3_000)).await.unwrap();
        assert!(b.close().await.ended_last());
        assert!(closing.await.unwrap().is_clean());
        assert_closed(a.read(&mut [0; 16]).await);
        assert!(a.close().await.is_clean());
    })
    .await;
}

/// rule: close-16, half-8: an end that was read before stays an end.
#[tokio::test]
async fn an_end_that_was_read_before_stays_clean() {
    over_all(|_, mut a, mut b| async move {
        b.close_write().await.unwrap();
        assert_eq!(a.read(&mut [0; 1]).await.unwrap(), 0);
        let control = a.control();
        let closing = tokio::spawn(async move { control.close().await });
        until_they_wait().await;
        if a.read(&mut [0; 1]).await.is_err() {
            panic!("the end of the peer's half has changed");
        }
        assert!(read_whole(&mut b).await.is_empty());
        let report = closing.await.unwrap();
        assert!(report.ended_last(), "{report}");
    })
    .await;
}

/// rule: close-16, write-4: accepted bytes leave before the marker, and a writer that waits is refused.
#[tokio::test]
async fn a_writer_that_waits_is_refused_and_accepted_bytes_leave_whole() {
    over(&Kind::ALL, patient(), |_, mut a, mut b| async move {
        let control = a.control();
        let mut taken = clog(&mut a).await;
        let writing = tokio::spawn(async move {
            loop {
                match a.write(&[1; 16 << 10]).await {
                    Ok(n) => taken += n,
                    Err(error) => return (taken, error, a),
                }
            }
        });
        until_they_wait().await;
        let closing = tokio::spawn(async move { control.close().await });
        let (taken, error, a) = writing.await.unwrap();
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
        assert_eq!(read_whole(&mut b).await.len(), taken);
        assert!(b.close().await.ended_last());
        let report = closing.await.unwrap();
        assert!(report.is_clean(), "{report}");
        drop(a);
    })
    .await;
}

/// rule: close-16, close-3
#[tokio::test]
async fn a_silent_peer_holds_neither_the_close_nor_a_reader() {
    let hasty = Policy::default().close_timeout(Duration::from_millis(200));
    over(&Kind::ALL, hasty, |_, mut a, mut b| async move {
        settle(&mut a, &mut b).await;
        let control = a.control();
        let (read, write) = tokio::io::split(a);
        let reading = read_on(read);
        until_they_wait().await;
        let report = control.close().await;
        assert!(matches!(report.reason, Reason::TimedOut(Phase::Close)), "{report}");
        assert_closed(reading.await.unwrap());
        drop((write, b));
    })
    .await;
}

/// rule: close-16, close-6: all requests share one close and one report.
#[tokio::test]
async fn several_closes_and_the_owners_report_the_same() {
    over_all(|_, mut a, mut b| async move {
        settle(&mut a, &mut b).await;
        let (first, second) = (a.control(), a.control());
        let first = tokio::spawn(async move { first.close().await });
        let second = tokio::spawn(async move { second.close().await });
        until_they_wait().await;
        let owners = tokio::spawn(async move { a.close_with(b"too late").await });
        assert!(read_whole(&mut b).await.is_empty());
        assert!(b.close().await.ended_last());
        let reports: [CloseReport; 3] = [first.await.unwrap(), second.await.unwrap(), owners.await.unwrap()];
        assert!(reports[0].is_clean(), "{}", reports[0]);
        reports.iter().for_each(|report| assert_same(report, &reports[0]));
    })
    .await;
}

/// rule: close-16: if the owner is already closing, its report is also that of the handle.
#[tokio::test]
async fn a_close_by_the_owner_that_is_under_way_counts() {
    over_all(|_, mut a, mut b| async move {
        settle(&mut a, &mut b).await;
        let control = a.control();
        let owners = tokio::spawn(async move { a.close_with(b"the last").await });
        until_they_wait().await;
        let handles = tokio::spawn(async move { control.close().await });
        assert_eq!(read_whole(&mut b).await, b"the last");
        assert!(b.close().await.ended_last());
        assert_same(&owners.await.unwrap(), &handles.await.unwrap());
    })
    .await;
}

/// rule: close-16: a close that was dropped is continued by the next one, or by the owner.
#[tokio::test]
async fn a_close_that_was_dropped_is_continued() {
    over_all(|_, mut a, mut b| async move {
        settle(&mut a, &mut b).await;
        let control = a.control();
        let dropped = tokio::time::timeout(Duration::from_millis(20), control.close()).await;
        assert!(dropped.is_err());
        assert_eq!(a.write(b"x").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
        let by_owner = tokio::time::timeout(Duration::from_millis(20), a.close()).await;
        assert!(by_owner.is_err());
        let closing = tokio::spawn(async move { control.close().await });
        assert!(read_whole(&mut b).await.is_empty());
        assert!(b.close().await.ended_last());
        assert!(closing.await.unwrap().is_clean());
        assert!(a.close().await.is_clean());
    })
    .await;
}

/// rule: close-16, close-3: a close that was polled once and is kept, but not polled again, does not hold up another
/// one.
#[tokio::test]
async fn a_close_that_nobody_polls_is_given_up() {
    let hasty = Policy::default().close_timeout(Duration::from_millis(100));
    let timed_out = |report: &CloseReport| assert!(matches!(report.reason, Reason::TimedOut(Phase::Close)), "{report}");
    over(&Kind::ALL, hasty.clone(), |_, mut a, mut b| async move {
        settle(&mut a, &mut b).await;
        let control = a.control();
        // The clock is paused, because a single poll may take longer than the limit.
        tokio::time::pause();
        let mut kept = Box::pin(control.close());
        assert!(poll_once(&mut kept).await.is_pending());
        let (owners, handles) = tokio::join!(a.close(), control.close());
        timed_out(&owners);
        assert_same(&owners, &handles);
        assert_same(&owners, &kept.await);
        tokio::time::resume();
        drop(b);
    })
    .await;
    over(&Kind::ALL, hasty, |_, mut a, mut b| async move {
        settle(&mut a, &mut b).await;
        let control = a.control();
        tokio::time::pause();
        let mut kept = a.close();
        assert!(poll_once(&mut kept).await.is_pending());
        let report = control.close().await;
        timed_out(&report);
        assert_same(&report, &kept.await);
        tokio::time::resume();
        drop(b);
    })
    .await;
}

/// rule: close-16, abort-3: an abort ends a close.
#[tokio::test]
async fn an_abort_ends_a_close_by_the_handle() {
    over_all(|_, mut a, mut b| async move {
        settle(&mut a, &mut b).await;
        let control = a.control();
        let (read, write) = tokio::io::split(a);
        let reading = read_on(read);
        let closing = tokio::spawn({
            let control = control.clone();
            async move { control.close().await }
        });
        assert_closed(reading.await.unwrap());
        control.abort();
        assert!(matches!(closing.await.unwrap().reason, Reason::Aborted));
        assert!(matches!(control.close().await.reason, Reason::Aborted));
        drop((write, b));
    })
    .await;
}

/// rule: close-16: the halves may be dropped meanwhile, and nothing is lost.
#[tokio::test]
async fn halves_that_are_dropped_meanwhile_do_not_cut_the_close_off() {
    for tls in [false, true] {
        bounded(if tls { "TLS" } else { "TCP" }, async move {
            let pair = tcp_pair().await.unwrap();
            if tls {
                let (a, b) = tls_over(pair, TlsVersion::V1_3).await.unwrap();
                drop_halves(a, b).await;
            } else {
                drop_halves(pair.0, pair.1).await;
            }
        })
        .await;
    }
}

async fn drop_halves<T: Split>(mut a: T, mut b: T) {
    settle(&mut a, &mut b).await;
    let control = a.control();
    let group = bowline::DrainGroup::new();
    assert!(group.join(&control));
    let (mut read, mut write) = a.into_split();
    let sent = pattern(300_000);
    let accepted = write.write(&sent).await.unwrap();
    let reading = tokio::spawn(async move {
        let error = read.read(&mut [0; 10]).await.unwrap_err();
        drop(read);
        error
    });
    let mut closing = tokio::spawn(async move { control.close().await });
    assert_closed::<()>(Err(reading.await.unwrap()));
    drop(write);
    assert!(tokio::time::timeout(Duration::from_millis(20), &mut closing).await.is_err());
    assert_eq!(group.connections(), 1);
    let data = read_whole(&mut b).await;
    assert!(data == sent[..accepted], "{} of {accepted} bytes", data.len());
    assert!(b.close().await.ended_last());
    let report = closing.await.unwrap();
    assert!(report.is_clean(), "{report}");
    assert_eq!(group.connections(), 0);
}

/// rule: close-16, close-9: nothing is queued, so the handshake is given up.
#[tokio::test]
async fn a_handshake_without_bytes_is_given_up() {
    bounded("a handshake", async {
        let (ours, theirs) = raw_tcp_pair().await.unwrap();
        let tcp = TcpConnection::new(ours, Policy::default()).unwrap();
        let control = tcp.control();
        let handshake = tokio::spawn(async move {
            TlsConnection::connect(tcp, &shared_pki().client_tls(), "localhost").await.map(|_| ())
        });
        let mut peer = theirs;
        until_they_wait().await;
        let report = control.close().await;
        assert!(report.reason.is_clean(), "{report}");
        assert!(handshake.await.unwrap().is_err());
        let mut wire = Vec::new();
        peer.read_to_end(&mut wire).await.unwrap();
        // The ClientHello is one record, and nothing follows it.
        assert_eq!(wire.len(), 5 + usize::from(wire[3]) * 256 + usize::from(wire[4]));
    })
    .await;
}

/// rule: close-16, close-9: bytes are queued, so the handshake is finished first.
#[tokio::test]
async fn a_handshake_with_bytes_is_finished_first() {
    bounded("a handshake", async {
        let (client, server) = tcp_pair().await.unwrap();
        let client = TlsConnection::client(client, &shared_pki().client_tls(), "localhost").unwrap();
        let control = client.control();
        let (read, mut write) = client.into_split();
        write.write_all(b"early").await.unwrap();
        let reading = read_on(read);
        until_they_wait().await;
        let closing = tokio::spawn(async move { control.close().await });
        assert_closed(reading.await.unwrap());
        let mut server = TlsConnection::accept(server, &shared_pki().server_tls()).await.unwrap();
        assert_eq!(read_whole(&mut server).await, b"early");
        assert!(server.close().await.ended_last());
        assert!(closing.await.unwrap().is_clean());
    })
    .await;
}

/// rule: close-16: a new upgrade is refused, and one in progress fails. Neither changes the report.
#[tokio::test]
async fn an_upgrade_ends_with_the_close() {
    bounded("an upgrade", async {
        let (ours, theirs) = raw_tcp_pair().await.unwrap();
        let tcp = TcpConnection::new(ours, Policy::default()).unwrap();
        let control = tcp.control();
        let mut connection = bowline::UpgradableConnection::new(tcp);
        let upgrading = tokio::spawn(async move {
            let how = bowline::StartTls::client(&shared_pki().client_tls(), "localhost");
            let failure = connection.start_tls(how).await;
            (failure, connection)
        });
        until_they_wait().await;
        let report = control.close().await;
        let (failure, mut connection) = upgrading.await.unwrap();
        assert!(failure.is_err());
        assert_same(&connection.close().await, &report);
        assert!(report.reason.is_clean(), "{report}");
        drop(theirs);
    })
    .await;
    bounded("an upgrade afterwards", async {
        let (ours, mut theirs) = tcp_pair().await.unwrap();
        let control = ours.control();
        let mut connection = bowline::UpgradableConnection::new(ours);
        let closing = tokio::spawn(async move { control.close().await });
        until_they_wait().await;
        let how = bowline::StartTls::client(&shared_pki().client_tls(), "localhost");
        let refused = connection.start_tls(how).await.unwrap_err();
        assert!(matches!(refused, Error::Upgrade(bowline::UpgradeError::SendClosed)), "{refused:?}");
        assert!(theirs.close().await.ended_last());
        assert!(closing.await.unwrap().is_clean());
    })
    .await;
}

/// rule: close-16, close-3: the owner of a stream never uses it again.
#[tokio::test]
async fn a_stream_that_is_not_handed_over_ends_at_the_bound() {
    bounded("a stream", async {
        let hasty = Policy::default().close_timeout(Duration::from_millis(50));
        let (mut a, b) = bowline::testing::memory_pair_with(hasty);
        let report = a.control().close().await;
        assert!(matches!(report.reason, Reason::TimedOut(Phase::Close)), "{report}");
        assert!(a.read(&mut [0; 1]).await.is_err());
        drop(b);
        let (a, _b) = memory_pair();
        let control = a.control();
        drop(a);
        assert!(matches!(control.close().await.reason, Reason::Dropped));
    })
    .await;
}

/// rule: close-16: threads that read, write and close at the same moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn closes_race_with_readers_and_writers_of_other_threads() {
    for round in 0..200 {
        for kind in [Kind::Tcp, Kind::Tls13, Kind::Memory] {
            bounded(&format!("{kind}, round {round}"), async move {
                let (a, b) = pair_with(kind, patient()).await.unwrap();
                let control = a.control();
                let (read, write) = tokio::io::split(a);
                let tasks = [talk(write), read_on_and_on(read)];
                let closing = tokio::spawn(async move { control.close().await });
                let (b_read, b_write) = tokio::io::split(b);
                let echo = tokio::spawn(echo(b_read, b_write));
                let report = closing.await.unwrap();
                assert!(report.is_clean(), "{report}");
                for task in tasks {
                    task.await.unwrap();
                }
                echo.await.unwrap();
            })
            .await;
        }
    }
}

fn talk(mut write: impl AsyncWrite + Unpin + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(async move { while write.write_all(&[7; 3_000]).await.is_ok() {} })
}

fn read_on_and_on(mut read: impl AsyncRead + Unpin + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(async move { while read.read(&mut [0; 1_000]).await.is_ok_and(|n| n > 0) {} })
}

/// Echoes, and ends in order after the end of the other side.
async fn echo(mut read: impl AsyncRead + Unpin, mut write: impl AsyncWrite + Unpin) {
    let mut buf = [0; 2_000];
    while let Ok(n @ 1..) = read.read(&mut buf).await {
        if write.write_all(&buf[..n]).await.is_err() {
            break;
        }
    }
    let _ = write.shutdown().await;
}

/// rule: close-16: a close of plain halves, which share no lock.
#[tokio::test]
async fn owned_halves_in_plaintext_are_closed_and_can_be_joined_again() {
    bounded("an upgradable connection", async {
        let (ours, mut theirs) = tcp_pair().await.unwrap();
        let control = ours.control();
        let (mut read, write) = bowline::UpgradableConnection::new(ours).into_split();
        theirs.write_all(b"hello").await.unwrap();
        expect(&mut read, b"hello").await;
        let reading = tokio::spawn(async move { (read.read(&mut [0; 10]).await, read) });
        until_they_wait().await;
        let closing = tokio::spawn(async move { control.close().await });
        let (outcome, read) = reading.await.unwrap();
        assert_closed(outcome);
        let mut joined = UpgradableConnection::reunite(read, write).unwrap();
        assert!(theirs.close().await.ended_last());
        let report = closing.await.unwrap();
        assert_same(&joined.close().await, &report);
        assert!(report.is_clean(), "{report}");
    })
    .await;
}
