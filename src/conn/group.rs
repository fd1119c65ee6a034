//! Draining: the listeners accept no new connections, every open connection is notified, and those that are still open
//! at the deadline are aborted.

use std::fmt;
use std::pin::pin;
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use slab::Slab;
use tokio::task::coop::consume_budget;

use crate::conn::control::{Control, Group, Membership, Observers, WeakControl, draining};
use crate::conn::time::{after, until};
use crate::core::drain::DrainReport;
use crate::core::outcome::{Outcome, OutcomeCounts};
use crate::policy::Policy;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Mutex, MutexGuard, Notify};

/// A group of connections that end together: the connections of one or several [`Listener`](crate::Listener)s, and
/// others that have [joined](Self::join). A service is stopped through this handle. It is cheap to clone, and any task
/// or thread may hold it.
///
/// Every connection joins the group of its listener when it is accepted, and leaves it when its socket is closed, also
/// after an upgrade, a split or a drop. The group keeps no connection alive (rule: life-4).
///
/// A connection is notified of the drain by [`Control::draining`]:
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use bowline::{Connector, Error, Listener, Transport};
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// let listener = Listener::bind("127.0.0.1:0").await?;
/// let (addr, group) = (listener.local_addr(), listener.group().clone());
/// let serving = tokio::spawn(async move {
///     loop {
///         let mut connection = match listener.accept().await {
///             Ok(incoming) => incoming.into_tcp(),
///             Err(Error::Draining) => return Ok(()),
///             Err(error) => return Err(error),
///         };
///         tokio::spawn(async move {
///             let control = connection.control();
///             let mut byte = [0];
///             tokio::select! {
///                 _ = connection.read(&mut byte) => {}
///                 () = control.draining() => {}
///             }
///             connection.close_with(b"bye").await
///         });
///     }
/// });
///
/// let mut client = Connector::new().connect_addr(addr).await?;
/// while group.connections() == 0 {
///     tokio::task::yield_now().await;
/// }
/// let stopping = tokio::spawn(async move { group.drain(Duration::from_secs(30)).await });
/// let mut last = String::new();
/// client.read_to_string(&mut last).await?;
/// client.close().await;
/// assert_eq!(last, "bye");
/// assert_eq!(stopping.await?.to_string(), "1 connection ended: 1 closed");
/// serving.await??;
/// # Ok(()) }
/// ```
#[doc(alias = "stopListening")]
#[doc(alias = "loseConnection")]
#[doc(alias = "wait_closed")]
#[doc(alias = "close_clients")]
#[doc(alias = "Shutdown")]
#[doc(alias = "CancellationToken")]
#[derive(Clone, Default)]
pub struct DrainGroup(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// The drain has begun. `begun` wakes only the tasks that wait at that moment.
    draining: AtomicBool,
    begun: Notify,
    emptied: Notify,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    members: Slab<WeakControl>,
    listeners: Vec<Weak<dyn Drainable>>,
    /// The connections that ended since the drain began.
    ended: OutcomeCounts,
    cut_off: usize,
    /// The connections whose handshake the drain has aborted.
    handshakes: usize,
    /// The connections that the drain has taken out of a backlog and that are no members yet, and drains that are
    /// closing the listeners.
    arriving: usize,
    /// The observers of the listeners, until the drain is over.
    observers: Observers,
}

/// A listening socket, as a drain uses it.
pub(crate) trait Drainable: Send + Sync {
    /// Stops accepting connections.
    fn shut(&self);
    /// Stops accepting connections, for a drain. Connections in the backlog may still be accepted.
    fn drain(&self, group: &DrainGroup);
    /// Resets the connections that were taken out of the backlog and not accepted. Returns their number.
    fn discard(&self) -> usize;
}

/// Keeps a drain from ending, for a connection that is about to join the group or listeners that are being closed.
pub(crate) struct Arriving(Arc<Inner>);

