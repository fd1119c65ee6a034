//! The observers of connections: an application implements this interface to count and to log events.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::Control;
use crate::address::Address;
use crate::conn::refusal::Refusal;
use crate::core::catch::catch;
use crate::core::drain::DrainReport;
use crate::core::facts::SessionFacts;
use crate::core::report::CloseReport;
use crate::error::{Error, Reason};
use crate::policy::{Policy, PolicyObservers};

/// Gets the events of connections, for logs and metrics. Each method has a default that does nothing.
///
/// Set it with [`Policy::observer`]. Every connection has a policy, so this covers the connections of listeners and
/// connectors, and those that were made from a socket or a stream. A policy may have several observers.
///
/// For each connection, the calls come in this order (rule: observe-1): [`opened`](Self::opened), then one of
/// [`handshake_done`](Self::handshake_done) and [`handshake_failed`](Self::handshake_failed) for each TLS handshake,
/// then [`ended`](Self::ended), exactly once, with the report that [`Control::report`] returns too. This includes a
/// connection that was dropped.
///
/// The methods are called in the task or thread in which the event happens, and no lock of the connection is held
/// (rule: observe-2). They must not block. A panic in one of them is caught, and has no effect on the connection (rule:
/// life-7).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::sync::Arc;
/// use bowline::{CloseReport, Connector, Control, Listener, Observer, Policy, Transport};
///
/// struct Log;
///
/// impl Observer for Log {
///     fn ended(&self, connection: &Control, report: &CloseReport) {
///         let traffic = connection.traffic();
///         println!("{}: {report}; {} bytes in, {} out", connection.peer_addr(), traffic.received, traffic.sent);
///     }
/// }
///
/// let policy = Policy::default().observer(Arc::new(Log));
/// let listener = Listener::builder().policy(policy).bind("127.0.0.1:0").await?;
/// # let client = Connector::new().connect_addr(listener.local_addr()).await?;
/// let connection = listener.accept().await?.into_tcp();
/// drop(connection); // prints: dropped before its end
/// # drop(client);
/// # Ok(()) }
/// ```
#[doc(alias = "metrics")]
#[doc(alias = "tracing")]
pub trait Observer: Send + Sync + 'static {
    /// A connection was accepted, opened, or taken over. [`Control::role`] says which side opened it. A PROXY header
    /// has not been read yet.
    fn opened(&self, connection: &Control) {
        let _ = connection;
    }

    /// A listener has refused a connection with RST, because of its limits (rule: limit-2). No other method is called
    /// for this connection.
    fn refused(&self, refusal: &Refusal) {
        let _ = refusal;
    }

    /// An accept of a listener has failed.
    fn accept_failed(&self, failure: &AcceptFailure<'_>) {
        let _ = failure;
    }

    /// A TLS handshake is done. `took` is the time since the start of the TLS session. It does not include a PROXY
    /// header or a plaintext dialogue before it. The application may not have got the connection yet.
    fn handshake_done(&self, connection: &Control, facts: &SessionFacts, took: Duration) {
        let _ = (connection, facts, took);
    }

    /// A TLS handshake has failed, or has ended because the connection was aborted, closed or dropped. `reason` names
    /// the cause. If the time for the handshake ran out before the TLS session began, `took` is the time since the
    /// connection was opened.
    fn handshake_failed(&self, connection: &Control, reason: &Reason, took: Duration) {
        let _ = (connection, reason, took);
    }

    /// The first byte of a client does not begin a TLS session. Called only by a listener that accepts both TLS and
    /// plaintext ([`TlsListenerBuilder::tls_or_plaintext`](crate::TlsListenerBuilder::tls_or_plaintext)).
    fn began_in_plaintext(&self, connection: &Control) {
        let _ = connection;
    }

    /// A connection has ended, and its socket is closed. Called for every connection that was [opened](Self::opened).
    fn ended(&self, connection: &Control, report: &CloseReport) {
        let _ = (connection, report);
    }

    /// A [`Reloader`](crate::Reloader) has loaded certificates and keys again, or loading them has failed (rule:
    /// reload-7). The method runs in a task of the reloader.
    fn reloaded(&self, reload: &Reload<'_>) {
        let _ = reload;
    }

    /// The group of a listener with this observer starts to drain. `open` is the number of its open connections.
    fn draining(&self, open: usize) {
        let _ = open;
    }

    /// The drain is over: the first call of [`DrainGroup::drain`](crate::DrainGroup::drain) returns.
    fn drained(&self, report: &DrainReport) {
        let _ = report;
    }
}

