//! What is measured. Each is written once, for every peer that is read and written by tokio's traits; bowline's callback
//! face has its own.

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

use crate::Result;
use crate::net;
use crate::peers::Stack;
use crate::setup::Setup;
use crate::spec::Regime;

/// What a run of a workload is told.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    pub setup: Setup,
    pub regime: Regime,
    /// How much of the full amount is done: 1 in a full run, less in a quick one.
    pub scale: f64,
    /// Without warm-up: system calls are counted from the first one on.
    pub cold: bool,
}

impl Run {
    /// So much of this amount, but at least `least`; where only system calls are counted, as little as was asked for.
    pub fn amount(&self, full: usize, least: usize) -> usize {
        ((full as f64 * self.scale) as usize).max(if self.cold { 1 } else { least })
    }

    /// How many of `count` writes come as many again before them.
    pub fn warm_up(&self, count: usize) -> usize {
        if self.cold { 1 } else { (count / 16).max(1) }
    }

    /// How long there are requests ahead of those that count.
    pub fn warm_time(&self) -> Duration {
        if self.cold { Duration::ZERO } else { Duration::from_millis(100) }
    }

    /// How long there are requests, or connections, that count.
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

/// Where two tasks meet at the begin of what is measured.
pub fn meeting(tasks: usize) -> Arc<Barrier> {
    Arc::new(Barrier::new(tasks))
}
