//! How things fail, and how connections end.
//!
//! [`Reason`] says how a connection ended, [`Error`] why an operation failed. Both travel through [`io::Error`] and
//! back without loss (rule: end-1), so that code written against `AsyncRead` and `AsyncWrite` keeps the whole story.
//!
//! No error repeats its [`source`](StdError::source) in its own text (rule: end-1); [`chain`] prints all of it. Where an
//! error only wraps another one, it has the text and the source of that one.

mod chain;
mod connect;
mod not_tls;
#[cfg(test)]
mod tests;
mod upgrade;

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

pub use chain::chain;
pub use connect::{BindError, ConnectAttempt, ConnectError};
pub use not_tls::NotTls;
pub use upgrade::UpgradeError;

use crate::escape::printable;

/// Who caused an error: the first thing that somebody who reads a log wants to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Blame {
    /// Nobody: the connection ended in order.
    Nobody,
    /// This side: a call at the wrong time, a wrong configuration, an abort.
    Us,
    /// The other side of the connection.
    Peer,
    /// The other side's TLS: its certificate, its alert, its records.
    PeerTls,
    /// A deadline passed.
    Time,
    /// The operating system or the network.
    System,
}

/// What a connection was doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// Names are resolved, addresses are tried.
    Connect,
    /// The TLS handshake.
    Handshake,
    /// Open for data.
    Open,
    /// One half has ended, the other one is idle.
    HalfOpen,
    /// Open, and nothing moves in either direction.
    Idle,
    /// Closing: the last bytes leave, the peer's end is awaited.
    Close,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "connect",
            Self::Handshake => "handshake",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
            Self::Idle => "idle",
            Self::Close => "close",
        })
    }
}

/// How a connection ended. Every connection ends with exactly one of these (rule: end-1).
#[doc(alias = "ConnectionDone")]
#[doc(alias = "ConnectionLost")]
#[doc(alias = "ConnectionAborted")]
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Reason {
    /// In order: each side's marker reached the other one, and our last byte before it (rule: close-14).
    Closed,
    /// We closed in order, and the peer did not confirm it: its answer was not its marker, or it had ended before and its
    /// system has not acknowledged our last bytes. Nothing is known to be lost (rules: close-7, close-14).
    Unconfirmed,
    /// The layer below ended before the peer's marker came: what was received may be a part only.
    Truncated(Phase),
    /// The peer (or something between) sent RST.
    Reset(Phase),
    /// We called `abort`.
    Aborted,
    /// A deadline passed in this phase.
    TimedOut(Phase),
    /// TLS failed: an alert, a certificate, a record that breaks the protocol.
    Tls(Arc<TlsError>),
    /// TLS 1.2: our key has sealed as many records as its cipher suite allows, and this version cannot change the key.
    /// Written data that had not left is lost. The peer sees that the connection was cut off (rule: end-8): a fatal
    /// alert, or FIN without close_notify.
    KeyExhausted,
    /// The application dropped the connection before it had ended, without `close` or `abort` (rules: close-12,
    /// end-9).
    Dropped,
    /// The protocol above broke its contract, or refused to go on.
    Protocol(Arc<dyn StdError + Send + Sync>),
    /// The operating system reported something else.
    Io(Arc<io::Error>),
}

