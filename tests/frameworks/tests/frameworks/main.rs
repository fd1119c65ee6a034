//! The adapters for frameworks, with real clients and servers.
#![allow(clippy::unwrap_used)]

mod axum;
mod common;
mod hyper;
mod lettre;
mod others;
#[path = "../../../servers/postfix.rs"]
mod postfix;
mod postgres;
#[path = "../../../bindings/postgres_server.rs"]
mod postgres_server;
mod redis;
mod refused_body;
#[path = "../../../servers/server.rs"]
#[allow(dead_code)]
mod server;
mod tonic;

/// The time in which a server must be ready.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);
