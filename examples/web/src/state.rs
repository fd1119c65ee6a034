//! The state of the service that every connection needs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bowline::{DrainGroup, ServerTls};

use crate::log::Log;
use crate::watch::Watch;

pub(crate) struct Web {
    pub(crate) tls: ServerTls,
    pub(crate) log: Log,
    /// All connections over TLS.
    pub(crate) group: DrainGroup,
    pub(crate) watch: Arc<Watch>,
    is_draining: AtomicBool,
}

impl Web {
    pub(crate) fn new(tls: ServerTls, log: Log) -> Self {
        Self {
            tls,
            watch: Arc::new(Watch::new(log.clone())),
            log,
            group: DrainGroup::new(),
            is_draining: AtomicBool::new(false),
        }
    }

    /// From now on, /health says so.
    pub(crate) fn begin_draining(&self) {
        self.is_draining.store(true, Ordering::Release);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Acquire)
    }
}
