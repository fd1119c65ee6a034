//! The fuzz targets, and their seeds.
//!
//! A target panics if the crate panics, or if one of the target's own checks fails.

mod bytes;
pub mod dialogue;
pub mod endpoint;
pub mod handover;
pub mod hello;
pub mod inbox;
mod peer;
pub mod pem;
pub mod proxy;
// The record layer of the crate's peer for tests, of which the targets do not use everything.
#[allow(dead_code)]
#[path = "../../src/testing/peer/record.rs"]
mod record;
pub mod session;
mod text;
pub mod ticket;
pub mod upgrade;

/// Panics if there is a difference each time. Two handshakes have different random bytes, and after a change of a length
/// these may be read as the header of the next message, so that the same input ends in two ways once in a while.
fn always(difference: impl Fn() -> Option<String>) {
    const ATTEMPTS: usize = 4;
    let all: Option<Vec<String>> = (0..ATTEMPTS).map(|_| difference()).collect();
    if let Some(all) = all {
        panic!("{}", all[0]);
    }
}

/// A target: its name, its function, and its seeds (the inputs with which fuzzing begins).
pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]),
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const TARGETS: [Target; 10] = [
    Target { name: "session", run: session::run, seeds: session::seeds },
    Target { name: "handover", run: handover::run, seeds: handover::seeds },
    Target { name: "inbox", run: inbox::run, seeds: inbox::seeds },
    Target { name: "upgrade", run: upgrade::run, seeds: upgrade::seeds },
    Target { name: "proxy", run: proxy::run, seeds: proxy::seeds },
    Target { name: "hello", run: hello::run, seeds: hello::seeds },
    Target { name: "pem", run: pem::run, seeds: pem::seeds },
    Target { name: "endpoint", run: endpoint::run, seeds: endpoint::seeds },
    Target { name: "dialogue", run: dialogue::run, seeds: dialogue::seeds },
    Target { name: "ticket", run: ticket::run, seeds: ticket::seeds },
];
