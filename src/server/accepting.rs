//! The task of a `TlsListener`. It accepts connections, and starts a task for the handshake of each of them.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::handshakes::Handshakes;
use super::peers::PeerCounts;
use super::ready::{Item, Ready};
use super::source::{AnyListener, Begun, Facts, Fresh};
use super::tls_builder::TlsListenerBuilder;
use crate::address::Address;
use crate::conn::control::Control;
use crate::conn::group::DrainGroup;
use crate::conn::time::until;
use crate::core::catch::catch;
use crate::error::{Error, Phase, Reason};
use crate::transport::layer::TOKEN;

/// How long a drain lets a ready connection wait for `accept`, if the policy has no limit for handshakes.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

pub(super) struct Accepting<L, C> {
    listener: L,
    group: DrainGroup,
    /// How long a drain lets connections wait for `accept`.
    patience: Duration,
    chosen: TlsListenerBuilder,
    ready: Arc<Ready<C>>,
    shared: Arc<Mutex<Shared>>,
    tasks: JoinSet<()>,
}

#[derive(Default)]
struct Shared {
    handshakes: Handshakes,
    in_progress: HashMap<u64, Arc<Handshake>>,
}

/// A handshake in progress, as the task that accepts sees it.
#[derive(Default)]
struct Handshake {
    /// Notified when another connection displaces this handshake.
    displaced: Notify,
    /// Set when the handshake has failed, or its connection is ready.
    ended: Notify,
}

impl<L: AnyListener, C: Send + 'static> Accepting<L, C> {
    pub(super) fn new(listener: L, chosen: TlsListenerBuilder, ready: Arc<Ready<C>>) -> Self {
        let Facts { group, policy, .. } = listener.facts(TOKEN);
        let patience = policy.handshake_timeout.unwrap_or(LONGEST_WAIT);
        Self { listener, group, patience, chosen, ready, shared: Arc::default(), tasks: JoinSet::new() }
    }

    pub(super) async fn run<P, F>(mut self, prepare: P)
    where
        P: Fn(L::Connection, Option<Instant>) -> F + Send + Sync + 'static,
        F: Future<Output = Result<C, Error>> + Send + 'static,
    {
        let prepare = Arc::new(prepare);
        let places = Arc::new(Semaphore::new(self.chosen.max_waiting));
        let mut drained_at = None;
        let error = loop {
            let fresh = match self.listener.accept_begun(TOKEN).await {
                Ok(fresh) => fresh,
                Err(error) => break error,
            };
            while self.tasks.try_join_next().is_some() {}
            let place = tokio::select! {
                biased;
                place = self.place(&places) => place,
                error = self.wait_is_over(&fresh.control, fresh.deadline, &mut drained_at) => Err(error),
            };
            match place {
                Ok(place) => self.begin(fresh, place, &prepare),
                Err(error) => {
                    let peer = fresh.control.peer_addr();
                    drop(fresh);
                    report(&self.chosen, &peer, &error);
                }
            }
        };
        self.end(error).await;
    }

    /// Waits until an accepted connection may no longer wait for a place: until the deadline of its handshake, or until
    /// the end of the time for which a drain waits. Then ends the connection. Ready connections that the application
    /// does not accept take all the places (rule: accept-4).
    async fn wait_is_over(
        &self,
        control: &Control,
        deadline: Option<Instant>,
        drained_at: &mut Option<Instant>,
    ) -> Error {
        let drains = async {
            self.group.draining().await;
            if self.listener.finishes(TOKEN) {
                sleep_until(*drained_at.get_or_insert_with(Instant::now) + self.patience).await;
            }
        };
        tokio::select! {
            biased;
            () = drains => {
                control.abort_unready();
                Error::Draining
            }
            () = expires(control, deadline) => Reason::TimedOut(Phase::Handshake).into(),
        }
    }

    /// Waits until each handshake in progress is finished, was aborted by the drain, or has reached its deadline. Then
    /// the application has a limited time to accept the ready connections (rule: accept-4).
    async fn end(&mut self, error: Error) {
        while self.tasks.join_next().await.is_some() {}
        self.ready.end(error);
        self.group.draining().await;
        if self.ready.is_empty() {
            return;
        }
        sleep(self.patience).await;
        for Item { connection, control, place } in self.ready.clear() {
            let peer = control.peer_addr();
            control.abort();
            drop((connection, place));
            report(&self.chosen, &peer, &Error::Draining);
        }
    }

    /// Waits for a permit for a connection. If none is free, a handshake is aborted to free one (rule: accept-2).
    async fn place(&self, places: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Error> {
        let place = async { Ok(Arc::clone(places).acquire_owned().await.expect("the semaphore is never closed")) };
        let mut place = pin!(place);
        if places.available_permits() > 0 {
            return place.await;
        }
        loop {
            let victim = {
                let shared = lock(&self.shared);
                shared.handshakes.victim().and_then(|number| shared.in_progress.get(&number).cloned())
            };
            tokio::select! {
                biased;
                place = place.as_mut() => return place,
                () = std::future::ready(()) => {}
            }
            // Without a handshake in progress, a permit becomes free when the application accepts a connection.
            let Some(victim) = victim else { return place.await };
            victim.displaced.notify_one();
            tokio::select! {
                biased;
                place = place.as_mut() => return place,
                // A handshake whose connection has become ready at this moment is not displaced.
                () = victim.ended.notified() => {}
            }
        }
    }

    fn begin<P, F>(&mut self, fresh: Fresh<L::Begun>, place: OwnedSemaphorePermit, prepare: &Arc<P>)
    where
        P: Fn(L::Connection, Option<Instant>) -> F + Send + Sync + 'static,
        F: Future<Output = Result<C, Error>> + Send + 'static,
    {
        let Fresh { control, deadline, unfinished, gate, mut begun } = fresh;
        let entry = Entry::new(&self.shared, peer(&control));
        let (ready, chosen, prepare) = (Arc::clone(&self.ready), self.chosen.clone(), Arc::clone(prepare));
        let finishes = self.listener.finishes(TOKEN);
        self.tasks.spawn(async move {
            let preparing = async {
                if let Some(gate) = &gate {
                    begun.pass(gate).await?;
                    entry.set_peer(peer(&control));
                }
                prepare(begun.finish(deadline).await?, deadline).await
            };
            let outcome = outcome(&control, deadline, finishes, &entry.handshake.displaced, preparing).await;
            drop(unfinished);
            match outcome {
                Ok(connection) => {
                    ready.push(Item { connection, control, place });
                    drop(entry);
                }
                Err(error) => {
                    // The permit is released before the entry is removed. Otherwise a second handshake would be
                    // displaced.
                    drop(place);
                    drop(entry);
                    if !is_health_check(&control, &error) {
                        report(&chosen, &control.peer_addr(), &error);
                    }
                }
            }
        });
    }
}

