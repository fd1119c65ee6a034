//! Plays one connection, for either of its sides.

use std::io::IoSlice;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bowline::testing::peer::Meddler;
use bowline::testing::shared_pki;
use bowline::{
    ClientTls, CloseLimit, CloseReport, Connector, Control, Error, Incoming, Policy, Reason, ServerTls, StartTls,
    TcpConnection, TlsConnection, TlsVersion, Transport, UpgradableConnection,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::sleep;

use crate::plan::{Dice, Ending, Fault, Kind, Plan, SidePlan, byte};

/// The configurations of TLS: each version, with each engine.
pub(crate) struct Configs {
    clients: [[ClientTls; 2]; 2],
    servers: [ServerTls; 2],
}

impl Configs {
    pub(crate) fn new() -> Result<Self, Error> {
        let client = |version| {
            let tls = shared_pki().client_tls_builder().min_version(version).max_version(version).build()?;
            Ok::<_, Error>([tls.clone(), tls.express()?])
        };
        let server = shared_pki().server_tls();
        let clients = [client(TlsVersion::V1_3)?, client(TlsVersion::V1_2)?];
        Ok(Self { clients, servers: [server.clone(), server.express()?] })
    }

    fn client(&self, plan: &Plan) -> &ClientTls {
        &self.clients[usize::from(plan.is_tls12)][usize::from(plan.express[0])]
    }

    fn server(&self, plan: &Plan) -> &ServerTls {
        &self.servers[usize::from(plan.express[1])]
    }
}

/// Each limit of both sides.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// The limits of both sides.
pub(crate) fn policy() -> Arc<Policy> {
    Policy::default().handshake_timeout(LIMIT).idle_timeout(LIMIT).close_timeout(LIMIT).into()
}

/// The observations of one side.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) received: u64,
    /// The number of the first byte that was wrong.
    pub(crate) wrong_at: Option<u64>,
    /// The peer's half has ended in order, as far as this side can tell.
    pub(crate) is_whole: bool,
    pub(crate) report: Option<CloseReport>,
    pub(crate) reason: &'static str,
}

impl Seen {
    pub(crate) fn reached_a_time_limit(&self) -> bool {
        let limit = self.report.as_ref().and_then(|report| report.limit);
        self.reason == "timed_out" || limit == Some(CloseLimit::Time)
    }

    fn nothing(error: &Error) -> Self {
        let reason = error.reason().map_or("none", Reason::name);
        Self { received: 0, wrong_at: None, is_whole: false, report: None, reason }
    }
}

type AnyConnection = Box<dyn Transport>;

/// Plays the client. It first sends the number of the connection, in plaintext. Returns the proxy, if there is one:
/// dropping it ends the connection, so it has to live until the server has ended too.
pub(crate) async fn client(
    configs: &Configs,
    plan: &Plan,
    number: u64,
    server: std::net::SocketAddr,
) -> Result<(Seen, Option<Meddler>), Error> {
    let meddler = match plan.fault {
        Some((to_server, fault)) => {
            let meddler = Meddler::to(server).await?;
            let direction = if to_server { meddler.to_server() } else { meddler.to_client() };
            match fault {
                Fault::Fin(at) => direction.fin_after(at),
                Fault::Rst(at) => direction.rst_after(at),
                Fault::Stall(at) => direction.stall_after(at),
                Fault::Corrupt(at) => direction.corrupt(at + 8),
                Fault::Slow => direction.slow(1_000_000),
            };
            Some(meddler)
        }
        None => None,
    };
    let addr = meddler.as_ref().map_or(server, Meddler::addr);
    let mut tcp = Connector::new().policy(policy()).connect_addr(addr).await?;
    tcp.write_all(&number.to_be_bytes()).await?;
    let tls = configs.client(plan);
    let start = || StartTls::client(tls, "localhost");
    let conn = match open(tcp, plan.kind, start, |tcp| TlsConnection::connect(tcp, tls, "localhost")).await {
        Ok(conn) => conn,
        Err(error) => return Ok((Seen::nothing(&error), meddler)),
    };
    Ok((talk(conn, &plan.client, &plan.server, number, true).await, meddler))
}

/// Reads the number of a connection.
pub(crate) async fn number(incoming: Incoming) -> Result<(TcpConnection, u64), Error> {
    let mut tcp = incoming.into_tcp();
    let mut number = [0; 8];
    tcp.read_exact(&mut number).await?;
    Ok((tcp, u64::from_be_bytes(number)))
}

pub(crate) async fn server(configs: &Configs, plan: &Plan, number: u64, tcp: TcpConnection) -> Seen {
    let tls = configs.server(plan);
    match open(tcp, plan.kind, || StartTls::server(tls), |tcp| TlsConnection::accept(tcp, tls)).await {
        Ok(conn) => talk(conn, &plan.server, &plan.client, number, false).await,
        Err(error) => Seen::nothing(&error),
    }
}

