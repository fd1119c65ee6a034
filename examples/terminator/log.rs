//! The log on standard output: the open port, and one line for each connection.

use bowline::RelayReport;
use serde_json::json;

use crate::common::info::{Fields, to_json};
use crate::lines::Lines;
use crate::log_format;

/// The log on standard output.
#[derive(Clone)]
pub(crate) struct Log {
    json: bool,
    lines: Lines,
}

/// The facts of a connection that has ended.
pub(crate) struct Ended {
    pub(crate) conn: u64,
    pub(crate) client: String,
    /// Empty if no service was reached.
    pub(crate) service: String,
    /// The TLS facts of the client's connection.
    pub(crate) facts: Fields,
    pub(crate) seconds: f64,
    /// The report of the relay, or the failure that prevented it.
    pub(crate) outcome: Result<RelayReport, Failed>,
}

/// A connection that ended before it was joined to another.
pub(crate) struct Failed {
    /// The side that failed.
    pub(crate) side: Side,
    /// One word: the name of the reason, or `connect`.
    pub(crate) how: &'static str,
    pub(crate) detail: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Service,
}

impl Side {
    fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Service => "service",
        }
    }
}

impl Log {
    pub(crate) fn new(json: bool) -> Self {
        Self { json, lines: log_format::lines(json) }
    }

    /// Writes a line as it is.
    pub(crate) fn line(&self, line: String) {
        self.lines.push(line);
    }

    /// Waits while much of the log is unread.
    pub(crate) async fn room(&self) {
        self.lines.room().await;
    }

    /// An event of the whole service.
    pub(crate) fn event(&self, event: &str, fields: Fields) {
        if self.json {
            let mut all = vec![("event", json!(event))];
            all.extend(fields);
            return self.line(to_json(&all));
        }
        let words = fields.iter().map(|(name, value)| format!(" {name}={value}"));
        self.line(event.to_owned() + &words.collect::<String>());
    }

    pub(crate) fn ended(&self, ended: &Ended) {
        self.line(if self.json { ended.json() } else { ended.text() });
    }

    /// Waits until all lines are written; for a reader that does not read, only for a limited time.
    pub(crate) fn finish(&self) {
        self.lines.finish();
    }
}

impl Ended {
    fn text(&self) -> String {
        let Self { conn, client, service, seconds, outcome, .. } = self;
        match outcome {
            Ok(report) => format!(
                "#{conn} {client} to {service}, {seconds:.3} s: {} bytes there, {} bytes back; client: {}; service: {}",
                report.a_to_b, report.b_to_a, report.a, report.b
            ),
            Err(failed) => format!("#{conn} {client}, {seconds:.3} s: {}: {}", failed.side.name(), failed.detail),
        }
    }

    fn json(&self) -> String {
        let mut fields = vec![
            ("conn", json!(self.conn)),
            ("client", json!(self.client)),
            ("service", json!(self.service)),
            ("seconds", json!((self.seconds * 1000.0).round() / 1000.0)),
        ];
        let told = |name: &&str| ["version", "cipher", "alpn", "sni", "peer_subject"].contains(name);
        fields.extend(self.facts.iter().filter(|(name, _)| told(name)).cloned());
        match &self.outcome {
            Ok(report) => fields.extend([
                ("there", json!(report.a_to_b)),
                ("back", json!(report.b_to_a)),
                ("client_end", json!(report.a.reason.name())),
                ("client_detail", json!(report.a.to_string())),
                ("service_end", json!(report.b.reason.name())),
                ("service_detail", json!(report.b.to_string())),
            ]),
            Err(failed) => {
                fields.extend([
                    ("failed", json!(failed.side.name())),
                    ("how", json!(failed.how)),
                    ("detail", json!(failed.detail)),
                ]);
            }
        }
        to_json(&fields)
    }
}
