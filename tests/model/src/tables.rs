//! The state tables of the crate, as the model uses them. The states are small values that can be hashed and compared.
//! The table of the crate itself makes every change. A [`Fault`] replaces one row of a table with a wrong one; a test
//! shows that the properties of the model find each fault.

use bowline::core::delivery::{self, Evidence};
use bowline::core::half::{self, End, RecvHalf, SendHalf};
use bowline::core::lifecycle::{Callback, Lifecycle};
use bowline::core::producer::{Level, ProducerCall, ProducerEvent, ProducerState};
use bowline::core::upgrade::{self, Upgrade, Verdict};
use bowline::{Error, Leftover, Phase, Reason};

/// How a connection ended, without the details of a [`Reason`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Why {
    Closed,
    Unconfirmed,
    Truncated,
    Reset,
    Aborted,
    Dropped,
    TimedOut,
    /// TLS failed, or leftover bytes were refused.
    Failed,
}

impl From<Why> for Reason {
    fn from(why: Why) -> Self {
        match why {
            Why::Closed => Self::Closed,
            Why::Unconfirmed => Self::Unconfirmed,
            Why::Truncated => Self::Truncated(Phase::Open),
            Why::Reset => Self::Reset(Phase::Open),
            Why::Aborted => Self::Aborted,
            Why::Dropped => Self::Dropped,
            Why::TimedOut => Self::TimedOut(Phase::Close),
            // `KeyExhausted` stands for every failure of TLS, because the tables treat all of them alike. It is chosen
            // because it has no fields.
            Why::Failed => Self::KeyExhausted,
        }
    }
}

impl From<Reason> for Why {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::Closed => Self::Closed,
            Reason::Unconfirmed => Self::Unconfirmed,
            Reason::Truncated(_) => Self::Truncated,
            Reason::Reset(_) => Self::Reset,
            Reason::Aborted => Self::Aborted,
            Reason::Dropped => Self::Dropped,
            Reason::TimedOut(_) => Self::TimedOut,
            _ => Self::Failed,
        }
    }
}

/// The states of a [`SendHalf`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Send {
    Open,
    Finishing,
    Finished,
    Aborted,
    Broken(Why),
}

impl From<Send> for SendHalf {
    fn from(send: Send) -> Self {
        match send {
            Send::Open => Self::Open,
            Send::Finishing => Self::Finishing,
            Send::Finished => Self::Finished,
            Send::Aborted => Self::Aborted,
            Send::Broken(why) => Self::Broken(why.into()),
        }
    }
}

impl From<SendHalf> for Send {
    fn from(send: SendHalf) -> Self {
        match send {
            SendHalf::Open => Self::Open,
            SendHalf::Finishing => Self::Finishing,
            SendHalf::Finished => Self::Finished,
            SendHalf::Aborted => Self::Aborted,
            SendHalf::Broken(reason) => Self::Broken(reason.into()),
        }
    }
}

impl Send {
    pub fn is_over(self) -> bool {
        SendHalf::from(self).is_over()
    }

    pub fn may_write(self) -> bool {
        SendHalf::from(self).may_write()
    }

    pub fn is_finishing(self) -> bool {
        SendHalf::from(self).is_finishing()
    }

    pub fn is_finished(self) -> bool {
        SendHalf::from(self).is_finished()
    }
}

/// The states of a [`RecvHalf`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Recv {
    Open,
    Ending(End),
    Ended(End),
    Aborted,
    Broken(Why),
}

impl From<Recv> for RecvHalf {
    fn from(recv: Recv) -> Self {
        match recv {
            Recv::Open => Self::Open,
            Recv::Ending(end) => Self::Ending(end),
            Recv::Ended(end) => Self::Ended(end),
            Recv::Aborted => Self::Aborted,
            Recv::Broken(why) => Self::Broken(why.into()),
        }
    }
}

impl From<RecvHalf> for Recv {
    fn from(recv: RecvHalf) -> Self {
        match recv {
            RecvHalf::Open => Self::Open,
            RecvHalf::Ending(end) => Self::Ending(end),
            RecvHalf::Ended(end) => Self::Ended(end),
            RecvHalf::Aborted => Self::Aborted,
            RecvHalf::Broken(reason) => Self::Broken(reason.into()),
        }
    }
}

impl Recv {
    pub fn is_open(self) -> bool {
        RecvHalf::from(self).is_open()
    }

    pub fn end(self) -> Option<End> {
        RecvHalf::from(self).end()
    }

    pub fn is_clean(self) -> bool {
        self.end() == Some(End::Clean)
    }
}

/// The states of an [`Upgrade`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Change {
    Settled,
    Quiescing,
    Handshaking,
    Unwrapping,
    Failed(Why),
}

