//! A relay of two connections, which are called its legs: how the end of one leg affects the other.
//!
//! This module has no sockets and no bytes. When a leg has ended, the code that moves the bytes calls [`duty`] to
//! learn what the other leg has to do, and then [`ending`] to learn how each leg ends. A relay passes on the kind of
//! an end (rule: flow-6): to the peer of the other leg, an end must never look more orderly than it was. A test
//! prints the whole table to a committed snapshot.

use super::half::{End, RecvHalf, SendHalf};
use crate::error::{Phase, Reason};
use crate::policy::Truncation;

/// The state of one leg of a relay.
#[derive(Debug, Clone)]
pub struct Leg {
    /// The state of its send half.
    pub send: SendHalf,
    /// The state of its receive half.
    pub recv: RecvHalf,
    /// Whether the connection is known to be lost. A half may not have noticed the loss yet (rule: flow-5).
    pub lost: bool,
    /// How a missing marker on this leg is treated (rule: end-3).
    pub truncation: Truncation,
}

/// The action that one leg requires of the other one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Duty {
    /// None: the leg has not ended, and bytes flow in both directions.
    GoOn,
    /// End the send half with its marker, after all bytes, because the peer of the first leg has sent everything.
    /// Bytes still flow in the other direction.
    CloseWrite,
    /// As `CloseWrite`, and then abort. The peer of the first leg had ended in order before its connection was lost,
    /// so its data is complete (rule: half-8). But the data from the other peer can no longer be delivered.
    CloseWriteThenAbort,
    /// Abort, because the data from the peer of the first leg is incomplete.
    Abort,
}

/// How a leg ends when a relay ends.
#[derive(Debug, Clone)]
pub enum LegEnd {
    /// With an orderly close. This is also used after a TLS failure, so that its alert reaches the peer (rule:
    /// secure-4).
    Close,
    /// With an abort that the other leg requires.
    Abort,
    /// The leg itself failed. It is aborted for that reason, because its peer may still be reading, and must not
    /// mistake the received data for complete data.
    Lost(Reason),
}

/// The failure of a leg, if it has one.
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
            // Both directions are complete, so a lost connection is not a failure any more.
            (SendHalf::Finished, Ok(())) => None,
            (SendHalf::Open | SendHalf::Finishing, Ok(())) => lost.then_some(RESET),
            (SendHalf::Aborted, Ok(())) => Some(Reason::Aborted),
        },
    }
}

/// How the other leg of a relay has to end because of the state of this leg.
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

/// How a leg ends, given its own failure and the action that the other leg requires.
pub fn ending(failure: Option<Reason>, asked: Duty) -> LegEnd {
    match (failure, asked) {
        // The leg closes in order, so that its alert is sent.
        (Some(Reason::Tls(_) | Reason::KeyExhausted), _) => LegEnd::Close,
        (Some(Reason::Aborted), _) | (None, Duty::Abort | Duty::CloseWriteThenAbort) => LegEnd::Abort,
        (Some(reason), _) => LegEnd::Lost(reason),
        (None, Duty::GoOn | Duty::CloseWrite) => LegEnd::Close,
    }
}

const RESET: Reason = Reason::Reset(Phase::Open);

/// Checks whether all data of a peer has arrived, as far as the policy requires it.
fn whole(end: End, truncation: Truncation) -> Result<(), Reason> {
    match (end, truncation) {
        (End::Clean, _) | (End::Truncated, Truncation::Tolerate) => Ok(()),
        (End::Truncated, Truncation::Error) => Err(Reason::Truncated(Phase::Open)),
        // The application was closing this leg, so the peer's last bytes were discarded.
        (End::Unconfirmed, _) => Err(Reason::Unconfirmed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::TlsError;

    /// rule: flow-6, secure-4
    #[test]
    fn a_failed_leg_ends_for_its_own_reason_and_the_other_one_as_required() {
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
