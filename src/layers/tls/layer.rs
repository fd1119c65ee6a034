//! The methods of a TLS connection for the layer above it, and for the futures of `Transport`.

use std::sync::Arc;
use std::task::{Context, Poll};

use super::TlsConnection;
use crate::conn::control::{Control, Controlled};
use crate::conn::options::{SocketOptions, TcpOptions};
use crate::core::facts::SessionFacts;
use crate::core::half::{RecvHalf, SendHalf};
use crate::core::report::{LayerKind, LayerReport};
use crate::error::{Reason, SessionError};
use crate::layers::tls::pump::LayerEnd;
use crate::transport::layer::{AsLayer, Discard, Layer, TOKEN, Token, lends_itself};
use crate::transport::tcp::{TcpTransport, options};
use crate::transport::{Starting, TlsTransport, Transport};

impl<T: Transport> Layer for TlsConnection<T> {
    fn control(&self) -> &Control {
        self.write.control_ref()
    }

    fn halves(&self) -> (SendHalf, RecvHalf) {
        self.write.shared().with(|pump| (pump.session.send().clone(), pump.session.recv().clone()))
    }

    fn queued_bytes(&self) -> usize {
        self.write.shared().inspect(|pump| {
            pump.session.queued() + pump.layer.as_ref().map_or(0, |layer| layer.layer(TOKEN).queued_bytes())
        })
    }

    fn handle_abort(&mut self) {
        self.read.clear();
        self.write.shared().with(|pump| pump.abort());
    }

    fn begin_close(&mut self) {
        self.read.clear();
        // The stall timer stops, because the close has its own time limit.
        self.write.stall.stop();
        self.read.closes = true;
        self.write.closes = true;
        self.write.shared().with(|pump| {
            pump.session.begin_close();
            // If a downgrade was dropped before, the layer beneath is no longer kept: all layers end.
            if pump.layer_end == LayerEnd::Stays {
                pump.layer_end = LayerEnd::Due;
            }
            if let Some(layer) = &mut pump.layer {
                layer.layer_mut(TOKEN).begin_close();
            }
        });
    }

    fn is_pointless(&self) -> bool {
        self.write.shared().with(|pump| pump.session.is_pointless())
    }

    fn abandon(&mut self) {
        self.write.shared().with(|pump| pump.session.abandon());
    }

    fn poll_discard(&mut self, cx: &mut Context<'_>, discarded: &mut Discard) -> Poll<()> {
        self.read.poll_discard(cx, discarded)
    }

    fn release(&mut self, reason: &Reason) {
        self.write.shared().with(|pump| pump.end(reason));
    }

    fn set_cork(&mut self, on: bool) -> bool {
        self.write.shared().with(|pump| {
            let was_corked = pump.session.is_corked();
            if on {
                pump.session.cork();
            } else {
                pump.session.uncork();
                let _ = pump.transmit();
            }
            was_corked
        })
    }

    fn take_unread(&mut self) -> Vec<u8> {
        self.read.take_unread()
    }

    fn read_available(&mut self, cx: &mut Context<'_>) {
        self.write.shared().with(|pump| pump.read_available(cx));
    }

    fn push_unread(&mut self, bytes: &[u8]) {
        self.read.push_unread(bytes);
    }

    fn report_layers(&self, layers: &mut Vec<LayerReport>) {
        self.write.shared().with(|pump| {
            let mut report = LayerReport::of(LayerKind::Tls, pump.session.send(), pump.session.recv());
            // rule: close-4: a marker that waits in the queue of the layer below has not been sent.
            report.marker_sent &= pump.layer_is_flushed;
            layers.push(report);
            if let Some(layer) = &pump.layer {
                layer.layer(TOKEN).report_layers(layers);
            }
        });
    }

    fn may_write_in_wake(&self) -> bool {
        self.write.shared().with(|pump| pump.layer.as_ref().is_some_and(|layer| layer.layer(TOKEN).may_write_in_wake()))
    }

    /// Returns true, because records wait here while the layer beneath is full.
    fn keeps_written(&self) -> bool {
        true
    }

    fn set_half_open(&mut self) {
        self.write.shared().with(|pump| {
            if let Some(layer) = &mut pump.layer {
                layer.layer_mut(TOKEN).set_half_open();
            }
        });
    }

    fn set_beneath(&mut self, beneath: bool) {
        self.write.shared().with(|pump| pump.is_beneath = beneath);
    }

    fn export(&self, out: &mut [u8], label: &[u8], context: Option<&[u8]>) -> Result<(), SessionError> {
        self.write.shared().with(|pump| pump.session.export(out, label, context))
    }

    fn session_facts(&self) -> Option<Arc<SessionFacts>> {
        self.write.shared().with(|pump| pump.session.facts().cloned())
    }

    fn poll_space(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.write.poll_space(cx)
    }

    fn poll_attend(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.read.poll_attend(cx)
    }

    fn handshaking(&mut self) -> Option<Starting<'_>> {
        if !self.write.shared().with(|pump| pump.session.is_handshaking() && !pump.session.send().is_over()) {
            return None;
        }
        Some(Box::pin(self.handshake_by(self.read.deadline())))
    }
}

impl<T: Transport> AsLayer for TlsConnection<T> {
    lends_itself!();

    fn lend_tls(&self, _: Token) -> Option<&dyn TlsTransport> {
        Some(self)
    }
}

impl<T: Transport> Transport for TlsConnection<T> {}

impl<T: TcpTransport> SocketOptions for TlsConnection<T> {
    fn socket(&self) -> TcpOptions<'_> {
        options(self)
    }
}

impl<T: TcpTransport> TcpTransport for TlsConnection<T> {}

impl<T: Transport> TlsTransport for TlsConnection<T> {}
