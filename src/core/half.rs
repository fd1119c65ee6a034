//! The two halves of a layer.
//!
//! Both machines are complete: every event has an answer in every state, and there is no wildcard arm. A refused event
//! changes nothing. The whole matrix is printed to a committed snapshot (`tests/snapshots/`), from which the tables in
//! docs/architecture.md are made.

use std::io;

use crate::error::{Error, Phase, Reason};
use crate::policy::Truncation;

/// An event came that the state does not allow. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused;

/// How a receive half ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum End {
    /// By the layer's own marker.
    Clean,
    /// The layer below ended first: what was received may be a part only.
    Truncated,
    /// The layer below ended first, while all that was awaited was the peer's answer to our close (rule: close-7).
    Unconfirmed,
}

/// The half that sends.
#[derive(Debug, Clone, Default)]
pub enum SendHalf {
    /// Writes are accepted.
    #[default]
    Open,
    /// No more writes; what was accepted is on its way, the marker behind it.
    Finishing,
    /// The marker has left.
    Finished,
    /// Ended by our abort.
    Aborted,
    /// Ended by a failure.
    Broken(Reason),
}

/// What happens to a send half.
#[derive(Debug, Clone)]
pub enum SendEvent {
    /// The application ends it: `close_write`.
    CloseWrite,
    /// Everything accepted, and the marker, has been handed to the layer below.
    Drained,
    /// The application aborts.
    Abort,
    /// The layer below failed, or this one did.
    LayerLost(Reason),
}

impl SendHalf {
    /// Moves on by one event.
    pub fn handle(&mut self, event: SendEvent) -> Result<(), Refused> {
        use SendEvent::{Abort, CloseWrite, Drained, LayerLost};
        *self = match (&*self, event) {
            (Self::Open, CloseWrite) => Self::Finishing,
            (Self::Open, Drained) => return Err(Refused),
            (Self::Open, Abort) => Self::Aborted,
            (Self::Open, LayerLost(reason)) => Self::Broken(reason),

            // rule: half-3, close-6: twice is once.
            (Self::Finishing, CloseWrite) => return Ok(()),
            (Self::Finishing, Drained) => Self::Finished,
            (Self::Finishing, Abort) => Self::Aborted,
            (Self::Finishing, LayerLost(reason)) => Self::Broken(reason),

            (Self::Finished, CloseWrite) => return Ok(()),
            (Self::Finished, Drained) => return Err(Refused),
            (Self::Finished, Abort) => Self::Aborted,
            (Self::Finished, LayerLost(_)) => return Ok(()),

            (Self::Aborted, CloseWrite | Drained) => return Err(Refused),
            (Self::Aborted, Abort | LayerLost(_)) => return Ok(()),

            (Self::Broken(_), CloseWrite | Drained) => return Err(Refused),
            (Self::Broken(_), Abort) => Self::Aborted,
            // rule: end-5: the first failure is the reason.
            (Self::Broken(_), LayerLost(_)) => return Ok(()),
        };
        Ok(())
    }

    /// Whether the application may write.
    pub fn may_write(&self) -> bool {
        matches!(self, Self::Open)
    }

    /// Whether the marker is due or on its way.
    pub fn is_finishing(&self) -> bool {
        matches!(self, Self::Finishing)
    }

    /// Whether the marker has left.
    pub fn is_finished(&self) -> bool {
        matches!(self, Self::Finished)
    }

    /// What a write says that came after the end (rules: write-4, write-5).
    pub fn refusal(&self) -> Error {
        match self {
            Self::Open | Self::Finishing | Self::Finished => Error::SendClosed,
            Self::Aborted => Error::Ended(Reason::Aborted),
            Self::Broken(reason) => Error::Ended(reason.clone()),
        }
    }

    /// Whether nothing more will leave.
    pub fn is_over(&self) -> bool {
        match self {
            Self::Open | Self::Finishing => false,
            Self::Finished | Self::Aborted | Self::Broken(_) => true,
        }
    }
}

