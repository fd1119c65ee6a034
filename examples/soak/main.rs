//! Thousands of connections at once, with random operations and faults, for a given time. Each byte is compared, in
//! both directions. At the end, a verdict: see `--help`.

mod conversation;
#[path = "../common/descriptors.rs"]
mod descriptors;
mod pace;
mod plan;
mod tally;

use std::collections::HashMap;
use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bowline::{Error, Listener};
use lexopt::Arg::Long;
use lexopt::ValueExt;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use self::conversation::{Configs, Seen, policy};
use self::pace::Pace;
use self::plan::Plan;
use self::tally::{Resources, Tally};

const HELP: &str = "\
Opens thousands of connections at once over loopback, with random operations and faults, and compares each byte.

Usage: soak [OPTIONS]

  --seconds N       how long new connections are made; default 60
  --connections N   how many connections are open at once; default 2000
  --seed N          the operations and faults of all connections follow from it; default 1
  --help

A connection is plaintext, TLS, upgraded, TLS in TLS or downgraded, in TLS 1.2 or 1.3, with both engines. Both sides send
and receive at once, and end by close_write, close, abort or drop. One in six goes through a proxy that cuts, stalls,
slows or corrupts it.

The verdict is 'passed' if no byte was wrong, no part of the data was reported as the whole, everything arrived on each
connection without a fault and both sides ended cleanly, no connection hung, nothing panicked, and at the end no task and
no descriptor is left and the memory has not grown. If a connection reached a time limit while tasks had too few turns, it
counts as 'too slow' and not as a fault, and the verdict is 'OVERLOADED': the machine was too busy to tell.

The exit status is 0 for 'passed', 1 for 'FAILED', 2 for a wrong command line, 3 for 'OVERLOADED'.
";

/// A connection that takes longer than this hangs.
const HANG: Duration = Duration::from_secs(120);

struct Args {
    seconds: u64,
    connections: u64,
    seed: u64,
}

fn args() -> Result<Args, lexopt::Error> {
    let mut args = Args { seconds: 60, connections: 2_000, seed: 1 };
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Long("seconds") => args.seconds = parser.value()?.parse()?,
            Long("connections") => args.connections = parser.value()?.parse()?,
            Long("seed") => args.seed = parser.value()?.parse()?,
            Long("help") => {
                print!("{HELP}");
                std::process::exit(0)
            }
            other => return Err(other.unexpected()),
        }
    }
    Ok(args)
}

/// The channels by which a server reports its observations to the client of the same connection, by the number of the
/// connection.
type Waiting = Mutex<HashMap<u64, oneshot::Sender<Seen>>>;

struct Soak {
    args: Args,
    configs: Configs,
    waiting: Waiting,
    pace: Pace,
    tally: Tally,
    next: AtomicU64,
    until: Instant,
}

enum Verdict {
    Passed,
    Failed,
    Overloaded,
}