impl From<Change> for Upgrade {
    fn from(change: Change) -> Self {
        match change {
            Change::Settled => Self::Settled,
            Change::Quiescing => Self::Quiescing,
            Change::Handshaking => Self::Handshaking,
            Change::Unwrapping => Self::Unwrapping,
            Change::Failed(why) => Self::Failed(Box::new(Error::Ended(why.into()))),
        }
    }
}

impl From<Upgrade> for Change {
    fn from(upgrade: Upgrade) -> Self {
        match upgrade {
            Upgrade::Settled => Self::Settled,
            Upgrade::Quiescing => Self::Quiescing,
            Upgrade::Handshaking => Self::Handshaking,
            Upgrade::Unwrapping => Self::Unwrapping,
            Upgrade::Failed(error) => match *error {
                Error::Ended(reason) => Self::Failed(reason.into()),
                _ => Self::Failed(Why::Failed),
            },
        }
    }
}

impl Change {
    pub fn is_settled(self) -> bool {
        Upgrade::from(self).is_settled()
    }

    pub fn is_under_way(self) -> bool {
        matches!(self, Self::Quiescing | Self::Handshaking | Self::Unwrapping)
    }
}

/// A wrong row of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// `close_write` counts as done before the marker was sent.
    SendSkipsMarker,
    /// `close_write` after the marker sends it again.
    SendMarksTwice,
    /// An abort of an open half ends it in order.
    SendAbortFinishes,
    /// A loss does not end an open send half.
    SendIgnoresLoss,
    /// The end of the layer below counts as a clean end.
    RecvEndIsClean,
    /// A loss does not end an open receive half.
    RecvIgnoresLoss,
    /// A loss replaces a clean end.
    RecvForgetsCleanEnd,
    /// An end without the peer's answer is `closed`.
    ReasonTrustsBareEnd,
    /// An abort is reported as the end that it interrupted.
    ReasonIgnoresAbort,
    /// Every orderly end is `closed`, even if bytes are not acknowledged.
    DeliveryIsAssumed,
    /// The order of the ends decides, even if the system reports unacknowledged bytes.
    DeliveryIgnoresPending,
    /// Leftover bytes are passed to TLS under every policy.
    LeftoverIsAdmitted,
    /// Data may pass before the handshake is done.
    UpgradeSettlesEarly,
    /// An upgrade or downgrade that failed counts as done.
    UpgradeForgetsFailure,
    /// A paused producer is never resumed.
    ProducerStaysPaused,
    /// A producer is stopped again at each further end.
    ProducerStopsTwice,
    /// The loss is reported more than once.
    LossIsRepeated,
}

impl Fault {
    pub const ALL: [Self; 17] = [
        Self::SendSkipsMarker,
        Self::SendMarksTwice,
        Self::SendAbortFinishes,
        Self::SendIgnoresLoss,
        Self::RecvEndIsClean,
        Self::RecvIgnoresLoss,
        Self::RecvForgetsCleanEnd,
        Self::ReasonTrustsBareEnd,
        Self::ReasonIgnoresAbort,
        Self::DeliveryIsAssumed,
        Self::DeliveryIgnoresPending,
        Self::LeftoverIsAdmitted,
        Self::UpgradeSettlesEarly,
        Self::UpgradeForgetsFailure,
        Self::ProducerStaysPaused,
        Self::ProducerStopsTwice,
        Self::LossIsRepeated,
    ];
}

/// The tables, with at most one fault.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tables {
    pub fault: Option<Fault>,
}

/// Applies an event of the crate to a small value. Returns whether it was accepted.
macro_rules! apply {
    ($state:expr, $real:ty, |$half:ident| $event:expr) => {{
        let mut $half = <$real>::from(*$state);
        let accepted = $event.is_ok();
        *$state = $half.into();
        accepted
    }};
}

