//! What is measured. Each is written once, for every peer that is read and written by tokio's traits; bowline's callback
//! face has its own.

pub mod aead;
pub mod bulk;
pub mod callback;
pub mod connections;
pub mod memory;
pub mod pingpong;

use std::sync::Arc;

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
}

impl Run {
    /// So much of this amount, but at least `least`.
    pub fn amount(&self, full: usize, least: usize) -> usize {
        ((full as f64 * self.scale) as usize).max(least)
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
