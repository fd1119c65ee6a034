//! Errors, and the reasons why connections end.
//!
//! [`Reason`] says how a connection ended, [`Error`] why an operation failed. Both convert to [`io::Error`] and back
//! without loss (rule: end-1), so that code written against `AsyncRead` and `AsyncWrite` loses no information.
//!
//! No error repeats its [`source`](StdError::source) in its own text (rule: end-1); [`chain`] prints an error with all
//! its sources. An error that only wraps another error has the text and the source of the inner one.

#[cfg(feature = "tracing")]
mod alert;
mod blame;
mod chain;
mod connect;
mod dialogue;
mod not_tls;
mod refused;
mod session;
#[cfg(test)]
mod tests;
mod upgrade;

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

pub use blame::Blame;
pub use chain::chain;
pub use connect::{BindError, ConnectAttempt, ConnectError};
pub use dialogue::{DialogueError, PeerWords};
pub use not_tls::NotTls;
pub use session::SessionError;
pub use upgrade::UpgradeError;

use crate::escape::printable;
#[cfg(feature = "proxy")]
use crate::proxy::ProxyError;

/// The phase that a connection was in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// Resolving the name and trying its addresses.
    Connect,
    /// The TLS handshake.
    Handshake,
    /// Open for data.
    Open,
    /// One half has ended, and the other one is idle.
    HalfOpen,
    /// Open, but idle: no bytes move in either direction.
    Idle,
    /// Closing: sending the last bytes and waiting for the peer's end.
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
    /// Cleanly: each side's end marker (close_notify or FIN) reached the other side. All our bytes arrived before our
    /// marker (rule: close-14).
    Closed,
    /// We closed cleanly, but the peer did not confirm it. Either it did not answer with its end marker, or it had
    /// ended before us and its system has not acknowledged our last bytes. No data is known to be lost (rules:
    /// close-7, close-14).
    Unconfirmed,
    /// The layer below ended before the peer's end marker came: the received data may be incomplete.
    Truncated(Phase),
    /// The peer, or a device in between, sent RST.
    Reset(Phase),
    /// We called `abort`.
    Aborted,
    /// A deadline passed in this phase.
    TimedOut(Phase),
    /// TLS failed: an alert, a bad certificate, or a record that violates the protocol.
    Tls(Arc<TlsError>),
    /// TLS 1.2: our key has sealed as many records as its cipher suite allows, and TLS 1.2 cannot change the key.
    /// Written data that was not sent yet is lost. The peer sees that the connection was cut off (rule: end-8): a fatal
    /// alert, or FIN without close_notify.
    KeyExhausted,
    /// The application dropped the connection before it had ended, without `close` or `abort` (rules: close-12,
    /// end-9).
    Dropped,
    /// The application protocol violated its contract with this crate, or returned an error. An [`io::Error`] of the
    /// kind [`InvalidData`](io::ErrorKind::InvalidData) in it means that the peer is to blame.
    Protocol(Arc<dyn StdError + Send + Sync>),
    /// The operating system reported another error.
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

    /// Whether the connection ended cleanly on both sides.
    pub fn is_clean(&self) -> bool {
        matches!(self, Self::Closed)
    }

    /// The phase in which the connection ended, for the reasons that include a phase.
    pub fn phase(&self) -> Option<Phase> {
        match self {
            Self::Truncated(phase) | Self::Reset(phase) | Self::TimedOut(phase) => Some(*phase),
            Self::Tls(error) => Some(error.phase),
            Self::Closed | Self::Unconfirmed | Self::Aborted | Self::KeyExhausted | Self::Dropped => None,
            Self::Protocol(_) | Self::Io(_) => None,
        }
    }

    /// The party that caused the end.
    pub fn blame(&self) -> Blame {
        match self {
            Self::Closed => Blame::Nobody,
            Self::Unconfirmed | Self::Truncated(_) | Self::Reset(_) => Blame::Peer,
            Self::Aborted | Self::KeyExhausted | Self::Dropped => Blame::Us,
            Self::Protocol(error) => blame::of_protocol(&**error),
            Self::TimedOut(_) => Blame::Time,
            Self::Tls(_) => Blame::PeerTls,
            Self::Io(_) => Blame::System,
        }
    }

    /// The reason inside an [`io::Error`]: the one that this crate put there, or else one that matches the kind of the
    /// error.
    pub fn from_io(error: io::Error, phase: Phase) -> Self {
        if let Some(ours) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            return ours.clone().into();
        }
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Truncated(phase),
            // The system reports an RST only once. If another call has already received it, a write returns "broken
            // pipe".
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Self::Reset(phase),
            io::ErrorKind::TimedOut => Self::TimedOut(phase),
            _ => Self::Io(Arc::new(error)),
        }
    }

    /// Whether this is an error of the system after which its socket is of no use. Other errors end one call, for
    /// example because memory is short.
    #[cfg(feature = "tokio")]
    pub(crate) fn ends_socket(&self) -> bool {
        match self {
            Self::Reset(_) | Self::TimedOut(Phase::Open | Phase::Close) => true,
            Self::Io(error) => matches!(
                error.kind(),
                io::ErrorKind::HostUnreachable
                    | io::ErrorKind::NetworkUnreachable
                    | io::ErrorKind::NetworkDown
                    | io::ErrorKind::ConnectionAborted
                    | io::ErrorKind::ConnectionRefused
            ),
            Self::Closed
            | Self::Unconfirmed
            | Self::Truncated(_)
            | Self::Aborted
            | Self::TimedOut(_)
            | Self::Tls(_)
            | Self::KeyExhausted
            | Self::Dropped
            | Self::Protocol(_) => false,
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
            // rule: life-6. These kinds tell a caller to repeat the call, but an ended connection would return the same
            // error forever.
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
            Self::Truncated(Phase::Handshake) => f.write_str("the peer ended the connection during the handshake"),
            Self::Truncated(_) => f.write_str("truncated: the connection ended without the peer's close_notify"),
            Self::Reset(Phase::Handshake) => f.write_str("reset by the peer during the handshake"),
            Self::Reset(_) => f.write_str("reset by the peer"),
            Self::Aborted => f.write_str("aborted by us"),
            Self::TimedOut(phase) => write!(f, "timed out in phase {phase}"),
            Self::Tls(error) => error.fmt(f),
            Self::KeyExhausted => f.write_str("cut off by us: the TLS 1.2 key has sealed as many records as it may"),
            Self::Dropped => f.write_str("dropped by us without a close"),
            // rule: tcp-11: the message may contain the peer's bytes.
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
    /// The phase in which TLS failed.
    pub phase: Phase,
    /// The error from rustls. [`rustls::Error::AlertReceived`]: the peer ended the connection with an alert. Any other
    /// error: we found the fault and sent an alert.
    pub error: rustls::Error,
    /// The alert that we sent, if any.
    pub alert_sent: Option<rustls::AlertDescription>,
    /// The protocol that the peer spoke instead of TLS, if it did not begin with TLS. `error` then only says that the
    /// bytes were not a TLS record.
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
        // "Corrupt message", the text of rustls, would hide the cause.
        self.not_tls.is_none().then_some(&self.error as _)
    }
}