impl Reason {
    /// One lower-case word for logs and machine-readable output.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Unconfirmed => "unconfirmed",
            Self::Truncated(_) => "truncated",
            Self::Reset(_) => "reset",
            Self::Aborted => "aborted",
            Self::TimedOut(_) => "timed_out",
            Self::Tls(_) | Self::KeyExhausted => "tls",
            Self::Dropped => "dropped",
            Self::Protocol(_) => "protocol",
            Self::Io(_) => "io",
        }
    }

    /// Whether the connection ended in order, on both sides.
    pub fn is_clean(&self) -> bool {
        matches!(self, Self::Closed)
    }

    /// The phase in which it ended, where that is part of the reason.
    pub fn phase(&self) -> Option<Phase> {
        match self {
            Self::Truncated(phase) | Self::Reset(phase) | Self::TimedOut(phase) => Some(*phase),
            Self::Tls(error) => Some(error.phase),
            Self::Closed | Self::Unconfirmed | Self::Aborted | Self::KeyExhausted | Self::Dropped => None,
            Self::Protocol(_) | Self::Io(_) => None,
        }
    }

    /// Whose doing it was.
    pub fn blame(&self) -> Blame {
        match self {
            Self::Closed => Blame::Nobody,
            Self::Unconfirmed | Self::Truncated(_) | Self::Reset(_) => Blame::Peer,
            Self::Aborted | Self::KeyExhausted | Self::Dropped | Self::Protocol(_) => Blame::Us,
            Self::TimedOut(_) => Blame::Time,
            Self::Tls(_) => Blame::PeerTls,
            Self::Io(_) => Blame::System,
        }
    }

    /// The reason inside an [`io::Error`]: the one that was put there, else what its kind says.
    pub fn from_io(error: io::Error, phase: Phase) -> Self {
        if let Some(ours) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            return ours.clone().into();
        }
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Truncated(phase),
            // A write after the peer's RST says "broken pipe" where the RST itself was already told to somebody.
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Self::Reset(phase),
            io::ErrorKind::TimedOut => Self::TimedOut(phase),
            _ => Self::Io(Arc::new(error)),
        }
    }

    fn io_kind(&self) -> io::ErrorKind {
        match self {
            Self::Closed | Self::Unconfirmed => io::ErrorKind::NotConnected,
            Self::Truncated(_) => io::ErrorKind::UnexpectedEof,
            Self::Reset(_) => io::ErrorKind::ConnectionReset,
            Self::Aborted | Self::KeyExhausted | Self::Dropped => io::ErrorKind::ConnectionAborted,
            Self::TimedOut(_) => io::ErrorKind::TimedOut,
            Self::Tls(_) => io::ErrorKind::InvalidData,
            Self::Protocol(_) => io::ErrorKind::Other,
            // rule: life-6. These kinds ask a caller to repeat the call, but an ended connection always returns the same error.
            Self::Io(error) => match error.kind() {
                io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock => io::ErrorKind::Other,
                kind => kind,
            },
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("closed in order"),
            Self::Unconfirmed => f.write_str("closed; the peer did not confirm the end"),
            Self::Truncated(Phase::Handshake) => f.write_str("the peer ended the connection inside the handshake"),
            Self::Truncated(_) => f.write_str("truncated: the connection ended without the peer's close_notify"),
            Self::Reset(Phase::Handshake) => f.write_str("reset by the peer inside the handshake"),
            Self::Reset(_) => f.write_str("reset by the peer"),
            Self::Aborted => f.write_str("aborted by us"),
            Self::TimedOut(phase) => write!(f, "timed out in phase {phase}"),
            Self::Tls(error) => error.fmt(f),
            Self::KeyExhausted => f.write_str("cut off by us: the TLS 1.2 key has sealed as many records as it may"),
            Self::Dropped => f.write_str("dropped by us without a close"),
            // rule: tcp-11: only the application and the system know what the message contains.
            Self::Protocol(error) => printable(error).fmt(f),
            Self::Io(error) => printable(error).fmt(f),
        }
    }
}

impl StdError for Reason {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Tls(error) => error.source(),
            Self::Protocol(error) => error.source(),
            Self::Io(error) => error.source(),
            Self::Closed
            | Self::Unconfirmed
            | Self::Truncated(_)
            | Self::Reset(_)
            | Self::Aborted
            | Self::KeyExhausted
            | Self::Dropped
            | Self::TimedOut(_) => None,
        }
    }
}

/// A failure of TLS itself.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TlsError {
    /// When it happened.
    pub phase: Phase,
    /// What rustls says: [`rustls::Error::AlertReceived`] where the peer told us, anything else where we told the peer.
    pub error: rustls::Error,
    /// The alert that we sent, where one was due.
    pub alert_sent: Option<rustls::AlertDescription>,
    /// The protocol that the peer spoke instead of TLS, if it did not begin with TLS. `error` then only says that the bytes
    /// were not a TLS record.
    pub not_tls: Option<NotTls>,
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TLS failed in phase {}", self.phase)?;
        if let Some(not_tls) = &self.not_tls {
            write!(f, ": {not_tls}")?;
        }
        match self.alert_sent {
            Some(alert) => write!(f, " (alert {alert:?} sent)"),
            None => Ok(()),
        }
    }
}

impl From<TlsError> for Reason {
    fn from(error: TlsError) -> Self {
        Self::Tls(Arc::new(error))
    }
}

impl StdError for TlsError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        // "Corrupt message" would hide the cause.
        self.not_tls.is_none().then_some(&self.error as _)
    }
}

