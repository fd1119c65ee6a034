//! Stands in for the layer of an upgradable connection after a failed change between plaintext and TLS has destroyed
//! that layer.

use std::task::{Context, Poll};

use crate::conn::control::Control;
use crate::core::half::{RecvHalf, SendHalf};
use crate::core::report::LayerReport;
use crate::error::Reason;
use crate::transport::layer::{Discard, Layer};

/// Contains only the connection's [`Control`].
pub(crate) struct Destroyed(pub(crate) Control);

impl Layer for Destroyed {
    fn control(&self) -> &Control {
        &self.0
    }

    fn halves(&self) -> (SendHalf, RecvHalf) {
        (SendHalf::Aborted, RecvHalf::Aborted)
    }

    fn handle_abort(&mut self) {}

    fn begin_close(&mut self) {}

    fn is_pointless(&self) -> bool {
        true
    }

    fn poll_discard(&mut self, _: &mut Context<'_>, _: &mut Discard) -> Poll<()> {
        Poll::Ready(())
    }

    fn release(&mut self, _: &Reason) {}

    fn take_unread(&mut self) -> Vec<u8> {
        Vec::new()
    }

    fn read_available(&mut self, _: &mut Context<'_>) {}

    fn push_unread(&mut self, _: &[u8]) {}

    fn report_layers(&self, _: &mut Vec<LayerReport>) {}

    fn may_write_in_wake(&self) -> bool {
        false
    }

    fn keeps_written(&self) -> bool {
        true
    }

    fn set_half_open(&mut self) {}

    fn set_beneath(&mut self, _: bool) {}
}
