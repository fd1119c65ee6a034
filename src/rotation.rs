//! Ticket keys that servers rotate together, by a store that all of them reach.
//!
//! Time is divided into intervals of equal length, and each interval has one key. The store decides which one: every
//! server proposes a key for this interval and for the next one, and the store keeps the first proposal. So the servers
//! need no leader, and every server knows a key one interval before any server seals tickets with it.

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::config::{TicketKey, TicketKeySet, TicketKeys, WrapKey};
use crate::error::{ConfigError, ConfigProblem, Error, chain};

/// A store of small values that all servers reach, for a [`TicketRotation`]: Redis, etcd, Consul or a database.
///
/// A call may take as long as it likes: handshakes do not wait for it, and [`TicketRotation::look`] limits it.
pub trait TicketKeyStore: Send {
    /// Why a call failed.
    type Error: StdError + Send + Sync + 'static;

    /// Stores a value under this name. If a value with this name exists already, the store keeps the existing value.
    /// The store removes the value after the time `expires_in`, or later. In Redis, this is `SET NX PX`.
    fn put_if_absent(
        &mut self,
        name: &str,
        value: &[u8],
        expires_in: Duration,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// The values with these names, in the same order. `None` for a name without a value. In Redis, this is `MGET`.
    fn get(&mut self, names: &[String]) -> impl Future<Output = Result<Vec<Option<Vec<u8>>>, Self::Error>> + Send;
}

/// Rotates the ticket keys of several servers together (rule: ticket-9).
///
/// Each server looks at the store at intervals: it reads the keys, and adds a key that is missing. The store decides
/// which key is used, and keeps the next one too, so that every server has a key before servers seal with it. A server
/// that cannot reach the store uses the keys that it has until they end, and [`look`](Self::look) returns the cause. If
/// the store has lost its contents, the servers put their keys back.
///
/// ```
/// use bowline::{ServerTls, TicketKeyStore, TicketRotation};
///
/// # fn serve(store: impl TicketKeyStore + 'static) {
/// let rotation = TicketRotation::new(store, "www");
/// let builder = ServerTls::builder().ticket_keys(rotation.keys());
/// tokio::spawn(rotation.run(|event| println!("{event}")));
/// # }
/// ```
pub struct TicketRotation<S> {
    store: S,
    name: String,
    wrap: Option<WrapKey>,
    /// The length of an interval, in seconds.
    interval: u64,
    look_every: Duration,
    keys: TicketKeys,
    /// The keys in use, in the order of the set.
    held: Vec<Held>,
}

#[derive(Clone)]
struct Held {
    /// The number of the interval since 1970 in which the key seals.
    number: u64,
    key: TicketKey,
}

/// An event of a [`TicketRotation`], for the log. Its `Display` text is a sentence.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum RotationEvent {
    /// The keys in use have changed.
    Changed,
    /// A look has failed, and the keys in use have not changed. Reported once for each cause.
    Failed(RotationError),
    /// The first look without an error after a [`Failed`](Self::Failed).
    Recovered,
}

/// Why a look at the store failed.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum RotationError {
    /// A call of the store has failed.
    Store(Arc<dyn StdError + Send + Sync>),
    /// The store has not answered within this time.
    TimedOut(Duration),
    /// A value in the store is not a ticket key of these servers.
    Value {
        /// The name of the value.
        name: String,
        /// The reason why the value is not such a key.
        why: String,
    },
    /// This server cannot make or use a key.
    Keys(Error),
}

impl<S: TicketKeyStore> TicketRotation<S> {
    /// The time limit of one [`look`](Self::look) at the store.
    pub const LOOK_TIME: Duration = Duration::from_secs(5);
    /// The largest number of intervals in the lifetime of a ticket.
    const MAX_INTERVALS: u64 = 60;

    /// A rotation with the keys of this name in the store. A new key seals every six hours, tickets are valid for
    /// 24 hours, and the servers look at the store every 10 seconds.
    pub fn new(store: S, name: impl Into<String>) -> Self {
        let keys = TicketKeys::new(TicketKeySet::default());
        let interval = TicketKeys::LIFETIME.as_secs() / 4;
        let (name, look_every) = (name.into(), Duration::from_secs(10));
        Self { store, name, wrap: None, interval, look_every, keys, held: Vec::new() }
    }

