//! The configuration that all clones of a [`ServerTls`](super::ServerTls) or a [`ClientTls`](super::ClientTls) share,
//! and that [`replace`](super::ServerTls::replace) changes.

use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;

use super::settings::Settings;

/// The settings in use. A handshake takes them once, when it begins (rule: reload-1).
pub(super) struct Cell<C>(RwLock<Arc<Settings<C>>>);

impl<C> Cell<C> {
    pub(super) fn new(settings: Settings<C>) -> Self {
        Self(RwLock::new(Arc::new(settings)))
    }

    /// The settings in use now.
    pub(super) fn now(&self) -> Arc<Settings<C>> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Uses other settings from now on, unless they have the same contents. `adapt` may change the new settings, and
    /// gets the old ones for this. Returns the generation in use then (rule: reload-2).
    pub(super) fn replace(&self, mut new: Settings<C>, adapt: impl FnOnce(&mut Settings<C>, &Settings<C>)) -> u64 {
        let mut current = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if new.is_same(&current) {
            return current.generation;
        }
        adapt(&mut new, &current);
        new.generation = current.generation + 1;
        let generation = new.generation;
        let old = std::mem::replace(&mut *current, Arc::new(new));
        // Dropping a configuration may call code of the application, so the lock is released first.
        drop(current);
        drop(old);
        generation
    }
}

impl<C> Settings<C> {
    fn is_same(&self, other: &Self) -> bool {
        let same_contents = self.contents.is_some() && self.contents == other.contents;
        self.engine == other.engine && (same_contents || Arc::ptr_eq(&self.config, &other.config))
    }
}

impl<C> From<Settings<C>> for Arc<Cell<C>> {
    fn from(settings: Settings<C>) -> Self {
        Arc::new(Cell::new(settings))
    }
}

/// Clients can resume sessions of the old configuration. Each session is bound to the policy for clients under which it
/// began, so that none is resumed under another one (rule: reload-3).
pub(super) fn keep_sessions(new: &mut Settings<ServerConfig>, old: &Settings<ServerConfig>) {
    if let (Some(new), Some(old)) = (&new.sessions, &old.sessions) {
        new.continue_with(old);
    }
}
