//! The table of docs/relay.md: how the relay programs of Debian, and ours, pass on the ends of a connection.
//!
//! ```text
//! apt-get install stunnel4 haproxy nginx libnginx-mod-stream hitch socat
//! UPDATE_DOCS=1 cargo test --all-features --test relays_of_others -- --nocapture
//! ```
//! Each program terminates TLS for a plaintext service on loopback. The client is tokio-rustls, because it gives access
//! to its socket; the service is a bare socket. Our own row is asserted. The rows of the other programs are compared
//! with the committed table if the program is installed in the version that the table names. Otherwise the test prints
//! why it compares nothing.
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

/// How often each case is run. All observations are printed.
const ROUNDS: usize = 3;

/// The results of one program in all cases.
struct Row {
    name: &'static str,
    version: String,
    cells: Vec<Seen>,
}

/// All cases, one after the other, so that no program is overloaded.
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
