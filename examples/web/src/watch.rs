//! Watches all connections: it writes the events of the log, and counts handshakes for the page.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bowline::{CloseReport, Control, Observer, Reason, SessionFacts};

use crate::app::Facts;
use crate::log::Log;

pub(crate) struct Watch {
    log: Log,
    made: AtomicU64,
    /// The open connections, by the number of their `Control`. Each entry keeps its `Control`, so that no other
    /// connection gets the same number.
    open: Mutex<HashMap<usize, Arc<Entry>>>,
    handshakes: Mutex<BTreeMap<&'static str, u64>>,
}

/// A connection that is open.
struct Entry {
    /// The number of the connection in the log.
    number: u64,
    is_ready: AtomicBool,
    _control: Control,
}

impl Watch {
    pub(crate) fn new(log: Log) -> Self {
        Self { log, made: AtomicU64::new(0), open: Mutex::default(), handshakes: Mutex::default() }
    }

    /// `None`: the connection has ended.
    fn entry(&self, connection: &Control) -> Option<Arc<Entry>> {
        lock(&self.open).get(&connection.number()).cloned()
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
        let entry = Entry { number, is_ready: AtomicBool::new(false), _control: connection.clone() };
        lock(&self.open).insert(connection.number(), Arc::new(entry));
        self.log.made(number, connection.peer_addr().to_string());
    }

    fn handshake_done(&self, connection: &Control, tls: &SessionFacts, _: Duration) {
        self.count("ok");
        if let Some(entry) = self.entry(connection) {
            entry.is_ready.store(true, Ordering::Release);
            self.log.secured(entry.number, Facts::of(connection, Arc::new(tls.clone())).info());
        }
    }

    fn handshake_failed(&self, _: &Control, reason: &Reason, _: Duration) {
        self.count(reason.name());
    }

    fn began_in_plaintext(&self, connection: &Control) {
        self.count("not_tls");
        if let Some(entry) = self.entry(connection) {
            entry.is_ready.store(true, Ordering::Release);
        }
    }

    fn ended(&self, connection: &Control, report: &CloseReport) {
        let entry = lock(&self.open).remove(&connection.number());
        if let Some(entry) = entry {
            self.log.halves(entry.number, report);
            self.log.lost(entry.number, connection, &report.reason, entry.is_ready.load(Ordering::Acquire));
        }
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
