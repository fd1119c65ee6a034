//! The state of the service that every connection needs.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bowline::{DrainGroup, ServerTls};

use crate::log::Log;

pub(crate) struct Web {
    pub(crate) tls: ServerTls,
    pub(crate) log: Log,
    /// All connections over TLS.
    pub(crate) group: DrainGroup,
    pub(crate) handshakes: Handshakes,
    made: AtomicU64,
    is_draining: AtomicBool,
}

/// Handshakes by outcome.
#[derive(Default)]
pub(crate) struct Handshakes {
    pub(crate) done: AtomicU64,
    pub(crate) failed: AtomicU64,
}

impl Web {
    pub(crate) fn new(tls: ServerTls, log: Log) -> Self {
        Self {
            tls,
            log,
            group: DrainGroup::new(),
            handshakes: Handshakes::default(),
            made: AtomicU64::new(0),
            is_draining: AtomicBool::new(false),
        }
    }

    /// The number of a new connection.
    pub(crate) fn next_number(&self) -> u64 {
        self.made.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// From now on, /health says so.
    pub(crate) fn begin_draining(&self) {
        self.is_draining.store(true, Ordering::Release);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Acquire)
    }
}