/// The peer that the handshake counts for.
fn peer(control: &Control) -> Option<IpAddr> {
    control.peer_addr().as_inet().map(|peer| PeerCounts::new(usize::MAX, 64).peer(peer.ip()))
}

/// Returns whether the connection was a proxy's health check (rule: proxy-6).
fn is_health_check(control: &Control, error: &Error) -> bool {
    let has_ended = matches!(error.reason(), Some(Reason::Truncated(_) | Reason::Reset(_)));
    #[cfg(feature = "proxy")]
    return has_ended && control.is_health_check();
    #[cfg(not(feature = "proxy"))]
    {
        let _ = (has_ended, control);
        false
    }
}

/// Reports the failure of one connection to the application.
fn report(chosen: &TlsListenerBuilder, peer: &Address, error: &Error) {
    if let Some(on_error) = &chosen.on_error {
        // rule: life-7
        let _ = catch(|| on_error(peer, error), |_| ());
    }
}

/// Waits for a preparation, until its deadline at the latest. A drain ends the wait too, unless it lets handshakes
/// finish.
async fn outcome<C>(
    control: &Control,
    deadline: Option<Instant>,
    finishes: bool,
    displaced: &Notify,
    preparing: impl Future<Output = Result<C, Error>> + Send,
) -> Result<C, Error> {
    // rule: life-7. The preparation is the application's code: a panic becomes the error of its connection.
    let mut preparing = Box::pin(preparing);
    let preparing = poll_fn(move |cx| {
        let panicked = |_: &_| Err(std::io::Error::other("the preparation of the connection panicked").into()).into();
        catch(|| preparing.as_mut().poll(cx), panicked).unwrap_or_else(|ended: std::task::Poll<_>| ended)
    });
    // When one of these futures is ready, the connection is dropped. So each of them first sets the reason of the
    // connection's end.
    let drains = async {
        control.draining().await;
        control.abort_unready();
    };
    let is_displaced = async {
        displaced.notified().await;
        control.abort();
    };
    tokio::select! {
        biased;
        () = drains, if !finishes => Err(Error::Draining),
        () = is_displaced => Err(Reason::Aborted.into()),
        outcome = preparing => outcome,
        () = expires(control, deadline) => Err(Reason::TimedOut(Phase::Handshake).into()),
    }
}

/// Waits for the deadline of the handshake, and then ends the connection.
async fn expires(control: &Control, deadline: Option<Instant>) {
    until(deadline, std::future::pending::<()>()).await;
    control.end(Reason::TimedOut(Phase::Handshake));
}

/// One handshake in progress. Dropping the entry marks the handshake as ended in the list.
struct Entry {
    shared: Arc<Mutex<Shared>>,
    peer: Mutex<Option<IpAddr>>,
    number: u64,
    handshake: Arc<Handshake>,
}

impl Entry {
    fn new(shared: &Arc<Mutex<Shared>>, peer: Option<IpAddr>) -> Self {
        let handshake = Arc::<Handshake>::default();
        let mut all = lock(shared);
        let number = all.handshakes.begin(peer);
        all.in_progress.insert(number, Arc::clone(&handshake));
        drop(all);
        Self { shared: Arc::clone(shared), peer: Mutex::new(peer), number, handshake }
    }
}

impl Entry {
    /// A PROXY header has named the client.
    fn set_peer(&self, peer: Option<IpAddr>) {
        let before = std::mem::replace(&mut *self.peer.lock().unwrap_or_else(PoisonError::into_inner), peer);
        lock(&self.shared).handshakes.change(before, peer, self.number);
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let peer = *self.peer.get_mut().unwrap_or_else(PoisonError::into_inner);
        let mut all = lock(&self.shared);
        all.handshakes.end(peer, self.number);
        all.in_progress.remove(&self.number);
        drop(all);
        self.handshake.ended.notify_one();
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
