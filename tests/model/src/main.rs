//! Explores all states of the model, and prints how many there are. With `--small`, it explores only the part that CI
//! checks for every change.

use std::process::ExitCode;
use std::time::Instant;

use bowline_model::model::Connection;
use bowline_model::setups;
use bowline_model::tables::Tables;
use stateright::{Checker, Model};

fn main() -> ExitCode {
    let is_small = std::env::args().any(|arg| arg == "--small");
    let only = std::env::args().skip_while(|arg| arg != "--only").nth(1);
    let (mut all, mut failed) = (0, false);
    for setup in if is_small { setups::small() } else { setups::whole() } {
        if only.as_ref().is_some_and(|only| only != setup.name) {
            continue;
        }
        let (name, begun) = (setup.name, Instant::now());
        let model = Connection { setup, tables: Tables::default() };
        let checker = model.checker().threads(2).spawn_bfs().join();
        let states = checker.unique_state_count();
        println!("{name}: {states} states, {} steps deep, {} s", checker.max_depth(), begun.elapsed().as_secs());
        for (property, path) in checker.discoveries() {
            failed = true;
            println!("FAILED: {property}");
            let last = *path.last_state();
            println!("  {:?}", path.into_actions());
            println!("  {last:?}");
        }
        all += states;
    }
    println!("{all} states in all{}", if failed { "" } else { ", every property holds" });
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
