//! A client that comes back: one connection after the other, with waits between.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use tokio::task::coop::consume_budget;
use tokio::time::{Instant, sleep_until};

use crate::conn::time::far;
use crate::core::backoff::Backoff;
use crate::error::{Blame, Error, chain};

/// Gives one connection after the other: whenever the last one has ended, ask for the [`next`](Self::next). Between
/// attempts, and between connections, it waits by a [`Backoff`].
///
/// What is an attempt says the closure: connecting, the handshake, a log-in.
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
    /// When the connection was made that is in use.
    made: Option<Instant>,
    /// Kept here and not in the future of one call: dropping that one would also drop the wait.
    retry_at: Option<Instant>,
    /// Since the last connection that settled.
    attempts: u32,
    since: Option<Instant>,
}

type Listening = Box<dyn FnMut(&AttemptFailure) + Send>;

/// An attempt that failed, and what comes next.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AttemptFailure {
    /// How many attempts there were since a connection last settled.
    pub attempt: u32,
    /// Why it failed.
    pub error: Error,
    /// How long it waits before the next attempt; `None`: there is none.
    pub wait: Option<Duration>,
}

impl fmt::Display for AttemptFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "attempt {} failed: {}; ", self.attempt, chain(&self.error))?;
        match self.wait {
            Some(wait) => write!(f, "the next one is in {wait:.1?}"),
            None => f.write_str("there is no other one"),
        }
    }
}

/// No connection came about, and none is tried for any more. As an [`Error`] it is the last failure.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct GaveUp {
    /// How many attempts there were since a connection last settled.
    pub attempts: u32,
    /// How long that took.
    pub elapsed: Duration,
    /// Why the last one failed.
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
    /// Attempts are made by `connect`, which should have a deadline, as [`Connector`](crate::Connector) and handshakes have.
    /// The default [`Backoff`], no end of attempts, and a connection has settled after 10 seconds.
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

    /// How long to wait between attempts.
    pub fn backoff(self, backoff: Backoff) -> Self {
        Self { backoff, ..self }
    }

    /// How long a connection must be in use before it counts as one that went well; default 10 seconds. Behind one that did
    /// not, waits go on growing: a server that lets in and throws out again is not stormed.
    pub fn settled_after(self, settled_after: Duration) -> Self {
        Self { settled_after, ..self }
    }

    /// After how many attempts in a row to give up; default: never. Connections that did not settle count too.
    #[doc(alias = "maxRetries")]
    pub fn max_attempts(self, max: u32) -> Self {
        Self { max_attempts: Some(max), ..self }
    }

    /// Gives up rather than begin to wait for an attempt that would be later than this after the first one in a row;
    /// default: never.
    pub fn max_elapsed(self, max: Duration) -> Self {
        Self { max_elapsed: Some(max), ..self }
    }

    /// Is told every failure, the last one too.
    pub fn on_failure(self, told: impl FnMut(&AttemptFailure) + Send + 'static) -> Self {
        Self { on_failure: Some(Box::new(told)), ..self }
    }

    /// The next connection. The first attempt of all is made at once; a connection is followed by another one after a wait,
    /// because many clients of one server lose it at the same moment. How long the last one was in use is the time since
    /// this returned it.
    ///
    /// # Errors
    /// [`GaveUp`] at the bounds that were set, and at once where the fault is ours ([`Blame::Us`]): a wrong configuration
    /// does not mend by waiting. It may be called again, and begins anew.
    ///
    /// # Cancel safety
    /// Cancel safe: a wait goes on where it was; an attempt that was under way is dropped and does not count.
    pub async fn next(&mut self) -> Result<T, GaveUp> {
        // rule: life-6. Each call may give up at once.
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

    /// The connection that was given out is over: whoever asks for the next one says so.
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

    /// How long to wait behind this failure; `None`: no more.
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
