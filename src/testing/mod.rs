//! What tests of TLS services need, and what is a nuisance to write for each of them anew. Behind the feature `testing`.
//!
//! - [`pki`]: certificates of every kind, good and bad, made on the spot.
//! - [`pair`]: two ends of a connection over every transport there is.
//! - [`Pipe`]: a connection in memory that ends like TCP does.
//! - [`Recorder`]: a transport for protocols, which notes what they call.
//! - [`Duet`]: two protocols joined in memory, their bytes delivered and their time moved by hand.
//! - [`peer`]: peers and lines that misbehave on command.
//!
//! The helpers here panic where a test would `unwrap`: they are made for tests and for development, not for production.

mod duet;
mod pairs;
pub mod peer;
mod pipe;
pub mod pki;
mod recorder;

pub use self::duet::Duet;
pub use self::pairs::{
    BoxTransport, Kind, memory_pair, memory_pair_with, pair, pair_with, raw_tcp_pair, shared_pki, tcp_pair,
    tcp_pair_with, tls_over, upgraded_over,
};
pub use self::pipe::{Pipe, pipe};
pub use self::recorder::{Call, Recorder};
