//! Reports the events of a connection to its observers, in order (rule: observe-1).

use std::panic::Location;
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::SystemTime;

use tokio::time::Instant;

use super::Control;
use super::observer::{Observer, Observers};
use crate::conn::after_unlock;
use crate::core::facts::SessionFacts;
use crate::error::{Phase, Reason};
use crate::policy::Policy;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, Ordering};

/// The state of a connection that has observers.
pub(super) struct Observed {
    observers: Arc<Observers>,
    /// The place in the code that made the connection, its listener or its connector. Set when the connection is
    /// reported as opened.
    place: OnceLock<&'static Location<'static>>,
    /// The end was reported. Several tasks may see the end, and only the first one reports it.
    ended: AtomicBool,
    #[cfg(feature = "tracing")]
    span: OnceLock<tracing::Span>,
    handshake: Mutex<Handshake>,
}

#[derive(Clone, Copy)]
enum Handshake {
    /// No handshake has begun.
    None,
    InProgress(Instant),
    /// The observers have got the result of the last handshake.
    Reported,
}

impl Observed {
    /// `None`: the policy has no observers.
    pub(super) fn of(policy: &Policy) -> Option<Self> {
        let observers = Observers::of(policy)?;
        Some(Self {
            observers,
            place: OnceLock::new(),
            #[cfg(feature = "tracing")]
            span: OnceLock::new(),
            ended: AtomicBool::new(false),
            handshake: Mutex::new(Handshake::None),
        })
    }

    fn set_handshake(&self, state: Handshake) -> Handshake {
        std::mem::replace(&mut *self.handshake.lock().unwrap_or_else(PoisonError::into_inner), state)
    }
}

impl Control {
    /// When the connection was made: accepted, opened, or taken over.
    #[doc(alias = "age")]
    pub fn began(&self) -> Instant {
        self.0.activity.started_at()
    }

    /// As [`began`](Self::began), but by the clock of the system. If that clock is adjusted later, this time shifts
    /// with it.
    pub fn began_at(&self) -> SystemTime {
        let now = SystemTime::now();
        now.checked_sub(self.began().elapsed()).unwrap_or(now)
    }

    /// The facts of the last TLS session whose handshake is done. `None` if there was none yet. They can be read after
    /// the end of the session and of the connection too (rule: secure-3).
    pub fn tls(&self) -> Option<Arc<SessionFacts>> {
        self.0.facts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The place in the code that made the connection. If a listener, a connector or an endpoint made it, this is the
    /// place that made the listener, the connector or the endpoint. Known only if the connection has
    /// [observers](crate::Observer).
    pub fn made_at(&self) -> Option<&'static Location<'static>> {
        self.observed()?.place.get().copied()
    }

    /// The span of the connection, if its policy has the observer [`Tracing`](crate::Tracing). Otherwise a disabled
    /// span, which does nothing. A service can enter the span, so that its own events show the connection.
    #[cfg(feature = "tracing")]
    pub fn span(&self) -> tracing::Span {
        self.observed().and_then(|observed| observed.span.get().cloned()).unwrap_or_else(tracing::Span::none)
    }

    /// A connection has one span; a second call changes nothing.
    #[cfg(feature = "tracing")]
    pub(crate) fn set_span(&self, span: tracing::Span) {
        if let Some(observed) = self.observed() {
            let _ = observed.span.set(span);
        }
    }

    fn observed(&self) -> Option<&Observed> {
        self.rare()?.observed.as_ref()
    }

    /// The connection is ready for use by the application. A second call changes nothing.
    pub(crate) fn announce(&self, place: &'static Location<'static>) {
        let Some(observed) = self.observed() else { return };
        if observed.place.set(place).is_ok() {
            self.tell_observers(|observer, control| observer.opened(control));
        }
    }

    /// Records that a TLS handshake begins.
    pub(crate) fn note_handshake(&self) {
        if let Some(observed) = self.observed() {
            observed.set_handshake(Handshake::InProgress(Instant::now()));
        }
    }

    /// Records that a TLS session is ready.
    pub(crate) fn note_secured(&self, facts: &Arc<SessionFacts>) {
        let before = self.0.facts.lock().unwrap_or_else(PoisonError::into_inner).replace(Arc::clone(facts));
        drop(before);
        let Some(observed) = self.observed() else { return };
        if let Handshake::InProgress(begun) = observed.set_handshake(Handshake::Reported) {
            let (facts, took) = (Arc::clone(facts), begun.elapsed());
            self.tell_observers(move |observer, control| observer.handshake_done(control, &facts, took));
        }
    }

    /// Reports to the observers that the handshake in progress has failed. Does nothing if there is none.
    #[cold]
    pub(crate) fn note_handshake_failed(&self, reason: &Reason) {
        let Some(observed) = self.observed() else { return };
        #[cfg(feature = "proxy")]
        if self.is_health_check() && matches!(reason, Reason::Truncated(_) | Reason::Reset(_)) {
            // rule: proxy-6
            observed.set_handshake(Handshake::Reported);
            return;
        }
        let begun = match observed.set_handshake(Handshake::Reported) {
            Handshake::InProgress(begun) => begun,
            // The time ran out, or the connection ended, before TLS began.
            Handshake::None if reason.phase() == Some(Phase::Handshake) => self.began(),
            Handshake::None | Handshake::Reported => return,
        };
        let (reason, took) = (reason.clone(), begun.elapsed());
        self.tell_observers(move |observer, control| observer.handshake_failed(control, &reason, took));
    }

    /// Records that the client could have used TLS, but began in plaintext.
    pub(crate) fn note_plaintext(&self) {
        if self.observed().is_some() {
            self.tell_observers(|observer, control| observer.began_in_plaintext(control));
        }
    }

    /// Reports the end, if the connection has ended and its reason can change no more.
    pub(super) fn tell_ended(&self) {
        let Some(observed) = self.observed().filter(|observed| observed.place.get().is_some()) else {
            return;
        };
        if !self.is_settled() || self.is_closing() {
            return;
        }
        let Some(report) = self.report().cloned() else { return };
        if !observed.ended.swap(true, Ordering::AcqRel) {
            self.note_handshake_failed(&report.reason);
            self.tell_observers(move |observer, control| observer.ended(control, &report));
        }
    }

    /// Calls the observers, at once or as soon as this thread holds no lock (rule: observe-2).
    fn tell_observers(&self, event: impl Fn(&dyn Observer, &Self) + 'static) {
        let this = self.clone();
        after_unlock::run(move || {
            if let Some(observed) = this.observed() {
                observed.observers.tell(|observer| event(observer, &this));
            }
        });
    }
}
