//! Stands in for the layer of an upgradable connection after a failed change between plaintext and TLS has destroyed that
//! layer.

use std::sync::Arc;
use std::task::{Context, Poll};

use crate::conn::control::Control;
use crate::core::facts::SessionFacts;
use crate::core::half::{RecvHalf, SendHalf};
use crate::core::report::LayerReport;
use crate::error::Reason;
use crate::transport::Starting;
use crate::transport::layer::{Discard, Layer};

/// Only the handle is left.
pub(crate) struct Gone(pub(crate) Control);

impl Layer for Gone {
    fn control(&self) -> &Control {
        &self.0
    }

    fn halves(&self) -> (SendHalf, RecvHalf) {
        (SendHalf::Aborted, RecvHalf::Aborted)
    }

    fn queued_bytes(&self) -> usize {
        0
    }

    fn handle_abort(&mut self) {}

    fn begin_close(&mut self) {}

    fn is_pointless(&self) -> bool {
        true
    }

    fn abandon(&mut self) {}

    fn poll_discard(&mut self, _: &mut Context<'_>, _: &mut Discard) -> Poll<()> {
        Poll::Ready(())
    }

    fn release(&mut self, _: &Reason) {}

    fn set_cork(&mut self, _: bool) -> bool {
        false
    }

    fn take_unread(&mut self) -> Vec<u8> {
        Vec::new()
    }

    fn look(&mut self, _: &mut Context<'_>) {}

    fn push_unread(&mut self, _: &[u8]) {}

    fn report_layers(&self, _: &mut Vec<LayerReport>) {}

    fn may_write_in_wake(&self) -> bool {
        false
    }

    fn keeps_written(&self) -> bool {
        true
    }

    fn has_space(&self, _: usize) -> bool {
        false
    }

    fn set_half_open(&mut self) {}

    fn expect_end(&mut self) {}

    fn set_beneath(&mut self, _: bool) {}

    fn session_facts(&self) -> Option<Arc<SessionFacts>> {
        None
    }

    fn poll_room(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    fn poll_attend(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    fn handshaking(&mut self) -> Option<Starting<'_>> {
        None
    }
}
