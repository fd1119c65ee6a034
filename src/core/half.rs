//! The two halves of a layer.
//!
//! Both state machines are complete: every event is a method that is defined in every state, and no `match` has a
//! wildcard arm. A test prints the whole matrix to a committed snapshot (`tests/snapshots/`). The tables in
//! docs/architecture.md are generated from it.

use std::io;

use crate::error::{Error, Phase, Reason};
use crate::policy::Truncation;

/// The state does not allow this event. Nothing has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused;

/// How a receive half ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum End {
    /// The half ended by the layer's own marker.
    Clean,
    /// The layer below ended first: the received data may be incomplete.
    Truncated,
    /// The layer below ended first. We had closed already, and only the peer's answer to that was missing (rule:
    /// close-7).
    Unconfirmed,
}

/// The state of a send half.
#[derive(Debug, Clone, Default)]
pub enum SendHalf {
    /// Writes are accepted.
    #[default]
    Open,
    /// No more writes are accepted. The accepted bytes are being sent, and the marker follows them.
    Finishing,
    /// The marker was sent.
    Finished,
    /// Ended by our abort.
    Aborted,
    /// Ended by a failure.
    Broken(Reason),
}

/// The events of a send half. A method that returns a `Result` may refuse the event, and then changes nothing. The
/// other events are never refused. They are hidden, because users only read the state.
#[doc(hidden)]
impl SendHalf {
    /// The application ends the half. A second call changes nothing (rules: half-3, close-6).
    ///
    /// # Errors
    /// The half was aborted or has failed.
    pub fn close_write(&mut self) -> Result<(), Refused> {
        *self = match self {
            Self::Open => Self::Finishing,
            Self::Finishing | Self::Finished => return Ok(()),
            Self::Aborted | Self::Broken(_) => return Err(Refused),
        };
        Ok(())
    }

    /// All accepted bytes and the marker have been passed to the layer below.
    ///
    /// # Errors
    /// No marker was due.
    pub fn drained(&mut self) -> Result<(), Refused> {
        *self = match self {
            Self::Finishing => Self::Finished,
            Self::Open | Self::Finished | Self::Aborted | Self::Broken(_) => return Err(Refused),
        };
        Ok(())
    }

    /// Changes the state for an abort by the application.
    pub fn abort(&mut self) {
        *self = Self::Aborted;
    }

    /// This layer or the one below has failed. The first failure is kept as the reason (rule: end-5).
    pub fn lose(&mut self, reason: Reason) {
        match self {
            Self::Open | Self::Finishing => *self = Self::Broken(reason),
            Self::Finished | Self::Aborted | Self::Broken(_) => {}
        }
    }
}

impl SendHalf {
    /// Whether the application may write.
    pub fn may_write(&self) -> bool {
        matches!(self, Self::Open)
    }

    /// Whether the marker still has to be sent.
    pub fn is_finishing(&self) -> bool {
        matches!(self, Self::Finishing)
    }

    /// Whether the marker was sent.
    pub fn is_finished(&self) -> bool {
        matches!(self, Self::Finished)
    }

    /// The error of a write after the end (rules: write-4, write-5).
    pub fn refusal(&self) -> Error {
        match self {
            Self::Open | Self::Finishing | Self::Finished => Error::SendClosed,
            Self::Aborted => Error::Ended(Reason::Aborted),
            Self::Broken(reason) => Error::Ended(reason.clone()),
        }
    }

    /// Whether nothing more will be sent.
    pub fn is_over(&self) -> bool {
        match self {
            Self::Open | Self::Finishing => false,
            Self::Finished | Self::Aborted | Self::Broken(_) => true,
        }
    }
}

/// The state of a receive half.
#[derive(Debug, Clone, Default)]
pub enum RecvHalf {
    /// The peer may send.
    #[default]
    Open,
    /// The end is known, but data before it has not been read yet.
    Ending(End),
    /// The end is known, and everything before it was read.
    Ended(End),
    /// Ended by our abort.
    Aborted,
    /// Ended by a failure.
    Broken(Reason),
}

/// The events of a receive half. A method that returns a `Result` may refuse the event, and then changes nothing. The
/// other events are never refused. They are hidden, because users only read the state.
#[doc(hidden)]
impl RecvHalf {
    /// The peer's marker has arrived.
    ///
    /// # Errors
    /// The half has ended before.
    pub fn marker(&mut self) -> Result<(), Refused> {
        *self = match self {
            Self::Open => Self::Ending(End::Clean),
            Self::Ending(_) | Self::Ended(_) | Self::Aborted | Self::Broken(_) => return Err(Refused),
        };
        Ok(())
    }

