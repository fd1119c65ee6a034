//! A cell of the matrix of faults: a kind of connection, a phase of it, and the fault that occurs in this phase.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::{Arc, LazyLock};
use std::task::Poll;
use std::time::Duration;

use bowline::rustls::client::Resumption;
use bowline::rustls::server::NoServerSessionStorage;
use bowline::starttls::{Client, Dialogue, Server};
use bowline::testing::shared_pki;
use bowline::{
    Address, ClientTls, CloseReport, Control, Error, Policy, Reason, ServerTls, StartTls, Stream, TlsConnection,
    TlsVersion, Transport, UpgradableConnection,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use crate::peer::{Peer, Task};
use crate::wire::{Knob, Wire, wire};

pub(crate) const HANDSHAKE: Duration = Duration::from_secs(5);
pub(crate) const CLOSE: Duration = Duration::from_secs(3);
pub(crate) const IDLE: Duration = Duration::from_secs(10);
const DISCARD: u64 = 256 << 10;
/// The data of each side: longer than one record of the peer.
const OURS: [u8; 700] = [b'o'; 700];
pub(crate) const THEIRS: [u8; 1000] = [b't'; 1000];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Fin,
    Rst,
    /// No byte of the peer arrives any more, and our bytes are lost.
    Silence,
    Garbage,
    /// The bytes of both directions arrive in segments of this size.
    Pieces(usize),
    /// One byte of the peer arrives each second.
    Drip,
    /// The peer sends records that contain no data, without end.
    TalkRaw,
    /// The peer sends data without end.
    Talk,
    /// The peer accepts nothing more.
    Stall,
    BrokenPipe,
    NoBufferSpace,
}

impl Fault {
    /// Whether the peer's bytes no longer arrive.
    pub(crate) fn cuts(self) -> bool {
        matches!(self, Self::Fin | Self::Rst | Self::Silence | Self::Garbage | Self::TalkRaw)
    }

    /// The error that a call of ours that sends gets.
    pub(crate) fn error(self) -> Option<io::Error> {
        match self {
            Self::BrokenPipe => Some(io::ErrorKind::BrokenPipe.into()),
            // This stands for ENOBUFS, whose number differs between systems.
            Self::NoBufferSpace => Some(io::Error::other("no buffer space available")),
            _ => None,
        }
    }
}

/// The layers of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Plain,
    Tls,
    /// Upgraded after a dialogue in plaintext.
    Upgraded,
    /// TLS in TLS.
    Nested,
}

/// A kind of connection, as our side sees it. The peer has the other role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) side: Side,
    pub(crate) shape: Shape,
    pub(crate) version: TlsVersion,
    pub(crate) express: bool,
}

