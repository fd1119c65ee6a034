//! The runner between plaintext and TLS: what it awaits, serving handles and producers meanwhile.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use super::Protocol;
use super::conn::Transport as _;
use super::deferred::Change;
use super::handle_state::Answer;
use super::runner::Runner;
use crate::conn::time::{after, until};
use crate::core::lifecycle::Callback;
use crate::core::outbox::Due;
use crate::error::{Error, Phase, Reason, UpgradeError};
use crate::transport::Transport;
use crate::transport::layer::{TOKEN, poll_budget, poll_write_some, tls_layers};

/// Between plaintext and TLS.
impl<P: Protocol, T: Transport> Runner<P, T> {
    /// A transport that was handed in before its handshake.
    pub(super) async fn handshake(&mut self) {
        let Self { dispatcher, transport, .. } = self;
        let Some(handshake) = transport.handshaking(TOKEN) else { return };
        dispatcher.is_beginning = true;
        let outcome = dispatcher.wait(handshake).await;
        self.settle(Changed::Secured, outcome, None);
    }

    /// Makes the change that is next: what was written ahead of it leaves first (rule: upgrade-1).
    pub(super) async fn change(&mut self) {
        let (deadline, phase) = match self.dispatcher.conn.outbox.next_step() {
            Some(Change::Start(_, deadline, _)) => (*deadline, Phase::Handshake),
            Some(Change::Stop(_)) | None => {
                (after(self.dispatcher.conn.control().policy().close_timeout), Phase::Close)
            }
        };
        match until(deadline, poll_fn(|cx| self.poll_ahead(cx))).await {
            Some(Ok(())) => {}
            Some(Err(reason)) => return self.dispatcher.fail(reason),
            None => return self.dispatcher.fail(Reason::TimedOut(phase)),
        }
        let Some(change) = self.dispatcher.conn.outbox.take_step() else { return };
        self.give_unread_back();
        let (changed, answer, outcome) = {
            let Self { dispatcher, transport, .. } = self;
            match (change, transport.as_upgradable(TOKEN)) {
                (Change::Start(how, deadline, answer), Some(layer)) => {
                    (Changed::Secured, answer, dispatcher.wait(layer.starting(*how, deadline)).await)
                }
                (Change::Stop(answer), Some(layer)) => {
                    (Changed::Plain, answer, dispatcher.wait(layer.stopping()).await)
                }
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
            self.dispatcher.obey(cx);
            if self.dispatcher.poll_timer(cx).is_ready() {
                cx.waker().wake_by_ref();
            }
            self.look();
            self.dispatcher.supply_early(cx);
            if self.dispatcher.is_over() {
                return Poll::Ready(Ok(()));
            }
            let Due::Bytes(bytes) = self.dispatcher.conn.outbox.due() else { return Poll::Ready(Ok(())) };
            match ready!(poll_write_some(&mut self.transport, cx, bytes)) {
                Ok(n) => self.dispatcher.handed_over(n),
                Err(error) => return Poll::Ready(Err(Reason::from_io(error, Phase::Open))),
            }
        }
    }

    /// What the protocol has left unread is leftover, ahead of what the transport has read: it is judged (rule:
    /// upgrade-2).
    fn give_unread_back(&mut self) {
        let mut unread = self.unread.take();
        if !unread.is_empty() {
            unread.extend_from_slice(&self.transport.layer_mut(TOKEN).take_unread());
            self.transport.layer_mut(TOKEN).push_unread(&unread);
        }
    }

    /// The change is done, or has failed, and the connection with it; or a close has made it pointless.
    fn settle(&mut self, changed: Changed, outcome: Option<Result<(), Error>>, answer: Option<Answer>) {
        self.unfinished = None;
        self.dispatcher.is_beginning = false;
        self.dispatcher.conn.facts = self.transport.layer(TOKEN).session_facts();
        self.dispatcher.conn.layers = tls_layers(self.transport.layer(TOKEN));
        if let Some(answer) = answer {
            answer.give(outcome.clone().unwrap_or(Err(UpgradeError::Failed(Reason::Closed).into())));
        }
        match (outcome, changed) {
            (None, _) => {}
            (Some(Err(error)), _) => self.dispatcher.fail(error.into()),
            (Some(Ok(())), Changed::Secured) => self.dispatcher.notify_secured(),
            (Some(Ok(())), Changed::Plain) => {
                self.dispatcher.notify(Callback::Changed, |protocol, conn| protocol.tls_stopped(conn));
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
