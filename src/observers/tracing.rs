//! Traces connections with the `tracing` facade.

use std::collections::HashSet;
use std::fmt;
use std::panic::Location;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tracing::field::{Empty, display};
use tracing::{Span, debug, error, info, info_span, warn};

use crate::conn::control::{AcceptFailure, AcceptFault, Control, Observer, Reload};
use crate::conn::refusal::Refusal;
use crate::core::drain::DrainReport;
use crate::core::facts::SessionFacts;
use crate::core::report::CloseReport;
use crate::error::{Reason, chain};
use crate::escape::escaped;
use crate::policy::Role;

/// An [`Observer`] that makes a span for each connection, with the [`tracing`](https://docs.rs/tracing) facade (feature
/// `tracing`). [`Control::span`] returns the span, so that a service can record its own events in it.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use bowline::{Listener, Policy, Tracing, Transport};
///
/// let policy = Policy::default().observer(Tracing::new());
/// let listener = Listener::builder().policy(policy).bind("127.0.0.1:0").await?;
/// # let client = bowline::Connector::new().connect_addr(listener.local_addr()).await?;
/// let connection = listener.accept().await?.into_tcp();
/// let span = connection.control().span();
/// let _entered = span.enter(); // in async code: `future.instrument(span)`
/// # drop((client, connection));
/// # Ok(()) }
/// ```
///
/// The span `connection` has the level INFO, and these fields: `role`, `peer`, `via` (the proxy, after a PROXY header;
/// `peer` is recorded again then), `sni`, `version`, `alpn`, `resumed`, `handshake_seconds`, `received` and `sent`
/// (bytes of the application), `outcome` ([`Reason::name`]), `phase` and `alert` (received, or sent by us). It contains
/// no other data of a peer, and no secret (rule: observe-4). The text of a peer is escaped.
///
/// | event | level |
/// |---|---|
/// | the drain begins, the drain is over, certificates were loaded again | INFO |
/// | certificates could not be loaded again | ERROR |
/// | accepting failed for lack of a resource, or because the listening socket is unusable | WARN |
/// | the application has dropped a connection to which it had written, without `close`, `close_write` or `abort` | WARN for the first one from each place, otherwise DEBUG |
/// | a connection was opened, refused, or has ended; a handshake was done or has failed; one connection could not be accepted | DEBUG |
///
/// So a peer cannot fill a log that shows INFO and above. The event of a dropped connection names the place in the code
/// that made its listener, its connector or the connection itself ([`Control::made_at`]), because the place of the drop
/// is not known. `docs/dropped.md` describes what a dropped connection loses.
#[derive(Default)]
pub struct Tracing {
    /// The places from which a dropped connection was reported.
    dropped: Mutex<HashSet<&'static Location<'static>>>,
}

impl Tracing {
    /// An observer for [`Policy::observer`](crate::Policy::observer).
    #[allow(clippy::new_ret_no_self)] // A policy takes a shared observer.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Whether this is the first dropped connection that was made at this place.
    fn is_first(&self, place: &'static Location<'static>) -> bool {
        self.dropped.lock().unwrap_or_else(PoisonError::into_inner).insert(place)
    }
}

/// Records the addresses of a PROXY header.
fn record_client(connection: &Control, span: &Span) {
    #[cfg(feature = "proxy")]
    if let Some(via) = connection.via() {
        span.record("via", display(via));
        span.record("peer", display(connection.peer_addr()));
    }
    #[cfg(not(feature = "proxy"))]
    let _ = (connection, span);
}

/// Records why a handshake or a connection has ended. The text of the reason is left out, because it may contain data
/// of the peer.
fn record_reason(span: &Span, reason: &Reason) {
    span.record("outcome", reason.name());
    if let Some(phase) = reason.phase() {
        span.record("phase", display(phase));
    }
    if let Some(alert) = reason.alert() {
        span.record("alert", alert);
    }
}

