//! One measurement, in a process of its own, so that the state of allocators, caches and sessions does not affect the
//! next measurement.

use tokio::runtime::{Builder, Runtime};

use crate::cpu;
use crate::error::{Result, fail};
use crate::measure::Sample;
use crate::peers::bowline::{Bowline, BowlineTcp, Corked, Upgradable};
use crate::peers::buffered::Buffered;
use crate::peers::rustls::TokioRustls;
use crate::peers::starttls::Starttls;
use crate::peers::tcp::Tcp;
use crate::pki::Pki;
use crate::setup::Setup;
use crate::spec::{self, Http, Kind, Regime, Spec, Way, Workload};
use crate::workloads::{Run, aead, bulk, callback, connections, copy, memory, pingpong};

/// The subcommand of such a process.
pub const COMMAND: &str = "measure";
/// If this environment variable is set, there is no warm-up. The peers in other languages read it too.
pub const COLD: &str = "BENCH_COLD";

/// `measure ID PEER SCALE`: prints the sample as one line of JSON.
pub fn main(mut arguments: impl Iterator<Item = String>) -> Result<()> {
    let mut next = || arguments.next().ok_or("usage: measure ID PEER SCALE");
    let (id, peer, scale) = (next()?, next()?, next()?.parse()?);
    let spec = find(&id)?;
    let sample = runtime(spec.regime)?.block_on(async { tokio::spawn(measure(spec, peer, scale)).await })??;
    println!("{}", sample.to_json());
    Ok(())
}

/// A runtime with the number of threads of this regime.
fn runtime(regime: Regime) -> Result<Runtime> {
    match regime {
        Regime::Default => Ok(Builder::new_multi_thread().worker_threads(2).enable_all().build()?),
        Regime::Hot => {
            cpu::stay_on_one()?;
            Ok(Builder::new_current_thread().enable_all().build()?)
        }
    }
}

