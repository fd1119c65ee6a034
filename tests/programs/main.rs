//! Builds and runs the example programs, and tests them against other TLS implementations: OpenSSL, curl and Python.
//!
//! If a tool is missing, the test that needs it fails and names the tool's Debian package. Only the tests with HAProxy
//! and with `systemd-socket-activate`, and the test over vsock, are then skipped, with a note.
#![cfg(unix)]
#![allow(clippy::unwrap_used)]

/// The face of the crate that the consoles of these tests serve with.
const FACE: &str = "async";

mod activation;
mod certificates;
mod chat;
mod commands;
mod drain;
mod exit_status;
mod front;
mod interrupt;
mod netcat;
mod openssl;
mod python;
mod smtp;
mod starttls;
mod terminator;
mod tools;
mod usage;
mod vsock;
