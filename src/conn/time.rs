//! Waits with an optional deadline. `None` means no deadline, and is used only if the application chose it (rule:
//! tcp-9).

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use crate::conn::alarm::Entry;

/// The time to wait for the peer's end after the alert of a failed handshake.
pub(crate) const FAREWELL: Duration = Duration::from_secs(1);

/// The time `timeout` from now. `None` if the clock cannot express it.
pub(crate) fn after(timeout: Option<Duration>) -> Option<Instant> {
    Instant::now().checked_add(timeout?)
}

/// The time `wait` from now. If the clock cannot express it, a time some decades from now.
pub(crate) fn far(wait: Duration) -> Instant {
    const DECADES: Duration = Duration::from_secs(30 * 365 * 24 * 3600);
    let now = Instant::now();
    now.checked_add(wait).unwrap_or_else(|| now + DECADES)
}

/// The output of `future`, or `None` at the deadline. If the future is ready at the deadline, its output is returned.
pub(crate) async fn until<F: Future>(deadline: Option<Instant>, future: F) -> Option<F::Output> {
    let (mut future, mut clock) = (pin!(future), Clock::new(deadline));
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => clock.poll(cx).map(|()| None),
    })
    .await
}

/// The deadline of a handshake or a close. The timer is set only when the operation has to wait.
pub(crate) struct Clock {
    deadline: Option<Instant>,
    wait: Option<Box<Entry>>,
}

impl Clock {
    pub(crate) fn new(deadline: Option<Instant>) -> Self {
        Self { deadline, wait: None }
    }

    /// The time of the deadline.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Whether there is a deadline without a running timer.
    pub(crate) fn is_idle(&self) -> bool {
        self.deadline.is_some() && self.wait.is_none()
    }

    /// Ready at the deadline.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.deadline else { return Poll::Pending };
        if let Some(wait) = &self.wait {
            return wait.poll(cx);
        }
        if deadline <= Instant::now() {
            return Poll::Ready(());
        }
        self.wait = Some(Box::new(Entry::new(deadline, cx)));
        Poll::Pending
    }
}

/// A timer that can be set again without another allocation.
#[derive(Default)]
pub(crate) struct Timer {
    at: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Timer {
    pub(crate) fn is_set(&self) -> bool {
        self.at.is_some()
    }

    pub(crate) fn set(&mut self, at: Option<Instant>) {
        if at == self.at {
            return;
        }
        self.at = at;
        if let (Some(at), Some(sleep)) = (at, &mut self.sleep) {
            sleep.as_mut().reset(at);
        }
    }

    /// Ready once, at the time that was set.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at else { return Poll::Pending };
        ready!(self.sleep.get_or_insert_with(|| Box::pin(sleep_until(at))).as_mut().poll(cx));
        self.at = None;
        Poll::Ready(())
    }
}