    /// Encrypts the keys in the store. Then a copy of the store alone opens no ticket, and somebody who can only write
    /// to the store cannot add a key. Without this setting, both are possible.
    #[must_use]
    pub fn wrap_key(self, wrap: WrapKey) -> Self {
        Self { wrap: Some(wrap), ..self }
    }

    /// How long tickets are valid, and after which time (the time of rotation) the next key seals. Servers share keys
    /// only if they have the same time of rotation. Call this before [`keys`](Self::keys).
    ///
    /// # Errors
    /// [`ConfigError`](crate::ConfigError): the lifetime is longer than seven days, or a time is shorter than a second,
    /// or the lifetime is more than 60 times the time of rotation. The caller has to fix this.
    pub fn lifetimes(self, ticket: Duration, rotation: Duration) -> Result<Self, Error> {
        let keys = TicketKeys::with_lifetime(TicketKeySet::default(), ticket)?;
        let interval = rotation.as_secs();
        if interval == 0 || ticket.as_secs().div_ceil(interval) > Self::MAX_INTERVALS {
            let what = format!(
                "the next key seals after at least a second and a sixtieth of the lifetime of a ticket, not after \
                 {rotation:?}"
            );
            return Err(ConfigError::new(None, ConfigProblem::BadTicketKeys(what)).into());
        }
        Ok(Self { keys, interval, ..self })
    }

    /// The time between two looks of [`run`](Self::run). It has to be shorter than the time of rotation.
    #[must_use]
    pub fn look_every(self, time: Duration) -> Self {
        Self { look_every: time, ..self }
    }

    /// The keys, for [`ServerTlsBuilder::ticket_keys`](crate::config::ServerTlsBuilder::ticket_keys). There are no keys
    /// before the first look.
    pub fn keys(&self) -> &TicketKeys {
        &self.keys
    }

    /// Looks at the store now. Returns whether the keys in use have changed. Ends within
    /// [`LOOK_TIME`](Self::LOOK_TIME).
    ///
    /// # Errors
    /// [`RotationError`]: a call of the store has failed, or a value in it is not a key of these servers. This server
    /// continues to use the keys that it has. Usually the operator has to fix the cause, or the store is unreachable
    /// for a time.
    ///
    /// # Cancel safety
    /// Cancel safe: the keys in use change at once, or not at all.
    pub async fn look(&mut self) -> Result<bool, RotationError> {
        let looked = tokio::time::timeout(Self::LOOK_TIME, self.look_at(SystemTime::now())).await;
        looked.unwrap_or(Err(RotationError::TimedOut(Self::LOOK_TIME)))
    }

    /// Looks at the store until the future is dropped, and reports what has changed.
    pub async fn run(mut self, mut tell: impl FnMut(RotationEvent)) {
        let mut last = None;
        loop {
            let looked = self.look().await;
            RotationEvent::of(looked, &mut last).into_iter().for_each(&mut tell);
            tokio::time::sleep(self.look_every).await;
        }
    }