impl Tables {
    fn has(self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    pub fn close_write(self, send: &mut Send) -> bool {
        if self.has(Fault::SendSkipsMarker) && *send == Send::Open {
            *send = Send::Finished;
            return true;
        }
        if self.has(Fault::SendMarksTwice) && *send == Send::Finished {
            *send = Send::Finishing;
            return true;
        }
        apply!(send, SendHalf, |half| half.close_write())
    }

    pub fn drained(self, send: &mut Send) -> bool {
        apply!(send, SendHalf, |half| half.drained())
    }

    pub fn abort_send(self, send: &mut Send) {
        if self.has(Fault::SendAbortFinishes) && *send == Send::Open {
            *send = Send::Finishing;
            return;
        }
        let mut half = SendHalf::from(*send);
        half.abort();
        *send = half.into();
    }

    pub fn lose_send(self, send: &mut Send, why: Why) {
        if self.has(Fault::SendIgnoresLoss) && *send == Send::Open {
            return;
        }
        let mut half = SendHalf::from(*send);
        half.lose(why.into());
        *send = half.into();
    }

    pub fn marker(self, recv: &mut Recv) -> bool {
        apply!(recv, RecvHalf, |half| half.marker())
    }

    pub fn layer_ended(self, recv: &mut Recv, end: End) {
        let end = if self.has(Fault::RecvEndIsClean) { End::Clean } else { end };
        let mut half = RecvHalf::from(*recv);
        half.layer_ended(end);
        *recv = half.into();
    }

    pub fn consumed(self, recv: &mut Recv) {
        let mut half = RecvHalf::from(*recv);
        half.consumed();
        *recv = half.into();
    }

    pub fn abort_recv(self, recv: &mut Recv) {
        let mut half = RecvHalf::from(*recv);
        half.abort();
        *recv = half.into();
    }

    pub fn lose_recv(self, recv: &mut Recv, why: Why) {
        if self.has(Fault::RecvIgnoresLoss) && *recv == Recv::Open {
            return;
        }
        if self.has(Fault::RecvForgetsCleanEnd) && recv.is_clean() {
            *recv = Recv::Broken(why);
            return;
        }
        let mut half = RecvHalf::from(*recv);
        half.lose(why.into());
        *recv = half.into();
    }

    pub fn reason(self, send: Send, recv: Recv) -> Option<Why> {
        let (send, recv) = match (send, recv) {
            (send, Recv::Ended(End::Unconfirmed)) if self.has(Fault::ReasonTrustsBareEnd) => {
                (send, Recv::Ended(End::Clean))
            }
            (Send::Aborted, _) if self.has(Fault::ReasonIgnoresAbort) => (Send::Finished, Recv::Ended(End::Clean)),
            other => other,
        };
        half::reason(&send.into(), &recv.into()).map(Why::from)
    }

    pub fn judge_delivery(self, why: Why, evidence: Evidence) -> Why {
        let evidence = match evidence {
            _ if self.has(Fault::DeliveryIsAssumed) => Evidence { pending: Some(Default::default()), ..evidence },
            _ if self.has(Fault::DeliveryIgnoresPending) => Evidence { pending: None, ..evidence },
            evidence => evidence,
        };
        delivery::judge(why.into(), evidence).into()
    }

    pub fn judge_leftover(self, bytes: &[u8], policy: Leftover) -> bool {
        self.has(Fault::LeftoverIsAdmitted) || upgrade::judge(bytes, policy) == Verdict::Admit
    }

    pub fn start_tls(self, change: &mut Change) -> bool {
        apply!(change, Upgrade, |upgrade| upgrade.start_tls())
    }

    pub fn quiesced(self, change: &mut Change) -> bool {
        let accepted = apply!(change, Upgrade, |upgrade| upgrade.quiesced());
        if self.has(Fault::UpgradeSettlesEarly) {
            *change = Change::Settled;
        }
        accepted
    }

    pub fn secured(self, change: &mut Change) -> bool {
        self.has(Fault::UpgradeSettlesEarly) || apply!(change, Upgrade, |upgrade| upgrade.secured())
    }

    pub fn stop_tls(self, change: &mut Change) -> bool {
        apply!(change, Upgrade, |upgrade| upgrade.stop_tls())
    }

    pub fn unwrapped(self, change: &mut Change) -> bool {
        apply!(change, Upgrade, |upgrade| upgrade.unwrapped())
    }

    pub fn fail(self, change: &mut Change, why: Why) {
        if self.has(Fault::UpgradeForgetsFailure) {
            *change = Change::Settled;
            return;
        }
        let mut upgrade = Upgrade::from(*change);
        upgrade.fail(Error::Ended(why.into()));
        *change = upgrade.into();
    }

    pub fn produce(self, producer: &mut ProducerState, event: ProducerEvent) -> Option<ProducerCall> {
        use ProducerEvent::End;
        match (*producer, event) {
            (ProducerState::Paused, ProducerEvent::Level(Level::Empty | Level::Low))
                if self.has(Fault::ProducerStaysPaused) =>
            {
                Some(ProducerCall::Nothing)
            }
            (ProducerState::Over, End) if self.has(Fault::ProducerStopsTwice) => Some(ProducerCall::Stop),
            _ => producer.handle(event).ok(),
        }
    }

    pub fn admit(self, life: &mut Lifecycle, callback: Callback) -> bool {
        match (*life, callback) {
            (Lifecycle::Lost, Callback::Lost) if self.has(Fault::LossIsRepeated) => true,
            _ => life.admit(callback),
        }
    }
}
