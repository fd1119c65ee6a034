//! A listener that returns connections whose handshake is done. The handshakes run concurrently, each in its own task.

use std::collections::HashMap;
use std::fmt;
use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::AsyncBufReadExt;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use super::handshakes::Handshakes;
use super::incoming::Incoming;
use super::listener::Listener;
use super::peers::PeerCounts;
use crate::address::Address;
use crate::config::ServerTls;
use crate::config::start_tls::StartTls;
use crate::conn::control::Control;
use crate::conn::group::DrainGroup;
use crate::conn::time::until;
use crate::core::catch::catch;
use crate::error::{Error, Phase, Reason};
use crate::layers::tcp::TcpConnection;
use crate::layers::tls::TlsConnection;
use crate::layers::upgradable::UpgradableConnection;
use crate::transport::Transport;
use crate::transport::layer::poll_budget;

/// Accepts connections whose handshake is done.
///
/// The handshakes run concurrently, each in its own task, so a slow or silent client does not delay other clients
/// (rules: accept-1, tcp-6). A failed handshake is not an error of [`accept`](Self::accept):
/// [`on_error`](TlsListenerBuilder::on_error) reports it. All limits of the [`Listener`] apply.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use bowline::{Connector, Lingering, Listener, TlsConnection, TlsListener, Transport};
///
/// # let pki = bowline::testing::pki::Pki::new();
/// # let (server_tls, client_tls) = (pki.server_tls(), pki.client_tls());
/// let listener = Listener::bind("127.0.0.1:0").await?;
/// let address = listener.local_addr();
/// let mut listener = TlsListener::new(listener, server_tls);
/// # let client = tokio::spawn(async move {
/// #     let tcp = Connector::new().connect_addr(address).await?;
/// #     TlsConnection::connect(tcp, &client_tls, "localhost").await
/// # });
/// let connection = listener.accept().await?;
/// // For hyper and other libraries:
/// let io = Lingering::new(connection);
/// # let mut client = client.await??;
/// # drop(io);
/// # client.abort();
/// # Ok(()) }
/// ```
#[doc(alias = "TlsAcceptor")]
#[doc(alias = "Incoming")]
pub struct TlsListener<C = TlsConnection<TcpConnection>> {
    ready: UnboundedReceiver<Item<C>>,
    accepting: AbortHandle,
    local: Address,
    group: DrainGroup,
}

type Item<C> = Result<(C, OwnedSemaphorePermit), Error>;
type OnError = Arc<dyn Fn(&Address, &Error) + Send + Sync>;

/// The settings of a [`TlsListener`].
#[derive(Clone)]
pub struct TlsListenerBuilder {
    max_waiting: usize,
    finishes: bool,
    on_error: Option<OnError>,
}

impl Default for TlsListenerBuilder {
    fn default() -> Self {
        Self { max_waiting: 1024, finishes: false, on_error: None }
    }
}

impl TlsListenerBuilder {
    /// The largest number of connections between the system's backlog and [`TlsListener::accept`], in their handshake or
    /// after it; default 1024, at least 1.
    ///
    /// At the limit, a new connection displaces the oldest handshake of the peer that has the most handshakes in progress
    /// (rule: accept-2). A peer is an IPv4 address or an IPv6 network of 64 bits. If there are only connections whose handshake is
    /// done, the listener stops accepting until one of them is taken.
    pub fn max_waiting(self, max: usize) -> Self {
        Self { max_waiting: max.clamp(1, Semaphore::MAX_PERMITS), ..self }
    }

    /// Whether a drain lets the handshakes that are in progress finish, within their deadline; default `false`: they are aborted
    /// (rule: drain-2). The connections are then accepted as before, and their [`Control::draining`] is ready at once.
    pub fn finish_on_drain(self, finish: bool) -> Self {
        Self { finishes: finish, ..self }
    }

    /// Is called with the peer and the error of each handshake that fails, in the handshake's task. A panic in it is caught.
    pub fn on_error(self, f: impl Fn(&Address, &Error) + Send + Sync + 'static) -> Self {
        Self { on_error: Some(Arc::new(f)), ..self }
    }

