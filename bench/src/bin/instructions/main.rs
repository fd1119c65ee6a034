//! A guard against slow-downs that needs no quiet machine: instructions, counted by callgrind, compared with a baseline.
//!
//! Without arguments it runs itself under valgrind, once for each workload, and compares with `bench/baseline.json`;
//! `UPDATE_BASELINE=1` writes that anew. With a workload's name it runs that, for valgrind or a profiler to look on.
//!
//! Everything happens in one thread and in memory. What is made before the first byte of data, the handshake and its
//! entropy above all, is not counted: valgrind collects inside of [`counted`] only.

mod pipe;
mod workload;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicUsize, Ordering};

type Error = Box<dyn std::error::Error + Send + Sync>;
type Result<T> = std::result::Result<T, Error>;

/// How far a count may be from the baseline. The same build on the same machine gives the same count to within 0.02 %;
/// another version of the compiler or of libc moves it by a percent.
const TOLERANCE: f64 = 0.02;

/// Valgrind collects while this runs.
#[inline(never)]
fn counted<R>(work: impl FnOnce() -> R) -> R {
    std::hint::black_box(work())
}

fn main() -> ExitCode {
    let result = match std::env::args().nth(1) {
        Some(name) => workload::run(&name).map(|()| true),
        None => guard(),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("instructions: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all is as it was, or better.
fn guard() -> Result<bool> {
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("SKIPPED: there is no valgrind here, so no instruction was counted");
        return Ok(true);
    }
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("baseline.json");
    let baseline: BTreeMap<String, f64> = match std::fs::read_to_string(&file) {
        Ok(text) => serde_json::from_str(&text)?,
        Err(_) => BTreeMap::new(),
    };
    let counts = count_all()?;
    if std::env::var_os("UPDATE_BASELINE").is_some() {
        std::fs::write(&file, serde_json::to_string_pretty(&counts)? + "\n")?;
        println!("written: {}", file.display());
    }
    println!("{:28} {:>14} {:>14} {:>8}", "instructions for each", "baseline", "now", "");
    let mut is_good = true;
    for (name, now) in &counts {
        let Some(before) = baseline.get(name) else {
            println!("{name:28} {:>14} {now:>14} new", "-");
            continue;
        };
        let change = now / before - 1.0;
        let verdict = match change {
            _ if change > TOLERANCE => "SLOWER",
            _ if change < -TOLERANCE => "faster: write the baseline anew",
            _ => "",
        };
        is_good &= change <= TOLERANCE;
        println!("{name:28} {before:>14} {now:>14} {:>+7.2}% {verdict}", change * 100.0);
    }
    if !is_good {
        println!("If that is meant: UPDATE_BASELINE=1, and say why in the commit.");
    }
    Ok(is_good || std::env::var_os("UPDATE_BASELINE").is_some())
}

/// Side by side: what is counted does not depend on what else runs.
fn count_all() -> Result<BTreeMap<String, f64>> {
    let next = AtomicUsize::new(0);
    let some = || {
        let mut counts = Vec::new();
        while let Some((name, units)) = workload::ALL.get(next.fetch_add(1, Ordering::Relaxed)) {
            counts.push(((*name).to_owned(), (count(name)? / units).round()));
        }
        Ok::<_, Error>(counts)
    };
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let all: Vec<_> = (0..threads).map(|_| scope.spawn(some)).collect();
        let mut counts = BTreeMap::new();
        for thread in all {
            counts.extend(thread.join().map_err(|_| "a thread panicked")??);
        }
        Ok(counts)
    })
}

fn count(name: &str) -> Result<f64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=*counted*"])
        .arg(std::env::current_exe()?)
        .arg(name)
        .output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("{name}: {}\n{text}", output.status).into());
    }
    let collected = text.lines().find_map(|line| line.split_once("Collected : ")).ok_or("valgrind says no count")?;
    Ok(collected.1.trim().parse()?)
}