fn main() -> ExitCode {
    let args = args().unwrap_or_else(|error| {
        eprintln!("soak: {error}");
        std::process::exit(2)
    });
    descriptors::raise_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let passed = match runtime {
        Ok(runtime) => runtime.block_on(run(args)),
        Err(error) => Err(error.into()),
    };
    match passed {
        Ok(Verdict::Passed) => ExitCode::SUCCESS,
        Ok(Verdict::Failed) => ExitCode::FAILURE,
        Ok(Verdict::Overloaded) => ExitCode::from(3),
        Err(error) => {
            eprintln!("soak: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<Verdict, Error> {
    let before = Resources::now();
    let listener = Listener::builder().policy(policy()).bind("127.0.0.1:0").await?;
    let Some(addr) = listener.local_addr().as_inet() else { return Err(Error::Unsupported("a port")) };
    let group = listener.group().clone();
    let until = Instant::now() + Duration::from_secs(args.seconds);
    let connections = args.connections;
    let soak = Arc::new(Soak {
        configs: Configs::new()?,
        waiting: Mutex::default(),
        pace: Pace::new(),
        tally: Tally::default(),
        next: AtomicU64::new(0),
        until,
        args,
    });
    let pace = Arc::clone(&soak);
    let counting = tokio::spawn(async move { pace.pace.count().await });
    let accepting = tokio::spawn(accept(Arc::clone(&soak), listener));
    let workers: Vec<_> = (0..connections).map(|_| tokio::spawn(work(Arc::clone(&soak), addr))).collect();
    let mut memory = Vec::new();
    while Instant::now() < until {
        sleep(Duration::from_secs(1)).await;
        let now = Resources::now();
        memory.push(now.memory);
        let left = until.saturating_duration_since(Instant::now()).as_secs();
        print!("\r{}, {} open, {now}, {left} s left   ", soak.tally.line(), group.connections());
        let _ = std::io::stdout().flush();
    }
    for worker in workers {
        if worker.await.is_err() {
            soak.tally.fault("a worker panicked".into());
        }
    }
    for task in [accepting, counting] {
        task.abort();
        let _ = task.await;
    }
    // The proxies and the servers of connections that were cut off end a little later.
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    for _ in 0..100 {
        if tasks() == 0 && group.connections() == 0 {
            break;
        }
        sleep(Duration::from_millis(200)).await;
    }
    let after = Resources::now();
    for (what, left) in [("tasks", tasks()), ("connections of the group", group.connections())] {
        if left > 0 {
            soak.tally.fault(format!("{left} {what} are left"));
        }
    }
    if after.descriptors > before.descriptors + 4 {
        soak.tally.fault(format!("{} descriptors are left", after.descriptors - before.descriptors));
    }
    // In the first half, the caches, the allocator and the stacks reach their sizes.
    let (first, second) = memory.split_at(memory.len() / 2);
    let most = |part: &[u64]| part.iter().copied().max().unwrap_or(0);
    println!("\nmemory: at most {} KiB in the first half, {} KiB in the second one", most(first), most(second));
    if most(second) > most(first) * 5 / 4 {
        soak.tally.fault("the memory has grown".into());
    }
    println!("{}, at least {} of 1000 turns in each second", soak.tally, soak.pace.slowest());
    let (verdict, name) = match (soak.tally.faults(), soak.tally.too_slow()) {
        (0, 0) => (Verdict::Passed, "passed"),
        (0, _) => (Verdict::Overloaded, "OVERLOADED"),
        (_, _) => (Verdict::Failed, "FAILED"),
    };
    println!("verdict: {name}");
    Ok(verdict)
}

async fn accept(soak: Arc<Soak>, listener: Listener) {
    while let Ok(incoming) = listener.accept().await {
        let soak = Arc::clone(&soak);
        tokio::spawn(async move {
            let Ok((tcp, number)) = conversation::number(incoming).await else { return };
            let sender = soak.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
            let Some(sender) = sender else { return };
            let plan = Plan::new(soak.args.seed, number);
            let _ = sender.send(conversation::server(&soak.configs, &plan, number, tcp).await);
        });
    }
}

/// Plays one connection after the other.
async fn work(soak: Arc<Soak>, addr: SocketAddr) {
    while Instant::now() < soak.until {
        let number = soak.next.fetch_add(1, Ordering::Relaxed);
        let plan = Plan::new(soak.args.seed, number);
        let (sender, server) = oneshot::channel();
        soak.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(number, sender);
        let Ok(client) = timeout(HANG, conversation::client(&soak.configs, &plan, number, addr)).await else {
            soak.tally.fault(format!("connection {number}: the client hangs: {plan:?}"));
            continue;
        };
        let (client, meddler) = match client {
            Ok(done) => done,
            Err(error) => {
                let why = bowline::chain(&error);
                match (plan.fault, soak.pace.is_too_slow()) {
                    (Some(_), _) => soak.tally.count("not connected, by a fault of the network"),
                    (None, true) => soak.tally.count_too_slow(),
                    (None, false) => soak.tally.fault(format!("connection {number}: not connected: {why}")),
                }
                soak.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
                continue;
            }
        };
        // If the server has not begun by now, this connection has never reached it.
        let has_begun = soak.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&number).is_none();
        let server = match timeout(HANG, server).await {
            Err(_) if has_begun => {
                soak.tally.fault(format!("connection {number}: the server hangs: {plan:?}"));
                continue;
            }
            Ok(Err(_)) if has_begun => {
                soak.tally.fault(format!("connection {number}: the server panicked: {plan:?}"));
                continue;
            }
            seen => seen.ok().and_then(Result::ok),
        };
        drop(meddler);
        soak.tally.judge(number, &plan, &client, server.as_ref(), soak.pace.is_too_slow());
    }
}
