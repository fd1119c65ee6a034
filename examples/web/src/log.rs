//! The log on standard output: the open ports, and one line for each event.

use std::time::SystemTime;

use bowline::{CloseReport, Control, DrainReport, Error, Reason, Received};
use serde_json::{Value, json};

use crate::common::info::{Fields, to_json};
use crate::lines::Lines;
use crate::log_format;
use crate::reload::rfc3339;

/// The log on standard output.
#[derive(Clone)]
pub(crate) struct Log {
    json: bool,
    lines: Lines,
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

    /// A connection was accepted. `peer` is the peer of the socket.
    pub(crate) fn made(&self, conn: u64, peer: String) {
        self.event(Some(conn), "made", vec![("kind", json!("tls")), ("peer", json!(peer))]);
    }

    pub(crate) fn secured(&self, conn: u64, facts: Fields) {
        self.event(Some(conn), "secured", facts);
    }

    /// Logs the ends of the halves of a connection that have ended in order or were cut off.
    pub(crate) fn halves(&self, conn: u64, report: &CloseReport) {
        let Some(top) = report.layers.first() else { return };
        let how = match top.received {
            Received::Marker => Some("clean"),
            Received::BareEnd => Some("truncated"),
            _ => None,
        };
        if let Some(how) = how {
            self.event(Some(conn), "read_closed", vec![("how", json!(how))]);
        }
        if top.marker_sent {
            self.event(Some(conn), "write_closed", Vec::new());
        }
    }

    /// A connection has ended. `is_ready`: it was ready for requests before.
    pub(crate) fn lost(&self, conn: u64, connection: &Control, reason: &Reason, is_ready: bool) {
        let bytes = connection.payload();
        let mut fields = vec![
            ("peer", json!(connection.peer_addr().to_string())),
            ("via", json!(connection.via().map(|via| via.to_string()))),
            ("reason", json!(reason.name())),
            ("detail", json!(bowline::chain(reason).to_string())),
            ("received", json!(bytes.received)),
            ("sent", json!(bytes.sent)),
        ];
        if !is_ready {
            fields.push(("phase", json!("handshake")));
        }
        self.event(Some(conn), "lost", fields);
    }

    /// The reloader has put new certificates in use, or has found no change.
    pub(crate) fn reloaded(&self, generation: u64, not_after: Option<SystemTime>) {
        let fields = vec![("generation", json!(generation)), ("not_after", json!(not_after.map(rfc3339)))];
        self.event(None, "reloaded", fields);
    }

    /// The files cannot be used.
    pub(crate) fn reload_failed(&self, error: &Error) {
        self.reload_failed_by(&bowline::chain(error).to_string());
    }

    /// As [`reload_failed`](Self::reload_failed), with the description.
    pub(crate) fn reload_failed_by(&self, detail: &str) {
        self.event(None, "reload_failed", vec![("detail", json!(detail))]);
    }

    pub(crate) fn draining(&self) {
        self.event(None, "draining", Vec::new());
    }

    pub(crate) fn drained(&self, report: &DrainReport) {
        let counts = report.iter().map(|(outcome, count)| (outcome.name(), json!(count)));
        let others = [("cut_off", json!(report.cut_off)), ("handshakes", json!(report.handshakes))];
        self.event(None, "drained", counts.chain(others).collect());
    }

    fn event(&self, conn: Option<u64>, event: &str, fields: Fields) {
        if !self.json {
            let words: Vec<String> = fields.iter().filter(|(_, value)| !value.is_null()).map(word).collect();
            let conn = conn.map(|conn| format!("#{conn} ")).unwrap_or_default();
            return self.line(format!("{conn}{event} {}", words.join(" ")).trim_end().to_owned());
        }
        let mut all: Fields = conn.map(|conn| ("conn", json!(conn))).into_iter().collect();
        all.push(("event", json!(event)));
        all.extend(fields);
        self.line(to_json(&all));
    }

    /// Waits until all lines are written. If the reader does not read, the wait is limited.
    pub(crate) fn finish(&self) {
        self.lines.finish();
    }
}

/// A field in a readable form.
fn word((name, value): &(&'static str, Value)) -> String {
    match value.as_str() {
        Some(text) if !text.contains([' ', '"', '=']) => format!("{name}={text}"),
        _ => format!("{name}={value}"),
    }
}
