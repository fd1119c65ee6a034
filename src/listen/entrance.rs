//! What a listener of any kind does: it waits for room, takes one connection after the other, goes on behind what fails,
//! and is shut by a drain.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};

use super::limits::{Limits, PeerPlace, hold};
use super::trouble::{Fault, Trouble};
use super::{ListenerBuilder, ListenerStatus};
use crate::control::Control;
use crate::drain::Door;
use crate::{Address, BindError, DrainGroup, Error, Policy};

/// A listening socket of the system.
pub(crate) trait Listens: Send + Sync + 'static {
    /// A connection that was taken out of the backlog.
    type Taken: Send;

    /// Takes the next one. Cancel safe.
    fn take(&self) -> impl Future<Output = io::Result<Self::Taken>> + Send;

    /// Its TCP socket and its peer. `None`: peers have no addresses here, and there are no bounds for each.
    fn tcp(taken: &Self::Taken) -> Option<(&TcpStream, SocketAddr)>;

    /// The listening socket itself, to be shut down where that refuses clients.
    #[cfg_attr(not(target_os = "linux"), allow(dead_code))]
    fn socket(&self) -> SockRef<'_>;
}

pub(crate) struct Entrance<S> {
    socket: Arc<Shutter<S>>,
    addr: Address,
    policy: Arc<Policy>,
    unfinished: Arc<Semaphore>,
    limits: Limits,
    group: DrainGroup,
    trouble: Mutex<Trouble>,
}

/// The listening socket, until a drain shuts it.
struct Shutter<S>(Mutex<Option<Arc<S>>>);

impl<S: Listens> Door for Shutter<S> {
    fn shut(&self) {
        let socket = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        // An accept that waits holds the socket until it is polled; new clients are refused at once all the same.
        #[cfg(target_os = "linux")]
        let _ = socket.as_deref().map(|socket| socket.socket().shutdown(std::net::Shutdown::Read));
        drop(socket);
    }
}

/// What a connection was let in with.
#[must_use]
pub(crate) struct Pass {
    unfinished: OwnedSemaphorePermit,
    place: Option<OwnedSemaphorePermit>,
    among_peers: Option<PeerPlace>,
    group: DrainGroup,
}

impl Pass {
    /// The connection has its places until it is gone, and belongs to the group. What is left counts it as unfinished.
    pub(crate) fn hand_to(self, control: &Control) -> OwnedSemaphorePermit {
        hold(control, self.place, self.among_peers);
        self.group.join(control);
        self.unfinished
    }
}

impl<S: Listens> Entrance<S> {
    /// Opens the entrance that this socket is. `addr` is what errors name.
    pub(crate) fn new(socket: S, addr: Address, chosen: ListenerBuilder) -> Self {
        let socket = Arc::new(Shutter(Mutex::new(Some(Arc::new(socket)))));
        let door: Weak<dyn Door> = Arc::downgrade(&(Arc::clone(&socket) as Arc<dyn Door>));
        chosen.group.open(door);
        Self {
            socket,
            addr,
            policy: chosen.policy,
            unfinished: Arc::new(Semaphore::new(chosen.max_unfinished)),
            limits: Limits::new(chosen.max_connections, chosen.max_per_peer, chosen.ipv6_prefix),
            group: chosen.group,
            trouble: Mutex::default(),
        }
    }

    pub(crate) fn group(&self) -> &DrainGroup {
        &self.group
    }

    /// That of the connections.
    pub(crate) fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.policy)
    }

    pub(crate) fn status(&self) -> ListenerStatus {
        let mut status = self.trouble().status(Instant::now().into_std());
        status.is_full = self.limits.is_full();
        status
    }

    /// The next connection: see [`Listener::accept`](super::Listener::accept). Cancel safe.
    pub(crate) async fn accept(&self) -> Result<(S::Taken, Pass), Error> {
        let socket = self.socket.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let socket = socket.ok_or(Error::Draining)?;
        tokio::select! {
            biased;
            () = self.group.draining() => Err(Error::Draining),
            // A drain that begins while this is polled shuts the socket: that is no fault of the socket's.
            taken = self.take(&socket) => taken.map_err(|error| if self.group.is_draining() { Error::Draining } else { error }),
        }
    }

    async fn take(&self, socket: &S) -> Result<(S::Taken, Pass), Error> {
        // rule: tcp-7. A connection that was taken out of the backlog must be returned without waiting for anything
        // more, so the permits come first.
        let unfinished = Arc::clone(&self.unfinished).acquire_owned().await.expect("the semaphore is never closed");
        let place = self.limits.place().await;
        loop {
            let retry_at = self.trouble().retry_at();
            if let Some(retry_at) = retry_at {
                sleep_until(retry_at.into()).await;
            }
            let taken = match socket.take().await {
                Ok(taken) => taken,
                Err(error) => {
                    self.handle_error(error)?;
                    continue;
                }
            };
            self.trouble().handle_success();
            match S::tcp(&taken).map(|(stream, peer)| self.limits.admit(stream, peer)).transpose() {
                Ok(among_peers) => {
                    let (among_peers, group) = (among_peers.flatten(), self.group.clone());
                    return Ok((taken, Pass { unfinished, place, among_peers, group }));
                }
                Err(refusal) => self.trouble().handle_refusal(refusal),
            }
        }
    }

    fn handle_error(&self, error: io::Error) -> Result<(), Error> {
        let error = Arc::new(error);
        match self.trouble().handle_error(&error, Instant::now().into_std()) {
            Fault::Connection | Fault::System => Ok(()),
            Fault::Listener => Err(BindError { addr: self.addr.clone(), error }.into()),
        }
    }

    fn trouble(&self) -> MutexGuard<'_, Trouble> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
