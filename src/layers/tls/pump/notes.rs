//! The reports of a session to its connection's `Control`.

use super::{LayerEnd, Pump};
use crate::core::half;
use crate::transport::Transport;
use crate::transport::layer::TOKEN;

impl<T: Transport> Pump<T> {
    /// Counts the plaintext of the application. Only the topmost session counts.
    #[inline]
    pub(crate) fn note_read(&self, bytes: usize) {
        if let Some(layer) = self.layer.as_ref().filter(|_| bytes > 0 && !self.is_beneath) {
            layer.layer(TOKEN).control().note_opened(bytes);
        }
    }

    /// Reports to the `Control` that the handshake is done.
    pub(super) fn note_secured(&self) {
        if let (Some(layer), Some(facts)) = (&self.layer, self.session.facts()) {
            layer.layer(TOKEN).control().note_secured(facts);
        }
    }

    /// Reports to the `Control` how the connection ended, if this session knows it, before the layer beneath is
    /// released.
    pub(crate) fn note_end(&self) {
        let Some(layer) = self.layer.as_ref().filter(|_| self.layer_end != LayerEnd::Stays) else { return };
        if self.session.is_answered() && !self.is_beneath && layer.layer(TOKEN).queued_bytes() == 0 {
            layer.layer(TOKEN).control().note_answered();
        }
        if let Some(reason) = half::reason(self.session.send(), self.session.recv()) {
            layer.layer(TOKEN).control().note_reason(&reason);
            if self.session.is_handshaking() {
                layer.layer(TOKEN).control().note_handshake_failed(&reason);
            }
        }
    }
}
