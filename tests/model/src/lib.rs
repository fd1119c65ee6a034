//! Two peers, a wire that can lose what it carries, and the tables of the crate between them, for a model checker.
//!
//! The states and their changes are those of the crate: `tables` calls `bowline::core` for each of them. `steps` is the
//! glue in small: when a transport calls which table. `model` has the events, and `properties` is checked in
//! each state. `tests/replay` plays runs of the model with real transports.

pub mod model;
pub mod properties;
pub mod setups;
pub mod state;
pub mod steps;
pub mod tables;
