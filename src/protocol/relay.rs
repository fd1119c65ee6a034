//! A relay of two protocols. Each connection, a leg of the relay, is the producer of the other one.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::callbacks::{AfterRead, Protocol};
use super::conn::{Conn, Handle, Producer, PushProducer};
use super::failure::CallbackResult;
use crate::core::half::{End, RecvHalf, SendHalf};
use crate::core::relay::{Duty, Leg, duty};
use crate::error::{Error, Phase, Reason};
use crate::policy::Truncation;

/// Makes two protocols that forward to each other what they receive, in bounded memory. When one connection ends, the
/// other one ends in the same way: after a clean end its send half is closed, and after a truncation, a reset or any
/// other loss it is aborted (rule: flow-6). The two protocols may run over any two transports and start at different
/// times: the one that starts first waits for the other.
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
    let state = Arc::new(Mutex::new(RelayState::default()));
    (RelayLeg::new(0, Arc::clone(&state)), RelayLeg::new(1, state))
}

/// The interval at which the system is asked whether the last bytes have arrived.
const ASK_AGAIN: Duration = Duration::from_millis(10);

const A_YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// One of the two protocols of a [`relay`].
pub struct RelayLeg {
    index: usize,
    state: Arc<Mutex<RelayState>>,
    other: Option<Handle>,
    /// The end marker of this leg has been sent.
    is_written: bool,
}

impl fmt::Debug for RelayLeg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelayLeg").field("index", &self.index).finish_non_exhaustive()
    }
}

/// The state that the two legs share.
#[derive(Default)]
struct RelayState {
    legs: [Option<Handle>; 2],
    /// One of the legs has ended.
    is_off: bool,
    /// The time by which each leg must end, if the other leg has requested it.
    leave_by: [Option<Instant>; 2],
    /// For each leg: its peer has ended in order, so the peer's data is complete.
    is_whole: [bool; 2],
}

impl RelayState {
    /// One leg has ended. Returns the handle of the other leg, if that leg exists.
    fn leave(&mut self, index: usize) -> Option<Handle> {
        self.is_off = true;
        self.legs[index] = None;
        self.legs[1 - index].take()
    }

    /// The leg at this index is lost. Sets the time by which the other leg must end, if the reason requires an end, and
    /// returns whether it does. Then the caller wakes the other leg after the lock is released (rule: life-7).
    #[must_use]
    fn ask(&mut self, index: usize, reason: &Reason, other: &Handle) -> bool {
        let policy = other.control().policy();
        let timeout = match self.duty(index, reason, policy.truncation) {
            Duty::GoOn | Duty::CloseWrite => return false,
            // The timer fires before the abort, so bytes that were forwarded earlier still leave, as far as they can
            // without waiting.
            Duty::Abort => Duration::ZERO,
            // Without a time limit, the other leg may take as long as it needs.
            Duty::CloseWriteThenAbort => policy.close_timeout.unwrap_or(A_YEAR).min(A_YEAR),
        };
        self.leave_by[1 - index].get_or_insert(Instant::now() + timeout);
        true
    }

    fn duty(&self, index: usize, reason: &Reason, truncation: Truncation) -> Duty {
        if reason.is_clean() {
            return Duty::GoOn;
        }
        let send = match reason {
            Reason::Aborted => SendHalf::Aborted,
            reason => SendHalf::Broken(reason.clone()),
        };
        let recv = if self.is_whole[index] { RecvHalf::Ended(End::Clean) } else { RecvHalf::Broken(reason.clone()) };
        duty(&Leg { send, recv, lost: true, truncation })
    }
}

impl RelayLeg {
    fn new(index: usize, state: Arc<Mutex<RelayState>>) -> Self {
        Self { index, state, other: None, is_written: false }
    }

