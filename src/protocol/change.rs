//! Performs the changes between plaintext and TLS. While the runner awaits such a change, it continues to serve
//! handles and producers.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use super::callbacks::Protocol;
use super::conn::Conn as _;
use super::deferred::{TlsChange, TlsStep};
use super::reply::ReplySender;
use super::runner::Runner;
use crate::conn::time::{after, until};
use crate::core::lifecycle::Callback;
use crate::core::outbox::Due;
use crate::error::{Error, Phase, Reason, UpgradeError};
use crate::transport::Transport;
use crate::transport::layer::{TOKEN, poll_budget, poll_write_some, tls_layers};

/// The changes between plaintext and TLS.
impl<P: Protocol, T: Transport> Runner<P, T> {
    /// Completes the handshake of a transport that was passed in before its handshake.
    pub(super) async fn handshake(&mut self) {
        let Self { dispatcher, transport, .. } = self;
        let Some(handshake) = transport.handshaking(TOKEN) else { return };
        dispatcher.conn.tls_change = TlsChange::FirstHandshake;
        let outcome = dispatcher.wait(handshake).await;
        self.settle(Changed::Secured, outcome, None);
    }

    /// Performs the next change. Bytes that were written before it are sent first (rule: upgrade-1).
    pub(super) async fn change(&mut self) {
        let (deadline, phase) = match self.dispatcher.conn.outbox.next_step() {
            Some(TlsStep::Start(_, deadline, _)) => (*deadline, Phase::Handshake),
            Some(TlsStep::Stop(_)) | None => {
                (after(self.dispatcher.conn.control().policy().close_timeout), Phase::Close)
            }
        };
        match until(deadline, poll_fn(|cx| self.poll_bytes_before(cx))).await {
            Some(Ok(())) => {}
            Some(Err(reason)) => return self.dispatcher.fail(reason),
            None => return self.dispatcher.fail(Reason::TimedOut(phase)),
        }
        let Some(step) = self.dispatcher.conn.outbox.take_step() else { return };
        self.give_unread_back();
        let (changed, reply, outcome) = {
            let Self { dispatcher, transport, .. } = self;
            match (step, transport.as_upgradable(TOKEN)) {
                (TlsStep::Start(how, deadline, reply), Some(layer)) => {
                    (Changed::Secured, reply, dispatcher.wait(layer.starting(*how, deadline)).await)
                }
                (TlsStep::Stop(reply), Some(layer)) => (Changed::Plain, reply, dispatcher.wait(layer.stopping()).await),
                (TlsStep::Start(.., reply) | TlsStep::Stop(reply), None) => {
                    (Changed::Plain, reply, Some(Err(Error::Unsupported("upgrade to TLS"))))
                }
            }
        };
        self.settle(changed, outcome, reply);
    }

    /// Ready once the bytes that precede the change have been passed to the transport.
    fn poll_bytes_before(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Reason>> {
        loop {
            ready!(poll_budget(cx));
            self.dispatcher.run_commands(cx);
            if self.dispatcher.poll_timer(cx).is_ready() {
                cx.waker().wake_by_ref();
            }
            self.check_queue();
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

    /// Returns the unprocessed bytes to the transport, in front of the bytes that the transport has read since. All
    /// of them are leftover bytes, and the policy decides about them together (rule: upgrade-2).
    fn give_unread_back(&mut self) {
        let mut unread = self.unread.take();
        if !unread.is_empty() {
            unread.extend_from_slice(&self.transport.layer_mut(TOKEN).take_unread());
            self.transport.layer_mut(TOKEN).push_unread(&unread);
        }
    }

    /// Handles the outcome of the change. `None`: a close has made the change pointless. If the change failed, the
    /// connection fails with it.
    fn settle(&mut self, changed: Changed, outcome: Option<Result<(), Error>>, reply: Option<ReplySender>) {
        self.unfinished = None;
        self.dispatcher.conn.tls_change = TlsChange::None;
        self.dispatcher.conn.facts = self.transport.layer(TOKEN).session_facts();
        if let Some(layers) = &mut self.dispatcher.conn.layers {
            *layers = tls_layers(self.transport.layer(TOKEN));
        }
        if let Some(reply) = reply {
            reply.send(outcome.clone().unwrap_or(Err(UpgradeError::Failed(Reason::Closed).into())));
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

/// The direction of a change.
#[derive(Clone, Copy)]
enum Changed {
    /// From plaintext to TLS.
    Secured,
    /// From TLS back to the layer beneath.
    Plain,
}
