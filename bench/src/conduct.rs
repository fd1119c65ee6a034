//! The conductor: decides which measurements are made in which order, and collects their results.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lexopt::prelude::{Long, Short, ValueExt};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use regex_lite::Regex;

use crate::again;
use crate::error::{Result, fail};
use crate::foreign::Foreign;
use crate::measure::Sample;
use crate::outcome::{Outcome, results};
use crate::page;
use crate::report;
use crate::series::Series;
use crate::spec::{self, Spec};
use crate::targets;

const USAGE: &str = "\
bench [--targets] [--quick] [--only REGEX] [--peers a,b] [--rounds N] [--out DIR] [--again] [--syscalls] [--list]

  --targets     only what the targets and docs/performance.md are about, and with --again implied: at most twelve minutes
  --quick       small amounts and two rounds: numbers to try things, not to keep
  --only REGEX  only measurements whose id matches; --list shows the ids
  --peers a,b   only these peers
  --rounds N    default 7
  --out DIR     where the report goes; default bench/results for a run of everything, else bench/results-quick
  --again       keeps what the report has of everything else, and says what is of which run; with --rounds 0 only what
                strace counts is new, and without --syscalls nothing: the report and the page are written anew
  --syscalls    behind the rounds, twice more under strace: system calls for each unit
  --list        what would be measured
";

/// The time limit of a measurement. It is reached only if something hangs.
const LIMIT: Duration = Duration::from_secs(60);

struct Options {
    targets: bool,
    quick: bool,
    only: Option<Regex>,
    peers: Option<Vec<String>>,
    rounds: usize,
    out: PathBuf,
    again: bool,
    syscalls: bool,
    list: bool,
}

pub fn main() -> Result<()> {
    let Some(options) = parse()? else {
        print!("{USAGE}");
        return Ok(());
    };
    let mut notes = Vec::new();
    let foreign = Foreign::find()?;
    let specs = select(&options, &foreign, &mut notes);
    if options.list {
        specs.iter().for_each(|spec| println!("{:36} {}", spec.id, spec.peers.join(" ")));
        notes.iter().for_each(|note| println!("note: {note}"));
        return Ok(());
    }
    if specs.is_empty() {
        return fail("nothing matches; --list shows what there is");
    }
    allow_many_files()?;
    let outcome = conduct(&options, &foreign, specs, notes)?;
    report::write(&outcome, &options.out)?;
    if options.out == results() && !outcome.quick {
        page::write(&outcome)?;
    }
    report::tell(&outcome, &options.out);
    Ok(())
}

/// Raises the limit of descriptors for ten thousand connections. The measuring processes inherit it.
fn allow_many_files() -> Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, most, most)?)
}

fn parse() -> Result<Option<Options>> {
    let (mut rounds, mut out) = (None, None);
    let mut options = Options {
        targets: false,
        quick: false,
        only: None,
        peers: None,
        rounds: 0,
        out: PathBuf::new(),
        again: false,
        syscalls: false,
        list: false,
    };
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("targets") => options.targets = true,
            Long("quick") => options.quick = true,
            Long("only") => options.only = Some(Regex::new(&parser.value()?.string()?)?),
            Long("peers") => options.peers = Some(parser.value()?.string()?.split(',').map(str::to_owned).collect()),
            Long("rounds") => rounds = Some(parser.value()?.parse::<usize>()?),
            Long("out") => out = Some(PathBuf::from(parser.value()?)),
            Long("again") => options.again = true,
            Long("syscalls") => options.syscalls = true,
            Long("list") => options.list = true,
            Long("help") | Short('h') => return Ok(None),
            other => return Err(other.unexpected().into()),
        }
    }
    options.again |= options.targets && !options.quick;
    if rounds == Some(0) && !options.again {
        return fail("no rounds: nothing would be measured");
    }
    let is_part = !options.again && (options.quick || options.only.is_some() || options.peers.is_some());
    options.rounds = rounds.unwrap_or(if options.quick { 2 } else { 7 });
    options.out = out.unwrap_or_else(|| if is_part { results().with_file_name("results-quick") } else { results() });
    Ok(Some(options))
}