/// Why an operation failed. [`Error::blame`] says who caused it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Error {
    /// The connection has ended.
    Ended(Reason),
    /// A write after `close_write` or `close`: our own send half has ended (rule: write-4).
    SendClosed,
    /// The underlying transport does not support the operation (for example a socket option on a transport without a
    /// socket).
    Unsupported(&'static str),
    /// A producer is registered already (rule: flow-1).
    Producer,
    /// `start_tls` or `stop_tls` failed.
    Upgrade(UpgradeError),
    /// A TLS session does not have the fact that was asked for.
    Session(SessionError),
    /// The TLS configuration cannot be used.
    Config(ConfigError),
    /// Connecting failed for every address.
    Connect(ConnectError),
    /// A listener could not be opened.
    Bind(BindError),
    /// An endpoint string could not be read.
    Endpoint(EndpointError),
    /// A connection was refused because of its PROXY header.
    #[cfg(feature = "proxy")]
    Proxy(ProxyError),
    /// The group drains: its listeners accept no connections, and no handshake is started or finished.
    Draining,
}

impl Error {
    /// The party that caused the error.
    pub fn blame(&self) -> Blame {
        match self {
            Self::Ended(reason) => reason.blame(),
            Self::SendClosed | Self::Unsupported(_) | Self::Producer | Self::Draining => Blame::Us,
            Self::Config(_) | Self::Endpoint(_) => Blame::Us,
            Self::Upgrade(error) => error.blame(),
            Self::Session(error) => error.blame(),
            Self::Connect(error) if error.timed_out => Blame::Time,
            Self::Connect(_) | Self::Bind(_) => Blame::System,
            #[cfg(feature = "proxy")]
            Self::Proxy(_) => Blame::Peer,
        }
    }