impl Kind {
    pub(crate) fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for side in [Side::Client, Side::Server] {
            all.push(Self { side, shape: Shape::Plain, version: TlsVersion::V1_3, express: false });
            for shape in [Shape::Tls, Shape::Upgraded, Shape::Nested] {
                for version in [TlsVersion::V1_2, TlsVersion::V1_3] {
                    all.extend([false, true].map(|express| Self { side, shape, version, express }));
                }
            }
        }
        all
    }

    pub(crate) fn is_tls(self) -> bool {
        self.shape != Shape::Plain
    }

    fn configs(self) -> (ClientTls, ServerTls) {
        static CONFIGS: LazyLock<Vec<(ClientTls, ServerTls)>> = LazyLock::new(|| {
            let make = |version| {
                let client = shared_pki().client_tls_builder().min_version(version).max_version(version);
                // Each handshake is a full one.
                let client = client.customize(|config| config.resumption = Resumption::disabled());
                let server = shared_pki().server_tls_builder().send_tickets(0);
                let server = server.customize(|config| config.session_storage = Arc::new(NoServerSessionStorage {}));
                (client.build().unwrap(), server.build().unwrap())
            };
            [TlsVersion::V1_2, TlsVersion::V1_3].map(make).into()
        });
        CONFIGS[usize::from(self.version == TlsVersion::V1_3)].clone()
    }

    /// Our configurations, one of which is used.
    pub(crate) fn configs_of_engine(self) -> (ClientTls, ServerTls) {
        let (client, server) = self.configs();
        if self.express { (client.express().unwrap(), server.express().unwrap()) } else { (client, server) }
    }

    pub(crate) fn start(self) -> StartTls {
        let (client, server) = self.configs_of_engine();
        match self.side {
            Side::Client => StartTls::client(&client, "localhost"),
            Side::Server => StartTls::server(&server),
        }
    }

    pub(crate) fn peers_start(self) -> StartTls {
        let (client, server) = self.configs();
        match self.side {
            Side::Client => StartTls::server(&server),
            Side::Server => StartTls::client(&client, "localhost"),
        }
    }

    /// Whether our side sends the last flight of a handshake.
    pub(crate) fn sends_last(self) -> bool {
        (self.side == Side::Client) == (self.version == TlsVersion::V1_3)
    }

    /// The number of flights that the peer sends in a handshake.
    pub(crate) fn flights(self) -> usize {
        if self.side == Side::Client && self.version == TlsVersion::V1_3 { 1 } else { 2 }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The dialogue before TLS.
    Prelude,
    /// The peer's flight with this number in the last handshake. The fault occurs before its first byte, or inside of
    /// it.
    Flight {
        number: usize,
        inside: bool,
    },
    Data,
    /// Our half has ended.
    HalfUs,
    /// The peer's half has ended.
    HalfPeer,
    Closing,
    Downgrading,
    /// The call with this number, of our calls that send while a connection opens, exchanges data and closes.
    Call(usize),
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Cell {
    pub(crate) kind: Kind,
    pub(crate) phase: Phase,
    /// `None`: no fault occurs.
    pub(crate) fault: Option<Fault>,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Kind { side, shape, version, express } = self.kind;
        let engine = if express { "express" } else { "rustls" };
        write!(f, "{side:?} {shape:?} {version:?} {engine}, {:?}, {:?}", self.phase, self.fault)
    }
}

/// The step in which a call of ours was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Begin,
    Data,
    Close,
}

/// The events of one cell, as our side has seen them: failures, the report, the data, and the calls made.
#[derive(Debug)]
pub(crate) struct Seen {
    /// The error of the call that met the fault, if it failed.
    pub(crate) failed: Option<Error>,
    /// The first report.
    pub(crate) report: CloseReport,
    /// The peer's data.
    pub(crate) data: Vec<u8>,
    pub(crate) took: Duration,
    /// The number of our calls that sent, at the end of each step.
    pub(crate) calls: Vec<(Step, usize)>,
    /// Our end of the wire still exists after the connection was dropped.
    pub(crate) is_leaked: bool,
}

enum Conn {
    Plain(Stream<Wire>),
    Tls(TlsConnection<Stream<Wire>>),
    Up(UpgradableConnection<Stream<Wire>>),
}

impl Conn {
    fn any(&mut self) -> &mut dyn Transport {
        match self {
            Self::Plain(conn) => conn,
            Self::Tls(conn) => conn,
            Self::Up(conn) => conn,
        }
    }
}

/// Runs the future until it waits, and returns its output if it does not.
async fn begin<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// Our side of a wire, with its limits.
pub(crate) fn near(wire: Wire) -> Stream<Wire> {
    let name = || Address::Other("memory".into());
    let policy = Policy::default().handshake_timeout(HANDSHAKE).close_timeout(CLOSE).idle_timeout(IDLE);
    Stream::with(wire, name(), name(), policy.close_discard(DISCARD)).wakes_unlocked()
}

struct Run {
    cell: Cell,
    peer: Peer,
    knob: Knob,
    control: Option<Control>,
    data: Vec<u8>,
    calls: Vec<(Step, usize)>,
}

impl Cell {
    pub(crate) fn run(self) -> Seen {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let (wire, far, knob) = wire();
            let peer = Peer::new(far);
            let mut run = Run { cell: self, peer, knob, control: None, data: Vec::new(), calls: Vec::new() };
            let begun = Instant::now();
            let failed = run.play(wire).await.err();
            let took = begun.elapsed();
            let report = run.control.as_ref().and_then(|control| control.report().cloned());
            let report = report.unwrap_or_else(|| panic!("{self}: there is no report"));
            let is_leaked = run.knob.is_held();
            Seen { failed, report, data: run.data, took, calls: run.calls, is_leaked }
        })
    }
}

