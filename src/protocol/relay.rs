//! Two connections as each other's producer.

use std::sync::{Arc, Mutex, PoisonError};

use super::handle::Handle;
use super::producer::{Producer, PushProducer};
use super::transport::UpgradableTransport;
use super::{AfterRead, Outcome, Protocol};
use crate::core::half::End;
use crate::error::Reason;

/// Two protocols that pass on to each other what they receive, in bounded memory, and each end in kind: a clean end as the
/// end of the other's half, a truncation, a reset or any other loss as an abort (rule: flow-6). They can be run over any two
/// transports, at different times: the one that is there first waits for the other.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use bowline::Transport;
/// use bowline::protocol::{Runner, relay};
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// let (mut client, front) = bowline::testing::tcp_pair().await?;
/// let (back, mut backend) = bowline::testing::tcp_pair().await?;
/// let (to_client, to_backend) = relay();
/// tokio::spawn(Runner::new(to_client, front).run());
/// tokio::spawn(Runner::new(to_backend, back).run());
///
/// client.write_all(b"question").await?;
/// client.close_write().await?; // the backend sees it, and can still answer
/// let mut question = String::new();
/// backend.read_to_string(&mut question).await?;
/// backend.write_all(b"answer").await?;
/// backend.close_write().await?;
/// let mut answer = String::new();
/// client.read_to_string(&mut answer).await?;
/// assert_eq!((question.as_str(), answer.as_str()), ("question", "answer"));
/// # Ok(()) }
/// ```
#[doc(alias = "portforward")]
#[doc(alias = "ProxyServer")]
pub fn relay() -> (RelayLeg, RelayLeg) {
    let meeting = Arc::new(Mutex::new(Meeting::default()));
    (RelayLeg::new(0, Arc::clone(&meeting)), RelayLeg::new(1, meeting))
}

/// One of the two protocols of a [`relay`].
pub struct RelayLeg {
    place: usize,
    meeting: Arc<Mutex<Meeting>>,
    other: Option<Handle>,
}

/// Where the two find each other.
#[derive(Default)]
struct Meeting {
    legs: [Option<Handle>; 2],
    /// One of them has gone without meeting the other.
    is_off: bool,
}

impl RelayLeg {
    fn new(place: usize, meeting: Arc<Mutex<Meeting>>) -> Self {
        Self { place, meeting, other: None }
    }

    fn with<R>(&self, f: impl FnOnce(&mut Meeting) -> R) -> R {
        f(&mut self.meeting.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The other leg, once it is there. What comes from here is then paused by the room there is over there.
    fn other(&mut self, transport: &mut dyn UpgradableTransport) -> Option<&Handle> {
        if self.other.is_none() {
            self.other = self.with(|meeting| meeting.legs[1 - self.place].clone());
            if let Some(other) = &self.other {
                let valve = Valve(transport.handle());
                // There is none before this one.
                drop(other.register_producer(Producer::push(valve)));
            }
        }
        self.other.as_ref()
    }
}

impl Protocol for RelayLeg {
    fn connection_made(&mut self, transport: &mut dyn UpgradableTransport) -> Outcome {
        let own = transport.handle();
        let (other, is_off) = self.with(|meeting| {
            meeting.legs[self.place] = Some(own);
            (meeting.legs[1 - self.place].clone(), meeting.is_off)
        });
        match other {
            Some(other) => other.resume_reading(),
            None if is_off => transport.abort(),
            None => transport.pause_reading(),
        }
        Ok(())
    }

    fn data_received(&mut self, transport: &mut dyn UpgradableTransport, data: &[u8]) -> Outcome<usize> {
        let Some(other) = self.other(transport) else { return Ok(0) };
        other.write(data);
        Ok(data.len())
    }

    fn read_closed(&mut self, transport: &mut dyn UpgradableTransport, end: End) -> Outcome<AfterRead> {
        if let Some(other) = self.other(transport) {
            match end {
                End::Clean => {
                    other.unregister_producer();
                    other.close_write();
                }
                // Behind what came it must not look complete.
                End::Truncated | End::Unconfirmed => other.abort(),
            }
        }
        Ok(AfterRead::KeepWriting)
    }

    fn connection_lost(&mut self, reason: &Reason) {
        self.leave(reason.is_clean());
    }
}

impl RelayLeg {
    /// This leg is no more. The other one has been told of a clean end already; any other one it has to be seen by.
    fn leave(&mut self, is_clean: bool) {
        let other = self.with(|meeting| {
            meeting.is_off = true;
            meeting.legs[self.place] = None;
            meeting.legs[1 - self.place].take()
        });
        if let Some(other) = self.other.take().or(other).filter(|_| !is_clean) {
            other.abort();
        }
    }
}

/// A leg that is dropped with its runner is told nothing, and is gone all the same.
impl Drop for RelayLeg {
    fn drop(&mut self) {
        self.leave(false);
    }
}

/// Lets in no more than there is room for on the other side.
struct Valve(Handle);

impl PushProducer for Valve {
    fn pause(&mut self) {
        self.0.pause_reading();
    }

    fn resume(&mut self) {
        self.0.resume_reading();
    }

    /// Nothing more can be sent over there: its own end tells the rest.
    fn stop(&mut self) {
        self.0.resume_reading();
    }
}
