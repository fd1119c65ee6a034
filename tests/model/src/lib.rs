//! A model of one connection, for a model checker: two peers, and a wire that can lose what it carries.
//!
//! The states and their changes are those of the crate: `tables` calls `bowline::core` for each change. `steps`
//! contains the order in which a transport calls these tables. `model` contains the events. The checker checks each of
//! the `properties` in each state. `tests/replay` plays runs of the model with real transports.

pub mod model;
pub mod properties;
pub mod setups;
pub mod state;
pub mod steps;
pub mod tables;