impl Run {
    async fn play(&mut self, wire: Wire) -> Result<(), Error> {
        let kind = self.cell.kind;
        let stream = near(wire);
        self.control = Some(stream.control());
        if let (Phase::Call(number), Some(fault)) = (self.cell.phase, self.cell.fault) {
            self.knob.at_call(number, fault);
        }
        let mut conn = match kind.shape {
            Shape::Plain => Conn::Plain(stream),
            Shape::Tls => {
                let told = self.peer.tell(Task::StartTls(kind.peers_start()));
                self.arm();
                let (client, server) = kind.configs_of_engine();
                let conn = match kind.side {
                    Side::Client => TlsConnection::connect(stream, &client, "localhost").await?,
                    Side::Server => TlsConnection::accept(stream, &server).await?,
                };
                self.wait(told).await;
                Conn::Tls(conn)
            }
            Shape::Upgraded | Shape::Nested => {
                let mut conn = UpgradableConnection::new(stream);
                let opened = self.open(&mut conn).await;
                if opened.is_err() {
                    self.end(&mut conn).await;
                }
                opened?;
                Conn::Up(conn)
            }
        };
        self.calls.push((Step::Begin, self.knob.calls()));
        let done = match self.cell.phase {
            Phase::Downgrading => match &mut conn {
                Conn::Up(conn) => self.downgrade(conn).await,
                Conn::Plain(_) | Conn::Tls(_) => panic!("this connection cannot be downgraded"),
            },
            Phase::HalfUs => self.half_us(conn.any()).await,
            Phase::HalfPeer => self.half_peer(conn.any()).await,
            Phase::Closing => {
                self.closing(conn.any()).await;
                Ok(())
            }
            Phase::Data | Phase::Prelude | Phase::Flight { .. } | Phase::Call(_) => self.data(conn.any()).await,
        };
        self.calls.push((Step::Data, self.knob.calls()));
        self.end(conn.any()).await;
        self.calls.push((Step::Close, self.knob.calls()));
        done
    }

    /// Everything before the last handshake, and that handshake.
    async fn open(&mut self, conn: &mut UpgradableConnection<Stream<Wire>>) -> Result<(), Error> {
        let kind = self.cell.kind;
        match kind.shape {
            Shape::Nested => {
                let told = self.peer.tell(Task::StartTls(kind.peers_start()));
                conn.start_tls(kind.start()).await?;
                self.wait(told).await;
            }
            Shape::Plain | Shape::Tls | Shape::Upgraded => {
                let theirs = if kind.side == Side::Client { Side::Server } else { Side::Client };
                if let (Phase::Prelude, Some(fault)) = (self.cell.phase, self.cell.fault) {
                    self.knob.inject(fault);
                }
                let told = self.peer.tell(Task::Negotiate(theirs));
                match kind.side {
                    Side::Client => Client::new(Dialogue::Smtp, "localhost").negotiate(conn).await?,
                    Side::Server => Server::new(Dialogue::Smtp).negotiate(conn).await?,
                }
                self.wait(told).await;
            }
        }
        self.arm();
        let told = self.peer.tell(Task::StartTls(kind.peers_start()));
        conn.start_tls(kind.start()).await?;
        self.wait(told).await;
        Ok(())
    }

    /// Waits for the peer, if it can succeed.
    async fn wait(&self, told: tokio::sync::oneshot::Receiver<()>) {
        let _ = tokio::time::timeout(Duration::from_millis(900), told).await;
    }

    fn arm(&self) {
        if let (Phase::Flight { number, inside }, Some(fault)) = (self.cell.phase, self.cell.fault) {
            self.knob.arm(number, if inside { 7 } else { 0 }, fault);
        }
    }

    fn inject(&self) {
        if let Some(fault) = self.cell.fault.filter(|_| !matches!(self.cell.phase, Phase::Call(_))) {
            self.knob.inject(fault);
        }
    }

