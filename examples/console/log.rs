//! The log on standard output: the open ports, and one line for each event of a connection.

use bowline::{CloseLimit, Phase, Reason};
use serde_json::{Value, json};

use crate::common::info::{Fields, to_json};
use crate::lines::Lines;
use crate::log_format;

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

    pub(crate) fn made(&self, conn: u64, kind: &str, peer: String) {
        self.event(conn, "made", vec![("kind", json!(kind)), ("peer", json!(peer))]);
    }

    pub(crate) fn secured(&self, conn: u64, info: Fields) {
        self.event(conn, "secured", info);
    }

    pub(crate) fn read_closed(&self, conn: u64, how: &str) {
        self.event(conn, "read_closed", vec![("how", json!(how))]);
    }

    pub(crate) fn write_closed(&self, conn: u64) {
        self.event(conn, "write_closed", Vec::new());
    }

    pub(crate) fn lost(&self, conn: u64, reason: &Reason, limit: Option<CloseLimit>, received: u64, sent: u64) {
        let mut fields = vec![
            ("reason", json!(reason.name())),
            ("detail", json!(bowline::chain(reason).to_string())),
            ("received", json!(received)),
            ("sent", json!(sent)),
        ];
        if let Some(limit) = limit {
            fields.push(("bound", json!(limit.name())));
        }
        if reason.phase() == Some(Phase::Handshake) {
            fields.push(("phase", json!("handshake")));
        }
        self.event(conn, "lost", fields);
    }

    fn event(&self, conn: u64, event: &str, fields: Fields) {
        if !self.json {
            let words: Vec<String> = fields.iter().filter(|(_, value)| !value.is_null()).map(word).collect();
            return self.line(format!("#{conn} {event} {}", words.join(" ")).trim_end().to_owned());
        }
        let mut all = vec![("conn", json!(conn)), ("event", json!(event))];
        all.extend(fields);
        self.line(to_json(&all));
    }

    /// Waits until all lines are written; for a reader that does not read, only for a limited time.
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
