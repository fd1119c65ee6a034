//! Sessions that can be resumed only under the client-authentication policy under which they began.
//!
//! A client that resumes a session is not verified again. If configurations with several policies share a ticketer or a
//! session store, a session that began without a client certificate could be resumed where one is required
//! (rule: identity-8). So each ticket and each key of the store holds a tag of the policy. rustls also compares the
//! server name.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::SupportedCipherSuite;
use rustls::crypto::CryptoProvider;
use rustls::server::{ProducesTickets, ServerConfig, ServerSessionMemoryCache, StoresServerSessions};

use super::TicketKeys;
use crate::error::Error;

const LEN: usize = 16;

/// Identifies a policy by its contents, in every process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Tag([u8; LEN]);

impl Tag {
    pub(super) fn of(contents: &[u8], provider: &CryptoProvider) -> Self {
        let hash = provider.cipher_suites.iter().map(|suite| match suite {
            SupportedCipherSuite::Tls12(suite) => suite.common.hash_provider,
            SupportedCipherSuite::Tls13(suite) => suite.common.hash_provider,
        });
        // If the provider has no cipher suite, there is no hash, but then there is no session either.
        let hashed = hash.map(|hash| hash.hash(contents)).next();
        Self(hashed.and_then(|hashed| hashed.as_ref().first_chunk().copied()).unwrap_or_default())
    }

    fn before(self, bytes: &[u8]) -> Vec<u8> {
        [&self.0, bytes].concat()
    }
}

/// Binds the sessions of a configuration to a policy.
pub(super) fn bind(config: &mut ServerConfig, tag: Tag) {
    config.ticketer = Arc::new(Bound { inner: Arc::clone(&config.ticketer), tag });
    config.session_storage = Arc::new(Bound { inner: Arc::clone(&config.session_storage), tag });
}

/// The ticketer and the session store of all configurations of a server. A replacement of the server's configuration
/// passes them on (rule: reload-3).
#[derive(Debug)]
pub(super) struct Sessions {
    inner: RwLock<Inner>,
    /// Identifies the crypto provider. `None` if the application has chosen the ticketer, which is then not changed.
    provider: Option<Option<usize>>,
    /// The keys of the tickets, if servers share them.
    keys: Option<TicketKeys>,
}

#[derive(Debug, Clone)]
struct Inner {
    ticketer: Option<Arc<dyn ProducesTickets>>,
    store: Arc<dyn StoresServerSessions>,
}

impl Sessions {
    /// The number of sessions in a store, as in rustls's default.
    const STORED: usize = 256;

    pub(super) fn new(ticketer: Option<Arc<dyn ProducesTickets>>, provider: Option<Option<usize>>) -> Self {
        let inner = Inner { ticketer, store: ServerSessionMemoryCache::new(Self::STORED) };
        Self { inner: RwLock::new(inner), provider, keys: None }
    }

    /// A ticketer with keys that servers share.
    pub(super) fn shared(keys: TicketKeys, provider: &CryptoProvider) -> Result<Self, Error> {
        Ok(Self { keys: Some(keys.clone()), ..Self::new(Some(keys.ticketer(provider)?), None) })
    }

    pub(super) fn keys(&self) -> Option<&TicketKeys> {
        self.keys.as_ref()
    }

    /// Uses the ticketer and the store of another configuration, unless the application has chosen a ticketer or the
    /// crypto provider is another one.
    pub(super) fn continue_with(&self, old: &Self) {
        if self.provider.is_some() && self.provider == old.provider {
            let inner = old.inner();
            *self.inner.write().unwrap_or_else(PoisonError::into_inner) = inner;
        }
    }

    fn inner(&self) -> Inner {
        self.inner.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ProducesTickets for Sessions {
    fn enabled(&self) -> bool {
        self.inner().ticketer.is_some_and(|ticketer| ticketer.enabled())
    }

    fn lifetime(&self) -> u32 {
        self.inner().ticketer.map_or(0, |ticketer| ticketer.lifetime())
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.inner().ticketer?.encrypt(plain)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.inner().ticketer?.decrypt(cipher)
    }
}

impl StoresServerSessions for Sessions {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        self.inner().store.put(key, value)
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.inner().store.get(key)
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.inner().store.take(key)
    }

    fn can_cache(&self) -> bool {
        self.inner().store.can_cache()
    }
}

struct Bound<T: ?Sized> {
    inner: Arc<T>,
    tag: Tag,
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for Bound<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl ProducesTickets for Bound<dyn ProducesTickets> {
    fn enabled(&self) -> bool {
        self.inner.enabled()
    }

    fn lifetime(&self) -> u32 {
        self.inner.lifetime()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.inner.encrypt(&self.tag.before(plain))
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        Some(self.inner.decrypt(cipher)?.strip_prefix(&self.tag.0)?.to_vec())
    }
}

impl StoresServerSessions for Bound<dyn StoresServerSessions> {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        self.inner.put(self.tag.before(&key), value)
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.inner.get(&self.tag.before(key))
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.inner.take(&self.tag.before(key))
    }

    fn can_cache(&self) -> bool {
        self.inner.can_cache()
    }
}
