//! Two peers with a relay between them.

use std::future::Future;
use std::time::Duration;

use bowline::testing::{BoxTransport, Kind, pair_with, shared_pki};
use bowline::{Control, Phase, Policy, Reason, RelayReport, TcpConnection, Transport, protocol, relay};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// A limit that ends a hang. It does not test speed.
pub(crate) const BOUND: Duration = Duration::from_secs(60);

/// Every transport with itself, TLS with TCP, and TCP with TLS.
pub(crate) const PAIRS: [(Kind, Kind); 13] = [
    (Kind::Tcp, Kind::Tcp),
    (Kind::Tls12, Kind::Tls12),
    (Kind::Tls13, Kind::Tls13),
    (Kind::Upgraded, Kind::Upgraded),
    (Kind::TlsInTls, Kind::TlsInTls),
    (Kind::Memory, Kind::Memory),
    (Kind::MemoryTls, Kind::MemoryTls),
    (Kind::Tls12, Kind::Tcp),
    (Kind::Tls13, Kind::Tcp),
    (Kind::Upgraded, Kind::Tcp),
    (Kind::Tcp, Kind::Tls13),
    (Kind::Tls13, Kind::Memory),
    (Kind::MemoryTls, Kind::Tcp),
];

/// Two peers with a relay between them. The check is about the leg whose peer is `one`.
pub(crate) struct Joined {
    pub(crate) one: BoxTransport,
    pub(crate) other: BoxTransport,
    /// The relay's handles of the connections to `one` and to `other`.
    pub(crate) controls: [Control; 2],
    pub(crate) relayed: JoinHandle<Ends>,
    pub(crate) kinds: (Kind, Kind),
}

/// The report of a relay, sorted by the peers.
#[derive(Debug)]
pub(crate) struct Ends {
    pub(crate) one: bowline::CloseReport,
    pub(crate) other: bowline::CloseReport,
    pub(crate) from_one: u64,
    pub(crate) from_other: u64,
}

/// The result of a relay, from either face.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) a: bowline::CloseReport,
    pub(crate) b: bowline::CloseReport,
    pub(crate) a_to_b: u64,
    pub(crate) b_to_a: u64,
}

impl Report {
    pub(crate) fn is_clean(&self) -> bool {
        self.a.is_clean() && self.b.is_clean()
    }
}

/// Joins two transports with the tested face, in separate tasks.
pub(crate) fn spawn<A: Transport, B: Transport>(mut a: A, mut b: B) -> JoinHandle<Report> {
    if !crate::CALLBACKS {
        return tokio::spawn(async move {
            let RelayReport { a, b, a_to_b, b_to_a, .. } = relay(&mut a, &mut b).await;
            Report { a, b, a_to_b, b_to_a }
        });
    }
    let (to_a, to_b) = protocol::relay();
    let (a, b) = (protocol::Runner::new(to_a, a), protocol::Runner::new(to_b, b));
    let handles = [a.handle(), b.handle()];
    tokio::spawn(async move {
        let (a, b) = tokio::join!(tokio::spawn(a.run()), tokio::spawn(b.run()));
        let [b_to_a, a_to_b] = handles.map(|handle| handle.sent());
        Report { a: a.unwrap(), b: b.unwrap(), a_to_b, b_to_a }
    })
}

impl Ends {
    fn of(report: Report, swapped: bool) -> Self {
        let Report { a, b, a_to_b, b_to_a } = report;
        match swapped {
            false => Self { one: a, other: b, from_one: a_to_b, from_other: b_to_a },
            true => Self { one: b, other: a, from_one: b_to_a, from_other: a_to_b },
        }
    }

    pub(crate) fn reasons(&self) -> (&'static str, &'static str) {
        (self.one.reason.name(), self.other.reason.name())
    }

    pub(crate) fn is_clean(&self) -> bool {
        self.one.is_clean() && self.other.is_clean()
    }
}

