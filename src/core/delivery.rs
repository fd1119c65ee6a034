//! Decides whether our data has arrived, and whether an end that looks orderly counts as closed (rule: close-14).
//!
//! If the peer's marker came before our own had left, it confirms nothing: the peer may have closed its socket after
//! that, and our last bytes may never arrive. So `closed` requires a proof. Either the peer's system has acknowledged
//! all our bytes, or the peer ended its half after ours had left.

use std::time::Duration;

use crate::error::{Phase, Reason};

/// Data that the peer's system has not acknowledged yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pending {
    /// The number of bytes of data.
    pub bytes: u64,
    /// Whether our FIN is among it, if FIN is the marker of the connection. With TLS on top, close_notify is the
    /// marker.
    pub fin: bool,
}

/// The facts about our last bytes and our marker after a connection has ended.
#[derive(Debug, Clone, Copy, Default)]
pub struct Evidence {
    /// The data that was unacknowledged at the end; `None` if the system does not know.
    pub pending: Option<Pending>,
    /// Whether the peer's end of the topmost layer came after ours had left.
    pub is_answered: bool,
    /// Whether the connection was reset.
    pub is_reset: bool,
}

/// The reason of a connection after both halves have ended. `closed` is kept only if our last bytes are known to have
/// arrived. Any other reason is kept unchanged.
pub fn judge(reason: Reason, evidence: Evidence) -> Reason {
    let Evidence { pending, is_answered, is_reset } = evidence;
    let has_arrived = match pending {
        // If the system knows which bytes were acknowledged, they decide. The order in which the two sides ended
        // matters only if our FIN alone is not acknowledged, or if the system does not know.
        Some(Pending { bytes, fin }) => bytes == 0 && (!fin || is_answered),
        None => is_answered,
    };
    match reason {
        Reason::Closed if has_arrived => Reason::Closed,
        Reason::Closed if is_reset => Reason::Reset(Phase::Close),
        Reason::Closed => Reason::Unconfirmed,
        other => other,
    }
}

/// The intervals at which the system is asked whether the last byte was acknowledged, because no event reports it.
/// The first interval is short, because the acknowledgement usually arrives soon. Each later one is longer.
#[derive(Debug, Clone, Copy)]
pub struct AskAgain(Duration);

impl AskAgain {
    const FIRST: Duration = Duration::from_millis(1);
    const LONGEST: Duration = Duration::from_millis(50);

    /// The wait before the next question.
    pub fn next_wait(&mut self) -> Duration {
        let wait = self.0;
        self.0 = (wait * 2).min(Self::LONGEST);
        wait
    }
}

impl Default for AskAgain {
    fn default() -> Self {
        Self(Self::FIRST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// rule: close-14
    #[test]
    fn the_reason_is_closed_only_if_our_last_bytes_have_arrived() {
        let told = |bytes, fin| Some(Pending { bytes, fin });
        let cases = [
            // pending, answered, reset, expected
            (told(0, false), false, false, "closed"),
            (told(0, false), false, true, "closed"),
            (told(0, true), true, true, "closed"),
            (told(0, true), false, false, "unconfirmed"),
            (told(0, true), false, true, "reset"),
            (told(5, false), true, false, "unconfirmed"),
            (told(5, true), true, true, "reset"),
            (None, true, false, "closed"),
            (None, true, true, "closed"),
            (None, false, false, "unconfirmed"),
            (None, false, true, "reset"),
        ];
        for (pending, is_answered, is_reset, expected) in cases {
            let evidence = Evidence { pending, is_answered, is_reset };
            assert_eq!(judge(Reason::Closed, evidence).name(), expected, "{evidence:?}");
            assert_eq!(judge(Reason::Aborted, evidence).name(), "aborted");
        }
    }

    /// rule: close-14
    #[test]
    fn the_system_is_asked_soon_and_then_ever_more_seldom() {
        let mut ask = AskAgain::default();
        let waits: Vec<u64> = (0..8).map(|_| ask.next_wait().as_millis() as u64).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 50, 50]);
    }
}
