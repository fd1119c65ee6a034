//! Runs the tests of the relay with the relay of two protocols.
#![allow(dead_code, clippy::unwrap_used)]

/// Whether the callback face runs the relay.
const CALLBACKS: bool = true;

#[path = "relay/ends.rs"]
mod ends;
#[path = "relay/flow.rs"]
mod flow;
#[path = "relay/kill.rs"]
mod kill;
#[path = "relay/loss.rs"]
mod loss;
#[path = "relay/setup.rs"]
mod setup;
