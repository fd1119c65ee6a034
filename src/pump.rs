//! The one loop between a TLS session and the floor beneath it.
//!
//! # Theory of operation
//!
//! A [`Pump`] moves bytes in two directions. *Receiving* is driven by whoever wants to read: it reads the floor into the
//! session, lets the session open one record at a time, and transmits what that calls for (handshake messages, alerts,
//! KeyUpdate answers). *Transmitting* is driven by whoever has something to send, and by the floor itself.
//!
//! That last part is how accepted bytes leave although nobody waits for them (rule: write-6) and although there is no
//! task of ours. When the floor is full, it is left with a waker that is not a task's: waking it pumps. It does what the
//! writing task would do if it were there: it hands sealed records to the floor, seals what was staged behind them, and
//! ends the floor behind the marker. Tasks that wait for room are woken only once there is some.
//!
//! A waker may be called from anywhere, so three things hold. It never waits for the lock: whoever has it sees a flag
//! when they let go, and pumps in its place. No task is woken while the lock is held. And the floor beneath must not hold
//! locks of its own while it wakes ([`may_write_in_wake`](crate::transport::Floor::may_write_in_wake)); where it does
//! not promise that, the waker wakes the tasks that wait, and these pump. The waker holds the connection weakly: a
//! socket that keeps it keeps nothing alive.

use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak};
use std::task::{Context, Poll, Wake, Waker, ready};

use tokio::io::ReadBuf;
use tokio::task::coop::unconstrained;

use crate::core::session::{Session, Step};
use crate::error::{Phase, Reason};
use crate::transport::{Discard, Transport};

/// How often one call serves wakers that come while it serves them, before it leaves the rest to the tasks.
const MAX_KICKS: usize = 8;

/// A session and the floor beneath it.
pub(crate) struct Pump<T> {
    pub(crate) session: Session,
    /// Gone once the floor was taken back by a downgrade.
    pub(crate) floor: Option<T>,
    /// The floor lives on after this session's end: a downgrade.
    pub(crate) keeps_floor: bool,
    floor_is_shut: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
    wake: Waker,
}

impl<T: Transport> Pump<T> {
    /// Hands over all that can leave, and the floor's end behind this one's. Ready: nothing is left. How that came about
    /// the session says: sent, or lost.
    fn poll_transmit(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(floor) = &mut self.floor else { return Poll::Ready(()) };
        loop {
            let records = self.session.transmit();
            if records.is_empty() {
                break;
            }
            match ready!(poll_write(floor, cx, records)) {
                Ok(n) => self.session.transmitted(n),
                Err(error) => self.session.handle_write_lost(Reason::from_io(error, Phase::Open)),
            }
        }
        if self.session.is_done_sending() && !self.keeps_floor && !self.floor_is_shut {
            // rule: half-2: FIN only behind close_notify. How it went, the floor's own half says.
            let _ = ready!(Pin::new(floor).poll_shutdown(cx));
            self.floor_is_shut = true;
        }
        Poll::Ready(())
    }

    /// Transmits what can leave now; the floor's own waker goes on with the rest.
    pub(crate) fn transmit(&mut self) -> Poll<()> {
        let wake = self.wake.clone();
        self.poll_transmit(&mut Context::from_waker(&wake))
    }

    /// Receives until there is something to say.
    pub(crate) fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        loop {
            let step = self.session.step();
            if self.session.has_records() {
                let _ = self.transmit();
            }
            let Some(floor) = self.floor.as_mut().filter(|_| step == Step::NeedInput) else {
                return Poll::Ready(step);
            };
            let mut buf = ReadBuf::new(self.session.input_space());
            let read = Pin::new(floor).poll_read(cx, &mut buf);
            let n = buf.filled().len();
            match read {
                Poll::Ready(Ok(())) if n > 0 => self.session.handle_input(n),
                Poll::Ready(Ok(())) => self.session.handle_eof(),
                Poll::Ready(Err(error)) => self.session.handle_read_lost(Reason::from_io(error, Phase::Open)),
                Poll::Pending => {
                    self.session.handle_idle();
                    return Poll::Pending;
                }
            }
        }
    }

    /// The floor no longer takes anything. An alert that the peer sent before may lie unread: it is the better reason
    /// (rule: secure-6).
    pub(crate) fn look_for_alert(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(Step::Secured) = self.poll_receive(cx) {}
    }

    /// Both halves have ended: the floor beneath ends by itself as soon as its own end has come (rule: close-13).
    pub(crate) fn let_go(&mut self) {
        if !self.session.send().is_finished() || self.keeps_floor {
            return;
        }
        if let Some(floor) = &mut self.floor {
            let mut rest = Discard { bytes: 0, limit: u64::MAX };
            let _ = floor.poll_discard(&mut Context::from_waker(Waker::noop()), &mut rest);
        }
    }

    /// The reading task waits.
    pub(crate) fn park_reader(&mut self, cx: &mut Context<'_>) {
        park(&mut self.reader, cx);
    }

    /// The writing task waits, for room or for the end of a flush.
    pub(crate) fn park_writer(&mut self, cx: &mut Context<'_>) {
        park(&mut self.writer, cx);
    }

    /// Ends now, on this floor and all beneath.
    pub(crate) fn abort(&mut self) {
        self.session.abort();
        if let Some(floor) = &mut self.floor {
            floor.handle_abort();
        }
    }

    /// The tasks that have something to do now.
    fn take_ready_tasks(&mut self) -> [Option<Waker>; 2] {
        let session = &self.session;
        let may_go_on = session.is_below_low_mark() || session.is_flushed() || !session.send().may_write();
        let reader_is_done = !session.recv().is_open();
        [
            self.writer.take_if(|_| may_go_on && !session.is_handshaking() || session.send().is_over()),
            self.reader.take_if(|_| reader_is_done),
        ]
    }
}

