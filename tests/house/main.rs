//! Tests of the repository itself: the imports between modules, the tests of each rule, and the tables of the state
//! machines.
//!
//! Generated text (the tables of docs/architecture.md, the `tests:` lines of docs/rules.md, tests/snapshots/) is
//! compared with the committed version, and is rewritten by `UPDATE_DOCS=1 cargo test --test house`.
#![allow(clippy::unwrap_used)]

mod alerts;
mod api;
mod booleans;
mod dependencies;
mod documents;
mod generated;
mod layering;
mod lines;
mod matrix;
mod rules;
mod settings;
mod source;
mod trust;
mod wrappers;
