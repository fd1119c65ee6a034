//! Sessions that can be resumed only under the client-authentication policy under which they began.
//!
//! A client that resumes a session is not verified again. If configurations with several policies share a ticketer or a session
//! store, a session that began without a client certificate could be resumed where one is required (rule: identity-8). So each
//! ticket and each key of the store holds a tag of the policy. rustls also compares the server name.

use std::fmt;
use std::sync::Arc;

use rustls::SupportedCipherSuite;
use rustls::crypto::CryptoProvider;
use rustls::server::{ProducesTickets, ServerConfig, StoresServerSessions};

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
        // Without a cipher suite there is no session.
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
