//! The pump under its lock, and the waker that pumps.

use std::io;
use std::sync::{Arc, PoisonError, TryLockError, Weak};
use std::task::{Wake, Waker};

use super::{LayerEnd, Pump};
use crate::conn::after_unlock::{self, Locked};
use crate::conn::control::{Closing, Control, Controlled, Watcher};
use crate::core::catch::catch;
use crate::core::session::Session;
use crate::error::Reason;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Mutex, MutexGuard};
use crate::transport::Transport;
use crate::transport::layer::TOKEN;

/// The largest number of rounds of wake-ups that one call handles before it leaves the rest to the tasks.
const MAX_WAKES: usize = 8;

/// The pump that the halves, the connection's `Control` and the wakers share.
pub(crate) struct SharedPump<T> {
    pump: Mutex<Pump<T>>,
    /// The waker was called while another thread held the lock. That thread runs the pump.
    woken: AtomicBool,
    control: Control,
    /// Closes the connection while other tasks may use its halves: see [`Control::close`].
    close: fn(Arc<Self>) -> Closing,
}

impl<T: Transport> SharedPump<T> {
    pub(crate) fn new(session: Session, layer: T, close: fn(Arc<Self>) -> Closing) -> Arc<Self> {
        let control = layer.layer(TOKEN).control().clone();
        Arc::new_cyclic(|weak| {
            let wake = Waker::from(Arc::new(PumpWaker(Weak::clone(weak))));
            let pump = Pump {
                session,
                layer: Some(layer),
                layer_end: LayerEnd::Due,
                is_beneath: false,
                layer_is_flushed: true,
                reader: None,
                writer: None,
                below: None,
                reader_was_displaced: false,
                is_deferred: false,
                wake,
            };
            Self { pump: Mutex::new(pump), woken: AtomicBool::new(false), control, close }
        })
    }

    /// Calls `f` with the pump. Then wakes the tasks that became ready, and handles the wake-ups that came during the
    /// call.
    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut Pump<T>) -> R) -> R {
        let mut held = self.lock();
        let result = f(&mut held.pump);
        self.unlock(held);
        self.settle();
        result
    }

    pub(crate) fn control(&self) -> &Control {
        &self.control
    }

    /// Calls `f` with the pump. `f` changes nothing, so no task becomes ready.
    pub(crate) fn inspect<R>(&self, f: impl FnOnce(&Pump<T>) -> R) -> R {
        let result = f(&self.lock().pump);
        self.settle();
        result
    }

    /// Handles the wake-ups that came while the lock was held.
    #[inline]
    fn settle(&self) {
        if self.woken.load(Ordering::SeqCst) {
            self.serve_wakes();
        }
    }

    /// Called when the layer can accept or has more bytes.
    fn note_wake(&self) {
        self.woken.store(true, Ordering::SeqCst);
        self.serve_wakes();
    }

    /// The layer has panicked in a waker, outside of our tasks. Wakes the waiting tasks, which then see the loss.
    fn lose_layer(&self) {
        let reason = Reason::Io(Arc::new(io::Error::other("the stream beneath has panicked")));
        let mut held = self.lock();
        held.pump.session.handle_read_lost(reason.clone());
        held.pump.session.handle_write_lost(reason);
        self.unlock_and_wake_all(held);
    }

    /// After the holder of the lock has released it, it handles the wake-ups that came in the meantime. Therefore a
    /// wake-up sets the flag before it tries to take the lock, and the holder checks the flag after it has released the
    /// lock.
    fn serve_wakes(&self) {
        for _ in 0..MAX_WAKES {
            if !self.woken.load(Ordering::SeqCst) {
                return;
            }
            let Some(mut held) = self.try_lock() else { return };
            let pump = &mut *held.pump;
            self.woken.store(false, Ordering::SeqCst);
            if pump.check_cut(self.control.cut()) {
                self.unlock_and_wake_all(held);
            } else if pump.layer.as_ref().is_some_and(|layer| layer.layer(TOKEN).may_write_in_wake()) {
                let _ = pump.transmit();
                if self.control.is_close_asked() {
                    // A task may have started to wait just before the close was requested, so it must be woken to see
                    // the close.
                    self.unlock_and_wake_all(held);
                } else {
                    self.unlock(held);
                }
            } else {
                self.unlock_and_wake_all(held);
            }
        }
        // After MAX_WAKES rounds, the waiting tasks do the rest, so that this call ends.
        if let Some(pump) = self.try_lock() {
            self.unlock_and_wake_all(pump);
        }
    }

    #[inline]
    fn lock(&self) -> Held<'_, T> {
        let locked = Locked::new();
        Held { pump: self.pump.lock().unwrap_or_else(PoisonError::into_inner), _locked: locked }
    }

    fn try_lock(&self) -> Option<Held<'_, T>> {
        let locked = Locked::new();
        match self.pump.try_lock() {
            Ok(pump) => Some(Held { pump, _locked: locked }),
            Err(TryLockError::Poisoned(poisoned)) => Some(Held { pump: poisoned.into_inner(), _locked: locked }),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    fn unlock(&self, mut held: Held<'_, T>) {
        let pump = &mut *held.pump;
        if pump.has_ready_tasks() {
            Self::unlock_and_wake_ready(held);
        } else {
            pump.reader_was_displaced = false;
        }
    }

    #[cold]
    #[inline(never)]
    fn unlock_and_wake_ready(mut held: Held<'_, T>) {
        let ready = held.pump.take_ready_tasks();
        drop(held);
        ready.into_iter().flatten().for_each(after_unlock::wake);
    }

    fn unlock_and_wake_all(&self, mut held: Held<'_, T>) {
        let pump = &mut *held.pump;
        let waiting = [pump.reader.take(), pump.writer.take().map(|(_, waker)| waker), pump.below.take()];
        drop(held);
        waiting.into_iter().flatten().for_each(after_unlock::wake);
    }
}

/// The pump, locked. Tasks are woken after both fields were dropped, in this order (rule: life-7).
struct Held<'a, T> {
    pump: MutexGuard<'a, Pump<T>>,
    _locked: Locked,
}

/// The waker that the layer holds. Calling it runs the pump.
struct PumpWaker<T>(Weak<SharedPump<T>>);

impl<T: Transport> Watcher for SharedPump<T> {
    /// Another task has aborted the connection. Wakes all tasks that wait here, even if no waker is registered at the
    /// socket.
    fn handle_abort(&self) {
        if let Some(pump) = self.try_lock() {
            self.unlock_and_wake_all(pump);
        }
        // The holder of the lock checks the flag after it has released the lock, and wakes the tasks that have started
        // to wait in the meantime.
        self.note_wake();
    }

    /// Wakes the tasks in the same way as an abort.
    fn handle_close(&self) {
        Watcher::handle_abort(self);
    }

    fn close_in_order(self: Arc<Self>) -> Closing {
        (self.close)(self)
    }
}

impl<T: Transport> Wake for PumpWaker<T> {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let Some(shared) = self.0.upgrade() else { return };
        // rule: life-7: if the stream below panics, only its own connection ends, not the runtime or the waking task.
        if catch(|| shared.note_wake(), |_| ()).is_err() {
            shared.lose_layer();
        }
    }
}