    /// The layer below has ended without the marker. `end` is `Unconfirmed` if only the answer to our close was
    /// missing, otherwise `Truncated`; it is never `Clean`. An end that is already known does not change (rule:
    /// half-8).
    pub fn layer_ended(&mut self, end: End) {
        match self {
            Self::Open => *self = Self::Ending(end),
            Self::Ending(_) | Self::Ended(_) | Self::Aborted | Self::Broken(_) => {}
        }
    }

    /// The application has read everything that has been received so far.
    pub fn consumed(&mut self) {
        match self {
            Self::Ending(end) => *self = Self::Ended(*end),
            Self::Open | Self::Ended(_) | Self::Aborted | Self::Broken(_) => {}
        }
    }

    /// Changes the state for an abort by the application.
    pub fn abort(&mut self) {
        *self = Self::Aborted;
    }

    /// This layer or the one below has failed. An end that is already known does not change (rule: half-8).
    pub fn lose(&mut self, reason: Reason) {
        match self {
            Self::Open => *self = Self::Broken(reason),
            Self::Ending(_) | Self::Ended(_) | Self::Aborted | Self::Broken(_) => {}
        }
    }
}

impl RecvHalf {
    /// Whether the peer may still send.
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Open)
    }

    /// The result of every read after the last data: end of file, or the failure (rules: end-2, end-3, end-4).
    ///
    /// # Errors
    /// The reason of the end, if it was not in order; `NotConnected` if the half is open.
    pub fn outcome(&self, truncation: Truncation) -> io::Result<()> {
        match (self, truncation) {
            (Self::Ending(End::Truncated) | Self::Ended(End::Truncated), Truncation::Error) => {
                Err(Reason::Truncated(Phase::Open).into())
            }
            (Self::Ending(_) | Self::Ended(_), _) => Ok(()),
            (Self::Open, _) => Err(io::ErrorKind::NotConnected.into()),
            (Self::Aborted, _) => Err(Reason::Aborted.into()),
            (Self::Broken(reason), _) => Err(reason.clone().into()),
        }
    }

    /// How the half ended, if it ended without a failure.
    pub fn end(&self) -> Option<End> {
        match self {
            Self::Ending(end) | Self::Ended(end) => Some(*end),
            Self::Open | Self::Aborted | Self::Broken(_) => None,
        }
    }
}

/// The reason of a layer after both of its halves have ended; `None` while one is open (rule: end-1).
pub fn reason(send: &SendHalf, recv: &RecvHalf) -> Option<Reason> {
    match (send, recv) {
        (SendHalf::Aborted, _) | (_, RecvHalf::Aborted) => Some(Reason::Aborted),
        (_, RecvHalf::Broken(reason)) => Some(reason.clone()),
        // rule: end-5: a peer that has truncated its stream may answer our last bytes with RST. The truncation is the
        // reason then. If the RST had come first, it would have broken the receive half.
        (SendHalf::Broken(_), RecvHalf::Ending(End::Truncated) | RecvHalf::Ended(End::Truncated)) => {
            Some(Reason::Truncated(Phase::Open))
        }
        (SendHalf::Broken(reason), _) => Some(reason.clone()),
        (SendHalf::Open | SendHalf::Finishing, _) | (_, RecvHalf::Open) => None,
        (SendHalf::Finished, RecvHalf::Ending(end) | RecvHalf::Ended(end)) => Some(match end {
            End::Clean => Reason::Closed,
            End::Truncated => Reason::Truncated(Phase::Open),
            End::Unconfirmed => Reason::Unconfirmed,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Phase;

    /// rule: end-5
    #[test]
    fn a_truncation_stays_the_reason_when_our_last_bytes_cause_a_reset() {
        let broken = SendHalf::Broken(Reason::Reset(Phase::Open));
        let truncated = reason(&broken, &RecvHalf::Ended(End::Truncated));
        assert!(matches!(truncated, Some(Reason::Truncated(_))), "{truncated:?}");
        let reset = reason(&broken, &RecvHalf::Open);
        assert!(matches!(reset, Some(Reason::Reset(_))), "{reset:?}");
    }
}
