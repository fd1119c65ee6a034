//! The accept loop of every kind of listener: it waits until the limits allow a connection, accepts one connection
//! after the other, continues after failures, and is closed by a drain.

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::panic::Location;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::Poll;

use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::coop::consume_budget;
use tokio::time::{Instant, sleep_until};

use super::accept_error::AcceptErrors;
use super::builder::ListenerBuilder;
use super::closable_socket::{Accepted, ClosableSocket};
use super::header_gate::HeaderGate;
use super::limits::{Limits, PeerPermit, Places, hold};
use super::listening_socket::Listens;
use super::status::ListenerStatus;
use crate::address::Address;
use crate::conn::control::{AcceptFailure, AcceptFault as Fault, Control, Observer, Observers};
use crate::conn::group::{Arriving, DrainGroup, Drainable};
use crate::conn::refusal::Refusal;
use crate::error::{BindError, Error};
use crate::policy::Policy;

pub(crate) struct Acceptor<S: Listens> {
    socket: Arc<ClosableSocket<S>>,
    addr: Address,
    policy: Arc<Policy>,
    limits: Limits,
    group: DrainGroup,
    /// The place in the code that made the listener.
    place: &'static Location<'static>,
    errors: Arc<Mutex<AcceptErrors>>,
    gate: Option<Arc<HeaderGate>>,
    /// The socket is no longer usable.
    lost: OnceLock<BindError>,
}

/// The permits of an accepted connection.
#[must_use]
pub(crate) struct Permits {
    places: Places,
    peer_permit: Option<PeerPermit>,
    group: DrainGroup,
    made_at: &'static Location<'static>,
    /// Keeps a drain from ending until the connection is a member of the group.
    arriving: Option<Arriving>,
}

impl Permits {
    /// Moves the permits of the limits to the connection, which holds them until its end, and adds the connection to
    /// the group. Returns the permit that counts the connection as unfinished.
    pub(crate) fn hand_to(self, control: &Control) -> OwnedSemaphorePermit {
        let Places { unfinished, total } = self.places;
        hold(control, total, self.peer_permit);
        self.group.join(control);
        control.announce(self.made_at);
        drop(self.arriving);
        unfinished
    }
}

impl<S: Listens> Acceptor<S> {
    /// Starts to accept from this socket. Errors name `addr`.
    pub(crate) fn new(socket: S, addr: Address, chosen: ListenerBuilder) -> Self {
        let socket = Arc::new(ClosableSocket::new(socket, chosen.finishes));
        let listener: Weak<dyn Drainable> = Arc::downgrade(&(Arc::clone(&socket) as Arc<dyn Drainable>));
        chosen.group.add_listener(listener);
        chosen.group.add_observers(&chosen.policy);
        let limits = chosen.limits();
        let errors = Arc::default();
        let gate = HeaderGate::new(&chosen, &limits, &errors);
        Self {
            socket,
            addr,
            policy: chosen.policy,
            limits,
            group: chosen.group,
            place: chosen.place,
            errors,
            gate,
            lost: OnceLock::new(),
        }
    }

