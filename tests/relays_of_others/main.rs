//! What relays make of the ends of a connection: the programs that Debian has, and ours. The table of docs/relay.md.
//!
//! ```text
//! apt-get install stunnel4 haproxy nginx libnginx-mod-stream hitch socat
//! UPDATE_DOCS=1 cargo test --all-features --test relays_of_others -- --nocapture
//! ```
//! Each program takes TLS off in front of a plain service on loopback. The client is tokio-rustls, whose socket can be had;
//! the service is a bare socket. Our own row is asserted. Those of the others are compared with the committed table, where
//! the program is installed and of the version that the table names; else that is said, and nothing is asserted.
#![cfg(unix)]
#![allow(clippy::unwrap_used)]

/// The face of the crate that the consoles of the tools serve with.
const FACE: &str = "async";

mod cases;
mod programs;
mod table;
#[allow(dead_code)]
#[path = "../programs/tools.rs"]
mod tools;

use crate::cases::Seen;
use crate::programs::{PROGRAMS, Program, Running};

/// Each case is run so often; what was seen is told, all of it.
const ROUNDS: usize = 3;

/// What one program makes of all cases.
struct Row {
    name: &'static str,
    version: String,
    cells: Vec<Seen>,
}

/// All cases, one after the other: a program that is overtaxed is not what is looked at.
async fn row(program: &'static Program, version: String) -> Row {
    let service = cases::Service::bind().await;
    let running = Running::start(program, service.port()).await;
    let mut cells = Vec::new();
    for case in cases::CASES {
        let mut seen = Seen::default();
        for _ in 0..ROUNDS {
            seen.add((case.run)(running.port(), &service).await);
        }
        cells.push(seen);
    }
    drop(running);
    Row { name: program.name, version, cells }
}

/// rule: flow-6
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ends_of_a_connection_through_relays() {
    let running: Vec<_> = PROGRAMS
        .iter()
        .filter_map(|program| match program.version() {
            Some(version) => Some(tokio::spawn(row(program, version))),
            None => {
                println!("{} is not installed: apt-get install {}", program.name, program.packages);
                None
            }
        })
        .collect();
    let mut rows = Vec::new();
    for row in running {
        rows.push(row.await.unwrap());
    }
    let full = table::full(&rows);
    println!("{full}");
    let ours: Vec<String> =
        rows.iter().find(|row| row.name == "bowline").unwrap().cells.iter().map(Seen::text).collect();
    let due: Vec<&str> = cases::CASES.iter().map(|case| case.due).collect();
    assert_eq!(ours, due);
    table::check_or_update(&rows);
}
