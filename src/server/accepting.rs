//! The task of a `TlsListener`. It accepts connections, and starts a task for the handshake of each of them.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::handshakes::Handshakes;
use super::incoming::Incoming;
use super::listener::Listener;
use super::peers::PeerCounts;
use super::ready::{Item, Ready};
use super::tls_builder::TlsListenerBuilder;
use crate::address::Address;
use crate::conn::control::Control;
use crate::conn::time::until;
use crate::core::catch::catch;
use crate::error::{Error, Phase, Reason};
use crate::layers::tcp::TcpConnection;
use crate::transport::Transport;

/// How long a drain lets a ready connection wait for `accept`, if the policy has no limit for handshakes.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

pub(super) struct Accepting<C> {
    listener: Listener,
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
    /// Another connection displaces this handshake.
    displaced: Notify,
    /// It has ended: it has failed, or its connection is ready.
    ended: Notify,
}

impl<C: Send + 'static> Accepting<C> {
    pub(super) fn new(listener: Listener, chosen: TlsListenerBuilder, ready: Arc<Ready<C>>) -> Self {
        Self { listener, chosen, ready, shared: Arc::default(), tasks: JoinSet::new() }
    }

    pub(super) async fn run<P, F>(mut self, prepare: P)
    where
        P: Fn(TcpConnection, Option<Instant>) -> F + Send + Sync + 'static,
        F: Future<Output = Result<C, Error>> + Send + 'static,
    {
        let prepare = Arc::new(prepare);
        let places = Arc::new(Semaphore::new(self.chosen.max_waiting));
        let error = loop {
            let incoming = match self.listener.accept().await {
                Ok(incoming) => incoming,
                Err(error) => break error,
            };
            while self.tasks.try_join_next().is_some() {}
            let Some(place) = self.place(&places).await else { return };
            self.begin(incoming, place, &prepare);
        };
        self.end(error).await;
    }

    /// Waits until each handshake in progress is finished, was aborted by the drain, or has reached its deadline. Then
    /// the application has a limited time to accept the ready connections (rule: accept-4).
    async fn end(&mut self, error: Error) {
        while self.tasks.join_next().await.is_some() {}
        self.ready.end(error);
        self.listener.group().draining().await;
        if self.ready.is_empty() {
            return;
        }
        sleep(self.listener.policy().handshake_timeout.unwrap_or(LONGEST_WAIT)).await;
        for Item { connection, control, place } in self.ready.clear() {
            let peer = control.peer_addr();
            control.abort();
            drop((connection, place));
            report(&self.chosen, &peer, &Error::Draining);
        }
    }

    /// Waits for a permit for a connection. If none is free, a handshake is aborted to free one (rule: accept-2).
    async fn place(&self, places: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
        let mut place = pin!(Arc::clone(places).acquire_owned());
        if places.available_permits() > 0 {
            return place.await.ok();
        }
        loop {
            let victim = {
                let shared = lock(&self.shared);
                shared.handshakes.victim().and_then(|number| shared.in_progress.get(&number).cloned())
            };
            tokio::select! {
                biased;
                place = place.as_mut() => return place.ok(),
                () = std::future::ready(()) => {}
            }
            // Without a handshake in progress, a permit becomes free when the application accepts a connection.
            let Some(victim) = victim else { return place.await.ok() };
            victim.displaced.notify_one();
            tokio::select! {
                biased;
                place = place.as_mut() => return place.ok(),
                // If its connection has become ready at this moment, it is not displaced.
                () = victim.ended.notified() => {}
            }
        }
    }

    fn begin<P, F>(&mut self, incoming: Incoming, place: OwnedSemaphorePermit, prepare: &Arc<P>)
    where
        P: Fn(TcpConnection, Option<Instant>) -> F + Send + Sync + 'static,
        F: Future<Output = Result<C, Error>> + Send + 'static,
    {
        let gate = incoming.gate();
        let (deadline, unfinished, mut tcp) = incoming.into_parts();
        let control = tcp.control();
        let entry = Entry::new(&self.shared, peer(&control));
        let (ready, chosen, prepare) = (Arc::clone(&self.ready), self.chosen.clone(), Arc::clone(prepare));
        let finishes = self.listener.finishes();
        self.tasks.spawn(async move {
            let preparing = async {
                if let Some(gate) = gate {
                    gate.pass(&mut tcp).await?;
                    entry.set_peer(peer(&control));
                }
                prepare(tcp, deadline).await
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

/// Whether a proxy has only checked that we answer (rule: proxy-6).
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
    // These futures also report the end of the connection, because it is dropped when one of them is ready.
    let drains = async {
        control.draining().await;
        control.abort_unready();
    };
    let is_displaced = async {
        displaced.notified().await;
        control.abort();
    };
    let expires = async {
        until(deadline, std::future::pending::<()>()).await;
        control.end(Reason::TimedOut(Phase::Handshake));
    };
    tokio::select! {
        biased;
        () = drains, if !finishes => Err(Error::Draining),
        () = is_displaced => Err(Reason::Aborted.into()),
        outcome = preparing => outcome,
        () = expires => Err(Reason::TimedOut(Phase::Handshake).into()),
    }
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
