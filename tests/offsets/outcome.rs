//! The outcome of a cut on our side, and the outcome that is required.

use std::time::Duration;

use bowline::testing::peer::CutEnd;
use bowline::{CloseReport, Phase, Reason, TlsConnection, Transport};
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, timeout};

use super::setup::{CLOSE_BOUND, HANDSHAKE_BOUND, RECORDS, Setup};

/// Longer than every operation here.
const LONG: Duration = Duration::from_secs(60);

/// The outcome of one cut on our side.
pub(crate) struct Outcome {
    pub(crate) offset: u64,
    /// The reason of a handshake that failed, and how long it took.
    pub(crate) handshake: Result<(), Reason>,
    took: Duration,
    pub(crate) data: Vec<u8>,
    /// The results of two reads after the data; `None` if a read did not complete.
    pub(crate) ends: [Option<Result<(), Reason>>; 2],
    pub(crate) report: Option<(CloseReport, Duration)>,
}

impl Outcome {
    pub(crate) async fn of<T: Transport>(setup: &Setup, offset: u64, layer: T) -> Self {
        let begin = Instant::now();
        let handshake = setup.handshake(layer).await;
        let took = begin.elapsed();
        let mut outcome =
            Self { offset, handshake: Ok(()), took, data: Vec::new(), ends: [const { None }; 2], report: None };
        match handshake {
            Err(error) => outcome.handshake = Err(error.reason().unwrap().clone()),
            Ok(tls) => outcome.read(tls, setup.ending).await,
        }
        outcome
    }

    async fn read<T: Transport>(&mut self, mut tls: TlsConnection<T>, ending: CutEnd) {
        let patience = if ending == CutEnd::Silence { Duration::from_secs(1) } else { LONG };
        for end in &mut self.ends {
            let read = timeout(patience, tls.read_to_end(&mut self.data)).await.ok();
            *end = read.map(|read| read.map(|_| ()).map_err(|error| Reason::from_io(error, Phase::Connect)));
        }
        let begin = Instant::now();
        let report = timeout(LONG, tls.close()).await.unwrap();
        self.report = Some((report, begin.elapsed()));
    }
}

fn is_reason(reason: &Reason, ending: CutEnd, phase: Phase) -> bool {
    match (ending, reason) {
        (CutEnd::Fin, Reason::Truncated(when)) => *when == phase,
        (CutEnd::Reset, Reason::Reset(when)) => *when == phase,
        (CutEnd::Silence, Reason::TimedOut(when)) => *when == phase,
        _ => false,
    }
}

/// Checks every outcome, given the offsets at which the records end.
pub(crate) fn judge(setup: &Setup, record_ends: &[u64], outcomes: &[Outcome]) {
    let Some(first_secure) = outcomes.iter().find(|outcome| outcome.handshake.is_ok()) else {
        panic!("{}: no handshake succeeds", setup.name)
    };
    let secured_at = first_secure.offset;
    let [.., flight, first, second, marker] = record_ends else { panic!("too few records") };
    assert!(secured_at <= *flight);
    for outcome in outcomes {
        if outcome.offset < secured_at {
            judge_handshake(setup, outcome);
        } else {
            let complete = usize::from(outcome.offset >= *first) + usize::from(outcome.offset >= *second);
            judge_open(setup, outcome, &RECORDS[..complete].concat(), outcome.offset >= *marker);
        }
    }
}

/// End-6 and secure-5.
fn judge_handshake(setup: &Setup, outcome: &Outcome) {
    let at = format!("{} at {}", setup.name, outcome.offset);
    let reason = outcome.handshake.as_ref().expect_err("a handshake that lacks a part cannot succeed");
    assert!(is_reason(reason, setup.ending, Phase::Handshake), "{at}: {reason:?}");
    match setup.ending {
        CutEnd::Silence => assert!(outcome.took < 2 * HANDSHAKE_BOUND, "{at}: {:?}", outcome.took),
        // These ends are noticed without a wait.
        CutEnd::Fin | CutEnd::Reset => assert!(outcome.took < HANDSHAKE_BOUND / 2, "{at}: {:?}", outcome.took),
    }
}

/// End-2 and end-4.
fn judge_open(setup: &Setup, outcome: &Outcome, data: &[u8], is_marked: bool) {
    let at = format!("{} at {}", setup.name, outcome.offset);
    assert!(outcome.handshake.is_ok(), "{at}: {:?}", outcome.handshake);
    assert_eq!(outcome.data, data, "{at}");
    let (report, took) = outcome.report.as_ref().unwrap();
    for end in &outcome.ends {
        match end {
            Some(Ok(())) => assert!(is_marked, "{at}: a clean end without close_notify"),
            Some(Err(reason)) => {
                assert!(!is_marked && is_reason(reason, setup.ending, Phase::Open), "{at}: {reason:?}");
            }
            None => assert!(!is_marked && setup.ending == CutEnd::Silence, "{at}: a hang"),
        }
    }
    assert_eq!(report.marker_received(), is_marked, "{at}: {report:?}");
    let reason = &report.reason;
    match (setup.ending, is_marked) {
        (CutEnd::Fin, true) => assert!(report.is_clean(), "{at}: {report:?}"),
        // Our answer finds the connection reset, or leaves before the reset arrives.
        (CutEnd::Reset, true) => assert!(matches!(reason, Reason::Reset(_) | Reason::Closed), "{at}: {report:?}"),
        (CutEnd::Silence, true) => assert!(matches!(reason, Reason::Closed), "{at}: {report:?}"),
        (CutEnd::Fin, false) => assert!(matches!(reason, Reason::Truncated(Phase::Open)), "{at}: {report:?}"),
        (CutEnd::Reset, false) => assert!(matches!(reason, Reason::Reset(Phase::Open)), "{at}: {report:?}"),
        (CutEnd::Silence, false) => {
            assert!(matches!(reason, Reason::TimedOut(Phase::Close)), "{at}: {report:?}");
        }
    }
    assert!(*took < 2 * CLOSE_BOUND, "{at}: close took {took:?}");
}
