//! Tests of the house itself: which room may name which, which test shows which rule, and what the state machines say.
//!
//! What is generated (the tables of docs/architecture.md, the `tests:` lines of docs/rules.md, tests/snapshots/) is
//! compared with what is committed, and is written anew by `UPDATE_DOCS=1 cargo test --test house`.
#![allow(clippy::unwrap_used)]

mod alerts;
mod api;
mod dependencies;
mod generated;
mod layering;
mod matrix;
mod rules;
mod settings;
mod source;
mod wrappers;