    fn with<R>(&self, f: impl FnOnce(&mut RelayState) -> R) -> R {
        f(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The other leg, once it exists. From then on, reading pauses on this leg while the other leg's queue is full.
    fn other(&mut self, conn: &mut dyn Conn) -> Option<&Handle> {
        if self.other.is_none() {
            self.other = self.with(|state| state.legs[1 - self.index].clone());
            if let Some(other) = &self.other {
                let (reader, state) = (conn.handle(), Arc::clone(&self.state));
                let producer = PauseWhileFull { reader, index: 1 - self.index, state };
                // The reply is dropped: registering cannot fail, because no other producer was registered before.
                drop(other.register_producer(Producer::push(producer)));
            }
        }
        self.other.as_ref()
    }
}

impl Protocol for RelayLeg {
    fn connection_made(&mut self, conn: &mut dyn Conn) -> CallbackResult {
        conn.control().reset_when_killed();
        let own = conn.handle();
        let (other, is_off) = self.with(|state| {
            state.legs[self.index] = Some(own);
            (state.legs[1 - self.index].clone(), state.is_off)
        });
        match other {
            Some(other) => other.resume_reading(),
            None if is_off => conn.abort(),
            None => conn.pause_reading(),
        }
        Ok(())
    }

    fn data_received(&mut self, conn: &mut dyn Conn, data: &[u8]) -> CallbackResult<usize> {
        let Some(other) = self.other(conn).cloned() else { return Ok(0) };
        // Reading is paused before the write, because the other leg's task may write the bytes and resume reading
        // before this callback continues.
        conn.pause_reading();
        if !other.write_is_full(data) {
            conn.resume_reading();
        }
        Ok(data.len())
    }

    fn read_closed(&mut self, conn: &mut dyn Conn, end: End) -> CallbackResult<AfterRead> {
        let is_whole = end == End::Clean || conn.control().policy().truncation == Truncation::Tolerate;
        self.with(|state| state.is_whole[self.index] = is_whole);
        if !is_whole {
            // The data that this leg's peer has received is incomplete too, so this connection must not end in order
            // either.
            return Err(Error::from(Reason::Truncated(Phase::Open)).into());
        }
        if let Some(other) = self.other(conn) {
            other.unregister_producer();
            other.close_write();
        }
        Ok(AfterRead::KeepWriting)
    }

    /// The other leg has requested the end of this one. Bytes that it forwarded before have left by now, as far as
    /// they could.
    fn timer_fired(&mut self, conn: &mut dyn Conn) -> CallbackResult {
        let until = self.with(|state| state.leave_by[self.index]);
        let is_written = self.is_written && conn.control().in_flight() == 0;
        match until {
            Some(until) if !is_written && Instant::now() < until => conn.set_timer(Some(ASK_AGAIN)),
            Some(_) => conn.abort(),
            None => {}
        }
        Ok(())
    }

    fn write_closed(&mut self, _: &mut dyn Conn) -> CallbackResult {
        self.is_written = true;
        Ok(())
    }

    fn connection_lost(&mut self, reason: &Reason) {
        self.leave(Some(reason));
    }
}

impl RelayLeg {
    /// This leg has ended. Lets the other leg end in the way that `reason` requires.
    fn leave(&mut self, reason: Option<&Reason>) {
        let waiting = self.with(|state| state.leave(self.index));
        match (self.other.take().or(waiting), reason) {
            (Some(other), Some(reason)) => {
                if self.with(|state| state.ask(self.index, reason, &other)) {
                    other.set_timer(Some(Duration::ZERO));
                }
            }
            (Some(other), None) => other.abort(),
            (None, _) => {}
        }
    }
}

/// If a leg is dropped with its runner, `connection_lost` is not called, but the other leg still has to end.
impl Drop for RelayLeg {
    fn drop(&mut self) {
        self.leave(None);
    }
}

/// Pauses one leg's reading while the other leg's queue is full.
struct PauseWhileFull {
    /// The leg that reads.
    reader: Handle,
    /// The index of the other leg.
    index: usize,
    state: Arc<Mutex<RelayState>>,
}

impl PushProducer for PauseWhileFull {
    fn pause(&mut self) {
        self.reader.pause_reading();
    }

    fn resume(&mut self) {
        self.reader.resume_reading();
    }

    /// The other leg can send no more, and its peer has not got all the data. Its own end may take time, because an
    /// alert has to be sent first.
    fn stop(&mut self) {
        let is_due = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.ask(self.index, &Reason::Reset(Phase::Open), &self.reader)
        };
        if is_due {
            self.reader.set_timer(Some(Duration::ZERO));
        }
        self.reader.resume_reading();
    }
}
