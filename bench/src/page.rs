//! Writes the figures in `docs/performance.md` from the report.

use std::fmt::Write as _;
use std::path::PathBuf;

use crate::error::{Result, fail};
use crate::outcome::Outcome;
use crate::series::Series;
use crate::spec::{Spec, Workload, number, thousands};
use crate::stats::{Value, compare, cpu, rate, resident, spread};
use crate::targets::{self, Judged};

/// A line of the table.
struct Row {
    words: &'static str,
    id: &'static str,
}

const fn row(words: &'static str, id: &'static str) -> Row {
    Row { words, id }
}

const ROWS: &[Row] = &[
    row("bulk, 64 KiB writes", "bulk/64k/up/tls13/default"),
    row("bulk, 256 KiB writes", "bulk/256k/up/tls13/default"),
    row("bulk, 1 MiB writes", "bulk/1024k/up/tls13/default"),
    row("bulk, 64 KiB writes, hot", "bulk/64k/up/tls13/hot"),
    row("a file by `tokio::io::copy`", "copy/64m/tls13/default"),
    row("1 KiB requests, 1 connection", "pingpong/1024/1/tls13/hot"),
    row("1 KiB requests, 64 connections", "pingpong/1024/64/tls13/hot"),
    row("1 KiB requests, 1,024 connections", "pingpong/1024/1024/tls13/hot"),
    row("hyper, HTTP/1.1, 1 KiB answers", "http1/1024/64/tls13/hot"),
    row("hyper, HTTP/2, 1 KiB answers", "http2/1024/8/tls13/hot"),
    row("100-byte writes, no flush", "small/100/tls13/hot"),
    row("full handshakes", "handshake/full/tls13/hot"),
    row("resumed handshakes", "handshake/resumed/tls13/hot"),
    row("connections with half-close", "churn/tls13/hot"),
    row("connections with STARTTLS", "upgrade/tls13/hot"),
    row("an idle connection", "idle/10000/tls13/hot"),
    row("a connection whose peer does not read", "stalled/500/tls13/hot"),
];

const COLUMNS: [&str; 4] = ["tcp", "tokio-rustls", "bowline", "bowline-express"];

/// Whether the page shows this measurement of this peer.
pub fn needs(id: &str, peer: &str) -> bool {
    COLUMNS.contains(&peer) && ROWS.iter().any(|row| row.id == id)
}

/// Writes the figures into the page.
pub fn write(outcome: &Outcome) -> Result<()> {
    let text = splice(&std::fs::read_to_string(file())?, &figures(outcome))?;
    Ok(std::fs::write(file(), text)?)
}

fn file() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/performance.md")
}

fn figures(outcome: &Outcome) -> String {
    runs(outcome) + &table(outcome) + &verdicts(&targets::judge(outcome))
}

const BEGIN: &str = "<!-- begin: figures, written by bench/run -->\n";
const END: &str = "<!-- end: figures -->\n";

/// Replaces the section between its marks.
fn splice(page: &str, section: &str) -> Result<String> {
    match page.split_once(BEGIN).and_then(|(before, rest)| Some((before, rest.split_once(END)?.1))) {
        Some((before, after)) => Ok(format!("{before}{BEGIN}\n{}\n\n{END}{after}", section.trim_end())),
        None => fail("the page has no marks for the figures"),
    }
}

/// When and on which machine the rows were measured.
fn runs(outcome: &Outcome) -> String {
    let newest = newest(outcome);
    let has = |series: &&Series| ROWS.iter().any(|row| series_of(outcome, row) == Some(*series));
    let mut text = String::new();
    for series in outcome.series.iter().filter(has) {
        let Series { rounds, began, commit, machine, .. } = series;
        let begin = if Some(series) == newest { "Medians" } else { "Rows with †: medians" };
        let when = if began == "unknown" { String::new() } else { format!(", {began} UTC, commit {commit}") };
        let _ = writeln!(text, "{begin} of {rounds} rounds on {machine}{when}.");
    }
    text + "\n"
}

/// The run to which a row belongs.
fn series_of<'a>(outcome: &'a Outcome, row: &Row) -> Option<&'a Series> {
    let round = outcome.samples.get(&(row.id.to_owned(), "bowline".to_owned()))?.last()?.round;
    outcome.series.iter().find(|series| series.has(round))
}

/// The run to which the newest row belongs.
fn newest(outcome: &Outcome) -> Option<&Series> {
    ROWS.iter().filter_map(|row| series_of(outcome, row)).max_by_key(|series| series.first)
}

