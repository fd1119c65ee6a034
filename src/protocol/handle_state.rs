//! The state that a connection's task shares with its handles: commands to the task, and counts from it.

use std::sync::{Arc, OnceLock, PoisonError};
use std::task::Waker;

use super::current;
use super::guard::catch;
use crate::conn::control::{Closing, Control, Watcher};
use crate::conn::waiting::park;
use crate::error::Reason;
use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use crate::sync::{Mutex, MutexGuard, Notify};

/// The state that a connection's task and its handles share. `T` is the type on which the task carries out commands.
pub(super) struct HandleState<T: ?Sized> {
    pub(super) control: Control,
    /// Asks the connection's task to close the connection.
    close: fn(&Arc<Self>),
    mailbox: Mutex<Mailbox<T>>,
    /// Whether the mailbox has content, or no task has left a waker there. It is written under the lock of the mailbox,
    /// and read without it.
    is_rung: AtomicBool,
    queued: AtomicUsize,
    /// Published together with `queued`. Between the two marks, the count alone does not say whether a write waits.
    pub(super) is_writable: AtomicBool,
    pub(super) writable: Notify,
    pub(super) received: AtomicU64,
    pub(super) sent: AtomicU64,
    dropped: AtomicU64,
    pub(super) lost: OnceLock<Reason>,
    pub(super) losing: Notify,
}

/// The commands that the connection's task has not taken yet.
struct Mailbox<T: ?Sized> {
    commands: Vec<Command<T>>,
    /// The number of bytes in the pending writes.
    bytes: usize,
    /// A write has reported that the high mark was passed, counting the bytes here and those that were queued then.
    is_full: bool,
    task: Option<Waker>,
    /// The connection has ended: commands are refused.
    is_closed: bool,
}

/// A command from a [`Handle`](super::Handle) to the connection's task.
pub(crate) enum Command<T: ?Sized> {
    /// Bytes, and whether a callback wrote them in answer to input. This is a variant of its own, so that a write can
    /// be merged with the one before it.
    Write(Vec<u8>, bool),
    /// A call. If the connection has ended, it gets `None`. A closure without captures costs no allocation.
    Call(Call<T>),
}

type Call<T> = Box<dyn FnOnce(Option<&mut T>) + Send>;

impl<T: ?Sized> Command<T> {
    /// Handles a command after the end of the connection: bytes are dropped and counted, and a call gets `None`.
    fn refuse(self, state: &HandleState<T>) {
        match self {
            Self::Write(bytes, _) => state.count_dropped(bytes.len() as u64),
            Self::Call(call) => call(None),
        }
    }
}

/// The methods that the connection's task uses.
impl<T: ?Sized> HandleState<T> {
    pub(super) fn new(control: Control, close: fn(&Arc<Self>)) -> Arc<Self> {
        Arc::new(Self {
            control,
            close,
            mailbox: Mutex::new(Mailbox {
                commands: Vec::new(),
                bytes: 0,
                is_full: false,
                task: None,
                is_closed: false,
            }),
            is_rung: AtomicBool::new(true),
            queued: AtomicUsize::new(0),
            is_writable: AtomicBool::new(true),
            writable: Notify::new(),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            lost: OnceLock::new(),
            losing: Notify::new(),
        })
    }

    /// The key of this connection in [`current`].
    pub(super) fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    fn mailbox(&self) -> MutexGuard<'_, Mailbox<T>> {
        self.mailbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds bytes to the mailbox, and returns whether that passed the high mark.
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

    /// Passes this command to the connection's task.
    pub(super) fn post(&self, command: Command<T>) {
        let mut mailbox = self.mailbox();
        if mailbox.is_closed {
            drop(mailbox);
            return command.refuse(self);
        }
        mailbox.commands.push(command);
        self.ring(mailbox);
    }

    /// Wakes the task, because the mailbox has content.
    fn ring(&self, mut mailbox: MutexGuard<'_, Mailbox<T>>) {
        let task = mailbox.task.take();
        self.is_rung.store(true, Ordering::Release);
        drop(mailbox);
        // rule: life-7: the task belongs to another connection, and its waker is foreign code, which may panic.
        let _ = catch(|| task.into_iter().for_each(Waker::wake));
    }

    /// Whether the waker of the task is still registered and the mailbox is empty.
    pub(super) fn is_quiet(&self) -> bool {
        !self.is_rung.load(Ordering::Acquire)
    }

    /// Takes the commands, and registers the task to be woken for the next ones. Returns whether a write has reported
    /// that the high mark was passed.
    pub(super) fn take_commands(&self, task: Option<&Waker>, into: &mut Vec<Command<T>>) -> bool {
        if let Some(task) = task {
            let _ = catch(|| park(&self.mailbox, |mailbox| &mut mailbox.task, task));
        }
        let mut mailbox = self.mailbox();
        // The bytes are added before the lock is released, so that a handle that reads the count at this moment sees
        // them as queued.
        self.queued.fetch_add(std::mem::take(&mut mailbox.bytes), Ordering::Relaxed);
        std::mem::swap(&mut mailbox.commands, into);
        if task.is_some() {
            // A command that came after the task was registered has taken the task, so the task has to register again.
            self.is_rung.store(mailbox.task.is_none(), Ordering::Release);
        }
        std::mem::take(&mut mailbox.is_full)
    }

    /// Refuses the pending commands and all later ones.
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

    /// Publishes the reason of the end. The protocol was notified before.
    pub(super) fn lose(&self, reason: Reason) {
        let _ = self.lost.set(reason);
        let _ = catch(|| self.losing.notify_waiters());
        let _ = catch(|| self.writable.notify_waiters());
    }

    /// Publishes the number of bytes that the task has queued. Only the task calls this, so if the number has not
    /// changed, it was published before.
    pub(super) fn set_queued(&self, bytes: usize, is_writable: bool) {
        if self.queued.load(Ordering::Relaxed) == bytes && self.is_writable.load(Ordering::Relaxed) == is_writable {
            return;
        }
        self.queued.store(bytes, Ordering::Relaxed);
        self.is_writable.store(is_writable, Ordering::Release);
        if is_writable {
            // The waiting tasks are notified on every change: a task may wait only because it has counted bytes that
            // were still in the mailbox.
            let _ = catch(|| self.writable.notify_waiters());
        }
    }

    /// The number of bytes that were written and have not left, including those in the mailbox.
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

/// Adds to a counter that only the connection's task writes. That is why a load and a store suffice, without an
/// atomic addition.
fn count(counter: &AtomicU64, bytes: u64) {
    counter.store(counter.load(Ordering::Relaxed) + bytes, Ordering::Relaxed);
}

impl<T: ?Sized + 'static> Watcher for HandleState<T> {
    /// Another task has aborted the connection. The connection's task is woken, since it may wait for nothing else.
    fn handle_abort(&self) {
        self.ring(self.mailbox());
    }

    /// The connection's task closes the connection itself: see [`close`](Watcher::close_in_order).
    fn handle_close(&self) {}

    fn close_in_order(self: Arc<Self>) -> Closing {
        let control = self.control.clone();
        (self.close)(&self);
        Box::pin(async move { control.ended().await })
    }

    /// True: the protocol's own task closes the connection, and reports its end to the protocol.
    fn owns_close(&self) -> bool {
        true
    }

    fn handle_drain(&self) {
        self.ring(self.mailbox());
    }
}
