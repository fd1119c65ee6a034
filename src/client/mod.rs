//! Connecting: one attempt over several addresses, and attempts again and again.

pub(crate) mod connect;
mod race;
pub(crate) mod reconnect;
mod schedule;
