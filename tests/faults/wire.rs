//! A connection in memory between our side and its peer, on which a test causes faults.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use crate::cell::Fault;

/// The most bytes in transit in one direction.
const CAPACITY: usize = 64 << 10;
/// The time between two bytes of a slow network.
const DRIP: Duration = Duration::from_secs(1);

/// Our end.
pub(crate) struct Wire {
    shared: Arc<Shared>,
    /// The wait for the next byte of a slow network.
    drip: Option<Pin<Box<Sleep>>>,
    /// Tells the test whether our end still exists.
    _alive: Arc<()>,
}

/// The peer's end.
pub(crate) struct Far(Arc<Shared>);

/// Controls the wire for the test.
#[derive(Clone)]
pub(crate) struct Knob {
    shared: Arc<Shared>,
    alive: Weak<()>,
}

struct Shared(Mutex<State>);

#[derive(Default)]
struct State {
    to_us: VecDeque<u8>,
    to_peer: VecDeque<u8>,
    /// FIN was sent to our side, or to the peer.
    fin_to_us: bool,
    fin_to_peer: bool,
    rst: bool,
    fault: Option<Fault>,
    armed: Option<Armed>,
    /// The number of flights of the peer since the last reset of this count.
    flights: usize,
    /// The peer, and not our side, has sent last.
    peer_spoke: bool,
    /// The number of our calls that have sent: writes, and the end of our half.
    calls: usize,
    /// The fault that occurs in our call with this number, and in every later one.
    at_call: Option<(usize, Fault)>,
    /// If the bytes come in pieces, every second read waits.
    waits_next: bool,
    our_tasks: Vec<Waker>,
    peer_tasks: Vec<Waker>,
}

/// A fault that occurs in the peer's flight with this number, after `skip` bytes of it.
struct Armed {
    flight: usize,
    skip: usize,
    fault: Fault,
}

pub(crate) fn wire() -> (Wire, Far, Knob) {
    let shared = Arc::new(Shared(Mutex::default()));
    let alive = Arc::new(());
    let knob = Knob { shared: Arc::clone(&shared), alive: Arc::downgrade(&alive) };
    (Wire { shared: Arc::clone(&shared), drip: None, _alive: alive }, Far(shared), knob)
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Changes the state under the lock, releases the lock, and wakes the tasks of both sides.
    fn change<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.lock();
        let result = change(&mut state);
        let mut woken = std::mem::take(&mut state.our_tasks);
        woken.append(&mut state.peer_tasks);
        drop(state);
        woken.into_iter().for_each(Waker::wake);
        result
    }
}

impl Knob {
    /// Causes the fault now.
    pub(crate) fn inject(&self, fault: Fault) {
        self.shared.change(|state| state.begin(fault));
    }

    /// Causes the fault in a flight of the peer, counted from now, after `skip` bytes of it.
    pub(crate) fn arm(&self, flight: usize, skip: usize, fault: Fault) {
        let mut state = self.shared.lock();
        (state.flights, state.peer_spoke) = (0, false);
        state.armed = Some(Armed { flight, skip, fault });
    }

    /// Causes the fault in our call with this number that sends.
    pub(crate) fn at_call(&self, call: usize, fault: Fault) {
        self.shared.lock().at_call = Some((call, fault));
    }

    /// The number of our calls that have sent.
    pub(crate) fn calls(&self) -> usize {
        self.shared.lock().calls
    }

    /// Whether our side still holds its end.
    pub(crate) fn is_held(&self) -> bool {
        self.alive.strong_count() > 0
    }
}

impl State {
    fn begin(&mut self, fault: Fault) {
        self.fault = Some(fault);
        match fault {
            Fault::Rst => self.rst = true,
            Fault::Garbage => self.to_us.extend(b"HTTP/1.1 400 Bad Request\r\n\r\n".iter().cycle().take(20_000)),
            _ => {}
        }
    }

    /// Adds bytes of the peer to those that our side can read.
    fn arrive(&mut self, bytes: &[u8]) {
        if !std::mem::replace(&mut self.peer_spoke, true) {
            self.flights += 1;
        }
        match self.armed.take_if(|armed| armed.flight == self.flights) {
            Some(Armed { skip, fault, .. }) => {
                self.to_us.extend(&bytes[..skip.min(bytes.len())]);
                self.begin(fault);
                if !fault.cuts() {
                    self.to_us.extend(&bytes[skip.min(bytes.len())..]);
                }
            }
            None if self.fault.is_some_and(Fault::cuts) => {}
            None => self.to_us.extend(bytes),
        }
    }

