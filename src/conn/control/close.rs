//! [`Control::close`]: a close of a connection that other tasks are using.

use std::pin::{Pin, pin};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::task::Waker;

use tokio::sync::futures::Notified;
use tokio::task::coop::consume_budget;
use tokio::time::timeout;

use super::{CLOSE_ASKED, Control, Watcher};
use crate::conn::after_unlock;
use crate::conn::waiting::park;
use crate::core::report::CloseReport;
use crate::core::stall::Stall;
use crate::error::{Phase, Reason};

/// A close in progress.
pub(crate) type Closing = Pin<Box<dyn Future<Output = CloseReport> + Send>>;

impl Control {
    /// Closes the connection in order, from any task or thread, while other tasks use both halves of the connection. It
    /// does what [`Transport::close`](crate::Transport::close) does, in any state, and returns the same report (rule:
    /// close-16). Several calls, and a `close` by the owner of the connection, return the same report.
    ///
    /// The first poll wakes the tasks that use the connection, and their calls fail: reads fail with
    /// [`Reason::Closed`](crate::Reason::Closed), writes fail as after `close_write` (broken pipe). Unread input is
    /// discarded. Reads do not return an end of file, because this would make the input look complete. Bytes that were
    /// accepted before are still sent. If a [protocol](crate::protocol) runs on the connection, this does the same as
    /// [`Handle::close`](crate::protocol::Handle::close).
    ///
    /// If a handshake or an upgrade is in progress, it is given up, or it is finished first if bytes are queued (rule:
    /// close-9).
    ///
    /// The tasks may drop their halves meanwhile. Over TCP, a half that is kept holds the socket's descriptor until the
    /// half is used or dropped. The owner of a plaintext [`Stream`](crate::Stream) has to poll it once, because only
    /// the owner can access the stream. If the owner does not do so within
    /// [`Policy::close_timeout`](crate::Policy::close_timeout), the stream is dropped at its next poll, and the reason
    /// is [`Reason::TimedOut`](crate::Reason::TimedOut). Another close of the connection that is in progress, but that
    /// nobody polls, is given up after twice that time, with the same reason.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use bowline::{Reason, Split, Transport};
    /// use tokio::io::AsyncReadExt;
    ///
    /// let (ours, mut theirs) = bowline::testing::tcp_pair().await?;
    /// let control = ours.control();
    /// let (mut read, write) = ours.into_split();
    /// let reader = tokio::spawn(async move { read.read(&mut [0; 16]).await });
    ///
    /// let (report, _) = tokio::join!(control.close(), theirs.close());
    /// assert!(report.is_clean());
    /// let error = reader.await?.unwrap_err();
    /// assert!(matches!(bowline::Error::from(error), bowline::Error::Ended(Reason::Closed)));
    /// # drop(write);
    /// # Ok(()) }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// After the first poll, no task can use the connection any more, even if the future is dropped. Call this method
    /// again to continue; the limits then start again. If no task holds the connection any more, it is dropped with the
    /// future.
    #[doc(alias = "loseConnection")]
    #[doc(alias = "shutdown")]
    pub fn close(&self) -> impl Future<Output = CloseReport> + Send + use<> {
        let this = self.clone();
        async move {
            if let Some(owner) = this.layers().find(|watcher| watcher.owns_close()) {
                return owner.close_in_order().await;
            }
            // The hold keeps the connection open. It is taken before the close is requested, because the tasks may drop
            // the connection as soon as they notice the request.
            let mut hold = this.hold();
            this.ask_close();
            let mut stall = Stall::new(this.taken());
            loop {
                let mut over = pin!(this.0.going.notified());
                over.as_mut().enable();
                if let Some(report) = this.report() {
                    // rule: life-6. Every further call returns at once too, so it costs budget.
                    consume_budget().await;
                    return report.clone();
                }
                // If the owner of the connection is closing it, the owner's report counts.
                if let Some(closing) = this.begin_closing() {
                    drop(hold.take());
                    return closing.await;
                }
                this.await_other_close(&mut stall, over).await;
            }
        }
    }

