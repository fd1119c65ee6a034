//! The line ends at every byte offset: of a handshake, of data records, of a close_notify. TLS 1.2 and 1.3, as client and
//! as server; by end of file, by reset, and by silence.
//!
//! In memory and under a paused clock it is every offset. Over TCP, with FIN and RST of the kernel's, it is a part of them.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bowline::rustls::client::Resumption;
use bowline::rustls::pki_types::ServerName;
use bowline::rustls::{ClientConfig, ServerConfig};
use bowline::testing::peer::{Cut, Ending, Meddler};
use bowline::testing::pki::{KeyKind, Pki, Profile};
use bowline::{
    Address, ClientTls, CloseReport, Error, Phase, Policy, Reason, ServerTls, Stream, TcpConnection, TlsConnection,
    TlsVersion, Transport,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// What the peer sends behind the handshake: two records of data, then close_notify, then the end of its stream.
const RECORDS: [&[u8]; 2] = [b"first record, in which nothing is missing", b"second"];
const HANDSHAKE_BOUND: Duration = Duration::from_secs(5);
const CLOSE_BOUND: Duration = Duration::from_secs(3);
/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);
const AT_A_TIME: usize = 64;

/// Which side of the handshake is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Client,
    Server,
}

#[derive(Clone)]
struct Setup {
    side: Side,
    ending: Ending,
    server: ServerTls,
    client: ClientTls,
    policy: Arc<Policy>,
}

impl Setup {
    /// Each handshake of it is a full one, and the same number of bytes.
    fn new(side: Side, version: TlsVersion, ending: Ending) -> Self {
        let pki = Pki::new();
        // The signatures of this kind of key are all of one length.
        let identity = pki.issue(Profile::server(&[]).key(KeyKind::Ed25519));
        let mut provider = (**pki.client_tls().config().crypto_provider()).clone();
        provider.kx_groups.retain(|group| group.name() == bowline::rustls::NamedGroup::X25519);
        let server = ServerTls::builder().identity(identity.chain_der(), identity.key_der()).build().unwrap();
        let client = pki.client_tls_builder().provider(Arc::new(provider)).min_version(version).max_version(version);
        let mut client_config = ClientConfig::clone(client.build().unwrap().config());
        client_config.resumption = Resumption::disabled();
        let mut policy = Policy::default();
        policy.handshake_timeout = Some(HANDSHAKE_BOUND);
        policy.close_timeout = Some(CLOSE_BOUND);
        Self { side, ending, server, client: Arc::new(client_config).into(), policy: policy.into() }
    }

    /// Our side over any transport.
    async fn handshake<T: Transport>(&self, floor: T) -> Result<TlsConnection<T>, Error> {
        match self.side {
            Side::Client => TlsConnection::connect(floor, &self.client, "localhost").await,
            Side::Server => TlsConnection::accept(floor, &self.server).await,
        }
    }

    fn server_config(&self) -> Arc<ServerConfig> {
        Arc::clone(self.server.config())
    }

    /// The honest peer: handshake, two records, close_notify, end; then it reads to our end.
    async fn peer<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> std::io::Result<()> {
        let mut tls: tokio_rustls::TlsStream<S> = match self.side {
            Side::Server => {
                let name = ServerName::try_from("localhost").unwrap();
                TlsConnector::from(Arc::clone(self.client.config())).connect(name, stream).await?.into()
            }
            Side::Client => TlsAcceptor::from(self.server_config()).accept(stream).await?.into(),
        };
        for record in RECORDS {
            tls.write_all(record).await?;
            tls.flush().await?;
        }
        tls.shutdown().await?;
        tls.read_to_end(&mut Vec::new()).await?;
        Ok(())
    }
}

/// What our side made of it.
struct Outcome {
    offset: u64,
    /// The reason of a handshake that failed, and how long it took.
    handshake: Result<(), Reason>,
    took: Duration,
    data: Vec<u8>,
    /// What the reads said behind the data, twice; `None` where nothing came.
    ends: [Option<Result<(), Reason>>; 2],
    report: Option<(CloseReport, Duration)>,
}

