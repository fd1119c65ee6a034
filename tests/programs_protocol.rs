//! The tests of the console against other programs, with the callback face instead of the async one.
#![cfg(unix)]
#![allow(dead_code, clippy::unwrap_used)]

/// The face of the crate that the consoles of these tests serve with.
const FACE: &str = "protocol";

#[path = "programs/commands.rs"]
mod commands;
#[path = "programs/drain.rs"]
mod drain;
#[path = "programs/exit_status.rs"]
mod exit_status;
#[path = "programs/netcat.rs"]
mod netcat;
#[path = "programs/openssl.rs"]
mod openssl;
#[path = "programs/python.rs"]
mod python;
#[path = "programs/tools.rs"]
mod tools;
