//! A certificate resolver of the application.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::core::session::{Chosen, note_chosen};

/// Records the chain that the resolver chooses, for the facts of the session (rule: identity-9).
#[derive(Debug)]
pub(super) struct Noting {
    inner: Arc<dyn ResolvesServerCert>,
    /// The previous choice. Most servers always choose the same chain.
    last: Mutex<Option<(Arc<CertifiedKey>, Chosen)>>,
}

impl Noting {
    pub(super) fn new(inner: Arc<dyn ResolvesServerCert>) -> Self {
        Self { inner, last: Mutex::default() }
    }

    fn note(&self, certified: &Arc<CertifiedKey>) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let known = last.as_ref().filter(|(of, _)| Arc::ptr_eq(of, certified)).map(|(_, chosen)| chosen.clone());
        let chosen = known.unwrap_or_else(|| Chosen { chain: certified.cert.clone().into(), name: None });
        note_chosen(&chosen);
        *last = Some((Arc::clone(certified), chosen));
    }
}

impl ResolvesServerCert for Noting {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let certified = self.inner.resolve(hello)?;
        self.note(&certified);
        Some(certified)
    }

    fn only_raw_public_keys(&self) -> bool {
        self.inner.only_raw_public_keys()
    }
}
