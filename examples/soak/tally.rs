//! Counts, faults, and the resources of the process.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::conversation::Seen;
use crate::plan::{Ending, Plan, SidePlan};

#[derive(Default)]
pub(crate) struct Tally {
    connections: AtomicU64,
    bytes: AtomicU64,
    /// Connections that reached a time limit while the process had too few turns.
    too_slow: AtomicU64,
    counts: Mutex<BTreeMap<String, u64>>,
    faults: Mutex<Vec<String>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tally {
    pub(crate) fn count(&self, what: &str) {
        *lock(&self.counts).entry(what.to_owned()).or_default() += 1;
    }

    pub(crate) fn fault(&self, what: String) {
        println!("\nfault: {what}");
        lock(&self.faults).push(what);
    }

    pub(crate) fn faults(&self) -> usize {
        lock(&self.faults).len()
    }

    pub(crate) fn count_too_slow(&self) {
        self.too_slow.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn too_slow(&self) -> u64 {
        self.too_slow.load(Ordering::Relaxed)
    }

    /// Counts a connection, and checks the observations of its sides. `is_too_slow`: its tasks had so few turns that
    /// time limits prove nothing.
    pub(crate) fn judge(&self, number: u64, plan: &Plan, client: &Seen, server: Option<&Seen>, is_too_slow: bool) {
        self.connections.fetch_add(1, Ordering::Relaxed);
        self.count(&format!("{:?}: {}", plan.kind, client.reason));
        let sides = [Some((client, &plan.server)), server.map(|server| (server, &plan.client))];
        for (seen, theirs) in sides.into_iter().flatten() {
            self.bytes.fetch_add(seen.received, Ordering::Relaxed);
            if let Some(wrong) = wrong(plan, seen, theirs) {
                self.fault(format!("connection {number}: {wrong}: {client:?}, {server:?}, {plan:?}"));
            }
        }
        if !plan.is_peaceful() {
            return;
        }
        if is_too_slow && [Some(client), server].into_iter().flatten().any(Seen::reached_a_time_limit) {
            return self.count_too_slow();
        }
        let Some(server) = server else {
            return self.fault(format!("connection {number}: the server has not seen it: {client:?}, {plan:?}"));
        };
        let both = [(client, &plan.client, &plan.server), (server, &plan.server, &plan.client)];
        for (seen, ours, theirs) in both {
            let reads_all = ours.ending == Ending::HalfClose;
            let has_all = seen.received == theirs.bytes && seen.is_whole;
            if reads_all && !has_all || !matches!(seen.reason, "closed" | "unconfirmed") {
                self.fault(format!("connection {number}: not whole: {client:?}, {server:?}, {plan:?}"));
            }
            // Both sides have read to the end, so no end can be unconfirmed.
            let is_mutual = reads_all && theirs.ending == Ending::HalfClose;
            if is_mutual && !seen.report.as_ref().is_some_and(|report| report.is_clean()) {
                self.fault(format!("connection {number}: not clean: {client:?}, {server:?}, {plan:?}"));
            }
        }
    }

    pub(crate) fn line(&self) -> String {
        let mebibytes = self.bytes.load(Ordering::Relaxed) >> 20;
        let (connections, faults) = (self.connections.load(Ordering::Relaxed), self.faults());
        format!("{connections} connections, {mebibytes} MiB, {faults} faults, {} too slow", self.too_slow())
    }
}

/// Returns what is wrong on a connection, if anything is.
fn wrong(plan: &Plan, seen: &Seen, theirs: &SidePlan) -> Option<&'static str> {
    if plan.may_deceive() {
        return None;
    }
    let is_cut = seen.received < theirs.bytes || matches!(theirs.ending, Ending::Abort(_) | Ending::Drop(_));
    match seen {
        Seen { wrong_at: Some(_), .. } => Some("wrong data"),
        Seen { is_whole: true, .. } if is_cut => Some("a part was reported as the whole"),
        _ => None,
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, count) in &*lock(&self.counts) {
            writeln!(f, "{count:9} {what}")?;
        }
        f.write_str(&self.line())
    }
}

/// The resources that the process uses.
pub(crate) struct Resources {
    pub(crate) descriptors: u64,
    /// Resident memory in KiB.
    pub(crate) memory: u64,
}

impl Resources {
    /// Zero where the system has no `/proc`.
    pub(crate) fn now() -> Self {
        let descriptors = std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64);
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let memory = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok()).unwrap_or(0);
        Self { descriptors, memory }
    }
}

impl fmt::Display for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} descriptors, {} MiB", self.descriptors, self.memory >> 10)
    }
}
