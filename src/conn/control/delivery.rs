//! How much of our data the peer has acknowledged, as far as the system reports it, and the reason that follows for the
//! end.

use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use tokio::time::{Sleep, sleep};

use super::Control;
use crate::conn::socket;
use crate::conn::unlocked;
use crate::core::delivery::{AskAgain, Evidence, Pending, judge};
use crate::error::{Phase, Reason};

/// The socket still exists.
pub(super) const NOT_ASKED: u64 = u64::MAX;
/// The system cannot report it.
const NOT_TOLD: u64 = u64::MAX - 1;

impl Control {
    /// Notes how many bytes are unacknowledged when the socket is closed (rule: close-4). Only the first answer counts,
    /// because the system has no unacknowledged bytes to report after the connection was dissolved. The system is not asked
    /// twice.
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

    /// Bytes that were not acknowledged when the socket was closed.
    pub(crate) fn unacknowledged(&self) -> Option<u64> {
        self.pending().map(|pending| pending.bytes)
    }

    /// The peer's end of the topmost layer came, and ours had left before (rule: close-14).
    pub(crate) fn note_answered(&self) {
        self.0.answered.store(true, Ordering::Release);
    }

    /// Adjusts a reason to what is known about the delivery.
    pub(crate) fn judged(&self, reason: Reason) -> Reason {
        let is_answered = self.0.answered.load(Ordering::Acquire);
        judge(reason, Evidence { pending: self.pending(), is_answered, is_reset: self.was_reset() })
    }

    /// The same for a connection whose socket may still exist: `None` while our last bytes may still arrive.
    pub(crate) fn judged_so_far(&self, reason: Reason) -> Option<Reason> {
        let bottom = self.bottom().filter(|_| reason.is_clean());
        match bottom.and_then(|bottom| bottom.pending()) {
            None => Some(self.judged(reason)),
            Some(pending) => (pending == Pending::default()).then_some(reason),
        }
    }

    /// Whether both halves have ended in order, but the system has not yet confirmed our last bytes. Asks the system.
    pub(crate) fn awaits_delivery(&self) -> bool {
        self.bottom().is_some_and(|bottom| bottom.awaits_delivery())
    }

    /// Wakes the tasks that wait for the end of the connection: only the delivery is missing, and they have to check it.
    pub(crate) fn note_lingering(&self) {
        let this = self.clone();
        unlocked::run(move || this.0.going.notify_waiters());
    }

    /// Bytes that the peer's system has not acknowledged yet; 0 if there are none, or if the number is unknown.
    pub(crate) fn in_flight(&self) -> u64 {
        let bottom = self.bottom().filter(|_| !self.is_aborted());
        let stream = bottom.as_ref().and_then(|bottom| bottom.socket());
        // Our FIN counts as one byte. The caller asks about the bytes before it.
        stream.and_then(|stream| socket::in_flight(&stream)).map_or(0, |bytes| bytes.saturating_sub(1))
    }

    /// Grows while the peer takes our data: its system acknowledges bytes or, if our system cannot tell, our system accepts them.
    pub(crate) fn taken(&self) -> u64 {
        self.0.sent.load(Ordering::Relaxed).saturating_sub(self.in_flight())
    }

    /// Cuts the connection off, because the end of our send half has waited for its bound without progress. So the data that the
    /// peer has received does not look complete.
    pub(crate) fn give_up_end(&self) {
        self.end(Reason::TimedOut(Phase::Close));
    }
}

/// Waits until the system reports that everything has arrived, or never will. Takes no timer if that is known at once.
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
