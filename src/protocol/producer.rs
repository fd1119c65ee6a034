//! Whoever writes more than fits, and wants to be told when to stop and when to go on.

use std::fmt;

use super::Outcome;
use super::conn::Transport;

/// Produces by itself, and can be held: another connection, a stream of events.
#[doc(alias = "IPushProducer")]
pub trait PushProducer: Send + 'static {
    /// More is queued than the high mark: produce no more for now (rule: flow-2).
    #[doc(alias = "pauseProducing")]
    #[doc(alias = "pause_writing")]
    fn pause(&mut self);

    /// There is room again.
    #[doc(alias = "resumeProducing")]
    #[doc(alias = "resume_writing")]
    fn resume(&mut self);

    /// Nothing can be sent any more: it is over. Told at most once, ahead of the connection's own end (rule: flow-3).
    #[doc(alias = "stopProducing")]
    fn stop(&mut self);
}

/// Produces when it is asked: a file, a generator.
#[doc(alias = "IPullProducer")]
pub trait PullProducer: Send + 'static {
    /// The queue has run empty: write the next piece, or have another task write it by the handle. It is asked again when
    /// that has left (rule: flow-2). The last piece is followed by
    /// [`unregister_producer`](Transport::unregister_producer), in the same call.
    #[doc(alias = "resumeProducing")]
    fn produce(&mut self, transport: &mut dyn Transport) -> Outcome;

    /// As [`PushProducer::stop`].
    #[doc(alias = "stopProducing")]
    fn stop(&mut self);
}

/// A producer, as it is registered.
pub enum Producer {
    /// One that is paused and resumed.
    Push(Box<dyn PushProducer>),
    /// One that is asked.
    Pull(Box<dyn PullProducer>),
}

impl Producer {
    /// A producer that is paused and resumed.
    pub fn push(producer: impl PushProducer) -> Self {
        Self::Push(Box::new(producer))
    }

    /// A producer that is asked.
    pub fn pull(producer: impl PullProducer) -> Self {
        Self::Pull(Box::new(producer))
    }

    pub(super) fn stop(&mut self) {
        match self {
            Self::Push(producer) => producer.stop(),
            Self::Pull(producer) => producer.stop(),
        }
    }
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Push(_) => "Producer::Push",
            Self::Pull(_) => "Producer::Pull",
        })
    }
}
