//! Counts connections with the `metrics` facade.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use crate::config::{IdentityInfo, ServerTls};
use crate::conn::control::{AcceptFailure, Control, Observer, Reload, Traffic};
use crate::conn::refusal::Refusal;
use crate::core::facts::SessionFacts;
use crate::core::report::CloseReport;
use crate::error::Reason;

const OPEN: &str = "bowline_connections_open";
const CONNECTIONS: &str = "bowline_connections_total";
const HANDSHAKES: &str = "bowline_handshakes_total";
const HANDSHAKE_SECONDS: &str = "bowline_handshake_seconds";
const BYTES: &str = "bowline_bytes_total";
const ACCEPT_ERRORS: &str = "bowline_accept_errors_total";
const EXPIRY: &str = "bowline_certificate_expiry_seconds";
const GENERATION: &str = "bowline_identity_generation";
const RELOADS: &str = "bowline_reloads_total";
const TICKET_KEY_AGE: &str = "bowline_ticket_key_age_seconds";

/// An [`Observer`] that counts in the recorder of the [`metrics`](https://docs.rs/metrics) facade (feature `metrics`).
///
/// | metric | kind | labels |
/// |---|---|---|
/// | `bowline_connections_open` | gauge | |
/// | `bowline_connections_total` | counter, at the end of each connection | `outcome`: [`Reason::name`] |
/// | `bowline_handshakes_total` | counter | `outcome`: `ok`, `tls`, `timed_out`, `truncated`, `reset`, `not_tls`, `refused`; `version`: `TLSv1.2`, `TLSv1.3`, `none`; `resumed`: `true`, `false` |
/// | `bowline_handshake_seconds` | histogram | `outcome` |
/// | `bowline_bytes_total` | counter, of the application's bytes | `direction`: `in`, `out` |
/// | `bowline_accept_errors_total` | counter | `kind`: `connection`, `system`, `listener`, `refused` |
/// | `bowline_certificate_expiry_seconds` | gauge, of the remaining time; NaN after a reload has removed the identity | `name` |
/// | `bowline_identity_generation` | gauge | |
/// | `bowline_reloads_total` | counter | `outcome`: `ok`, `failed`, `unchanged` |
/// | `bowline_ticket_key_age_seconds` | gauge, if servers share ticket keys ([`watch`](Self::watch)) | |
///
/// A handshake has the outcome `not_tls` if the client sent something other than TLS. It has the outcome `refused` if
/// this side ended it: it refused the ClientHello, or aborted, closed or dropped the connection. A handshake that ended
/// by an error of the system counts as `reset`.
///
/// Call [`update`](Self::update) before the metrics are read. It counts the bytes of the open connections, and sets the
/// remaining times of the certificates. Without this call, the bytes of a connection are counted only when it has
/// ended.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), bowline::Error> {
/// use bowline::{Listener, Metrics, Policy};
///
/// let metrics = Metrics::new();
/// let policy = Policy::default().observer(metrics.clone());
/// let listener = Listener::builder().policy(policy).bind("127.0.0.1:0").await?;
/// metrics.update(); // before the recorder's text is made
/// # Ok(()) }
/// ```
///
/// The recorder may be read at any time. Several `Metrics` add to the same counts.
#[derive(Default)]
pub struct Metrics(Mutex<State>);

#[derive(Default)]
struct State {
    /// The open connections, by their number, each with the bytes that were counted so far.
    open: HashMap<usize, (Control, Traffic)>,
    /// The expiry of each certificate, by name.
    expiry: Vec<(String, SystemTime)>,
    /// The configuration whose certificates are shown.
    tls: Option<ServerTls>,
}

impl State {
    /// The facade cannot remove a gauge. The value of a certificate that is no longer in use becomes NaN, so that no
    /// alarm waits for its expiry.
    fn replace_expiry(&mut self, new: Vec<(String, SystemTime)>) {
        for (name, _) in std::mem::replace(&mut self.expiry, new) {
            if self.expiry.iter().all(|(other, _)| *other != name) {
                gauge!(EXPIRY, "name" => name).set(f64::NAN);
            }
        }
    }
}

impl Metrics {
    /// An observer for [`Policy::observer`](crate::Policy::observer). Describes the metrics to the recorder, so install
    /// the recorder first.
    #[allow(clippy::new_ret_no_self)] // A policy takes a shared observer.
    pub fn new() -> Arc<Self> {
        describe_gauge!(OPEN, "Open connections");
        describe_counter!(CONNECTIONS, "Connections that have ended, by how they ended");
        describe_counter!(HANDSHAKES, "TLS handshakes that have ended, by how they ended");
        describe_histogram!(HANDSHAKE_SECONDS, Unit::Seconds, "The time of the TLS handshakes");
        describe_counter!(BYTES, Unit::Bytes, "Bytes of the application, by direction");
        describe_counter!(ACCEPT_ERRORS, "Connections that could not be accepted, by the cause");
        describe_gauge!(EXPIRY, Unit::Seconds, "The time until a certificate expires");
        describe_gauge!(GENERATION, "How many times the identities were loaded");
        describe_counter!(RELOADS, "Reloads of the identities, by their outcome");
        describe_gauge!(TICKET_KEY_AGE, Unit::Seconds, "The age of the key that seals tickets");
        gauge!(OPEN).increment(0.0);
        Arc::default()
    }

