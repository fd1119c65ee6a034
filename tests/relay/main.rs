//! A relay of two transports: when one connection ends, the other one ends in the same way, and memory is bounded.
#![allow(clippy::unwrap_used)]

/// Whether the callback face runs the relay.
const CALLBACKS: bool = false;

mod cancel;
mod ends;
mod flow;
mod kill;
mod loss;
mod setup;
