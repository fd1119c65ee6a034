//! The parts that every kind of connection has: its [`Control`](control::Control), its group, its limits, its socket.

pub(crate) mod after_unlock;
mod alarm;
pub(crate) mod control;
pub(crate) mod group;
pub(crate) mod idle;
pub(crate) mod lost_socket;
pub(crate) mod options;
pub(crate) mod refusal;
pub(crate) mod shared_socket;
pub(crate) mod socket;
pub(crate) mod tcp_info;
pub(crate) mod time;
pub(crate) mod waiting;
