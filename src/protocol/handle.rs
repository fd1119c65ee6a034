//! The handle that other tasks and threads hold, and the mailbox behind it.

use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

use super::Failure;
use super::producer::Producer;
use crate::address::Address;
use crate::control::{Control, Watcher};
use crate::error::{Error, Reason};
use crate::upgrade::StartTls;

/// Does what a protocol's transport does, from any task and thread. Cheap to clone. It keeps nothing of the connection
/// alive (rule: life-4).
///
/// Calls return at once and are carried out in their order, by the connection's own task. After the end they do nothing:
/// bytes are dropped and counted, a producer is stopped (rule: life-5).
#[derive(Clone)]
pub struct Handle(Arc<Shared>);

/// What the connection's task and its handles share.
pub(super) struct Shared {
    pub(super) control: Control,
    mailbox: Mutex<Mailbox>,
    queued: AtomicUsize,
    has_room: AtomicBool,
    room: Notify,
    received: AtomicU64,
    sent: AtomicU64,
    dropped: AtomicU64,
    lost: OnceLock<Reason>,
    losing: Notify,
}

#[derive(Default)]
struct Mailbox {
    orders: Vec<Order>,
    /// How many bytes are to be written.
    bytes: usize,
    /// They have passed the high mark, together with what was queued then.
    is_full: bool,
    task: Option<Waker>,
    is_closed: bool,
}

/// What a handle asks of the connection's task.
pub(crate) enum Order {
    Write(Vec<u8>),
    Close,
    CloseWrite,
    Pause,
    Resume,
    Register(Producer, Answer),
    Unregister,
    StartTls(Box<StartTls>, Answer),
    StopTls(Answer),
    Timer(Option<Duration>),
    Fail(Failure),
}

/// Where the outcome of an order goes.
pub(crate) struct Answer(oneshot::Sender<Result<(), Error>>);

impl Answer {
    pub(super) fn give(self, outcome: Result<(), Error>) {
        // Whoever asked may not care.
        let _ = self.0.send(outcome);
    }
}

/// The outcome of something that a [`Handle`] asked for. It need not be awaited: it is done all the same.
#[derive(Debug)]
pub struct Reply {
    answer: oneshot::Receiver<Result<(), Error>>,
    handle: Handle,
}

impl Future for Reply {
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = std::task::ready!(Pin::new(&mut self.answer).poll(cx));
        // Nobody answers who has ended before.
        Poll::Ready(answer.unwrap_or_else(|_| Err(self.handle.reason().unwrap_or(Reason::Aborted).into())))
    }
}

