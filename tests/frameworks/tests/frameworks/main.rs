//! The adapters for frameworks, with real clients and servers.
#![allow(clippy::unwrap_used)]

mod axum;
mod common;
mod hyper;
mod others;
mod postgres;
#[path = "../../../bindings/postgres_server.rs"]
mod postgres_server;
mod refused_body;
mod tonic;
