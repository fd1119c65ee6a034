//! The workloads. Each is written once, for every peer that is read and written with tokio's traits. bowline's callback
//! face has its own versions.

pub mod aead;
pub mod bulk;
pub mod callback;
pub mod connections;
pub mod copy;
#[cfg(feature = "hyper")]
pub mod http;
pub mod memory;
pub mod pingpong;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Barrier;

use crate::error::Result;
use crate::net;
use crate::peers::Stack;
use crate::setup::Setup;
use crate::spec::Regime;

/// The parameters of a run.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    pub setup: Setup,
    pub regime: Regime,
    /// The fraction of the full amount: 1 in a full run, less in a quick one.
    pub scale: f64,
    /// Without warm-up: system calls are counted from the first one on.
    pub cold: bool,
}

impl Run {
    /// This amount multiplied by the scale, but at least `least`. If only system calls are counted, there is no lower
    /// limit.
    pub fn amount(&self, full: usize, least: usize) -> usize {
        ((full as f64 * self.scale) as usize).max(if self.cold { 1 } else { least })
    }

    /// The number of writes for the warm-up before `count` writes.
    pub fn warm_up(&self, count: usize) -> usize {
        if self.cold { 1 } else { (count / 16).max(1) }
    }

    /// The duration of the warm-up.
    pub fn warm_time(&self) -> Duration {
        if self.cold { Duration::ZERO } else { Duration::from_millis(100) }
    }

    /// The duration of the measurement.
    pub fn time(&self) -> Duration {
        Duration::from_millis(400).mul_f64(self.scale)
    }
}

/// Both ends of one connection, checked.
pub async fn pair<S: Stack>(stack: &S, run: Run) -> Result<(S::Stream, S::Stream)> {
    let listener = net::listen(run.regime)?;
    let (client, server) = net::pair(&listener, run.regime).await?;
    let (client, server) = tokio::try_join!(stack.connect(client), stack.accept(server))?;
    run.setup.check(S::facts(&client), false)?;
    Ok((client, server))
}

/// A barrier at which the tasks wait for the start of the measurement.
pub fn meeting(tasks: usize) -> Arc<Barrier> {
    Arc::new(Barrier::new(tasks))
}
