//! The methods of a stream for the layer above it, and for the futures that the methods of `Transport` return.

use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite};

use super::{Stream, read_once};
use crate::conn::control::{Control, Controlled};
use crate::conn::idle::IdleTimer;
use crate::core::half::{RecvHalf, SendHalf};
use crate::core::report::{LayerKind, LayerReport};
use crate::error::Reason;
use crate::transport::Transport;
use crate::transport::layer::{AsLayer, Discard, Layer, Token, lends_itself, poll_discard_reads, take_in};

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Layer for Stream<S> {
    fn control(&self) -> &Control {
        &self.control
    }

    fn halves(&self) -> (SendHalf, RecvHalf) {
        (self.send.clone(), self.recv.clone())
    }

    fn handle_abort(&mut self) {
        Controlled::abort(self);
    }

    fn begin_close(&mut self) {
        self.timers.iter_mut().for_each(IdleTimer::stop);
        self.stall.stop();
        self.inbox.clear();
    }

    fn poll_discard(&mut self, cx: &mut Context<'_>, discarded: &mut Discard) -> Poll<()> {
        poll_discard_reads(self, cx, discarded)
    }

    fn release(&mut self, reason: &Reason) {
        self.control.note_reason(reason);
        self.end(reason);
    }

    fn take_unread(&mut self) -> Vec<u8> {
        self.inbox.take()
    }

    /// Reads the bytes in the kernel if the stream is a socket, otherwise the bytes that the stream returns without
    /// waiting.
    fn read_available(&mut self, cx: &mut Context<'_>) {
        self.check_control();
        let Some(live) = self.live.as_mut().filter(|_| self.recv.is_open()) else { return };
        let before = self.inbox.len();
        let looked = take_in(&mut self.inbox, |space| match live.receive {
            Some(receive) => receive(&live.io, space),
            None => read_once(&mut live.io, cx, space),
        });
        self.control.note_received(self.inbox.len() - before);
        if let Err(error) = looked {
            self.lose(error);
        }
    }

    fn push_unread(&mut self, bytes: &[u8]) {
        self.inbox.push(bytes);
    }

    fn report_layers(&self, layers: &mut Vec<LayerReport>) {
        layers.push(LayerReport::of(LayerKind::Stream, &self.send, &self.recv));
    }

    fn may_write_in_wake(&self) -> bool {
        self.wakes_unlocked
    }

    /// Returns true, because the stream may have a queue of its own.
    fn keeps_written(&self) -> bool {
        true
    }

    fn set_half_open(&mut self) {
        self.fin_received.begin();
    }

    fn set_beneath(&mut self, beneath: bool) {
        self.beneath = beneath;
        self.control.set_beneath(beneath);
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> AsLayer for Stream<S> {
    lends_itself!();
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Transport for Stream<S> {}
