//! The report of a connection. Each connection has exactly one, whether it was closed or not.

use std::sync::atomic::Ordering;

use super::Control;
use crate::conn::after_unlock;
use crate::core::report::CloseReport;
use crate::error::Reason;

impl Control {
    /// How the connection ended: by [`close`](crate::Transport::close), by itself, or because it was dropped. `None`
    /// while it has not ended. Only a close reports layers and counts. If a connection was dropped before its end,
    /// the reason is [`Reason::Dropped`] (rule: end-9).
    pub fn report(&self) -> Option<&CloseReport> {
        self.kept_report().or_else(|| {
            let unclosed =
                || Box::new(CloseReport { unacknowledged: self.unacknowledged(), ..CloseReport::of(self.reason()) });
            self.is_ended().then(|| &**self.make_rare().unclosed.get_or_init(unclosed))
        })
    }

    /// The report of a close, or of another end that we caused.
    pub(crate) fn kept_report(&self) -> Option<&CloseReport> {
        self.rare()?.ended.get().map(|report| &**report)
    }

    /// Keeps this report as the one of the connection, unless there is one already, and returns the kept one (rule:
    /// close-6).
    pub(crate) fn set_report(&self, report: CloseReport) -> &CloseReport {
        let report = self.make_rare().ended.get_or_init(|| Box::new(report));
        self.note_reason(&report.reason);
        self.recount();
        report
    }

    /// Records that a close has started and will make the report, or that the close was dropped.
    pub(crate) fn set_closing(&self, closing: bool) {
        if closing {
            self.0.closing.fetch_add(1, Ordering::SeqCst);
            return;
        }
        self.0.closing.fetch_sub(1, Ordering::SeqCst);
        // Tasks that saw the socket close while the close was in progress wait for its report, and so does a
        // [`Control::close`] that was called meanwhile.
        let this = self.clone();
        after_unlock::run(move || {
            this.0.going.notify_waiters();
            this.tell_ended();
        });
    }

    pub(super) fn is_closing(&self) -> bool {
        self.0.closing.load(Ordering::SeqCst) > 0
    }

    /// Called before a close drops the socket: the bytes that are in flight now count as unconfirmed.
    pub(crate) fn handle_close_report(&self) {
        if let Some(bottom) = self.bottom() {
            bottom.handle_close_report();
        }
    }

    /// The reason of the end. If no reason was noted, it is the failure of a call or a reset, and otherwise
    /// [`Reason::Dropped`].
    pub(super) fn reason(&self) -> Reason {
        if let Some(report) = self.kept_report() {
            return report.reason.clone();
        }
        match self.rare().and_then(|rare| rare.noted.get()) {
            // rule: close-14
            Some(noted) => self.judged(noted.clone()),
            None => self.failure().unwrap_or(Reason::Dropped),
        }
    }
}
