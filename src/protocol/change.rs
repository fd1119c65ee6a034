//! The runner between plaintext and TLS: what it awaits, serving handles and producers meanwhile.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use super::Protocol;
use super::desk::Change;
use super::mailbox::Answer;
use super::runner::Runner;
use super::transport::Transport as _;
use crate::conn::time::{after, until};
use crate::core::agenda::Due;
use crate::core::life::Notice;
use crate::error::{Error, Phase, Reason, UpgradeError};
use crate::transport::Transport;
use crate::transport::layer::{poll_budget, poll_write_some, tls_layers};

/// Between plaintext and TLS.
impl<P: Protocol, T: Transport> Runner<P, T> {
    /// A transport that was handed in before its handshake.
    pub(super) async fn handshake(&mut self) {
        let Self { stage, transport, .. } = self;
        let Some(handshake) = transport.handshaking() else { return };
        stage.is_beginning = true;
        let outcome = stage.wait(handshake).await;
        self.settle(Changed::Secured, outcome, None);
    }

    /// Makes the change that is next: what was written ahead of it leaves first (rule: upgrade-1).
    pub(super) async fn change(&mut self) {
        let (deadline, phase) = match self.stage.desk.agenda.next_step() {
            Some(Change::Start(_, deadline, _)) => (*deadline, Phase::Handshake),
            Some(Change::Stop(_)) | None => (after(self.stage.desk.control().policy().close_timeout), Phase::Close),
        };
        match until(deadline, poll_fn(|cx| self.poll_ahead(cx))).await {
            Some(Ok(())) => {}
            Some(Err(reason)) => return self.stage.fail(reason),
            None => return self.stage.fail(Reason::TimedOut(phase)),
        }
        let Some(change) = self.stage.desk.agenda.take_step() else { return };
        self.give_unread_back();
        let (changed, answer, outcome) = {
            let Self { stage, transport, .. } = self;
            match (change, transport.as_upgradable()) {
                (Change::Start(how, deadline, answer), Some(floor)) => {
                    (Changed::Secured, answer, stage.wait(floor.starting(*how, deadline)).await)
                }
                (Change::Stop(answer), Some(floor)) => (Changed::Plain, answer, stage.wait(floor.stopping()).await),
                (Change::Start(.., answer) | Change::Stop(answer), None) => {
                    (Changed::Plain, answer, Some(Err(Error::Unsupported("upgrade to TLS"))))
                }
            }
        };
        self.settle(changed, outcome, answer);
    }

    /// Ready once the bytes ahead of the step have been handed over.
    fn poll_ahead(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Reason>> {
        loop {
            ready!(poll_budget(cx));
            self.stage.obey(cx);
            if self.stage.poll_timer(cx).is_ready() {
                cx.waker().wake_by_ref();
            }
            self.look();
            self.stage.supply_early(cx);
            if self.stage.is_over() {
                return Poll::Ready(Ok(()));
            }
            let Due::Bytes(bytes) = self.stage.desk.agenda.due() else { return Poll::Ready(Ok(())) };
            match ready!(poll_write_some(&mut self.transport, cx, bytes)) {
                Ok(n) => self.stage.handed_over(n),
                Err(error) => return Poll::Ready(Err(Reason::from_io(error, Phase::Open))),
            }
        }
    }

    /// What the protocol has left unread is leftover, ahead of what the transport has read: it is judged (rule:
    /// upgrade-2).
    fn give_unread_back(&mut self) {
        let mut unread = self.unread.take();
        if !unread.is_empty() {
            unread.extend_from_slice(&self.transport.take_unread());
            self.transport.push_unread(&unread);
        }
    }

    /// The change is done, or has failed, and the connection with it; or a close has made it pointless.
    fn settle(&mut self, changed: Changed, outcome: Option<Result<(), Error>>, answer: Option<Answer>) {
        self.unfinished = None;
        self.stage.is_beginning = false;
        self.stage.desk.facts = self.transport.session_facts();
        self.stage.desk.layers = tls_layers(&self.transport);
        if let Some(answer) = answer {
            answer.give(outcome.clone().unwrap_or(Err(UpgradeError::Failed(Reason::Closed).into())));
        }
        match (outcome, changed) {
            (None, _) => {}
            (Some(Err(error)), _) => self.stage.fail(error.into()),
            (Some(Ok(())), Changed::Secured) => self.stage.tell_secured(),
            (Some(Ok(())), Changed::Plain) => {
                self.stage.tell(Notice::Changed, |protocol, desk| protocol.tls_stopped(desk));
            }
        }
    }
}

/// Where a change has led.
#[derive(Clone, Copy)]
enum Changed {
    /// Into TLS.
    Secured,
    /// Out of it.
    Plain,
}
