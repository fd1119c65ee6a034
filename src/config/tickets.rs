//! The session store of a client, for resumption.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::NamedGroup;
use rustls::client::{ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::ServerName;

/// The default number of tickets that are kept for a name.
pub(super) const TICKETS: usize = 16;
/// The number of names that are remembered, as in rustls's own store.
const NAMES: usize = 32;

/// Resumption with this many TLS 1.3 tickets for each name.
pub(super) fn resumption(tickets: usize) -> Resumption {
    match tickets {
        0 => Resumption::disabled(),
        _ => Resumption::store(Arc::new(Store { tickets, names: Mutex::default() })),
    }
}

/// Sessions in memory. rustls's own store always keeps eight tickets for a name.
struct Store {
    tickets: usize,
    /// In order of use: the most recently used name is the last one.
    names: Mutex<VecDeque<(ServerName<'static>, NameSessions)>>,
}

/// The sessions of one name.
#[derive(Default)]
struct NameSessions {
    group: Option<NamedGroup>,
    tls12: Option<Tls12ClientSessionValue>,
    /// Oldest first. Each one is used once (RFC 8446 appendix C.4).
    tls13: VecDeque<Tls13ClientSessionValue>,
}

impl Store {
    fn names(&self) -> MutexGuard<'_, VecDeque<(ServerName<'static>, NameSessions)>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find<R>(&self, name: &ServerName<'_>, f: impl FnOnce(&mut NameSessions) -> Option<R>) -> Option<R> {
        let mut names = self.names();
        let place = names.iter().position(|(known, _)| known == name)?;
        let mut found = names.remove(place)?;
        let result = f(&mut found.1);
        names.push_back(found);
        result
    }

    /// Keeps a session for a name. If there are too many names, the least recently used one is removed.
    fn keep(&self, name: ServerName<'static>, keep: impl FnOnce(&mut NameSessions)) {
        let mut names = self.names();
        let known = names.iter().position(|(known, _)| *known == name).and_then(|place| names.remove(place));
        let mut entry = known.unwrap_or_else(|| (name, NameSessions::default()));
        keep(&mut entry.1);
        names.push_back(entry);
        if names.len() > NAMES {
            names.pop_front();
        }
    }
}

impl ClientSessionStore for Store {
    fn set_kx_hint(&self, name: ServerName<'static>, group: NamedGroup) {
        self.keep(name, |kept| kept.group = Some(group));
    }

    fn kx_hint(&self, name: &ServerName<'_>) -> Option<NamedGroup> {
        self.find(name, |kept| kept.group)
    }

    fn set_tls12_session(&self, name: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.keep(name, |kept| kept.tls12 = Some(value));
    }

    fn tls12_session(&self, name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.find(name, |kept| kept.tls12.clone())
    }

    fn remove_tls12_session(&self, name: &ServerName<'static>) {
        self.find(name, |kept| kept.tls12.take());
    }

    fn insert_tls13_ticket(&self, name: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.keep(name, |kept| {
            while kept.tls13.len() >= self.tickets {
                kept.tls13.pop_front();
            }
            kept.tls13.push_back(value);
        });
    }

    fn take_tls13_ticket(&self, name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.find(name, |kept| kept.tls13.pop_back())
    }
}

impl fmt::Debug for Store {
    /// Shows no contents, because they are secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("tickets", &self.tickets).finish_non_exhaustive()
    }
}