impl Drop for Arriving {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.arriving -= 1;
        self.0.unlock(state);
    }
}

/// The value for a connection that left before the drain started.
const UNCOUNTED: u8 = u8::MAX;

impl DrainGroup {
    /// An empty group. Listeners can share it ([`ListenerBuilder::group`](crate::ListenerBuilder::group)), and
    /// connections can join it.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a connection, for example an outgoing one. Returns whether it is now a member: it is not if it already
    /// belongs to another group or has ended. A connection that joins while the group drains is notified at once.
    pub fn join(&self, control: &Control) -> bool {
        control.join(Arc::clone(&self.0) as Arc<dyn Group>)
    }

    /// Starts the drain and does not wait. The listeners of the group are closed, unfinished handshakes are aborted,
    /// and every connection is notified, by [`Control::draining`] and
    /// [`Protocol::draining`](crate::protocol::Protocol::draining). A second call has no effect. A drain cannot be
    /// cancelled.
    ///
    /// The system resets connections that wait in its backlog and were not accepted, unless
    /// [`ListenerBuilder::finish_on_drain`](crate::ListenerBuilder::finish_on_drain) was chosen. A listening socket
    /// that was
    /// [passed in](crate::ListenerBuilder::from_std) stays open for its other holders, with its backlog (rule: tcp-10).
    pub fn begin_drain(&self) {
        // This value keeps the group from looking empty: another call of `drain` must not return before the listeners
        // are closed.
        let closing = self.arriving();
        let (listeners, begun) = {
            let state = self.state();
            let begun =
                (!self.0.draining.swap(true, Ordering::SeqCst)).then(|| (state.members.len(), state.observers.clone()));
            (state.listeners.clone(), begun)
        };
        if let Some((open, observers)) = begun {
            observers.tell(|observer| observer.draining(open));
        }
        listeners.iter().filter_map(Weak::upgrade).for_each(|listener| listener.drain(self));
        self.0.begun.notify_waiters();
        self.members().iter().for_each(Control::tell_draining);
        drop(closing);
    }

    /// Starts the drain, waits until every connection has ended, and aborts the connections that are still open at
    /// the deadline. Returns how many connections ended with which outcome. `None`: no deadline (rule: tcp-9).
    ///
    /// The application ends each of its connections in the way of its protocol. A connection that ignores the drain is
    /// aborted with RST at the deadline. `drain` does not wait until the application has noticed the abort.
    ///
    /// May be called again, and by several tasks. Each call has its own deadline, and each report counts from the start
    /// of the drain.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe. The drain continues, but without the call nothing aborts the connections that are still open at the
    /// deadline.
    pub async fn drain(&self, deadline: impl Into<Option<Duration>>) -> DrainReport {
        self.begin_drain();
        let deadline = after(deadline.into());
        if until(deadline, self.emptied()).await.is_none() {
            self.cut_off();
        }
        let (mut ended, cut_off, mut handshakes, open, observers) = {
            let mut state = self.state();
            let observers = std::mem::take(&mut state.observers);
            // These values are kept until the lock is released, because dropping the last `Control` of a connection
            // runs the destructors of everything in it.
            let open: Vec<Control> = state.members.iter().filter_map(|(_, member)| member.upgrade()).collect();
            (state.ended.clone(), state.cut_off, state.handshakes, open, observers)
        };
        for control in &open {
            match control.is_unready() {
                true => handshakes += 1,
                false => ended.add(control.outcome()),
            }
        }
        let report = DrainReport { ended, cut_off, handshakes };
        observers.tell(|observer| observer.drained(&report));
        report
    }

    /// Whether the drain has started.
    pub fn is_draining(&self) -> bool {
        self.0.is_draining()
    }

