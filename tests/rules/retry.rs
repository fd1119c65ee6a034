use std::cell::RefCell;
use std::io::ErrorKind;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bowline::{Backoff, ConfigError, ConfigProblem, Connector, Error, Listener, Phase, Reason, Reconnector, Transport};
use tokio::time::{Instant, sleep, timeout};

use crate::common::BOUND;

const SECOND: Duration = Duration::from_secs(1);

/// Waits of 1, 2, 4, 8 and 10 seconds.
fn backoff() -> Backoff {
    Backoff::new().max(SECOND * 10).jitter(0.0)
}

fn reset() -> Error {
    Reason::Reset(Phase::Connect).into()
}

/// A server that answers as the test decides, and records the time of each attempt.
struct Server {
    begin: Instant,
    answers: RefCell<Vec<Result<u32, Error>>>,
    asked: RefCell<Vec<u64>>,
}

impl Server {
    fn new(answers: impl IntoIterator<Item = Result<u32, Error>>) -> Self {
        let mut answers: Vec<_> = answers.into_iter().collect();
        answers.reverse();
        Self { begin: Instant::now(), answers: answers.into(), asked: RefCell::default() }
    }

    async fn connect(&self) -> Result<u32, Error> {
        self.asked.borrow_mut().push(self.begin.elapsed().as_secs());
        self.answers.borrow_mut().pop().unwrap_or_else(|| Err(reset()))
    }
}

/// rule: retry-2
#[tokio::test(start_paused = true)]
async fn attempts_follow_growing_waits_and_every_failure_is_reported() {
    let server = Server::new([Err(reset()), Err(reset()), Err(reset()), Ok(7)]);
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = Arc::clone(&told);
    let mut connections = Reconnector::new(|| server.connect())
        .backoff(backoff())
        .on_failure(move |failure| tell.lock().unwrap().push(failure.to_string()));
    assert_eq!(connections.next().await.unwrap(), 7);
    assert_eq!(*server.asked.borrow(), [0, 1, 3, 7]);
    let told = told.lock().unwrap();
    assert_eq!(told.len(), 3);
    assert_eq!(told[1], "attempt 2 failed: reset by the peer; the next attempt is in 2.0s");
}

/// rule: retry-2
#[tokio::test(start_paused = true)]
async fn a_settled_connection_resets_the_waits_and_others_let_them_grow() {
    let server = Server::new([Err(reset()), Ok(1), Ok(2), Ok(3), Ok(4)]);
    let mut connections = Reconnector::new(|| server.connect()).backoff(backoff()).settled_after(SECOND * 20);
    // The attempt at 0 seconds fails. Those at 1 and 3 seconds succeed, and each connection is dropped at once.
    for expected in [1, 2] {
        assert_eq!(connections.next().await.unwrap(), expected);
    }
    // The wait has grown to 4 seconds. This connection, made at 7 seconds, is in use until 27.
    assert_eq!(connections.next().await.unwrap(), 3);
    sleep(SECOND * 20).await;
    assert_eq!(connections.next().await.unwrap(), 4);
    assert_eq!(*server.asked.borrow(), [0, 1, 3, 7, 28]);
}

/// rule: retry-2
#[tokio::test(start_paused = true)]
async fn a_reconnector_gives_up_at_its_limits_and_starts_again() {
    let server = Server::new([]);
    let mut connections = Reconnector::new(|| server.connect()).backoff(backoff()).max_attempts(3);
    let gave_up = connections.next().await.unwrap_err();
    assert_eq!((gave_up.attempts, gave_up.elapsed.as_secs()), (3, 3));
    assert!(matches!(Error::from(gave_up), Error::Ended(Reason::Reset(_))));
    assert_eq!(connections.next().await.unwrap_err().attempts, 3);
    assert_eq!(*server.asked.borrow(), [0, 1, 3, 3, 4, 6]);

    let server = Server::new([]);
    let mut connections = Reconnector::new(|| server.connect()).backoff(backoff()).max_elapsed(SECOND * 10);
    let gave_up = connections.next().await.unwrap_err();
    assert_eq!((gave_up.attempts, gave_up.elapsed.as_secs()), (4, 7));
}

/// rule: retry-2
#[tokio::test(start_paused = true)]
async fn a_fault_of_ours_is_not_tried_again() {
    let problem = bowline::config::server_name("no name").unwrap_err();
    assert!(matches!(&problem, Error::Config(ConfigError { problem: ConfigProblem::BadServerName(_), .. })));
    let server = Server::new([Err(problem)]);
    let mut connections = Reconnector::new(|| server.connect());
    assert_eq!(connections.next().await.unwrap_err().attempts, 1);
}

/// rule: retry-2
#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_keeps_the_wait() {
    let server = Server::new([Err(reset()), Err(reset()), Ok(1)]);
    let mut connections = Reconnector::new(|| server.connect()).backoff(backoff());
    let connection = loop {
        if let Ok(connection) = timeout(Duration::from_millis(300), connections.next()).await {
            break connection.unwrap();
        }
    };
    assert_eq!(connection, 1);
    assert_eq!(*server.asked.borrow(), [0, 1, 3]);
}

/// rule: retry-2, tcp-4
#[tokio::test]
async fn a_client_comes_back_to_a_server_that_comes_back() {
    let first = Listener::bind("127.0.0.1:0").await.unwrap();
    let addr = first.local_addr().as_inet().unwrap();
    let connector = Connector::new();
    let backoff = Backoff::new().initial(Duration::from_millis(1)).max(Duration::from_millis(10));
    let failed = Arc::new(tokio::sync::Notify::new());
    let tell = Arc::clone(&failed);
    let mut connections = Reconnector::new(async || connector.connect_addr(addr).await)
        .backoff(backoff)
        .on_failure(move |failure| {
            assert!(matches!(&failure.error, Error::Connect(error) if error.attempts[0].error.kind() == ErrorKind::ConnectionRefused));
            tell.notify_one();
        });
    let mut client = timeout(BOUND, connections.next()).await.unwrap().unwrap();
    client.abort();
    drop(first);
    let coming_back = async {
        failed.notified().await;
        let again = Listener::bind(addr).await.unwrap();
        again.accept().await.unwrap().into_tcp()
    };
    let (client, server) = timeout(BOUND, async { tokio::join!(connections.next(), coming_back) }).await.unwrap();
    assert_eq!(client.unwrap().local_addr(), server.peer_addr());
}

/// rule: retry-2, life-6
#[tokio::test(start_paused = true)]
async fn an_unlimited_backoff_waits() {
    let asked = RefCell::new(0);
    let mut connections = Reconnector::new(async || {
        *asked.borrow_mut() += 1;
        Err::<(), _>(reset())
    })
    .backoff(Backoff::new().initial(Duration::MAX).max(Duration::MAX).jitter(0.0));
    assert!(timeout(SECOND * 24 * 3600, connections.next()).await.is_err());
    drop(connections);
    assert_eq!(asked.into_inner(), 1);
}
