//! How the connections of a group ended during a drain.

use std::fmt;

use super::outcome::{Outcome, OutcomeCounts};

/// How many connections ended with which outcome, from the start of a drain to its end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DrainReport {
    pub(crate) ended: OutcomeCounts,
    /// The number of connections that the drain aborted at the deadline. They are counted as `aborted` too.
    pub cut_off: usize,
    /// The number of connections that the drain has aborted before their handshake was done. They are not counted
    /// anywhere else in this report, because no application has used them.
    pub handshakes: usize,
}

impl DrainReport {
    /// The total number of connections, without the [handshakes](Self::handshakes) that were aborted.
    pub fn total(&self) -> usize {
        self.ended.total()
    }

    /// The number of connections with this outcome. [`Outcome::Dropped`] counts connections that the application
    /// dropped without `close` or `abort`, and that had not ended by themselves.
    pub fn count(&self, outcome: Outcome) -> usize {
        self.ended.count(outcome)
    }

    /// Every outcome with its number of connections, including zeros.
    pub fn iter(&self) -> impl Iterator<Item = (Outcome, usize)> {
        Outcome::ALL.into_iter().map(|outcome| (outcome, self.ended.count(outcome)))
    }

    /// Whether every connection ended cleanly on both sides.
    pub fn is_clean(&self) -> bool {
        self.ended.count(Outcome::Closed) == self.total()
    }
}

/// `7 connections ended: 5 closed, 2 aborted (1 of them at the deadline); 3 handshakes were not finished`
impl fmt::Display for DrainReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.total() {
            0 => f.write_str("no connection was open")?,
            1 => write!(f, "1 connection ended: {}", self.ended)?,
            total => write!(f, "{total} connections ended: {}", self.ended)?,
        }
        if self.cut_off > 0 {
            write!(f, " ({} of them at the deadline)", self.cut_off)?;
        }
        match self.handshakes {
            0 => Ok(()),
            1 => f.write_str("; 1 handshake was not finished"),
            handshakes => write!(f, "; {handshakes} handshakes were not finished"),
        }
    }
}
