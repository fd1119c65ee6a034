//! The pace of the process: how often a task gets a turn.
//!
//! A time limit that is reached proves that a connection hangs only if its tasks had turns in that time. On a machine
//! with too much to do, tasks wait for seconds between two turns, and the limits of a correct connection are reached.
//! So a task of its own asks for a turn each millisecond, and counts the turns that it gets. The runtime serves tasks
//! in the order in which they become ready, so a connection gets about as many.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::conversation::LIMIT;

/// A connection that has not ended after this many turns hangs. An idle machine gives almost twenty times as many
/// within the [`LIMIT`]. A connection without a fault needs far fewer.
const ENOUGH: u64 = 1_000;

pub(crate) struct Pace {
    begun: Instant,
    /// The turns in each second since the beginning.
    turns: Mutex<Vec<u64>>,
}

impl Pace {
    pub(crate) fn new() -> Self {
        Self { begun: Instant::now(), turns: Mutex::default() }
    }

    /// Counts turns. Never ends.
    pub(crate) async fn count(&self) {
        loop {
            sleep(Duration::from_millis(1)).await;
            let second = self.begun.elapsed().as_secs() as usize;
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            if turns.len() <= second {
                turns.resize(second + 1, 0);
            }
            turns[second] += 1;
        }
    }

    /// Whether the tasks had so few turns within the last [`LIMIT`] that a connection could not end in that time.
    pub(crate) fn is_too_slow(&self) -> bool {
        let turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        // The first and the last second are not complete, so one is added.
        let first = (self.begun.elapsed().as_secs() as usize + 1).saturating_sub(LIMIT.as_secs() as usize + 1);
        turns.iter().skip(first).sum::<u64>() < ENOUGH
    }

    /// The fewest turns in a second. The first second and the last one are left out.
    pub(crate) fn slowest(&self) -> u64 {
        let turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.iter().take(turns.len().saturating_sub(1)).skip(1).copied().min().unwrap_or(0)
    }
}
