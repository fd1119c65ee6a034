use std::io::{self, ErrorKind};
use std::time::Duration;

use bowline::testing::peer::RawTls;
use bowline::testing::{Kind, pair_with, raw_tcp_pair, shared_pki};
use bowline::{
    Blame, CloseLimit, DrainGroup, End, Error, Listener, Phase, Policy, Reason, Reconnector, RecvHalf, SocketOptions,
    Split, TcpConnection, TlsConnection, Transport, Truncation, chain,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::common::{
    BOUND, Orderly as _, expect, over, over_all, pattern, read_all, reset_on_drop, server_and_tokio_rustls, settle,
};

/// rule: end-1
#[tokio::test]
async fn the_reason_can_be_matched_and_survives_io_error() {
    over_all(|_, mut a, mut b| async move {
        settle(&mut a, &mut b).await;
        b.abort();
        let error: io::Error = a.read(&mut [0; 1]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        let copied = io::Error::from(Error::from(error));
        assert!(matches!(Reason::from_io(copied, Phase::Open), Reason::Reset(Phase::Open)));
        let reason = a.status().reason.or(a.close().await.reason.into()).unwrap();
        assert!(matches!(reason, Reason::Reset(_)), "{reason:?}");
        assert_eq!((reason.name(), reason.blame()), ("reset", Blame::Peer));
    })
    .await;
}

/// rule: end-1, tcp-8
#[tokio::test]
async fn the_cause_of_an_error_is_its_source_and_not_its_text() {
    // No host has this address, which is reserved for documentation (RFC 5737).
    let error = Listener::bind("192.0.2.1:80").await.unwrap_err();
    let source = std::error::Error::source(&error).expect("what the system said").to_string();
    assert_eq!(error.to_string(), "cannot listen on 192.0.2.1:80");
    assert_eq!(chain(&error).to_string(), format!("{error}: {source}"));
}

/// rule: end-1
#[tokio::test]
async fn errors_outside_of_the_enum_repeat_nothing_either() {
    let mut never =
        Reconnector::new(async || Err::<(), _>(Error::from(Reason::Reset(Phase::Handshake)))).max_attempts(1);
    let gave_up = never.next().await.unwrap_err();
    assert_eq!(chain(&gave_up).to_string(), format!("{gave_up}: reset by the peer during the handshake"));
    assert!(!gave_up.to_string().contains("reset"), "{gave_up}");
    let (ours, theirs) = raw_tcp_pair().await.unwrap();
    drop(theirs);
    let failed = RawTls::client(ours, &shared_pki().client_tls(), "localhost").await.unwrap_err();
    let source = std::error::Error::source(&failed).map(ToString::to_string);
    assert!(source.is_none_or(|source| !failed.to_string().contains(&source)), "{failed}");
}

/// rule: end-2, half-6
#[tokio::test]
async fn fin_without_close_notify_is_truncated_after_the_data() {
    let (mut server, mut client) = server_and_tokio_rustls(Policy::default()).await;
    client.write_all(&pattern(40_000)).await.unwrap();
    client.flush().await.unwrap();
    // The client sends FIN alone. Its socket stays open, because unread tickets would turn a close into RST.
    let mut socket = client.into_inner().0;
    socket.shutdown().await.unwrap();
    let (received, end) = read_all(&mut server).await;
    assert!(received == pattern(40_000), "the data comes first");
    assert!(matches!(end, Err(Reason::Truncated(Phase::Open))), "{end:?}");
    for _ in 0..3 {
        assert_eq!(server.read(&mut [0; 1]).await.unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }
    assert!(matches!(server.close().await.reason, Reason::Truncated(_) | Reason::Reset(_)));
}

/// rule: end-3
#[tokio::test]
async fn a_policy_can_tolerate_truncation_and_the_status_still_shows_it() {
    let policy = Policy::default().truncation(Truncation::Tolerate);
    let (mut server, mut client) = server_and_tokio_rustls(policy).await;
    client.write_all(b"framed").await.unwrap();
    client.flush().await.unwrap();
    // The client sends FIN alone. Its socket stays open, because unread tickets would turn a close into RST.
    let mut socket = client.into_inner().0;
    socket.shutdown().await.unwrap();
    let (received, end) = read_all(&mut server).await;
    assert_eq!((&received[..], end.is_ok()), (&b"framed"[..], true));
    assert!(matches!(server.status().recv, RecvHalf::Ended(End::Truncated)));
    assert!(!server.close().await.is_clean());
}

/// rule: end-4
#[tokio::test]
async fn data_and_close_notify_and_junk_in_one_segment() {
    let (mut server, mut client) = server_and_tokio_rustls(Policy::default()).await;
    // All bytes are sealed first, and leave in one write that ends with junk.
    let mut wire = Vec::new();
    let (_, session) = client.get_mut();
    io::Write::write_all(&mut session.writer(), b"data").unwrap();
    session.send_close_notify();
    io::Write::write_all(&mut session.writer(), b"sealed behind the marker").unwrap();
    while session.wants_write() {
        session.write_tls(&mut wire).unwrap();
    }
    wire.extend_from_slice(b"junk in the clear");
    let (mut socket, _) = client.into_inner();
    socket.write_all(&wire).await.unwrap();
    let (received, end) = read_all(&mut server).await;
    assert_eq!((&received[..], end.is_ok()), (&b"data"[..], true));
    // The bytes that we send still arrive, although the junk was never read.
    server.write_all(b"answer").await.unwrap();
    let closing = tokio::spawn(async move { server.close().await });
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.unwrap();
    assert!(!answer.is_empty());
    drop(socket);
    assert!(closing.await.unwrap().ended_last());
}

/// rule: end-5
#[tokio::test]
async fn the_first_error_is_the_reason_and_the_layers_below_are_closed() {
    let (mut server, client) = server_and_tokio_rustls(Policy::default()).await;
    let (mut socket, _) = client.into_inner();
    // The peer sends a record that cannot be opened, and later a reset.
    socket.write_all(b"\x17\x03\x03\x00\x20garbage garbage garbage garbage ").await.unwrap();
    let (_, end) = read_all(&mut server).await;
    let Err(Reason::Tls(first)) = end else { panic!("{end:?}") };
    assert_eq!(first.error, bowline::rustls::Error::DecryptError);
    // The peer gets the alert and FIN, and no RST before them.
    let mut alert = Vec::new();
    socket.read_to_end(&mut alert).await.unwrap();
    assert!(!alert.is_empty());
    reset_on_drop(&socket);
    drop(socket);
    let report = server.close().await;
    let Reason::Tls(last) = report.reason else { panic!("{report:?}") };
    assert_eq!(last.error, first.error);
    assert!(report.layers[1].marker_sent, "TCP was ended in order");
    assert!(matches!(Error::from(server.write(b"x").await.unwrap_err()), Error::Ended(Reason::Tls(_))));
}

/// rule: end-7
#[tokio::test]
async fn a_local_abort_is_blamed_on_us_on_every_layer() {
    over_all(|_, mut a, mut b| async move {
        settle(&mut a, &mut b).await;
        a.control().abort();
        // The peer's answer to the alert must not replace the reason.
        drop(b);
        tokio::task::yield_now().await;
        for _ in 0..3 {
            let error = a.read(&mut [0; 1]).await.unwrap_err();
            assert!(matches!(Reason::from_io(error, Phase::Open), Reason::Aborted));
        }
        let reason = a.close().await.reason;
        assert!(matches!(reason, Reason::Aborted), "{reason:?}");
        assert_eq!(reason.blame(), Blame::Us);
    })
    .await;
}

/// rule: end-2
#[tokio::test]
async fn data_that_is_half_read_is_delivered_before_a_reset() {
    let (mut a, mut b) = pair_with(Kind::Tls13, Policy::default()).await.unwrap();
    b.write_all(&pattern(10_000)).await.unwrap();
    b.flush().await.unwrap();
    expect(&mut a, &pattern(10_000)[..10]).await;
    b.abort();
    tokio::time::sleep(Duration::from_millis(20)).await;
    expect(&mut a, &pattern(10_000)[10..]).await;
    assert_eq!(a.read(&mut [0; 1]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

/// rule: end-9
#[tokio::test]
async fn a_dropped_connection_reports_dropped() {
    over_all(|kind, mut a, mut b| async move {
        settle(&mut a, &mut b).await;
        let (control, group) = (a.control(), DrainGroup::new());
        group.join(&control);
        group.begin_drain();
        assert!(control.report().is_none());
        let (watched, lost) = (a.control(), a.control());
        let watching = tokio::spawn(async move {
            lost.lost().await;
            watched.report().map(|report| report.reason.name())
        });
        drop(a);
        let report = control.report().unwrap();
        assert!(matches!(report.reason, Reason::Dropped), "{kind}: {report:?}");
        assert_eq!((report.reason.name(), report.reason.blame()), ("dropped", Blame::Us));
        assert_eq!(watching.await.unwrap(), Some("dropped"));
        assert_eq!(group.drain(None).await.count(bowline::Outcome::Dropped), 1);
        drop(b);
    })
    .await;
}

/// rule: end-9
#[tokio::test]
async fn a_connection_dropped_after_its_end_keeps_its_reason() {
    over_all(|kind, mut a, mut b| async move {
        settle(&mut a, &mut b).await;
        let control = a.control();
        b.abort();
        assert!(read_all(&mut a).await.1.is_err());
        drop(a);
        assert!(matches!(control.report().unwrap().reason, Reason::Reset(_)), "{kind}");
    })
    .await;
    over_all(|kind, mut a, mut b| async move {
        let control = a.control();
        a.close_write().await.unwrap();
        b.close_write().await.unwrap();
        assert!(read_all(&mut a).await.1.is_ok());
        drop(a);
        assert!(control.report().unwrap().is_clean(), "{kind}");
    })
    .await;
    over_all(|kind, mut a, b| async move {
        let control = a.control();
        a.abort();
        drop(a);
        assert!(matches!(control.report().unwrap().reason, Reason::Aborted), "{kind}");
        drop(b);
    })
    .await;
}

/// rule: close-3, close-4
#[tokio::test]
async fn the_text_of_a_report_names_the_bound_that_ended_a_close() {
    let policy = Policy::default().close_discard(100_000);
    over(&Kind::ALL, policy, |_, mut a, b| async move {
        let (mut read, mut write) = tokio::io::split(b);
        let talking = tokio::spawn(async move { while write.write_all(&[1; 9_000]).await.is_ok() {} });
        let reading = tokio::spawn(async move { read.read_to_end(&mut Vec::new()).await });
        let report = a.close().await;
        assert_eq!(report.limit, Some(CloseLimit::Bytes));
        assert!(report.to_string().ends_with("; gave up at the limit of bytes"), "{report}");
        talking.await.unwrap();
        let _ = reading.await.unwrap();
    })
    .await;
}

/// rule: end-5, secure-5
#[tokio::test]
async fn a_handshake_that_cannot_send_its_flight_fails_at_once() {
    let (client_tls, server_tls) = (shared_pki().client_tls(), shared_pki().server_tls());
    let policy = Policy::default().handshake_timeout(None);
    // The peer is silent, and our socket accepts no more bytes.
    let (ours, _silent) = raw_tcp_pair().await.unwrap();
    socket2::SockRef::from(&ours).shutdown(std::net::Shutdown::Write).unwrap();
    let ours = TcpConnection::new(ours, policy.clone()).unwrap();
    let error = timeout(BOUND, TlsConnection::connect(ours, &client_tls, "localhost")).await.unwrap().unwrap_err();
    assert!(!matches!(error.reason(), Some(Reason::TimedOut(_))), "{error}");

    let (ours, mut peer) = raw_tcp_pair().await.unwrap();
    socket2::SockRef::from(&ours).shutdown(std::net::Shutdown::Write).unwrap();
    let mut hello =
        bowline::rustls::ClientConnection::new(client_tls.config(), bowline::config::server_name("localhost").unwrap())
            .unwrap();
    let mut flight = Vec::new();
    hello.write_tls(&mut flight).unwrap();
    peer.write_all(&flight).await.unwrap();
    let ours = TcpConnection::new(ours, policy).unwrap();
    let error = timeout(BOUND, TlsConnection::accept(ours, &server_tls)).await.unwrap().unwrap_err();
    assert!(!matches!(error.reason(), Some(Reason::TimedOut(_))), "{error}");
}

/// Writes until the peer takes no more, and returns the error with which the system gives the peer up.
#[cfg(target_os = "linux")]
async fn write_until_given_up(writer: &mut (impl tokio::io::AsyncWrite + Unpin)) -> io::Error {
    loop {
        if let Err(error) = writer.write(&[0; 1 << 16]).await {
            return error;
        }
    }
}

/// With a user timeout, Linux gives up a peer that takes nothing. It reports that once, and then the end of the input to
/// readers and a broken pipe to writers.
///
/// rule: end-10, half-6
#[cfg(target_os = "linux")]
#[tokio::test]
async fn an_error_of_the_socket_is_the_reason_of_both_halves() {
    let given_up = async |reader_is_first: bool| {
        let (ours, _theirs) = raw_tcp_pair().await.unwrap();
        let ours = TcpConnection::new(ours, Policy::default()).unwrap();
        ours.set_user_timeout(Some(Duration::from_millis(50))).unwrap();
        let (mut reader, mut writer) = ours.into_split();
        let mut byte = [0];
        if reader_is_first {
            tokio::select! {
                biased;
                read = reader.read(&mut byte) => drop(read.unwrap_err()),
                _ = write_until_given_up(&mut writer) => {}
            }
        }
        let written = write_until_given_up(&mut writer).await;
        let read = reader.read(&mut byte).await.expect_err("no clean end");
        assert_eq!((written.kind(), read.kind()), (ErrorKind::TimedOut, ErrorKind::TimedOut), "{written}, {read}");
    };
    let over_tls = async {
        let (mut ours, _theirs) = pair_with(Kind::Tls13, Policy::default()).await.unwrap();
        ours.as_tcp().unwrap().set_user_timeout(Some(Duration::from_millis(50))).unwrap();
        let error = write_until_given_up(&mut ours).await;
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
        assert_eq!(ours.read(&mut [0]).await.unwrap_err().kind(), ErrorKind::TimedOut);
        let report = ours.close().await;
        assert!(matches!(report.reason, Reason::TimedOut(Phase::Open)), "{report}");
    };
    timeout(BOUND, async { tokio::join!(given_up(false), given_up(true), over_tls) }).await.unwrap();
}
