//! The handle that other tasks and threads hold, and the mailbox behind it.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::oneshot;

use super::Failure;
use super::handle_state::{Answer, Command, HandleState};
use super::producer::Producer;
use crate::address::Address;
use crate::config::start_tls::StartTls;
use crate::conn::control::Control;
use crate::error::{Error, Reason, UpgradeError};
use crate::transport::layer::poll_budget;

/// Does what a protocol's transport does, from any task and thread. Cheap to clone. It keeps nothing of the connection
/// alive (rule: life-4).
///
/// Calls return at once and are carried out in their order, by the connection's own task. After the end they do nothing:
/// bytes are dropped and counted, a producer is stopped (rule: life-5).
#[derive(Clone)]
pub struct Handle(Arc<HandleState>);

/// The outcome of something that a [`Handle`] asked for. It need not be awaited: it is done all the same.
pub struct Reply(Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>);

impl Future for Reply {
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply").finish_non_exhaustive()
    }
}

impl Handle {
    pub(super) fn new(handle_state: Arc<HandleState>) -> Self {
        Self(handle_state)
    }

    /// As [`Transport::write`](super::Transport::write).
    pub fn write(&self, bytes: impl AsRef<[u8]>) {
        self.0.write(bytes.as_ref());
    }

    /// As [`Transport::write_sequence`](super::Transport::write_sequence): nothing of another task's comes between.
    pub fn write_sequence<B: AsRef<[u8]>>(&self, parts: impl IntoIterator<Item = B>) {
        let mut joined = Vec::new();
        parts.into_iter().for_each(|part| joined.extend_from_slice(part.as_ref()));
        self.0.write(&joined);
    }

    /// Writes, and says whether that passed the high mark. Then the producer is paused, and told when there is room, as if the
    /// connection's own task had seen it: that may be busy elsewhere.
    pub(super) fn write_is_full(&self, bytes: &[u8]) -> bool {
        self.0.write(bytes)
    }

    /// As [`Transport::close`](super::Transport::close).
    #[doc(alias = "loseConnection")]
    pub fn close(&self) {
        self.0.post(Command::Close);
    }

    /// As [`Transport::close_write`](super::Transport::close_write).
    #[doc(alias = "loseWriteConnection")]
    pub fn close_write(&self) {
        self.0.post(Command::CloseWrite);
    }

    /// As [`Transport::abort`](super::Transport::abort). It acts at once, whatever the connection's task does.
    #[doc(alias = "abortConnection")]
    pub fn abort(&self) {
        self.0.control.abort();
        if !self.0.control.is_aborted() {
            // Both halves have ended already: only the telling is left, and the task's.
            self.fail(Error::from(Reason::Aborted));
        }
    }

    /// Ends the connection with this error as its reason, as a callback does that returns it (rule: life-3).
    pub fn fail(&self, failure: impl Into<Failure>) {
        self.0.post(Command::Fail(failure.into()));
    }

    /// As [`Transport::pause_reading`](super::Transport::pause_reading).
    pub fn pause_reading(&self) {
        self.0.post(Command::Pause);
    }

    /// As [`Transport::resume_reading`](super::Transport::resume_reading).
    pub fn resume_reading(&self) {
        self.0.post(Command::Resume);
    }

    /// As [`Transport::register_producer`](super::Transport::register_producer). A producer that is refused is dropped.
    pub fn register_producer(&self, producer: Producer) -> Reply {
        self.ask(|answer| Command::Register(producer, answer))
    }

    /// As [`Transport::unregister_producer`](super::Transport::unregister_producer).
    pub fn unregister_producer(&self) {
        self.0.post(Command::Unregister);
    }

    /// As [`UpgradableTransport::start_tls`](super::UpgradableTransport::start_tls). The reply comes when the handshake is
    /// done, or has failed.
    #[doc(alias = "startTLS")]
    pub fn start_tls(&self, how: StartTls) -> Reply {
        self.ask(|answer| Command::StartTls(Box::new(how), answer))
    }

    /// As [`UpgradableTransport::stop_tls`](super::UpgradableTransport::stop_tls). The reply comes when plaintext flows.
    pub fn stop_tls(&self) -> Reply {
        self.ask(Command::StopTls)
    }

    /// As [`Transport::set_timer`](super::Transport::set_timer).
    pub fn set_timer(&self, after: Option<Duration>) {
        self.0.post(Command::Timer(after));
    }

    fn ask(&self, order: impl FnOnce(Answer) -> Command) -> Reply {
        let (answer, receiver) = oneshot::channel();
        self.0.post(order(Answer(answer)));
        let handle = self.clone();
        Reply(Box::pin(async move {
            match receiver.await {
                Ok(outcome) => outcome,
                // It has ended before; how, is known a little later.
                Err(_) => Err(UpgradeError::Failed(handle.lost().await).into()),
            }
        }))
    }

    /// Bytes that were written and have not left for the kernel, as of the connection's last turn.
    pub fn queued(&self) -> usize {
        self.0.mailbox().bytes + self.0.queued.load(Ordering::Relaxed)
    }

    /// Bytes that were dropped because they came behind the end (rule: write-4).
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }

    /// Bytes that the protocol has received and is done with.
    pub fn received(&self) -> u64 {
        self.0.received.load(Ordering::Relaxed)
    }

    /// Bytes that were written and handed to the transport.
    pub fn sent(&self) -> u64 {
        self.0.sent.load(Ordering::Relaxed)
    }

    /// Waits until less is queued than the high mark, after it was passed less than the low one; an error with the reason
    /// when the connection is lost.
    ///
    /// # Cancel safety
    /// Cancel safe.
    #[doc(alias = "drain")]
    pub async fn room(&self) -> Result<(), Error> {
        // rule: life-6
        poll_fn(poll_budget).await;
        let mut room = pin!(self.0.room.notified());
        loop {
            room.as_mut().enable();
            if let Some(reason) = self.reason() {
                return Err(reason.into());
            }
            let is_above = self.queued() >= self.0.control.policy().watermarks.high;
            if self.0.has_room.load(Ordering::Acquire) && !is_above {
                return Ok(());
            }
            room.as_mut().await;
            room.set(self.0.room.notified());
        }
    }

    /// Whether the connection is lost; then the protocol was told.
    pub fn is_lost(&self) -> bool {
        self.0.lost.get().is_some()
    }

    /// How it ended, once it has.
    pub fn reason(&self) -> Option<Reason> {
        self.0.lost.get().cloned()
    }

    /// Waits until the connection is lost and the protocol was told; says how it ended.
    ///
    /// # Cancel safety
    /// Cancel safe.
    #[doc(alias = "connectionLost")]
    pub async fn lost(&self) -> Reason {
        // rule: life-6
        poll_fn(poll_budget).await;
        let mut losing = pin!(self.0.losing.notified());
        losing.as_mut().enable();
        loop {
            if let Some(reason) = self.reason() {
                return reason;
            }
            losing.as_mut().await;
            losing.set(self.0.losing.notified());
            losing.as_mut().enable();
        }
    }

    /// The handle of the connection itself.
    pub fn control(&self) -> &Control {
        &self.0.control
    }

    /// Our address.
    #[doc(alias = "getHost")]
    #[doc(alias = "host")]
    pub fn local_addr(&self) -> Address {
        self.0.control.local_addr()
    }

    /// The peer's address.
    #[doc(alias = "getPeer")]
    #[doc(alias = "peer")]
    pub fn peer_addr(&self) -> Address {
        self.0.control.peer_addr()
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("control", &self.0.control).field("lost", &self.0.lost.get()).finish()
    }
}