    /// The reason, if this error says that the connection ended.
    pub fn reason(&self) -> Option<&Reason> {
        match self {
            Self::Ended(reason) | Self::Upgrade(UpgradeError::Failed(reason)) => Some(reason),
            // A drain aborts a connection whose handshake is unfinished.
            Self::Draining => Some(&Reason::Aborted),
            // This crate aborts a connection that it refuses.
            #[cfg(feature = "proxy")]
            Self::Proxy(_) => Some(&Reason::Aborted),
            _ => None,
        }
    }

    fn io_kind(&self) -> io::ErrorKind {
        match self {
            Self::Ended(reason) => reason.io_kind(),
            Self::SendClosed => io::ErrorKind::BrokenPipe,
            Self::Unsupported(_) => io::ErrorKind::Unsupported,
            Self::Upgrade(UpgradeError::Failed(reason)) => reason.io_kind(),
            Self::Upgrade(UpgradeError::Leftover { .. } | UpgradeError::Dialogue(_)) => io::ErrorKind::InvalidData,
            Self::Session(error) => error.io_kind(),
            Self::Producer | Self::Upgrade(_) | Self::Config(_) | Self::Endpoint(_) => io::ErrorKind::InvalidInput,
            Self::Connect(error) if error.timed_out => io::ErrorKind::TimedOut,
            Self::Connect(error) => error.attempts.last().map_or(io::ErrorKind::NotFound, |a| a.error.kind()),
            Self::Bind(error) => error.error.kind(),
            #[cfg(feature = "proxy")]
            Self::Proxy(_) => io::ErrorKind::InvalidData,
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
            Self::Unsupported(what) => write!(f, "the underlying transport has no {what}"),
            Self::Producer => f.write_str("a producer is registered already"),
            Self::Upgrade(error) => error.fmt(f),
            Self::Session(error) => error.fmt(f),
            Self::Config(error) => error.fmt(f),
            Self::Connect(error) => error.fmt(f),
            Self::Bind(error) => error.fmt(f),
            Self::Endpoint(error) => error.fmt(f),
            #[cfg(feature = "proxy")]
            Self::Proxy(error) => error.fmt(f),
            Self::Draining => f.write_str("draining: no new connections"),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Ended(reason) => reason.source(),
            Self::Upgrade(error) => error.source(),
            Self::Session(error) => error.source(),
            Self::Config(error) => error.source(),
            Self::Connect(error) => error.source(),
            Self::Bind(error) => error.source(),
            Self::Endpoint(error) => error.source(),
            #[cfg(feature = "proxy")]
            Self::Proxy(_) => None,
            Self::SendClosed | Self::Unsupported(_) | Self::Producer | Self::Draining => None,
        }
    }
}

impl From<Reason> for Error {
    fn from(reason: Reason) -> Self {
        Self::Ended(reason)
    }
}

#[cfg(feature = "proxy")]
impl From<ProxyError> for Error {
    fn from(error: ProxyError) -> Self {
        Self::Proxy(error)
    }
}

