//! The whole matrix of every state machine. A new transition appears as a difference in a committed file.

use std::fmt::Write;

use bowline::core::half::{End, RecvHalf, Refused, SendHalf};
use bowline::core::producer::{Level, ProducerCall, ProducerEvent, ProducerState};
use bowline::core::relay::{Duty, Leg, duty};
use bowline::core::upgrade::Upgrade;
use bowline::{Error, Phase, Reason, Truncation};

use crate::generated::{check_file, check_section};

/// An event of a half or of an upgrade.
#[derive(Clone, Copy)]
enum Event<S> {
    /// A state may refuse it.
    Refusable(fn(&mut S) -> Result<(), Refused>),
    /// No state refuses it.
    Certain(fn(&mut S)),
}

impl<S> Event<S> {
    fn handle(self, state: &mut S) -> Result<(), Refused> {
        match self {
            Self::Refusable(handle) => handle(state),
            Self::Certain(handle) => {
                handle(state);
                Ok(())
            }
        }
    }
}

/// A table of (state, event) to outcome. `·`: nothing changes; `×`: refused, and nothing changes.
fn table<S: Clone>(
    machine: &str,
    states: &[S],
    events: &[(&str, Event<S>)],
    state_name: impl Fn(&S) -> String,
) -> String {
    let name = |(name, _): &(&str, Event<S>)| (*name).to_owned();
    told_table(machine, states, events, state_name, name, |state, (_, event)| {
        event.handle(state).map(|()| String::new())
    })
}

/// As `table`, for a state machine whose output is a notification.
fn told_table<S: Clone, E: Clone>(
    machine: &str,
    states: &[S],
    events: &[E],
    state_name: impl Fn(&S) -> String,
    event_name: impl Fn(&E) -> String,
    handle: impl Fn(&mut S, E) -> Result<String, Refused>,
) -> String {
    let mut out = format!("| {machine} |");
    events.iter().for_each(|event| write!(out, " {} |", event_name(event)).unwrap());
    out.push_str(&format!("\n|---|{}", "---|".repeat(events.len())));
    for state in states {
        write!(out, "\n| {} |", state_name(state)).unwrap();
        for event in events {
            let mut next = state.clone();
            let outcome = handle(&mut next, event.clone());
            let is_same = state_name(&next) == state_name(state);
            let cell = match outcome {
                Ok(told) if is_same => format!("·{told}"),
                Ok(told) => state_name(&next) + &told,
                Err(Refused) => {
                    assert!(is_same, "{}: a refused event changed the state", state_name(state));
                    "×".into()
                }
            };
            write!(out, " {cell} |").unwrap();
        }
    }
    out.push('\n');
    out
}

/// The earlier and the later failure. The table shows which of them is kept.
const EARLIER: Reason = Reason::Reset(Phase::Open);
const LATER: Reason = Reason::TimedOut(Phase::Close);

fn broken(reason: &Reason) -> String {
    let which = if matches!(reason, Reason::Reset(_)) { "earlier" } else { "later" };
    format!("Broken({which})")
}

fn send_state(half: &SendHalf) -> String {
    match half {
        SendHalf::Broken(reason) => broken(reason),
        SendHalf::Open | SendHalf::Finishing | SendHalf::Finished | SendHalf::Aborted => format!("{half:?}"),
    }
}

fn recv_state(half: &RecvHalf) -> String {
    match half {
        RecvHalf::Broken(reason) => broken(reason),
        RecvHalf::Open | RecvHalf::Ending(_) | RecvHalf::Ended(_) | RecvHalf::Aborted => format!("{half:?}"),
    }
}

fn send_table() -> String {
    use Event::{Certain, Refusable};
    let states =
        [SendHalf::Open, SendHalf::Finishing, SendHalf::Finished, SendHalf::Aborted, SendHalf::Broken(EARLIER)];
    let events: [(&str, Event<_>); 4] = [
        ("close_write", Refusable(SendHalf::close_write)),
        ("drained", Refusable(SendHalf::drained)),
        ("abort", Certain(SendHalf::abort)),
        ("lose", Certain(|half| half.lose(LATER))),
    ];
    table("SendHalf", &states, &events, send_state)
}

fn recv_table() -> String {
    use Event::{Certain, Refusable};
    let ends = [End::Clean, End::Truncated, End::Unconfirmed];
    let states: Vec<RecvHalf> = [RecvHalf::Open]
        .into_iter()
        .chain(ends.map(RecvHalf::Ending))
        .chain(ends.map(RecvHalf::Ended))
        .chain([RecvHalf::Aborted, RecvHalf::Broken(EARLIER)])
        .collect();
    let events: [(&str, Event<_>); 6] = [
        ("marker", Refusable(RecvHalf::marker)),
        ("layer_ended(Truncated)", Certain(|half| half.layer_ended(End::Truncated))),
        ("layer_ended(Unconfirmed)", Certain(|half| half.layer_ended(End::Unconfirmed))),
        ("consumed", Certain(RecvHalf::consumed)),
        ("abort", Certain(RecvHalf::abort)),
        ("lose", Certain(|half| half.lose(LATER))),
    ];
    table("RecvHalf", &states, &events, recv_state)
}

