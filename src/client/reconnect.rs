//! A client that reconnects after its connection has ended, with a wait in between.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use tokio::task::coop::consume_budget;
use tokio::time::{Instant, sleep_until};

use crate::conn::time::far;
use crate::core::backoff::Backoff;
use crate::error::{Blame, Error, chain};

/// Makes one connection after the other. When a connection has ended, call [`next`](Self::next) for a new one. A
/// [`Backoff`] decides how long to wait between attempts, and between connections.
///
/// The closure defines one attempt: for example connecting, the TLS handshake, and a log-in.
///
/// ```no_run
/// # async fn example(tls: bowline::ClientTls) -> Result<(), bowline::Error> {
/// use bowline::{Connector, Reconnector, TlsConnection, Transport};
/// use tokio::io::{AsyncBufReadExt, AsyncWriteExt};
///
/// let connector = Connector::new();
/// let mut connections = Reconnector::new(async || {
///     let tcp = connector.connect("example.org", 7001).await?;
///     TlsConnection::connect(tcp, &tls, "example.org").await
/// })
/// .on_failure(|failure| eprintln!("{failure}"));
/// loop {
///     let mut connection = connections.next().await?;
///     let mut line = String::new();
///     while connection.read_line(&mut line).await.is_ok_and(|n| n > 0) {
///         // ...
///         line.clear();
///     }
///     eprintln!("{}", connection.close().await);
/// }
/// # }
/// ```
#[doc(alias = "ReconnectingClientFactory")]
#[doc(alias = "ClientService")]
#[must_use]
pub struct Reconnector<C> {
    connect: C,
    backoff: Backoff,
    settled_after: Duration,
    max_attempts: Option<u32>,
    max_elapsed: Option<Duration>,
    on_failure: Option<Listening>,
    /// The time at which the current connection was made.
    made: Option<Instant>,
    /// Kept here, not in the future of `next`: dropping that future would also drop the wait.
    retry_at: Option<Instant>,
    /// The number of attempts since the last connection that was kept for `settled_after`.
    attempts: u32,
    since: Option<Instant>,
}

type Listening = Box<dyn FnMut(&AttemptFailure) + Send>;

/// A failed attempt, and the wait after it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AttemptFailure {
    /// The number of attempts since a connection last settled.
    pub attempt: u32,
    /// The error of the attempt.
    pub error: Error,
    /// The wait before the next attempt; `None` if there is no next attempt.
    pub wait: Option<Duration>,
}

impl fmt::Display for AttemptFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "attempt {} failed: {}; ", self.attempt, chain(&self.error))?;
        match self.wait {
            Some(wait) => write!(f, "the next attempt is in {wait:.1?}"),
            None => f.write_str("there is no further attempt"),
        }
    }
}

/// No attempt succeeded, and no more attempts are made. When this is converted to an [`Error`], it becomes the last
/// failure.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct GaveUp {
    /// The number of attempts since a connection last settled.
    pub attempts: u32,
    /// The time since the first of these attempts.
    pub elapsed: Duration,
    /// The error of the last attempt.
    pub last: Error,
}

impl fmt::Display for GaveUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "gave up after {} attempts in {:.1?}", self.attempts, self.elapsed)
    }
}

impl std::error::Error for GaveUp {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.last)
    }
}

impl From<GaveUp> for Error {
    fn from(gave_up: GaveUp) -> Self {
        gave_up.last
    }
}

