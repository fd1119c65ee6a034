//! State that only few connections need, or that is needed only at the end. It has a separate allocation, so that an
//! idle connection is small.

use std::sync::OnceLock;
use std::task::Waker;

use super::Control;
use super::observed::Observed;
use super::traits::BENEATH;
use crate::core::report::CloseReport;
use crate::error::Reason;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU64, Ordering};

/// Made when the first of its fields is needed.
#[derive(Default)]
pub(super) struct Rare {
    /// Set if the policy has observers.
    pub(super) observed: Option<Observed>,
    /// The reason of the end, once a layer has reported one. The first report counts.
    pub(super) noted: OnceLock<Reason>,
    /// The error of the system that ended the socket, unless it was a reset.
    pub(super) failed: OnceLock<Reason>,
    /// The task of a close by a handle, while it waits on the socket.
    pub(super) closer: Mutex<Option<Waker>>,
    pub(super) ended: OnceLock<Box<CloseReport>>,
    /// The report of a connection that ended without a close.
    pub(super) unclosed: OnceLock<Box<CloseReport>>,
    /// The permits of the listener. They are released when the connection has ended.
    pub(super) places: Mutex<Option<Box<dyn Send + Sync>>>,
    /// The PROXY header with which the connection began.
    #[cfg(feature = "proxy")]
    pub(super) proxied: OnceLock<std::sync::Arc<crate::proxy::ProxyHeader>>,
    /// The last keep-alive that was set, because the system does not report its times.
    #[cfg(any(windows, bowline_portable))]
    pub(super) keepalive: Mutex<crate::conn::socket::Keepalive>,
    pub(super) received: Plain,
    pub(super) sent: Plain,
}

/// For one direction: how many of the bytes on the wire are the application's own, in plaintext.
#[derive(Default)]
pub(super) struct Plain {
    /// The number of bytes on the wire when the current TLS session began.
    mark: AtomicU64,
    /// The number of bytes on the wire before the mark that are not the application's: the bytes of earlier TLS
    /// sessions, of a PROXY header, or of a ClientHello that was read in advance.
    hidden: AtomicU64,
}

impl Rare {
    pub(super) fn observed(observed: Observed) -> OnceLock<Box<Self>> {
        OnceLock::from(Box::new(Self { observed: Some(observed), ..Self::default() }))
    }
}

impl Control {
    pub(super) fn rare(&self) -> Option<&Rare> {
        self.0.rare.get().map(|rare| &**rare)
    }

    #[cold]
    pub(super) fn make_rare(&self) -> &Rare {
        self.0.rare.get_or_init(Box::default)
    }

    /// The number of bytes that the application has received and sent so far: without TLS, as on the wire; with TLS,
    /// the plaintext of the innermost session. A PROXY header does not count. Bytes that TLS has received and that a
    /// close discards do not count either.
    ///
    /// Received bytes count when they are taken from the session or the socket, and sent bytes when the transport has
    /// accepted them. The counters can also be read after the end (rule: traffic-2).
    #[doc(alias = "bytes_received")]
    #[doc(alias = "bytes_sent")]
    pub fn payload(&self) -> super::Traffic {
        let (wire, rare) = (self.traffic(), self.rare());
        let beneath = self.is(BENEATH);
        let count = |wire: u64, tls: &AtomicU64, plain: Option<&Plain>| {
            let of =
                |counter: fn(&Plain) -> &AtomicU64| plain.map_or(0, |plain| counter(plain).load(Ordering::Relaxed));
            let plain = if beneath { of(|plain| &plain.mark) } else { wire };
            (plain + tls.load(Ordering::Relaxed)).saturating_sub(of(|plain| &plain.hidden))
        };
        super::Traffic {
            received: count(wire.received, &self.0.opened, rare.map(|rare| &rare.received)),
            sent: count(wire.sent, &self.0.sealed, rare.map(|rare| &rare.sent)),
        }
    }

    /// Called by the bottom layer when a TLS session begins on top of it, and when that session has ended by a
    /// downgrade.
    pub(crate) fn set_beneath(&self, beneath: bool) {
        let wire = self.traffic();
        let directions = |rare: &Rare, f: &dyn Fn(&Plain, u64)| {
            f(&rare.received, wire.received);
            f(&rare.sent, wire.sent);
        };
        if beneath {
            if wire != super::Traffic::default() {
                directions(self.make_rare(), &|plain, wire| plain.mark.store(wire, Ordering::Relaxed));
            }
        } else {
            directions(self.make_rare(), &|plain, wire| {
                let mark = plain.mark.load(Ordering::Relaxed);
                plain.hidden.fetch_add(wire - mark, Ordering::Relaxed);
            });
        }
        match beneath {
            true => self.0.traits.fetch_or(BENEATH, Ordering::Relaxed),
            false => self.0.traits.fetch_and(!BENEATH, Ordering::Relaxed),
        };
    }

    /// These received bytes were counted, but the application does not get them.
    pub(crate) fn hide_received(&self, bytes: usize) {
        if bytes > 0 {
            self.make_rare().received.hidden.fetch_add(bytes as u64, Ordering::Relaxed);
        }
    }

    /// These received bytes were hidden with their session, but belong to the plaintext after it.
    pub(crate) fn show_received(&self, bytes: usize) {
        let rare = self.make_rare();
        // This does not underflow: the session that hid these bytes has hidden at least as many.
        rare.received.hidden.fetch_sub(bytes as u64, Ordering::Relaxed);
    }

    /// Counts plaintext that the application takes from the topmost TLS session.
    #[inline]
    pub(crate) fn note_opened(&self, bytes: usize) {
        let so_far = self.0.opened.load(Ordering::Relaxed);
        self.0.opened.store(so_far + bytes as u64, Ordering::Relaxed);
    }

    /// Counts plaintext that the topmost TLS session has accepted.
    #[inline]
    pub(crate) fn note_sealed(&self, bytes: usize) {
        let so_far = self.0.sealed.load(Ordering::Relaxed);
        self.0.sealed.store(so_far + bytes as u64, Ordering::Relaxed);
    }
}
