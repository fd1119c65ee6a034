//! The decisions of the crate, without sockets, clocks and tasks.
//!
//! # Theory of operation
//!
//! A connection is a stack of *layers*: TCP, and TLS sessions on top. Each layer has two *halves*, send and receive, which
//! live and end independently. Each half ends by its own *marker*: FIN on TCP, the close_notify alert on TLS. If the layer
//! below ends before the marker came, the end is *truncated*. The modules apply these definitions:
//!
//! - [`half`]: the two halves as two state machines, the same on every layer.
//! - [`upgrade`]: the upgrade from plaintext to TLS and back.
//! - [`inbox`]: bytes that were received and not yet read. No other module may hold any, so that the leftover at an upgrade
//!   is always known.
//! - [`backoff`]: how long to wait before the next attempt.
//! - [`outcome`]: how the members of a group ended.
//! - [`delivery`]: whether our data has arrived, and which reason follows from that.
//! - [`stall`]: a wait that lasts while there is progress.
//! - [`relay`]: two joined connections: how the end of one affects the other.
//! - [`session`]: a TLS session: rustls with the halves around it. The owner brings bytes, takes bytes, and asks for the next
//!   step.
//! - [`alert`]: the alert for each failure.
//! - [`outbox`], [`flow`], [`lifecycle`]: the requests of a protocol, its producer, and the order of its callbacks.
//! - [`answers`]: how many bytes of a protocol's answers to input are unsent, and whether reading stops because of them.
//!
//! No code in here waits. The owner of a socket brings bytes (`handle_*`), passes on the application's calls (`write`,
//! `close_write`, ...), and asks what to do next (`step`, `transmit`). Methods named `is_`, `may_` and `can_` only look:
//! *may* means that the half is open, *can* means that the half is open and there is space or data now.

pub mod alert;
pub mod answers;
pub mod backoff;
mod budget;
pub mod buffer;
mod burst;
pub(crate) mod catch;
pub mod delivery;
mod engine;
pub mod facts;
pub mod flow;
pub mod half;
pub mod inbox;
mod input;
pub mod lifecycle;
pub mod outbox;
pub mod outcome;
mod pool;
mod record;
pub mod relay;
#[cfg(feature = "tokio")]
pub mod report;
pub mod session;
mod settings;
pub mod stall;
pub mod upgrade;
