//! The keys that are in use at one time.

use std::path::PathBuf;
use std::time::SystemTime;

use super::files::KeyFiles;
use super::key::{NAME, Name, TicketKey, unusable};
use crate::error::Error;

/// Keys for session tickets, in the order in which they are preferred for sealing.
///
/// The first key whose time has come seals new tickets. Every key opens tickets until its end (rule: ticket-2). So a
/// key can be distributed before it is used: put it first, with a time from which it seals.
///
/// A set without keys is allowed: then no session is resumed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct TicketKeySet {
    keys: Vec<TicketKey>,
}

impl TicketKeySet {
    /// The largest number of keys.
    pub const MAX_KEYS: usize = 64;

    /// A set of these keys. The same key twice counts once.
    ///
    /// # Errors
    /// [`ConfigError`](crate::ConfigError): there are more than [`MAX_KEYS`](Self::MAX_KEYS) keys, or two different
    /// keys with one name. The caller has to fix this.
    pub fn new(keys: impl IntoIterator<Item = TicketKey>) -> Result<Self, Error> {
        let mut set = Self::default();
        for key in keys {
            match set.by_name(&key.name()) {
                Some(known) if known.secret() == key.secret() => continue,
                Some(_) => {
                    return Err(unusable(format!(
                        "two keys have the name {}, and different secrets",
                        Name(key.name())
                    )));
                }
                None => set.keys.push(key),
            }
            if set.keys.len() > Self::MAX_KEYS {
                return Err(unusable(format!("there are more than {} keys", Self::MAX_KEYS)));
            }
        }
        Ok(set)
    }

    /// The keys of these files: see
    /// [`ticket_key_files`](crate::config::ServerTlsBuilder::ticket_key_files).
    ///
    /// # Errors
    /// [`ConfigError`](crate::ConfigError): a file cannot be read, or has another form. The error names the file, and
    /// the line if there is one. The caller has to fix this.
    pub fn from_files(files: impl IntoIterator<Item = impl Into<PathBuf>>) -> Result<Self, Error> {
        KeyFiles::new(files).set()
    }

    /// The keys, in order.
    pub fn keys(&self) -> &[TicketKey] {
        &self.keys
    }

    /// The key that seals at this time.
    pub fn sealing(&self, now: SystemTime) -> Option<&TicketKey> {
        self.keys.iter().find(|key| key.may_seal(now))
    }

    /// The key with this name.
    pub(super) fn by_name(&self, name: &[u8; NAME]) -> Option<&TicketKey> {
        self.keys.iter().find(|key| key.name() == *name)
    }
}
