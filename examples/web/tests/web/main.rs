//! Runs the web service, and asks it with real clients: curl, OpenSSL and Python.
#![cfg(unix)]
#![allow(clippy::unwrap_used)]

mod drain;
mod events;
mod identities;
mod limits;
mod metrics;
mod paths;
mod program;
mod proxy;
mod redis;
mod resume;
mod tickets;
mod upgrade;
mod usage;
