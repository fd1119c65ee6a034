//! Protocols of messages: each message once and in order, however the bytes were cut, and none that must not come.

#![allow(unreachable_pub, dead_code, clippy::unwrap_used)]

mod bounds;
mod changes;
#[path = "../rules/common.rs"]
mod common;
mod cuts;
mod ends;
mod modes;
mod script;
