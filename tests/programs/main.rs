//! The programs, built, run, and held against other people's TLS: OpenSSL, curl and Python.
//!
//! A tool that is missing fails the test that needs it, and is named with its Debian package. Nothing is skipped.
#![cfg(unix)]
#![allow(clippy::unwrap_used)]

/// The face of the crate that the consoles of these tests serve with.
const FACE: &str = "async";

mod chat;
mod commands;
mod drain;
mod exit_status;
mod interrupt;
mod netcat;
mod openssl;
mod python;
mod smtp;
mod starttls;
mod terminator;
mod tools;
mod usage;
