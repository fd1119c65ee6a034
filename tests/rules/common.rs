//! Helpers for the checks of this program.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use bowline::testing::{BoxTransport, Kind, pair_with};
use bowline::{CloseReport, Policy, Reason};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// A bound that ends a hang; it does not measure speed. Other programs may use the machine, and under Wine and in an
/// emulator a test may take minutes.
pub const BOUND: Duration =
    Duration::from_secs(if cfg!(any(windows, not(target_arch = "x86_64"))) { 900 } else { 300 });

/// The default policy, but a close has as much time as a test. It is for tests that demand a clean close of much data or
/// of many tasks: a busy machine or an emulator may need longer for it than the default limit.
pub fn patient() -> Policy {
    Policy::default().close_timeout(BOUND)
}

/// Whether the system reports what the peer has acknowledged. Only Linux does (rule: close-14).
pub const KNOWS_DELIVERY: bool = cfg!(all(target_os = "linux", not(bowline_portable)));

/// How far a clean end can be seen.
pub trait Orderly {
    fn is_clean(&self) -> bool;

    /// For the side that ends after its peer. Nothing that comes later can tell it that its last bytes have arrived, so
    /// it ends as `Unconfirmed` on systems that do not report acknowledgements.
    fn ended_last(&self) -> bool;
}

impl Orderly for Reason {
    fn is_clean(&self) -> bool {
        self.is_clean()
    }

    fn ended_last(&self) -> bool {
        self.is_clean() || (!KNOWS_DELIVERY && matches!(self, Self::Unconfirmed))
    }
}

impl Orderly for CloseReport {
    fn is_clean(&self) -> bool {
        self.is_clean()
    }

    fn ended_last(&self) -> bool {
        self.is_clean() || (self.reason.ended_last() && self.limit.is_none())
    }
}

/// Whether two sides that ended at the same time ended in order. At least one of them ended first, and saw the end of
/// the other one.
pub fn ended_together(a: &impl Orderly, b: &impl Orderly) -> bool {
    a.is_clean() && b.ended_last() || a.ended_last() && b.is_clean()
}

/// Runs a check over every transport, each end of the pair in each place.
pub async fn over_all<F, Fut>(check: F)
where
    F: Fn(Kind, BoxTransport, BoxTransport) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    over(&Kind::ALL, Policy::default(), check).await;
}

/// Runs a check over these transports, each end of the pair in each place, under this policy.
pub async fn over<F, Fut>(kinds: &[Kind], policy: Policy, check: F)
where
    F: Fn(Kind, BoxTransport, BoxTransport) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    for &kind in kinds {
        for swapped in [false, true] {
            let (client, server) = pair_with(kind, policy.clone()).await.unwrap();
            let (a, b) = if swapped { (server, client) } else { (client, server) };
            let what = format!("{kind}, {}", if swapped { "server first" } else { "client first" });
            bounded(&what, check(kind, a, b)).await;
        }
    }
}

/// Runs one check. If it fails, the message says which check it was.
pub async fn bounded(what: &str, check: impl Future<Output = ()> + Send + 'static) {
    match tokio::time::timeout(BOUND, tokio::spawn(check)).await {
        Ok(Ok(())) => {}
        Ok(Err(failure)) => {
            eprintln!("failed over {what}");
            std::panic::resume_unwind(failure.into_panic());
        }
        Err(_) => panic!("hangs over {what}"),
    }
}

/// Polls a future once.
pub async fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    poll_fn(|cx| Poll::Ready(Pin::new(&mut *future).poll(cx))).await
}

/// Bytes that identify their position: any loss, repetition or reordering changes them.
pub fn pattern(len: usize) -> Vec<u8> {
    (0..len as u32).flat_map(|n| (n.wrapping_mul(2_654_435_761)).to_be_bytes()).take(len).collect()
}

/// Reads to the end. Returns the data, and how it ended.
pub async fn read_all(transport: &mut (impl AsyncRead + Unpin)) -> (Vec<u8>, Result<(), Reason>) {
    let mut data = Vec::new();
    let end = match transport.read_to_end(&mut data).await {
        Ok(_) => Ok(()),
        Err(error) => Err(Reason::from_io(error, bowline::Phase::Open)),
    };
    (data, end)
}

/// Reads exactly this.
pub async fn expect(transport: &mut (impl AsyncRead + Unpin), expected: &[u8]) {
    let mut data = vec![0; expected.len()];
    transport.read_exact(&mut data).await.unwrap();
    assert!(data == expected, "other bytes came than were sent");
}

/// Sends a byte in each direction, so that nothing (such as a ticket) is in transit afterwards.
pub async fn settle(a: &mut (impl AsyncRead + AsyncWrite + Unpin), b: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    a.write_all(b"?").await.unwrap();
    expect(b, b"?").await;
    b.write_all(b"!").await.unwrap();
    expect(a, b"!").await;
}

/// Writes until the transport accepts no more, so that every buffer between the two ends is full. Returns how many
/// bytes it has accepted.
pub async fn clog(transport: &mut (impl AsyncWrite + Unpin)) -> usize {
    clog_with(transport, &[b'z'; 16 << 10]).await
}

/// As `clog`, with writes of this block.
pub async fn clog_with(transport: &mut (impl AsyncWrite + Unpin), block: &[u8]) -> usize {
    let mut taken = 0;
    while let Ok(result) = tokio::time::timeout(Duration::from_millis(150), transport.write(block)).await {
        taken += result.unwrap();
    }
    taken
}

/// A TLS server of ours, and a tokio-rustls client. The test can reach the client's socket, and can end it in ways that
/// our transports refuse.
pub async fn server_and_tokio_rustls(
    policy: Policy,
) -> (bowline::TlsConnection<bowline::TcpConnection>, tokio_rustls::client::TlsStream<tokio::net::TcpStream>) {
    let pki = bowline::testing::shared_pki();
    let (client, server) = bowline::testing::raw_tcp_pair().await.unwrap();
    client.set_nodelay(true).unwrap();
    let connector = tokio_rustls::TlsConnector::from(pki.client_tls().config());
    let server = bowline::TcpConnection::new(server, policy).unwrap();
    let server_tls = pki.server_tls();
    let name = bowline::config::server_name("localhost").unwrap();
    let (server, client) =
        tokio::join!(bowline::TlsConnection::accept(server, &server_tls), connector.connect(name, client));
    (server.unwrap(), client.unwrap())
}

/// Makes a socket send RST instead of FIN when it is dropped.
pub fn reset_on_drop(socket: &tokio::net::TcpStream) {
    socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO)).unwrap();
}
