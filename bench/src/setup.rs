//! How the peers of one measurement are configured.

use crate::peers::Facts;
use crate::spec::Tls;
use crate::{Result, fail};

/// The same for every peer.
#[derive(Debug, Clone, Copy)]
pub struct Setup {
    pub tls: Tls,
    /// Tickets are sent and used; one for each handshake. Otherwise none is sent.
    pub resume: bool,
    /// X25519MLKEM768 instead of X25519.
    pub post_quantum: bool,
    /// Bulk is what is measured: peers that have a setting for throughput use it.
    #[cfg_attr(not(feature = "s2n"), allow(dead_code))]
    pub bulk: bool,
    /// A peer that is set better than its defaults in other measurements keeps its defaults.
    #[cfg_attr(not(any(feature = "s2n", feature = "openssl")), allow(dead_code))]
    pub untuned: bool,
    /// The server agrees on HTTP/2 by ALPN.
    pub http2: bool,
}

impl Setup {
    /// A peer that speaks something else than was asked for would be compared with others for no reason.
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
