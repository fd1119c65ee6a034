//! What a handle does, from any task and thread.

use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::oneshot;

use super::conn::{CommandTarget, Handle, Producer};
use super::failure::Failure;
use super::handle_state::{Command, HandleState};
use super::reply::{Reply, ReplySender};
use crate::address::Address;
use crate::config::start_tls::StartTls;
use crate::conn::control::Control;
use crate::error::{Error, Reason, UpgradeError};
use crate::transport::layer::poll_budget;

/// The connection that a command is carried out on; none if it has ended.
type Target<'a> = Option<&'a mut (dyn CommandTarget + 'static)>;

impl Handle {
    pub(super) fn new(state: Arc<HandleState<dyn CommandTarget>>) -> Self {
        Self(state)
    }

    /// As [`Conn::write`](super::Conn::write).
    pub fn write(&self, bytes: impl AsRef<[u8]>) {
        self.0.write(bytes.as_ref());
    }

    /// As [`Conn::write_sequence`](super::Conn::write_sequence): the writes of other tasks come before or after all of it.
    pub fn write_sequence<B: AsRef<[u8]>>(&self, parts: impl IntoIterator<Item = B>) {
        let mut joined = Vec::new();
        parts.into_iter().for_each(|part| joined.extend_from_slice(part.as_ref()));
        self.0.write(&joined);
    }

    /// Writes, and returns whether the queue passed the high mark. If it did, the connection's task pauses the producer and
    /// resumes it later, even if the queue is shorter again before that task runs.
    pub(super) fn write_is_full(&self, bytes: &[u8]) -> bool {
        self.0.write(bytes)
    }

    /// As [`Conn::close`](super::Conn::close).
    #[doc(alias = "loseConnection")]
    pub fn close(&self) {
        self.call(|conn| conn.close());
    }

    /// As [`Conn::close_write`](super::Conn::close_write).
    #[doc(alias = "loseWriteConnection")]
    pub fn close_write(&self) {
        self.call(|conn| conn.close_write());
    }

    /// As [`Conn::abort`](super::Conn::abort). It acts at once, whatever the connection's task does.
    #[doc(alias = "abortConnection")]
    pub fn abort(&self) {
        self.0.control.abort();
        if !self.0.control.is_aborted() {
            // Both halves have ended already: the task has only to report the end.
            self.fail(Error::from(Reason::Aborted));
        }
    }

    /// Ends the connection with this error as its reason, as a callback does that returns it (rule: life-3).
    pub fn fail(&self, failure: impl Into<Failure>) {
        let failure = failure.into();
        self.call(|conn| conn.fail(failure));
    }

    /// As [`Conn::pause_reading`](super::Conn::pause_reading).
    pub fn pause_reading(&self) {
        self.call(|conn| conn.pause_reading());
    }

    /// As [`Conn::resume_reading`](super::Conn::resume_reading).
    pub fn resume_reading(&self) {
        self.call(|conn| conn.resume_reading());
    }

    /// As [`Conn::register_producer`](super::Conn::register_producer). The reply says whether it was registered; a producer
    /// that is refused is dropped.
    pub fn register_producer(&self, producer: Producer) -> Reply {
        self.ask(move |conn, reply| match conn {
            Some(conn) => reply.send(conn.register_producer(producer)),
            // rule: flow-1: registered on a dead connection it is stopped at once.
            None => {
                producer.stop_after_callbacks();
                reply.send(Ok(()));
            }
        })
    }

    /// As [`Conn::unregister_producer`](super::Conn::unregister_producer).
    pub fn unregister_producer(&self) {
        self.call(|conn| conn.unregister_producer());
    }

    /// As [`Conn::start_tls`](super::Conn::start_tls). The reply comes when the handshake is done, or has failed.
    #[doc(alias = "startTLS")]
    pub fn start_tls(&self, how: StartTls) -> Reply {
        self.ask(move |conn, reply| {
            if let Some(conn) = conn {
                conn.start_tls_replying(how, reply);
            }
        })
    }

    /// As [`Conn::stop_tls`](super::Conn::stop_tls). The reply comes when plaintext flows.
    pub fn stop_tls(&self) -> Reply {
        self.ask(|conn, reply| {
            if let Some(conn) = conn {
                conn.stop_tls_replying(reply);
            }
        })
    }

    /// As [`Conn::set_timer`](super::Conn::set_timer).
    pub fn set_timer(&self, after: Option<Duration>) {
        self.call(move |conn| conn.set_timer(after));
    }

    /// Has this called by the connection's task, unless the connection has ended.
    fn call(&self, call: impl FnOnce(&mut dyn CommandTarget) + Send + 'static) {
        self.0.post(Command::Call(Box::new(move |conn: Target<'_>| {
            if let Some(conn) = conn {
                call(conn);
            }
        })));
    }

    /// The same for a call that has an outcome. If no reply is sent, the outcome is the end of the connection.
    fn ask(&self, call: impl FnOnce(Target<'_>, ReplySender) + Send + 'static) -> Reply {
        let (sender, receiver) = oneshot::channel();
        let reply = ReplySender(sender);
        self.0.post(Command::Call(Box::new(move |conn: Target<'_>| call(conn, reply))));
        let handle = self.clone();
        Reply(Box::pin(async move {
            match receiver.await {
                Ok(outcome) => outcome,
                // The connection has ended before. The reason is published a little later.
                Err(_) => Err(UpgradeError::Failed(handle.lost().await).into()),
            }
        }))
    }

    /// How many bytes were written and have not left for the kernel, as of the connection's last turn.
    pub fn queued(&self) -> usize {
        self.0.queued()
    }

    /// How many bytes were dropped because they came after the end (rule: write-4).
    pub fn dropped(&self) -> u64 {
        self.0.dropped()
    }

    /// How many bytes the protocol has received and processed.
    pub fn received(&self) -> u64 {
        self.0.received.load(Ordering::Relaxed)
    }

    /// How many bytes were written and handed to the transport.
    pub fn sent(&self) -> u64 {
        self.0.sent.load(Ordering::Relaxed)
    }

    /// Waits until there is capacity for more bytes: until fewer are queued than the
    /// [high mark](crate::Watermarks), or, if that was passed, no more than the low mark.
    ///
    /// # Errors
    /// The reason, if the connection is lost.
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

    /// Whether the connection is lost. The protocol was notified before.
    pub fn is_lost(&self) -> bool {
        self.0.lost.get().is_some()
    }

    /// How it ended, once it has.
    pub fn reason(&self) -> Option<Reason> {
        self.0.lost.get().cloned()
    }

    /// Waits until the connection is lost and the protocol was notified; returns the reason.
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
