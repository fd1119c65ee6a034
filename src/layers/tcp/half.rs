//! The parts that both halves of a TCP connection have: a share of the socket, and the state of their direction.

use std::io;
use std::task::{Context, Poll, ready};

use super::shared::{SharedTcp, SocketShare};
use crate::conn::control::{Control, Controlled};
use crate::conn::idle::{HalfOpen, IdleTimer};
use crate::core::half::{RecvHalf, SendHalf};
use crate::error::Reason;

/// The events that the states of both directions have.
pub(super) trait HalfState {
    /// Ends the half because the application has aborted.
    fn abort(&mut self);
    /// This layer has failed, or the connection has ended for another reason.
    fn lose(&mut self, reason: Reason);
}

/// One half of a TCP connection.
pub(super) struct SocketHalf<S> {
    /// `None` after the end.
    pub(super) shared: Option<SocketShare>,
    pub(super) control: Control,
    pub(super) state: S,
    pub(super) timer: IdleTimer,
    /// The half belongs to a [`Control::close`].
    pub(super) closes: bool,
}

impl<S: HalfState> SocketHalf<S> {
    pub(super) fn new(shared: SocketShare, state: S, timer: IdleTimer) -> Self {
        let control = shared.control().clone();
        Self { shared: Some(shared), control, state, timer, closes: false }
    }

    /// Ends the half if the [`Control`] has ended the connection. Returns whether it has.
    pub(super) fn follow_cut(&mut self) -> bool {
        self.check_cut(self.control.cut())
    }

    /// Whether a [`Control::close`] has taken this half from the application (rule: close-16).
    #[cold]
    pub(super) fn is_closed_elsewhere(&self) -> bool {
        !self.closes && self.control.is_close_asked() && !self.shared.as_ref().is_some_and(|shared| shared.is_beneath())
    }

    /// Starts the idle timer, if the policy has a limit, because the half waits. `other` is the end of the other half.
    #[inline(never)]
    pub(super) fn poll_timer(&mut self, cx: &mut Context<'_>, other: fn(&SharedTcp) -> &HalfOpen) -> Poll<io::Error> {
        let Some(shared) = &self.shared else { return Poll::Pending };
        let control = &self.control;
        let phase =
            ready!(self.timer.poll(cx, control.policy(), control.activity(), other(shared), || control.sent_bytes()));
        Poll::Ready(self.control.time_out(phase).into())
    }

    /// Closes the socket if it was held only until the delivery of our last bytes is known, and this is known now.
    pub(super) fn settle(&mut self) {
        self.shared.take_if(|shared| shared.is_settled());
    }

    /// Ends the half, because the connection is lost. If the other half saw an error that ended the socket, that is the
    /// reason (rule: end-10).
    pub(super) fn lose(&mut self, reason: &Reason) {
        let first = reason.ends_socket().then(|| self.control.failure()).flatten();
        let reason = first.as_ref().unwrap_or(reason);
        if let Some(shared) = &self.shared {
            shared.note_loss(reason);
        }
        self.end(reason);
    }
}

impl<S: HalfState> Controlled for SocketHalf<S> {
    fn abort(&mut self) {
        self.state.abort();
        self.shared = None;
    }

    fn end(&mut self, reason: &Reason) {
        self.state.lose(reason.clone());
        self.shared = None;
    }
}

impl HalfState for SendHalf {
    fn abort(&mut self) {
        SendHalf::abort(self);
    }

    fn lose(&mut self, reason: Reason) {
        SendHalf::lose(self, reason);
    }
}

impl HalfState for RecvHalf {
    fn abort(&mut self) {
        RecvHalf::abort(self);
    }

    fn lose(&mut self, reason: Reason) {
        RecvHalf::lose(self, reason);
    }
}