/// A failed accept: see [`Observer::accept_failed`].
#[derive(Debug)]
#[non_exhaustive]
pub struct AcceptFailure<'a> {
    /// The address of the listener.
    pub listener: &'a Address,
    /// The cause.
    pub fault: AcceptFault,
    /// The error of the system.
    pub error: &'a io::Error,
}

/// The cause of a failed accept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AcceptFault {
    /// One connection failed, and is gone. The next one can be accepted at once.
    Connection,
    /// The system lacks a resource (descriptors, memory) that may be available again later.
    System,
    /// The listening socket is unusable.
    Listener,
}

impl AcceptFault {
    /// One lower-case word for logs and machine-readable output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::System => "system",
            Self::Listener => "listener",
        }
    }
}

/// The result of loading certificates and keys again: see [`Observer::reloaded`].
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Reload<'a> {
    /// The new certificates and keys are in use.
    #[non_exhaustive]
    Done {
        /// The [generation](crate::ServerTls::generation) of the configuration.
        generation: u64,
        /// The time at which the first of the certificates expires.
        not_after: Option<SystemTime>,
    },
    /// The certificates and keys have not changed: they were loaded on request, or a mistake was removed.
    #[non_exhaustive]
    Unchanged {
        /// The [generation](crate::ServerTls::generation) of the configuration.
        generation: u64,
        /// The time at which the first of the certificates expires.
        not_after: Option<SystemTime>,
    },
    /// The new certificates and keys cannot be used. The old ones stay in use.
    #[non_exhaustive]
    Failed {
        /// The mistake, with its file.
        error: &'a Error,
    },
}

impl Reload<'_> {
    /// One lower-case word for logs and machine-readable output.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Done { .. } => "ok",
            Self::Unchanged { .. } => "unchanged",
            Self::Failed { .. } => "failed",
        }
    }
}

impl Policy {
    /// Adds an observer of the connections (rule: observe-1): see [`Observer`]. Without one, nothing is recorded for
    /// it.
    ///
    /// The drain of a [`DrainGroup`](crate::DrainGroup) is reported to the observers of its listeners. Two policies are
    /// equal only if they have the same observers.
    #[must_use]
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        let mut all = Observers::of(&self).map(|before| before.0.clone()).unwrap_or_default();
        all.push(observer);
        self.observers = PolicyObservers(Some(Arc::new(Observers(all))));
        self
    }
}

/// The observers of a policy.
#[derive(Default, Clone)]
pub(crate) struct Observers(Vec<Arc<dyn Observer>>);

impl Observers {
    /// `None`: there is no observer.
    pub(crate) fn of(policy: &Policy) -> Option<Arc<Self>> {
        let observers = policy.observers.0.as_ref()?;
        Arc::clone(observers).downcast().ok()
    }

    pub(crate) fn add(&mut self, observer: Arc<dyn Observer>) {
        self.0.push(observer);
    }

    /// Adds the observers of another policy that are not among these.
    pub(crate) fn merge(&mut self, other: &Self) {
        let is_new = |new: &&Arc<dyn Observer>| !self.0.iter().any(|known| Arc::ptr_eq(known, new));
        let new: Vec<_> = other.0.iter().filter(is_new).cloned().collect();
        self.0.extend(new);
    }

    /// Calls each of them. Must not be called while a lock is held (rule: observe-2).
    pub(crate) fn tell(&self, event: impl Fn(&dyn Observer)) {
        for observer in &self.0 {
            // rule: life-7
            let _ = catch(|| event(&**observer), |_| ());
        }
    }
}