    /// Waits until the other close is over or was dropped. A task that holds a close must poll it, but nothing forces
    /// it to: a close that was polled once and then kept would hold up every other one. So a close that makes no
    /// progress for twice its own limit is given up.
    async fn await_other_close(&self, stall: &mut Stall, over: Pin<&mut Notified<'_>>) {
        let Some(bound) = self.policy().close_timeout else { return over.await };
        if timeout(Stall::interval(bound.saturating_mul(2)), over).await.is_err() && stall.check(self.taken()) {
            self.end(Reason::TimedOut(Phase::Close));
        }
    }

    /// Keeps the layers and the bottom layer alive, until the close itself keeps them. `None`: the connection has
    /// ended.
    fn hold(&self) -> Option<impl Send + use<>> {
        let layers: Vec<_> = self.layers().collect();
        Some((layers, self.bottom()?.hold()?))
    }

    /// From now on, only the close uses the connection, and ends it in order.
    fn ask_close(&self) {
        if self.0.touched.fetch_or(CLOSE_ASKED, Ordering::SeqCst) & CLOSE_ASKED != 0 {
            return;
        }
        let this = self.clone();
        after_unlock::run(move || {
            this.layers().for_each(|watcher| watcher.handle_close());
            if let Some(bottom) = this.bottom() {
                bottom.handle_close();
            }
        });
    }

    /// The close of the topmost layer. `None` if another close is in progress, or if the connection has ended.
    fn begin_closing(&self) -> Option<Closing> {
        if self.0.closing.compare_exchange(0, 1, Ordering::SeqCst, Ordering::SeqCst).is_err() {
            return None;
        }
        let lead = Lead(self.clone());
        let closing = match self.layers().last() {
            Some(watcher) => watcher.close_in_order(),
            None => self.bottom()?.close_in_order()?,
        };
        Some(Box::pin(async move {
            let _lead = lead;
            closing.await
        }))
    }

    /// The registered watchers, which wake the tasks that wait on them. Layers register from the bottom to the top.
    fn layers(&self) -> impl Iterator<Item = Arc<dyn Watcher>> {
        let watchers = self.0.watchers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        watchers.into_iter().filter_map(|watcher| watcher.upgrade())
    }

    /// Waits for the end of the connection, and returns its report.
    pub(crate) async fn ended(&self) -> CloseReport {
        loop {
            let mut over = pin!(self.0.going.notified());
            over.as_mut().enable();
            if let Some(report) = self.report() {
                consume_budget().await;
                return report.clone();
            }
            over.await;
        }
    }

    /// Waits until the socket is closed, or until the connection is cut off.
    pub(crate) async fn gone(&self) {
        loop {
            let mut over = pin!(self.0.going.notified());
            over.as_mut().enable();
            if self.is_gone() || self.is_cut() {
                return consume_budget().await;
            }
            over.await;
        }
    }

    /// The report of a connection that ended without a close, while a close is in progress.
    pub(crate) fn report_without_close(&self) -> CloseReport {
        let unclosed = || CloseReport { unacknowledged: self.unacknowledged(), ..CloseReport::of(self.reason()) };
        self.kept_report().cloned().unwrap_or_else(unclosed)
    }

    /// Notes the task of a [`close`](Self::close), before it registers with the socket.
    pub(crate) fn park_closer(&self, waker: &Waker) {
        park(&self.make_rare().closer, |task| task, waker);
    }

    /// Called after another task has registered with the socket, which keeps one task for each direction: the task of
    /// the close has to register again.
    pub(crate) fn wake_closer(&self) {
        let Some(rare) = self.rare() else { return };
        let closer = rare.closer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(closer) = closer {
            after_unlock::wake(closer);
        }
    }

    /// Whether [`close`](Self::close) was called: the application can no longer use the connection.
    pub(crate) fn is_close_asked(&self) -> bool {
        self.0.touched.load(Ordering::SeqCst) & CLOSE_ASKED != 0
    }

    /// Whether the connection was cut off, or [`close`](Self::close) was called. Every step of every operation checks
    /// this.
    #[inline]
    pub(crate) fn is_touched(&self) -> bool {
        self.0.touched.load(Ordering::Acquire) != 0
    }
}

/// The one close that clones of the `Control` have requested. If it is dropped, another one may take its place.
struct Lead(Control);

impl Drop for Lead {
    fn drop(&mut self) {
        self.0.set_closing(false);
    }
}
