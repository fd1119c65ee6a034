//! The race of connection attempts (RFC 8305 section 5; rule: tcp-4). The schedule decides which attempt starts when;
//! the first success wins. No task is spawned: the race is one future, and dropping it drops every attempt.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use super::schedule::Schedule;
use crate::conn::time::until;
use crate::error::ConnectAttempt;

/// All attempts failed, or the deadline passed.
#[derive(Debug)]
pub(super) struct Lost {
    /// The failed attempts in the order in which they failed, followed by the attempts that were still running at the
    /// deadline.
    pub(super) attempts: Vec<ConnectAttempt>,
    /// The deadline passed. Otherwise all attempts failed before it.
    pub(super) timed_out: bool,
}

/// Runs `connect` for the addresses, and returns the first success. The other attempts are dropped.
pub(super) async fn race<T, C, F>(
    addrs: impl IntoIterator<Item = SocketAddr>,
    delay: Duration,
    deadline: Option<Instant>,
    connect: C,
) -> Result<T, Lost>
where
    C: FnMut(SocketAddr) -> F,
    F: Future<Output = io::Result<T>>,
{
    let now = Instant::now();
    let mut race = Race {
        schedule: Schedule::new(addrs, delay, now.into_std()),
        timer: Box::pin(sleep_until(now)),
        connect,
        pending: Vec::new(),
        failed: Vec::new(),
    };
    match until(deadline, poll_fn(|cx| race.poll(cx))).await {
        Some(Some(winner)) => Ok(winner),
        Some(None) => Err(Lost { attempts: race.failed, timed_out: false }),
        None => Err(Lost { attempts: race.time_out(), timed_out: true }),
    }
}

struct Race<C, F> {
    schedule: Schedule,
    timer: Pin<Box<Sleep>>,
    connect: C,
    pending: Vec<(SocketAddr, Pin<Box<F>>)>,
    failed: Vec<ConnectAttempt>,
}

