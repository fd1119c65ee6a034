//! A key for tickets, which servers share.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::SystemTime;

use zeroize::Zeroizing;

use crate::config::fail;
use crate::error::{ConfigProblem, Error};

/// The length of a key's name.
pub(super) const NAME: usize = 16;

/// A key for session tickets that several servers share: a name, a secret, and the time in which it is used.
///
/// The name is readable in each ticket. The secret is wiped from memory after its last use, and `Debug` does not show
/// it (rule: ticket-6).
#[derive(Clone, PartialEq, Eq, Hash)]
#[must_use]
pub struct TicketKey {
    name: [u8; NAME],
    secret: Arc<Secret>,
    not_before: Option<SystemTime>,
    not_after: Option<SystemTime>,
    /// When the key was made, if the caller has set this.
    made: Made,
}

#[derive(PartialEq, Eq)]
struct Secret(Zeroizing<Vec<u8>>);

impl Hash for Secret {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

/// A time that does not make two keys different.
#[derive(Debug, Clone, Copy, Default)]
struct Made(Option<SystemTime>);

impl PartialEq for Made {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Made {}

impl Hash for Made {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

impl TicketKey {
    /// The shortest secret.
    const MIN: usize = 32;
    /// The longest secret.
    const MAX: usize = 256;

    /// A key that is used at any time.
    ///
    /// By the name in a ticket, a server finds the key that opens it. Use a random name, and a different one for each
    /// secret. The secret must be random. A secret of more than 32 bytes is allowed, but gives no more security.
    ///
    /// # Errors
    /// [`ConfigError`](crate::ConfigError): the secret is shorter than 32 bytes, longer than 256, or all of its bytes
    /// are the same. The caller has to fix this.
    pub fn new(name: [u8; 16], secret: impl Into<Vec<u8>>) -> Result<Self, Error> {
        let secret = Zeroizing::new(secret.into());
        let length = secret.len();
        if !(Self::MIN..=Self::MAX).contains(&length) {
            return Err(unusable(format!("a secret has {} to {} bytes, not {length}", Self::MIN, Self::MAX)));
        }
        if secret.iter().all(|byte| *byte == secret[0]) {
            return Err(unusable("all bytes of its secret are the same, and a secret is random"));
        }
        Ok(Self { name, secret: Arc::new(Secret(secret)), not_before: None, not_after: None, made: Made::default() })
    }

    /// The key seals no ticket before this time. It opens tickets at once, because the clocks of servers differ.
    pub fn not_before(mut self, time: SystemTime) -> Self {
        self.not_before = Some(time);
        self
    }

    /// From this time on, the key neither seals nor opens a ticket.
    pub fn not_after(mut self, time: SystemTime) -> Self {
        self.not_after = Some(time);
        self
    }

    /// When the key was made, for [`TicketKeys::age`](super::TicketKeys::age). Default: the time of
    /// [`not_before`](Self::not_before).
    pub fn made(mut self, time: SystemTime) -> Self {
        self.made = Made(Some(time));
        self
    }

    /// The name.
    pub fn name(&self) -> [u8; 16] {
        self.name
    }

    pub(super) fn secret(&self) -> &[u8] {
        &self.secret.0
    }

    pub(super) fn may_seal(&self, now: SystemTime) -> bool {
        self.may_open(now) && self.not_before.is_none_or(|from| from <= now)
    }

    pub(super) fn may_open(&self, now: SystemTime) -> bool {
        self.not_after.is_none_or(|end| now < end)
    }

    /// The time at which the key ends.
    pub(super) fn end(&self) -> Option<SystemTime> {
        self.not_after
    }

    /// The time since which the key is used.
    pub(super) fn since(&self) -> Option<SystemTime> {
        self.made.0.or(self.not_before)
    }
}

impl fmt::Debug for TicketKey {
    /// Shows the name, because it is readable in each ticket, and not the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TicketKey")
            .field("name", &Name(self.name))
            .field("not_before", &self.not_before)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// A name in hexadecimal.
pub(super) struct Name(pub(super) [u8; NAME]);

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

pub(super) fn unusable(what: impl Into<String>) -> Error {
    fail(None, ConfigProblem::BadTicketKeys(what.into()))
}
