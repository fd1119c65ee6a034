//! Measures time, CPU time and the memory of a process.

use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use serde_json::{Value, json};

use crate::error::Result;

/// A point in time, and the CPU time of all threads of this process.
#[derive(Debug, Clone, Copy)]
pub struct Mark {
    at: Instant,
    user: Duration,
    system: Duration,
}

impl Mark {
    /// Now.
    pub fn now() -> Result<Self> {
        let usage = getrusage(UsageWho::RUSAGE_SELF)?;
        let time =
            |time: nix::sys::time::TimeVal| Duration::from_secs_f64(time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6);
        Ok(Self { at: Instant::now(), user: time(usage.user_time()), system: time(usage.system_time()) })
    }

    /// The time since this mark, for this many units of work.
    pub fn sample(&self, units: f64) -> Result<Sample> {
        let now = Self::now()?;
        Ok(Sample {
            units,
            wall: (now.at - self.at).as_secs_f64(),
            user: (now.user - self.user).as_secs_f64(),
            system: (now.system - self.system).as_secs_f64(),
            ..Sample::default()
        })
    }
}

/// The result of one run of one measurement.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sample {
    /// The amount of work, in the unit of the measurement.
    pub units: f64,
    /// Seconds on the clock.
    pub wall: f64,
    /// Seconds of CPU in user space, all threads.
    pub user: f64,
    /// Seconds of CPU in the kernel, all threads.
    pub system: f64,
    /// Latencies in microseconds, if they were measured: the median and the 99th percentile.
    pub latency: Option<(f64, f64)>,
    /// Bytes per connection: resident, and allocated by `malloc`.
    pub memory: Option<(f64, f64)>,
    /// The round of the sample. Samples are compared only within one round.
    pub round: usize,
}

impl Sample {
    /// The total CPU time in seconds.
    pub fn cpu(&self) -> f64 {
        self.user + self.system
    }

    /// The form in which a sample is passed between processes and stored in `results.json`.
    pub fn to_json(&self) -> Value {
        json!({
            "units": self.units, "wall": self.wall, "user": self.user, "system": self.system,
            "p50": self.latency.map(|l| l.0), "p99": self.latency.map(|l| l.1),
            "resident": self.memory.map(|m| m.0), "heap": self.memory.map(|m| m.1), "round": self.round,
        })
    }

    /// Parses what `to_json` has written.
    pub fn from_json(value: &Value) -> Option<Self> {
        let number = |key: &str| value.get(key).and_then(Value::as_f64);
        Some(Self {
            units: number("units")?,
            wall: number("wall")?,
            user: number("user")?,
            system: number("system")?,
            latency: number("p50").zip(number("p99")),
            memory: number("resident").zip(number("heap")),
            round: value.get("round").and_then(Value::as_u64).and_then(|n| n.try_into().ok()).unwrap_or(0),
        })
    }
}

/// The median and the 99th percentile of nanoseconds, in microseconds.
pub fn percentiles(mut nanoseconds: Vec<u32>) -> Option<(f64, f64)> {
    nanoseconds.sort_unstable();
    let at = |part: usize| nanoseconds.get(nanoseconds.len() * part / 100).map(|ns| f64::from(*ns) / 1e3);
    at(50).zip(at(99))
}

/// The resident bytes, and the bytes that `malloc` has allocated. This includes C libraries, which a Rust allocator
/// would not see.
#[allow(unsafe_code)]
pub fn resident_and_heap() -> Result<(f64, f64)> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let pages: f64 = statm.split(' ').nth(1).ok_or("statm has no second field")?.parse()?;
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)?.ok_or("no page size")?;
    // SAFETY: mallinfo2 takes no arguments, and uses nothing but malloc's own state under its locks.
    let heap = unsafe { libc::mallinfo2() };
    Ok((pages * page as f64, (heap.uordblks + heap.hblkhd) as f64))
}
