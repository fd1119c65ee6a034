//! What tests of TLS services need, and what is a nuisance to write for each of them anew. Behind the feature `testing`.
//!
//! - [`pki`]: certificates of every kind, good and bad, made on the spot.
//! - [`pair`]: two ends of a connection over every transport there is.
//! - [`Pipe`]: a connection in memory that ends like TCP does.
//!
//! The helpers here panic where a test would `unwrap`: they are made for tests and for development, not for production.

mod pairs;
mod pipe;
pub mod pki;

pub use self::pairs::{
    BoxTransport, Kind, memory_pair, memory_pair_with, pair, pair_with, raw_tcp_pair, shared_pki, tcp_pair,
    tcp_pair_with, tls_over, upgraded_over,
};
pub use self::pipe::{Pipe, pipe};
