//! A relay of two connections: what the end of one leg means for the other one.
//!
//! Here is no socket and no byte: whoever moves the bytes asks, when something has ended on a leg, what the other leg owes
//! its peer ([`duty`]), and in the end how each leg goes ([`ending`]). An end is passed on in kind (rule: flow-6): it
//! must never look better to the far peer than it was. The whole table is printed to a committed snapshot.

use super::half::{End, RecvHalf, SendHalf};
use crate::error::{Phase, Reason};
use crate::policy::Truncation;

/// What is known of one leg of a relay.
#[derive(Debug, Clone)]
pub struct Leg {
    /// Its send half.
    pub send: SendHalf,
    /// Its receive half.
    pub recv: RecvHalf,
    /// The connection is known to be lost, although a half may not have met that yet (rule: flow-5).
    pub lost: bool,
    /// What a missing marker means on this leg (rule: end-3).
    pub truncation: Truncation,
}

/// What the end of one leg asks of the other one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Duty {
    /// Nothing has ended: bytes go on in both directions.
    GoOn,
    /// The peer of the one leg has said everything: the send half of the other one ends by its marker, behind all bytes.
    /// Bytes go on in the other direction.
    CloseWrite,
    /// The same, and then abort: the peer of the one leg had ended in order before its connection was lost, so that what it
    /// said is whole (rule: half-8); what the other peer says has nowhere to go.
    CloseWriteThenAbort,
    /// Abort: what the peer of the one leg said is not whole.
    Abort,
}

/// How a leg goes when a relay ends.
#[derive(Debug, Clone)]
pub enum LegEnd {
    /// By a close in order. For a TLS failure too: its alert has to reach the peer (rule: secure-4).
    Close,
    /// By an abort: the other leg asks for it.
    Abort,
    /// As if by an abort, but for a reason of its own. Its peer may still be reading, and must not take what it has for
    /// complete.
    Lost(Reason),
}

/// Why a leg cannot carry on, if it cannot.
pub fn failure(leg: &Leg) -> Option<Reason> {
    let Leg { send, recv, lost, truncation } = leg;
    match (send, recv) {
        (SendHalf::Aborted, _) | (_, RecvHalf::Aborted) => Some(Reason::Aborted),
        (_, RecvHalf::Broken(reason)) => Some(reason.clone()),
        (SendHalf::Open | SendHalf::Finishing | SendHalf::Finished, RecvHalf::Open) => lost.then_some(RESET),
        (SendHalf::Broken(reason), RecvHalf::Open) => Some(reason.clone()),
        (send, RecvHalf::Ending(end) | RecvHalf::Ended(end)) => match (send, whole(*end, *truncation)) {
            (_, Err(reason)) => Some(reason),
            (SendHalf::Broken(reason), Ok(())) => Some(reason.clone()),
            // Nothing was to come any more, in either direction.
            (SendHalf::Finished, Ok(())) => None,
            (SendHalf::Open | SendHalf::Finishing, Ok(())) => lost.then_some(RESET),
            (SendHalf::Aborted, Ok(())) => Some(Reason::Aborted),
        },
    }
}

/// What one leg asks of the other one.
pub fn duty(leg: &Leg) -> Duty {
    let is_whole = leg.recv.end().is_some_and(|end| whole(end, leg.truncation).is_ok());
    match (failure(leg), is_whole) {
        (None, false) => Duty::GoOn,
        (None, true) => Duty::CloseWrite,
        (Some(Reason::Aborted), _) => Duty::Abort,
        (Some(_), true) => Duty::CloseWriteThenAbort,
        (Some(_), false) => Duty::Abort,
    }
}

/// How a leg goes, by its own failure and by what the other leg asks of it.
pub fn ending(failure: Option<Reason>, asked: Duty) -> LegEnd {
    match (failure, asked) {
        // The alert leaves.
        (Some(Reason::Tls(_) | Reason::KeyExhausted), _) => LegEnd::Close,
        (Some(Reason::Aborted), _) | (None, Duty::Abort | Duty::CloseWriteThenAbort) => LegEnd::Abort,
        (Some(reason), _) => LegEnd::Lost(reason),
        (None, Duty::GoOn | Duty::CloseWrite) => LegEnd::Close,
    }
}

const RESET: Reason = Reason::Reset(Phase::Open);

/// Whether all that a peer had to say has come, as far as the policy cares.
fn whole(end: End, truncation: Truncation) -> Result<(), Reason> {
    match (end, truncation) {
        (End::Clean, _) | (End::Truncated, Truncation::Tolerate) => Ok(()),
        (End::Truncated, Truncation::Error) => Err(Reason::Truncated(Phase::Open)),
        // The leg was being closed by somebody: what came last was thrown away.
        (End::Unconfirmed, _) => Err(Reason::Unconfirmed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::TlsError;

    /// rule: flow-6, secure-4
    #[test]
    fn a_leg_that_failed_ends_for_its_own_reason_and_the_other_one_by_what_is_asked() {
        let tls = TlsError { phase: Phase::Open, error: rustls::Error::DecryptError, alert_sent: None, not_tls: None };
        for asked in [Duty::GoOn, Duty::CloseWrite, Duty::CloseWriteThenAbort, Duty::Abort] {
            assert!(matches!(ending(Some(tls.clone().into()), asked), LegEnd::Close));
            assert!(matches!(ending(Some(RESET), asked), LegEnd::Lost(Reason::Reset(_))));
            assert!(matches!(ending(Some(Reason::Aborted), asked), LegEnd::Abort));
            let is_asked_for = matches!(asked, Duty::Abort | Duty::CloseWriteThenAbort);
            assert_eq!(matches!(ending(None, asked), LegEnd::Abort), is_asked_for);
            assert_eq!(matches!(ending(None, asked), LegEnd::Close), !is_asked_for);
        }
    }
}
