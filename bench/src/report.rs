//! What a run gave, for people and for programs.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::json;

use crate::Result;
use crate::conduct::Outcome;
use crate::measure::Sample;
use crate::spec::{Spec, Workload};
use crate::svg::{self, Bar, Group};
use crate::targets;

/// One sample in few words, for whoever looks on.
pub fn line(spec: &Spec, sample: &Sample) -> String {
    let cpu = sample.cpu() / sample.units;
    let rate = sample.units / sample.wall;
    match spec.workload {
        Workload::Bulk { .. } => format!("{cpu:.3} CPU s/GiB, {rate:.2} GiB/s"),
        Workload::Small => format!("{cpu:.3} CPU s, {rate:.2} million/s"),
        Workload::Aead { .. } => format!("{cpu:.3} CPU s/GiB"),
        Workload::Handshake(_) | Workload::Churn | Workload::Upgrade => format!("{rate:.0}/s, {:.0} us CPU", cpu * 1e6),
        Workload::Idle { .. } | Workload::Stalled { .. } => {
            let (resident, heap) = sample.memory.unwrap_or_default();
            format!("{:.2} KiB resident, {:.2} KiB heap", resident / 1024.0, heap / 1024.0)
        }
        Workload::Pingpong { .. } => {
            let (p50, p99) = sample.latency.unwrap_or_default();
            format!("{rate:.0}/s, {:.2} us CPU, p50 {p50:.1} us, p99 {p99:.1} us", cpu * 1e6)
        }
    }
}

/// Writes `results.md`, `results.json` and the plots.
pub fn write(outcome: &Outcome, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    std::fs::write(to.join("results.json"), serde_json::to_string_pretty(&as_json(outcome))? + "\n")?;
    std::fs::write(to.join("results.md"), as_markdown(outcome))?;
    for (name, title, unit, groups) in plots(outcome) {
        std::fs::write(to.join(format!("{name}.svg")), svg::plot(title, unit, &groups))?;
    }
    for judged in targets::judge(outcome) {
        if let Some(value) = judged.value {
            eprintln!("{:4} {value:6.2} {:7} {}", verdict(judged.pass), judged.bound, judged.what);
        }
    }
    eprintln!("{} s; {}", outcome.took.as_secs(), to.join("results.md").display());
    Ok(())
}

fn verdict(pass: bool) -> &'static str {
    if pass { "pass" } else { "MISS" }
}

fn as_json(outcome: &Outcome) -> serde_json::Value {
    let measurements: Vec<_> = outcome
        .samples
        .iter()
        .map(|((id, peer), samples)| {
            json!({ "id": id, "peer": peer, "samples": samples.iter().map(Sample::to_json).collect::<Vec<_>>() })
        })
        .collect();
    let targets: Vec<_> = targets::judge(outcome)
        .iter()
        .map(
            |one| json!({ "what": one.what, "bound": one.bound, "aim": one.aim, "value": one.value, "pass": one.pass }),
        )
        .collect();
    json!({
        "quick": outcome.quick, "rounds": outcome.rounds, "machine": machine(), "notes": outcome.notes,
        "targets": targets, "measurements": measurements,
    })
}

/// Minimum, quartiles, maximum.
pub fn quantiles(mut values: Vec<f64>) -> [f64; 5] {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1) as f64;
    [0.0, 0.25, 0.5, 0.75, 1.0].map(|part| {
        let at = last * part;
        let (low, high) = (at.floor() as usize, at.ceil() as usize);
        match (values.get(low), values.get(high)) {
            (Some(low), Some(high)) => low + (high - low) * at.fract(),
            _ => f64::NAN,
        }
    })
}

/// What a table shows: the heading, how a value is got, and whether its spread is shown.
struct Column {
    heading: &'static str,
    value: fn(&Sample) -> Option<f64>,
    spread: bool,
}

/// What a workload is judged by comes first.
fn columns(workload: Workload) -> Vec<Column> {
    let column = |heading, value, spread| Column { heading, value, spread };
    let seconds = |s: &Sample| Some(s.cpu() / s.units);
    let micros = |s: &Sample| Some(s.cpu() / s.units * 1e6);
    let rate = |s: &Sample| Some(s.units / s.wall);
    match workload {
        Workload::Bulk { .. } | Workload::Aead { .. } => {
            vec![column("CPU s/GiB", seconds, true), column("GiB/s", rate, true)]
        }
        Workload::Small => {
            vec![column("million writes/s", rate, true), column("CPU s for a million", seconds, true)]
        }
        Workload::Pingpong { .. } => vec![
            column("requests/s", rate, true),
            column("CPU µs", micros, true),
            column("p50 µs", |s| s.latency.map(|l| l.0), false),
            column("p99 µs", |s| s.latency.map(|l| l.1), false),
        ],
        Workload::Handshake(_) | Workload::Churn | Workload::Upgrade => {
            vec![column("connections/s", rate, true), column("CPU µs", micros, true)]
        }
        Workload::Idle { .. } | Workload::Stalled { .. } => vec![
            column("resident KiB", |s| s.memory.map(|m| m.0 / 1024.0), true),
            column("heap KiB", |s| s.memory.map(|m| m.1 / 1024.0), false),
        ],
    }
}

fn spread(outcome: &Outcome, id: &str, peer: &str, column: &Column) -> Option<[f64; 5]> {
    let samples = outcome.samples.get(&(id.to_owned(), peer.to_owned()))?;
    let values: Vec<f64> = samples.iter().filter_map(column.value).collect();
    (!values.is_empty()).then(|| quantiles(values))
}

