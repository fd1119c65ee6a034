//! The configuration of the peers of one measurement.

use crate::error::{Result, fail};
use crate::facts::Facts;
use crate::spec::Tls;

/// The settings, which are the same for every peer.
#[derive(Debug, Clone, Copy)]
pub struct Setup {
    pub tls: Tls,
    /// Each handshake sends and uses one ticket. Otherwise no tickets are sent.
    pub resume: bool,
    /// X25519MLKEM768 instead of X25519.
    pub post_quantum: bool,
    /// The measurement is bulk: peers that have a setting for throughput use it.
    #[cfg_attr(not(feature = "s2n"), allow(dead_code))]
    pub bulk: bool,
    /// A peer keeps its default settings, even if other measurements use better ones.
    #[cfg_attr(not(any(feature = "s2n", feature = "openssl")), allow(dead_code))]
    pub untuned: bool,
    /// The server agrees on HTTP/2 by ALPN.
    pub http2: bool,
}

impl Setup {
    /// Checks that the peer has negotiated what the measurement requires. Otherwise the comparison would be
    /// meaningless.
    pub fn check(self, facts: Option<Facts>, resumed: bool) -> Result<()> {
        let Some(facts) = facts else { return Ok(()) };
        let version = match self.tls {
            Tls::V13 => "1.3",
            Tls::V12 => "1.2",
        };
        if facts.version != version || !facts.aes128 || facts.resumed != resumed {
            return fail(format!("{facts:?} was agreed on, not {self:?}, resumed: {resumed}"));
        }
        Ok(())
    }
}
