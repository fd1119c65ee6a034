//! The methods of a connection's [`Handle`], which any task and thread may call.

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

/// The connection on which a command is carried out; `None` if it has ended.
type Target<'a> = Option<&'a mut (dyn CommandTarget + 'static)>;

impl Handle {
    pub(super) fn new(state: Arc<HandleState<dyn CommandTarget>>) -> Self {
        Self(state)
    }

    /// See [`Conn::write`](super::Conn::write).
    pub fn write(&self, bytes: impl AsRef<[u8]>) {
        self.0.write(bytes.as_ref());
    }

    /// See [`Conn::write_sequence`](super::Conn::write_sequence). Writes of other tasks come before or after the
    /// whole sequence.
    pub fn write_sequence<B: AsRef<[u8]>>(&self, parts: impl IntoIterator<Item = B>) {
        let mut joined = Vec::new();
        parts.into_iter().for_each(|part| joined.extend_from_slice(part.as_ref()));
        self.0.write(&joined);
    }

    /// Writes, and returns whether the queue passed the high mark. If it did, the connection's task pauses the
    /// producer and resumes it later, even if the queue has become shorter before that task runs.
    pub(super) fn write_is_full(&self, bytes: &[u8]) -> bool {
        self.0.write(bytes)
    }

    /// See [`Conn::close`](super::Conn::close).
    #[doc(alias = "loseConnection")]
    pub fn close(&self) {
        self.call(|conn| conn.close());
    }

    /// See [`Conn::close_write`](super::Conn::close_write).
    #[doc(alias = "loseWriteConnection")]
    pub fn close_write(&self) {
        self.call(|conn| conn.close_write());
    }

    /// See [`Conn::abort`](super::Conn::abort). It takes effect at once, whatever the connection's task is doing.
    #[doc(alias = "abortConnection")]
    pub fn abort(&self) {
        self.0.control.abort();
        if !self.0.control.is_aborted() {
            // Both halves have ended already, so the task only has to report the end.
            self.fail(Error::from(Reason::Aborted));
        }
    }

    /// Ends the connection with this error as its reason, like a callback that returns the error (rule: life-3).
    pub fn fail(&self, failure: impl Into<Failure>) {
        let failure = failure.into();
        self.call(|conn| conn.fail(failure));
    }

    /// See [`Conn::pause_reading`](super::Conn::pause_reading).
    pub fn pause_reading(&self) {
        self.call(|conn| conn.pause_reading());
    }

    /// See [`Conn::resume_reading`](super::Conn::resume_reading).
    pub fn resume_reading(&self) {
        self.call(|conn| conn.resume_reading());
    }

    /// See [`Conn::register_producer`](super::Conn::register_producer). The reply says whether the producer was
    /// registered. If it was not, it is dropped.
    pub fn register_producer(&self, producer: Producer) -> Reply {
        self.ask(move |conn, reply| match conn {
            Some(conn) => reply.send(conn.register_producer(producer)),
            // rule: flow-1: the connection has ended, so the producer is stopped at once.
            None => {
                producer.stop_after_callbacks();
                reply.send(Ok(()));
            }
        })
    }

    /// See [`Conn::unregister_producer`](super::Conn::unregister_producer).
    pub fn unregister_producer(&self) {
        self.call(|conn| conn.unregister_producer());
    }

    /// See [`Conn::start_tls`](super::Conn::start_tls). The reply is sent when the handshake is done or has failed.
    #[doc(alias = "startTLS")]
    pub fn start_tls(&self, how: StartTls) -> Reply {
        self.ask(move |conn, reply| {
            if let Some(conn) = conn {
                conn.start_tls_replying(how, reply);
            }
        })
    }

    /// See [`Conn::stop_tls`](super::Conn::stop_tls). The reply is sent when the layer beneath is in use again.
    pub fn stop_tls(&self) -> Reply {
        self.ask(|conn, reply| {
            if let Some(conn) = conn {
                conn.stop_tls_replying(reply);
            }
        })
    }

    /// See [`Conn::set_timer`](super::Conn::set_timer).
    pub fn set_timer(&self, after: Option<Duration>) {
        self.call(move |conn| conn.set_timer(after));
    }

    /// Lets the connection's task make this call. If the connection has ended, the call is skipped.
    fn call(&self, call: impl FnOnce(&mut dyn CommandTarget) + Send + 'static) {
        self.0.post(Command::Call(Box::new(move |conn: Target<'_>| {
            if let Some(conn) = conn {
                call(conn);
            }
        })));
    }

    /// Like `call`, for a call with an outcome. If no reply is sent, the outcome is the reason of the connection's
    /// end.
    fn ask(&self, call: impl FnOnce(Target<'_>, ReplySender) + Send + 'static) -> Reply {
        let (sender, receiver) = oneshot::channel();
        let reply = ReplySender(sender);
        self.0.post(Command::Call(Box::new(move |conn: Target<'_>| call(conn, reply))));
        let handle = self.clone();
        Reply(Box::pin(async move {
            match receiver.await {
                Ok(outcome) => outcome,
                // The connection has ended already. Its reason is published a little later, so this waits for it.
                Err(_) => Err(UpgradeError::Failed(handle.lost().await).into()),
            }
        }))
    }

    /// The number of bytes that were written and have not reached the kernel, as of the connection's last turn.
    pub fn queued(&self) -> usize {
        self.0.queued()
    }

    /// The number of bytes that were dropped because they were written after the end (rule: write-4).
    pub fn dropped(&self) -> u64 {
        self.0.dropped()
    }

    /// The number of bytes that the protocol has received and processed.
    pub fn received(&self) -> u64 {
        self.0.received.load(Ordering::Relaxed)
    }

    /// The number of bytes that were written and passed to the transport.
    pub fn sent(&self) -> u64 {
        self.0.sent.load(Ordering::Relaxed)
    }

    /// Waits until more bytes may be written: until fewer bytes are queued than the [high mark](crate::Watermarks)
    /// or, if that mark was passed, no more than the low mark.
    ///
    /// # Errors
    /// The reason of the end if the connection is lost.
    ///
    /// # Cancel safety
    /// Cancel safe.
    #[doc(alias = "drain")]
    pub async fn writable(&self) -> Result<(), Error> {
        // rule: life-6. The result may be ready at once, so the call costs budget.
        poll_fn(poll_budget).await;
        let mut writable = pin!(self.0.writable.notified());
        loop {
            writable.as_mut().enable();
            if let Some(reason) = self.reason() {
                return Err(reason.into());
            }
            let is_above = self.queued() >= self.0.control.policy().watermarks.high;
            if self.0.is_writable.load(Ordering::Acquire) && !is_above {
                return Ok(());
            }
            writable.as_mut().await;
            writable.set(self.0.writable.notified());
        }
    }

    /// Whether the connection is lost. The protocol was notified before this becomes true.
    pub fn is_lost(&self) -> bool {
        self.0.lost.get().is_some()
    }

    /// The reason of the end; `None` while the connection is not lost.
    pub fn reason(&self) -> Option<Reason> {
        self.0.lost.get().cloned()
    }

    /// Waits until the connection is lost and the protocol was notified, and returns the reason.
    ///
    /// # Cancel safety
    /// Cancel safe.
    #[doc(alias = "connectionLost")]
    pub async fn lost(&self) -> Reason {
        // rule: life-6. The result may be ready at once, so the call costs budget.
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

    /// The [`Control`] of the connection.
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
