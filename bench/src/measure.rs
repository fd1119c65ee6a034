//! The clock, the CPU clock, and what memory a process holds.

use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use serde_json::{Value, json};

use crate::Result;

/// A point in time of this process: all its threads count.
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

    /// What was used from this mark until now, for so many units of work.
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

/// What one run of one measurement gave.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sample {
    /// How much was done, in the measurement's own unit.
    pub units: f64,
    /// Seconds on the clock.
    pub wall: f64,
    /// Seconds of CPU in user space, all threads.
    pub user: f64,
    /// Seconds of CPU in the kernel, all threads.
    pub system: f64,
    /// Latencies in microseconds, where there are any: the median and the 99th percentile.
    pub latency: Option<(f64, f64)>,
    /// Bytes for each connection: resident, and held by `malloc`.
    pub memory: Option<(f64, f64)>,
    /// Which round it was taken in: what is compared, is compared within one.
    pub round: usize,
}

impl Sample {
    /// Seconds of CPU in all.
    pub fn cpu(&self) -> f64 {
        self.user + self.system
    }

    /// As one line between processes, and in `results.json`.
    pub fn to_json(&self) -> Value {
        json!({
            "units": self.units, "wall": self.wall, "user": self.user, "system": self.system,
            "p50": self.latency.map(|l| l.0), "p99": self.latency.map(|l| l.1),
            "resident": self.memory.map(|m| m.0), "heap": self.memory.map(|m| m.1), "round": self.round,
        })
    }

    /// The way back.
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

/// Bytes that are resident, and bytes that `malloc` has given out: those of C libraries too, which an allocator of Rust's
/// would not see.
#[allow(unsafe_code)]
pub fn resident_and_heap() -> Result<(f64, f64)> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let pages: f64 = statm.split(' ').nth(1).ok_or("statm has no second field")?.parse()?;
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)?.ok_or("no page size")?;
    // SAFETY: it takes no arguments and touches nothing but the locks of malloc.
    let heap = unsafe { libc::mallinfo2() };
    Ok((pages * page as f64, (heap.uordblks + heap.hblkhd) as f64))
}
