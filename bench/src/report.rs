//! What a run gave, for people and for programs.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::json;

use crate::Result;
use crate::conduct::Outcome;
use crate::measure::Sample;
use crate::spec::{Spec, Workload};

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

/// Writes `results.md` and `results.json`.
pub fn write(outcome: &Outcome, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    std::fs::write(to.join("results.json"), serde_json::to_string_pretty(&as_json(outcome))? + "\n")?;
    std::fs::write(to.join("results.md"), as_markdown(outcome))?;
    eprintln!("{} s; {}", outcome.took.as_secs(), to.join("results.md").display());
    Ok(())
}

fn as_json(outcome: &Outcome) -> serde_json::Value {
    let measurements: Vec<_> = outcome
        .samples
        .iter()
        .map(|((id, peer), samples)| {
            json!({ "id": id, "peer": peer, "samples": samples.iter().map(Sample::to_json).collect::<Vec<_>>() })
        })
        .collect();
    json!({ "quick": outcome.quick, "rounds": outcome.rounds, "notes": outcome.notes, "measurements": measurements })
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

fn as_markdown(outcome: &Outcome) -> String {
    let mut text = String::from("# Results\n");
    for spec in &outcome.specs {
        let _ = writeln!(text, "\n## {}\n", spec.id);
        let _ = writeln!(text, "| peer | CPU: median | min | quartiles | max | rate: median | min | max |");
        let _ = writeln!(text, "|---|---|---|---|---|---|---|---|");
        for peer in &spec.peers {
            let Some(samples) = outcome.samples.get(&(spec.id.clone(), (*peer).to_owned())) else { continue };
            let cpu = quantiles(samples.iter().map(|s| s.cpu() / s.units).collect());
            let rate = quantiles(samples.iter().map(|s| s.units / s.wall).collect());
            let f = crate::report::number;
            let _ = writeln!(
                text,
                "| {peer} | {} | {} | {}–{} | {} | {} | {} | {} |",
                f(cpu[2]), f(cpu[0]), f(cpu[1]), f(cpu[3]), f(cpu[4]), f(rate[2]), f(rate[0]), f(rate[4])
            );
        }
    }
    for note in &outcome.notes {
        let _ = writeln!(text, "\n- {note}");
    }
    text
}

fn number(value: f64) -> String {
    match value.abs() {
        x if x >= 1000.0 => format!("{value:.0}"),
        x if x >= 1.0 => format!("{value:.2}"),
        x if x >= 0.001 => format!("{value:.4}"),
        _ => format!("{value:.3e}"),
    }
}
