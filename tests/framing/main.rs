//! Protocols of messages: however the bytes are split, each message is delivered once and in order, and no message is
//! delivered that must not be.

#![allow(unreachable_pub, dead_code, clippy::unwrap_used)]

mod bounds;
mod changes;
#[path = "../rules/common.rs"]
mod common;
mod cuts;
mod ends;
mod modes;
mod script;
