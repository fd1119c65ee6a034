//! The decisions, free of sockets, clocks and tasks.
//!
//! # Theory of operation
//!
//! A connection is a stack of *layers*: TCP, and TLS sessions on top. Each layer has two *halves*, send and receive,
//! which live and end apart. Each half ends by its own *marker*: FIN on TCP, the close_notify alert on TLS. When the
//! layer below ends before the marker came, the end is *truncated*. That is the whole theory; the rest is bookkeeping:
//!
//! - [`half`]: the two halves as two state machines, the same on every layer.
//! - [`upgrade`]: the upgrade from plaintext to TLS and back.
//! - [`inbox`]: bytes that were received and not yet read. Nothing else may hold any, so that what is left over at an
//!   upgrade is always known.
//! - [`backoff`]: how long to wait before the next attempt.
//! - [`outcome`]: how the members of a group ended.
//! - [`delivery`]: whether our data has arrived, and which reason follows from that.
//! - [`stall`]: a wait that lasts while there is progress.
//! - [`relay`]: two connections joined: what the end of one means for the other.
//! - [`session`]: a TLS session: rustls with the halves around it. Bytes in, bytes out, steps between.
//! - [`alert`]: the alert for each failure.
//! - [`outbox`], [`flow`], [`lifecycle`]: what a protocol has asked for, its producer, and what it is told in which order.
//! - [`answers`]: how many bytes of a protocol's answers to input are unsent, and whether reading stops because of them.
//!
//! Nothing in here waits. Whoever owns a socket brings bytes (`handle_*`), passes on what the application wants (`write`, `close_write`, ...),
//! and asks what to do next (`step`, `transmit`). Methods named `is_`, `may_` and `can_` only look: *may* means that the
//! half is open, *can* that it is open and there is room or data now.

pub mod alert;
pub mod answers;
pub mod backoff;
mod budget;
pub mod buffer;
mod burst;
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
