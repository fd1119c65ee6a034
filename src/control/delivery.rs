//! What the peer has taken of what was sent, as far as the system tells, and how that makes the connection end.

use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use tokio::time::{Sleep, sleep};

use super::Control;
use crate::core::delivery::{AskAgain, Evidence, Pending, judge};
use crate::error::{Phase, Reason};
use crate::socket;
use crate::unlocked;

/// The socket has not gone yet.
pub(super) const NOT_ASKED: u64 = u64::MAX;
/// The system does not say.
const NOT_TOLD: u64 = u64::MAX - 1;

impl Control {
    /// The socket goes: what was not acknowledged then (rule: close-4). The first answer counts: what is dissolved has
    /// nothing to acknowledge any more. The system is not asked twice.
    pub(crate) fn note_pending(&self, pending: impl FnOnce() -> Option<Pending>) {
        if self.0.unacknowledged.load(Ordering::Acquire) == NOT_ASKED {
            let code =
                pending().map_or(NOT_TOLD, |pending| (pending.bytes << 1 | u64::from(pending.fin)).min(NOT_TOLD - 1));
            let _ = self.0.unacknowledged.compare_exchange(NOT_ASKED, code, Ordering::AcqRel, Ordering::Acquire);
        }
    }

    fn pending(&self) -> Option<Pending> {
        let code = self.0.unacknowledged.load(Ordering::Acquire);
        (code < NOT_TOLD).then_some(Pending { bytes: code >> 1, fin: code & 1 == 1 })
    }

    /// Bytes that were not acknowledged when the socket went.
    pub(crate) fn unacknowledged(&self) -> Option<u64> {
        self.pending().map(|pending| pending.bytes)
    }

    /// The peer's end of the topmost floor came, and ours had left before (rule: close-14).
    pub(crate) fn note_answered(&self) {
        self.0.answered.store(true, Ordering::Release);
    }

    /// What a reason comes to by what is known of the delivery.
    pub(crate) fn judged(&self, reason: Reason) -> Reason {
        let is_answered = self.0.answered.load(Ordering::Acquire);
        judge(reason, Evidence { pending: self.pending(), is_answered, is_reset: self.was_reset() })
    }

    /// The same for a connection whose socket may still be there: `None` while what is missing may still arrive.
    pub(crate) fn judged_so_far(&self, reason: Reason) -> Option<Reason> {
        let ground = self.ground().filter(|_| reason.is_clean());
        match ground.and_then(|ground| ground.pending()) {
            None => Some(self.judged(reason)),
            Some(pending) => (pending == Pending::default()).then_some(reason),
        }
    }

    /// Whether both halves have ended in order, and the system has yet to say that all of ours has arrived. Asks it.
    pub(crate) fn awaits_delivery(&self) -> bool {
        self.ground().is_some_and(|ground| ground.awaits_delivery())
    }

    /// Tasks that wait for the end of the connection are to look again: only the delivery is missing.
    pub(crate) fn note_lingering(&self) {
        let this = self.clone();
        unlocked::run(move || this.0.going.notify_waiters());
    }

    /// Bytes that the peer's system has not acknowledged yet; 0 where none can be, or nobody knows.
    pub(crate) fn in_flight(&self) -> u64 {
        let ground = self.ground().filter(|_| !self.is_aborted());
        let stream = ground.as_ref().and_then(|ground| ground.socket());
        // Our FIN counts as one, and what is asked about comes before it.
        stream.and_then(socket::in_flight).map_or(0, |bytes| bytes.saturating_sub(1))
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

/// A wait until the system has told that all has arrived, or that it never will. It costs no timer where that is so at once.
#[derive(Default)]
pub(crate) struct Delivery {
    ask: AskAgain,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Delivery {
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, control: &Control) -> Poll<()> {
        while control.awaits_delivery() {
            let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep(self.ask.next_wait())));
            ready!(sleep.as_mut().poll(cx));
            self.sleep = None;
        }
        Poll::Ready(())
    }
}
