//! What handles have asked for, on its way to the connection's own task.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

use super::Failure;
use super::current;
use super::guard::{catch, stop};
use super::producer::Producer;
use crate::config::start_tls::StartTls;
use crate::conn::control::{Control, Watcher};
use crate::error::{Error, Reason};

/// What the connection's task and its handles share.
pub(super) struct HandleState {
    pub(super) control: Control,
    pub(super) mailbox: Mutex<Mailbox>,
    /// There is something in the mailbox to look for, or nobody is parked there to be woken. Set and taken back under its
    /// lock; read without.
    is_rung: AtomicBool,
    pub(super) queued: AtomicUsize,
    pub(super) has_room: AtomicBool,
    pub(super) room: Notify,
    pub(super) received: AtomicU64,
    pub(super) sent: AtomicU64,
    pub(super) dropped: AtomicU64,
    pub(super) lost: OnceLock<Reason>,
    pub(super) losing: Notify,
}

#[derive(Default)]
pub(super) struct Mailbox {
    commands: Vec<Command>,
    /// How many bytes are to be written.
    pub(super) bytes: usize,
    /// They have passed the high mark, together with what was queued then.
    is_full: bool,
    task: Option<Waker>,
    is_closed: bool,
}

/// What a handle asks of the connection's task.
pub(crate) enum Command {
    /// Bytes, and whether a callback wrote them in answer to input.
    Write(Vec<u8>, bool),
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
pub(crate) struct Answer(pub(super) oneshot::Sender<Result<(), Error>>);

impl Answer {
    pub(super) fn give(self, outcome: Result<(), Error>) {
        // The asker may have stopped waiting. Its waker is foreign code.
        let _ = catch(|| self.0.send(outcome));
    }
}

impl Command {
    /// Does it to any transport, as its protocol would.
    #[cfg(feature = "testing")]
    pub(crate) fn call(self, transport: &mut dyn super::UpgradableTransport) {
        match self {
            Self::Write(bytes, _) => transport.write(&bytes),
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
    fn refuse(self, handle_state: &HandleState) {
        match self {
            Self::Write(bytes, _) => handle_state.count_dropped(bytes.len() as u64),
            // rule: flow-1: registered on a dead connection it is stopped at once.
            Self::Register(producer, answer) => {
                stop(producer);
                answer.give(Ok(()));
            }
            // Without an answer, the reply tells how the connection ended.
            Self::StartTls(..) | Self::StopTls(_) => {}
            Self::Close | Self::CloseWrite | Self::Pause | Self::Resume | Self::Unregister => {}
            Self::Timer(_) | Self::Fail(_) => {}
        }
    }
}

/// The side of the connection's task.
impl HandleState {
    pub(super) fn new(control: Control) -> Arc<Self> {
        Arc::new(Self {
            control,
            mailbox: Mutex::default(),
            is_rung: AtomicBool::new(true),
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

    pub(super) fn mailbox(&self) -> MutexGuard<'_, Mailbox> {
        self.mailbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds bytes to be written; says whether that passed the high mark.
    pub(super) fn write(&self, bytes: &[u8]) -> bool {
        let is_answer = current::is_answering(self);
        let mut mailbox = self.mailbox();
        if mailbox.is_closed {
            drop(mailbox);
            self.count_dropped(bytes.len() as u64);
            return false;
        }
        match mailbox.commands.last_mut() {
            Some(Command::Write(last, kind)) if *kind == is_answer => last.extend_from_slice(bytes),
            _ => mailbox.commands.push(Command::Write(bytes.to_vec(), is_answer)),
        }
        mailbox.bytes += bytes.len();
        let is_full = mailbox.bytes + self.queued.load(Ordering::Relaxed) >= self.control.policy().watermarks.high;
        mailbox.is_full |= is_full;
        self.ring(mailbox);
        is_full
    }

    pub(super) fn post(&self, order: Command) {
        let mut mailbox = self.mailbox();
        if mailbox.is_closed {
            drop(mailbox);
            return order.refuse(self);
        }
        mailbox.commands.push(order);
        self.ring(mailbox);
    }

    /// The task has something to do.
    fn ring(&self, mut mailbox: MutexGuard<'_, Mailbox>) {
        let task = mailbox.task.take();
        self.is_rung.store(true, Ordering::Release);
        drop(mailbox);
        // rule: life-7: the task belongs to another connection, and its waker is foreign code.
        let _ = catch(|| task.into_iter().for_each(Waker::wake));
    }

    /// Whether the task that was parked last is parked still, and nothing came for it.
    pub(super) fn is_quiet(&self) -> bool {
        !self.is_rung.load(Ordering::Acquire)
    }

    /// The commands that came; this task is woken when more do. Says whether whoever wrote was told that it is full.
    pub(super) fn take_commands(&self, task: Option<&Waker>, into: &mut Vec<Command>) -> bool {
        // rule: life-7: a waker is cloned and dropped without a lock.
        let mut task = task.cloned();
        let mut mailbox = self.mailbox();
        // They stay queued all the while, for whoever looks.
        self.queued.fetch_add(std::mem::take(&mut mailbox.bytes), Ordering::Relaxed);
        std::mem::swap(&mut mailbox.commands, into);
        if task.is_some() {
            self.is_rung.store(false, Ordering::Release);
        }
        if task.is_some() {
            std::mem::swap(&mut mailbox.task, &mut task);
        }
        let was_full = std::mem::take(&mut mailbox.is_full);
        drop(mailbox);
        let _ = catch(|| drop(task));
        was_full
    }

    /// From now on commands are refused; those that wait are, too.
    pub(super) fn close(&self) {
        let mut mailbox = self.mailbox();
        mailbox.is_closed = true;
        mailbox.bytes = 0;
        let commands = std::mem::take(&mut mailbox.commands);
        let task = mailbox.task.take();
        drop(mailbox);
        let _ = catch(|| drop(task));
        commands.into_iter().for_each(|order| order.refuse(self));
    }

    pub(super) fn lose(&self, reason: Reason) {
        let _ = self.lost.set(reason);
        let _ = catch(|| self.losing.notify_waiters());
        let _ = catch(|| self.room.notify_waiters());
    }

    /// Says what the task has queued. Nobody else says it: what is the same as before has been told.
    pub(super) fn set_queued(&self, bytes: usize, has_room: bool) {
        if self.queued.load(Ordering::Relaxed) == bytes && self.has_room.load(Ordering::Relaxed) == has_room {
            return;
        }
        self.queued.store(bytes, Ordering::Relaxed);
        self.has_room.store(has_room, Ordering::Release);
        if has_room {
            // Whoever waits may have counted what was still in the mailbox.
            let _ = catch(|| self.room.notify_waiters());
        }
    }

    pub(super) fn count_received(&self, bytes: u64) {
        count(&self.received, bytes);
    }

    pub(super) fn count_sent(&self, bytes: u64) {
        count(&self.sent, bytes);
    }

    pub(super) fn count_dropped(&self, bytes: u64) {
        self.dropped.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// Counts on what only the connection's task counts: that needs no atomic addition.
fn count(counter: &AtomicU64, bytes: u64) {
    counter.store(counter.load(Ordering::Relaxed) + bytes, Ordering::Relaxed);
}

impl Watcher for HandleState {
    /// An abort from another task: also a connection that waits for nothing has to see it.
    fn handle_abort(&self) {
        self.ring(self.mailbox());
    }

    fn handle_drain(&self) {
        self.ring(self.mailbox());
    }
}
