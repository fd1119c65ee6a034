//! A relay of two transports: an end on one side reaches the other side in kind, in bounded memory.
#![allow(clippy::unwrap_used)]

/// Which face of the crate relays.
const CALLBACKS: bool = false;

mod cancel;
mod ends;
mod flow;
mod kill;
mod loss;
mod setup;