async fn open<F>(
    tcp: TcpConnection,
    kind: Kind,
    start: impl Fn() -> StartTls,
    tls: impl FnOnce(TcpConnection) -> F,
) -> Result<AnyConnection, Error>
where
    F: Future<Output = Result<TlsConnection<TcpConnection>, Error>>,
{
    let sessions = match kind {
        Kind::Plain => return Ok(Box::new(tcp)),
        Kind::Tls => return Ok(Box::new(tls(tcp).await?)),
        Kind::Upgraded | Kind::Downgraded => 1,
        Kind::Nested => 2,
    };
    let mut conn = UpgradableConnection::new(tcp);
    for _ in 0..sessions {
        // A client refuses all bytes that come before its ClientHello, so the server waits for the ClientHello.
        conn.start_tls(start()).await?;
    }
    if kind == Kind::Downgraded {
        conn.stop_tls().await?;
    }
    Ok(Box::new(conn))
}

/// Sends and receives at once, and ends as planned.
async fn talk(mut conn: AnyConnection, ours: &SidePlan, theirs: &SidePlan, number: u64, is_client: bool) -> Seen {
    let control = conn.control();
    let received = exchange(&mut conn, ours, theirs, number, is_client).await;
    let report = match ours.ending {
        Ending::HalfClose | Ending::Close if number % 5 == 0 => Some(close_by_handle(conn, &control).await),
        Ending::HalfClose | Ending::Close => Some(conn.close().await),
        Ending::Abort(_) => {
            control.abort();
            Some(conn.close().await)
        }
        Ending::Drop(_) => {
            drop(conn);
            control.report().cloned()
        }
    };
    let reason = report.as_ref().map_or("none", |report| report.reason.name());
    let Received { bytes, wrong_at, is_whole } = received;
    Seen { received: bytes, wrong_at, is_whole, report, reason }
}

/// Sends and receives at once.
async fn exchange(
    conn: &mut AnyConnection,
    ours: &SidePlan,
    theirs: &SidePlan,
    number: u64,
    is_client: bool,
) -> Received {
    let (mut read, mut write) = tokio::io::split(conn);
    let mut received = Received { bytes: 0, wrong_at: None, is_whole: false };
    let closes_early = ours.ending != Ending::HalfClose;
    let sending = async {
        let sent = send(&mut write, ours, number, is_client).await;
        if sent.is_ok() && !closes_early {
            let _ = write.shutdown().await;
        }
    };
    let mut sending = pin!(sending);
    if closes_early {
        // The side reads until it has sent everything.
        tokio::select! {
            () = &mut sending => {}
            () = receive(&mut read, theirs, number, !is_client, &mut received) => sending.await,
        }
    } else {
        tokio::join!(sending, receive(&mut read, theirs, number, !is_client, &mut received));
    }
    received
}

/// Another task closes the connection with its `Control`, while this task holds it.
async fn close_by_handle(conn: AnyConnection, control: &Control) -> CloseReport {
    let control = control.clone();
    let report = tokio::spawn(async move { control.close().await }).await;
    drop(conn);
    report.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}

/// Writes all of our bytes, in pieces of any size and in any way.
async fn send(
    write: &mut (impl AsyncWrite + Unpin),
    plan: &SidePlan,
    number: u64,
    is_client: bool,
) -> Result<(), Error> {
    let mut dice = plan.dice.clone();
    let end = match plan.ending {
        Ending::HalfClose | Ending::Close => plan.bytes,
        Ending::Abort(bytes) | Ending::Drop(bytes) => bytes,
    };
    let mut at = 0;
    while at < end {
        let longest = [10, 1_000, 20_000, 200_000][dice.below(4) as usize];
        let piece: Vec<u8> =
            (at..end.min(at + 1 + dice.below(longest))).map(|at| byte(number, is_client, at)).collect();
        match dice.below(4) {
            0 => write_in_parts(write, &piece, &mut dice).await?,
            1 => {
                write.write_all(&piece).await?;
                write.flush().await?;
            }
            _ => write.write_all(&piece).await?,
        }
        at += piece.len() as u64;
        if dice.below(50) == 0 {
            sleep(Duration::from_millis(dice.below(100))).await;
        }
    }
    Ok(())
}

async fn write_in_parts(write: &mut (impl AsyncWrite + Unpin), piece: &[u8], dice: &mut Dice) -> Result<(), Error> {
    let mut rest = piece;
    while !rest.is_empty() {
        let (first, second) = rest.split_at(dice.below(rest.len() as u64 + 1) as usize);
        let n = write.write_vectored(&[IoSlice::new(first), IoSlice::new(second)]).await?;
        rest = &rest[n..];
    }
    Ok(())
}

struct Received {
    bytes: u64,
    wrong_at: Option<u64>,
    is_whole: bool,
}

/// Reads to the end, and compares each byte.
async fn receive(
    read: &mut (impl AsyncRead + Unpin),
    plan: &SidePlan,
    number: u64,
    is_client: bool,
    received: &mut Received,
) {
    let mut dice = plan.dice.clone();
    let mut space = vec![0; 200 + dice.below(30_000) as usize];
    loop {
        match read.read(&mut space).await {
            Ok(0) => {
                received.is_whole = true;
                return;
            }
            Ok(n) => {
                for read in &space[..n] {
                    let is_wrong = *read != byte(number, is_client, received.bytes) || received.bytes >= plan.bytes;
                    if is_wrong && received.wrong_at.is_none() {
                        received.wrong_at = Some(received.bytes);
                    }
                    received.bytes += 1;
                }
            }
            Err(_) => return,
        }
        if dice.below(500) == 0 {
            sleep(Duration::from_millis(dice.below(100))).await;
        }
    }
}
