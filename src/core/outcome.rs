//! Counts how connections ended.

use std::fmt;

use crate::error::Reason;

/// How a connection ended, without the details. A [`DrainReport`](crate::DrainReport) counts the ends in this form.
/// [`Outcome::of`] returns the outcome for a reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum Outcome {
    /// [`Reason::Closed`]
    Closed = 1,
    /// [`Reason::Unconfirmed`]
    Unconfirmed,
    /// [`Reason::Truncated`]
    Truncated,
    /// [`Reason::Reset`]
    Reset,
    /// [`Reason::Aborted`]
    Aborted,
    /// [`Reason::TimedOut`]
    TimedOut,
    /// [`Reason::Tls`], [`Reason::KeyExhausted`]
    Tls,
    /// [`Reason::Protocol`]
    Protocol,
    /// [`Reason::Io`]
    Io,
    /// [`Reason::Dropped`]
    Dropped,
}

impl Outcome {
    /// All outcomes.
    pub(crate) const ALL: [Self; 10] = [
        Self::Closed,
        Self::Unconfirmed,
        Self::Truncated,
        Self::Reset,
        Self::Aborted,
        Self::TimedOut,
        Self::Tls,
        Self::Protocol,
        Self::Io,
        Self::Dropped,
    ];

    /// The outcome of a reason.
    pub fn of(reason: &Reason) -> Self {
        match reason {
            Reason::Closed => Self::Closed,
            Reason::Unconfirmed => Self::Unconfirmed,
            Reason::Truncated(_) => Self::Truncated,
            Reason::Reset(_) => Self::Reset,
            Reason::Aborted => Self::Aborted,
            Reason::TimedOut(_) => Self::TimedOut,
            Reason::Tls(_) | Reason::KeyExhausted => Self::Tls,
            Reason::Protocol(_) => Self::Protocol,
            Reason::Dropped => Self::Dropped,
            Reason::Io(_) => Self::Io,
        }
    }

    /// The outcome with this number (its value `as u8`). 0 means none.
    #[allow(dead_code)] // Groups of connections use it.
    pub(crate) fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| *outcome as u8 == code)
    }

    /// The same word as [`Reason::name`].
    pub fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Unconfirmed => "unconfirmed",
            Self::Truncated => "truncated",
            Self::Reset => "reset",
            Self::Aborted => "aborted",
            Self::TimedOut => "timed_out",
            Self::Tls => "tls",
            Self::Protocol => "protocol",
            Self::Io => "io",
            Self::Dropped => "dropped",
        }
    }
}

/// Counts connections by their outcome.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OutcomeCounts([usize; Outcome::ALL.len()]);

impl OutcomeCounts {
    /// Counts one more connection with this outcome.
    pub fn add(&mut self, outcome: Outcome) {
        *self.of(outcome) += 1;
    }

    /// Corrects the outcome of a connection that was counted before its outcome was certain.
    pub fn correct(&mut self, from: Outcome, to: Outcome) {
        let wrong = self.of(from);
        *wrong = wrong.saturating_sub(1);
        self.add(to);
    }

    /// The number of connections with this outcome.
    pub fn count(&self, outcome: Outcome) -> usize {
        self.0[outcome as usize - 1]
    }

    /// The total number of connections.
    pub fn total(&self) -> usize {
        self.0.iter().sum()
    }

    fn of(&mut self, outcome: Outcome) -> &mut usize {
        &mut self.0[outcome as usize - 1]
    }
}

/// `5 closed, 1 reset`; empty outcomes are left out.
impl fmt::Display for OutcomeCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ended = Outcome::ALL.into_iter().map(|outcome| (outcome, self.count(outcome)));
        for (n, (outcome, count)) in ended.filter(|(_, count)| *count > 0).enumerate() {
            write!(f, "{}{count} {}", if n == 0 { "" } else { ", " }, outcome.name())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use super::*;
    use crate::error::{Phase, TlsError, UpgradeError};

    /// rule: drain-3
    #[test]
    fn every_reason_is_counted_by_its_name() {
        let reasons = [
            Reason::Closed,
            Reason::Unconfirmed,
            Reason::Truncated(Phase::Open),
            Reason::Reset(Phase::Open),
            Reason::Aborted,
            Reason::TimedOut(Phase::Idle),
            TlsError { phase: Phase::Open, error: rustls::Error::DecryptError, alert_sent: None, not_tls: None }.into(),
            Reason::Protocol(Arc::new(UpgradeError::InProgress)),
            Reason::Io(Arc::new(io::Error::other("disk on fire"))),
            Reason::Dropped,
        ];
        let mut counts = OutcomeCounts::default();
        for reason in &reasons {
            let outcome = Outcome::of(reason);
            assert_eq!(outcome.name(), reason.name());
            assert_eq!(Outcome::from_code(outcome as u8), Some(outcome));
            counts.add(outcome);
            assert_eq!(counts.count(outcome), 1, "{reason:?}");
        }
        assert_eq!(counts.total(), reasons.len());
        assert_eq!(Outcome::from_code(0), None);
    }

    #[test]
    fn an_outcome_that_was_counted_too_early_is_corrected() {
        let mut counts = OutcomeCounts::default();
        counts.add(Outcome::Dropped);
        counts.add(Outcome::Closed);
        counts.correct(Outcome::Dropped, Outcome::Closed);
        assert_eq!((counts.count(Outcome::Closed), counts.total()), (2, 2));
        assert_eq!(counts.to_string(), "2 closed");
    }
}