    /// Every connection uses TLS from its first byte.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn tls(self, listener: Listener, tls: ServerTls) -> TlsListener {
        self.prepare_by(listener, move |tcp, deadline| {
            let tls = tls.clone();
            async move {
                let mut connection = TlsConnection::server(tcp, &tls)?;
                connection.handshake_by(deadline).await?;
                Ok(connection)
            }
        })
    }

    /// Accepts TLS and plaintext on one port: the first byte of a client shows whether the client uses TLS. If it does
    /// not, its connection is in plaintext ([`is_secure`](crate::TlsTransport::is_secure) returns false). So a server
    /// can answer a client that sends plain HTTP to the HTTPS port with an explanation.
    ///
    /// The handshake of a client that waits for the server's first bytes times out.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn tls_or_plaintext(
        self,
        listener: Listener,
        tls: ServerTls,
    ) -> TlsListener<UpgradableConnection<TcpConnection>> {
        self.prepare_by(listener, move |mut tcp, deadline| {
            let tls = tls.clone();
            async move {
                let is_tls = begins_with_tls(&mut tcp).await?;
                let mut connection = UpgradableConnection::new(tcp);
                if is_tls {
                    connection.start_tls_by(StartTls::server(&tls), deadline).await?;
                } else {
                    connection.control().note_plaintext();
                }
                Ok(connection)
            }
        })
    }

    /// Prepares connections with your own code, for example with a plaintext dialogue before STARTTLS. The code runs in
    /// its own task, under the handshake's deadline ([`Policy::handshake_timeout`](crate::Policy::handshake_timeout)).
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn prepare<C, F>(
        self,
        listener: Listener,
        prepare: impl Fn(TcpConnection) -> F + Send + 'static,
    ) -> TlsListener<C>
    where
        C: Send + 'static,
        F: Future<Output = Result<C, Error>> + Send + 'static,
    {
        self.prepare_by(listener, move |tcp, _| prepare(tcp))
    }

    fn prepare_by<C, F>(
        self,
        listener: Listener,
        prepare: impl Fn(TcpConnection, Option<Instant>) -> F + Send + 'static,
    ) -> TlsListener<C>
    where
        C: Send + 'static,
        F: Future<Output = Result<C, Error>> + Send + 'static,
    {
        let (local, group) = (listener.local_addr(), listener.group().clone());
        let (sender, ready) = unbounded_channel();
        let accepting = Accepting { listener, chosen: self, sender, shared: Arc::default(), tasks: JoinSet::new() };
        let accepting = tokio::spawn(accepting.run(prepare)).abort_handle();
        TlsListener { ready, accepting, local, group }
    }
}

/// Whether the client uses TLS. Its bytes stay unread.
async fn begins_with_tls(tcp: &mut TcpConnection) -> Result<bool, Error> {
    /// The type of a handshake record (RFC 8446 section 5.1).
    const HANDSHAKE: u8 = 22;
    Ok(tcp.fill_buf().await?.first() == Some(&HANDSHAKE))
}

impl TlsListener {
    /// Accepts TLS connections, with the defaults of [`TlsListenerBuilder`].
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn new(listener: Listener, tls: ServerTls) -> Self {
        Self::builder().tls(listener, tls)
    }

    /// A builder for a listener with other settings.
    pub fn builder() -> TlsListenerBuilder {
        TlsListenerBuilder::default()
    }
}

impl<C> TlsListener<C> {
    /// The next connection that is ready.
    ///
    /// # Errors
    /// [`Error::Draining`] after the [group](Self::group) has begun to drain and the last connection was taken;
    /// [`Error::Bind`] if the listening socket is no longer usable. Never the failure of a single connection.
    ///
    /// # Cancel safety
    /// Cancel safe: no connection is lost.
    pub async fn accept(&mut self) -> Result<C, Error> {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    /// As [`accept`](Self::accept), for a stream of connections: `stream::poll_fn(move |cx| listener.poll_accept(cx).map(Result::ok))`.
    pub fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Result<C, Error>> {
        match ready!(self.ready.poll_recv(cx)) {
            Some(item) => Poll::Ready(item.map(|(connection, _)| connection)),
            None => {
                // rule: life-6
                ready!(poll_budget(cx));
                Poll::Ready(Err(Error::Draining))
            }
        }
    }

    /// The bound address.
    pub fn local_addr(&self) -> Address {
        self.local.clone()
    }

    /// The group of the connections: see [`Listener::group`].
    pub fn group(&self) -> &DrainGroup {
        &self.group
    }
}

/// Stops the handshakes and closes the port.
impl<C> Drop for TlsListener<C> {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// The task that accepts.
struct Accepting<C> {
    listener: Listener,
    chosen: TlsListenerBuilder,
    sender: UnboundedSender<Item<C>>,
    shared: Arc<Mutex<Shared>>,
    tasks: JoinSet<()>,
}

#[derive(Default)]
struct Shared {
    handshakes: Handshakes,
    displaced: HashMap<u64, Arc<Notify>>,
}

impl<C: Send + 'static> Accepting<C> {
    async fn run<F>(mut self, prepare: impl Fn(TcpConnection, Option<Instant>) -> F)
    where
        F: Future<Output = Result<C, Error>> + Send + 'static,
    {
        let places = Arc::new(Semaphore::new(self.chosen.max_waiting));
        let keys = PeerCounts::new(usize::MAX, 64);
        loop {
            let incoming = match self.listener.accept().await {
                Ok(incoming) => incoming,
                Err(error) => {
                    // The handshakes in progress end first: finished, aborted by the drain, or at their deadline.
                    while self.tasks.join_next().await.is_some() {}
                    let _ = self.sender.send(Err(error));
                    return;
                }
            };
            while self.tasks.try_join_next().is_some() {}
            let Some(place) = self.place(&places).await else { return };
            let peer = incoming.peer_addr().as_inet().map(|peer| keys.peer(peer.ip()));
            self.begin(incoming, peer, place, &prepare);
        }
    }

