//! Writes the results of a run, for people and for programs.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::json;

use crate::error::Result;
use crate::measure::Sample;
use crate::outcome::Outcome;
use crate::series::Series;
use crate::spec::{Regime, Spec, Workload, number, thousands};
use crate::stats::{self, Mode, Rounds, Value, cpu, rate, ratios, resident};
use crate::svg::{self, Bar, Group, Line, Panel};
use crate::targets::{self, Judged};

/// One sample in a short line, for the progress output.
pub fn line(spec: &Spec, sample: &Sample) -> String {
    let cpu = sample.cpu() / sample.units;
    let rate = sample.units / sample.wall;
    match spec.workload {
        Workload::Bulk { .. } | Workload::Copy => format!("{cpu:.3} CPU s/GiB, {rate:.2} GiB/s"),
        Workload::Http { .. } => format!("{rate:.0}/s, {:.2} us CPU", cpu * 1e6),
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
    let judged = targets::judge(outcome);
    std::fs::write(to.join("results.json"), serde_json::to_string_pretty(&as_json(outcome, &judged))? + "\n")?;
    std::fs::write(to.join("results.md"), as_markdown(outcome, &judged))?;
    for plot in PLOTS {
        let groups: Vec<Group> =
            outcome.specs.iter().filter(|spec| (plot.has)(spec)).filter_map(|spec| group(outcome, spec)).collect();
        if !groups.is_empty() {
            std::fs::write(to.join(format!("{}.svg", plot.file)), svg::bars(plot.title, plot.unit, &groups))?;
        }
    }
    let panels: Vec<Panel> = families(outcome).iter().map(|family| panel(outcome, family)).collect();
    if !panels.is_empty() {
        let title = "Requests and responses, from 1 connection to 1,024";
        std::fs::write(to.join("growth.svg"), svg::growth(title, "requests/s, more is better", &panels))?;
    }
    Ok(())
}

/// Prints the targets at the end of a run.
pub fn tell(outcome: &Outcome, to: &Path) {
    for one in targets::judge(outcome) {
        if let (Some(value), Some(pass)) = (one.value(), one.pass()) {
            let verdict = if pass { "pass" } else { "MISS" };
            eprintln!("{verdict} {value:7.3} {:8} {}: {} against {}", one.bound, one.what, one.ours, one.against);
        }
    }
    let seconds = outcome.series.last().map_or(0, |series| series.seconds);
    eprintln!("{seconds} s; {}", to.join("results.md").display());
}

fn as_json(outcome: &Outcome, judged: &[Judged]) -> serde_json::Value {
    let measurements: Vec<_> = outcome.specs.iter().map(|spec| measurement(outcome, spec)).collect();
    let targets: Vec<_> = judged
        .iter()
        .map(|one| {
            json!({
                "what": one.what, "id": one.id, "ours": one.ours, "against": one.against, "bound": one.bound.to_string(),
                "aim": one.aim, "ratio": one.ratio, "pass": one.pass(),
            })
        })
        .collect();
    let growth: Vec<_> = families(outcome)
        .iter()
        .flat_map(|family| family.peers.iter().map(move |peer| (family, peer)))
        .filter_map(|(family, peer)| {
            let ratio = family.ratio(outcome, peer)?;
            Some(json!({ "size": family.size, "regime": family.regime.to_string(), "peer": peer, "1024/64": ratio }))
        })
        .collect();
    let syscalls: Vec<_> = outcome
        .syscalls
        .iter()
        .map(|((id, peer), calls)| {
            let calls: serde_json::Map<_, _> = calls.iter().map(|(name, count)| (name.clone(), json!(count))).collect();
            json!({ "id": id, "peer": peer, "calls": calls })
        })
        .collect();
    json!({
        "quick": outcome.quick, "series": outcome.series.iter().map(Series::to_json).collect::<Vec<_>>(),
        "quantiles": "minimum, quartiles, maximum", "notes": outcome.notes, "targets": targets, "growth": growth,
        "syscalls": syscalls, "measurements": measurements,
    })
}

fn measurement(outcome: &Outcome, spec: &Spec) -> serde_json::Value {
    let peers: Vec<_> = spec
        .peers
        .iter()
        .filter_map(|peer| {
            let samples = outcome.samples.get(&(spec.id.clone(), (*peer).to_owned()))?;
            let quantiles: serde_json::Map<_, _> = columns(spec.workload)
                .iter()
                .map(|column| (column.heading.to_owned(), json!(outcome.spread(&spec.id, peer, column.value))))
                .collect();
            let samples: Vec<_> = samples.iter().map(Sample::to_json).collect();
            let modes = modes(outcome, spec, peer);
            Some(json!({ "peer": peer, "quantiles": quantiles, "modes": modes, "samples": samples }))
        })
        .collect();
    let limit = stats::spread(&targets::limits(outcome, &spec.id));
    json!({
        "id": spec.id, "what": spec.words(), "unit": spec.workload.unit(), "limit CPU s": limit, "peers": peers,
    })
}

/// A column of a table: the heading, the value of a sample, and whether the spread is shown.
struct Column {
    heading: &'static str,
    value: Value,
    spread: bool,
}

/// The columns of a workload. Its main figure comes first.
fn columns(workload: Workload) -> Vec<Column> {
    let column = |heading, value: Value, spread| Column { heading, value, spread };
    let micros: Value = |sample| cpu(sample).map(|seconds| seconds * 1e6);
    match workload {
        Workload::Bulk { .. } | Workload::Copy | Workload::Aead { .. } => {
            vec![column("CPU s/GiB", cpu, true), column("GiB/s", rate, true)]
        }
        Workload::Small => {
            vec![column("million writes/s", rate, true), column("CPU s for a million", cpu, true)]
        }
        Workload::Pingpong { .. } => vec![
            column("requests/s", rate, true),
            column("CPU µs", micros, true),
            column("p50 µs", |s| s.latency.map(|l| l.0), false),
            column("p99 µs", |s| s.latency.map(|l| l.1), false),
        ],
        Workload::Http { .. } => vec![column("requests/s", rate, true), column("CPU µs of the server", micros, true)],
        Workload::Handshake(_) | Workload::Churn | Workload::Upgrade => {
            vec![column("connections/s", rate, true), column("CPU µs", micros, true)]
        }
        Workload::Idle { .. } | Workload::Stalled { .. } => vec![
            column("resident KiB", |s| resident(s).map(|bytes| bytes / 1024.0), true),
            column("heap KiB", |s| s.memory.map(|m| m.1 / 1024.0), false),
        ],
    }
}

fn judged_by(spec: &Spec) -> Value {
    columns(spec.workload).first().map_or(cpu, |column| column.value)
}

/// The two modes of a peer's main figure; `None` if there are not two.
fn modes(outcome: &Outcome, spec: &Spec, peer: &str) -> Option<[Mode; 2]> {
    stats::modes(&outcome.values(&spec.id, peer, judged_by(spec)))
}

fn as_markdown(outcome: &Outcome, judged: &[Judged]) -> String {
    let mut text = String::from("# Results\n\nWritten by `bench/run`; how to read it: `bench/README.md`.\n\n");
    text += "| rounds | measured | began (UTC) | commit | minutes | machine |\n|---|---|---|---|---|---|\n";
    for Series { first, rounds, what, began, commit, machine, seconds } in &outcome.series {
        let (last, minutes, what) = (first + rounds - 1, seconds.div_ceil(60), what.replace('|', "\\|"));
        let _ = writeln!(text, "| {first} to {last} | {what} | {began} | {commit} | {minutes} | {machine} |");
    }
    if outcome.quick {
        text += "\n**A quick run: small amounts, few rounds. Not to be quoted.**\n";
    }
    text += "\n## Targets\n\nEach ratio is that of one round; here are the median of the rounds and their quartiles. The limit \
             is raw TCP and the cipher alone.\n\n\
             | what | ours | against | target | aim | here | quartiles | rounds | |\n|---|---|---|---|---|---|---|---|---|\n";
    for one in judged {
        let (value, quartiles) = match one.ratio {
            Some([_, low, value, high, _]) => (format!("{value:.3}"), format!("{low:.3} – {high:.3}")),
            None => ("–".to_owned(), "–".to_owned()),
        };
        let Judged { what, id, ours, against, bound, aim, .. } = one;
        let aim = aim.map_or("–".to_owned(), |aim| format!("{aim:.2}"));
        let rounds = numbers(outcome, id, ours);
        let _ = writeln!(
            text,
            "| {what} | {ours} | {against} | {bound} | {aim} | {value} | {quartiles} | {rounds} | {} |",
            one.verdict()
        );
    }
    growth_tables(outcome, &mut text);
    two_modes(outcome, &mut text);
    outcome.specs.iter().for_each(|spec| table(outcome, spec, &mut text));
    system_calls(outcome, &mut text);
    if !outcome.notes.is_empty() {
        text += "\n## Notes\n\n";
    }
    outcome.notes.iter().for_each(|note| text += &format!("- {}\n", note.replace('\n', " ")));
    text
}

/// The rounds in which a peer took part: `8 to 14`.
fn numbers(outcome: &Outcome, id: &str, peer: &str) -> String {
    let samples = outcome.samples.get(&(id.to_owned(), peer.to_owned()));
    let rounds = || samples.into_iter().flatten().map(|sample| sample.round);
    match (rounds().min(), rounds().max()) {
        (Some(first), Some(last)) => format!("{first} to {last}"),
        _ => "–".to_owned(),
    }
}

fn table(outcome: &Outcome, spec: &Spec, text: &mut String) {
    let columns = columns(spec.workload);
    let values = |peer: &str, column: &Column| outcome.values(&spec.id, peer, column.value);
    let rounds = |peer: &str| columns.first().map_or(0, |column| values(peer, column).len());
    let newest = spec.peers.iter().map(|peer| numbers(outcome, &spec.id, peer)).max_by_key(|text| first_of(text));
    let newest = newest.unwrap_or_default();
    let of_newest = |peer: &&&'static str| numbers(outcome, &spec.id, peer) == newest;
    let most = spec.peers.iter().filter(of_newest).map(|peer| rounds(peer)).max().unwrap_or(0);
    let _ = writeln!(text, "\n## {}\n\n{}; rounds {newest}\n", spec.id, capital(&spec.words()));
    *text += "| peer |";
    for column in &columns {
        let _ = write!(text, " {} |", column.heading);
        if column.spread {
            *text += " min · quartiles · max |";
        }
    }
    let compared: Vec<&Column> = columns.iter().filter(|column| column.spread).collect();
    for column in &compared {
        let _ = write!(text, " {} ÷ tokio-rustls |", column.heading);
    }
    *text += "\n|---|";
    let width = columns.len() + 2 * compared.len();
    let _ = writeln!(text, "{}", "---|".repeat(width));
    for peer in &spec.peers {
        let mut row = format!("| {peer}");
        let taken = numbers(outcome, &spec.id, peer);
        // The peer has fewer rounds than others, because some have failed or the run ended early.
        if rounds(peer) < most && first_of(&taken) >= first_of(&newest) {
            let _ = write!(row, " ({} of {most})", rounds(peer));
        }
        if taken != newest && rounds(peer) > 0 {
            let _ = write!(row, " (rounds {taken})");
        }
        if modes(outcome, spec, peer).is_some() {
            row += " †";
        }
        row += " |";
        for column in &columns {
            match stats::spread(&values(peer, column)) {
                Some([least, low, median, high, most]) => {
                    let _ = write!(row, " {} |", number(median));
                    if column.spread {
                        let quartiles = format!("{}–{}", number(low), number(high));
                        let _ = write!(row, " {} · {quartiles} · {} |", number(least), number(most));
                    }
                }
                None => row += if column.spread { " – | – |" } else { " – |" },
            }
        }
        for column in &compared {
            let ratio = stats::compare(&values(peer, column), &values("tokio-rustls", column));
            let _ = write!(row, " {} |", ratio.map_or("–".to_owned(), |ratio| ratio.to_string()));
        }
        let _ = writeln!(text, "{row}");
    }
    if let Some(limit) = stats::spread(&targets::limits(outcome, &spec.id)) {
        let (scale, unit) = match spec.workload {
            Workload::Pingpong { .. } => (1e6, "µs"),
            _ => (1.0, "s"),
        };
        let each = spec.workload.unit();
        let _ = writeln!(
            text,
            "\nThe limit, raw TCP and the cipher: {} {unit} of CPU for each {each}.",
            number(limit[2] * scale)
        );
    }
}

/// The number at the start of this text.
fn first_of(rounds: &str) -> usize {
    rounds.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(0)
}

fn capital(words: &str) -> String {
    let mut chars = words.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

fn two_modes(outcome: &Outcome, text: &mut String) {
    let mut rows = String::new();
    for spec in &outcome.specs {
        for peer in &spec.peers {
            let Some([(low, few), (high, many)]) = modes(outcome, spec, peer) else { continue };
            let heading = columns(spec.workload).first().map_or("", |column| column.heading);
            let (low, high) = (number(low), number(high));
            let _ = writeln!(
                rows,
                "| {} | {peer} | {heading} | {low} in {few} rounds | {high} in {many} rounds |",
                spec.id
            );
        }
    }
    if !rows.is_empty() {
        *text += "\n## Two modes\n\nWhere the rounds fall into two heaps, and a median says little (marked † below).\n\n\
                  | measurement | peer | | one | the other |\n|---|---|---|---|---|\n";
        *text += &rows;
    }
}

fn system_calls(outcome: &Outcome, text: &mut String) {
    if outcome.syscalls.is_empty() {
        return;
    }
    *text += "\n## System calls for each unit\n\nUnder strace, which slows everything down: both ends, without what comes \
              ahead of the measurement.\n";
    for spec in &outcome.specs {
        let of_peer = |peer: &&&str| outcome.syscalls.get(&(spec.id.clone(), (**peer).to_owned()));
        if !spec.peers.iter().any(|peer| of_peer(&peer).is_some()) {
            continue;
        }
        let _ = writeln!(text, "\n{}, for each {}:\n", spec.id, spec.workload.unit());
        *text += "| peer | all | of them |\n|---|---|---|\n";
        for peer in &spec.peers {
            let Some([(_, all), calls @ ..]) = of_peer(&peer).map(Vec::as_slice) else { continue };
            let calls: Vec<String> = calls.iter().take(6).map(|(name, n)| format!("{name} {}", number(*n))).collect();
            let _ = writeln!(text, "| {peer} | {} | {} |", number(*all), calls.join(", "));
        }
    }
}

/// The same requests on a growing number of connections.
struct Family {
    size: usize,
    regime: Regime,
    /// Connections, and the measurement.
    members: Vec<(usize, String)>,
    peers: Vec<&'static str>,
}

impl Family {
    fn rates(&self, outcome: &Outcome, peer: &str, connections: usize) -> Rounds {
        let member = self.members.iter().find(|member| member.0 == connections);
        member.map(|(_, id)| outcome.values(id, peer, rate)).unwrap_or_default()
    }

    /// The ratio of 1,024 connections to 64.
    fn ratio(&self, outcome: &Outcome, peer: &str) -> Option<[f64; 5]> {
        stats::spread(&ratios(&self.rates(outcome, peer, 1024), &self.rates(outcome, peer, 64)))
    }
}

fn families(outcome: &Outcome) -> Vec<Family> {
    let mut families: Vec<Family> = Vec::new();
    for spec in &outcome.specs {
        let Workload::Pingpong { size, connections } = spec.workload else { continue };
        let at = families.iter().position(|family| (family.size, family.regime) == (size, spec.regime));
        let at = at.unwrap_or_else(|| {
            families.push(Family { size, regime: spec.regime, members: Vec::new(), peers: Vec::new() });
            families.len() - 1
        });
        families[at].members.push((connections, spec.id.clone()));
        for peer in &spec.peers {
            if !families[at].peers.contains(peer) {
                families[at].peers.push(peer);
            }
        }
    }
    families.retain(|family| family.members.len() > 1);
    families
}

fn growth_tables(outcome: &Outcome, text: &mut String) {
    let families = families(outcome);
    if families.is_empty() {
        return;
    }
    *text += "\n## Growth\n\nRequests a second (medians), and 1,024 connections against 64 within each round. Raw TCP shows what \
              of that is the kernel and the machine.\n";
    for family in families {
        let _ = writeln!(text, "\nRequest and response of {} bytes, {}:\n", thousands(family.size), family.regime);
        let counts: Vec<usize> = family.members.iter().map(|member| member.0).collect();
        let heads: String = counts.iter().map(|count| format!(" {count} |")).collect();
        let _ = writeln!(text, "| peer |{heads} 1,024 ÷ 64 | quartiles |");
        let _ = writeln!(text, "|---|{}---|---|", "---|".repeat(counts.len()));
        for peer in &family.peers {
            let mut row = format!("| {peer} |");
            for count in &counts {
                let median = stats::spread(&family.rates(outcome, peer, *count)).map(|spread| number(spread[2]));
                let _ = write!(row, " {} |", median.unwrap_or("–".to_owned()));
            }
            match family.ratio(outcome, peer) {
                Some([_, low, ratio, high, _]) => {
                    let _ = writeln!(text, "{row} {ratio:.3} | {low:.3} – {high:.3} |");
                }
                None => {
                    let _ = writeln!(text, "{row} – | – |");
                }
            }
        }
    }
}

fn panel(outcome: &Outcome, family: &Family) -> Panel {
    let line = |peer: &&'static str| {
        let point = |(count, id): &(usize, String)| Some((*count, outcome.spread(id, peer, rate)?));
        Line { name: (*peer).to_owned(), points: family.members.iter().filter_map(point).collect() }
    };
    let lines = family.peers.iter().map(line).filter(|line| line.points.len() > 1).collect();
    let regime = match family.regime {
        Regime::Default => "default sockets, two threads",
        Regime::Hot => "cache-hot, one CPU",
    };
    Panel { title: format!("{} bytes; {regime}", thousands(family.size)), lines }
}

/// One file of bars.
struct Plot {
    file: &'static str,
    title: &'static str,
    unit: &'static str,
    has: fn(&Spec) -> bool,
}

const COSTS: &str = "CPU s/GiB, less is better";
const REQUESTS: &str = "requests/s, more is better";

const PLOTS: &[Plot] = &[
    plot("bulk-default", "Bulk, default sockets", COSTS, |spec| is_bulk(spec, Regime::Default)),
    plot("bulk-hot", "Bulk, cache-hot", COSTS, |spec| is_bulk(spec, Regime::Hot)),
    plot("requests-default", "Requests and responses, two threads", REQUESTS, |s| is_requests(s, Regime::Default)),
    plot("requests-hot", "Requests and responses, one CPU", REQUESTS, |spec| is_requests(spec, Regime::Hot)),
    plot("small", "Writes of 100 bytes, no flush between them", "million writes/s, more is better", |spec| {
        spec.workload == Workload::Small
    }),
    plot("connections", "Handshakes, churn, upgrade", "connections/s, more is better", |spec| {
        matches!(spec.workload, Workload::Handshake(_) | Workload::Churn | Workload::Upgrade)
    }),
    plot("memory", "Memory of a connection on the server", "resident KiB, less is better", |spec| {
        matches!(spec.workload, Workload::Idle { .. } | Workload::Stalled { .. })
    }),
];

const fn plot(file: &'static str, title: &'static str, unit: &'static str, has: fn(&Spec) -> bool) -> Plot {
    Plot { file, title, unit, has }
}

fn is_bulk(spec: &Spec, regime: Regime) -> bool {
    spec.regime == regime && matches!(spec.workload, Workload::Bulk { .. })
}

/// The measurements with other numbers of connections are only for the plot of growth.
fn is_requests(spec: &Spec, regime: Regime) -> bool {
    spec.regime == regime && matches!(spec.workload, Workload::Pingpong { connections: 1 | 64 | 1024, .. })
}

fn group(outcome: &Outcome, spec: &Spec) -> Option<Group> {
    let value = judged_by(spec);
    let bar =
        |peer: &&'static str| Some(Bar { name: (*peer).to_owned(), spread: outcome.spread(&spec.id, peer, value)? });
    let bars: Vec<Bar> = spec.peers.iter().filter_map(bar).collect();
    let limit = match spec.workload {
        Workload::Bulk { .. } => stats::spread(&targets::limits(outcome, &spec.id)).map(|limit| limit[2]),
        _ => None,
    };
    (!bars.is_empty()).then(|| Group { title: capital(&spec.words()), bars, limit })
}
