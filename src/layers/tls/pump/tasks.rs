//! The tasks that wait for a session, and the events that they wait for.

use std::task::{Context, Waker};

use super::Pump;
use crate::conn::control::Control;
use crate::transport::Transport;

/// The event that a writing task waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Want {
    /// More bytes can be accepted.
    Space,
    /// The layer has accepted all bytes, and the end after them if it is due.
    Drained,
}

impl<T: Transport> Pump<T> {
    /// Whether a [`Control::close`] has taken this session from the application's halves (rule: close-16). `closes`:
    /// the caller belongs to such a close.
    #[inline]
    pub(crate) fn is_closed_elsewhere(&self, control: &Control, closes: bool) -> bool {
        control.is_touched() && !closes && control.is_close_asked() && !control.is_cut() && !self.is_beneath
    }

    /// Registers the waiting reader.
    pub(crate) fn park_reader(&mut self, cx: &mut Context<'_>) {
        park(&mut self.reader, cx);
    }

    /// Registers a task that waits on the layer beneath for an event outside of this session.
    pub(crate) fn park_below(&mut self, cx: &mut Context<'_>) {
        park(&mut self.below, cx);
    }

    /// Registers the waiting writer.
    pub(crate) fn park_writer(&mut self, want: Want, cx: &mut Context<'_>) {
        self.session.handle_full();
        match &mut self.writer {
            Some((wanted, waker)) => {
                *wanted = want;
                waker.clone_from(cx.waker());
            }
            None => self.writer = Some((want, cx.waker().clone())),
        }
    }

    /// The tasks that have something to do now. A task that is woken before its event has come would only poll and wait
    /// again.
    pub(super) fn take_ready_tasks(&mut self) -> [Option<Waker>; 2] {
        let (reader_is_ready, writer_is_ready) = (self.is_reader_ready(), self.is_writer_ready());
        self.reader_was_displaced = false;
        let writer = self.writer.take_if(|_| writer_is_ready);
        [writer.map(|(_, waker)| waker), self.reader.take_if(|_| reader_is_ready)]
    }

    /// Whether [`take_ready_tasks`](Self::take_ready_tasks) would return a task. In most calls it would not.
    pub(super) fn has_ready_tasks(&self) -> bool {
        self.is_reader_ready() || self.is_writer_ready()
    }

    fn is_reader_ready(&self) -> bool {
        self.reader.is_some()
            && (self.reader_was_displaced || !self.session.recv().is_open() || self.session.is_stuck())
    }

    fn is_writer_ready(&self) -> bool {
        self.writer.as_ref().is_some_and(|(want, _)| self.has(*want))
    }

    fn has(&self, want: Want) -> bool {
        let session = &self.session;
        match want {
            _ if session.is_aborted() => true,
            Want::Space => !session.send().may_write() || session.is_below_low_mark(),
            // Accepted bytes leave only after the handshake. If the handshake has failed, a task waits only until the
            // alert has left.
            Want::Drained => {
                (!session.is_handshaking() || session.send().is_over())
                    && session.is_flushed()
                    && self.layer_is_flushed
                    && !self.owes_layer_end()
            }
        }
    }
}

/// Stores the waker of a waiting task. A stored waker is only replaced if it wakes another task.
fn park(slot: &mut Option<Waker>, cx: &Context<'_>) {
    match slot {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *slot = Some(cx.waker().clone()),
    }
}