fn park(slot: &mut Option<Waker>, cx: &mut Context<'_>) {
    match slot {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *slot = Some(cx.waker().clone()),
    }
}

/// Writes to the floor outside the task's budget: when that is used up, a waker is called at once, which a task takes for
/// "later" and the pump would take for "now".
fn poll_write<T: Transport>(floor: &mut T, cx: &mut Context<'_>, records: &[u8]) -> Poll<io::Result<usize>> {
    let write = std::future::poll_fn(|cx| Pin::new(&mut *floor).poll_write(cx, records));
    match ready!(pin!(unconstrained(write)).poll(cx)) {
        Ok(0) => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
        result => Poll::Ready(result),
    }
}

/// A pump that halves, handles and wakers share.
pub(crate) struct Shared<T> {
    pump: Mutex<Pump<T>>,
    kicked: AtomicBool,
}

impl<T: Transport> Shared<T> {
    pub(crate) fn new(session: Session, floor: T) -> Arc<Self> {
        Arc::new_cyclic(|weak| {
            let wake = Waker::from(Arc::new(PumpWaker(Weak::clone(weak))));
            let pump = Pump {
                session,
                floor: Some(floor),
                keeps_floor: false,
                floor_is_shut: false,
                reader: None,
                writer: None,
                wake,
            };
            Self { pump: Mutex::new(pump), kicked: AtomicBool::new(false) }
        })
    }

    /// Does something with the pump. Tasks that became ready are woken behind it, and wakers that came meanwhile served.
    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut Pump<T>) -> R) -> R {
        let mut pump = self.pump.lock().unwrap_or_else(PoisonError::into_inner);
        let result = f(&mut pump);
        self.unlock(pump);
        self.serve_kicks();
        result
    }

    /// The floor is ready for more.
    fn kick(&self) {
        self.kicked.store(true, Ordering::SeqCst);
        self.serve_kicks();
    }

    /// Whoever has the lock serves the kicks that come meanwhile, after letting go: so a kick is set before the lock is
    /// tried, and looked for after it is free.
    fn serve_kicks(&self) {
        for _ in 0..MAX_KICKS {
            if !self.kicked.load(Ordering::SeqCst) {
                return;
            }
            let mut pump = match self.pump.try_lock() {
                Ok(pump) => pump,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => return,
            };
            self.kicked.store(false, Ordering::SeqCst);
            if pump.floor.as_ref().is_some_and(|floor| floor.may_write_in_wake()) {
                let _ = pump.transmit();
                self.unlock(pump);
            } else {
                self.unlock_and_wake_all(pump);
            }
        }
        if self.kicked.swap(false, Ordering::SeqCst) {
            self.unlock_and_wake_all(self.pump.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    fn unlock(&self, mut pump: MutexGuard<'_, Pump<T>>) {
        let ready = pump.take_ready_tasks();
        drop(pump);
        ready.into_iter().flatten().for_each(Waker::wake);
    }

    fn unlock_and_wake_all(&self, mut pump: MutexGuard<'_, Pump<T>>) {
        let waiting = [pump.reader.take(), pump.writer.take()];
        drop(pump);
        waiting.into_iter().flatten().for_each(Waker::wake);
    }
}

/// The waker that the floor holds: waking it pumps.
struct PumpWaker<T>(Weak<Shared<T>>);

impl<T: Transport> Wake for PumpWaker<T> {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if let Some(shared) = self.0.upgrade() {
            shared.kick();
        }
    }
}
