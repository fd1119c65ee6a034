//! The flags of a connection, in one byte.

use std::sync::atomic::Ordering;

use super::Control;
use crate::policy::Role;

/// We opened the connection; otherwise we accepted it, or took it over.
const CONNECTED: u8 = 1;
/// The bottom layer is TCP.
const TCP: u8 = 2;
/// There is a TLS session on top of the bottom layer.
pub(super) const BENEATH: u8 = 4;
/// Our send half of the bottom layer has ended in order.
const WRITE_ENDED: u8 = 8;

impl Control {
    /// Our role in the connection beneath TLS: client if we opened it, server if we accepted it or took it over.
    pub fn role(&self) -> Role {
        if self.is(CONNECTED) { Role::Client } else { Role::Server }
    }

    /// Whether the bottom layer is TCP. Its socket may be closed already.
    pub(crate) fn is_tcp(&self) -> bool {
        self.is(TCP)
    }

    pub(crate) fn set_tcp(&self) {
        self.0.traits.fetch_or(TCP, Ordering::Relaxed);
    }

    pub(crate) fn set_connected(&self) {
        self.0.traits.fetch_or(CONNECTED, Ordering::Relaxed);
    }

    /// Called when our send half of the bottom layer has ended in order.
    pub(crate) fn note_write_ended(&self) {
        self.0.traits.fetch_or(WRITE_ENDED, Ordering::Relaxed);
    }

    #[cfg(feature = "tracing")]
    pub(crate) fn has_ended_write(&self) -> bool {
        self.is(WRITE_ENDED)
    }

    pub(super) fn is(&self, which: u8) -> bool {
        self.0.traits.load(Ordering::Relaxed) & which != 0
    }
}
