//! Random runs of the model in tests/model, played with two real transports that are joined in memory.
#![allow(clippy::unwrap_used)]
#![allow(unreachable_pub, dead_code, reason = "the files of the model are those of a library")]

#[path = "../model/src/model.rs"]
mod model;
mod run;
mod side;
#[path = "../model/src/state.rs"]
mod state;
#[path = "../model/src/steps.rs"]
mod steps;
#[path = "../model/src/tables.rs"]
mod tables;

use self::model::Connection;
use self::side::Configs;
use self::tables::{Fault, Tables};

/// The number of runs for every change. `.ci/nightly` plays 100,000.
const RUNS: u64 = 400;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Plays runs, and returns the number of their events, and the differences that were found.
fn play(tables: Tables, seeds: impl Iterator<Item = u64>) -> (usize, Vec<String>) {
    let configs = Configs::new();
    let models: Vec<Connection> = run::setups().into_iter().map(|setup| Connection { setup, tables }).collect();
    let (mut events, mut different) = (0, Vec::new());
    for seed in seeds {
        let model = &models[seed as usize % models.len()];
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        match runtime.block_on(run::play(model, &configs, seed, 30)) {
            Ok(played) => events += played,
            Err(what) => different.push(what),
        }
    }
    different.sort_by_key(String::len);
    (events, different)
}

#[test]
fn transports_do_what_the_model_does() {
    let runs = number("BOWLINE_RUNS").unwrap_or(RUNS);
    let first = number("BOWLINE_SEED").unwrap_or(0);
    let (events, different) = play(Tables::default(), first..first + runs);
    println!("{runs} runs, {events} events");
    let shown = different.len().min(3);
    assert!(different.is_empty(), "{} of {runs} runs differ:\n{}", different.len(), different[..shown].join("\n"));
}

/// Shows that the comparison can fail: it finds a fault that was put into the tables of the model.
#[test]
fn transports_differ_from_a_model_with_a_fault() {
    for fault in [Fault::SendSkipsMarker, Fault::RecvEndIsClean, Fault::ReasonIgnoresAbort, Fault::DeliveryIsAssumed] {
        let (_, different) = play(Tables { fault: Some(fault) }, 0..200);
        assert!(!different.is_empty(), "{fault:?} is not seen");
    }
}