    /// Waits until the drain starts.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn draining(&self) {
        draining(&*self.0).await;
    }

    /// The number of open connections.
    pub fn connections(&self) -> usize {
        self.state().members.len()
    }

    /// Waits until no connection is open.
    async fn emptied(&self) {
        loop {
            let mut emptied = pin!(self.0.emptied.notified());
            emptied.as_mut().enable();
            if self.state().is_empty() {
                return consume_budget().await;
            }
            emptied.await;
        }
    }

    fn cut_off(&self) {
        let cut_off = self.members().iter().filter(|control| control.cut_off()).count();
        let listeners = self.state().listeners.clone();
        let discarded: usize = listeners.iter().filter_map(Weak::upgrade).map(|listener| listener.discard()).sum();
        let mut state = self.state();
        state.cut_off += cut_off + discarded;
        (0..discarded).for_each(|_| state.ended.add(Outcome::Aborted));
    }

    /// A guard that keeps a drain from ending.
    pub(crate) fn arriving(&self) -> Arriving {
        self.state().arriving += 1;
        Arriving(Arc::clone(&self.0))
    }

    /// The members, to be notified or ended after the lock is released: a member may leave the group, which takes the
    /// lock, as soon as it is notified.
    fn members(&self) -> Vec<Control> {
        self.state().members.iter().filter_map(|(_, member)| member.upgrade()).collect()
    }

    /// Registers a listener that adds connections to this group. If the drain has already started, the listener is
    /// closed.
    pub(crate) fn add_listener(&self, listener: Weak<dyn Drainable>) {
        let mut state = self.state();
        if !self.is_draining() {
            state.listeners.retain(|listener| listener.strong_count() > 0);
            return state.listeners.push(listener);
        }
        drop(state);
        if let Some(listener) = listener.upgrade() {
            listener.shut();
        }
    }

    /// The observers of this policy, which is the one of a listener, are notified of the drain.
    pub(crate) fn add_observers(&self, policy: &Policy) {
        if let Some(observers) = Observers::of(policy) {
            self.state().observers.merge(&observers);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state()
    }
}

impl State {
    fn is_empty(&self) -> bool {
        self.members.is_empty() && self.arriving == 0
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Releases the lock, and wakes the tasks that wait for the last member to leave. rule: life-7
    fn unlock(&self, state: MutexGuard<'_, State>) {
        let is_empty = state.is_empty();
        drop(state);
        if is_empty {
            self.emptied.notify_waiters();
        }
    }
}

impl Group for Inner {
    fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    fn begun(&self) -> &Notify {
        &self.begun
    }

    fn enter(&self, control: WeakControl) -> u32 {
        let number = self.state().members.insert(control);
        u32::try_from(number).expect("each connection has a descriptor, so there are fewer than 2³¹")
    }

    /// The outcome is read under the lock. If it becomes known later, the correction then finds the count that it has
    /// to correct.
    fn leave(&self, membership: &Membership, outcome: Option<&dyn Fn() -> Outcome>) {
        let mut state = self.state();
        if membership.left.load(Ordering::Acquire) != 0 {
            return;
        }
        state.members.try_remove(membership.number as usize);
        let mut left = UNCOUNTED;
        if membership.unready.load(Ordering::Acquire) {
            state.handshakes += 1;
        } else if let Some(outcome) = outcome.filter(|_| self.is_draining()) {
            let outcome = outcome();
            state.ended.add(outcome);
            left = outcome as u8;
        }
        membership.left.store(left, Ordering::Release);
        self.unlock(state);
    }

    fn correct(&self, membership: &Membership, outcome: Outcome) {
        if membership.left.load(Ordering::Acquire) == 0 {
            return;
        }
        let mut state = self.state();
        if let Some(counted) = Outcome::from_code(membership.left.load(Ordering::Acquire)) {
            state.ended.correct(counted, outcome);
            membership.left.store(outcome as u8, Ordering::Release);
        }
    }
}

impl fmt::Debug for DrainGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (connections, is_draining) = (self.connections(), self.is_draining());
        f.debug_struct("DrainGroup").field("connections", &connections).field("is_draining", &is_draining).finish()
    }
}
