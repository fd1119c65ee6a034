//! The socket that the two halves share.

use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use tokio::net::TcpStream;

use crate::control::{Control, Ground};
use crate::core::tally::Outcome;
use crate::error::Reason;
use crate::idle::HalfOpen;
use crate::policy::Policy;
use crate::socket;

/// The socket, shared by the two halves.
pub(super) struct Wire {
    pub(super) stream: TcpStream,
    control: Control,
    pub(super) fin_sent: HalfOpen,
    /// The peer has ended its half, of this floor or of one above.
    pub(super) fin_received: HalfOpen,
    /// A floor above tells the end by its own marker.
    pub(super) beneath: AtomicBool,
    /// Both halves hold the socket.
    held: AtomicBool,
}

impl Wire {
    /// Both halves have let go: the connection ends now, whoever else may still look at the socket.
    fn end(&self) {
        if self.fin_sent.has_begun() {
            self.note_unacknowledged();
        }
        if !self.is_beneath() {
            if !self.fin_sent.has_begun() {
                // rule: close-12: FIN is this floor's marker; whoever was dropped in the middle must not send it.
                socket::reset(&self.stream);
            } else if self.fin_received.has_begun() {
                self.control.note_outcome(Outcome::Closed);
            }
        }
        self.control.note_gone();
    }

    /// A half was lost. What that means for the connection, the topmost floor knows.
    pub(super) fn note_loss(&self, reason: &Reason) {
        self.note_unacknowledged();
        if matches!(reason, Reason::Reset(_)) {
            // The system tells it once, and the other half has to know.
            self.control.note_reset();
        }
        if !self.is_beneath() {
            self.control.note_outcome(Outcome::of(reason));
        }
    }

    pub(super) fn is_beneath(&self) -> bool {
        self.beneath.load(Ordering::Acquire)
    }

    /// Whether a short read means that nothing more is there. It does where readiness is told by edges, except at the mark
    /// of urgent data, which stops a read short. No TLS peer sends any, but FTP's ABOR does: in plaintext the system is
    /// asked until it has nothing.
    pub(super) fn tells_by_short_reads(&self) -> bool {
        socket::TELLS_BY_EDGES && self.is_beneath()
    }

    /// Asked where a report may follow: a connection that is dropped in the middle has none.
    fn note_unacknowledged(&self) {
        let fin_sent = self.fin_sent.has_begun();
        self.control.note_unacknowledged(socket::unacknowledged(&self.stream, fin_sent));
    }
}

/// A half's share of the socket.
pub(super) struct Hold(Arc<Wire>);

impl Hold {
    /// The two shares of a socket, and the handle that reaches it.
    pub(super) fn pair(stream: TcpStream, host: SocketAddr, peer: SocketAddr, policy: Arc<Policy>) -> [Self; 2] {
        let control = Control::new(host.into(), peer.into(), policy);
        let wire = Arc::new(Wire {
            stream,
            control: control.clone(),
            fin_sent: HalfOpen::default(),
            fin_received: HalfOpen::default(),
            beneath: AtomicBool::new(false),
            held: AtomicBool::new(true),
        });
        let ground: Weak<dyn Ground> = Arc::downgrade(&(Arc::clone(&wire) as Arc<dyn Ground>));
        control.stand_on(ground);
        [Self(Arc::clone(&wire)), Self(wire)]
    }

    pub(super) fn control(&self) -> &Control {
        &self.control
    }
}

impl Deref for Hold {
    type Target = Wire;

    fn deref(&self) -> &Wire {
        &self.0
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let was_held = self.held.swap(false, Ordering::AcqRel);
        if !was_held {
            self.end();
        }
    }
}

impl Ground for Wire {
    fn abort(&self) {
        // Asked first: what is dissolved has nothing to acknowledge.
        self.note_unacknowledged();
        socket::reset(&self.stream);
    }

    fn socket(&self) -> Option<&TcpStream> {
        Some(&self.stream)
    }

    fn begin_report(&self) {
        self.note_unacknowledged();
    }
}