impl<C, F, T> Reconnector<C>
where
    C: FnMut() -> F,
    F: Future<Output = Result<T, Error>>,
{
    /// `connect` makes one attempt. It should have a deadline, as [`Connector`](crate::Connector) and handshakes have.
    /// The defaults are the default [`Backoff`], no limit on attempts, and a
    /// [`settled_after`](Self::settled_after) of 10 seconds.
    pub fn new(connect: C) -> Self {
        Self {
            connect,
            backoff: Backoff::new(),
            settled_after: Duration::from_secs(10),
            max_attempts: None,
            max_elapsed: None,
            on_failure: None,
            made: None,
            retry_at: None,
            attempts: 0,
            since: None,
        }
    }

    /// The back-off between attempts.
    pub fn backoff(self, backoff: Backoff) -> Self {
        Self { backoff, ..self }
    }

    /// The time after which a connection counts as settled; default 10 seconds. After a shorter connection, the waits
    /// keep growing, so that a server that accepts connections and closes them at once is not flooded.
    pub fn settled_after(self, settled_after: Duration) -> Self {
        Self { settled_after, ..self }
    }

    /// The number of attempts in a row after which `next` gives up; default: no limit. Connections that did not settle
    /// count too.
    #[doc(alias = "maxRetries")]
    pub fn max_attempts(self, max: u32) -> Self {
        Self { max_attempts: Some(max), ..self }
    }

    /// The total time for attempts in a row: `next` gives up if the next attempt would start later than this after the
    /// first one. Default: no limit.
    pub fn max_elapsed(self, max: Duration) -> Self {
        Self { max_elapsed: Some(max), ..self }
    }

    /// Calls this function for every failure, including the last one.
    pub fn on_failure(self, told: impl FnMut(&AttemptFailure) + Send + 'static) -> Self {
        Self { on_failure: Some(Box::new(told)), ..self }
    }

    /// The next connection. The very first attempt is made at once. After a connection has ended, the next attempt is
    /// made after a wait, because many clients of one server lose their connections at the same moment. A connection is
    /// in use from the time at which this method returned it until the next call; a long use
    /// ([`settled_after`](Self::settled_after)) starts the count of attempts anew.
    ///
    /// # Errors
    /// [`GaveUp`] at the limits that were set, or at once if this side caused the error ([`Blame::Us`]), because
    /// waiting does not repair a wrong configuration. After that, this method may be called again. It then counts
    /// attempts and time from zero.
    ///
    /// # Cancel safety
    /// Cancel safe. The next call continues a wait where it was. A running attempt is dropped and does not count.
    pub async fn next(&mut self) -> Result<T, GaveUp> {
        // rule: life-6. Each call may give up at once, so it costs budget.
        consume_budget().await;
        self.handle_lost();
        let since = *self.since.get_or_insert_with(Instant::now);
        loop {
            if let Some(retry_at) = self.retry_at {
                sleep_until(retry_at).await;
            }
            let error = match (self.connect)().await {
                Ok(connection) => {
                    self.attempts += 1;
                    self.retry_at = None;
                    self.made = Some(Instant::now());
                    return Ok(connection);
                }
                Err(error) => error,
            };
            self.attempts += 1;
            let wait = self.wait_after(&error, since);
            self.retry_at = wait.map(far);
            let failure = AttemptFailure { attempt: self.attempts, error, wait };
            if let Some(told) = &mut self.on_failure {
                told(&failure);
            }
            if wait.is_none() {
                let gave_up = GaveUp { attempts: self.attempts, elapsed: since.elapsed(), last: failure.error };
                self.begin_anew();
                return Err(gave_up);
            }
        }
    }

    /// The caller asks for the next connection, so the current one has ended.
    fn handle_lost(&mut self) {
        let Some(made) = self.made.take() else { return };
        if made.elapsed() >= self.settled_after {
            self.begin_anew();
        }
        self.retry_at = Some(far(self.backoff.next_wait()));
    }

    fn begin_anew(&mut self) {
        self.backoff.reset();
        self.attempts = 0;
        self.since = None;
        self.retry_at = None;
    }

    /// The wait after this failure; `None` if there is no next attempt.
    fn wait_after(&mut self, error: &Error, since: Instant) -> Option<Duration> {
        let is_enough = self.max_attempts.is_some_and(|max| self.attempts >= max);
        if is_enough || error.blame() == Blame::Us {
            return None;
        }
        let wait = self.backoff.next_wait();
        let is_too_late = self.max_elapsed.is_some_and(|max| since.elapsed().saturating_add(wait) > max);
        (!is_too_late).then_some(wait)
    }
}

impl<C> fmt::Debug for Reconnector<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reconnector")
            .field("backoff", &self.backoff)
            .field("attempts", &self.attempts)
            .finish_non_exhaustive()
    }
}