    /// The peer sends its data, or talks without end.
    fn let_talk(&self) {
        match self.cell.fault {
            Some(Fault::Talk) => drop(self.peer.tell(Task::Talk)),
            _ => drop(self.peer.tell(Task::Send(THEIRS.into()))),
        }
    }

    async fn data(&mut self, conn: &mut dyn Transport) -> Result<(), Error> {
        if self.cell.phase == Phase::Data {
            self.inject();
        }
        self.let_talk();
        self.peer.tell(Task::ReadAll);
        self.peer.tell(Task::Close);
        conn.write_all(&OURS).await?;
        conn.flush().await?;
        self.read(conn, THEIRS.len()).await
    }

    async fn read(&mut self, conn: &mut dyn Transport, most: usize) -> Result<(), Error> {
        let mut space = [0; 1000];
        while self.data.len() < most {
            match conn.read(&mut space).await? {
                0 => break,
                n => self.data.extend(&space[..n]),
            }
        }
        Ok(())
    }

    async fn half_us(&mut self, conn: &mut dyn Transport) -> Result<(), Error> {
        conn.write_all(&OURS).await?;
        conn.close_write().await?;
        let told = self.peer.tell(Task::ReadAll);
        self.wait(told).await;
        self.inject();
        self.let_talk();
        self.peer.tell(Task::Close);
        self.read(conn, 10 * THEIRS.len()).await
    }

    async fn half_peer(&mut self, conn: &mut dyn Transport) -> Result<(), Error> {
        self.peer.tell(Task::Send(THEIRS.into()));
        let told = self.peer.tell(Task::CloseWrite);
        self.wait(told).await;
        self.read(conn, 10 * THEIRS.len()).await?;
        self.inject();
        self.peer.tell(Task::ReadAll);
        self.peer.tell(Task::Close);
        conn.write_all(&OURS).await?;
        Ok(())
    }

    async fn closing(&mut self, conn: &mut dyn Transport) {
        conn.write_all(&OURS).await.unwrap();
        if self.cell.fault == Some(Fault::Stall) {
            self.inject();
        }
        let mut close = conn.close();
        if begin(&mut close).await.is_some() {
            panic!("{}: the close did not wait for the peer", self.cell);
        }
        self.inject();
        if self.cell.fault == Some(Fault::Talk) {
            self.let_talk();
        }
        self.peer.tell(Task::ReadAll);
        self.peer.tell(Task::Close);
        close.await;
    }

    async fn downgrade(&mut self, conn: &mut UpgradableConnection<Stream<Wire>>) -> Result<(), Error> {
        let stopped = {
            let mut stopping = pin!(conn.stop_tls());
            if begin(&mut stopping).await.is_some() {
                panic!("{}: the downgrade did not wait for the peer", self.cell);
            }
            self.inject();
            if self.cell.fault == Some(Fault::Talk) {
                self.let_talk();
            }
            self.peer.tell(Task::StopTls);
            self.peer.tell(Task::Send(THEIRS.into()));
            self.peer.tell(Task::ReadAll);
            self.peer.tell(Task::Close);
            stopping.await
        };
        stopped?;
        self.read(conn, THEIRS.len()).await
    }

    /// Closes, and checks that every later call agrees on the end.
    async fn end(&mut self, conn: &mut dyn Transport) {
        let cell = self.cell;
        let report = conn.close().await;
        let name = report.reason.name();
        assert_eq!(conn.close().await.reason.name(), name, "{cell}: a second close");
        let kept = self.control.as_ref().and_then(|control| control.report()).unwrap();
        assert_eq!(kept.reason.name(), name, "{cell}: the report of the handle");
        assert!(conn.status().reason.is_some_and(|reason| reason.name() == name), "{cell}: the status");
        assert!(conn.write(b"x").await.is_err(), "{cell}: a write after the end");
        assert!(!matches!(conn.read(&mut [0; 1]).await, Ok(1..)), "{cell}: a read after the end");
    }
}

/// The reason of an error.
pub(crate) fn reason(error: &Error) -> Reason {
    error.clone().into()
}