impl Handle {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }

    /// As [`Transport::write`](super::Transport::write).
    pub fn write(&self, bytes: impl AsRef<[u8]>) {
        self.write_sequence([bytes]);
    }

    /// As [`Transport::write_sequence`](super::Transport::write_sequence): nothing of another task's comes between.
    pub fn write_sequence<B: AsRef<[u8]>>(&self, parts: impl IntoIterator<Item = B>) {
        self.write_all_of(parts);
    }

    /// Writes, and says whether that passed the high mark. Then the producer is paused, and told when there is room, as if the
    /// connection's own task had seen it: that may be busy elsewhere.
    pub(super) fn write_is_full(&self, bytes: &[u8]) -> bool {
        self.write_all_of([bytes])
    }

    fn write_all_of<B: AsRef<[u8]>>(&self, parts: impl IntoIterator<Item = B>) -> bool {
        let mut mailbox = self.0.mailbox();
        let is_closed = mailbox.is_closed;
        let last = match mailbox.orders.last_mut() {
            Some(Order::Write(last)) => last,
            _ => {
                mailbox.orders.push(Order::Write(Vec::new()));
                let Some(Order::Write(last)) = mailbox.orders.last_mut() else { return false };
                last
            }
        };
        let before = last.len();
        parts.into_iter().for_each(|part| last.extend_from_slice(part.as_ref()));
        let added = last.len() - before;
        if is_closed {
            mailbox.orders.clear();
            self.0.dropped.fetch_add(added as u64, Ordering::Relaxed);
            return false;
        }
        mailbox.bytes += added;
        let high = self.0.control.policy().watermarks.high;
        let is_full = mailbox.bytes + self.0.queued.load(Ordering::Relaxed) >= high;
        mailbox.is_full |= is_full;
        self.0.ring(mailbox);
        is_full
    }

    /// As [`Transport::close`](super::Transport::close).
    #[doc(alias = "loseConnection")]
    pub fn close(&self) {
        self.0.post(Order::Close);
    }

    /// As [`Transport::close_write`](super::Transport::close_write).
    #[doc(alias = "loseWriteConnection")]
    pub fn close_write(&self) {
        self.0.post(Order::CloseWrite);
    }

    /// As [`Transport::abort`](super::Transport::abort). It acts at once, whatever the connection's task does.
    #[doc(alias = "abortConnection")]
    pub fn abort(&self) {
        self.0.control.abort();
    }

    /// Ends the connection with this error as its reason, as a callback does that returns it (rule: life-3).
    pub fn fail(&self, failure: impl Into<Failure>) {
        self.0.post(Order::Fail(failure.into()));
    }

    /// As [`Transport::pause_reading`](super::Transport::pause_reading).
    pub fn pause_reading(&self) {
        self.0.post(Order::Pause);
    }

    /// As [`Transport::resume_reading`](super::Transport::resume_reading).
    pub fn resume_reading(&self) {
        self.0.post(Order::Resume);
    }

    /// As [`Transport::register_producer`](super::Transport::register_producer). A producer that is refused is dropped.
    pub fn register_producer(&self, producer: Producer) -> Reply {
        self.ask(|answer| Order::Register(producer, answer))
    }

    /// As [`Transport::unregister_producer`](super::Transport::unregister_producer).
    pub fn unregister_producer(&self) {
        self.0.post(Order::Unregister);
    }

    /// As [`UpgradableTransport::start_tls`](super::UpgradableTransport::start_tls). The reply comes when the handshake is
    /// done, or has failed.
    #[doc(alias = "startTLS")]
    pub fn start_tls(&self, how: StartTls) -> Reply {
        self.ask(|answer| Order::StartTls(Box::new(how), answer))
    }

    /// As [`UpgradableTransport::stop_tls`](super::UpgradableTransport::stop_tls). The reply comes when plaintext flows.
    pub fn stop_tls(&self) -> Reply {
        self.ask(Order::StopTls)
    }

    /// As [`Transport::set_timer`](super::Transport::set_timer).
    pub fn set_timer(&self, after: Option<Duration>) {
        self.0.post(Order::Timer(after));
    }

    fn ask(&self, order: impl FnOnce(Answer) -> Order) -> Reply {
        let (answer, receiver) = oneshot::channel();
        self.0.post(order(Answer(answer)));
        Reply { answer: receiver, handle: self.clone() }
    }

    /// Bytes that were written and have not left for the kernel, as of the connection's last turn.
    pub fn queued(&self) -> usize {
        self.0.mailbox().bytes + self.0.queued.load(Ordering::Relaxed)
    }

    /// Bytes that were dropped because they came behind the end (rule: write-4).
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }

    /// Bytes that the protocol has received and is done with.
    pub fn received(&self) -> u64 {
        self.0.received.load(Ordering::Relaxed)
    }

    /// Bytes that were written and handed to the transport.
    pub fn sent(&self) -> u64 {
        self.0.sent.load(Ordering::Relaxed)
    }

    /// Waits until less is queued than the high mark, after it was passed less than the low one; an error with the reason
    /// when the connection is lost.
    ///
    /// # Cancel safety
    /// Cancel safe.
    #[doc(alias = "drain")]
    pub async fn room(&self) -> Result<(), Error> {
        let mut room = pin!(self.0.room.notified());
        loop {
            room.as_mut().enable();
            if let Some(reason) = self.reason() {
                return Err(reason.into());
            }
            let is_above = self.queued() >= self.0.control.policy().watermarks.high;
            if self.0.has_room.load(Ordering::Acquire) && !is_above {
                return Ok(());
            }
            room.as_mut().await;
            room.set(self.0.room.notified());
        }
    }

    /// Whether the connection is lost; then the protocol was told.
    pub fn is_lost(&self) -> bool {
        self.0.lost.get().is_some()
    }

    /// How it ended, once it has.
    pub fn reason(&self) -> Option<Reason> {
        self.0.lost.get().cloned()
    }

    /// Waits until the connection is lost and the protocol was told; says how it ended.
    ///
    /// # Cancel safety
    /// Cancel safe.
    #[doc(alias = "connectionLost")]
    pub async fn lost(&self) -> Reason {
        let mut losing = pin!(self.0.losing.notified());
        losing.as_mut().enable();
        loop {
            if let Some(reason) = self.reason() {
                return reason;
            }
            losing.as_mut().await;
            losing.set(self.0.losing.notified());
            losing.as_mut().enable();
        }
    }

    /// The handle of the connection itself.
    pub fn control(&self) -> &Control {
        &self.0.control
    }

    /// Our address.
    #[doc(alias = "getHost")]
    pub fn host(&self) -> Address {
        self.0.control.host()
    }

    /// The peer's address.
    #[doc(alias = "getPeer")]
    pub fn peer(&self) -> Address {
        self.0.control.peer()
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("control", &self.0.control).field("lost", &self.0.lost.get()).finish()
    }
}

