//! The relay of two protocols, held to the same as that of two transports, by the same tests.
#![allow(dead_code, clippy::unwrap_used)]

/// Which face of the crate relays.
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