    /// Counts the bytes of the open connections up to now, and sets the remaining times of the certificates.
    pub fn update(&self) {
        let mut state = self.state();
        for (control, counted) in state.open.values_mut() {
            count_bytes(control, counted);
        }
        let now = SystemTime::now();
        if let Some(tls) = state.tls.clone() {
            let identities = tls.identities();
            let expiry = |identity: &IdentityInfo| Some((identity.name.to_string(), identity.not_after?));
            state.replace_expiry(identities.iter().filter_map(expiry).collect());
            self.set_generation(tls.generation());
            if let Some(age) = tls.ticket_keys().and_then(|keys| keys.age()) {
                gauge!(TICKET_KEY_AGE).set(age.as_secs_f64());
            }
        }
        for (name, not_after) in &state.expiry {
            gauge!(EXPIRY, "name" => name.clone()).set(remaining(*not_after, now));
        }
    }

    /// Shows the certificates, the generation and the age of the ticket keys of this configuration from now on, also
    /// after each replacement.
    pub fn watch(&self, tls: &ServerTls) {
        self.state().tls = Some(tls.clone());
        self.update();
    }

    /// The certificates that are in use: a name for each, and the time at which it expires.
    pub fn set_certificates(&self, expiry: impl IntoIterator<Item = (String, SystemTime)>) {
        self.state().replace_expiry(expiry.into_iter().collect());
        self.update();
    }

    /// The number of times that the identities were loaded, from 1. A [`Reload`] sets it too.
    pub fn set_generation(&self, generation: u64) {
        #[allow(clippy::cast_precision_loss)] // A gauge is a floating-point number.
        gauge!(GENERATION).set(generation as f64);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Seconds from now; negative if the time has passed.
fn remaining(not_after: SystemTime, now: SystemTime) -> f64 {
    match not_after.duration_since(now) {
        Ok(left) => left.as_secs_f64(),
        Err(over) => -over.duration().as_secs_f64(),
    }
}

/// Counts the bytes that were not counted yet.
fn count_bytes(control: &Control, counted: &mut Traffic) {
    let payload = control.payload();
    counter!(BYTES, "direction" => "in").increment(payload.received.saturating_sub(counted.received));
    counter!(BYTES, "direction" => "out").increment(payload.sent.saturating_sub(counted.sent));
    *counted = payload;
}

/// The outcome of a handshake that failed.
fn failure(reason: &Reason) -> &'static str {
    match reason {
        Reason::Tls(error) if error.not_tls.is_some() => "not_tls",
        Reason::Tls(error) if error.is_refused() => "refused",
        Reason::Tls(_) | Reason::KeyExhausted => "tls",
        Reason::TimedOut(_) => "timed_out",
        Reason::Truncated(_) => "truncated",
        Reason::Reset(_) | Reason::Io(_) => "reset",
        Reason::Closed | Reason::Unconfirmed | Reason::Aborted | Reason::Dropped | Reason::Protocol(_) => "refused",
    }
}

fn count_failure(outcome: &'static str) {
    counter!(HANDSHAKES, "outcome" => outcome, "version" => "none", "resumed" => "false").increment(1);
}

impl Observer for Metrics {
    fn opened(&self, connection: &Control) {
        gauge!(OPEN).increment(1.0);
        self.state().open.insert(connection.number(), (connection.clone(), Traffic::default()));
    }

    fn refused(&self, _: &Refusal) {
        counter!(ACCEPT_ERRORS, "kind" => "refused").increment(1);
    }

    fn accept_failed(&self, failure: &AcceptFailure<'_>) {
        counter!(ACCEPT_ERRORS, "kind" => failure.fault.name()).increment(1);
    }

    fn handshake_done(&self, _: &Control, facts: &SessionFacts, took: Duration) {
        let resumed = if facts.resumed { "true" } else { "false" };
        counter!(HANDSHAKES, "outcome" => "ok", "version" => facts.version_name(), "resumed" => resumed).increment(1);
        histogram!(HANDSHAKE_SECONDS, "outcome" => "ok").record(took.as_secs_f64());
    }

    fn handshake_failed(&self, _: &Control, reason: &Reason, took: Duration) {
        let outcome = failure(reason);
        count_failure(outcome);
        histogram!(HANDSHAKE_SECONDS, "outcome" => outcome).record(took.as_secs_f64());
    }

    fn began_in_plaintext(&self, _: &Control) {
        count_failure("not_tls");
    }

    fn ended(&self, connection: &Control, report: &CloseReport) {
        gauge!(OPEN).decrement(1.0);
        counter!(CONNECTIONS, "outcome" => report.reason.name()).increment(1);
        let open = self.state().open.remove(&connection.number());
        if let Some((control, mut counted)) = open {
            count_bytes(&control, &mut counted);
        }
    }

    fn reloaded(&self, reload: &Reload<'_>) {
        counter!(RELOADS, "outcome" => reload.name()).increment(1);
        if let Reload::Done { generation, .. } | Reload::Unchanged { generation, .. } = reload {
            self.set_generation(*generation);
        }
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").field("open", &self.state().open.len()).finish_non_exhaustive()
    }
}

#[cfg(all(test, feature = "testing"))]
mod tests;
