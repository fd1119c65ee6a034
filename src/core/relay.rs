//! A relay of two connections: how the end of one leg affects the other.
//!
//! This module has no sockets and no bytes. When a leg has ended, the code that moves the bytes asks what the other leg
//! owes its peer ([`duty`]), and after that how each leg ends ([`ending`]). The relay passes on the kind of an end
//! (rule: flow-6): an end must never look more orderly to the far peer than it was. A test prints the whole table to a
//! committed snapshot.

use super::half::{End, RecvHalf, SendHalf};
use crate::error::{Phase, Reason};
use crate::policy::Truncation;

/// The state of one leg of a relay.
#[derive(Debug, Clone)]
pub struct Leg {
    /// Its send half.
    pub send: SendHalf,
    /// Its receive half.
    pub recv: RecvHalf,
    /// The connection is known to be lost, although a half may not have seen the loss yet (rule: flow-5).
    pub lost: bool,
    /// The meaning of a missing marker on this leg (rule: end-3).
    pub truncation: Truncation,
}

/// What the other leg has to do after one leg has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Duty {
    /// No leg has ended: bytes flow in both directions.
    GoOn,
    /// The peer of one leg has sent everything: the send half of the other leg ends by its marker after all bytes. Bytes
    /// still flow in the other direction.
    CloseWrite,
    /// The same, followed by an abort. The peer of one leg had ended in order before its connection was lost, so its data
    /// is complete (rule: half-8). The data of the other peer has no destination any more.
    CloseWriteThenAbort,
    /// Abort: the data from the peer of one leg is incomplete.
    Abort,
}

/// How a leg goes when a relay ends.
#[derive(Debug, Clone)]
pub enum LegEnd {
    /// By an orderly close. Also after a TLS failure: its alert has to reach the peer (rule: secure-4).
    Close,
    /// By an abort that the other leg requires.
    Abort,
    /// The leg itself failed. It is aborted for that reason: its peer may still be reading, and must not take the received
    /// data for complete.
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
            // No more bytes were expected in either direction.
            (SendHalf::Finished, Ok(())) => None,
            (SendHalf::Open | SendHalf::Finishing, Ok(())) => lost.then_some(RESET),
            (SendHalf::Aborted, Ok(())) => Some(Reason::Aborted),
        },
    }
}

/// What one leg requires of the other.
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

/// How a leg ends, by its own failure and by what the other leg requires.
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

/// Whether all data of a peer has come, as far as the policy requires.
fn whole(end: End, truncation: Truncation) -> Result<(), Reason> {
    match (end, truncation) {
        (End::Clean, _) | (End::Truncated, Truncation::Tolerate) => Ok(()),
        (End::Truncated, Truncation::Error) => Err(Reason::Truncated(Phase::Open)),
        // The application was closing this leg, so the last bytes of the peer were discarded.
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
