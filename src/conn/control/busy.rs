//! Lets the application mark a connection as busy, so that it does not count as idle.

use std::fmt;

use super::Control;

impl Control {
    /// Marks the connection as busy until the guard is dropped: no idle time passes (rule: idle-4). When the last guard
    /// is dropped, the idle time starts again.
    ///
    /// A transport cannot know that the application is preparing an answer. A library such as hyper keeps a read
    /// pending while a request is processed, and the connection then looks as if the client were idle. So a service
    /// that sets [`Policy::idle_timeout`](crate::Policy::idle_timeout) should hold a guard while it processes a
    /// request:
    ///
    /// ```
    /// # async fn look_up() -> String { String::new() }
    /// async fn answer(control: bowline::Control) -> String {
    ///     let _busy = control.busy();
    ///     look_up().await // may take longer than the idle time
    /// }
    /// ```
    ///
    /// The guard does not keep a connection open that has ended, and does not extend a handshake or a close. Do not
    /// hold a guard while you wait for the peer, because a client that sends half a request and stops would then stay
    /// connected forever.
    #[doc(alias = "pause")]
    #[must_use = "the connection counts as busy until this is dropped"]
    pub fn busy(&self) -> Busy {
        self.0.activity.begin_work();
        Busy(self.clone())
    }
}

/// A guard that marks a connection as busy: see [`Control::busy`].
#[must_use = "the connection counts as busy until this is dropped"]
pub struct Busy(Control);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.0.activity.end_work();
    }
}

impl fmt::Debug for Busy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Busy").field(&self.0).finish()
    }
}
