//! A wait that may have an end. `None` is no bound, and is so only where the application asked for it (rule: tcp-9).

use std::time::Duration;

use tokio::time::Instant;

/// The moment `timeout` from now. A timeout that the clock cannot express is none.
pub(crate) fn after(timeout: Option<Duration>) -> Option<Instant> {
    Instant::now().checked_add(timeout?)
}

/// What `future` gives, or `None` at the deadline. A future that is ready at the deadline has made it.
pub(crate) async fn until<F: Future>(deadline: Option<Instant>, future: F) -> Option<F::Output> {
    match deadline {
        Some(deadline) => tokio::time::timeout_at(deadline, future).await.ok(),
        None => Some(future.await),
    }
}
