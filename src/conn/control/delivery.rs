//! Tracks how much of our data the peer has acknowledged, as far as the system reports it, and which reason of the
//! end follows from that.

use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use tokio::time::{Sleep, sleep};

use super::Control;
use crate::conn::after_unlock;
use crate::conn::idle::SentBytes;
use crate::conn::socket;
use crate::core::delivery::{AskAgain, Evidence, Pending, judge};
use crate::error::{Phase, Reason};

/// The value while the socket still exists.
pub(super) const NOT_ASKED: u64 = u64::MAX;
/// The value if the system cannot report the number.
const NOT_TOLD: u64 = u64::MAX - 1;

impl Control {
    /// Records how many bytes are unacknowledged when the socket is closed (rule: close-4). Only the first answer of
    /// the system counts, and the system is not asked again. After the connection was dissolved, the system has no
    /// unacknowledged bytes to report.
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

    /// The number of bytes that were not acknowledged when the socket was closed.
    pub(crate) fn unacknowledged(&self) -> Option<u64> {
        self.pending().map(|pending| pending.bytes)
    }

    /// Records that the peer's end of the topmost layer came after ours had left (rule: close-14).
    pub(crate) fn note_answered(&self) {
        self.0.answered.store(true, Ordering::Release);
    }

    /// Adjusts a reason to what is known about the delivery of our data.
    pub(crate) fn judged(&self, reason: Reason) -> Reason {
        let is_answered = self.0.answered.load(Ordering::Acquire);
        judge(reason, Evidence { pending: self.pending(), is_answered, is_reset: self.was_reset() })
    }

    /// As `judged`, for a connection whose socket may still exist. `None` while our last bytes may still arrive.
    pub(crate) fn judged_so_far(&self, reason: Reason) -> Option<Reason> {
        let bottom = self.bottom().filter(|_| reason.is_clean());
        match bottom.and_then(|bottom| bottom.pending()) {
            None => Some(self.judged(reason)),
            Some(pending) => (pending == Pending::default()).then_some(reason),
        }
    }

    /// Whether both halves have ended in order, but the peer's system has not acknowledged our last bytes yet. Asks
    /// our system.
    pub(crate) fn awaits_delivery(&self) -> bool {
        self.bottom().is_some_and(|bottom| bottom.awaits_delivery())
    }

    /// Whether the peer's system may still acknowledge bytes that were sent. Asks our system, also before both halves
    /// have ended.
    pub(crate) fn has_unacknowledged(&self) -> bool {
        self.bottom().is_some_and(|bottom| bottom.has_unacknowledged())
    }

    /// Whether the peer's system has everything that our system has sent, as far as our system can tell.
    pub(crate) fn has_arrived(&self) -> bool {
        self.bottom().and_then(|bottom| bottom.pending()).is_none_or(|pending| pending == Pending::default())
    }

    /// Wakes the tasks that wait for the end of the connection, so that they start to check whether our last bytes
    /// have arrived.
    pub(crate) fn note_lingering(&self) {
        let this = self.clone();
        after_unlock::run(move || this.0.going.notify_waiters());
    }

    /// The number of bytes that the peer's system has not acknowledged yet; 0 if there are none, or if the number is
    /// unknown.
    pub(crate) fn in_flight(&self) -> u64 {
        let bottom = self.bottom().filter(|_| !self.is_aborted());
        let stream = bottom.as_ref().and_then(|bottom| bottom.socket());
        // Our FIN counts as one byte here, but the caller asks only about the bytes before it.
        stream.and_then(|stream| socket::in_flight(&stream)).map_or(0, |bytes| bytes.saturating_sub(1))
    }

    /// The number of our bytes that our system still holds, and that the peer's system has acknowledged.
    pub(crate) fn sent_bytes(&self) -> SentBytes {
        let unacknowledged = self.in_flight();
        SentBytes { unacknowledged, acknowledged: self.0.sent.load(Ordering::Relaxed).saturating_sub(unacknowledged) }
    }

    /// A counter that grows while the peer accepts our data. It counts the bytes that the peer's system has
    /// acknowledged or, if that is unknown, the bytes that our system has accepted.
    pub(crate) fn taken(&self) -> u64 {
        self.sent_bytes().acknowledged
    }

    /// Cuts the connection off, because our send half could not end within the time limit and made no progress. The
    /// data that the peer has received then does not look complete.
    pub(crate) fn give_up_end(&self) {
        self.end(Reason::TimedOut(Phase::Close));
    }
}

/// Waits until the delivery of our bytes is decided. The system is asked at intervals. If the answer is known at once,
/// no timer is used.
#[derive(Default)]
pub(crate) struct Delivery {
    ask: AskAgain,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Delivery {
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, is_undecided: impl Fn() -> bool) -> Poll<()> {
        while is_undecided() {
            let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep(self.ask.next_wait())));
            ready!(sleep.as_mut().poll(cx));
            self.sleep = None;
        }
        Poll::Ready(())
    }
}
