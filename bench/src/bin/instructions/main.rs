//! A guard against slow-downs that needs no quiet machine: it counts instructions with callgrind, and compares them
//! with a baseline.
//!
//! Without arguments, it runs itself under valgrind, once for each workload, and compares the counts with
//! `bench/baseline.json`; `UPDATE_BASELINE=1` rewrites that file. With the name of a workload, it runs that workload,
//! for valgrind or a profiler.
//!
//! Everything happens in one thread and in memory. Work before the first byte of data, mainly the handshake, is not
//! counted: valgrind counts only inside of [`counted`].

mod pipe;
mod workload;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

type Error = Box<dyn std::error::Error + Send + Sync>;
type Result<T> = std::result::Result<T, Error>;

/// The largest allowed difference from the baseline. The same build on the same machine gives the same count to within
/// 0.02 %. Another version of the compiler or of libc changes it by about one per cent.
const TOLERANCE: f64 = 0.02;

/// Valgrind counts while this function runs.
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

/// Whether no count has grown, as far as the counts can be compared on this machine.
fn guard() -> Result<bool> {
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("SKIPPED: there is no valgrind here, so no instruction was counted");
        return Ok(true);
    }
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("baseline.json");
    let baseline: Value = match std::fs::read_to_string(&file) {
        Ok(text) => serde_json::from_str(&text)?,
        Err(_) => Value::Null,
    };
    let (here, counts) = (surroundings(), count_all()?);
    let is_update = std::env::var_os("UPDATE_BASELINE").is_some();
    if is_update {
        let text = serde_json::to_string_pretty(&json!({ "made_with": here, "instructions": counts }))?;
        std::fs::write(&file, text + "\n")?;
        println!("written: {}", file.display());
    }
    let is_good = compare(&baseline["instructions"], &counts);
    if !is_good && baseline["made_with"] != here {
        println!("NOT JUDGED: the baseline was made with {}, and this is {here}", baseline["made_with"]);
        return Ok(true);
    }
    if !is_good {
        println!("If that is meant: UPDATE_BASELINE=1, and say why in the commit.");
    }
    Ok(is_good || is_update)
}

/// The things that change the counts although the code is the same: the compiler, libc, and the processor, because both
/// choose code by its features and caches.
fn surroundings() -> Value {
    let said = |program: &str, argument: &str| {
        let output = Command::new(program).arg(argument).output().ok().filter(|output| output.status.success());
        output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let of_cpu = |key: &str| {
        let line = cpuinfo.lines().find(|line| line.starts_with(key))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    json!({
        "rustc": said("rustc", "--version"), "libc": said("getconf", "GNU_LIBC_VERSION"),
        "cpu": [of_cpu("model name"), of_cpu("cpu family"), of_cpu("model\t"), of_cpu("cache size")],
    })
}

/// Returns whether no count has grown.
fn compare(baseline: &Value, counts: &BTreeMap<String, f64>) -> bool {
    println!("{:28} {:>14} {:>14} {:>8}", "instructions for each", "baseline", "now", "");
    let mut is_good = true;
    for (name, now) in counts {
        let Some(before) = baseline[name].as_f64() else {
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
    is_good
}

/// Counts all workloads in parallel, because the counts do not depend on other processes.
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
