//! The state of the service that every connection needs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bowline::{DrainGroup, Metrics, ServerTls};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::log::Log;
use crate::watch::Watch;

pub(crate) struct Web {
    pub(crate) tls: ServerTls,
    pub(crate) log: Log,
    /// All connections over TLS.
    pub(crate) group: DrainGroup,
    pub(crate) watch: Arc<Watch>,
    pub(crate) metrics: Arc<Metrics>,
    /// The text of the metrics.
    pub(crate) prometheus: PrometheusHandle,
    is_draining: AtomicBool,
}

impl Web {
    pub(crate) fn new(tls: ServerTls, log: Log) -> Self {
        // The recorder must be installed before `Metrics::new`, which describes the metrics to it.
        let prometheus = prometheus();
        let metrics = Metrics::new();
        metrics.watch(&tls);
        Self {
            tls,
            watch: Arc::new(Watch::new(log.clone())),
            metrics,
            prometheus,
            log,
            group: DrainGroup::new(),
            is_draining: AtomicBool::new(false),
        }
    }

    /// From now on, /health answers `draining`.
    pub(crate) fn begin_draining(&self) {
        self.is_draining.store(true, Ordering::Release);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Acquire)
    }
}

/// The recorder of the process.
fn prometheus() -> PrometheusHandle {
    const SECONDS: [f64; 11] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];
    let builder = PrometheusBuilder::new();
    let builder = builder.set_buckets_for_metric(Matcher::Full("bowline_handshake_seconds".into()), &SECONDS);
    let recorder = builder.expect("there are buckets").build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).expect("there is no other recorder");
    handle
}