fn as_markdown(outcome: &Outcome) -> String {
    let mut text = String::from("# Results\n\nWritten by `bench/run`; how to read it: `docs/performance.md`.\n\n");
    let _ = writeln!(text, "{}; {} rounds, {} s.", machine(), outcome.rounds, outcome.took.as_secs());
    if outcome.quick {
        text += "\n**A quick run: small amounts, few rounds. Not to be quoted.**\n";
    }
    text += "\n## Targets\n\n| what | target | aim | here | |\n|---|---|---|---|---|\n";
    for one in targets::judge(outcome) {
        let (value, verdict) = match one.value {
            Some(value) => (format!("{value:.2}"), verdict(one.pass)),
            None => ("–".to_owned(), "not measured"),
        };
        let _ = writeln!(text, "| {} | {} | {:.2} | {value} | {verdict} |", one.what, one.bound, one.aim);
    }
    for spec in &outcome.specs {
        table(outcome, spec, &mut text);
    }
    if !outcome.syscalls.is_empty() {
        text += "\n## System calls for each unit\n\nUnder strace; those ahead of the measurement are in them.\n\n";
        text += "| measurement | peer | calls |\n|---|---|---|\n";
    }
    for ((id, peer), calls) in &outcome.syscalls {
        let calls: Vec<String> = calls.iter().map(|(name, count)| format!("{name} {}", number(*count))).collect();
        let _ = writeln!(text, "| {id} | {peer} | {} |", calls.join(", "));
    }
    if !outcome.notes.is_empty() {
        text += "\n## Notes\n\n";
    }
    outcome.notes.iter().for_each(|note| text += &format!("- {note}\n"));
    text
}

fn table(outcome: &Outcome, spec: &Spec, text: &mut String) {
    let columns = columns(spec.workload);
    let _ = writeln!(text, "\n## {}\n", spec.id);
    *text += "| peer |";
    for column in &columns {
        let _ = write!(text, " {} |", column.heading);
        if column.spread {
            *text += " min – quartiles – max |";
        }
    }
    *text += " ÷ tokio-rustls |\n|---|";
    let width = columns.len() + columns.iter().filter(|column| column.spread).count() + 1;
    let _ = writeln!(text, "{}", "---|".repeat(width));
    let first = columns.first();
    let base = first.and_then(|column| spread(outcome, &spec.id, "tokio-rustls", column));
    for peer in &spec.peers {
        let mut row = format!("| {peer} |");
        for column in &columns {
            match spread(outcome, &spec.id, peer, column) {
                Some([least, low, median, high, most]) => {
                    let _ = write!(row, " {} |", number(median));
                    if column.spread {
                        let _ =
                            write!(row, " {} – {} {} – {} |", number(least), number(low), number(high), number(most));
                    }
                }
                None => row += if column.spread { " – | – |" } else { " – |" },
            }
        }
        let ours = first.and_then(|column| spread(outcome, &spec.id, peer, column));
        let ratio = ours.zip(base).map_or("–".to_owned(), |(ours, base)| format!("{:.2}", ours[2] / base[2]));
        let _ = writeln!(text, "{row} {ratio} |");
    }
    if let Some(limit) = targets::limit(outcome, &spec.id) {
        let scaled = if matches!(spec.workload, Workload::Pingpong { .. }) { limit * 1e6 } else { limit };
        let _ = writeln!(
            text,
            "\nThe limit, raw TCP and the cipher: {} CPU for each {}.",
            number(scaled),
            spec.workload.unit()
        );
    }
}

/// File, title, unit, bars.
fn plots(outcome: &Outcome) -> Vec<(&'static str, &'static str, &'static str, Vec<Group>)> {
    let groups = |is_in: fn(Workload) -> bool| -> Vec<Group> {
        outcome.specs.iter().filter(|spec| is_in(spec.workload)).filter_map(|spec| group(outcome, spec)).collect()
    };
    vec![
        ("bulk", "Bulk", "CPU s/GiB, less is better", groups(|w| matches!(w, Workload::Bulk { .. }))),
        (
            "requests",
            "Requests and responses",
            "a second, more is better",
            groups(|w| matches!(w, Workload::Pingpong { .. })),
        ),
        ("small", "Writes of 100 bytes", "millions a second, more is better", groups(|w| w == Workload::Small)),
        (
            "connections",
            "Handshakes, churn, upgrade",
            "a second, more is better",
            groups(|w| matches!(w, Workload::Handshake(_) | Workload::Churn | Workload::Upgrade)),
        ),
        (
            "memory",
            "Memory of a connection on the server",
            "resident KiB, less is better",
            groups(|w| matches!(w, Workload::Idle { .. } | Workload::Stalled { .. })),
        ),
    ]
}

fn group(outcome: &Outcome, spec: &Spec) -> Option<Group> {
    let columns = columns(spec.workload);
    let column = columns.first()?;
    let bars: Vec<Bar> = spec
        .peers
        .iter()
        .filter_map(|peer| Some(Bar { name: (*peer).to_owned(), spread: spread(outcome, &spec.id, peer, column)? }))
        .collect();
    (!bars.is_empty()).then(|| Group { title: spec.id.clone(), bars })
}

/// What it ran on, without names.
fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .unwrap_or("")
        .trim_start_matches(['\t', ':', ' ']);
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let system = read("/proc/sys/kernel/osrelease");
    format!("{model}, {cpus} CPUs, Linux {}", system.trim())
}

/// Three or four digits.
pub fn number(value: f64) -> String {
    match value.abs() {
        x if x >= 1000.0 => format!("{value:.0}"),
        x if x >= 100.0 => format!("{value:.1}"),
        x if x >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}
