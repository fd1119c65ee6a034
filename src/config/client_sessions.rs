//! The sessions that clients can resume.
//!
//! A session of rustls 0.23 cannot leave the process: its secret and its ticket are private, it cannot be serialized,
//! and it is bound to the verifier and the client certificate with which it began, by their addresses. So the sessions
//! of this module belong to one process, and several configurations of the process share them.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::NamedGroup;
use rustls::client::danger::ServerCertVerifier;
use rustls::client::{
    ClientConfig, ClientSessionStore, ResolvesClientCert, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue,
};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::ServerName;

use super::blueprint::Change;
use super::fingerprint::Fingerprint;

/// The number of configurations whose sessions are kept.
const CONFIGURATIONS: usize = 16;

/// The sessions that the clients of a process can resume, for
/// [`ClientTlsBuilder::sessions`](super::ClientTlsBuilder::sessions). Clones share the same sessions.
///
/// By default, each [`ClientTls`](crate::ClientTls) keeps its own sessions, and a
/// [replacement](crate::ClientTls::replace) begins without sessions. With `ClientSessions`, all configurations that
/// trust the same servers and present the same certificate share their sessions. These are configurations with the same
/// roots, revocation lists, certificate and key, versions, crypto provider and key-exchange groups, and with the same
/// calls of [`customize`](super::ClientTlsBuilder::customize) (clones of one builder). Nothing is resumed with another
/// configuration (rule: ticket-11).
///
/// The sessions stay in this process, because rustls has no form in which they could be stored or sent. The private
/// keys of at most 16 configurations stay in memory until the last clone and the last configuration that uses it are
/// dropped, or until [`clear`](Self::clear). After that call, or after 16 other configurations, a configuration that is
/// built no longer shares with those that were built before.
///
/// ```
/// use bowline::ClientTls;
/// use bowline::config::ClientSessions;
///
/// # fn connectors(ca: &str) -> Result<(), bowline::Error> {
/// let sessions = ClientSessions::new();
/// let first = ClientTls::builder().roots_pem_file(ca).sessions(&sessions).build()?;
/// // Resumes the sessions of the first one.
/// let second = ClientTls::builder().roots_pem_file(ca).alpn(["h2"]).sessions(&sessions).build()?;
/// # Ok(())
/// # }
/// ```
#[doc(alias = "ClientSessionCache")]
#[derive(Clone)]
pub struct ClientSessions(Arc<Shared>);

struct Shared {
    names: usize,
    tickets: usize,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    /// The configuration that was built most recently is the last one.
    configurations: VecDeque<Arc<Configuration>>,
    sessions: HashMap<Key, (u64, NameSessions)>,
    /// The keys in the order of their last use. The numbers are those in `sessions`.
    by_use: BTreeMap<u64, Key>,
    last: u64,
}

/// The number of a configuration, and the name of a server.
type Key = (u64, ServerName<'static>);

/// The common part of configurations that resume each other's sessions.
pub(super) struct Configuration {
    pub(super) contents: Fingerprint,
    pub(super) verifier: Arc<dyn ServerCertVerifier>,
    pub(super) resolver: Arc<dyn ResolvesClientCert>,
    /// These values are kept alive, because `contents` distinguishes providers and changes by their addresses.
    pub(super) _alive: (Option<Arc<CryptoProvider>>, Vec<Change<ClientConfig>>),
    /// The number that distinguishes its sessions. [`Kept`] sets it.
    pub(super) number: u64,
}

/// The sessions of one name.
#[derive(Default)]
struct NameSessions {
    group: Option<NamedGroup>,
    tls12: Option<Tls12ClientSessionValue>,
    /// Oldest first. Each one is used once (RFC 8446 appendix C.4).
    tls13: VecDeque<Tls13ClientSessionValue>,
}

impl ClientSessions {
    /// The default number of names.
    pub const NAMES: usize = 256;
    /// The default number of TLS 1.3 tickets for each name.
    pub const TICKETS: usize = 16;

    /// No sessions yet. At most [`NAMES`](Self::NAMES) names are remembered, with [`TICKETS`](Self::TICKETS) tickets
    /// each.
    pub fn new() -> Self {
        Self::with_limits(Self::NAMES, Self::TICKETS)
    }

    /// As [`new`](Self::new), with other limits. If there are more names, the least recently used one is forgotten. The
    /// same name counts once for each configuration that does not share its sessions. Each TLS 1.3 ticket is used once,
    /// and the newest ones are kept; a name has one session of TLS 1.2, which is used again. If one of the limits is
    /// 0, nothing is kept.
    pub fn with_limits(names: usize, tickets: usize) -> Self {
        Self(Arc::new(Shared { names, tickets, kept: Mutex::default() }))
    }

    /// Forgets all sessions. Every client begins with a full handshake again.
    pub fn clear(&self) {
        let mut kept = self.0.kept();
        // Configurations that are in use keep their number, so a new configuration must not get the same number.
        let empty = Kept { last: kept.last, ..Kept::default() };
        let old = std::mem::replace(&mut *kept, empty);
        // Dropping a configuration may call code of the application, so the lock is released first.
        drop(kept);
        drop(old);
    }

    /// The sessions of a single configuration.
    pub(super) fn resumption(self) -> Resumption {
        match self.0.names.min(self.0.tickets) {
            0 => Resumption::disabled(),
            _ => Resumption::store(Arc::new(OfConfiguration { number: 0, shared: self.0 })),
        }
    }

    /// Makes a configuration share its sessions with those that have the same contents. For this it gets their verifier
    /// and resolver, because rustls compares them by their addresses.
    pub(super) fn share(&self, config: &mut ClientConfig, configuration: Configuration) {
        let (kept, _oldest) = self.0.kept().configuration(configuration);
        config.dangerous().set_certificate_verifier(Arc::clone(&kept.verifier));
        config.client_auth_cert_resolver = Arc::clone(&kept.resolver);
        config.resumption = match self.0.names.min(self.0.tickets) {
            0 => Resumption::disabled(),
            _ => Resumption::store(Arc::new(OfConfiguration { number: kept.number, shared: Arc::clone(&self.0) })),
        };
    }
}

impl Default for ClientSessions {
    fn default() -> Self {
        Self::new()
    }
}

impl Hash for ClientSessions {
    /// Hashes the identity: it is different for any two `ClientSessions` that exist at the same time, and equal for
    /// clones.
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).addr().hash(state);
    }
}