    /// A place for a connection. If none is free, a handshake is aborted to free one (rule: accept-2).
    async fn place(&self, places: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
        if let Ok(place) = Arc::clone(places).try_acquire_owned() {
            return Some(place);
        }
        let victim = {
            let shared = lock(&self.shared);
            shared.handshakes.victim().and_then(|number| shared.displaced.get(&number).cloned())
        };
        if let Some(victim) = victim {
            victim.notify_one();
        }
        Arc::clone(places).acquire_owned().await.ok()
    }

    fn begin<F>(
        &mut self,
        incoming: Incoming,
        peer: Option<IpAddr>,
        place: OwnedSemaphorePermit,
        prepare: &impl Fn(TcpConnection, Option<Instant>) -> F,
    ) where
        F: Future<Output = Result<C, Error>> + Send + 'static,
    {
        let (deadline, unfinished, tcp) = incoming.into_parts();
        let (addr, control) = (tcp.peer_addr(), tcp.control());
        let entry = Entry::new(&self.shared, peer);
        // rule: life-7
        let preparing: Result<Pin<Box<F>>, Error> = caught(|| Box::pin(prepare(tcp, deadline)));
        let preparing = async {
            let mut preparing = preparing?;
            poll_fn(move |cx| caught(|| preparing.as_mut().poll(cx)).unwrap_or_else(|error| Poll::Ready(Err(error))))
                .await
        };
        let (sender, on_error, finishes) = (self.sender.clone(), self.chosen.on_error.clone(), self.chosen.finishes);
        self.tasks.spawn(async move {
            let outcome = outcome(&control, deadline, finishes, &entry.displaced, preparing).await;
            drop((entry, unfinished));
            match outcome {
                // `send` fails only if the listener was dropped.
                Ok(connection) => drop(sender.send(Ok((connection, place)))),
                Err(error) => {
                    if let Some(on_error) = on_error {
                        let _ = catch(|| on_error(&addr, &error), |_| ());
                    }
                }
            }
        });
    }
}

/// Calls the application's code. A panic becomes the error of its connection.
fn caught<R>(call: impl FnOnce() -> R) -> Result<R, Error> {
    catch(call, |_| std::io::Error::other("the preparation of the connection panicked").into())
}

/// Waits for a preparation: at most until its deadline, and until a drain unless it is to be finished.
async fn outcome<C>(
    control: &Control,
    deadline: Option<Instant>,
    finishes: bool,
    displaced: &Notify,
    preparing: impl Future<Output = Result<C, Error>>,
) -> Result<C, Error> {
    // The end is a part of these futures, because the connection is dropped when one of them is ready.
    let drains = async {
        control.draining().await;
        control.abort();
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

/// One handshake in progress. Dropping the entry ends it in the list.
struct Entry {
    shared: Arc<Mutex<Shared>>,
    peer: Option<IpAddr>,
    number: u64,
    /// Notified when the place of this handshake is needed for another connection.
    displaced: Arc<Notify>,
}

impl Entry {
    fn new(shared: &Arc<Mutex<Shared>>, peer: Option<IpAddr>) -> Self {
        let mut all = lock(shared);
        let number = all.handshakes.begin(peer);
        let displaced = Arc::new(Notify::new());
        all.displaced.insert(number, Arc::clone(&displaced));
        drop(all);
        Self { shared: Arc::clone(shared), peer, number, displaced }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut all = lock(&self.shared);
        all.handshakes.end(self.peer, self.number);
        all.displaced.remove(&self.number);
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<C> fmt::Debug for TlsListener<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsListener")
            .field("local_addr", &self.local)
            .field("group", &self.group)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for TlsListenerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsListenerBuilder")
            .field("max_waiting", &self.max_waiting)
            .field("finish_on_drain", &self.finishes)
            .finish_non_exhaustive()
    }
}
