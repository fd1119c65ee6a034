//! Lists the handshakes in progress, and chooses the one to abort for a new connection if there are too many. It uses
//! no sockets and no clock.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

/// The handshakes of one listener, by peer.
#[derive(Debug, Default)]
pub(super) struct Handshakes {
    /// The handshakes of each peer, the oldest first. Peers without an address share one entry.
    of_peer: HashMap<Option<IpAddr>, VecDeque<u64>>,
    count: u64,
}

impl Handshakes {
    /// Records a handshake that begins, and returns its number.
    pub(super) fn begin(&mut self, peer: Option<IpAddr>) -> u64 {
        self.count += 1;
        self.of_peer.entry(peer).or_default().push_back(self.count);
        self.count
    }

    /// Counts a handshake for another peer: the client that a PROXY header has named.
    pub(super) fn change(&mut self, from: Option<IpAddr>, to: Option<IpAddr>, number: u64) {
        self.end(from, number);
        let numbers = self.of_peer.entry(to).or_default();
        numbers.insert(numbers.partition_point(|other| *other < number), number);
    }

    /// A handshake is over. A second call changes nothing.
    pub(super) fn end(&mut self, peer: Option<IpAddr>, number: u64) {
        if let Some(numbers) = self.of_peer.get_mut(&peer) {
            numbers.retain(|of_peer| *of_peer != number);
            if numbers.is_empty() {
                self.of_peer.remove(&peer);
            }
        }
    }

    /// The handshake to abort: the oldest one of the peer that has the most of them. A peer with many silent
    /// connections thus displaces its own connections only.
    pub(super) fn victim(&self) -> Option<u64> {
        let of_busiest =
            self.of_peer.values().max_by_key(|numbers| (numbers.len(), std::cmp::Reverse(numbers.front())));
        of_busiest.and_then(|numbers| numbers.front().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// rule: accept-2
    #[test]
    fn a_peer_with_many_handshakes_displaces_its_own_oldest_one() {
        let peer = |n: u8| Some(IpAddr::from([192, 0, 2, n]));
        let mut handshakes = Handshakes::default();
        assert_eq!(handshakes.victim(), None);
        let good = handshakes.begin(peer(1));
        let silent: Vec<u64> = (0..3).map(|_| handshakes.begin(peer(2))).collect();
        assert_eq!(handshakes.victim(), Some(silent[0]));
        handshakes.end(peer(2), silent[0]);
        handshakes.end(peer(2), silent[0]);
        assert_eq!(handshakes.victim(), Some(silent[1]));
        handshakes.end(peer(2), silent[1]);
        // Each peer has one handshake, so the oldest one of all is displaced.
        assert_eq!(handshakes.victim(), Some(good));
        handshakes.end(peer(1), good);
        handshakes.end(peer(2), silent[2]);
        assert!(handshakes.of_peer.is_empty());
    }

    /// rule: accept-2, proxy-5
    #[test]
    fn a_client_that_a_header_names_counts_instead_of_the_proxy() {
        let peer = |n: u8| Some(IpAddr::from([192, 0, 2, n]));
        let (proxy, mut handshakes) = (peer(1), Handshakes::default());
        let all: Vec<u64> = (0..4).map(|_| handshakes.begin(proxy)).collect();
        // The headers arrive in another order.
        for (number, client) in [(all[2], 7), (all[0], 8), (all[1], 7)] {
            handshakes.change(proxy, peer(client), number);
        }
        assert_eq!(handshakes.victim(), Some(all[1]));
        handshakes.end(peer(7), all[1]);
        assert_eq!(handshakes.victim(), Some(all[0]));
    }
}
