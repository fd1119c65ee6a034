//! Counts the connections of each peer. The caller must remove each connection that it has added.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

/// The number of connections of each peer, with a limit per peer.
#[derive(Debug)]
pub(crate) struct PeerCounts {
    max: usize,
    ipv6_prefix: u8,
    counts: HashMap<IpAddr, usize>,
}

impl PeerCounts {
    /// At most `max` for each peer. IPv6 addresses that agree in their first `ipv6_prefix` bits (at most 128) are one
    /// peer.
    pub(crate) fn new(max: usize, ipv6_prefix: u8) -> Self {
        Self { max, ipv6_prefix: ipv6_prefix.min(128), counts: HashMap::new() }
    }

    /// The key of a peer. An IPv4 address inside IPv6 (`::ffff:192.0.2.1`) is an IPv4 address.
    pub(crate) fn peer(&self, addr: IpAddr) -> IpAddr {
        match addr.to_canonical() {
            IpAddr::V6(addr) => {
                let host_bits = 128 - u32::from(self.ipv6_prefix);
                let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
                Ipv6Addr::from_bits(addr.to_bits() & mask).into()
            }
            addr @ IpAddr::V4(_) => addr,
        }
    }

    /// Adds a connection of this peer, unless the peer is at its limit. Returns whether it was added.
    pub(crate) fn enter(&mut self, peer: IpAddr) -> bool {
        let max = self.max;
        let count = self.counts.entry(peer).or_insert(0);
        let may = *count < max;
        *count += usize::from(may);
        if *count == 0 {
            self.counts.remove(&peer);
        }
        may
    }

    /// Removes a connection of this peer. A peer without connections uses no memory.
    pub(crate) fn leave(&mut self, peer: IpAddr) {
        if let Some(count) = self.counts.get_mut(&peer) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&peer);
            }
        }
    }

    /// The largest number of connections for each peer.
    pub(crate) fn max(&self) -> usize {
        self.max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// rule: limit-2
    #[test]
    fn each_peer_has_its_own_limit_and_uses_no_memory_after_it_left() {
        let mut counts = PeerCounts::new(2, 64);
        let (a, b) = (addr("192.0.2.1"), addr("192.0.2.2"));
        assert!(counts.enter(a) && counts.enter(a) && !counts.enter(a));
        assert!(counts.enter(b));
        counts.leave(a);
        assert!(counts.enter(a) && !counts.enter(a));
        [a, a, b, b].into_iter().for_each(|peer| counts.leave(peer));
        assert!(counts.counts.is_empty());
        assert!(!PeerCounts::new(0, 64).enter(a));
    }

    /// rule: limit-2
    #[test]
    fn ipv6_counts_by_prefix_and_mapped_ipv4_as_ipv4() {
        let by = |prefix, text| PeerCounts::new(1, prefix).peer(addr(text)).to_string();
        assert_eq!(by(64, "2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(by(128, "2001:db8:1:2:3:4:5:6"), "2001:db8:1:2:3:4:5:6");
        assert_eq!(by(200, "2001:db8::1"), "2001:db8::1");
        assert_eq!(by(56, "2001:db8:1:2ff::1"), "2001:db8:1:200::");
        assert_eq!(by(0, "2001:db8::1"), "::");
        assert_eq!(by(64, "::ffff:192.0.2.1"), "192.0.2.1");
    }
}
