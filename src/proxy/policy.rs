//! Decides which connections must, may or must not begin with a header.

use std::net::IpAddr;

use super::TrustedNetworks;

/// Which connections begin with a PROXY header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyProtocol {
    mode: Mode,
    trusted: TrustedNetworks,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Accept,
    Require,
}

/// The first bytes that we expect from a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expected {
    /// The first bytes belong to the application.
    NoHeader,
    /// The first bytes may be a header.
    Perhaps,
    /// The first bytes must be a header.
    Header,
    /// The peer is no trusted proxy: the connection is refused.
    Untrusted,
}

impl ProxyProtocol {
    /// A connection from a trusted network may begin with a header. The first bytes of other peers are the
    /// application's.
    ///
    /// Use it for protocols in which the client sends the first bytes, as in TLS and HTTP: a server that waits for a
    /// header which may not come cannot greet its client first.
    pub fn accept(trusted: TrustedNetworks) -> Self {
        Self { mode: Mode::Accept, trusted }
    }

    /// A connection from a trusted network must begin with a header. Connections from other peers are refused.
    pub fn require(trusted: TrustedNetworks) -> Self {
        Self { mode: Mode::Require, trusted }
    }

    /// Whether a Unix socket can have headers: its peers are trusted only if the list of networks says so.
    pub(crate) fn trusts_unix(&self) -> bool {
        self.trusted.contains_unix()
    }

    /// A peer without an IP address has connected through a Unix socket.
    pub(crate) fn expected_from(&self, peer: Option<IpAddr>) -> Expected {
        match (self.mode, peer.map_or(self.trusts_unix(), |addr| self.trusted.contains(addr))) {
            (Mode::Accept, true) => Expected::Perhaps,
            (Mode::Accept, false) => Expected::NoHeader,
            (Mode::Require, true) => Expected::Header,
            (Mode::Require, false) => Expected::Untrusted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_trusted_peer_is_asked_for_a_header() {
        let trusted = || "192.0.2.0/24,::1".parse::<TrustedNetworks>().unwrap();
        let expected = |proxy: ProxyProtocol, peer: &str| proxy.expected_from(Some(peer.parse().unwrap()));
        assert_eq!(expected(ProxyProtocol::accept(trusted()), "192.0.2.9"), Expected::Perhaps);
        assert_eq!(expected(ProxyProtocol::accept(trusted()), "::ffff:192.0.2.9"), Expected::Perhaps);
        assert_eq!(expected(ProxyProtocol::accept(trusted()), "198.51.100.1"), Expected::NoHeader);
        assert_eq!(expected(ProxyProtocol::require(trusted()), "::1"), Expected::Header);
        assert_eq!(expected(ProxyProtocol::require(trusted()), "::2"), Expected::Untrusted);
        assert_eq!(ProxyProtocol::require(trusted()).expected_from(None), Expected::Untrusted);
        let unix = || "192.0.2.0/24, unix".parse::<TrustedNetworks>().unwrap();
        assert_eq!(ProxyProtocol::require(unix()).expected_from(None), Expected::Header);
        assert_eq!(ProxyProtocol::accept(unix()).expected_from(None), Expected::Perhaps);
        assert_eq!(expected(ProxyProtocol::require(unix()), "192.0.2.9"), Expected::Header);
    }
}
