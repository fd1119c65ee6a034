//! Helpers for tests of TLS services, so that each test does not have to write them again. Enabled by the feature
//! `testing`.
//!
//! - [`pki`]: certificates of every kind, good and bad, made when they are needed.
//! - [`serve`]: an application on a free port, with certificates, and clients for it.
//! - [`pair`]: the two ends of a connection, over any transport.
//! - [`Pipe`]: a connection in memory that ends like TCP.
//! - [`Recorder`]: a connection for protocols that records their calls.
//! - [`Duet`]: two protocols joined in memory; the test delivers their bytes and moves their clock.
//! - [`peer`]: peers and networks that misbehave on command.
//!
//! These helpers panic where a test would `unwrap`. They are meant for tests and for development, not for production.

#[cfg(not(any(feature = "aws-lc-rs", feature = "ring")))]
compile_error!("the feature `testing` makes keys, so it needs the feature `aws-lc-rs` or `ring`");

mod duet;
mod pairs;
pub mod peer;
mod pipe;
pub mod pki;
mod recorder;
mod serve;

pub use self::duet::Duet;
pub use self::pairs::{
    BoxTransport, Kind, memory_pair, memory_pair_with, pair, pair_with, raw_tcp_pair, shared_pki, tcp_pair,
    tcp_pair_with, tls_over, upgraded_over,
};
pub use self::pipe::{Pipe, pipe};
pub use self::recorder::{Call, Recorder};
pub use self::serve::{Service, serve, serve_with};
