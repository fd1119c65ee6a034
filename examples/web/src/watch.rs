//! Watches all connections: it writes the events of the log, and counts handshakes for the page.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bowline::{Address, CloseReport, Control, Observer, Reason, SessionFacts};

use crate::app::Facts;
use crate::log::Log;

pub(crate) struct Watch {
    log: Log,
    made: AtomicU64,
    open: Mutex<HashMap<Key, Arc<Entry>>>,
    handshakes: Mutex<BTreeMap<&'static str, u64>>,
}

/// Our address and the socket's peer. They identify an open connection.
type Key = (Address, Address);

/// A connection that is open.
#[derive(Default)]
pub(crate) struct Entry {
    pub(crate) number: u64,
    is_ready: AtomicBool,
    /// The bytes of the application.
    pub(crate) received: AtomicU64,
    pub(crate) sent: AtomicU64,
}

impl Watch {
    pub(crate) fn new(log: Log) -> Self {
        Self { log, made: AtomicU64::new(0), open: Mutex::default(), handshakes: Mutex::default() }
    }

    pub(crate) fn entry(&self, connection: &Control) -> Arc<Entry> {
        lock(&self.open).get(&key(connection)).cloned().unwrap_or_default()
    }

    /// The number of handshakes with each outcome.
    pub(crate) fn handshakes(&self) -> BTreeMap<&'static str, u64> {
        lock(&self.handshakes).clone()
    }

    fn count(&self, outcome: &'static str) {
        *lock(&self.handshakes).entry(outcome).or_default() += 1;
    }
}

impl Observer for Watch {
    fn opened(&self, connection: &Control) {
        let number = self.made.fetch_add(1, Ordering::Relaxed) + 1;
        lock(&self.open).insert(key(connection), Arc::new(Entry { number, ..Entry::default() }));
        self.log.made(number, connection.peer_addr().to_string());
    }

    fn handshake_done(&self, connection: &Control, tls: &SessionFacts, _: Duration) {
        self.count("ok");
        let entry = self.entry(connection);
        entry.is_ready.store(true, Ordering::Release);
        self.log.secured(entry.number, Facts::of(connection, Some(Arc::new(tls.clone()))).info());
    }

    fn handshake_failed(&self, _: &Control, reason: &Reason, _: Duration) {
        self.count(reason.name());
    }

    fn began_in_plaintext(&self, connection: &Control) {
        self.count("not_tls");
        self.entry(connection).is_ready.store(true, Ordering::Release);
    }

    fn ended(&self, connection: &Control, report: &CloseReport) {
        let entry = lock(&self.open).remove(&key(connection)).unwrap_or_default();
        let who = (connection.peer_addr(), connection.via());
        let bytes = (entry.received.load(Ordering::Relaxed), entry.sent.load(Ordering::Relaxed));
        self.log.lost(entry.number, who, &report.reason, bytes, entry.is_ready.load(Ordering::Acquire));
    }
}

fn key(connection: &Control) -> Key {
    (connection.local_addr(), connection.via().unwrap_or_else(|| connection.peer_addr()))
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