impl fmt::Debug for ClientSessions {
    /// Shows no contents, because they are secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shared { names, tickets, kept: _ } = &*self.0;
        f.debug_struct("ClientSessions").field("names", names).field("tickets", tickets).finish_non_exhaustive()
    }
}

impl Shared {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// The configuration with these contents. If there are too many, the one that was built least recently is forgotten
    /// and returned too.
    fn configuration(&mut self, mut new: Configuration) -> (Arc<Configuration>, Option<Arc<Configuration>>) {
        let known = self.configurations.iter().position(|kept| kept.contents == new.contents);
        let found = known.and_then(|place| self.configurations.remove(place));
        let found = found.unwrap_or_else(|| {
            new.number = self.next();
            Arc::new(new)
        });
        self.configurations.push_back(Arc::clone(&found));
        let is_full = self.configurations.len() > CONFIGURATIONS;
        let oldest = if is_full { self.configurations.pop_front() } else { None };
        (found, oldest)
    }

    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// The sessions of this name. Marks the name as the one that was used most recently.
    fn find(&mut self, key: &Key) -> Option<&mut NameSessions> {
        let now = self.next();
        let (last, sessions) = self.sessions.get_mut(key)?;
        let key = self.by_use.remove(last)?;
        self.by_use.insert(now, key);
        *last = now;
        Some(sessions)
    }

    /// As [`find`](Self::find), and adds the name if it is new.
    fn find_or_add(&mut self, key: Key, names: usize) -> &mut NameSessions {
        if !self.sessions.contains_key(&key) {
            while self.sessions.len() >= names {
                let Some((_, oldest)) = self.by_use.pop_first() else { break };
                self.sessions.remove(&oldest);
            }
        }
        let now = self.next();
        let (last, sessions) = self.sessions.entry(key.clone()).or_default();
        self.by_use.remove(last);
        *last = now;
        self.by_use.insert(now, key);
        sessions
    }
}

/// The sessions of one configuration.
struct OfConfiguration {
    number: u64,
    shared: Arc<Shared>,
}

impl OfConfiguration {
    fn find<R>(&self, name: &ServerName<'_>, f: impl FnOnce(&mut NameSessions) -> Option<R>) -> Option<R> {
        f(self.shared.kept().find(&(self.number, name.to_owned()))?)
    }

    fn keep(&self, name: ServerName<'static>, keep: impl FnOnce(&mut NameSessions)) {
        keep(self.shared.kept().find_or_add((self.number, name), self.shared.names));
    }
}

impl ClientSessionStore for OfConfiguration {
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
            while kept.tls13.len() >= self.shared.tickets {
                kept.tls13.pop_front();
            }
            kept.tls13.push_back(value);
        });
    }

    fn take_tls13_ticket(&self, name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.find(name, |kept| kept.tls13.pop_back())
    }
}

impl fmt::Debug for OfConfiguration {
    /// Shows no contents, because they are secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OfConfiguration").field("number", &self.number).finish_non_exhaustive()
    }
}

/// The place in which a client keeps its sessions.
#[derive(Clone, Default)]
pub(super) enum SessionsOf {
    /// The configuration keeps its own sessions.
    #[default]
    One,
    /// Several configurations share the sessions.
    Shared(ClientSessions),
    /// The application has set a store of its own.
    Chosen(Arc<dyn ClientSessionStore>),
}

impl Hash for SessionsOf {
    fn hash<H: Hasher>(&self, state: &mut H) {
        std::mem::discriminant(self).hash(state);
        match self {
            Self::One => {}
            Self::Shared(sessions) => sessions.hash(state),
            Self::Chosen(store) => Arc::as_ptr(store).addr().hash(state),
        }
    }
}

impl fmt::Debug for SessionsOf {
    /// The application's store may show sessions, so it is not shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One => f.write_str("One"),
            Self::Shared(sessions) => sessions.fmt(f),
            Self::Chosen(_) => f.write_str("Chosen"),
        }
    }
}