/// Calls a workload with the peer of this name.
macro_rules! with_stack {
    ($peer:expr, $pki:expr, $setup:expr, |$stack:ident| $run:expr) => {
        with_stack!(@ $peer, $pki, $setup, $stack, $run,
            "tcp" => Tcp,
            "bowline" => Bowline::new($pki, $setup)?,
            "bowline-express" => Bowline::new($pki, $setup)?.express()?,
            "bowline-express-corked" => Corked(Bowline::new($pki, $setup)?.express()?),
            "bowline-corked" => Corked(Bowline::new($pki, $setup)?),
            "bowline-tcp" => BowlineTcp(Bowline::new($pki, $setup)?),
            "tokio-rustls" => TokioRustls::new($pki, $setup)?,
            "tokio-rustls+limit256k" => TokioRustls::new($pki, $setup)?.limit(256 << 10),
            "tokio-rustls+buf8k" => Buffered::<_, { 8 << 10 }>(TokioRustls::new($pki, $setup)?),
            "tokio-rustls+buf64k" => Buffered::<_, { 64 << 10 }>(TokioRustls::new($pki, $setup)?),
            #[cfg(feature = "hyper")]
            "bowline-lingering" => crate::peers::hyper::Lingered(Bowline::new($pki, $setup)?),
            #[cfg(feature = "hyper")]
            "bowline-server" => crate::peers::hyper::Served(Bowline::new($pki, $setup)?),
            #[cfg(feature = "openssl")]
            "tokio-openssl" => crate::peers::openssl::OpenSsl::new($pki, $setup)?,
            #[cfg(feature = "s2n")]
            "s2n-tls-tokio" => crate::peers::s2n::S2n::new($pki, $setup)?,
            #[cfg(feature = "openssl")]
            "tokio-openssl+untuned" => crate::peers::openssl::OpenSsl::new($pki, Setup { untuned: true, ..$setup })?,
            #[cfg(feature = "s2n")]
            "s2n-tls-tokio+untuned" => crate::peers::s2n::S2n::new($pki, Setup { untuned: true, ..$setup })?,
            #[cfg(feature = "boring")]
            "tokio-boring" => crate::peers::boring::Boring::new($pki, $setup)?,
        )
    };
    (@ $peer:expr, $pki:expr, $setup:expr, $stack:ident, $run:expr, $($(#[$on:meta])? $name:literal => $make:expr,)*) => {
        match $peer {
            $($(#[$on])? $name => { let $stack = $make; $run })*
            other => fail(format!("{other} is not in this build")),
        }
    };
}

/// Whether this build contains this peer, with any settings.
pub fn is_built(peer: &str) -> bool {
    let peer = peer.split('+').next().unwrap_or(peer);
    let optional = [
        ("tokio-openssl", cfg!(feature = "openssl")),
        ("s2n-tls-tokio", cfg!(feature = "s2n")),
        ("tokio-boring", cfg!(feature = "boring")),
    ];
    optional.iter().all(|(name, is_built)| *name != peer || *is_built)
}

fn setup(spec: &Spec) -> Setup {
    Setup {
        tls: spec.tls,
        resume: spec.workload == Workload::Handshake(Kind::Resumed),
        post_quantum: spec.workload == Workload::Handshake(Kind::PostQuantum),
        bulk: matches!(spec.workload, Workload::Bulk { .. } | Workload::Copy),
        untuned: false,
        http2: matches!(spec.workload, Workload::Http { http: Http::Two, .. }),
    }
}

async fn measure(spec: Spec, peer: String, scale: f64) -> Result<Sample> {
    let pki = &Pki::new()?;
    let setup = setup(&spec);
    let run = Run { setup, regime: spec.regime, scale, cold: std::env::var_os(COLD).is_some() };
    let (peer, id) = (peer.as_str(), spec.id.as_str());
    match peer {
        "bowline-callback" => return by_callbacks(Bowline::new(pki, setup)?, run, &spec, pki).await,
        "bowline-express-callback" => {
            return by_callbacks(Bowline::new(pki, setup)?.express()?, run, &spec, pki).await;
        }
        _ => {}
    }
    match spec.workload {
        Workload::Bulk { size, way } => {
            let (count, gib) = bulk_amount(run, size);
            with_stack!(peer, pki, setup, |stack| bulk::run(stack, run, size, way, count, gib).await)
        }
        Workload::Small => {
            let count = small_amount(run);
            with_stack!(peer, pki, setup, |stack| bulk::run(stack, run, 100, Way::Up, count, count as f64 / 1e6).await)
        }
        Workload::Copy => {
            let times = run.amount(2, 1);
            with_stack!(peer, pki, setup, |stack| copy::run(stack, run, 64 << 20, times).await)
        }
        #[cfg(feature = "hyper")]
        Workload::Http { http, size, connections } => {
            use crate::workloads::http::run as serve;
            with_stack!(peer, pki, setup, |stack| serve(stack, run, http, size, connections).await)
        }
        #[cfg(not(feature = "hyper"))]
        Workload::Http { .. } => fail("hyper is not in this build"),
        Workload::Pingpong { size, connections } => {
            with_stack!(peer, pki, setup, |stack| pingpong::run(stack, run, size, connections).await)
        }
        Workload::Handshake(_) => {
            with_stack!(peer, pki, setup, |stack| connections::handshakes(stack, run).await)
        }
        Workload::Churn => with_stack!(peer, pki, setup, |stack| connections::churn(stack, run).await),
        Workload::Upgrade if peer == "bowline" => connections::churn(Upgradable(Bowline::new(pki, setup)?), run).await,
        Workload::Upgrade if peer == "bowline-express" => {
            connections::churn(Upgradable(Bowline::new(pki, setup)?.express()?), run).await
        }
        Workload::Upgrade => {
            with_stack!(peer, pki, setup, |stack| connections::churn(Starttls(stack), run).await)
        }
        Workload::Idle { connections } => {
            let count = idle_count(run, connections);
            with_stack!(peer, pki, setup, |stack| memory::idle(stack, run, pki, id, count).await)
        }
        Workload::Stalled { connections } => {
            let count = stalled_count(run, connections);
            with_stack!(peer, pki, setup, |stack| memory::stalled(stack, run, pki, id, count).await)
        }
        Workload::Aead { size } => aead::run(run, size),
    }
}

async fn by_callbacks(stack: Bowline, run: Run, spec: &Spec, pki: &Pki) -> Result<Sample> {
    match spec.workload {
        Workload::Bulk { size, way } => {
            let (count, gib) = bulk_amount(run, size);
            callback::bulk(stack, run, size, way, count, gib).await
        }
        Workload::Small => {
            let count = small_amount(run);
            callback::bulk(stack, run, 100, Way::Up, count, count as f64 / 1e6).await
        }
        Workload::Pingpong { size, connections } => callback::pingpong(stack, run, size, connections).await,
        Workload::Idle { connections } => {
            callback::memory(stack, run, pki, &spec.id, idle_count(run, connections), false).await
        }
        Workload::Stalled { connections } => {
            callback::memory(stack, run, pki, &spec.id, stalled_count(run, connections), true).await
        }
        other => fail(format!("{other} is not there on the callback face")),
    }
}

/// `clients ID ADDRESS COUNT`: the clients of a memory measurement. They are the same for all peers: tokio-rustls, or
/// TCP.
pub fn clients(mut arguments: impl Iterator<Item = String>) -> Result<()> {
    let mut next = || arguments.next().ok_or("usage: clients ID ADDRESS COUNT, and tls or tcp");
    let (id, address, count, peer) = (next()?, next()?.parse()?, next()?.parse()?, next()?);
    let spec = find(&id)?;
    let pki = Pki::from_json(&std::env::var("BENCH_PKI")?)?;
    let setup = setup(&spec);
    let run = Run { setup, regime: spec.regime, scale: 1.0, cold: false };
    cpu::leave_the_inherited_one()?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match peer.as_str() {
            "tcp" => memory::clients(Tcp, run, address, count).await,
            _ => memory::clients(TokioRustls::new(&pki, setup)?, run, address, count).await,
        }
    })
}

fn find(id: &str) -> Result<Spec> {
    Ok(spec::all().into_iter().find(|spec| spec.id == id).ok_or("there is no such measurement")?)
}

fn idle_count(run: Run, full: usize) -> usize {
    run.amount(full, 500)
}

fn stalled_count(run: Run, full: usize) -> usize {
    run.amount(full, 100)
}

/// The number of writes for half a GiB, and the fraction of a GiB that they are.
fn bulk_amount(run: Run, size: usize) -> (usize, f64) {
    let bytes = run.amount(1 << 29, 64 << 20);
    (bytes / size, (bytes / size * size) as f64 / f64::from(1 << 30))
}

fn small_amount(run: Run) -> usize {
    run.amount(1_000_000, 100_000)
}
