//! Two protocols joined in memory, under the control of a test.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

use super::pairs::shared_pki;
use super::pipe::{Pipe, pipe};
use crate::address::Address;
use crate::config::start_tls::StartTls;
use crate::core::report::CloseReport;
use crate::error::Reason;
use crate::layers::stream::Stream;
use crate::layers::upgradable::UpgradableConnection;
use crate::policy::Policy;
use crate::protocol::{Handle, Protocol, Runner};

/// The most bytes in transit in one direction.
const CAPACITY: usize = 1 << 20;
/// The number of rounds in which each task is polled. After them, nothing more can happen: a runner does all that it
/// can in one poll.
const TURNS: usize = 64;

/// Two protocols on the two ends of a connection in memory, each run by a real runner. No byte arrives before the test
/// delivers it, and no time passes before the test advances the clock. So a test can play any order of events, and
/// repeat it.
///
/// ```
/// use std::time::Duration;
/// use bowline::protocol::{CallbackResult, Conn, Protocol};
/// use bowline::testing::Duet;
///
/// struct Ping;
/// struct Pong;
///
/// impl Protocol for Ping {
///     fn connection_made(&mut self, conn: &mut dyn Conn) -> CallbackResult {
///         conn.write(b"ping");
///         conn.set_timer(Some(Duration::from_secs(5)));
///         Ok(())
///     }
///     fn data_received(&mut self, _: &mut dyn Conn, data: &[u8]) -> CallbackResult<usize> {
///         Ok(data.len())
///     }
///     fn timer_fired(&mut self, conn: &mut dyn Conn) -> CallbackResult {
///         conn.close();
///         Ok(())
///     }
/// }
///
/// impl Protocol for Pong {
///     fn data_received(&mut self, conn: &mut dyn Conn, data: &[u8]) -> CallbackResult<usize> {
///         conn.write(b"pong");
///         Ok(data.len())
///     }
/// }
///
/// let mut duet = Duet::new(Ping, Pong);
/// assert_eq!(duet.deliver_to_b(3), 3);
/// assert_eq!(duet.deliver_to_a(100), 4); // the answer to the first three bytes
/// duet.advance(Duration::from_secs(5));
/// duet.deliver_all();
/// assert!(duet.ended().0.unwrap().is_clean());
/// ```
#[doc(alias = "IOPump")]
#[doc(alias = "connectedServerAndClient")]
#[doc(alias = "Clock")]
pub struct Duet {
    runtime: Runtime,
    a: Side,
    b: Side,
}

impl fmt::Debug for Duet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Duet").finish_non_exhaustive()
    }
}

/// One protocol, and the other end of its transport.
struct Side {
    handle: Handle,
    task: JoinHandle<CloseReport>,
    /// `None` once the end of the connection has been delivered.
    far: Option<Pipe>,
    has_read_end: bool,
}

impl Duet {
    /// Joins two protocols in plaintext. `a` counts as the side that has connected.
    ///
    /// # Panics
    /// Panics inside a tokio runtime, because it has its own runtime with a paused clock.
    pub fn new(a: impl Protocol, b: impl Protocol) -> Self {
        Self::with(a, b, Policy::default(), None)
    }

    /// Joins two protocols in TLS, with `a` as the client. The test has to deliver the bytes of the handshake too.
    ///
    /// # Panics
    /// As [`new`](Self::new).
    pub fn tls(a: impl Protocol, b: impl Protocol) -> Self {
        let pki = shared_pki();
        let begin = [StartTls::client(&pki.client_tls(), "localhost"), StartTls::server(&pki.server_tls())];
        Self::with(a, b, Policy::default(), Some(begin))
    }

    /// Joins two protocols under this policy. With `begin`, both start TLS in the given way.
    ///
    /// # Panics
    /// As [`new`](Self::new).
    pub fn with(a: impl Protocol, b: impl Protocol, policy: Policy, begin: Option<[StartTls; 2]>) -> Self {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.expect("a runtime without sockets needs nothing of the system");
        let [begin_a, begin_b] = begin.map_or([None, None], |both| both.map(Some));
        let (a, b) = runtime.block_on(async {
            (Side::new(a, "a", "b", policy.clone(), begin_a), Side::new(b, "b", "a", policy, begin_b))
        });
        let mut duet = Self { runtime, a, b };
        duet.settle();
        duet
    }

