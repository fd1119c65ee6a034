//! Counts the clients' connections, and writes the counts as Prometheus text. This module needs no other crate, so that
//! the examples build quickly. bowline's feature `metrics` sends the same counts to any recorder.

use std::collections::{BTreeMap, HashMap};
use std::fmt::{Display, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bowline::{AcceptFailure, CloseReport, Control, Observer, Reason, Refusal, Reload, ServerTls, SessionFacts};

/// The upper bounds of the histogram of handshakes, in seconds.
const BUCKETS: [f64; 11] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

#[derive(Default)]
pub(crate) struct Counts(Mutex<State>);

#[derive(Default)]
struct State {
    open: HashMap<usize, Control>,
    connections: BTreeMap<&'static str, u64>,
    /// By outcome, version, and whether they were resumed.
    handshakes: BTreeMap<(&'static str, String, bool), u64>,
    seconds: [u64; BUCKETS.len()],
    seconds_sum: f64,
    seconds_count: u64,
    /// The bytes of connections that have ended.
    received: u64,
    sent: u64,
    accept_errors: BTreeMap<&'static str, u64>,
    reloads: BTreeMap<&'static str, u64>,
    tls: Option<ServerTls>,
}

impl Counts {
    /// Counts the certificates of this configuration, also after each replacement.
    pub(crate) fn watch(&self, tls: &ServerTls) {
        self.state().tls = Some(tls.clone());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count_handshake(&self, outcome: &'static str, version: String, resumed: bool, took: Duration) {
        let mut state = self.state();
        *state.handshakes.entry((outcome, version, resumed)).or_default() += 1;
        let took = took.as_secs_f64();
        state.seconds_sum += took;
        state.seconds_count += 1;
        BUCKETS.iter().zip(&mut state.seconds).filter(|(most, _)| took <= **most).for_each(|(_, count)| *count += 1);
    }

    /// All counts.
    pub(crate) fn render(&self) -> String {
        let state = self.state();
        let mut text = Text::default();
        text.head("connections_open", "gauge", "Open connections");
        text.sample("connections_open", &[], state.open.len());
        text.head("connections_total", "counter", "Connections that have ended, by how they ended");
        for (outcome, count) in &state.connections {
            text.sample("connections_total", &[("outcome", outcome)], count);
        }
        text.head("handshakes_total", "counter", "TLS handshakes that have ended, by how they ended");
        for ((outcome, version, resumed), count) in &state.handshakes {
            let labels =
                [("outcome", *outcome), ("version", version), ("resumed", if *resumed { "true" } else { "false" })];
            text.sample("handshakes_total", &labels, count);
        }
        text.head("handshake_seconds", "histogram", "The time of the TLS handshakes");
        for (most, count) in BUCKETS.iter().zip(state.seconds) {
            text.sample("handshake_seconds_bucket", &[("le", &most.to_string())], count);
        }
        text.sample("handshake_seconds_bucket", &[("le", "+Inf")], state.seconds_count);
        text.sample("handshake_seconds_sum", &[], state.seconds_sum);
        text.sample("handshake_seconds_count", &[], state.seconds_count);
        let open = || state.open.values().map(Control::payload);
        text.head("bytes_total", "counter", "Bytes of the application, by direction");
        text.sample(
            "bytes_total",
            &[("direction", "in")],
            state.received + open().map(|bytes| bytes.received).sum::<u64>(),
        );
        text.sample("bytes_total", &[("direction", "out")], state.sent + open().map(|bytes| bytes.sent).sum::<u64>());
        text.head("accept_errors_total", "counter", "Connections that could not be accepted, by the cause");
        for (kind, count) in &state.accept_errors {
            text.sample("accept_errors_total", &[("kind", kind)], count);
        }
        let now = SystemTime::now();
        text.head("certificate_expiry_seconds", "gauge", "The time until a certificate expires");
        for identity in state.tls.iter().flat_map(|tls| tls.identities().to_vec()) {
            if let Some(end) = identity.not_after {
                text.sample("certificate_expiry_seconds", &[("name", &identity.name)], remaining(end, now));
            }
        }
        text.head("identity_generation", "gauge", "How many times the identities were loaded");
        text.sample("identity_generation", &[], state.tls.as_ref().map_or(0, ServerTls::generation));
        if let Some(age) = state.tls.as_ref().and_then(ServerTls::ticket_keys).and_then(|keys| keys.age()) {
            text.head("ticket_key_age_seconds", "gauge", "The age of the key that seals tickets");
            text.sample("ticket_key_age_seconds", &[], age.as_secs_f64());
        }
        text.head("reloads_total", "counter", "Reloads of the identities, by their outcome");
        for (outcome, count) in &state.reloads {
            text.sample("reloads_total", &[("outcome", outcome)], count);
        }
        text.0
    }
}

/// Seconds from now; negative if the time has passed.
fn remaining(end: SystemTime, now: SystemTime) -> f64 {
    end.duration_since(now).map_or_else(|over| -over.duration().as_secs_f64(), |left| left.as_secs_f64())
}

/// The outcome of a handshake that failed.
fn failure(reason: &Reason) -> &'static str {
    match reason {
        Reason::Tls(error) if error.not_tls.is_some() => "not_tls",
        Reason::Tls(_) | Reason::KeyExhausted => "tls",
        Reason::TimedOut(_) => "timed_out",
        Reason::Truncated(_) => "truncated",
        Reason::Reset(_) | Reason::Io(_) => "reset",
        _ => "refused",
    }
}

impl Observer for Counts {
    fn opened(&self, connection: &Control) {
        self.state().open.insert(connection.number(), connection.clone());
    }

    fn refused(&self, _: &Refusal) {
        *self.state().accept_errors.entry("refused").or_default() += 1;
    }

    fn accept_failed(&self, failure: &AcceptFailure<'_>) {
        *self.state().accept_errors.entry(failure.fault.name()).or_default() += 1;
    }

    fn handshake_done(&self, _: &Control, facts: &SessionFacts, took: Duration) {
        self.count_handshake("ok", facts.version_name(), facts.resumed, took);
    }

    fn handshake_failed(&self, _: &Control, reason: &Reason, took: Duration) {
        self.count_handshake(failure(reason), "none".into(), false, took);
    }

    fn reloaded(&self, reload: &Reload<'_>) {
        *self.state().reloads.entry(reload.name()).or_default() += 1;
    }

    fn ended(&self, connection: &Control, report: &CloseReport) {
        let bytes = connection.payload();
        let mut state = self.state();
        state.open.remove(&connection.number());
        *state.connections.entry(report.reason.name()).or_default() += 1;
        state.received += bytes.received;
        state.sent += bytes.sent;
    }
}

/// Prometheus text.
#[derive(Default)]
struct Text(String);

impl Text {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        writeln!(self.0, "# HELP bowline_{name} {help}\n# TYPE bowline_{name} {kind}")
            .expect("a String takes any text");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        writeln!(self.0, "bowline_{name}{labels} {value}").expect("a String takes any text");
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
