//! The state of a producer, and how full its queue is.

use super::half::Refused;

/// How full the queue of unsent bytes is, on all layers together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Level {
    /// Everything has left for the kernel.
    Empty,
    /// At or below the low mark.
    Low,
    /// Between the marks.
    Between,
    /// At or above the high mark.
    High,
}

/// The state of the producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Flow {
    /// No producer is registered.
    #[default]
    Absent,
    /// A push producer that produces.
    Flowing,
    /// A push producer that is paused.
    Paused,
    /// A pull producer that will be asked when there is space.
    Waiting,
    /// A pull producer that was asked and has not written yet.
    Asked,
    /// The connection has ended, or our send half has: no producer is accepted.
    Over,
}

/// An event of a producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FlowEvent {
    /// A push producer is registered.
    RegisterPush,
    /// A pull producer is registered.
    RegisterPull,
    /// The producer is done.
    Unregister,
    /// Bytes were written.
    Written,
    /// The queue has reached this level.
    Level(Level),
    /// Nothing can be sent any more.
    End,
}

/// The call to make on the producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProducerCall {
    /// Nothing.
    Nothing,
    /// Produce no more for now.
    Pause,
    /// Go on.
    Resume,
    /// Produce once.
    Produce,
    /// Produce no more: the connection or our half has ended.
    Stop,
}

impl Flow {
    /// Moves on by one event and returns the call to make on the producer. A refused event changes nothing.
    pub fn handle(&mut self, event: FlowEvent) -> Result<ProducerCall, Refused> {
        use FlowEvent::{End, RegisterPull, RegisterPush, Unregister, Written};
        use Level::{Between, Empty, High, Low};
        let (next, tell) = match (*self, event) {
            (Self::Absent, RegisterPush) => (Self::Flowing, ProducerCall::Nothing),
            (Self::Absent, RegisterPull) => (Self::Waiting, ProducerCall::Nothing),
            (Self::Absent, Unregister | Written | FlowEvent::Level(_)) => (Self::Absent, ProducerCall::Nothing),

            // rule: flow-1: one at a time.
            (Self::Flowing | Self::Paused | Self::Waiting | Self::Asked, RegisterPush | RegisterPull) => {
                return Err(Refused);
            }
            (Self::Flowing | Self::Paused | Self::Waiting | Self::Asked, Unregister) => {
                (Self::Absent, ProducerCall::Nothing)
            }

            // rule: flow-2: paused once above the high mark, resumed once at the low mark.
            (Self::Flowing, FlowEvent::Level(High)) => (Self::Paused, ProducerCall::Pause),
            (Self::Flowing, Written | FlowEvent::Level(Empty | Low | Between)) => {
                (Self::Flowing, ProducerCall::Nothing)
            }
            (Self::Paused, FlowEvent::Level(Empty | Low)) => (Self::Flowing, ProducerCall::Resume),
            (Self::Paused, Written | FlowEvent::Level(Between | High)) => (Self::Paused, ProducerCall::Nothing),

            // rule: flow-2: asked once for each time that the queue runs empty.
            (Self::Waiting, FlowEvent::Level(Empty)) => (Self::Asked, ProducerCall::Produce),
            (Self::Waiting, Written | FlowEvent::Level(Low | Between | High)) => (Self::Waiting, ProducerCall::Nothing),
            (Self::Asked, Written) => (Self::Waiting, ProducerCall::Nothing),
            (Self::Asked, FlowEvent::Level(_)) => (Self::Asked, ProducerCall::Nothing),

            // rule: flow-3: stopped once.
            (Self::Flowing | Self::Paused | Self::Waiting | Self::Asked, End) => (Self::Over, ProducerCall::Stop),
            (Self::Absent, End) => (Self::Over, ProducerCall::Nothing),

            // rule: flow-1: a producer that registers now is stopped at once.
            (Self::Over, RegisterPush | RegisterPull) => (Self::Over, ProducerCall::Stop),
            (Self::Over, Unregister | Written | FlowEvent::Level(_) | End) => (Self::Over, ProducerCall::Nothing),
        };
        *self = next;
        Ok(tell)
    }

    /// Whether a producer is registered.
    pub fn is_there(self) -> bool {
        matches!(self, Self::Flowing | Self::Paused | Self::Waiting | Self::Asked)
    }
}
