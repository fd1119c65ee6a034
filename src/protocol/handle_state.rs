//! What the task of a connection shares with its handles: commands in one direction, figures in the other.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;

use tokio::sync::Notify;

use super::current;
use super::guard::catch;
use crate::conn::control::{Control, Watcher};
use crate::error::Reason;

/// What the connection's task and its handles share. `T` is what the task carries commands out on.
pub(super) struct HandleState<T: ?Sized> {
    pub(super) control: Control,
    mailbox: Mutex<Mailbox<T>>,
    /// There is something in the mailbox, or no task is parked there to be woken. Written under the lock of the mailbox, read
    /// without it.
    is_rung: AtomicBool,
    queued: AtomicUsize,
    pub(super) has_room: AtomicBool,
    pub(super) room: Notify,
    pub(super) received: AtomicU64,
    pub(super) sent: AtomicU64,
    dropped: AtomicU64,
    pub(super) lost: OnceLock<Reason>,
    pub(super) losing: Notify,
}

/// The commands that the connection's task has not taken yet.
struct Mailbox<T: ?Sized> {
    commands: Vec<Command<T>>,
    /// How many bytes are to be written.
    bytes: usize,
    /// A write has reported that these bytes and those that were queued then passed the high mark.
    is_full: bool,
    task: Option<Waker>,
    is_closed: bool,
}

/// What a handle asks of the connection's task.
pub(crate) enum Command<T: ?Sized> {
    /// Bytes, and whether a callback wrote them in answer to input. They are no call, so that one write can be joined to the
    /// one before.
    Write(Vec<u8>, bool),
    /// A call. It gets nothing to call if the connection has ended. A closure without captures costs no allocation.
    Call(Call<T>),
}

type Call<T> = Box<dyn FnOnce(Option<&mut T>) + Send>;

impl<T: ?Sized> Command<T> {
    /// The connection has ended: bytes are dropped and counted, a call does what is left to do.
    fn refuse(self, state: &HandleState<T>) {
        match self {
            Self::Write(bytes, _) => state.count_dropped(bytes.len() as u64),
            Self::Call(call) => call(None),
        }
    }
}

/// The side of the connection's task.
impl<T: ?Sized> HandleState<T> {
    pub(super) fn new(control: Control) -> Arc<Self> {
        Arc::new(Self {
            control,
            mailbox: Mutex::new(Mailbox {
                commands: Vec::new(),
                bytes: 0,
                is_full: false,
                task: None,
                is_closed: false,
            }),
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

    /// What the connection is known by on this thread: see [`current`].
    pub(super) fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    fn mailbox(&self) -> MutexGuard<'_, Mailbox<T>> {
        self.mailbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds bytes to be written; says whether that passed the high mark.
    pub(super) fn write(&self, bytes: &[u8]) -> bool {
        let is_answer = current::is_answering(self.address());
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

    /// Has the connection's task carry this out.
    pub(super) fn post(&self, command: Command<T>) {
        let mut mailbox = self.mailbox();
        if mailbox.is_closed {
            drop(mailbox);
            return command.refuse(self);
        }
        mailbox.commands.push(command);
        self.ring(mailbox);
    }

    /// The task has something to do.
    fn ring(&self, mut mailbox: MutexGuard<'_, Mailbox<T>>) {
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

    /// Takes the commands that came. The task is woken when more come. Returns whether a write has reported that the high
    /// mark was passed.
    pub(super) fn take_commands(&self, task: Option<&Waker>, into: &mut Vec<Command<T>>) -> bool {
        // rule: life-7: a waker is cloned and dropped without a lock.
        let mut task = task.cloned();
        let mut mailbox = self.mailbox();
        // A handle that looks meanwhile counts these bytes as queued.
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

    /// Refuses the commands that wait, and all that come from now on.
    pub(super) fn close(&self) {
        let mut mailbox = self.mailbox();
        mailbox.is_closed = true;
        mailbox.bytes = 0;
        let commands = std::mem::take(&mut mailbox.commands);
        let task = mailbox.task.take();
        drop(mailbox);
        let _ = catch(|| drop(task));
        commands.into_iter().for_each(|command| command.refuse(self));
    }

    /// The connection is lost, for this reason, and its protocol was notified.
    pub(super) fn lose(&self, reason: Reason) {
        let _ = self.lost.set(reason);
        let _ = catch(|| self.losing.notify_waiters());
        let _ = catch(|| self.room.notify_waiters());
    }

    /// Publishes how many bytes the task has queued. Only the task calls this, so equal figures have been published before.
    pub(super) fn set_queued(&self, bytes: usize, has_room: bool) {
        if self.queued.load(Ordering::Relaxed) == bytes && self.has_room.load(Ordering::Relaxed) == has_room {
            return;
        }
        self.queued.store(bytes, Ordering::Relaxed);
        self.has_room.store(has_room, Ordering::Release);
        if has_room {
            // A waiting handle may have counted what was still in the mailbox.
            let _ = catch(|| self.room.notify_waiters());
        }
    }

    /// Bytes that were written and have not left, with those in the mailbox.
    pub(super) fn queued(&self) -> usize {
        self.mailbox().bytes + self.queued.load(Ordering::Relaxed)
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

impl<T: ?Sized> Watcher for HandleState<T> {
    /// An abort from another task: a connection that waits for nothing else has to see it.
    fn handle_abort(&self) {
        self.ring(self.mailbox());
    }

    fn handle_drain(&self) {
        self.ring(self.mailbox());
    }
}
