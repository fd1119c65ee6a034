//! Measures the speed of bowline and of other libraries, in one run on one machine.
//!
//! Without a subcommand, this is the conductor: it starts a new process of itself for each measurement, in interleaved
//! rounds, and writes a report. `bench/README.md` describes the measurements and the report.

mod again;
mod child;
mod conduct;
mod cpu;
mod error;
mod facts;
mod foreign;
mod machine;
mod measure;
mod net;
mod outcome;
mod page;
mod peers;
mod pki;
mod report;
mod series;
mod setup;
mod spec;
mod stats;
mod svg;
mod targets;
mod workloads;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let result = match arguments.next().as_deref() {
        Some(child::COMMAND) => child::main(arguments),
        Some(workloads::memory::COMMAND) => child::clients(arguments),
        _ => conduct::main(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}