    /// Counts a call of ours that sends. Returns the fault that occurs in it.
    fn call(&mut self) -> Option<Fault> {
        self.peer_spoke = false;
        let number = self.calls;
        self.calls += 1;
        if let Some((_, fault)) = self.at_call.filter(|(from, _)| number >= *from) {
            self.fault = Some(fault);
        }
        self.fault
    }
}

/// The record that a peer sends without end in a handshake: a warning, in plaintext.
const WARNING: [u8; 7] = [21, 3, 3, 0, 2, 1, 90];

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let mut state = this.shared.lock();
        state.our_tasks.push(cx.waker().clone());
        if state.rst {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let mut most = buf.remaining();
        match state.fault {
            Some(Fault::Pieces(size)) => {
                state.waits_next = !state.waits_next;
                if state.waits_next && !state.to_us.is_empty() {
                    // The lock is released before the wake-up, because the waker may write.
                    drop(state);
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                most = most.min(size);
            }
            Some(Fault::Drip) if !state.to_us.is_empty() => {
                let drip = this.drip.get_or_insert_with(|| Box::pin(sleep(DRIP)));
                if drip.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                this.drip = None;
                most = most.min(1);
            }
            Some(Fault::TalkRaw) if state.to_us.is_empty() => {
                let drip = this.drip.get_or_insert_with(|| Box::pin(sleep(Duration::from_millis(10))));
                if drip.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                this.drip = None;
                state.to_us.extend(WARNING.iter().cycle().take(WARNING.len() * 1_000));
            }
            _ => {}
        }
        if state.to_us.is_empty() {
            let ended = state.fin_to_us && !state.fault.is_some_and(Fault::cuts) || state.fault == Some(Fault::Fin);
            return if ended { Poll::Ready(Ok(())) } else { Poll::Pending };
        }
        let n = most.min(state.to_us.len());
        let bytes: Vec<u8> = state.to_us.drain(..n).collect();
        buf.put_slice(&bytes);
        let woken = std::mem::take(&mut state.peer_tasks);
        drop(state);
        woken.into_iter().for_each(Waker::wake);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.shared.lock();
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if state.fin_to_peer {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let fault = state.call();
        if state.rst {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if let Some(error) = fault.and_then(Fault::error) {
            return Poll::Ready(Err(error));
        }
        let mut n = bytes.len().min(CAPACITY - state.to_peer.len());
        match fault {
            Some(Fault::Stall) => n = 0,
            Some(Fault::Pieces(size)) => n = n.min(size),
            _ => {}
        }
        if n == 0 {
            state.our_tasks.push(cx.waker().clone());
            return Poll::Pending;
        }
        state.to_peer.extend(&bytes[..n]);
        let woken = std::mem::take(&mut state.peer_tasks);
        drop(state);
        woken.into_iter().for_each(Waker::wake);
        Poll::Ready(Ok(n))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.shared.lock();
        if state.fin_to_peer {
            return Poll::Ready(Ok(()));
        }
        let fault = state.call();
        if state.rst {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if let Some(error) = fault.and_then(Fault::error) {
            return Poll::Ready(Err(error));
        }
        if fault == Some(Fault::Stall) {
            state.our_tasks.push(cx.waker().clone());
            return Poll::Pending;
        }
        drop(state);
        self.shared.change(|state| state.fin_to_peer = true);
        Poll::Ready(Ok(()))
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.shared.change(|state| state.rst |= !state.fin_to_peer);
    }
}

impl AsyncRead for Far {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.lock();
        if !state.to_peer.is_empty() {
            let n = buf.remaining().min(state.to_peer.len());
            let bytes: Vec<u8> = state.to_peer.drain(..n).collect();
            buf.put_slice(&bytes);
            let woken = std::mem::take(&mut state.our_tasks);
            drop(state);
            woken.into_iter().for_each(Waker::wake);
            return Poll::Ready(Ok(()));
        }
        if state.rst {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if state.fin_to_peer {
            return Poll::Ready(Ok(()));
        }
        state.peer_tasks.push(cx.waker().clone());
        Poll::Pending
    }
}

impl AsyncWrite for Far {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.0.lock();
        if state.rst {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let n = bytes.len().min(CAPACITY.saturating_sub(state.to_us.len()));
        if n == 0 && !bytes.is_empty() {
            state.peer_tasks.push(cx.waker().clone());
            return Poll::Pending;
        }
        state.arrive(&bytes[..n]);
        let woken = std::mem::take(&mut state.our_tasks);
        drop(state);
        woken.into_iter().for_each(Waker::wake);
        Poll::Ready(Ok(n))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.change(|state| state.fin_to_us = true);
        Poll::Ready(Ok(()))
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        self.0.change(|state| state.rst |= !state.fin_to_us && !state.fault.is_some_and(Fault::cuts));
    }
}