/// The half that receives.
#[derive(Debug, Clone, Default)]
pub enum RecvHalf {
    /// The peer may send.
    #[default]
    Open,
    /// The end is known; data ahead of it waits to be read.
    Ending(End),
    /// The end is known, and everything ahead of it was read.
    Ended(End),
    /// Ended by our abort.
    Aborted,
    /// Ended by a failure.
    Broken(Reason),
}

/// What happens to a receive half.
#[derive(Debug, Clone)]
pub enum RecvEvent {
    /// The peer's marker came.
    Marker,
    /// The layer below ended; the [`End`] says whether somebody still waits for data. It is never `Clean`.
    LayerEof(End),
    /// The application has read everything.
    Consumed,
    /// The application aborts.
    Abort,
    /// The layer below failed, or this one did.
    LayerLost(Reason),
}

impl RecvHalf {
    /// Moves on by one event.
    pub fn handle(&mut self, event: RecvEvent) -> Result<(), Refused> {
        use RecvEvent::{Abort, Consumed, LayerEof, LayerLost, Marker};
        *self = match (&*self, event) {
            (Self::Open, Marker) => Self::Ending(End::Clean),
            (Self::Open, LayerEof(end)) => Self::Ending(end),
            (Self::Open, Consumed) => return Err(Refused),
            (Self::Open, Abort) => Self::Aborted,
            (Self::Open, LayerLost(reason)) => Self::Broken(reason),

            (Self::Ending(_), Marker) => return Err(Refused),
            (Self::Ending(end), Consumed) => Self::Ended(*end),
            (Self::Ending(_), Abort) => Self::Aborted,
            // rule: half-8: an end that is known is never unlearned.
            (Self::Ending(_), LayerEof(_) | LayerLost(_)) => return Ok(()),

            (Self::Ended(_), Marker | Consumed) => return Err(Refused),
            (Self::Ended(_), Abort) => Self::Aborted,
            (Self::Ended(_), LayerEof(_) | LayerLost(_)) => return Ok(()),

            (Self::Aborted, Marker | Consumed) => return Err(Refused),
            (Self::Aborted, LayerEof(_) | Abort | LayerLost(_)) => return Ok(()),

            (Self::Broken(_), Marker | Consumed) => return Err(Refused),
            (Self::Broken(_), Abort) => Self::Aborted,
            (Self::Broken(_), LayerEof(_) | LayerLost(_)) => return Ok(()),
        };
        Ok(())
    }

    /// Whether the peer may still send.
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Open)
    }

    /// What every read says from the end on: end of file, or why there is none (rules: end-2, end-3, end-4).
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

    /// How it ended, where it ended without a failure.
    pub fn end(&self) -> Option<End> {
        match self {
            Self::Ending(end) | Self::Ended(end) => Some(*end),
            Self::Open | Self::Aborted | Self::Broken(_) => None,
        }
    }
}

/// The one reason of a layer both of whose halves are known, or `None` while one of them lives (rule: end-1).
pub fn reason(send: &SendHalf, recv: &RecvHalf) -> Option<Reason> {
    match (send, recv) {
        (SendHalf::Aborted, _) | (_, RecvHalf::Aborted) => Some(Reason::Aborted),
        (_, RecvHalf::Broken(reason)) => Some(reason.clone()),
        // rule: end-5: a peer that has truncated answers our last bytes with RST. Where the RST came first, the receiving
        // half is broken by it, not truncated.
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
    fn what_was_truncated_stays_truncated_when_our_last_bytes_are_answered_by_a_reset() {
        let broken = SendHalf::Broken(Reason::Reset(Phase::Open));
        let truncated = reason(&broken, &RecvHalf::Ended(End::Truncated));
        assert!(matches!(truncated, Some(Reason::Truncated(_))), "{truncated:?}");
        let reset = reason(&broken, &RecvHalf::Open);
        assert!(matches!(reset, Some(Reason::Reset(_))), "{reset:?}");
    }
}
