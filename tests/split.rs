//! Owned halves: every transport is split, used by two tasks, and reunited.
#![allow(clippy::unwrap_used)]

use std::fmt::Debug;
use std::io::ErrorKind;
use std::time::Duration;

use bowline::testing::{raw_tcp_pair, shared_pki, tcp_pair, tls_over, upgraded_over};
use bowline::{
    Error, OwnedReadHalf, OwnedWriteHalf, Phase, Policy, Reason, RecvHalf, SendHalf, Split, StartTls, TcpConnection,
    TlsTransport, TlsVersion, Transport, UpgradableConnection, UpgradeError,
};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

/// A limit that ends a hang. It does not test speed.
const BOUND: Duration = Duration::from_secs(if cfg!(any(windows, not(target_arch = "x86_64"))) { 900 } else { 300 });
/// Long enough for all transfers to go as far as they can.
const MOMENT: Duration = Duration::from_millis(50);

type Upgradable = UpgradableConnection<TcpConnection>;

/// Runs a check over every transport that can be split: TCP, TLS over TCP, and an upgradable connection in plaintext,
/// upgraded, and with TLS in TLS.
macro_rules! over_every_layer {
    ($check:ident) => {{
        let (a, b) = tcp_pair().await.unwrap();
        timeout(BOUND, $check(a, b)).await.expect("hangs over TCP");
        let (a, b) = tls_over(tcp_pair().await.unwrap(), TlsVersion::V1_3).await.unwrap();
        timeout(BOUND, $check(a, b)).await.expect("hangs over TLS");
        for times in 0..=2 {
            let (a, b) = upgraded(times).await;
            timeout(BOUND, $check(a, b)).await.unwrap_or_else(|_| panic!("hangs with {times} upgrades"));
        }
    }};
}

async fn upgraded(times: usize) -> (Upgradable, Upgradable) {
    upgraded_over(tcp_pair().await.unwrap(), times).await.unwrap()
}

fn as_client() -> StartTls {
    StartTls::client(&shared_pki().client_tls(), "localhost")
}

fn as_server() -> StartTls {
    StartTls::server(&shared_pki().server_tls())
}

async fn upgrade(client: &mut Upgradable, server: &mut Upgradable) {
    let upgrading = async { tokio::try_join!(client.start_tls(as_client()), server.start_tls(as_server())) };
    timeout(BOUND, upgrading).await.unwrap().unwrap();
}

async fn downgrade(client: &mut Upgradable, server: &mut Upgradable) {
    let downgrading = async { tokio::try_join!(client.stop_tls(), server.stop_tls()) };
    timeout(BOUND, downgrading).await.unwrap().unwrap();
}

