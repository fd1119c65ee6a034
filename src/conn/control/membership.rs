//! The membership of a connection in its group and its listener. A connection is a member until its socket is closed.
//! Then it is counted under the outcome that is known at that time.

use std::pin::pin;
use std::sync::{Arc, PoisonError, Weak};

use tokio::task::coop::consume_budget;

use super::{Control, Inner};
use crate::core::outcome::Outcome;
use crate::error::Reason;
use crate::sync::Notify;
use crate::sync::atomic::{AtomicBool, AtomicU8, Ordering};

/// A handle that does not keep the shared state alive.
pub(crate) struct WeakControl(Weak<Inner>);

impl WeakControl {
    pub(crate) fn upgrade(&self) -> Option<Control> {
        self.0.upgrade().map(Control)
    }
}

/// The interface of a group that its connections use.
pub(crate) trait Group: Send + Sync {
    /// Whether the group has started to drain.
    fn is_draining(&self) -> bool;
    /// Notified when the group starts to drain.
    fn begun(&self) -> &Notify;
    /// Adds a connection, and returns its number.
    fn enter(&self, control: WeakControl) -> u32;
    /// Removes a connection that has ended or, without an outcome, one that already belongs to another group. A
    /// second call changes nothing.
    fn leave(&self, membership: &Membership, outcome: Option<&dyn Fn() -> Outcome>);
    /// Corrects the count, because the outcome of a connection became known only after the connection had left.
    fn correct(&self, membership: &Membership, outcome: Outcome);
}

/// A connection's membership, with the data that is needed to leave the group.
pub(crate) struct Membership {
    group: Arc<dyn Group>,
    /// The connection's number in the group.
    pub(crate) number: u32,
    /// 0 while the connection is a member, otherwise the outcome under which it was counted. Changed only under the
    /// group's lock.
    pub(crate) left: AtomicU8,
    /// A drain has aborted the connection before its handshake was done.
    pub(crate) unready: AtomicBool,
}

/// Waits until a group starts to drain.
pub(crate) async fn draining(group: &dyn Group) {
    let mut begun = pin!(group.begun().notified());
    begun.as_mut().enable();
    if group.is_draining() {
        // rule: life-6. A drain cannot be undone, so every further call returns at once too, and costs budget.
        consume_budget().await;
    } else {
        begun.await;
    }
}

impl Control {
    /// Whether the connection's group drains. False if the connection belongs to no group.
    pub fn is_draining(&self) -> bool {
        self.0.membership.get().is_some_and(|membership| membership.group.is_draining())
    }

    /// Waits until the [group](crate::DrainGroup) of the connection starts to drain. The service should then end the
    /// connection in the way of its protocol. If the connection belongs to no group, this waits forever. An accepted
    /// connection belongs to the group of its listener. Any other connection belongs to the group that it has
    /// [joined](crate::DrainGroup::join).
    ///
    /// A service that waits for the drain in a loop should pin one future and poll it again, as here:
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use bowline::{CloseReport, Transport};
    /// use tokio::io::AsyncBufReadExt;
    ///
    /// async fn serve(mut connection: impl Transport) -> std::io::Result<CloseReport> {
    ///     let control = connection.control();
    ///     let mut draining = std::pin::pin!(control.draining());
    ///     let mut line = String::new();
    ///     loop {
    ///         tokio::select! {
    ///             n = connection.read_line(&mut line) => if n? == 0 { break },
    ///             () = &mut draining => break,
    ///         }
    ///         // ...
    ///         line.clear();
    ///     }
    ///     Ok(connection.close_with(b"421 shutting down\r\n").await)
    /// }
    ///
    /// let (ours, mut theirs) = bowline::testing::tcp_pair().await?;
    /// let group = bowline::DrainGroup::new();
    /// group.join(&ours.control());
    /// let serving = tokio::spawn(serve(ours));
    /// group.begin_drain();
    /// let mut last = String::new();
    /// theirs.read_line(&mut last).await?;
    /// assert_eq!(last, "421 shutting down\r\n");
    /// theirs.close().await;
    /// assert!(serving.await??.is_clean());
    /// # Ok(()) }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn draining(&self) {
        match self.0.membership.get() {
            Some(membership) => draining(&*membership.group).await,
            None => std::future::pending().await,
        }
    }

    /// Makes the connection a member of this group, and returns whether it is a member now.
    pub(crate) fn join(&self, group: Arc<dyn Group>) -> bool {
        if self.is_gone() || self.0.membership.get().is_some() {
            return false;
        }
        let number = group.enter(WeakControl(Arc::downgrade(&self.0)));
        let membership = Membership { group, number, left: AtomicU8::new(0), unready: AtomicBool::new(false) };
        if let Err(second) = self.0.membership.set(membership) {
            // Another call has added the connection to a group first.
            second.group.leave(&second, None);
            return false;
        }
        if self.is_gone() {
            // The connection ended during this call, before its membership was set, so it has not left the group.
            self.leave();
        }
        if self.is_draining() {
            self.tell_draining();
        }
        !self.is_gone()
    }

    /// Keeps this value until the socket of the connection is closed.
    pub(crate) fn keep(&self, place: Box<dyn Send + Sync>) {
        *self.make_rare().places.lock().unwrap_or_else(PoisonError::into_inner) = Some(place);
    }

    /// As [`keep`](Self::keep), in addition to the value that is kept already. This value is dropped first.
    #[cfg(feature = "proxy")]
    pub(crate) fn keep_too(&self, place: Box<dyn Send + Sync>) {
        let mut places = self.make_rare().places.lock().unwrap_or_else(PoisonError::into_inner);
        *places = Some(match places.take() {
            Some(before) => Box::new((place, before)),
            None => place,
        });
        drop(places);
        if self.is_gone() {
            // The connection ended during this call, and may have released its places before this place was added.
            self.release_places();
        }
    }

    pub(super) fn release_places(&self) {
        if let Some(rare) = self.rare() {
            let places = rare.places.lock().unwrap_or_else(PoisonError::into_inner).take();
            drop(places);
        }
    }

    /// Records the reason of the end when a layer reports it. The topmost layer reports first; later reports change
    /// nothing.
    pub(crate) fn note_reason(&self, reason: &Reason) {
        if self.make_rare().noted.set(reason.clone()).is_ok() {
            self.recount();
        }
    }

    /// Aborts the connection for the drain, because its handshake is not done. The report of the drain counts it
    /// separately.
    pub(crate) fn abort_unready(&self) {
        let Some(membership) = self.0.membership.get() else { return self.abort() };
        membership.unready.store(true, Ordering::Release);
        if !self.cut_off() {
            // The connection had already ended for another reason, so the drain did not end it.
            membership.unready.store(false, Ordering::Release);
        }
    }

    pub(crate) fn is_unready(&self) -> bool {
        self.0.membership.get().is_some_and(|membership| membership.unready.load(Ordering::Acquire))
    }

    /// Corrects the count, because the outcome is now known better than when the connection left its group.
    pub(super) fn recount(&self) {
        if let Some(membership) = self.0.membership.get() {
            membership.group.correct(membership, self.outcome());
        }
    }

    /// The outcome, as far as it is known now.
    pub(crate) fn outcome(&self) -> Outcome {
        Outcome::of(&self.reason())
    }

    pub(super) fn leave(&self) {
        if let Some(membership) = self.0.membership.get() {
            membership.group.leave(membership, Some(&|| self.outcome()));
        }
    }
}
