//! Keys for session tickets that several servers share, so that a client can resume its session on any of them.

mod crypto;
mod files;
#[cfg(feature = "stream")]
mod follow;
mod key;
mod set;
mod ticket;
#[cfg(feature = "tokio")]
mod wrap;

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rustls::crypto::CryptoProvider;
use rustls::server::ProducesTickets;

pub(super) use self::files::KeyFiles;
pub use self::key::TicketKey;
use self::key::unusable;
pub use self::set::TicketKeySet;
use self::ticket::Crypto;
#[cfg(feature = "tokio")]
pub use self::wrap::WrapKey;
use super::common::contradiction;
use crate::core::engine::library::Library;
use crate::error::Error;

/// The ticket keys of one or several servers, for
/// [`ServerTlsBuilder::ticket_keys`](super::ServerTlsBuilder::ticket_keys). Clones are handles of the same keys:
/// [`replace`](Self::replace) changes them for all servers.
///
/// If a server cannot use the ticket of a client, it does a full handshake. This happens if the name of the key is
/// unknown, if the ticket is too old, or if it was sealed under another policy for client certificates (rules:
/// ticket-3, ticket-4, ticket-5). Early data (0-RTT) is never accepted.
///
/// ```
/// use bowline::ServerTls;
/// use bowline::config::{TicketKey, TicketKeySet, TicketKeys};
///
/// # fn secret() -> [u8; 32] { std::array::from_fn(|n| n as u8) }
/// // Every server gets the same name and the same random secret.
/// let keys = TicketKeys::new(TicketKeySet::new([TicketKey::new(*b"a name, 16 bytes", secret())?])?);
/// let builder = ServerTls::builder().ticket_keys(&keys);
/// # Ok::<(), bowline::Error>(())
/// ```
#[doc(alias = "STEK")]
#[doc(alias = "SetSessionTicketKeys")]
#[derive(Clone)]
pub struct TicketKeys(Arc<Shared>);

struct Shared {
    lifetime: Duration,
    set: RwLock<Arc<TicketKeySet>>,
}

impl TicketKeys {
    /// The default lifetime of a ticket.
    pub const LIFETIME: Duration = Duration::from_secs(24 * 3600);
    /// The longest lifetime of a ticket (RFC 8446, section 4.6.1).
    pub const MAX_LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);

    /// Keys whose tickets are valid for [`LIFETIME`](Self::LIFETIME), but not longer than their key.
    pub fn new(set: TicketKeySet) -> Self {
        Self::of(set, Self::LIFETIME)
    }

    /// Keys whose tickets are valid for this time, but not longer than their key.
    ///
    /// # Errors
    /// [`ConfigError`](crate::ConfigError): the lifetime is shorter than a second or longer than
    /// [`MAX_LIFETIME`](Self::MAX_LIFETIME). The caller has to fix this.
    pub fn with_lifetime(set: TicketKeySet, lifetime: Duration) -> Result<Self, Error> {
        match (Duration::from_secs(1)..=Self::MAX_LIFETIME).contains(&lifetime) {
            true => Ok(Self::of(set, lifetime)),
            false => Err(unusable(format!("tickets are valid for one second to seven days, not for {lifetime:?}"))),
        }
    }

    fn of(set: TicketKeySet, lifetime: Duration) -> Self {
        Self(Arc::new(Shared { lifetime, set: RwLock::new(Arc::new(set)) }))
    }

    /// Replaces the keys. Returns whether the new keys differ from the old ones.
    ///
    /// Tickets of the old keys can be opened only if the new set contains these keys too.
    pub fn replace(&self, set: TicketKeySet) -> bool {
        let mut current = self.0.set.write().unwrap_or_else(PoisonError::into_inner);
        let is_other = **current != set;
        if is_other {
            *current = Arc::new(set);
        }
        is_other
    }

    /// The keys in use.
    pub fn set(&self) -> Arc<TicketKeySet> {
        Arc::clone(&self.0.set.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// How long tickets are valid.
    pub fn lifetime(&self) -> Duration {
        self.0.lifetime
    }

    /// The age of the key that seals tickets now, from [`TicketKey::made`]. `None` if that time is unknown, or no key
    /// seals.
    pub fn age(&self) -> Option<Duration> {
        let now = SystemTime::now();
        let since = self.set().sealing(now)?.since()?;
        Some(now.duration_since(since).unwrap_or_default())
    }

    /// A number that is the same for clones of a handle, and different for any other handle that exists at the same
    /// time.
    fn id(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }

    /// The tickets of a server with this provider (rule: ticket-7).
    pub(super) fn ticketer(&self, provider: &CryptoProvider) -> Result<Arc<dyn ProducesTickets>, Error> {
        let Some(library) = Library::of_provider(provider) else {
            return Err(contradiction(format!(
                "shared ticket keys need the cipher suites of rustls's provider aws-lc-rs or ring, and the crypto provider \
                 with the keys of {:?} has others, or their feature is not enabled",
                provider.key_provider
            )));
        };
        let crypto = Crypto { library, random: provider.secure_random };
        Ok(Arc::new(Ticketer { keys: self.clone(), crypto }))
    }
}

/// Two handles are equal if they are handles of the same keys.
impl PartialEq for TicketKeys {
    fn eq(&self, other: &Self) -> bool {
        self.id() == other.id()
    }
}

impl Eq for TicketKeys {}

impl Hash for TicketKeys {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id().hash(state);
    }
}

impl fmt::Debug for TicketKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = self.set();
        f.debug_struct("TicketKeys").field("lifetime", &self.0.lifetime).field("keys", &set.keys()).finish()
    }
}

/// Seals and opens the tickets of a configuration.
struct Ticketer {
    keys: TicketKeys,
    crypto: Crypto,
}

impl ProducesTickets for Ticketer {
    fn enabled(&self) -> bool {
        true
    }

    /// A ticket is not valid for longer than the key that seals it.
    fn lifetime(&self) -> u32 {
        let now = SystemTime::now();
        let end = self.keys.set().sealing(now).and_then(TicketKey::end);
        let left = end.map_or(Duration::MAX, |end| end.duration_since(now).unwrap_or_default());
        u32::try_from(left.min(self.keys.lifetime()).as_secs()).unwrap_or_default()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        ticket::seal(&self.keys.set(), SystemTime::now(), self.crypto, plain)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        let (set, lifetime) = (self.keys.set(), self.keys.lifetime());
        ticket::open(&set, SystemTime::now(), lifetime, self.crypto.library, cipher)
    }
}

impl fmt::Debug for Ticketer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.keys.fmt(f)
    }
}

#[cfg(all(test, any(feature = "aws-lc-rs", feature = "ring")))]
mod tests;