    /// Delivers at most this many bytes that `a` has sent, and returns how many. If there are none, the end or the
    /// reset that follows them is delivered.
    pub fn deliver_to_b(&mut self, most: usize) -> usize {
        let n = self.runtime.block_on(deliver(&mut self.a, &mut self.b, most));
        self.settle();
        n
    }

    /// Delivers at most this many bytes that `b` has sent, and returns how many.
    pub fn deliver_to_a(&mut self, most: usize) -> usize {
        let n = self.runtime.block_on(deliver(&mut self.b, &mut self.a, most));
        self.settle();
        n
    }

    /// Delivers everything in both directions, until no bytes are in transit and neither side sends more.
    pub fn deliver_all(&mut self) {
        // The rounds after the last bytes deliver the ends of both sides, and the answers to them.
        let mut quiet = 0;
        while quiet < 3 {
            let moved = self.deliver_to_b(CAPACITY) + self.deliver_to_a(CAPACITY);
            quiet = if moved == 0 { quiet + 1 } else { 0 };
        }
    }

    /// Advances the clock, so that timers fire.
    pub fn advance(&mut self, time: Duration) {
        self.runtime.block_on(tokio::time::advance(time));
        self.settle();
    }

    /// The handle of `a`.
    pub fn a(&self) -> &Handle {
        &self.a.handle
    }

    /// The handle of `b`.
    pub fn b(&self) -> &Handle {
        &self.b.handle
    }

    /// How each connection has ended, if it has.
    pub fn ended(&self) -> (Option<Reason>, Option<Reason>) {
        (self.a.handle.reason(), self.b.handle.reason())
    }

    /// Polls both sides until neither can continue. This also carries out the calls of handles.
    pub fn settle(&mut self) {
        self.runtime.block_on(async {
            for _ in 0..TURNS {
                tokio::task::yield_now().await;
            }
        });
    }
}

impl Drop for Duet {
    fn drop(&mut self) {
        self.a.task.abort();
        self.b.task.abort();
        self.settle();
    }
}

impl Side {
    fn new(protocol: impl Protocol, name: &str, other: &str, policy: Policy, begin: Option<StartTls>) -> Self {
        let (near, far) = pipe(CAPACITY);
        let address = |name: &str| Address::Other(format!("duet:{name}"));
        let near = Stream::with(near, address(name), address(other), policy).wakes_unlocked().delivers_at_once();
        let runner = Runner::new(protocol, UpgradableConnection::new(near));
        let runner = match begin {
            Some(begin) => runner.begin_tls(begin),
            None => runner,
        };
        let handle = runner.handle();
        Self { handle, task: tokio::spawn(runner.run()), far: Some(far), has_read_end: false }
    }
}

/// Moves sent bytes from one side to the other.
async fn deliver(from: &mut Side, to: &mut Side, most: usize) -> usize {
    let mut bytes = vec![0; most.min(CAPACITY)];
    let mut buf = ReadBuf::new(&mut bytes);
    let Some(source) = from.far.as_mut().filter(|_| !from.has_read_end) else { return 0 };
    let read = poll_fn(|cx| Poll::Ready(Pin::new(&mut *source).poll_read(cx, &mut buf))).await;
    let n = buf.filled().len();
    match read {
        Poll::Pending => {}
        Poll::Ready(Ok(())) if n == 0 => {
            from.has_read_end = true;
            if let Some(sink) = &mut to.far {
                let _ = poll_fn(|cx| Pin::new(&mut *sink).poll_shutdown(cx)).await;
            }
        }
        Poll::Ready(Ok(())) => {
            if let Some(sink) = &mut to.far {
                let filled = buf.filled();
                // The pipe has space, because the bytes in transit never exceed its capacity. If the receiving side has
                // dropped its end of the pipe, the bytes are lost.
                let _ = poll_fn(|cx| Poll::Ready(Pin::new(&mut *sink).poll_write(cx, filled))).await;
            }
        }
        // The sender has reset its connection. Dropping our end of the receiver's pipe resets the receiver too.
        Poll::Ready(Err(_)) => {
            from.has_read_end = true;
            to.far = None;
        }
    }
    n
}