/// Why an operation failed. Each variant says whose fault it is by [`Error::blame`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Error {
    /// The connection has ended.
    Ended(Reason),
    /// A write after `close_write` or `close`: our own send half has ended (rule: write-4).
    SendClosed,
    /// The transport beneath has no such operation (a socket option on a transport that has no socket).
    Unsupported(&'static str),
    /// A producer is registered already (rule: flow-1).
    Producer,
    /// `start_tls` or `stop_tls` could not be done.
    Upgrade(UpgradeError),
    /// The TLS configuration cannot be used.
    Config(ConfigError),
    /// No address could be connected to.
    Connect(ConnectError),
    /// A listener could not be opened.
    Bind(BindError),
    /// An endpoint string could not be read.
    Endpoint(EndpointError),
    /// The group drains: its listeners let nobody in, and no handshake is begun or finished.
    Draining,
}

impl Error {
    /// Whose fault it is.
    pub fn blame(&self) -> Blame {
        match self {
            Self::Ended(reason) => reason.blame(),
            Self::SendClosed | Self::Unsupported(_) | Self::Producer | Self::Draining => Blame::Us,
            Self::Config(_) | Self::Endpoint(_) => Blame::Us,
            Self::Upgrade(error) => error.blame(),
            Self::Connect(error) if error.timed_out => Blame::Time,
            Self::Connect(_) | Self::Bind(_) => Blame::System,
        }
    }

    /// The connection's end, where this error is one.
    pub fn reason(&self) -> Option<&Reason> {
        match self {
            Self::Ended(reason) | Self::Upgrade(UpgradeError::Failed(reason)) => Some(reason),
            // A connection that it hits is aborted.
            Self::Draining => Some(&Reason::Aborted),
            _ => None,
        }
    }

    fn io_kind(&self) -> io::ErrorKind {
        match self {
            Self::Ended(reason) => reason.io_kind(),
            Self::SendClosed => io::ErrorKind::BrokenPipe,
            Self::Unsupported(_) => io::ErrorKind::Unsupported,
            Self::Upgrade(UpgradeError::Failed(reason)) => reason.io_kind(),
            Self::Upgrade(UpgradeError::Leftover { .. }) => io::ErrorKind::InvalidData,
            Self::Producer | Self::Upgrade(_) | Self::Config(_) | Self::Endpoint(_) => io::ErrorKind::InvalidInput,
            Self::Connect(error) if error.timed_out => io::ErrorKind::TimedOut,
            Self::Connect(error) => error.attempts.last().map_or(io::ErrorKind::NotFound, |a| a.error.kind()),
            Self::Bind(error) => error.error.kind(),
            Self::Draining => io::ErrorKind::ConnectionAborted,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended(reason) => reason.fmt(f),
            Self::SendClosed => {
                f.write_str("our send half has ended: nothing can be written after close_write or close")
            }
            Self::Unsupported(what) => write!(f, "the transport beneath has no {what}"),
            Self::Producer => f.write_str("a producer is registered already"),
            Self::Upgrade(error) => error.fmt(f),
            Self::Config(error) => error.fmt(f),
            Self::Connect(error) => error.fmt(f),
            Self::Bind(error) => error.fmt(f),
            Self::Endpoint(error) => error.fmt(f),
            Self::Draining => f.write_str("draining: no new connections"),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Ended(reason) => reason.source(),
            Self::Upgrade(error) => error.source(),
            Self::Config(error) => error.source(),
            Self::Connect(error) => error.source(),
            Self::Bind(error) => error.source(),
            Self::Endpoint(error) => error.source(),
            Self::SendClosed | Self::Unsupported(_) | Self::Producer | Self::Draining => None,
        }
    }
}

impl From<Reason> for Error {
    fn from(reason: Reason) -> Self {
        Self::Ended(reason)
    }
}

impl From<Error> for Reason {
    /// How a connection ended that failed with this error: the end that the error tells of, also that inside a failed
    /// upgrade; else [`Reason::Protocol`] with the error in it.
    fn from(error: Error) -> Self {
        match error.reason() {
            Some(reason) => reason.clone(),
            None => Self::Protocol(Arc::new(error)),
        }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        Self::new(error.io_kind(), error)
    }
}

impl From<Reason> for io::Error {
    fn from(reason: Reason) -> Self {
        Error::Ended(reason).into()
    }
}

impl From<io::Error> for Error {
    /// Takes back the error that was put in; any other becomes [`Reason::Io`] or what its kind says.
    fn from(error: io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<Self>()) {
            Some(ours) => ours.clone(),
            None => Self::Ended(Reason::from_io(error, Phase::Open)),
        }
    }
}