    async fn look_at(&mut self, now: SystemTime) -> Result<bool, RotationError> {
        let current = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()) / self.interval;
        let kept = self.keys.lifetime().as_secs().div_ceil(self.interval);
        let numbers: Vec<u64> = (current.saturating_sub(kept)..=current + 1).collect();
        let names: Vec<String> = numbers.iter().map(|number| self.place(*number)).collect();
        let mut stored = self.store.get(&names).await.map_err(RotationError::store)?;
        let mut has_put = false;
        // After a failure of the store, the old key seals until the next interval, so that every server gets the new
        // key before it is used.
        let can_seal = self.keys.set().sealing(now).is_some() || stored.iter().flatten().next().is_some();
        for (at, number) in numbers.iter().enumerate() {
            if stored.get(at).is_some_and(Option::is_some) {
                continue;
            }
            // Servers that have just started need the older keys too.
            let key = match self.held.iter().find(|held| held.number == *number) {
                Some(held) => held.key.clone(),
                None if *number > current || (*number == current && !can_seal) => {
                    TicketKey::random().map_err(RotationError::Keys)?
                }
                None => continue,
            };
            let value = key.to_stored(&names[at], self.wrap.as_ref()).map_err(RotationError::Keys)?;
            let left = self.end(*number).duration_since(now).unwrap_or_default();
            self.store.put_if_absent(&names[at], &value, left).await.map_err(RotationError::store)?;
            has_put = true;
        }
        if has_put {
            stored = self.store.get(&names).await.map_err(RotationError::store)?;
        }
        self.use_stored(now, numbers.into_iter().zip(names).zip(stored).rev())
    }

    /// Uses the keys of the store, the newest first. After them come the keys that only this server has: they still
    /// open tickets, but seal none.
    fn use_stored(
        &mut self,
        now: SystemTime,
        stored: impl Iterator<Item = ((u64, String), Option<Vec<u8>>)>,
    ) -> Result<bool, RotationError> {
        let (mut held, mut mistake) = (Vec::<Held>::new(), None);
        for ((number, name), value) in stored {
            let Some(value) = value else { continue };
            match TicketKey::from_stored(&name, self.wrap.as_ref(), &value) {
                Ok(key) => {
                    let from = UNIX_EPOCH + Duration::from_secs(number * self.interval);
                    held.push(Held { number, key: key.not_before(from).not_after(self.end(number)) });
                }
                Err(why) => mistake = mistake.or(Some(RotationError::Value { name, why })),
            }
        }
        for old in &self.held {
            if !held.iter().any(|one| one.key.name() == old.key.name()) && now < self.end(old.number) {
                held.push(old.clone());
            }
        }
        held.truncate(TicketKeySet::MAX_KEYS);
        let set = TicketKeySet::new(held.iter().map(|held| held.key.clone())).map_err(RotationError::Keys)?;
        self.held = held;
        let has_changed = self.keys.replace(set);
        mistake.map_or(Ok(has_changed), Err)
    }

    /// The name of an interval's key in the store.
    fn place(&self, number: u64) -> String {
        format!("{}:{}:{number}", self.name, self.interval)
    }

    /// The time after which no ticket of an interval's key is valid.
    fn end(&self, number: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs((number + 1) * self.interval) + self.keys.lifetime()
    }
}

impl RotationEvent {
    /// The events for the result of a look. `last` holds the error of the look before, so that each error is reported
    /// once.
    pub fn of(looked: Result<bool, RotationError>, last: &mut Option<String>) -> Vec<Self> {
        match looked {
            Ok(has_changed) => {
                let recovered = last.take().map(|_| Self::Recovered);
                recovered.into_iter().chain(has_changed.then_some(Self::Changed)).collect()
            }
            Err(error) => {
                let text = error.to_string();
                let is_new = last.as_ref() != Some(&text);
                *last = Some(text);
                is_new.then_some(Self::Failed(error)).into_iter().collect()
            }
        }
    }
}

impl RotationError {
    fn store(error: impl StdError + Send + Sync + 'static) -> Self {
        Self::Store(Arc::new(error))
    }
}

impl fmt::Display for RotationEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed => f.write_str("the ticket keys in use have changed"),
            Self::Failed(error) => write!(f, "the ticket keys in use have not changed: {error}"),
            Self::Recovered => f.write_str("the store of the ticket keys can be used again"),
        }
    }
}

impl fmt::Display for RotationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => write!(f, "the store of the ticket keys cannot be reached: {}", chain(&**error)),
            Self::TimedOut(bound) => write!(f, "the store of the ticket keys has not answered within {bound:?}"),
            Self::Value { name, why } => write!(f, "the value {name:?} in the store of the ticket keys: {why}"),
            Self::Keys(error) => error.fmt(f),
        }
    }
}

impl StdError for RotationError {}

impl<S> fmt::Debug for TicketRotation<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TicketRotation").field("name", &self.name).field("keys", &self.keys).finish_non_exhaustive()
    }
}

#[cfg(all(test, any(feature = "aws-lc-rs", feature = "ring")))]
mod tests;