impl<T, C, F> Race<C, F>
where
    C: FnMut(SocketAddr) -> F,
    F: Future<Output = io::Result<T>>,
{
    /// The first success; `None` when all attempts have failed.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        loop {
            // Running attempts are polled before a new one starts: if one has succeeded, no new one is needed.
            if let Poll::Ready(winner) = self.poll_attempts(cx) {
                return Poll::Ready(Some(winner));
            }
            if let Some(addr) = self.schedule.step(Instant::now().into_std()) {
                self.pending.push((addr, Box::pin((self.connect)(addr))));
                continue;
            }
            if let Some(due) = self.schedule.due() {
                self.timer.as_mut().reset(due.into());
                ready!(self.timer.as_mut().poll(cx));
                continue;
            }
            return if self.pending.is_empty() { Poll::Ready(None) } else { Poll::Pending };
        }
    }

    fn poll_attempts(&mut self, cx: &mut Context<'_>) -> Poll<T> {
        let mut n = 0;
        while let Some((addr, attempt)) = self.pending.get_mut(n) {
            match attempt.as_mut().poll(cx) {
                Poll::Pending => n += 1,
                Poll::Ready(Ok(winner)) => return Poll::Ready(winner),
                Poll::Ready(Err(error)) => {
                    self.failed.push(ConnectAttempt { addr: (*addr).into(), error: Arc::new(error) });
                    drop(self.pending.remove(n));
                    self.schedule.handle_failure(Instant::now().into_std());
                }
            }
        }
        Poll::Pending
    }

    fn time_out(self) -> Vec<ConnectAttempt> {
        let timed_out =
            |addr: SocketAddr| ConnectAttempt { addr: addr.into(), error: Arc::new(io::ErrorKind::TimedOut.into()) };
        let pending = self.pending.into_iter().map(|(addr, _)| timed_out(addr));
        self.failed.into_iter().chain(pending).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::future::pending;

    use tokio::time::sleep;

    use super::*;

    const DELAY: Duration = Duration::from_millis(250);
    const A: &str = "[2001:db8::1]:80";
    const B: &str = "192.0.2.1:80";
    const C: &str = "[2001:db8::2]:80";

    /// The scripted behaviour of an address.
    #[derive(Clone, Copy)]
    enum Will {
        Connect(u64),
        Refuse(u64),
        Hang,
    }
    use Will::{Connect, Hang, Refuse};

    /// Addresses that behave as scripted. Keeps a transcript of what happened at which millisecond.
    struct Net {
        begin: Instant,
        hosts: Vec<(SocketAddr, Will)>,
        log: RefCell<Vec<(u64, String)>>,
    }

    /// Notes when an attempt is dropped, finished or not.
    struct Attempt<'a>(&'a Net, SocketAddr);

    impl Drop for Attempt<'_> {
        fn drop(&mut self) {
            self.0.tell("drop", self.1);
        }
    }

    impl Net {
        fn new(hosts: &[(&str, Will)]) -> Self {
            let hosts = hosts.iter().map(|(addr, will)| (addr.parse().unwrap(), *will)).collect();
            Self { begin: Instant::now(), hosts, log: RefCell::default() }
        }

        fn now(&self) -> u64 {
            self.begin.elapsed().as_millis().try_into().unwrap()
        }

        fn tell(&self, what: &str, addr: SocketAddr) {
            self.log.borrow_mut().push((self.now(), format!("{what} {addr}")));
        }

        async fn connect(&self, addr: SocketAddr) -> io::Result<SocketAddr> {
            self.tell("start", addr);
            let _attempt = Attempt(self, addr);
            match self.hosts.iter().find(|(host, _)| *host == addr).unwrap().1 {
                Connect(ms) => sleep(Duration::from_millis(ms)).await,
                Refuse(0) => return Err(io::ErrorKind::ConnectionRefused.into()),
                Refuse(ms) => {
                    sleep(Duration::from_millis(ms)).await;
                    return Err(io::ErrorKind::ConnectionRefused.into());
                }
                Hang => pending().await,
            }
            Ok(addr)
        }

        async fn race(&self, timeout_ms: u64) -> Result<String, Lost> {
            let deadline = Some(self.begin + Duration::from_millis(timeout_ms));
            let addrs = self.hosts.iter().map(|(addr, _)| *addr);
            race(addrs, DELAY, deadline, |addr| self.connect(addr)).await.map(|addr| addr.to_string())
        }

        /// The start time of each attempt.
        fn starts(&self) -> Vec<(u64, String)> {
            let log = self.log.borrow();
            log.iter().filter_map(|(at, line)| Some((*at, line.strip_prefix("start ")?.to_owned()))).collect()
        }
    }

    fn at(ms: u64, addr: &str) -> (u64, String) {
        (ms, addr.to_owned())
    }

    fn told(lost: &Lost) -> Vec<(String, io::ErrorKind)> {
        lost.attempts.iter().map(|attempt| (attempt.addr.to_string(), attempt.error.kind())).collect()
    }

    /// rule: tcp-4
    #[tokio::test(start_paused = true)]
    async fn a_second_attempt_starts_250_ms_after_a_silent_first_one() {
        let net = Net::new(&[(A, Hang), (B, Connect(30))]);
        assert_eq!(net.race(30_000).await.unwrap(), B);
        assert_eq!(net.starts(), [at(0, A), at(250, B)]);
        assert_eq!(net.now(), 280);
    }

    /// rule: tcp-4
    #[tokio::test(start_paused = true)]
    async fn a_failure_starts_the_next_attempt_at_once() {
        let net = Net::new(&[(A, Refuse(10)), (B, Refuse(0)), (C, Connect(5))]);
        assert_eq!(net.race(30_000).await.unwrap(), C);
        assert_eq!(net.starts(), [at(0, A), at(10, B), at(10, C)]);
        assert_eq!(net.now(), 15);
    }

    /// rule: tcp-4
    #[tokio::test(start_paused = true)]
    async fn the_delay_counts_from_the_attempt_that_a_failure_started() {
        let net = Net::new(&[(A, Refuse(100)), (B, Hang), (C, Connect(0))]);
        assert_eq!(net.race(30_000).await.unwrap(), C);
        assert_eq!(net.starts(), [at(0, A), at(100, B), at(350, C)]);
    }

    /// rule: tcp-4
    #[tokio::test(start_paused = true)]
    async fn families_alternate_in_the_race() {
        let net = Net::new(&[(A, Hang), (C, Hang), (B, Connect(600))]);
        assert_eq!(net.race(30_000).await.unwrap(), B);
        assert_eq!(net.starts(), [at(0, A), at(250, B), at(500, C)]);
    }

    /// rule: tcp-4
    #[tokio::test(start_paused = true)]
    async fn a_first_that_is_slow_but_in_time_stays_alone() {
        let net = Net::new(&[(A, Connect(249)), (B, Connect(0))]);
        assert_eq!(net.race(30_000).await.unwrap(), A);
        assert_eq!(net.starts(), [at(0, A)]);
    }

    /// rule: tcp-4
    #[tokio::test(start_paused = true)]
    async fn a_late_first_beats_a_later_second_and_the_loser_is_dropped() {
        let net = Net::new(&[(A, Connect(300)), (B, Connect(100))]);
        assert_eq!(net.race(30_000).await.unwrap(), A);
        let log = net.log.borrow();
        assert!(log.contains(&at(300, &format!("drop {B}"))), "{log:?}");
    }

    /// rule: tcp-4
    #[tokio::test(start_paused = true)]
    async fn every_failure_is_reported_in_the_order_of_the_failures() {
        let net = Net::new(&[(A, Refuse(400)), (B, Refuse(100)), (C, Refuse(20))]);
        let lost = net.race(30_000).await.unwrap_err();
        let refused = |addr: &str| (addr.to_owned(), io::ErrorKind::ConnectionRefused);
        assert_eq!(told(&lost), [refused(B), refused(C), refused(A)]);
        assert!(!lost.timed_out);
        assert_eq!(net.now(), 400);
    }

    /// rule: tcp-4, tcp-9
    #[tokio::test(start_paused = true)]
    async fn one_deadline_ends_the_race_and_lists_the_running_attempts() {
        let net = Net::new(&[(A, Hang), (B, Refuse(10)), (C, Hang)]);
        let lost = net.race(1_000).await.unwrap_err();
        let timed_out = |addr: &str| (addr.to_owned(), io::ErrorKind::TimedOut);
        let refused = (B.to_owned(), io::ErrorKind::ConnectionRefused);
        assert_eq!(told(&lost), [refused, timed_out(A), timed_out(C)]);
        assert!(lost.timed_out);
        assert_eq!(net.now(), 1_000);
    }

    /// rule: tcp-4
    #[tokio::test(start_paused = true)]
    async fn dropping_the_race_drops_every_attempt() {
        let net = Net::new(&[(A, Hang), (B, Hang)]);
        assert!(tokio::time::timeout(DELAY * 2, net.race(30_000)).await.is_err());
        let dropped = net.log.borrow().iter().filter(|(_, line)| line.starts_with("drop")).count();
        assert_eq!(dropped, 2);
    }
}
