//! Decides which address is tried when (rule: tcp-4). Reads no clock: the caller passes the time.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// The addresses that have not been tried yet, and the time at which the next one is due.
#[derive(Debug)]
pub(super) struct Schedule {
    waiting: VecDeque<SocketAddr>,
    delay: Duration,
    /// `None`: only when an attempt fails.
    due: Option<Instant>,
}

impl Schedule {
    /// The first address is due now, each later one `delay` after the one before it.
    pub(super) fn new(addrs: impl IntoIterator<Item = SocketAddr>, delay: Duration, now: Instant) -> Self {
        Self { waiting: interleave(addrs).into(), delay, due: Some(now) }
    }

    /// The time at which the next address is due; `None` if no address is left, or if only a failure makes the
    /// next one due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due.filter(|_| !self.waiting.is_empty())
    }

    /// An attempt failed: the next one need not wait (rule: tcp-4).
    pub(super) fn handle_failure(&mut self, now: Instant) {
        self.due = Some(self.due.map_or(now, |due| due.min(now)));
    }

    /// The address to try now, if one is due.
    #[must_use]
    pub(super) fn step(&mut self, now: Instant) -> Option<SocketAddr> {
        self.due.filter(|due| *due <= now)?;
        let addr = self.waiting.pop_front()?;
        self.due = now.checked_add(self.delay);
        Some(addr)
    }
}

/// Alternates the address families. Each address occurs once, and the order within a family stays.
///
/// RFC 8305 section 4: "Whichever address family is first in the list should be followed by an address of the other
/// address family". The resolver has sorted the list (RFC 6724), so the resolver decides which family comes first. On a
/// host without an IPv6 route, IPv4 comes first.
fn interleave(addrs: impl IntoIterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let mut families: [Vec<SocketAddr>; 2] = Default::default();
    let mut first_is_ipv6 = None;
    for addr in addrs {
        let first = *first_is_ipv6.get_or_insert(addr.is_ipv6());
        let family = &mut families[usize::from(addr.is_ipv6() != first)];
        if !family.contains(&addr) {
            family.push(addr);
        }
    }
    let [mut first, mut other] = families.map(|family| family.into_iter().peekable());
    let mut order = Vec::new();
    while first.peek().is_some() || other.peek().is_some() {
        order.extend(first.next());
        order.extend(other.next());
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELAY: Duration = Duration::from_millis(250);

    fn addrs(list: &[&str]) -> Vec<SocketAddr> {
        list.iter().map(|addr| addr.parse().unwrap()).collect()
    }

    /// rule: tcp-4
    #[test]
    fn families_alternate_and_the_resolver_decides_which_is_first() {
        let six_first = addrs(&["[::1]:1", "[::2]:1", "[::3]:1", "1.0.0.1:1", "1.0.0.2:1"]);
        let turns = addrs(&["[::1]:1", "1.0.0.1:1", "[::2]:1", "1.0.0.2:1", "[::3]:1"]);
        assert_eq!(interleave(six_first), turns);
        let four_first = addrs(&["1.0.0.1:1", "[::1]:1", "[::2]:1", "[::3]:1"]);
        assert_eq!(interleave(four_first.clone()), four_first);
        assert_eq!(interleave([]), []);
    }

    /// rule: tcp-4
    #[test]
    fn an_address_that_is_listed_twice_is_tried_once() {
        let twice = addrs(&["[::1]:1", "127.0.0.1:1", "127.0.0.1:1", "[::1]:1"]);
        assert_eq!(interleave(twice), addrs(&["[::1]:1", "127.0.0.1:1"]));
    }

    /// rule: tcp-4
    #[test]
    fn the_next_address_is_due_after_the_delay_or_at_once_after_a_failure() {
        let start = Instant::now();
        let list = addrs(&["1.0.0.1:1", "1.0.0.2:1", "1.0.0.3:1"]);
        let mut schedule = Schedule::new(list.clone(), DELAY, start);
        assert_eq!(schedule.step(start), Some(list[0]));
        assert_eq!(schedule.step(start + DELAY / 2), None);
        assert_eq!(schedule.due(), Some(start + DELAY));
        assert_eq!(schedule.step(start + DELAY), Some(list[1]));
        let failure = start + DELAY * 3 / 2;
        assert_eq!(schedule.step(failure), None);
        schedule.handle_failure(failure);
        assert_eq!(schedule.step(failure), Some(list[2]));
        assert_eq!(schedule.due(), None);
    }

    /// rule: tcp-4
    #[test]
    fn a_delay_without_end_waits_for_a_failure() {
        let start = Instant::now();
        let list = addrs(&["1.0.0.1:1", "1.0.0.2:1"]);
        let mut schedule = Schedule::new(list.clone(), Duration::MAX, start);
        assert_eq!(schedule.step(start), Some(list[0]));
        assert_eq!(schedule.due(), None);
        schedule.handle_failure(start);
        assert_eq!(schedule.step(start), Some(list[1]));
    }
}
