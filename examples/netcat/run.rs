//! One run: connect, upgrade, pipe, close.

use std::cell::{Cell, OnceCell, RefCell};

use bowline::starttls::Client;
use bowline::{
    ClientTls, CloseReport, Connector, Control, EndpointKind, Error, Phase, Policy, Reason, StartTls, TcpConnection,
    TlsTransport, Transport, UpgradableConnection, UpgradeError, chain,
};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use crate::args::{Args, Trust};
use crate::common::args::Usage;
use crate::common::info::{Fields, info};
use crate::pipe;

/// How a run ended.
pub(crate) struct Outcome {
    pub(crate) reason: &'static str,
    pub(crate) detail: String,
    pub(crate) status: i32,
}

impl Outcome {
    fn new(reason: &Reason, status: i32) -> Self {
        Self { reason: reason.name(), detail: chain(reason).to_string(), status }
    }

    /// The detail of a closed connection: also names the limit that ended the close, if one did.
    fn of(report: &CloseReport, status: i32) -> Self {
        let outcome = Self::new(&report.reason, status);
        if report.limit.is_some() { Self { detail: report.to_string(), ..outcome } } else { outcome }
    }
}

/// The facts of a run, at any moment.
pub(crate) struct Progress {
    pub(crate) sent: Cell<u64>,
    pub(crate) received: Cell<u64>,
    /// Standard input has ended.
    pub(crate) input_ended: Cell<bool>,
    phase: Cell<Phase>,
    info: RefCell<Fields>,
    control: OnceCell<Control>,
}

