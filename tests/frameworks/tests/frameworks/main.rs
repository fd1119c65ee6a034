//! The adapters for frameworks, with real clients and servers.
#![allow(clippy::unwrap_used)]

mod axum;
mod common;
mod hyper;
mod refused_body;