fn table(outcome: &Outcome) -> String {
    let mut text = String::from(
        "| | raw TCP | tokio-rustls | bowline | bowline, express | bowline ÷ tokio-rustls | express ÷ tokio-rustls |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for row in ROWS {
        let Some(spec) = crate::spec::all().into_iter().find(|spec| spec.id == row.id) else { continue };
        let Some(series) = series_of(outcome, row) else { continue };
        let mark = if Some(series) == newest(outcome) { "" } else { " †" };
        let (unit, values) = shown(&spec);
        let _ = write!(text, "| {}: {unit}{mark} |", row.words);
        for peer in COLUMNS {
            let median = |by: &Value| Some(spread(&outcome.values(row.id, peer, *by))?[2]);
            let cell = values.iter().filter_map(median).map(|value| figure(&spec, value));
            let _ = write!(text, " {} |", bracketed(cell));
        }
        for peer in &COLUMNS[2..] {
            let ratio =
                |by: &Value| compare(&outcome.values(row.id, peer, *by), &outcome.values(row.id, "tokio-rustls", *by));
            let _ = write!(text, " {} |", bracketed(values.iter().filter_map(ratio).map(|ratio| ratio.to_string())));
        }
        text += "\n";
    }
    text
}

/// `2.61 (0.430)`
fn bracketed(mut values: impl Iterator<Item = String>) -> String {
    match (values.next(), values.next()) {
        (None, _) => "–".to_owned(),
        (Some(one), None) => one,
        (Some(one), Some(other)) => format!("{one} ({other})"),
    }
}

/// The unit of a row, and its values: the rate, and the CPU in brackets.
fn shown(spec: &Spec) -> (&'static str, Vec<Value>) {
    let micros: Value = |sample| cpu(sample).map(|seconds| seconds * 1e6);
    match spec.workload {
        Workload::Bulk { .. } | Workload::Copy | Workload::Aead { .. } => ("GiB/s (CPU s/GiB)", vec![rate, cpu]),
        Workload::Small => ("millions/s (CPU s)", vec![rate, cpu]),
        Workload::Http { .. } => ("per s (CPU µs of the server)", vec![rate, micros]),
        Workload::Pingpong { .. } | Workload::Handshake(_) | Workload::Churn | Workload::Upgrade => {
            ("per s (CPU µs)", vec![rate, micros])
        }
        Workload::Idle { .. } | Workload::Stalled { .. } => {
            ("resident KiB", vec![|sample| resident(sample).map(|bytes| bytes / 1024.0)])
        }
    }
}

fn figure(spec: &Spec, value: f64) -> String {
    let is_count = !matches!(spec.workload, Workload::Idle { .. } | Workload::Stalled { .. });
    if is_count && value >= 1000.0 { thousands((value / 10.0).round() as usize * 10) } else { number(value) }
}

/// The number of targets that are met, and a list of the missed ones.
fn verdicts(judged: &[Judged]) -> String {
    let measured = judged.iter().filter(|one| one.pass().is_some()).count();
    let missed: Vec<&Judged> = judged.iter().filter(|one| one.pass() == Some(false)).collect();
    let mut text = format!(
        "\nOf the {} targets that were set, {measured} were measured in one run, and {} of these are met \
         ([all](../bench/results/results.md#targets)).",
        judged.len(),
        measured - missed.len()
    );
    text += if missed.is_empty() { "\n" } else { " Missed:\n" };
    let mut last = None;
    for one in missed {
        if last.replace(one.what) != Some(one.what) {
            let _ = write!(text, "\n- {}", one.what);
        }
        let value = one.value().unwrap_or(f64::NAN);
        let _ = write!(text, "; {} {value:.3}, not {}", one.ours, one.bound);
    }
    text + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::again;
    use crate::outcome::results;

    /// Fails if the report has changed and the page has not. `bench/run --again --rounds 0` rewrites the page, and so
    /// does this test with `UPDATE_DOCS=1`.
    #[test]
    fn the_page_contains_the_figures_of_the_report() -> Result<()> {
        let outcome = again::load(&results())?;
        if std::env::var_os("UPDATE_DOCS").is_some() {
            write(&outcome)?;
        }
        let page = std::fs::read_to_string(file())?;
        assert_eq!(splice(&page, &figures(&outcome))?, page);
        Ok(())
    }

    #[test]
    fn rows_are_measurements_that_exist() {
        let specs = crate::spec::all();
        for row in ROWS {
            assert!(specs.iter().any(|spec| spec.id == row.id), "{}", row.id);
        }
    }
}