impl Outcome {
    async fn of<T: Transport>(setup: &Setup, offset: u64, floor: T) -> Self {
        let begin = Instant::now();
        let handshake = setup.handshake(floor).await;
        let took = begin.elapsed();
        let mut outcome =
            Self { offset, handshake: Ok(()), took, data: Vec::new(), ends: [const { None }; 2], report: None };
        match handshake {
            Err(error) => outcome.handshake = Err(error.reason().unwrap().clone()),
            Ok(tls) => outcome.read(tls).await,
        }
        outcome
    }

    async fn read<T: Transport>(&mut self, mut tls: TlsConnection<T>) {
        for end in &mut self.ends {
            let read = timeout(Duration::from_millis(300), tls.read_to_end(&mut self.data)).await.ok();
            *end = read.map(|read| read.map(|_| ()).map_err(|error| Reason::from_io(error, Phase::Connect)));
        }
        let begin = Instant::now();
        let report = timeout(LONG, tls.close()).await.unwrap();
        self.report = Some((report, begin.elapsed()));
    }
}

/// A pipe that remembers what was read from it.
struct Tap(DuplexStream, Arc<Mutex<Vec<u8>>>);

impl AsyncRead for Tap {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.0).poll_read(cx, buf))?;
        self.1.lock().unwrap().extend_from_slice(&buf.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tap {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Where the records of what the peer sends end, in a connection that nobody cuts. The last three are those of the data
/// and of the close_notify.
async fn record_ends(setup: &Setup) -> Vec<u64> {
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    let seen = Arc::default();
    let ours = Stream::new(Tap(ours, Arc::clone(&seen)));
    let (outcome, peer) = tokio::join!(Outcome::of(setup, 0, ours), setup.peer(theirs));
    peer.unwrap();
    assert!(outcome.report.unwrap().0.is_clean());
    let seen = seen.lock().unwrap();
    let mut ends = Vec::new();
    let mut at = 0;
    while let Some([_, _, _, high, low]) = seen[at..].first_chunk() {
        at += 5 + usize::from(*high) * 256 + usize::from(*low);
        ends.push(at as u64);
    }
    assert_eq!(at, seen.len());
    ends
}

fn is_reason(reason: &Reason, ending: Ending, phase: Phase) -> bool {
    match (ending, reason) {
        (Ending::Fin, Reason::Truncated(when)) => *when == phase,
        (Ending::Reset, Reason::Reset(when)) => *when == phase,
        (Ending::Silence, Reason::TimedOut(when)) => *when == phase,
        _ => false,
    }
}

/// What every outcome has to be, given where the records end.
fn judge(setup: &Setup, record_ends: &[u64], outcomes: &[Outcome]) {
    let Some(first_secure) = outcomes.iter().find(|outcome| outcome.handshake.is_ok()) else {
        panic!("no handshake succeeds")
    };
    let secured_at = first_secure.offset;
    let [.., flight, first, second, marker] = record_ends else { panic!("too few records") };
    assert!(secured_at <= *flight);
    for outcome in outcomes {
        if outcome.offset < secured_at {
            judge_handshake(setup, outcome);
        } else {
            let complete = usize::from(outcome.offset >= *first) + usize::from(outcome.offset >= *second);
            judge_open(setup, outcome, &RECORDS[..complete].concat(), outcome.offset >= *marker);
        }
    }
}

/// rule: end-6, secure-5
fn judge_handshake(setup: &Setup, outcome: &Outcome) {
    let at = outcome.offset;
    let reason = outcome.handshake.as_ref().expect_err("a handshake that lacks a part cannot succeed");
    assert!(is_reason(reason, setup.ending, Phase::Handshake), "at {at}: {reason:?}");
    match setup.ending {
        Ending::Silence => assert!(outcome.took < 2 * HANDSHAKE_BOUND, "at {at}: {:?}", outcome.took),
        // Nobody has to wait for anything.
        Ending::Fin | Ending::Reset => assert!(outcome.took < HANDSHAKE_BOUND / 2, "at {at}: {:?}", outcome.took),
    }
}

/// rule: end-2, end-4
fn judge_open(setup: &Setup, outcome: &Outcome, data: &[u8], is_marked: bool) {
    let at = outcome.offset;
    assert!(outcome.handshake.is_ok(), "at {at}: {:?}", outcome.handshake);
    assert_eq!(outcome.data, data, "at {at}");
    let (report, took) = outcome.report.as_ref().unwrap();
    for end in &outcome.ends {
        match end {
            Some(Ok(())) => assert!(is_marked, "at {at}: a clean end without close_notify"),
            Some(Err(reason)) => {
                assert!(!is_marked && is_reason(reason, setup.ending, Phase::Open), "at {at}: {reason:?}");
            }
            None => assert!(!is_marked && setup.ending == Ending::Silence, "at {at}: a hang"),
        }
    }
    assert_eq!(report.marker_received(), is_marked, "at {at}: {report:?}");
    let reason = &report.reason;
    match (setup.ending, is_marked) {
        (Ending::Fin, true) => assert!(report.is_clean(), "at {at}: {report:?}"),
        // Our answer meets a connection that was reset; or it left before anybody could know.
        (Ending::Reset, true) => assert!(matches!(reason, Reason::Reset(_) | Reason::Closed), "at {at}: {report:?}"),
        (Ending::Silence, true) => assert!(matches!(reason, Reason::Closed), "at {at}: {report:?}"),
        (Ending::Fin, false) => assert!(matches!(reason, Reason::Truncated(Phase::Open)), "at {at}: {report:?}"),
        (Ending::Reset, false) => assert!(matches!(reason, Reason::Reset(Phase::Open)), "at {at}: {report:?}"),
        (Ending::Silence, false) => {
            assert!(matches!(reason, Reason::TimedOut(Phase::Close)), "at {at}: {report:?}");
        }
    }
    assert!(*took < 2 * CLOSE_BOUND, "at {at}: close took {took:?}");
}

/// Tries every one of the offsets, many at a time.
async fn try_all<F>(offsets: Vec<u64>, one: impl Fn(u64) -> F) -> Vec<Outcome>
where
    F: Future<Output = Outcome> + Send + 'static,
{
    let mut outcomes = Vec::new();
    for batch in offsets.chunks(AT_A_TIME) {
        let mut running: JoinSet<Outcome> = batch.iter().map(|offset| one(*offset)).collect();
        while let Some(outcome) = running.join_next().await {
            outcomes.push(outcome.unwrap());
        }
    }
    outcomes.sort_by_key(|outcome| outcome.offset);
    outcomes
}

async fn in_memory(setup: Setup, offset: u64) -> Outcome {
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    let address = Address::Other("pipe".into());
    let cut = Cut::after(ours, offset, setup.ending);
    let ours = Stream::with(cut, address.clone(), address, Arc::clone(&setup.policy));
    let outcome = Outcome::of(&setup, offset, ours);
    tokio::pin!(outcome);
    tokio::select! {
        outcome = &mut outcome => outcome,
        // The peer has had enough; what our side makes of that is still to be seen.
        _ = setup.peer(theirs) => outcome.await,
    }
}

/// Every offset, in memory, under a paused clock.
async fn every_offset(side: Side, version: TlsVersion, ending: Ending) {
    let setup = Setup::new(side, version, ending);
    let record_ends = record_ends(&setup).await;
    let all = *record_ends.last().unwrap();
    let outcomes = try_all((0..=all).collect(), |offset| in_memory(setup.clone(), offset)).await;
    judge(&setup, &record_ends, &outcomes);
    let secured_at = outcomes.iter().position(|outcome| outcome.handshake.is_ok()).unwrap() as u64;
    // A handshake is done with the last byte of a record, and not a byte before.
    assert!(record_ends.contains(&secured_at), "{secured_at} is none of {record_ends:?}");
}

async fn over_tcp(setup: Setup, offset: u64) -> Outcome {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server: SocketAddr = listener.local_addr().unwrap();
    let meddler = Meddler::to(server).await.unwrap();
    let client = TcpStream::connect(meddler.addr()).await.unwrap();
    let server = listener.accept().await.unwrap().0;
    let (ours, theirs, lane) = match setup.side {
        Side::Client => (client, server, meddler.to_client()),
        Side::Server => (server, client, meddler.to_server()),
    };
    match setup.ending {
        Ending::Fin => lane.fin_after(offset),
        Ending::Reset => lane.rst_after(offset),
        Ending::Silence => lane.stall_after(offset),
    };
    let ours = TcpConnection::new(ours, Arc::clone(&setup.policy)).unwrap();
    let peer = tokio::spawn({
        let setup = setup.clone();
        async move { setup.peer(theirs).await }
    });
    let outcome = Outcome::of(&setup, offset, ours).await;
    peer.abort();
    outcome
}

/// The begin and the end of every record, and offsets between, over loopback.
async fn some_offsets(side: Side, version: TlsVersion, ending: Ending) {
    let mut setup = Setup::new(side, version, ending);
    let mut policy = Policy::clone(&setup.policy);
    if ending == Ending::Silence {
        // Here the clock is the real one.
        policy.handshake_timeout = Some(Duration::from_secs(1));
        policy.close_timeout = Some(Duration::from_millis(300));
    }
    setup.policy = policy.into();
    let record_ends = record_ends(&setup).await;
    let all = *record_ends.last().unwrap();
    let mut offsets: Vec<u64> = (0..=all).step_by(if ending == Ending::Silence { 97 } else { 29 }).collect();
    offsets.extend(record_ends.iter().flat_map(|end| [end.saturating_sub(1), *end, (end + 1).min(all)]));
    offsets.sort_unstable();
    offsets.dedup();
    let outcomes = try_all(offsets, |offset| over_tcp(setup.clone(), offset)).await;
    judge(&setup, &record_ends, &outcomes);
}

macro_rules! offsets {
    ($($every:ident, $some:ident: $side:ident $version:ident $ending:ident;)*) => {$(
        /// rule: end-2, end-4, end-6, secure-5
        #[tokio::test(start_paused = true)]
        async fn $every() {
            every_offset(Side::$side, TlsVersion::$version, Ending::$ending).await;
        }

        /// rule: end-2, end-4, end-6, secure-5
        #[tokio::test]
        async fn $some() {
            some_offsets(Side::$side, TlsVersion::$version, Ending::$ending).await;
        }
    )*};
}

offsets! {
    eof_to_a_tls12_client, fin_to_a_tls12_client: Client V1_2 Fin;
    eof_to_a_tls13_client, fin_to_a_tls13_client: Client V1_3 Fin;
    eof_to_a_tls12_server, fin_to_a_tls12_server: Server V1_2 Fin;
    eof_to_a_tls13_server, fin_to_a_tls13_server: Server V1_3 Fin;
    reset_to_a_tls12_client, rst_to_a_tls12_client: Client V1_2 Reset;
    reset_to_a_tls13_client, rst_to_a_tls13_client: Client V1_3 Reset;
    reset_to_a_tls12_server, rst_to_a_tls12_server: Server V1_2 Reset;
    reset_to_a_tls13_server, rst_to_a_tls13_server: Server V1_3 Reset;
    silence_to_a_tls12_client, stall_to_a_tls12_client: Client V1_2 Silence;
    silence_to_a_tls13_client, stall_to_a_tls13_client: Client V1_3 Silence;
    silence_to_a_tls12_server, stall_to_a_tls12_server: Server V1_2 Silence;
    silence_to_a_tls13_server, stall_to_a_tls13_server: Server V1_3 Silence;
}