impl Observer for Tracing {
    fn opened(&self, connection: &Control) {
        let span = info_span!(
            target: "bowline",
            "connection",
            role = match connection.role() {
                Role::Client => "client",
                Role::Server => "server",
            },
            peer = %connection.peer_addr(),
            via = Empty,
            sni = Empty,
            version = Empty,
            alpn = Empty,
            resumed = Empty,
            handshake_seconds = Empty,
            received = Empty,
            sent = Empty,
            outcome = Empty,
            phase = Empty,
            alert = Empty,
        );
        span.in_scope(|| debug!(target: "bowline", "opened"));
        connection.set_span(span);
    }

    fn refused(&self, refusal: &Refusal) {
        debug!(target: "bowline", peer = %refusal.peer_addr, why = ?refusal.why, "refused a connection");
    }

    fn accept_failed(&self, failure: &AcceptFailure<'_>) {
        let AcceptFailure { listener, fault, error } = failure;
        match fault {
            AcceptFault::Connection => debug!(target: "bowline", %listener, %error, "could not accept a connection"),
            AcceptFault::System => warn!(target: "bowline", %listener, %error, "could not accept; trying again"),
            AcceptFault::Listener => warn!(target: "bowline", %listener, %error, "the listening socket is unusable"),
        }
    }

    fn handshake_done(&self, connection: &Control, facts: &SessionFacts, took: Duration) {
        let span = connection.span();
        record_client(connection, &span);
        span.record("version", facts.version_name());
        if let Some(sni) = &facts.sni {
            span.record("sni", display(escaped(sni.as_bytes())));
        }
        if let Some(alpn) = &facts.alpn {
            span.record("alpn", display(escaped(alpn)));
        }
        span.record("resumed", facts.resumed);
        span.record("handshake_seconds", took.as_secs_f64());
        span.in_scope(|| debug!(target: "bowline", "handshake done"));
    }

    fn handshake_failed(&self, connection: &Control, reason: &Reason, took: Duration) {
        let span = connection.span();
        record_client(connection, &span);
        span.record("handshake_seconds", took.as_secs_f64());
        span.in_scope(|| debug!(target: "bowline", outcome = reason.name(), "handshake failed"));
    }

    fn ended(&self, connection: &Control, report: &CloseReport) {
        let (span, payload, outcome) = (connection.span(), connection.payload(), report.reason.name());
        record_client(connection, &span);
        span.record("received", payload.received);
        span.record("sent", payload.sent);
        record_reason(&span, &report.reason);
        span.in_scope(|| {
            debug!(target: "bowline", outcome, "ended");
            if !matches!(report.reason, Reason::Dropped) || payload.sent == 0 || connection.has_ended_write() {
                return;
            }
            let Some(place) = connection.made_at() else { return };
            const WHAT: &str = "a connection was dropped without close, close_write or abort: its peer may have lost the end of the data";
            if self.is_first(place) {
                warn!(target: "bowline", made_at = %place, "{WHAT} (reported once for each place)");
            } else {
                debug!(target: "bowline", made_at = %place, "{WHAT}");
            }
        });
    }

    fn reloaded(&self, reload: &Reload<'_>) {
        match reload {
            Reload::Done { generation, .. } => info!(target: "bowline", generation, "certificates were loaded again"),
            Reload::Unchanged { generation, .. } => {
                debug!(target: "bowline", generation, "certificates have not changed")
            }
            Reload::Failed { error } => {
                error!(target: "bowline", error = %chain(*error), "certificates could not be loaded; the old ones stay in use");
            }
        }
    }

    fn draining(&self, open: usize) {
        info!(target: "bowline", open, "the drain begins");
    }

    fn drained(&self, report: &DrainReport) {
        info!(target: "bowline", %report, "the drain is over");
    }
}

impl fmt::Debug for Tracing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracing").finish_non_exhaustive()
    }
}

#[cfg(all(test, feature = "testing"))]
mod tests;