/// Bytes that identify their position.
fn pattern(len: u32) -> Vec<u8> {
    (0..len).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// Makes one connection of two halves that are known to belong together.
fn whole<C: Split>(read: C::ReadHalf, write: C::WriteHalf) -> C {
    C::reunite(read, write).unwrap_or_else(|_| panic!("these are halves of one connection"))
}

/// Splits a connection and reunites it.
fn there_and_back<C: Split>(connection: C) -> C {
    let (read, write) = connection.into_split();
    whole(read, write)
}

async fn close_both(mut a: impl Transport, mut b: impl Transport) {
    let (ours, theirs) = tokio::join!(a.close(), b.close());
    // Only Linux reports what the peer has acknowledged. Elsewhere, the side that ends last cannot confirm its delivery
    // (rule: close-14).
    let (first, last) = if ours.is_clean() { (&ours, &theirs) } else { (&theirs, &ours) };
    let is_in_order = |reason: &Reason| {
        matches!(reason, Reason::Closed) || !cfg!(target_os = "linux") && matches!(reason, Reason::Unconfirmed)
    };
    assert!(first.is_clean() && is_in_order(&last.reason), "{ours:?} {theirs:?}");
}

/// rule: write-1, half-1, half-2
#[tokio::test]
async fn bytes_go_both_ways_at_once_and_the_halves_end_apart() {
    async fn talk<C: Split>(connection: C, sent: Vec<u8>, expected: Vec<u8>) -> C {
        let (mut read, mut write) = connection.into_split();
        let writing = tokio::spawn(async move {
            write.write_all(&sent).await.unwrap();
            write.shutdown().await.unwrap();
            assert!(write.write_all(b"behind the marker").await.is_err());
            assert!(write.status().is_finished());
            write
        });
        let mut received = Vec::new();
        read.read_to_end(&mut received).await.unwrap();
        assert!(received == expected, "other bytes came than were sent");
        assert!(matches!(read.status(), RecvHalf::Ended(bowline::End::Clean)));
        whole(read, writing.await.unwrap())
    }
    async fn check<C: Split>(a: C, b: C) {
        let (up, down) = (pattern(2_000_000), pattern(1_500_000));
        let a = tokio::spawn(talk(a, up.clone(), down.clone()));
        let b = talk(b, down, up).await;
        close_both(a.await.unwrap(), b).await;
    }
    over_every_layer!(check);
}

/// rule: half-1
#[tokio::test]
async fn one_half_ends_and_the_other_continues() {
    async fn check<C: Split>(a: C, mut b: C) {
        let (mut read, mut write) = a.into_split();
        write.shutdown().await.unwrap();
        assert_eq!(b.read(&mut [0; 1]).await.unwrap(), 0);
        b.write_all(b"still read").await.unwrap();
        let mut data = [0; 10];
        read.read_exact(&mut data).await.unwrap();
        assert_eq!(&data, b"still read");
        assert!(write.status().is_finished() && read.status().is_open());
        close_both(whole::<C>(read, write), b).await;
    }
    over_every_layer!(check);
}

/// rule: write-1, close-1
#[tokio::test]
async fn unread_bytes_can_be_read_after_a_split_and_a_reunite() {
    async fn check<C: Split>(mut a: C, mut b: C) {
        b.write_all(b"onetwo").await.unwrap();
        assert_eq!(a.fill_buf().await.unwrap(), b"onetwo");
        a.consume(1);
        let (mut read, write) = a.into_split();
        assert_eq!(read.fill_buf().await.unwrap(), b"netwo");
        read.consume(2);
        let mut a: C = whole(read, write);
        let mut data = [0; 3];
        a.read_exact(&mut data).await.unwrap();
        assert_eq!(&data, b"two");
        close_both(a, b).await;
    }
    over_every_layer!(check);
}

/// rule: upgrade-1, upgrade-9
#[tokio::test]
async fn a_reunited_connection_is_upgraded_and_downgraded_without_data_loss() {
    let (client, server) = upgraded(0).await;
    let (mut client, mut server) = (there_and_back(client), there_and_back(server));
    upgrade(&mut client, &mut server).await;
    assert!(client.is_secure());

    // When TLS ends, some of these bytes are in the read half's inbox, the rest in the session and on the wire.
    server.write_all(&pattern(40_000)).await.unwrap();
    let (mut read, write) = client.into_split();
    assert_eq!(read.fill_buf().await.unwrap()[..100], pattern(40_000)[..100]);
    read.consume(100);
    let mut client: Upgradable = whole(read, write);
    downgrade(&mut client, &mut server).await;
    assert!(!client.is_secure());
    let mut client = there_and_back(client);
    let mut rest = vec![0; 39_900];
    client.read_exact(&mut rest).await.unwrap();
    assert!(rest == pattern(40_000)[100..]);

    let (mut client, mut server) = (there_and_back(client), there_and_back(server));
    upgrade(&mut client, &mut server).await;
    close_both(client, server).await;
}

/// rule: upgrade-2
#[tokio::test]
async fn bytes_that_a_read_half_left_unread_are_leftover_at_the_upgrade() {
    let (client, mut server) = upgraded(0).await;
    server.write_all(b"220 go ahead\r\n250 injected\r\n").await.unwrap();
    let (mut read, write) = client.into_split();
    let mut line = String::new();
    read.read_line(&mut line).await.unwrap();
    assert_eq!(line, "220 go ahead\r\n");
    let mut client: Upgradable = whole(read, write);
    let error = client.start_tls(as_client()).await.unwrap_err();
    assert!(matches!(error, Error::Upgrade(UpgradeError::Leftover { count: 14 })), "{error:?}");
}

/// rule: half-1
#[tokio::test]
async fn halves_of_two_connections_are_given_back_and_work_on() {
    async fn refused<C: Split>(a: C, c: C) -> (C, C) {
        let (a_read, a_write) = a.into_split();
        let (c_read, c_write) = c.into_split();
        let Err(halves) = C::reunite(a_read, c_write) else { panic!("these are halves of different connections") };
        let (a_read, c_write) = halves.into_halves();
        assert!(a_read.control().is_same(&a_write.control()) && !a_read.control().is_same(&c_write.control()));
        (whole(a_read, a_write), whole(c_read, c_write))
    }
    async fn check<C: Split>((a, b): (C, C), (c, d): (C, C)) {
        let (a, c) = refused(a, c).await;
        for (mut here, mut there) in [(a, b), (c, d)] {
            here.write_all(b"as before").await.unwrap();
            let mut data = [0; 9];
            there.read_exact(&mut data).await.unwrap();
            close_both(here, there).await;
        }
    }
    check(tcp_pair().await.unwrap(), tcp_pair().await.unwrap()).await;
    let tls = async || tls_over(tcp_pair().await.unwrap(), TlsVersion::V1_3).await.unwrap();
    check(tls().await, tls().await).await;
    for (one, other) in [(0, 0), (1, 1), (2, 2), (0, 1), (1, 2)] {
        check(upgraded(one).await, upgraded(other).await).await;
    }
}

/// rule: close-12, half-1
#[tokio::test]
async fn a_half_that_is_dropped_ends_nothing_and_both_are_a_dropped_connection() {
    async fn check<C: Split>(a: C, mut b: C) {
        let control = a.control();
        let (mut read, write) = a.into_split();
        drop(write);
        b.write_all(b"still read").await.unwrap();
        let mut data = [0; 10];
        read.read_exact(&mut data).await.unwrap();
        assert!(!control.is_ended());
        drop(read);
        assert!(control.is_ended());
        let error = b.read_to_end(&mut Vec::new()).await.unwrap_err();
        let reason = Reason::from_io(error, Phase::Open);
        assert!(matches!(reason, Reason::Truncated(_) | Reason::Reset(_)), "{reason:?}");
    }
    over_every_layer!(check);
}

/// rule: abort-4, end-7
#[tokio::test]
async fn a_handle_aborts_while_both_halves_wait() {
    async fn check<C: Split>(a: C, mut b: C) {
        let (mut read, mut write) = a.into_split();
        let control = write.control();
        assert!(control.is_same(&read.control()));
        let reading = tokio::spawn(async move { (read.read(&mut [0; 1]).await, read.status()) });
        let writing = tokio::spawn(async move {
            loop {
                if let Err(error) = write.write_all(&[9; 50_000]).await {
                    return (error, write.status());
                }
            }
        });
        tokio::time::sleep(MOMENT).await;
        assert!(!reading.is_finished() && !writing.is_finished());
        control.abort();
        let (result, status) = reading.await.unwrap();
        assert_eq!(result.unwrap_err().kind(), ErrorKind::ConnectionAborted);
        assert!(matches!(status, RecvHalf::Aborted), "{status:?}");
        let (error, status) = writing.await.unwrap();
        assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
        assert!(matches!(status, SendHalf::Aborted), "{status:?}");
        let error = b.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert!(matches!(Reason::from_io(error, Phase::Open), Reason::Reset(_)));
    }
    over_every_layer!(check);
}

/// The errors that both halves of a connection return to their users.
async fn refusals(connection: Upgradable) -> (Vec<Error>, Upgradable) {
    fn error<T: Debug>(result: std::io::Result<T>) -> Error {
        result.unwrap_err().into()
    }
    let (mut read, mut write) = connection.into_split();
    let said = vec![
        error(read.read(&mut [0; 1]).await),
        error(read.fill_buf().await),
        error(write.write(b"x").await),
        error(write.flush().await),
        error(write.shutdown().await),
    ];
    (said, whole(read, write))
}

/// rule: upgrade-5
#[tokio::test]
async fn halves_of_an_upgrade_that_was_given_up_say_so_and_can_be_closed() {
    let (client, mut raw) = raw_tcp_pair().await.unwrap();
    let mut client = UpgradableConnection::new(TcpConnection::new(client, Policy::default()).unwrap());
    assert!(timeout(MOMENT, client.start_tls(as_client())).await.is_err());
    let (said, mut client) = refusals(client).await;
    assert!(said.iter().all(|error| matches!(error, Error::Upgrade(UpgradeError::InProgress))), "{said:?}");
    client.close().await;
    let _ = raw.read_to_end(&mut Vec::new()).await;
}

/// rule: upgrade-5, abort-4
#[tokio::test]
async fn halves_of_an_upgrade_that_was_given_up_are_aborted_like_any() {
    let (mut client, _server) = upgraded(1).await;
    assert!(timeout(MOMENT, client.start_tls(as_client())).await.is_err());
    client.control().abort();
    let (said, _client) = refusals(client).await;
    assert!(said.iter().all(|error| matches!(error, Error::Ended(Reason::Aborted))), "{said:?}");
}

/// rule: upgrade-5, upgrade-6
#[tokio::test]
async fn halves_of_a_failed_upgrade_say_why_it_failed() {
    let (mut client, mut server) = upgraded(0).await;
    server.write_all(b"injected").await.unwrap();
    client.fill_buf().await.unwrap();
    client.start_tls(as_client()).await.unwrap_err();
    let (said, mut client) = refusals(client).await;
    let is_leftover = |error: &Error| matches!(error, Error::Upgrade(UpgradeError::Leftover { count: 8 }));
    assert!(said.iter().all(is_leftover), "{said:?}");
    assert!(is_leftover(&client.start_tls(as_client()).await.unwrap_err()));
}

/// rule: upgrade-9
#[tokio::test]
async fn a_dropped_downgrade_continues_after_a_split_and_a_reunite() {
    let (mut client, mut server) = upgraded(1).await;
    server.write_all(b"in TLS").await.unwrap();
    assert!(timeout(MOMENT, client.stop_tls()).await.is_err());
    let (said, mut client) = refusals(client).await;
    assert!(said.iter().all(|error| matches!(error, Error::Upgrade(UpgradeError::InProgress))), "{said:?}");
    downgrade(&mut client, &mut server).await;
    let (mut read, write) = client.into_split();
    let mut data = [0; 6];
    read.read_exact(&mut data).await.unwrap();
    assert_eq!(&data, b"in TLS");
    close_both(whole::<Upgradable>(read, write), server).await;
}