macro_rules! error_from {
    ($($inner:ident => $variant:ident),* $(,)?) => {$(
        impl From<$inner> for Error {
            fn from(error: $inner) -> Self {
                Self::$variant(error)
            }
        }
    )*};
}
error_from!(
    UpgradeError => Upgrade,
    ConfigError => Config,
    ConnectError => Connect,
    BindError => Bind,
    EndpointError => Endpoint,
);

/// What is wrong with a TLS configuration, and in which file.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ConfigError {
    /// The file, where the input was one.
    pub file: Option<PathBuf>,
    /// The line in which the faulty part begins, counted from one, if the input was text.
    pub line: Option<usize>,
    /// What is wrong with it.
    pub problem: ConfigProblem,
    /// A description of what was found instead of the missing part.
    pub found: Option<String>,
}

/// The mistakes that are made with certificates and keys.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ConfigProblem {
    /// The file could not be read.
    Unreadable(Arc<io::Error>),
    /// Something that is not PEM where PEM was expected.
    BadPem(String),
    /// No `CERTIFICATE` section in it.
    NoCertificate,
    /// No private key in it.
    NoKey,
    /// The private key is encrypted: decrypt it first.
    EncryptedKey,
    /// The input holds more than one private key.
    SeveralKeys {
        /// The line in which the first one begins; [`ConfigError::line`] is that of the second.
        first: usize,
    },
    /// The private key is of a kind, or in a form, that the crypto provider does not take.
    UnusableKey(String),
    /// The key is that of another certificate.
    KeyMismatch,
    /// The certificate that the key belongs to is not the first one of the chain.
    ChainOrder {
        /// Its place in the chain, counted from one.
        position: usize,
    },
    /// A server without a certificate and its key.
    NoIdentity,
    /// A certificate that cannot be parsed, or that cannot be a root.
    BadCertificate(String),
    /// A list of revoked certificates that cannot be parsed.
    BadRevocationList(String),
    /// No root certificate to trust: nobody could be verified.
    NoRoots,
    /// Neither a crypto provider was given nor a feature enabled that brings one.
    NoProvider,
    /// What was asked for does not go together.
    Contradiction(String),
    /// The name of a server that is neither a DNS name nor an IP address.
    BadServerName(String),
}

impl ConfigError {
    pub(crate) fn new(file: Option<PathBuf>, problem: ConfigProblem) -> Self {
        Self { file, line: None, problem, found: None }
    }

    pub(crate) fn in_line(self, line: Option<usize>) -> Self {
        Self { line, ..self }
    }

    pub(crate) fn found(self, found: Option<String>) -> Self {
        Self { found, ..self }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}: ", file.display())?;
        }
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        self.problem.fmt(f)?;
        match &self.found {
            Some(found) => write!(f, ": {found}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(_) => f.write_str("cannot be read"),
            Self::BadPem(what) => write!(f, "not valid PEM: {what}"),
            Self::NoCertificate => f.write_str("holds no certificate"),
            Self::NoKey => f.write_str("holds no private key"),
            Self::EncryptedKey => f.write_str("the private key is encrypted; decrypt it first"),
            Self::SeveralKeys { first } => {
                write!(f, "a second private key, where the first one begins in line {first}: which one is meant?")
            }
            Self::UnusableKey(what) => write!(f, "the private key cannot be used: {what}"),
            Self::KeyMismatch => f.write_str("the private key belongs to another certificate"),
            Self::ChainOrder { position } => {
                write!(f, "the private key belongs to certificate {position} of the chain, which must be the first one")
            }
            Self::NoIdentity => f.write_str("a server needs a certificate and its private key"),
            Self::BadCertificate(what) => write!(f, "the certificate cannot be used: {what}"),
            Self::BadRevocationList(what) => write!(f, "the revocation list cannot be used: {what}"),
            Self::NoRoots => f.write_str("no root certificates to trust"),
            Self::NoProvider => f.write_str(
                "no crypto provider: enable the feature `aws-lc-rs` or `ring`, or hand one in with `provider(..)`",
            ),
            Self::Contradiction(what) => f.write_str(what),
            Self::BadServerName(name) => write!(f, "{name:?} is neither a DNS name nor an IP address"),
        }
    }
}

impl StdError for ConfigError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match &self.problem {
            ConfigProblem::Unreadable(error) => Some(&**error),
            _ => None,
        }
    }
}

/// What is wrong with an endpoint string, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EndpointError {
    /// The whole string.
    pub input: String,
    /// The byte offset at which reading it failed.
    pub at: usize,
    /// What is wrong there.
    pub problem: String,
}

impl fmt::Display for EndpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "endpoint {:?}, at offset {}: {}", self.input, self.at, self.problem)
    }
}

impl StdError for EndpointError {}