fn select(options: &Options, foreign: &Foreign, notes: &mut Vec<String>) -> Vec<Spec> {
    let mut specs = spec::all();
    let is_all = !options.quick || options.targets || options.only.is_some();
    specs.retain(|spec| is_all || spec::is_quick(spec));
    if options.targets {
        specs.iter_mut().for_each(|Spec { id, peers, .. }| peers.retain(|peer| is_shown(id, peer)));
        specs.retain(|spec| !spec.peers.is_empty());
    }
    specs.retain(|spec| options.only.as_ref().is_none_or(|only| only.is_match(&spec.id)));
    specs.retain(|spec| {
        let lack = Foreign::lacks(spec).map(|why| format!("{} is left out: {why}", spec.id));
        let is_there = lack.is_none();
        notes.extend(lack);
        is_there
    });
    for spec in &mut specs {
        spec.peers.retain(|peer| options.peers.as_ref().is_none_or(|peers| peers.iter().any(|one| one == peer)));
        spec.peers.retain(|peer| {
            let missing = foreign.missing(peer).map(|why| format!("{peer} is left out: {why}"));
            let is_there = missing.is_none();
            notes.extend(missing.filter(|note| !notes.contains(note)));
            is_there
        });
    }
    specs.retain(|spec| !spec.peers.is_empty());
    specs
}

/// Whether a target or the documentation needs this measurement.
fn is_shown(id: &str, peer: &str) -> bool {
    targets::needs(id, peer) || page::needs(id, peer)
}

/// Interleaves the peers, A B C, A B C, so that a disturbance of the machine affects all peers of a measurement. The
/// report is written after each round, so that an interrupted run keeps its results.
fn conduct(options: &Options, foreign: &Foreign, specs: Vec<Spec>, mut notes: Vec<String>) -> Result<Outcome> {
    let mut progress = Progress { begin: Instant::now(), done: 0, total: 0 };
    let rounds = |spec: &Spec| spec::rounds(spec, options.rounds, options.quick);
    progress.total = specs.iter().map(|spec| rounds(spec) * spec.peers.len()).sum();
    let scale = if options.quick { 0.1 } else { 1.0 };
    let mut outcome = if options.again && (options.out.join("results.json").exists() || !options.targets) {
        again::load(&options.out)?
    } else {
        Outcome::new(specs.clone(), options.quick)
    };
    notes.retain(|note| !outcome.notes.contains(note));
    outcome.notes.extend(notes);
    let first = outcome.series.iter().map(|series| series.first + series.rounds).max().unwrap_or(1);
    if options.rounds > 0 {
        outcome.renew(&specs);
        outcome.series.push(Series::begin(first, &options.what()));
    }
    for round in 1..=options.rounds {
        for spec in specs.iter().filter(|spec| round <= rounds(spec)) {
            for peer in &spec.peers {
                eprint!("{} round {round} {:34} {peer:24} ", progress.next(), spec.id);
                match measure(foreign, spec, peer, scale) {
                    Ok(sample) => {
                        eprintln!("{}", report::line(spec, &sample));
                        let (key, round) = ((spec.id.clone(), (*peer).to_owned()), first + round - 1);
                        outcome.samples.entry(key).or_default().push(Sample { round, ..sample });
                    }
                    Err(error) => {
                        eprintln!("FAILED: {error}");
                        outcome.notes.push(format!("round {round}: {} by {peer} failed: {error}", spec.id));
                    }
                }
            }
        }
        if let Some(series) = outcome.series.last_mut() {
            (series.rounds, series.seconds) = (round, progress.begin.elapsed().as_secs());
        }
        report::write(&outcome, &options.out)?;
    }
    for spec in specs.iter().filter(|spec| options.syscalls && spec::is_counted(spec)) {
        for peer in &spec.peers {
            eprintln!("counting system calls: {} {peer}", spec.id);
            match syscalls(foreign, spec, peer) {
                Ok(counts) => drop(outcome.syscalls.insert((spec.id.clone(), (*peer).to_owned()), counts)),
                Err(error) => outcome.notes.push(format!("no system calls of {} by {peer}: {error}", spec.id)),
            }
        }
    }
    Ok(outcome)
}

impl Options {
    /// The options of this run, as on the command line.
    fn what(&self) -> String {
        let only = self.only.as_ref().map(|only| format!("--only '{only}'"));
        let peers = self.peers.as_ref().map(|peers| format!("--peers {}", peers.join(",")));
        let targets = self.targets.then(|| "--targets".to_owned());
        let what: Vec<String> = [targets, only, peers].into_iter().flatten().collect();
        if what.is_empty() { "everything".to_owned() } else { what.join(" ") }
    }
}