fn upgrade_table() -> String {
    use Event::{Certain, Refusable};
    let failed = |reason: &Reason| Upgrade::Failed(Box::new(Error::Ended(reason.clone())));
    let states = [Upgrade::Settled, Upgrade::Quiescing, Upgrade::Handshaking, Upgrade::Unwrapping, failed(&EARLIER)];
    let state_name = |state: &Upgrade| match state {
        Upgrade::Failed(error) if error.to_string() == Error::Ended(EARLIER).to_string() => "Failed(earlier)".into(),
        Upgrade::Failed(_) => "Failed(later)".into(),
        Upgrade::Settled | Upgrade::Quiescing | Upgrade::Handshaking | Upgrade::Unwrapping => format!("{state:?}"),
    };
    let events: [(&str, Event<_>); 6] = [
        ("start_tls", Refusable(Upgrade::start_tls)),
        ("quiesced", Refusable(Upgrade::quiesced)),
        ("secured", Refusable(Upgrade::secured)),
        ("stop_tls", Refusable(Upgrade::stop_tls)),
        ("unwrapped", Refusable(Upgrade::unwrapped)),
        ("fail", Certain(|upgrade| upgrade.fail(Error::Ended(LATER)))),
    ];
    table("Upgrade", &states, &events, state_name)
}

/// The duty of the other leg of a relay: a column for each state of the send half, a row for each state of the receive
/// half.
fn relay_table(truncation: Truncation) -> String {
    let sends = [
        (SendHalf::Open, false),
        (SendHalf::Open, true),
        (SendHalf::Finished, false),
        (SendHalf::Finished, true),
        (SendHalf::Aborted, false),
        (SendHalf::Broken(EARLIER), false),
    ];
    let ends = [End::Clean, End::Truncated, End::Unconfirmed];
    let recvs = [RecvHalf::Open]
        .into_iter()
        .chain(ends.map(RecvHalf::Ended))
        .chain([RecvHalf::Aborted, RecvHalf::Broken(EARLIER)]);
    let name = |state: String| state.replace("(earlier)", "");
    let mut out = String::from("| received \\ sent |");
    for (send, lost) in &sends {
        write!(out, " {}{} |", name(send_state(send)), if *lost { " *(lost)*" } else { "" }).unwrap();
    }
    write!(out, "\n|---|{}", "---|".repeat(sends.len())).unwrap();
    for recv in recvs {
        write!(out, "\n| {} |", name(recv_state(&recv))).unwrap();
        for (send, lost) in &sends {
            let leg = Leg { send: send.clone(), recv: recv.clone(), lost: *lost, truncation };
            let cell = match duty(&leg) {
                Duty::GoOn => "·",
                Duty::CloseWrite => "close_write",
                Duty::CloseWriteThenAbort => "close_write, abort",
                Duty::Abort => "abort",
            };
            write!(out, " {cell} |").unwrap();
        }
    }
    out.push('\n');
    out
}

fn producer_table() -> String {
    use ProducerEvent::{End, RegisterPull, RegisterPush, Unregister, Written};
    let states = [
        ProducerState::Absent,
        ProducerState::Flowing,
        ProducerState::Paused,
        ProducerState::Waiting,
        ProducerState::Asked,
        ProducerState::Over,
    ];
    let levels = [Level::Empty, Level::Low, Level::Between, Level::High].map(ProducerEvent::Level);
    let events = [&[RegisterPush, RegisterPull, Unregister, Written][..], &levels, &[End]].concat();
    let event_name = |event: &ProducerEvent| match event {
        ProducerEvent::Level(level) => format!("{level:?}"),
        RegisterPush | RegisterPull | Unregister | Written | End => format!("{event:?}"),
    };
    let told = |tell: ProducerCall| match tell {
        ProducerCall::Nothing => String::new(),
        ProducerCall::Pause | ProducerCall::Resume | ProducerCall::Produce | ProducerCall::Stop => {
            format!(", {}", format!("{tell:?}").to_lowercase())
        }
    };
    told_table(
        "ProducerState",
        &states,
        &events,
        |state| format!("{state:?}"),
        event_name,
        |state, event| state.handle(event).map(told),
    )
}

fn check(name: &str, table: &str) {
    check_file(&format!("tests/snapshots/{}.md", name.replace(' ', "-")), table);
    check_section("docs/architecture.md", name, table);
}

#[test]
fn the_matrix_of_the_send_half_is_the_committed_one() {
    check("send half", &send_table());
}

#[test]
fn the_matrix_of_the_receive_half_is_the_committed_one() {
    check("receive half", &recv_table());
}

#[test]
fn the_matrix_of_the_upgrade_is_the_committed_one() {
    check("upgrade", &upgrade_table());
}

/// rule: flow-6, half-8
#[test]
fn the_matrix_of_the_relay_is_the_committed_one() {
    let table = relay_table(Truncation::Error);
    check_file("tests/snapshots/relay.md", &table);
    check_section("docs/relay.md", "relay", &table);
    // rule: end-3
    let tolerated = relay_table(Truncation::Tolerate);
    let line = |table: &str, state: &str| table.lines().find(|line| line.starts_with(state)).unwrap().to_owned();
    let clean = line(&table, "| Ended(Clean)");
    assert_eq!(line(&tolerated, "| Ended(Truncated)").replace("Truncated", "Clean"), clean);
    let others = |table: &str| table.lines().filter(|line| !line.contains("Truncated")).collect::<Vec<_>>().join("\n");
    assert_eq!(others(&tolerated), others(&table));
}

/// rule: flow-1, flow-2, flow-3
#[test]
fn the_matrix_of_the_producer_is_the_committed_one() {
    check("producer", &producer_table());
}

/// rule: end-7, half-8
#[test]
fn an_abort_wins_over_everything_and_a_clean_end_is_never_unlearned() {
    for line in send_table().lines().skip(2).chain(recv_table().lines().skip(2)) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let (state, abort, lost) = (cells[1], cells[cells.len() - 3], cells[cells.len() - 2]);
        assert!(abort == "Aborted" || (state == "Aborted" && abort == "·"), "{line}");
        assert!(!state.contains("End") || lost == "·", "{line}");
    }
}
