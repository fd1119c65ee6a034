//! The decisions of the crate, without sockets, clocks and tasks.
//!
//! # Theory of operation
//!
//! A connection is a stack of *layers*: TCP, and TLS sessions on top. Each layer has two *halves*, send and receive,
//! which live and end independently. Each half ends by its own *marker*: FIN on TCP, the close_notify alert on TLS. If
//! the layer below ends before the marker came, the end is *truncated*. The modules apply these definitions:
//!
//! - [`half`]: the two halves as two state machines, the same on every layer.
//! - [`upgrade`]: the upgrade from plaintext to TLS and back.
//! - [`inbox`]: received bytes that were not read yet. No other module may hold any, so that the leftover bytes at an
//!   upgrade are always known.
//! - [`backoff`]: the wait before the next attempt.
//! - [`outcome`], [`drain`]: counts how the members of a group ended.
//! - [`delivery`]: whether our data has arrived, and which reason follows from that.
//! - [`linger`]: when a close for a library stops waiting for the peer.
//! - [`stall`]: a wait that continues as long as there is progress.
//! - [`relay`]: two joined connections: how the end of one affects the other.
//! - `client_hello`: reads the first message of a client before there is a session.
//! - [`session`]: a TLS session: rustls, and the two halves. The owner passes bytes in and out, and calls `step` to
//!   learn what to do next.
//! - `dialogue`: the plaintext before an upgrade, in each protocol (feature `starttls`).
//! - [`alert`]: the alert for each failure.
//! - [`outbox`], [`producer`], [`lifecycle`]: the calls of a protocol, its producer, and the order of its callbacks.
//! - [`answers`]: how many bytes of a protocol's answers to input are unsent, and whether they stop reading.
//!
//! No code in here waits. The owner of a socket passes received bytes in (`handle_*`), forwards the application's
//! calls (`write`, `close_write`, ...), and asks what to do next (`step`, `transmit`). Methods whose names start with
//! `is_`, `may_` or `can_` change nothing. *May* means that the half is open. *Can* means that the half is open, and
//! that there is space or data now.

pub mod alert;
pub mod answers;
pub mod backoff;
pub mod binding;
pub mod buffer;
mod buffer_pool;
pub(crate) mod catch;
pub mod client_hello;
pub mod delivery;
#[cfg(feature = "starttls")]
pub mod dialogue;
#[cfg(feature = "tokio")]
pub mod drain;
pub mod engine;
pub mod facts;
pub mod half;
mod high_mark;
pub mod inbox;
mod input;
mod key_budget;
pub mod lifecycle;
#[cfg(feature = "tokio")]
pub mod linger;
pub mod outbox;
pub mod outcome;
pub mod producer;
mod record;
pub mod relay;
#[cfg(feature = "tokio")]
pub mod report;
pub mod session;
mod settings;
pub mod stall;
mod tls_vector;
pub mod upgrade;
