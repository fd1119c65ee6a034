//! Decides when a close for a library may stop waiting for the peer's end, and what its `shutdown` returns (rule:
//! close-15). A library such as hyper ends its connections by `shutdown` and a drop; `Lingering` makes this `shutdown`
//! a complete close.
//!
//! A peer loses our last bytes if it sends something to a socket that we have already closed: the system answers with
//! RST. So the close waits for two conditions: the peer's system must have all our bytes, and the peer must have
//! stopped sending. A client that only keeps its connection open is silent and has all bytes, so the close need not
//! wait for its end.

use std::time::Duration;

use super::delivery::AskAgain;
use super::report::CloseReport;
use crate::error::Reason;

/// The state of a close after its marker was sent, while the peer's end is missing.
#[derive(Debug, Clone, Copy)]
pub struct PeerState {
    /// The time since the last byte of the peer.
    pub silent_for: Duration,
    /// Whether the peer's system has acknowledged everything, as far as our system reports it.
    pub has_arrived: bool,
}

/// The next step of a close.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Check again after this time, or when the peer sends something.
    CheckAgain(Duration),
    /// End the close: no bytes can be lost any more.
    Over,
}

/// Decides how long a close waits for the peer's end.
#[derive(Debug)]
pub struct Linger {
    quiet: Duration,
    ask: AskAgain,
}

impl Linger {
    /// After this time without bytes from the peer, the peer counts as silent.
    pub fn new(quiet: Duration) -> Self {
        Self { quiet, ask: AskAgain::default() }
    }

    /// Decides the next step after a check.
    pub fn next(&mut self, peer: PeerState) -> Next {
        match self.quiet.checked_sub(peer.silent_for) {
            Some(rest) if !rest.is_zero() => Next::CheckAgain(rest),
            _ if peer.has_arrived => Next::Over,
            // The peer's state is checked again later, because no event reports an acknowledgement.
            _ => Next::CheckAgain(self.ask.next_wait()),
        }
    }
}

/// The reason with which a `shutdown` fails: `None` if the peer's system has everything, or will get it from our
/// system.
pub fn failure(report: &CloseReport) -> Option<&Reason> {
    let is_delivered = match report.reason {
        Reason::Closed => true,
        Reason::Aborted | Reason::Dropped => false,
        // The peer ended the connection after it had received everything.
        Reason::Reset(_) => report.marker_sent() && report.unacknowledged == Some(0),
        // No limit of the close was reached, so the system has given up the connection, and discarded the bytes that it
        // had not sent. After a limit of the close, the system would continue to send them.
        Reason::TimedOut(_) | Reason::Io(_) if report.limit.is_none() => {
            report.marker_sent() && report.unacknowledged == Some(0)
        }
        _ => report.marker_sent(),
    };
    (!is_delivered).then_some(&report.reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::report::{CloseLimit, LayerKind, LayerReport, Received};
    use crate::error::Phase;

    /// rule: close-15
    #[test]
    fn a_close_ends_when_the_peer_is_silent_and_has_everything() {
        let seconds = Duration::from_secs;
        let next = |silent_for, has_arrived| Linger::new(seconds(2)).next(PeerState { silent_for, has_arrived });
        assert_eq!(next(seconds(0), true), Next::CheckAgain(seconds(2)));
        assert_eq!(next(seconds(1), true), Next::CheckAgain(seconds(1)));
        assert_eq!(next(seconds(1), false), Next::CheckAgain(seconds(1)));
        assert_eq!(next(seconds(2), true), Next::Over);
        assert_eq!(next(seconds(60), true), Next::Over);
        let mut linger = Linger::new(seconds(2));
        let mut next = || linger.next(PeerState { silent_for: seconds(60), has_arrived: false });
        let waits: Vec<Next> = (0..4).map(|_| next()).collect();
        assert_eq!(waits, [1, 2, 4, 8].map(|millis| Next::CheckAgain(Duration::from_millis(millis))));
    }

    /// rule: close-15
    #[test]
    fn a_shutdown_fails_only_if_our_last_bytes_are_lost_or_may_be() {
        let report = |reason, marker_sent, unacknowledged| CloseReport {
            layers: vec![LayerReport { kind: LayerKind::Tls, marker_sent, received: Received::Nothing }],
            unacknowledged,
            ..CloseReport::of(reason)
        };
        let (closed, reset) = (Reason::Closed, Reason::Reset(Phase::Open));
        let timed_out = Reason::TimedOut(Phase::Close);
        let cases = [
            // reason, our marker has left, unacknowledged, success
            (closed.clone(), true, Some(0), true),
            (closed, false, None, true),
            (Reason::Unconfirmed, true, None, true),
            (reset.clone(), true, Some(0), true),
            (reset.clone(), true, Some(9), false),
            (reset.clone(), true, None, false),
            (reset, false, Some(0), false),
            (Reason::Truncated(Phase::Open), true, Some(0), true),
            (Reason::Truncated(Phase::Open), false, Some(0), false),
            (Reason::Aborted, true, Some(0), false),
        ];
        for (reason, marker_sent, unacknowledged, expected) in cases {
            let report = report(reason, marker_sent, unacknowledged);
            assert_eq!(failure(&report).is_none(), expected, "{report:?}");
        }
        // The peer has acknowledged nothing. After a limit of the close, our system continues to send. After a timeout
        // of the system itself, or an error, the bytes are lost.
        let io = Reason::Io(std::sync::Arc::new(std::io::ErrorKind::HostUnreachable.into()));
        for (reason, limit, marker_sent, unacknowledged, expected) in [
            (timed_out.clone(), Some(CloseLimit::Time), true, Some(9), true),
            (timed_out.clone(), Some(CloseLimit::Time), false, Some(9), false),
            (timed_out.clone(), None, true, Some(0), true),
            (timed_out.clone(), None, true, Some(9), false),
            (timed_out, None, true, None, false),
            (io, None, true, Some(9), false),
        ] {
            let report = CloseReport { limit, ..report(reason, marker_sent, unacknowledged) };
            assert_eq!(failure(&report).is_none(), expected, "{report:?}");
        }
    }
}