/// Joins two connections of these kinds. Swapped, `one` is the peer of the second.
pub(crate) async fn joined(kinds: (Kind, Kind), policy: &Policy, swapped: bool) -> Joined {
    let (client, a) = pair_with(kinds.0, policy.clone()).await.unwrap();
    let (b, backend) = pair_with(kinds.1, policy.clone()).await.unwrap();
    let mut controls = [a.control(), b.control()];
    let relayed = spawn(a, b);
    let relayed = tokio::spawn(async move { Ends::of(relayed.await.unwrap(), swapped) });
    if !swapped {
        return Joined { one: client, other: backend, controls, relayed, kinds };
    }
    controls.reverse();
    Joined { one: backend, other: client, controls, relayed, kinds: (kinds.1, kinds.0) }
}

/// Runs a check over these pairs of transports, from each side.
pub(crate) async fn over<F, Fut>(pairs: &[(Kind, Kind)], policy: Policy, check: F)
where
    F: Fn(Joined) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    for &kinds in pairs {
        for swapped in [false, true] {
            let what = format!("{} to {}{}", kinds.0, kinds.1, if swapped { ", from behind" } else { "" });
            bounded(&what, check(joined(kinds, &policy, swapped).await)).await;
        }
    }
}

/// The pairs of which both legs use a TCP socket.
pub(crate) fn with_sockets() -> Vec<(Kind, Kind)> {
    PAIRS.into_iter().filter(|(a, b)| a.has_socket() && b.has_socket()).collect()
}

/// Runs one check. If it fails, the message names the check.
pub(crate) async fn bounded(what: &str, check: impl Future<Output = ()> + Send + 'static) {
    match tokio::time::timeout(BOUND, tokio::spawn(check)).await {
        Ok(Ok(())) => {}
        Ok(Err(failure)) => {
            eprintln!("failed over {what}");
            std::panic::resume_unwind(failure.into_panic());
        }
        Err(_) => panic!("hangs over {what}"),
    }
}

/// The byte at this place of the stream that all peers send. Any loss, repetition or reordering changes it.
pub(crate) fn byte_at(place: usize) -> u8 {
    let word = ((place / 4) as u32).wrapping_mul(2_654_435_761);
    word.to_be_bytes()[place % 4]
}

pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(byte_at).collect()
}

/// Reads to the end, and returns the data and how it ended.
pub(crate) async fn read_all(transport: &mut (impl AsyncRead + Unpin)) -> (Vec<u8>, Result<(), Reason>) {
    let mut data = Vec::new();
    let end = match transport.read_to_end(&mut data).await {
        Ok(_) => Ok(()),
        Err(error) => Err(Reason::from_io(error, Phase::Open)),
    };
    (data, end)
}

/// Reads exactly this.
pub(crate) async fn expect(transport: &mut (impl AsyncRead + Unpin), expected: &[u8]) {
    let mut data = vec![0; expected.len()];
    transport.read_exact(&mut data).await.unwrap();
    assert!(data == expected, "other bytes came than were sent");
}

/// Sends a byte in each direction, so that nothing (such as a ticket) is in transit afterwards.
pub(crate) async fn settle(
    a: &mut (impl AsyncRead + AsyncWrite + Unpin),
    b: &mut (impl AsyncRead + AsyncWrite + Unpin),
) {
    a.write_all(b"?").await.unwrap();
    expect(b, b"?").await;
    b.write_all(b"!").await.unwrap();
    expect(a, b"!").await;
}

/// Checks that this is what the peer of an aborted connection sees.
pub(crate) fn assert_reset(end: &Result<(), Reason>) {
    assert!(matches!(end, Err(Reason::Reset(_))), "{end:?}");
}

/// A TLS server of ours, and a tokio-rustls client, whose socket the test can access, to end it in ways that our
/// transports refuse.
pub(crate) async fn server_and_tokio_rustls(
    policy: Policy,
) -> (bowline::TlsConnection<TcpConnection>, tokio_rustls::client::TlsStream<TcpStream>) {
    let (client, server) = bowline::testing::raw_tcp_pair().await.unwrap();
    client.set_nodelay(true).unwrap();
    let connector = tokio_rustls::TlsConnector::from(shared_pki().client_tls().config());
    let server = TcpConnection::new(server, policy).unwrap();
    let tls = shared_pki().server_tls();
    let name = bowline::config::server_name("localhost").unwrap();
    let (server, client) = tokio::join!(bowline::TlsConnection::accept(server, &tls), connector.connect(name, client));
    (server.unwrap(), client.unwrap())
}
