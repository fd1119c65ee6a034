//! What the peer has taken of what was sent, as far as the system tells.

use std::sync::atomic::Ordering;

use super::{Control, NOT_ASKED, NOT_TOLD};
use crate::error::{Phase, Reason};
use crate::socket;

impl Control {
    /// The socket goes: what was not acknowledged then (rule: close-4).
    pub(crate) fn note_unacknowledged(&self, bytes: Option<u64>) {
        let bytes = bytes.map_or(NOT_TOLD, |bytes| bytes.min(NOT_TOLD - 1));
        // The first answer counts: what is dissolved has nothing to acknowledge any more.
        let _ = self.0.unacknowledged.compare_exchange(NOT_ASKED, bytes, Ordering::AcqRel, Ordering::Acquire);
    }

    pub(crate) fn unacknowledged(&self) -> Option<u64> {
        Some(self.0.unacknowledged.load(Ordering::Acquire)).filter(|bytes| *bytes < NOT_TOLD)
    }

    /// Bytes that the peer's system has not acknowledged yet; 0 where none can be, or nobody knows.
    pub(crate) fn in_flight(&self) -> u64 {
        let ground = self.ground().filter(|_| !self.is_aborted());
        let stream = ground.as_ref().and_then(|ground| ground.socket());
        stream.and_then(|stream| socket::unacknowledged(stream, true)).unwrap_or(0)
    }

    /// Grows while the peer takes what we send: its system acknowledges bytes, or where that is not told, ours takes them.
    pub(crate) fn taken(&self) -> u64 {
        self.0.sent.load(Ordering::Relaxed).saturating_sub(self.in_flight())
    }

    /// The end of our send half has waited for its bound and nothing has moved: the connection is cut off for that, so that
    /// what the peer has got does not look complete.
    pub(crate) fn give_up_end(&self) {
        self.end(Reason::TimedOut(Phase::Close));
    }
}