    /// Calls `f` with each socket. `None` after a drain has closed them.
    pub(super) fn with_sockets<R>(&self, f: impl FnMut(SockRef<'_>) -> R) -> Option<Vec<R>> {
        self.socket.with(|socket| {
            socket.lend();
            socket.sockets().into_iter().map(f).collect()
        })
    }

    /// The socket, so that a drain can close it.
    pub(crate) fn socket(&self) -> Arc<dyn Drainable> {
        Arc::clone(&self.socket) as Arc<dyn Drainable>
    }

    /// Whether a drain takes the backlog, and lets handshakes finish.
    pub(crate) fn finishes(&self) -> bool {
        self.socket.takes_backlog()
    }

    pub(crate) fn set_finishes(&self, finishes: bool) {
        self.socket.set_takes_backlog(finishes);
    }

    pub(crate) fn group(&self) -> &DrainGroup {
        &self.group
    }

    /// The policy of the connections.
    pub(crate) fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.policy)
    }

    pub(crate) fn status(&self) -> ListenerStatus {
        let mut status = self.errors().status(Instant::now().into_std());
        status.is_full = self.limits.is_full();
        status
    }

    /// The next connection: see [`Listener::accept`](crate::Listener::accept). Cancel safe.
    pub(crate) async fn accept(&self) -> Result<(S::Accepted, Permits), Error> {
        let accepted = self.next().await;
        if accepted.is_err() {
            // rule: life-6. Each later call fails at once too, and a loop may log the error and continue.
            consume_budget().await;
        }
        accepted
    }

    async fn next(&self) -> Result<(S::Accepted, Permits), Error> {
        if let Some(lost) = self.lost.get() {
            return Err(lost.clone().into());
        }
        tokio::select! {
            biased;
            () = self.drained() => Err(Error::Draining),
            // A drain that starts during this poll closes the socket. An error after that is not a fault of the socket.
            accepted = self.accept_permitted() => accepted.map_err(|error| if self.group.is_draining() { Error::Draining } else { error }),
        }
    }

    /// Waits until the group drains and no connection is left to accept.
    async fn drained(&self) {
        self.group.draining().await;
        self.socket.exhausted().await;
    }

    async fn accept_permitted(&self) -> Result<(S::Accepted, Permits), Error> {
        loop {
            let retry_at = self.errors().retry_at();
            if let Some(retry_at) = retry_at {
                sleep_until(retry_at.into()).await;
            }
            let (accepted, places) = self.take().await.ok_or_else(|| self.closed())?;
            let (accepted, arriving) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    self.handle_error(error)?;
                    continue;
                }
            };
            self.errors().handle_success();
            match S::tcp(&accepted).map(|(stream, peer)| self.admit(stream, peer)).transpose() {
                Ok(peer_permit) => {
                    let (peer_permit, group) = (peer_permit.flatten(), self.group.clone());
                    let permits = Permits { places, peer_permit, group, made_at: self.place, arriving };
                    return Ok((accepted, permits));
                }
                Err(refusal) => {
                    self.errors().handle_refusal(refusal.clone());
                    self.tell(|observer| observer.refused(&refusal));
                }
            }
        }
    }

    /// Takes the next connection out of the backlog. `None` if the backlog is empty. Cancel safe.
    ///
    /// rule: tcp-7. A connection that was taken must be returned without waiting for anything more, so the permits come
    /// first. But this worker does not hold them while its backlog is empty, because the other workers of the port need
    /// them (rule: limit-4).
    async fn take(&self) -> Option<(io::Result<Accepted<S>>, Places)> {
        let mut accept = pin!(self.socket.accept());
        loop {
            let mut places = Some(self.limits.places().await);
            let taken = poll_fn(|cx| {
                let Some(held) = places.take() else {
                    // The task waited without permits and was woken, so the next attempt needs permits again.
                    return Poll::Ready(None);
                };
                accept.as_mut().poll(cx).map(|accepted| Some((accepted, held)))
            });
            if let Some((accepted, held)) = taken.await {
                return accepted.map(|accepted| (accepted, held));
            }
        }
    }

    /// Does not count a peer that may send a PROXY header. The client that the header names is counted later instead.
    fn admit(&self, stream: &TcpStream, peer: SocketAddr) -> Result<Option<PeerPermit>, Refusal> {
        match &self.gate {
            Some(gate) if gate.expects_from(peer.ip()) => Ok(None),
            _ => self.limits.admit(stream, peer),
        }
    }

    /// Reads the PROXY header of each connection, if the listener expects headers.
    pub(crate) fn gate(&self) -> Option<Arc<HeaderGate>> {
        self.gate.clone()
    }

    fn handle_error(&self, error: io::Error) -> Result<(), Error> {
        let error = Arc::new(error);
        let still_listens = || {
            let states = self.socket.with(|socket| socket.sockets().iter().map(still_listens).collect::<Vec<_>>());
            // If a drain has closed the sockets, the next accept reports it.
            states.unwrap_or_default().into_iter().try_fold(true, |all, listens| Some(all && listens?))
        };
        let fault = self.errors().handle_error(&error, Instant::now().into_std(), still_listens);
        self.tell(|observer| observer.accept_failed(&AcceptFailure { listener: &self.addr, fault, error: &error }));
        match fault {
            Fault::Connection | Fault::System => Ok(()),
            Fault::Listener => {
                let lost = self.lost.get_or_init(|| BindError { addr: self.addr.clone(), error });
                // The other sockets of this listener are closed too, because no task would accept from them any more.
                self.socket.shut();
                Err(lost.clone().into())
            }
        }
    }

    /// The error that every later accept returns, because the socket is closed.
    fn closed(&self) -> Error {
        self.lost.get().map_or(Error::Draining, |lost| lost.clone().into())
    }

    fn tell(&self, event: impl Fn(&dyn Observer)) {
        if let Some(observers) = Observers::of(&self.policy) {
            observers.tell(event);
        }
    }

    fn errors(&self) -> MutexGuard<'_, AcceptErrors> {
        self.errors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the socket still listens. `None`: the system does not report it. Apple's systems define the option, but do
/// not implement it.
fn still_listens(socket: &SockRef<'_>) -> Option<bool> {
    #[cfg(all(unix, not(target_vendor = "apple"), not(bowline_portable)))]
    return rustix::net::sockopt::socket_acceptconn(&**socket).ok();
    #[cfg(any(not(unix), target_vendor = "apple", bowline_portable))]
    {
        let _ = socket;
        None
    }
}
