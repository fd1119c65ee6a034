//! Plays every fault in every phase of a connection, and drops every call that waits after each of its polls.
#![allow(clippy::unwrap_used)]

mod awaits;
mod cell;
mod expect;
mod heap;
mod peer;
mod sockets;
mod wire;

use std::sync::Once;

use self::cell::{Cell, Kind, Phase, Side};

/// In debug builds, rustls panics if bytes follow its alert, and the session catches the panic. Printing the backtraces
/// would take most of the time of these tests, so this function suppresses them.
fn print_no_panic_of_rustls() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !panic.location().is_some_and(|at| at.file().contains("/rustls-")) {
                print(panic);
            }
        }));
    });
}

/// One cell of this many is played in `.ci/run`. With BOWLINE_FAULTS=all, as in `.ci/nightly`, all cells are played.
const STRIDE: usize = 5;

/// The largest block that a connection, its peer and the wire between them may allocate in a cell, in bytes. In a
/// downgrade, a connection keeps the bytes that a peer sends instead of its close_notify, here up to 256 KiB.
const LARGEST: usize = 320 << 10;

/// Plays the cells of one side. Prints their number, which is in docs/trust.md.
fn play(side: Side) {
    print_no_panic_of_rustls();
    let stride = if std::env::var("BOWLINE_FAULTS").is_ok_and(|which| which == "all") { 1 } else { STRIDE };
    let (mut count, mut played, mut wrong) = (0, 0, Vec::new());
    let mut largest = 0;
    for kind in Kind::all().into_iter().filter(|kind| kind.side == side) {
        let without = Cell { kind, phase: Phase::Call(0), fault: None };
        let seen = without.run();
        let steps = seen.calls.clone();
        wrong.extend(expect::judge(without, expect::due(without, &steps), &seen).err());
        for cell in expect::cells(kind, &steps) {
            count += 1;
            if count % stride != 0 {
                continue;
            }
            played += 1;
            heap::take_largest();
            match std::panic::catch_unwind(|| cell.run()) {
                Ok(seen) => wrong.extend(expect::judge(cell, expect::due(cell, &steps), &seen).err()),
                Err(_) => wrong.push(format!("{cell}: a panic")),
            }
            largest = largest.max(heap::take_largest());
        }
    }
    println!("{side:?}: {played} of {count} cells");
    assert!(wrong.is_empty(), "{} of {played} cells:\n{}", wrong.len(), wrong.join("\n"));
    assert!(count >= 550, "only {count} cells");
    // A failed allocation ends the process, so no peer may cause a large one.
    println!("{side:?}: the largest allocation has {largest} bytes");
    assert!(largest <= LARGEST, "an allocation of {largest} bytes");
}

/// rule: close-3, close-4, close-7, close-10, end-1, end-2, end-6, half-9, secure-4, secure-5, upgrade-6, upgrade-9
#[test]
fn every_fault_in_every_phase_of_a_client_ends_in_time_with_the_right_reason() {
    play(Side::Client);
}

/// rule: close-3, close-4, close-7, close-10, end-1, end-2, end-6, half-9, secure-4, secure-5, upgrade-6, upgrade-9
#[test]
fn every_fault_in_every_phase_of_a_server_ends_in_time_with_the_right_reason() {
    play(Side::Server);
}