/// The progress of a run, and the remaining time.
struct Progress {
    begin: Instant,
    done: usize,
    total: usize,
}

impl Progress {
    fn next(&mut self) -> String {
        let gone = self.begin.elapsed();
        let all = gone.mul_f64(self.total as f64 / self.done.max(1) as f64);
        self.done += 1;
        let clock = |time: Duration| format!("{}:{:02}", time.as_secs() / 60, time.as_secs() % 60);
        // The total time is unknown until some measurements are done.
        let all = if self.done > 20 { clock(all) } else { "?".to_owned() };
        format!("[{:>4}/{} {} of {all}]", self.done, self.total, clock(gone))
    }
}

/// Counts system calls under strace, without measuring time, because strace slows everything down. Two runs of
/// different length are made and subtracted, so that the calls before the measurement cancel out.
fn syscalls(foreign: &Foreign, spec: &Spec, peer: &str) -> Result<Vec<(String, f64)>> {
    let (some, more) = match spec.workload {
        spec::Workload::Small => (0.01, 0.03),
        _ => (0.25, 1.0),
    };
    let (before, after) = (strace(foreign, spec, peer, some)?, strace(foreign, spec, peer, more)?);
    let units = after.0 - before.0;
    let calls = |(name, calls): (String, f64)| {
        let more = (calls - before.1.get(&name).unwrap_or(&0.0)) / units;
        (name, more)
    };
    let mut counts: Vec<(String, f64)> = after.1.into_iter().map(calls).collect();
    let all: f64 = counts.iter().map(|count| count.1).sum();
    counts.retain(|count| count.1 > all / 200.0);
    counts.sort_by(|a, b| b.1.total_cmp(&a.1));
    counts.insert(0, ("all".to_owned(), all));
    Ok(counts)
}

/// The number of units, and of the calls of each kind.
fn strace(foreign: &Foreign, spec: &Spec, peer: &str, scale: f64) -> Result<(f64, BTreeMap<String, f64>)> {
    let file = std::env::temp_dir().join(format!("bench-strace-{}", std::process::id()));
    let inner = foreign.command(spec, peer, scale)?;
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-c", "-o"]).arg(&file).arg(inner.get_program()).args(inner.get_args());
    for (name, value) in inner.get_envs() {
        strace.env(name, value.unwrap_or_default());
    }
    let output = run(strace.env(crate::child::COLD, "1").process_group(0))?;
    let sample = Sample::from_json(&serde_json::from_str(output.lines().last().unwrap_or_default())?);
    let text = std::fs::read_to_string(&file)?;
    std::fs::remove_file(&file)?;
    Ok((sample.ok_or("not a sample")?.units, text.lines().filter_map(parse_count).collect()))
}

/// `% time, seconds, usecs/call, calls, errors (or nothing), syscall`
fn parse_count(line: &str) -> Option<(String, f64)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (name, calls) = (words.last()?, words.get(3)?.parse::<f64>().ok()?);
    (*name != "total").then(|| ((*name).to_owned(), calls))
}

fn measure(foreign: &Foreign, spec: &Spec, peer: &str, scale: f64) -> Result<Sample> {
    let output = run(&mut foreign.command(spec, peer, scale)?)?;
    let line = output.lines().last().unwrap_or_default();
    Ok(Sample::from_json(&serde_json::from_str(line)?).ok_or("not a sample")?)
}

/// Runs a process to its end, within the time limit, and returns its output.
fn run(command: &mut Command) -> Result<String> {
    let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let status = wait(&mut process)?;
    let mut text = String::new();
    if let Some(mut stdout) = process.stdout.take() {
        stdout.read_to_string(&mut text)?;
    }
    if status.success() {
        return Ok(text);
    }
    if let Some(mut stderr) = process.stderr.take() {
        stderr.read_to_string(&mut text)?;
    }
    fail(format!("{status}: {}", text.trim()))
}

/// The output is one line, which fits into the pipe, so the process ends even if its output is not read.
fn wait(process: &mut Child) -> Result<std::process::ExitStatus> {
    let begin = Instant::now();
    loop {
        if let Some(status) = process.try_wait()? {
            return Ok(status);
        }
        if begin.elapsed() > LIMIT {
            // Kills the process group too, because the process under strace would continue otherwise.
            let _ = killpg(Pid::from_raw(process.id().try_into()?), Signal::SIGKILL);
            process.kill()?;
            process.wait()?;
            return fail("it did not end in time");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