impl Progress {
    pub(crate) fn new(args: &Args) -> Self {
        let unknown = ["host", "peer", "version", "cipher", "group", "alpn", "sni", "resumed", "peer_subject"];
        let mut info = vec![("kind", json!(args.kind())), ("secure", json!(false))];
        info.extend(unknown.map(|name| (name, Value::Null)));
        Self {
            sent: Cell::default(),
            received: Cell::default(),
            input_ended: Cell::default(),
            phase: Cell::new(Phase::Connect),
            info: RefCell::new(info),
            control: OnceCell::new(),
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase.get()
    }

    pub(crate) fn fields(&self) -> Fields {
        let mut fields = vec![("sent", json!(self.sent.get())), ("received", json!(self.received.get()))];
        fields.extend(self.info.borrow().iter().cloned());
        fields
    }

    /// Whether data was sent, our input has ended, and nothing came back.
    pub(crate) fn has_no_answer(&self) -> bool {
        self.sent.get() > 0 && self.input_ended.get() && self.received.get() == 0
    }

    /// Ends the run from outside.
    pub(crate) fn abort(&self, reason: &Reason, status: i32) -> Outcome {
        if let Some(control) = self.control.get() {
            control.abort();
        }
        Outcome::new(reason, status)
    }

    fn note(&self, args: &Args, connection: &impl Transport, phase: Phase) {
        self.phase.set(phase);
        let (host, peer) = (connection.local_addr(), connection.peer_addr());
        let facts = connection.as_tls().and_then(TlsTransport::tls);
        self.info.replace(info(args.kind(), &host, &peer, facts.as_deref()));
        let _ = self.control.set(connection.control());
    }
}

/// `None` without TLS.
pub(crate) fn client_tls(args: &Args) -> Result<Option<ClientTls>, Usage> {
    if !args.is_tls() {
        return Ok(None);
    }
    let mut builder = match &args.trust {
        Trust::Ca(file) => ClientTls::builder().roots_pem_file(file),
        Trust::Platform => ClientTls::builder().platform_roots(),
        Trust::Anybody => ClientTls::builder().dangerous_no_verification(),
    };
    if let Some((cert, key)) = &args.identity {
        builder = builder.identity_pem_files(cert, key);
    }
    if let Some(version) = args.only {
        builder = builder.min_version(version).max_version(version);
    }
    bowline::config::server_name(args.name()).map_err(Usage::of)?;
    builder.alpn(&args.alpn).build().map(Some).map_err(Usage::of)
}

/// Everything from the connect to the close.
pub(crate) async fn run(args: &Args, tls: Option<&ClientTls>, progress: &Progress) -> Outcome {
    let deadline = args.endpoint.timeout().and_then(|timeout| Instant::now().checked_add(timeout));
    let tcp = match connect(args).await {
        Ok(tcp) => tcp,
        Err(error) => return Outcome { reason: "io", detail: chain(&error).to_string(), status: 7 },
    };
    progress.note(args, &tcp, Phase::Handshake);
    let begun = begin(args, tls, tcp);
    let mut connection = match in_time(deadline, begun).await {
        Ok(connection) => connection,
        Err(failure) => return failure.outcome(),
    };
    if let Some(tls) = tls {
        if let Err(failure) = in_time(deadline, secure(args, tls, &mut connection)).await {
            progress.note(args, &connection, Phase::Close);
            if failure.is_out_of_time() {
                // The connection is aborted first, because a close would wait for its own time limit.
                connection.control().abort();
            }
            connection.close().await;
            return failure.outcome();
        }
    }
    progress.note(args, &connection, Phase::Open);
    let piped = pipe::pipe(args, progress, connection).await;
    match piped {
        Ok(report) if args.abort_after.is_some_and(|n| progress.received.get() >= n) => Outcome::of(&report, 0),
        // The peer ended cleanly. The reason says what happened to our last bytes.
        Ok(report) if report.marker_received() => Outcome::of(&report, 0),
        Ok(report) => Outcome::of(&report, status(&report.reason)),
        Err(error) => Outcome { reason: "io", detail: chain(&error).to_string(), status: 1 },
    }
}

async fn connect(args: &Args) -> Result<TcpConnection, Error> {
    // rule: flow-7: if we are killed, the data of a pipe must not look complete.
    let mut policy = Policy::default().reset_when_killed(true);
    if let Some(bound) = args.close_timeout {
        policy = policy.close_timeout(bound);
    }
    let mut connector = Connector::new().policy(policy);
    if let Some(timeout) = args.endpoint.timeout() {
        connector = connector.timeout(timeout);
    }
    if let Some(local) = args.endpoint.bind() {
        connector = connector.bind_to(local);
    }
    connector.connect(&args.host, args.port).await
}

/// The endpoint's one deadline bounds all steps before data: the plaintext part and the handshake.
async fn in_time<T>(deadline: Option<Instant>, step: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    match deadline {
        Some(deadline) => timeout_at(deadline, step).await.unwrap_or_else(|_| Err(Failure::out_of_time())),
        None => step.await,
    }
}

/// Starts TLS if the endpoint requires it.
async fn begin(
    args: &Args,
    tls: Option<&ClientTls>,
    tcp: TcpConnection,
) -> Result<UpgradableConnection<TcpConnection>, Failure> {
    match tls.filter(|_| args.endpoint.kind() == EndpointKind::Tls) {
        Some(tls) => UpgradableConnection::connect(tcp, tls, args.name()).await.map_err(Failure),
        None => Ok(UpgradableConnection::new(tcp)),
    }
}

/// The reason why TLS did not start.
struct Failure(Error);

impl Failure {
    fn out_of_time() -> Self {
        Self(Reason::TimedOut(Phase::Handshake).into())
    }

    fn is_out_of_time(&self) -> bool {
        matches!(self.0.reason(), Some(Reason::TimedOut(_)))
    }

    fn outcome(self) -> Outcome {
        let is_refused = matches!(&self.0, Error::Upgrade(UpgradeError::Leftover { .. } | UpgradeError::Dialogue(_)));
        let reason = self.0.into();
        Outcome::new(&reason, if is_refused { 8 } else { status(&reason) })
    }
}

/// The plaintext protocol and the handshake after it, if there is one.
async fn secure(
    args: &Args,
    tls: &ClientTls,
    connection: &mut UpgradableConnection<TcpConnection>,
) -> Result<(), Failure> {
    let Some(by) = &args.starttls else { return Ok(()) };
    Client::new(by.clone(), args.name()).negotiate(connection).await.map_err(Failure)?;
    let mut how = StartTls::client(tls, args.name());
    if let Some(leftover) = args.leftover {
        how = how.leftover(leftover);
    }
    connection.start_tls(how).await.map_err(Failure)
}

/// The exit status that goes with the end of a connection.
fn status(reason: &Reason) -> i32 {
    match reason {
        Reason::Closed => 0,
        Reason::Truncated(_) | Reason::Unconfirmed => 3,
        Reason::Reset(_) => 4,
        Reason::Tls(_) | Reason::KeyExhausted => 5,
        Reason::TimedOut(_) => 6,
        _ => 1,
    }
}
