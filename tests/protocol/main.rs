//! The contract of the callback interface: each rule that a protocol can see, over every transport, in both roles.

#![allow(unreachable_pub, dead_code, clippy::unwrap_used)]

mod abort;
mod answers;
mod close;
#[path = "../rules/common.rs"]
mod common;
mod end;
mod file;
mod flow;
mod foreign;
mod half;
mod handle;
mod life;
mod probe;
mod secure;
mod server;
mod setup;
mod tcp;
mod twisted;
mod upgrade;
mod write;
mod yields;
