//! The end of each cell, computed from the rules of docs/rules.md.

use std::time::Duration;

use bowline::{CloseLimit, Error, Outcome, Phase as At, Reason, UpgradeError};

use crate::cell::{CLOSE, Cell, Fault, HANDSHAKE, IDLE, Kind, Phase, Seen, Shape, Step, THEIRS, reason};

/// The end that the rules require.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    Closed,
    Unconfirmed,
    /// As `Unconfirmed`, and the close has reached its limit of bytes.
    Flooded,
    Truncated,
    Reset,
    TimedOut(At),
    Tls,
    /// The dialogue before TLS was violated.
    Dialogue,
    /// The peer did not stop sending before a downgrade.
    NoEnd,
    Io,
}

impl Due {
    fn outcome(self) -> Outcome {
        match self {
            Self::Closed => Outcome::Closed,
            Self::Unconfirmed | Self::Flooded => Outcome::Unconfirmed,
            Self::Truncated => Outcome::Truncated,
            Self::Reset => Outcome::Reset,
            Self::TimedOut(_) => Outcome::TimedOut,
            Self::Tls => Outcome::Tls,
            Self::Dialogue | Self::NoEnd => Outcome::Protocol,
            Self::Io => Outcome::Io,
        }
    }

    /// The longest time that a cell may take. The delivery of an alert may take another second, and the run waits for
    /// the peer.
    fn bound(self) -> Duration {
        let more = Duration::from_secs(3);
        match self {
            Self::TimedOut(At::Handshake) => HANDSHAKE + more,
            Self::TimedOut(At::Idle) => IDLE + more,
            Self::TimedOut(_) => CLOSE + more,
            _ => more,
        }
    }
}

/// The phases of a kind.
fn phases(kind: Kind) -> Vec<Phase> {
    let mut phases = vec![Phase::Data, Phase::HalfUs, Phase::HalfPeer, Phase::Closing];
    if kind.shape == Shape::Upgraded {
        phases.push(Phase::Prelude);
    }
    if matches!(kind.shape, Shape::Upgraded | Shape::Nested) {
        phases.push(Phase::Downgrading);
    }
    if kind.is_tls() {
        for number in 1..=kind.flights() {
            phases.extend([false, true].map(|inside| Phase::Flight { number, inside }));
        }
    }
    phases
}

/// Every cell of a kind. `steps` are the calls that send in a connection without a fault.
pub(crate) fn cells(kind: Kind, steps: &[(Step, usize)]) -> Vec<Cell> {
    let mut cells = Vec::new();
    for phase in phases(kind) {
        let talk = if matches!(phase, Phase::Prelude | Phase::Flight { .. }) { Fault::TalkRaw } else { Fault::Talk };
        let faults = match phase {
            // After the peer's end, only a reset can come from the peer.
            Phase::HalfPeer => {
                vec![Fault::Rst, Fault::Stall, Fault::BrokenPipe, Fault::NoBufferSpace, Fault::Pieces(1)]
            }
            _ => vec![Fault::Fin, Fault::Rst, Fault::Silence, Fault::Garbage, Fault::Pieces(1), Fault::Drip, talk],
        };
        cells.extend(faults.into_iter().map(|fault| Cell { kind, phase, fault: Some(fault) }));
    }
    let calls = steps.last().map_or(0, |(_, calls)| *calls);
    for number in 0..calls {
        for fault in [Fault::Stall, Fault::BrokenPipe, Fault::NoBufferSpace] {
            cells.push(Cell { kind, phase: Phase::Call(number), fault: Some(fault) });
        }
    }
    cells
}