impl From<Error> for Reason {
    /// The reason for the end of a connection that failed with this error. If the error contains a reason (an upgrade
    /// error may contain one too), it is returned. Otherwise this is [`Reason::Protocol`] with the error in it.
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
    /// Returns the error that was converted to this `io::Error`. Any other `io::Error` becomes [`Reason::Io`], or the
    /// reason that matches its kind.
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

/// A mistake in a TLS configuration, and the file that contains it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ConfigError {
    /// The file, if the input was a file.
    pub file: Option<PathBuf>,
    /// The line in which the faulty part starts, counted from one, if the input was text.
    pub line: Option<usize>,
    /// The mistake.
    pub problem: ConfigProblem,
    /// A description of what was found instead of the missing part.
    pub found: Option<String>,
}

/// The kinds of mistakes in a TLS configuration.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ConfigProblem {
    /// The file could not be read.
    Unreadable(Arc<io::Error>),
    /// The input is not PEM.
    BadPem(String),
    /// The input has no `CERTIFICATE` section.
    NoCertificate,
    /// The input has no private key.
    NoKey,
    /// The private key is encrypted, and no passphrase was given (`key_passphrase`, with the feature `encrypted-keys`).
    EncryptedKey,
    /// The private key is encrypted with another passphrase, or its encrypted part is damaged: these two cannot be told
    /// apart.
    WrongPassphrase,
    /// The input holds more than one private key.
    SeveralKeys {
        /// The line in which the first key starts. [`ConfigError::line`] is the line of the second key.
        first: usize,
    },
    /// The crypto provider does not support this kind of private key, or its format.
    UnusableKey(String),
    /// The key belongs to another certificate.
    KeyMismatch,
    /// The certificate that the key belongs to is not the first one of the chain.
    ChainOrder {
        /// The position of the certificate in the chain, counted from one.
        position: usize,
    },
    /// A server without a certificate and its key.
    NoIdentity,
    /// A certificate that cannot be parsed, or that cannot be a root.
    BadCertificate(String),
    /// A list of revoked certificates that cannot be parsed.
    BadRevocationList(String),
    /// An OCSP response that cannot be sent with the certificate.
    BadOcspResponse(String),
    /// Keys for session tickets that cannot be used.
    BadTicketKeys(String),
    /// No root certificate to trust, so no peer could be verified.
    NoRoots,
    /// No crypto provider was given, and no feature that includes one is enabled.
    NoProvider,
    /// The settings contradict each other.
    Contradiction(String),
    /// The server name is neither a DNS name nor an IP address.
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
            Self::EncryptedKey => f.write_str(
                "the private key is encrypted: give its passphrase with `key_passphrase` (feature `encrypted-keys`), or \
                 decrypt it first",
            ),
            Self::WrongPassphrase => {
                f.write_str("the passphrase of the private key is wrong, or the encrypted part of the file is damaged")
            }
            Self::SeveralKeys { first } => {
                write!(f, "a second private key; the first one begins in line {first}, and only one is allowed")
            }
            Self::UnusableKey(what) => write!(f, "the private key cannot be used: {what}"),
            Self::KeyMismatch => f.write_str("the private key belongs to another certificate"),
            Self::ChainOrder { position } => {
                write!(f, "the private key belongs to certificate {position} of the chain, which must be the first one")
            }
            Self::NoIdentity => f.write_str("a server needs a certificate and its private key"),
            Self::BadCertificate(what) => write!(f, "the certificate cannot be used: {what}"),
            Self::BadRevocationList(what) => write!(f, "the revocation list cannot be used: {what}"),
            Self::BadOcspResponse(what) => write!(f, "the OCSP response cannot be used: {what}"),
            Self::BadTicketKeys(what) => write!(f, "the ticket keys cannot be used: {what}"),
            Self::NoRoots => f.write_str("no root certificates to trust"),
            Self::NoProvider => f.write_str(
                "no crypto provider: enable the feature `aws-lc-rs` or `ring`, or pass one to `provider(..)`",
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

/// A mistake in an endpoint string, and its position.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EndpointError {
    /// The whole string.
    pub input: String,
    /// The byte offset of the mistake.
    pub at: usize,
    /// A description of the mistake.
    pub problem: String,
}

impl fmt::Display for EndpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "endpoint {:?}, at offset {}: {}", self.input, self.at, self.problem)
    }
}

impl StdError for EndpointError {}
