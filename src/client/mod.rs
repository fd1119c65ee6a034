//! Connecting: one attempt over several addresses, and reconnecting.

pub(crate) mod connect;
mod race;
pub(crate) mod reconnect;
mod schedule;