/// rule: close-7, close-14, end-1, end-2, end-6, idle-1, secure-5, upgrade-9
pub(crate) fn due(cell: Cell, steps: &[(Step, usize)]) -> Due {
    let Cell { kind, phase, fault } = cell;
    let is_tls = kind.is_tls();
    let Some(fault) = fault else { return Due::Closed };
    let is_first = matches!(phase, Phase::Prelude | Phase::Flight { .. });
    match fault {
        Fault::Rst | Fault::BrokenPipe => Due::Reset,
        Fault::NoBufferSpace => Due::Io,
        Fault::Pieces(_) if phase == Phase::HalfPeer => Due::Unconfirmed,
        Fault::Pieces(_) => Due::Closed,
        Fault::Stall => match phase {
            Phase::Call(number) => match step(number, steps) {
                // The handshake is done when the wire has accepted its last flight.
                Step::Begin if kind.sends_last() && step(number + 1, steps) != Step::Begin => Due::TimedOut(At::Idle),
                Step::Begin => Due::TimedOut(At::Handshake),
                Step::Data => Due::TimedOut(At::Idle),
                // close-14: close_notify is the marker, and FIN need not be confirmed.
                Step::Close if is_tls && from_last(number, steps) == 1 => Due::Closed,
                // The close_notify of the outer session is stuck, so nothing shows that the inner one has arrived.
                Step::Close if kind.shape == Shape::Nested && from_last(number, steps) == 2 => Due::Unconfirmed,
                Step::Close => Due::TimedOut(At::Close),
            },
            // A write in plaintext waits until the connection counts as idle.
            _ if !is_tls => Due::TimedOut(At::Idle),
            _ => Due::TimedOut(At::Close),
        },
        Fault::Fin => match phase {
            Phase::HalfUs | Phase::Closing if !is_tls => Due::Closed,
            Phase::Closing => Due::Unconfirmed,
            Phase::Data if !is_tls => Due::Unconfirmed,
            _ => Due::Truncated,
        },
        Fault::Silence | Fault::Garbage if is_first || !is_tls || fault == Fault::Silence => match (phase, fault) {
            (Phase::Prelude, Fault::Garbage) => Due::Dialogue,
            (Phase::Flight { .. }, Fault::Garbage) => Due::Tls,
            (Phase::Prelude | Phase::Flight { .. }, _) => Due::TimedOut(At::Handshake),
            (Phase::Closing | Phase::Downgrading, _) => Due::TimedOut(At::Close),
            // In plaintext, garbage is data. The reader stops after a part of it.
            (Phase::Data | Phase::HalfUs, Fault::Garbage) => Due::TimedOut(At::Close),
            _ => Due::TimedOut(At::Idle),
        },
        Fault::Garbage | Fault::Silence => Due::Tls,
        Fault::Drip => match phase {
            Phase::Prelude | Phase::Flight { .. } => Due::TimedOut(At::Handshake),
            // The end of a plaintext connection needs no bytes.
            Phase::Closing if !is_tls => Due::Closed,
            Phase::Closing | Phase::Downgrading => Due::TimedOut(At::Close),
            // The reader stops after the data, and the close waits for the peer's marker.
            Phase::Data if is_tls => Due::TimedOut(At::Close),
            _ => Due::Closed,
        },
        Fault::TalkRaw if phase == Phase::Prelude => Due::Dialogue,
        Fault::TalkRaw => Due::Tls,
        Fault::Talk if phase == Phase::Downgrading => Due::NoEnd,
        Fault::Talk => Due::Flooded,
    }
}

/// The number of calls from this one to the last.
fn from_last(number: usize, steps: &[(Step, usize)]) -> usize {
    steps.last().map_or(0, |(_, calls)| calls - number)
}

fn step(number: usize, steps: &[(Step, usize)]) -> Step {
    let found = steps.iter().find(|(_, calls)| number < *calls);
    found.map_or(Step::Close, |(step, _)| *step)
}

/// Compares the end that was seen with the one that is due. The error names the first difference.
pub(crate) fn judge(cell: Cell, due: Due, seen: &Seen) -> Result<(), String> {
    let report = &seen.report;
    let wrong = |what: &str| Err(format!("{cell}: {what}: due {due:?}, seen {seen:?}"));
    if Outcome::of(&report.reason) != due.outcome() {
        return wrong("the reason");
    }
    if matches!((due, &report.reason), (Due::TimedOut(at), Reason::TimedOut(phase)) if *phase != at) {
        return wrong("the phase");
    }
    // end-6: the reason names the handshake. A reset in the dialogue before TLS is a reset of the plaintext connection.
    let is_handshake = matches!(cell.phase, Phase::Flight { .. }) || cell.phase == Phase::Prelude && due != Due::Reset;
    // In TLS in TLS, garbage breaks the outer session, whose handshake is over.
    let is_nested = cell.kind.shape == Shape::Nested && due == Due::Tls;
    let is_named = is_nested || report.reason.phase().is_none_or(|phase| phase == At::Handshake);
    if is_handshake && due != Due::Closed && !is_named {
        return wrong("the phase");
    }
    if due == Due::Flooded && report.limit != Some(CloseLimit::Bytes) {
        return wrong("the limit");
    }
    let is_drip = cell.fault == Some(Fault::Drip) && matches!(cell.phase, Phase::Data | Phase::HalfUs);
    if !is_drip && seen.took > due.bound() {
        return wrong("the time");
    }
    if seen.is_leaked {
        return wrong("a leak");
    }
    // Our side must not read data that the peer did not send.
    let is_talk = matches!(cell.fault, Some(Fault::Talk | Fault::Garbage));
    if !is_talk && !THEIRS.starts_with(&seen.data) {
        return wrong("the data");
    }
    let reads_all = !matches!(cell.phase, Phase::Closing);
    if due == Due::Closed && reads_all && cell.fault != Some(Fault::Fin) && seen.data != THEIRS {
        return wrong("data is missing");
    }
    // The call that failed must report the same end.
    match &seen.failed {
        Some(Error::Upgrade(UpgradeError::Dialogue(_))) if due == Due::Dialogue => Ok(()),
        Some(error) if Outcome::of(&reason(error)) != due.outcome() => wrong("the error of the call"),
        _ => Ok(()),
    }
}
