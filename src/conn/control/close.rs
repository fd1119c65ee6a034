//! A close that is requested by the handle, while other tasks use the connection.

use std::pin::{Pin, pin};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use tokio::task::coop::consume_budget;

use super::{CLOSE_ASKED, Control, Watcher};
use crate::conn::unlocked;
use crate::core::report::CloseReport;

/// A close in progress.
pub(crate) type Closing = Pin<Box<dyn Future<Output = CloseReport> + Send>>;

impl Control {
    /// Ends the connection in order, from any task or thread, while other tasks use both halves of the connection. It does
    /// what [`Transport::close`](crate::Transport::close) does, in any state, and returns the same report (rule: close-16).
    /// Several calls, and a `close` by the owner of the connection, return one report.
    ///
    /// The first poll wakes the tasks that use the connection, and their calls fail: reads with
    /// [`Reason::Closed`](crate::Reason::Closed), writes as after `close_write` (broken pipe). Input that was not read yet is
    /// discarded, so a read does not return an end of file, which would make that input look complete. Bytes that were accepted before leave first. A connection that a [protocol](crate::protocol) runs is closed as by
    /// [`Handle::close`](crate::protocol::Handle::close).
    ///
    /// A handshake or an upgrade that is under way is given up, or is finished first if bytes wait for it (rule: close-9).
    ///
    /// The tasks may drop their halves meanwhile. Over TCP, a half that is kept holds its socket's descriptor until it is
    /// used or dropped. The owner of a plaintext [`Stream`](crate::Stream) has to poll it once, because nobody else can reach
    /// the stream: if it does not within [`Policy::close_timeout`](crate::Policy::close_timeout), the stream is dropped at its
    /// next poll, and the reason is [`Reason::TimedOut`](crate::Reason::TimedOut).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use bowline::{Reason, Transport};
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
    /// The first poll decides: no task can use the connection after it, even if the future is dropped. Call it again to
    /// continue; the bounds then start anew. If no task holds the connection any more, it is dropped with the future.
    #[doc(alias = "loseConnection")]
    #[doc(alias = "shutdown")]
    pub fn close(&self) -> impl Future<Output = CloseReport> + Send + use<> {
        let this = self.clone();
        async move {
            if let Some(owner) = this.layers().find(|watcher| watcher.owns_close()) {
                return owner.close_in_order().await;
            }
            // Taken first: the tasks may drop the connection as soon as they see that a close was asked for.
            let mut hold = this.hold();
            this.ask_close();
            loop {
                let mut over = pin!(this.0.going.notified());
                over.as_mut().enable();
                if let Some(report) = this.report() {
                    // rule: life-6. The connection has ended for good.
                    consume_budget().await;
                    return report.clone();
                }
                // The owner of the connection may be closing it: then its report counts.
                if let Some(closing) = this.begin_closing() {
                    drop(hold.take());
                    return closing.await;
                }
                over.await;
            }
        }
    }

    /// Keeps the layers and the bottom, until a close of its own keeps them. `None`: the connection has gone.
    fn hold(&self) -> Option<impl Send + use<>> {
        let layers: Vec<_> = self.layers().collect();
        Some((layers, self.bottom()?.hold()?))
    }

    /// From now on, the connection ends in order, and only the close uses it.
    fn ask_close(&self) {
        if self.0.touched.fetch_or(CLOSE_ASKED, Ordering::SeqCst) & CLOSE_ASKED != 0 {
            return;
        }
        let this = self.clone();
        unlocked::run(move || {
            this.layers().for_each(|watcher| watcher.handle_close());
            if let Some(bottom) = this.bottom() {
                bottom.handle_close();
            }
        });
    }

    /// The close of the topmost layer, unless another close is in progress, or the connection has gone.
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

    /// The owners of waiting tasks. Layers register themselves from the bottom to the top.
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

    /// Waits until the socket has gone, or was cut off.
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

    /// The report of a connection that has ended without a close, while a close is in progress.
    pub(crate) fn report_without_close(&self) -> CloseReport {
        let unclosed = || CloseReport { unacknowledged: self.unacknowledged(), ..CloseReport::of(self.reason()) };
        self.kept_report().cloned().unwrap_or_else(unclosed)
    }

    /// Whether the handle was asked for a close: the application can no longer use the connection.
    pub(crate) fn is_close_asked(&self) -> bool {
        self.0.touched.load(Ordering::SeqCst) & CLOSE_ASKED != 0
    }

    /// Whether the connection was cut off, or the handle was asked for a close. Checked at each step of each operation.
    #[inline]
    pub(crate) fn is_touched(&self) -> bool {
        self.0.touched.load(Ordering::Acquire) != 0
    }
}

/// The one close that was requested by handles. When it is dropped, another one may take its place.
struct Lead(Control);

impl Drop for Lead {
    fn drop(&mut self) {
        self.0.set_closing(false);
    }
}
