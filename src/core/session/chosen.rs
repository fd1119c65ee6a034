//! The identity that the certificate resolver of a server chose for a session.
//!
//! rustls asks the resolver during the handshake, and does not report the answer. So a resolver of this crate records
//! its answer for the session that is calling rustls on this thread.

use std::cell::RefCell;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;

use crate::core::facts::InitialFacts;

/// An identity that was chosen.
#[derive(Debug, Clone)]
pub struct Chosen {
    /// The certificates, our own one first.
    pub chain: Arc<[CertificateDer<'static>]>,
    /// The name of the identity, if it has one.
    pub name: Option<Arc<str>>,
}

thread_local! {
    /// The choice for the session that is calling rustls on this thread. `None` outside of such calls.
    static SLOT: RefCell<Option<Option<Chosen>>> = const { RefCell::new(None) };
}

/// Records the choice of a resolver. Does nothing if another library is calling rustls.
pub fn note_chosen(chosen: &Chosen) {
    SLOT.with_borrow_mut(|slot| {
        if let Some(slot) = slot {
            *slot = Some(chosen.clone());
        }
    });
}

impl InitialFacts {
    /// Calls rustls. If a resolver chooses an identity during the call, this session uses it.
    pub(super) fn noting_choice<T>(&mut self, call: impl FnOnce() -> T) -> T {
        let (result, chosen) = noting(call);
        if let Some(Chosen { chain, name }) = chosen {
            (self.own_chain, self.identity) = (chain, name);
        }
        result
    }
}

/// Calls rustls, and returns the choice that a resolver has recorded during the call.
fn noting<T>(call: impl FnOnce() -> T) -> (T, Option<Chosen>) {
    // The previous value is restored on drop, because the application's verifier may do another handshake during the
    // call.
    struct Before(Option<Option<Chosen>>);
    impl Drop for Before {
        fn drop(&mut self) {
            SLOT.set(self.0.take());
        }
    }
    let _before = Before(SLOT.replace(Some(None)));
    let result = call();
    (result, SLOT.take().flatten())
}