impl Order {
    /// Does it to any transport, as its protocol would.
    #[cfg(feature = "testing")]
    pub(crate) fn call(self, transport: &mut dyn super::UpgradableTransport) {
        match self {
            Self::Write(bytes) => transport.write(&bytes),
            Self::Close => transport.close(),
            Self::CloseWrite => transport.close_write(),
            Self::Pause => transport.pause_reading(),
            Self::Resume => transport.resume_reading(),
            Self::Register(producer, answer) => answer.give(transport.register_producer(producer)),
            Self::Unregister => transport.unregister_producer(),
            Self::StartTls(how, answer) => answer.give(transport.start_tls(*how)),
            Self::StopTls(answer) => answer.give(transport.stop_tls()),
            Self::Timer(after) => transport.set_timer(after),
            Self::Fail(_) => transport.abort(),
        }
    }

    /// What becomes of an order that comes after the end.
    fn refuse(self, shared: &Shared) {
        match self {
            Self::Write(bytes) => shared.count_dropped(bytes.len() as u64),
            // rule: flow-1: registered on a dead connection it is stopped at once.
            Self::Register(mut producer, answer) => {
                producer.stop();
                answer.give(Ok(()));
            }
            Self::StartTls(_, answer) | Self::StopTls(answer) => {
                let reason = shared.lost.get().cloned().unwrap_or(Reason::Closed);
                answer.give(Err(crate::UpgradeError::Failed(reason).into()));
            }
            Self::Close | Self::CloseWrite | Self::Pause | Self::Resume | Self::Unregister => {}
            Self::Timer(_) | Self::Fail(_) => {}
        }
    }
}

/// The side of the connection's task.
impl Shared {
    pub(super) fn new(control: Control) -> Arc<Self> {
        Arc::new(Self {
            control,
            mailbox: Mutex::default(),
            queued: AtomicUsize::new(0),
            has_room: AtomicBool::new(true),
            room: Notify::new(),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            lost: OnceLock::new(),
            losing: Notify::new(),
        })
    }

    fn mailbox(&self) -> MutexGuard<'_, Mailbox> {
        self.mailbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn post(&self, order: Order) {
        let mut mailbox = self.mailbox();
        if mailbox.is_closed {
            drop(mailbox);
            return order.refuse(self);
        }
        mailbox.orders.push(order);
        self.ring(mailbox);
    }

    /// The task has something to do.
    fn ring(&self, mut mailbox: MutexGuard<'_, Mailbox>) {
        let task = mailbox.task.take();
        drop(mailbox);
        task.into_iter().for_each(Waker::wake);
    }

    /// The orders that came; the task is woken when more do. Says whether whoever wrote was told that it is full.
    pub(super) fn take_orders(&self, cx: &mut Context<'_>, into: &mut Vec<Order>) -> bool {
        let mut mailbox = self.mailbox();
        mailbox.bytes = 0;
        std::mem::swap(&mut mailbox.orders, into);
        match &mut mailbox.task {
            Some(task) => task.clone_from(cx.waker()),
            None => mailbox.task = Some(cx.waker().clone()),
        }
        std::mem::take(&mut mailbox.is_full)
    }

    /// The orders that came, of which the task is told all the same.
    pub(super) fn take_early(&self, into: &mut Vec<Order>) {
        std::mem::swap(&mut self.mailbox().orders, into);
    }

    /// From now on orders are refused; those that wait are, too.
    pub(super) fn close(&self) {
        let mut mailbox = self.mailbox();
        mailbox.is_closed = true;
        mailbox.bytes = 0;
        let orders = std::mem::take(&mut mailbox.orders);
        mailbox.task = None;
        drop(mailbox);
        orders.into_iter().for_each(|order| order.refuse(self));
    }

    pub(super) fn lose(&self, reason: Reason) {
        let _ = self.lost.set(reason);
        self.losing.notify_waiters();
        self.room.notify_waiters();
    }

    pub(super) fn set_queued(&self, bytes: usize, has_room: bool) {
        self.queued.store(bytes, Ordering::Relaxed);
        if !self.has_room.swap(has_room, Ordering::AcqRel) && has_room {
            self.room.notify_waiters();
        }
    }

    pub(super) fn count_received(&self, bytes: u64) {
        self.received.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn count_sent(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn count_dropped(&self, bytes: u64) {
        self.dropped.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl Watcher for Shared {
    /// An abort from another task: also a connection that waits for nothing has to see it.
    fn handle_abort(&self) {
        self.ring(self.mailbox());
    }

    fn handle_drain(&self) {
        self.ring(self.mailbox());
    }
}
