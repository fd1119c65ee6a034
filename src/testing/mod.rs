//! What tests of TLS services need, and what is a nuisance to write for each of them anew. Behind the feature `testing`.
//!
//! - [`pki`]: certificates of every kind, good and bad, made on the spot.
//!
//! The helpers here panic where a test would `unwrap`: they are made for tests and for development, not for production.

mod pairs;
pub mod pki;

pub use self::pairs::{raw_tcp_pair, tcp_pair, tcp_pair_with};
