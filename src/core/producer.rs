//! The state machine of a producer, and the fill level of its queue.

use super::half::Refused;

/// The fill level of the queue of unsent bytes, in all layers together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Level {
    /// All bytes have been passed to the kernel.
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
pub enum ProducerState {
    /// No producer is registered.
    #[default]
    Absent,
    /// A push producer that may write.
    Flowing,
    /// A push producer that is paused.
    Paused,
    /// A pull producer that will be called when the queue is empty.
    Waiting,
    /// A pull producer that was called and has not written yet.
    Asked,
    /// The connection or our send half has ended. No producer is accepted.
    Over,
}

/// An event of a producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProducerEvent {
    /// A push producer is registered.
    RegisterPush,
    /// A pull producer is registered.
    RegisterPull,
    /// The producer is unregistered.
    Unregister,
    /// Bytes were written.
    Written,
    /// The queue has reached this level.
    Level(Level),
    /// Nothing can be sent any more.
    End,
}

/// The method of the producer to call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProducerCall {
    /// No call.
    Nothing,
    /// `pause`: the producer must stop writing for now.
    Pause,
    /// `resume`: the producer may write again.
    Resume,
    /// `produce`: the producer writes one piece.
    Produce,
    /// `stop`: the connection or our send half has ended.
    Stop,
}

impl ProducerState {
    /// Handles an event, and returns the call to make on the producer. A refused event changes nothing.
    pub fn handle(&mut self, event: ProducerEvent) -> Result<ProducerCall, Refused> {
        use Level::{Between, Empty, High, Low};
        use ProducerEvent::{End, RegisterPull, RegisterPush, Unregister, Written};
        let (next, tell) = match (*self, event) {
            (Self::Absent, RegisterPush) => (Self::Flowing, ProducerCall::Nothing),
            (Self::Absent, RegisterPull) => (Self::Waiting, ProducerCall::Nothing),
            (Self::Absent, Unregister | Written | ProducerEvent::Level(_)) => (Self::Absent, ProducerCall::Nothing),

            // rule: flow-1: only one producer at a time.
            (Self::Flowing | Self::Paused | Self::Waiting | Self::Asked, RegisterPush | RegisterPull) => {
                return Err(Refused);
            }
            (Self::Flowing | Self::Paused | Self::Waiting | Self::Asked, Unregister) => {
                (Self::Absent, ProducerCall::Nothing)
            }

            // rule: flow-2: paused once above the high mark, and resumed once at the low mark.
            (Self::Flowing, ProducerEvent::Level(High)) => (Self::Paused, ProducerCall::Pause),
            (Self::Flowing, Written | ProducerEvent::Level(Empty | Low | Between)) => {
                (Self::Flowing, ProducerCall::Nothing)
            }
            (Self::Paused, ProducerEvent::Level(Empty | Low)) => (Self::Flowing, ProducerCall::Resume),
            (Self::Paused, Written | ProducerEvent::Level(Between | High)) => (Self::Paused, ProducerCall::Nothing),

            // rule: flow-2: called once each time the queue becomes empty.
            (Self::Waiting, ProducerEvent::Level(Empty)) => (Self::Asked, ProducerCall::Produce),
            (Self::Waiting, Written | ProducerEvent::Level(Low | Between | High)) => {
                (Self::Waiting, ProducerCall::Nothing)
            }
            (Self::Asked, Written) => (Self::Waiting, ProducerCall::Nothing),
            (Self::Asked, ProducerEvent::Level(_)) => (Self::Asked, ProducerCall::Nothing),

            // rule: flow-3: stopped once.
            (Self::Flowing | Self::Paused | Self::Waiting | Self::Asked, End) => (Self::Over, ProducerCall::Stop),
            (Self::Absent, End) => (Self::Over, ProducerCall::Nothing),

            // rule: flow-1: a producer that registers now is stopped at once.
            (Self::Over, RegisterPush | RegisterPull) => (Self::Over, ProducerCall::Stop),
            (Self::Over, Unregister | Written | ProducerEvent::Level(_) | End) => (Self::Over, ProducerCall::Nothing),
        };
        *self = next;
        Ok(tell)
    }

    /// Whether a producer is registered.
    pub fn is_there(self) -> bool {
        matches!(self, Self::Flowing | Self::Paused | Self::Waiting | Self::Asked)
    }
}
