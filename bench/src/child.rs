//! One measurement, in a process of its own: what allocators, caches and sessions have kept of the last one shall not
//! matter to the next.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use tokio::runtime::{Builder, Runtime};

use crate::measure::Sample;
use crate::peers::bowline::{Bowline, BowlineTcp, Corked};
use crate::peers::buffered::Buffered;
use crate::peers::rustls::TokioRustls;
use crate::peers::tcp::Tcp;
use crate::pki::Pki;
use crate::setup::Setup;
use crate::spec::{self, Regime, Spec, Workload};
use crate::workloads::{Run, bulk, callback, pingpong};
use crate::{Result, fail};

/// The word that makes a process one of these.
pub const COMMAND: &str = "measure";

/// `measure ID PEER SCALE`: prints the sample as one line of JSON.
pub fn main(mut arguments: impl Iterator<Item = String>) -> Result<()> {
    let mut next = || arguments.next().ok_or("usage: measure ID PEER SCALE");
    let (id, peer, scale) = (next()?, next()?, next()?.parse()?);
    let spec = spec::all().into_iter().find(|spec| spec.id == id).ok_or("there is no such measurement")?;
    let sample = runtime(spec.regime)?.block_on(async { tokio::spawn(measure(spec, peer, scale)).await })??;
    println!("{}", sample.to_json());
    Ok(())
}

/// The threads that a regime has.
fn runtime(regime: Regime) -> Result<Runtime> {
    match regime {
        Regime::Default => Ok(Builder::new_multi_thread().worker_threads(2).enable_all().build()?),
        Regime::Hot => {
            stay_on_one_cpu()?;
            Ok(Builder::new_current_thread().enable_all().build()?)
        }
    }
}

/// The last CPU that this process may use: the first one serves more interrupts.
fn stay_on_one_cpu() -> Result<()> {
    let allowed = sched_getaffinity(Pid::from_raw(0))?;
    let last = (0..CpuSet::count()).rev().find(|cpu| allowed.is_set(*cpu).unwrap_or(false)).ok_or("no CPU")?;
    let mut one = CpuSet::new();
    one.set(last)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &one)?)
}

/// Calls a workload with the peer of this name.
macro_rules! with_stack {
    ($peer:expr, $pki:expr, $setup:expr, |$stack:ident| $run:expr) => {
        match $peer {
            "tcp" => { let $stack = Tcp; $run }
            "bowline" => { let $stack = Bowline::new($pki, $setup)?; $run }
            "bowline-corked" => { let $stack = Corked(Bowline::new($pki, $setup)?); $run }
            "bowline-tcp" => { let $stack = BowlineTcp(Bowline::new($pki, $setup)?); $run }
            "tokio-rustls" => { let $stack = TokioRustls::new($pki, $setup)?; $run }
            "tokio-rustls+buf8k" => { let $stack = Buffered::<_, { 8 << 10 }>(TokioRustls::new($pki, $setup)?); $run }
            "tokio-rustls+buf64k" => { let $stack = Buffered::<_, { 64 << 10 }>(TokioRustls::new($pki, $setup)?); $run }
            other => fail(format!("{other} is not in this build")),
        }
    };
}

/// Peers that are in this build, whether asked for or not.
pub fn is_built(peer: &str) -> bool {
    matches!(
        peer,
        "tcp"
            | "bowline"
            | "bowline-corked"
            | "bowline-tcp"
            | "bowline-callback"
            | "tokio-rustls"
            | "tokio-rustls+buf8k"
            | "tokio-rustls+buf64k"
    )
}

async fn measure(spec: Spec, peer: String, scale: f64) -> Result<Sample> {
    let pki = &Pki::new()?;
    let setup = Setup { tls: spec.tls, resume: false, post_quantum: false };
    let run = Run { setup, regime: spec.regime, scale };
    if peer == "bowline-callback" {
        return by_callbacks(Bowline::new(pki, setup)?, run, spec.workload).await;
    }
    match spec.workload {
        Workload::Bulk { size, way } => {
            let (count, gib) = bulk_amount(run, size);
            with_stack!(peer.as_str(), pki, setup, |stack| bulk::run(stack, run, size, way, count, gib).await)
        }
        Workload::Small => {
            let count = small_amount(run);
            let units = count as f64 / 1e6;
            with_stack!(peer.as_str(), pki, setup, |stack| bulk::run(stack, run, 100, spec::Way::Up, count, units).await)
        }
        Workload::Pingpong { size, connections } => {
            with_stack!(peer.as_str(), pki, setup, |stack| pingpong::run(stack, run, size, connections).await)
        }
    }
}

async fn by_callbacks(stack: Bowline, run: Run, workload: Workload) -> Result<Sample> {
    match workload {
        Workload::Bulk { size, way } => {
            let (count, gib) = bulk_amount(run, size);
            callback::bulk(stack, run, size, way, count, gib).await
        }
        Workload::Small => {
            let count = small_amount(run);
            callback::bulk(stack, run, 100, spec::Way::Up, count, count as f64 / 1e6).await
        }
        Workload::Pingpong { size, connections } => callback::pingpong(stack, run, size, connections).await,
    }
}

/// Writes that make a GiB, and how much that is.
fn bulk_amount(run: Run, size: usize) -> (usize, f64) {
    let bytes = run.amount(1 << 30, 64 << 20);
    (bytes / size, (bytes / size * size) as f64 / f64::from(1 << 30))
}

fn small_amount(run: Run) -> usize {
    run.amount(1_000_000, 100_000)
}
