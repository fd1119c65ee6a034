//! The contract of the callback face: each rule that a protocol can see, over every transport, each end in each place.

#![allow(unreachable_pub, dead_code, clippy::unwrap_used)]

#[path = "../rules/common.rs"]
mod common;
mod life;
mod probe;
