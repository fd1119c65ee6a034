//! Waits for the end of a connection that no task reads from.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Wake, Waker};

use tokio::task::coop::consume_budget;

use super::{Control, Inner};
use crate::conn::control::delivery::Delivery;

impl Control {
    /// Waits until the connection has ended or was reset, even while no task reads from it or writes to it (rule:
    /// flow-5). The next operation on the transport returns the reason.
    ///
    /// Over a TCP socket, this also detects a reset. Over any other stream, it only detects the end.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    #[doc(alias = "connectionLost")]
    pub async fn lost(&self) {
        let mut delivery = Delivery::default();
        loop {
            let mut told = pin!(self.0.going.notified());
            told.as_mut().enable();
            if self.is_ended() || self.is_cut() || self.failure().is_some() {
                // rule: life-6. Every further call returns at once too, so it costs budget.
                return consume_budget().await;
            }
            if self.awaits_delivery() {
                // The task that ended the connection may never poll it again, so this task checks the delivery.
                poll_fn(|cx| delivery.poll(cx, || self.awaits_delivery())).await;
                continue;
            }
            if self.has_error() {
                return consume_budget().await;
            }
            told.await;
        }
    }

    /// Whether the system reports an error of the socket. If it does not, the waiting tasks are woken when it does. The
    /// bottom layer is referenced only during this check, because a waiting task must not keep a socket open (rule:
    /// life-4).
    fn has_error(&self) -> bool {
        self.bottom().is_some_and(|bottom| bottom.has_error(&Waker::from(Arc::clone(&self.0))))
    }
}

/// The socket has an error to report.
impl Wake for Inner {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.going.notify_waiters();
    }
}
