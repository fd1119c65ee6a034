//! Serves HTTP/1 and HTTP/2 until a drain.

use std::convert::Infallible;
use std::error::Error as StdError;
use std::fmt;
use std::future::{pending, ready};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ::hyper::body::{Body, Incoming};
use ::hyper::service::{Service, service_fn};
use ::hyper::{Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::AsyncWriteExt;
use tokio::sync::{Notify, watch};
use tokio::time::sleep;

use super::accept::Accept;
use super::body::RequestBody;
use super::io::Io;
use crate::conn::control::Control;
use crate::conn::time::{after, until};
use crate::error::Error;
use crate::transport::Transport;
use crate::transport::lingering::Lingering;

/// An error of a service, of a body, or of hyper.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// Serves HTTP/1 and HTTP/2 on the connections of a listener, until its [group](crate::DrainGroup) drains.
///
/// ```no_run
/// # async fn example(tls: bowline::ServerTls) -> Result<(), bowline::Error> {
/// use std::{convert::Infallible, time::Duration};
/// use bowline::{Control, Listener, TlsListener, hyper::{RequestBody, Server}};
/// use hyper::{Request, Response, service::service_fn};
///
/// async fn answer(request: Request<RequestBody>) -> Result<Response<String>, Infallible> {
///     let control = request.extensions().get::<Control>();
///     Ok(Response::new(format!("hello {:?}", control.map(Control::peer_addr))))
/// }
///
/// // `tls` has the ALPN protocols "h2" and "http/1.1".
/// let listener = TlsListener::new(Listener::bind("0.0.0.0:443").await?, tls);
/// let group = listener.group().clone();
/// tokio::spawn(async move { Server::new().serve(listener, service_fn(answer)).await });
/// tokio::signal::ctrl_c().await?;
/// println!("{}", group.drain(Duration::from_secs(30)).await);
/// # Ok(()) }
/// ```
///
/// Pass a service of tower, such as axum's `Router`, as hyper-util's `TowerToHyperService::new(router)`.
///
/// - A request carries the [`Control`] of its connection in its extensions.
/// - While a request is processed, its connection is [busy](Control::busy): it does not count as idle (rule: idle-4).
/// - A drain ends each connection after the answers to its requests: with `connection: close` in HTTP/1, with GOAWAY in
///   HTTP/2. A connection without a request so far gets [a short time](Self::first_request) for its first one.
/// - A connection that nobody uses can [end in order](Self::idle_timeout).
/// - Each connection ends with a complete close ([`Lingering`](crate::Lingering)), even if hyper drops it without a
///   shutdown.
/// - The answer to a request whose body was not read reaches the client, also over HTTP/2 ([`RequestBody`]).
/// - Clients may half-close their connection after a request.
#[derive(Clone)]
pub struct Server {
    http: Builder<TokioExecutor>,
    first_request: Duration,
    idle: Option<Duration>,
    on_error: Option<OnError>,
    to_plaintext: Option<Arc<Response<String>>>,
}

type OnError = Arc<dyn Fn(&Control, &(dyn StdError + 'static)) + Send + Sync>;

impl Default for Server {
    fn default() -> Self {
        Self::new()
    }
}

impl Server {
    /// A server with the default settings and time limits of hyper, and with half-close in HTTP/1.
    pub fn new() -> Self {
        let mut http = Builder::new(TokioExecutor::new());
        http.http1().timer(TokioTimer::new()).half_close(true);
        http.http2().timer(TokioTimer::new());
        Self { http, first_request: Duration::from_secs(2), idle: None, on_error: None, to_plaintext: None }
    }

    /// Changes the settings of hyper, for example its time limits.
    pub fn http(mut self, set: impl FnOnce(&mut Builder<TokioExecutor>)) -> Self {
        set(&mut self.http);
        self
    }

    /// Sets how long a drain waits for the first request of a connection; default 2 seconds. So a client that has just
    /// connected still gets an answer.
    pub fn first_request(self, limit: Duration) -> Self {
        Self { first_request: limit, ..self }
    }

    /// Ends a connection in order on which no byte moves: after between three quarters of this time and this time.
    /// Requests in progress are still answered, as in a drain (rule: idle-5). Default: no limit.
    ///
    /// hyper itself ends a connection of HTTP/1 30 seconds after its last answer, but neither an idle connection of
    /// HTTP/2 nor a connection whose first request does not come. A balancer that does not decrypt can only cut an idle
    /// connection off, so its limit has to be longer than this one. A client that is gone does not confirm the end:
    /// [`Policy::idle_timeout`](crate::Policy::idle_timeout), with a longer time, resets its connection.
    pub fn idle_timeout(self, limit: Duration) -> Self {
        Self { idle: Some(limit), ..self }
    }

    /// Sets a callback for the error of each connection that [`serve`](Self::serve) serves and that fails in HTTP or in
    /// the service. Clients that disconnect in the middle of a request cause such errors too.
    pub fn on_error(self, f: impl Fn(&Control, &(dyn StdError + 'static)) + Send + Sync + 'static) -> Self {
        Self { on_error: Some(Arc::new(f)), ..self }
    }

    /// Answers every request on a connection without TLS with this answer, instead of passing it to the service, and
    /// ends the connection after it. With [`tls_or_plaintext`](crate::TlsListenerBuilder::tls_or_plaintext), a client
    /// that sends plain HTTP to the HTTPS port gets this explanation. Default: the service answers such requests too.
    pub fn answer_plaintext(self, answer: Response<String>) -> Self {
        Self { to_plaintext: Some(Arc::new(answer)), ..self }
    }

    /// Serves the connections of this listener, each in its own task, until the listener's group drains. Returns after
    /// the last of these connections has ended. [`DrainGroup::drain`](crate::DrainGroup::drain) limits this time.
    ///
    /// # Errors
    /// The error of a listener that is no longer usable. Its connections continue.
    ///
    /// # Cancel safety
    /// Dropping the future closes the listener. Its connections continue.
    pub async fn serve<A, S, B>(&self, mut listener: A, service: S) -> Result<(), Error>
    where
        A: Accept,
        S: Service<Request<RequestBody>, Response = Response<B>> + Clone + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Into<BoxError>,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let (ended, serving) = watch::channel(());
        loop {
            let accepted = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(Error::Draining) => break,
                Err(error) => return Err(error),
            };
            let (server, service, serving) = (self.clone(), service.clone(), serving.clone());
            tokio::spawn(async move {
                // If the connection cannot start (its TLS handshake fails, for example), there is no request to answer.
                if let Ok(connection) = A::begin(accepted).await {
                    let control = connection.control();
                    let served = server.connection(connection, service).await;
                    if let (Err(error), Some(on_error)) = (served, server.on_error) {
                        on_error(&control, &*error);
                    }
                }
                drop(serving);
            });
        }
        drop((listener, serving));
        ended.closed().await;
        Ok(())
    }

    /// Serves one connection, until it ends or until the drain of its group.
    ///
    /// # Errors
    /// The error of hyper or of the service. The connection has ended in any case.
    ///
    /// # Cancel safety
    /// Not cancel safe: dropping the future drops the connection.
    pub async fn connection<T, S, B>(&self, connection: T, service: S) -> Result<(), BoxError>
    where
        T: Transport,
        S: Service<Request<RequestBody>, Response = Response<B>> + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Into<BoxError>,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let control = connection.control();
        let first = Arc::new(First::default());
        if let Some(answer) = self.to_plaintext.as_ref().filter(|_| control.tls().is_none()) {
            let (answer, noted) = (Arc::clone(answer), Arc::clone(&first));
            let service = service_fn(move |_: Request<Incoming>| {
                noted.note();
                ready(Ok::<_, Infallible>(Response::clone(&answer)))
            });
            let mut http = self.http.clone();
            http.http1().keep_alive(false);
            return self.run(&http, connection, &first, service).await;
        }
        let noted = Arc::clone(&first);
        let service = service_fn(move |request: Request<Incoming>| {
            noted.note();
            let busy = control.busy();
            let is_http2 = request.version() == Version::HTTP_2;
            let mut request = request.map(|body| RequestBody::new(body, is_http2));
            request.extensions_mut().insert(control.clone());
            let answer = service.call(request);
            async move {
                let answer = answer.await;
                drop(busy);
                answer
            }
        });
        self.run(&self.http, connection, &first, service).await
    }

    /// Lets hyper serve a connection, and ends it.
    async fn run<T, S, B>(
        &self,
        http: &Builder<TokioExecutor>,
        connection: T,
        first: &First,
        service: S,
    ) -> Result<(), BoxError>
    where
        T: Transport,
        S: Service<Request<Incoming>, Response = Response<B>> + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Into<BoxError>,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let control = connection.control();
        let (io, left) = Io::new(Lingering::new(connection));
        let served = {
            let mut serving = pin!(http.serve_connection_with_upgrades(io, service));
            tokio::select! {
                biased;
                served = serving.as_mut() => served,
                () = self.should_stop(&control, first) => {
                    serving.as_mut().graceful_shutdown();
                    serving.await
                }
            }
        };
        let end = End::of(&served);
        if let (Some(mut io), End::InOrder | End::Unused) = (left.take(), &end) {
            // An error is ignored here, because the connection's report has it.
            let _ = io.shutdown().await;
        }
        match end {
            End::Unused => Ok(()),
            End::InOrder | End::Failed => served,
        }
    }

    /// Waits until the connection is idle, or for the drain and then for the first request of a new connection.
    async fn should_stop(&self, control: &Control, first: &First) {
        let drained = async {
            control.draining().await;
            until(after(Some(self.first_request)), first.noted()).await;
        };
        tokio::select! {
            () = drained => {}
            () = self.is_idle(control) => {}
        }
    }

    /// Waits until no byte has moved for a time. The bytes are compared four times in this time, so that a connection in
    /// use costs almost nothing.
    async fn is_idle(&self, control: &Control) {
        let Some(limit) = self.idle else { return pending().await };
        let (mut before, mut unchanged) = (control.traffic(), 0);
        while unchanged < 3 {
            sleep(limit / 4).await;
            let now = control.traffic();
            unchanged = if now == before { unchanged + 1 } else { 0 };
            before = now;
        }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { first_request, idle, .. } = self;
        f.debug_struct("Server").field("first_request", first_request).field("idle", idle).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;

/// How hyper has ended a connection.
enum End {
    /// After an answer, or at one of hyper's time limits.
    InOrder,
    /// A drain has ended it before its first request.
    Unused,
    /// By an error: the peer must not mistake the last message for a complete one.
    Failed,
}

impl End {
    fn of(served: &Result<(), BoxError>) -> Self {
        let Err(error) = served else { return Self::InOrder };
        if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::Interrupted) {
            return Self::Unused;
        }
        let timed_out = error.downcast_ref::<::hyper::Error>().is_some_and(::hyper::Error::is_timeout);
        if timed_out { Self::InOrder } else { Self::Failed }
    }
}

/// Whether a connection has had a request.
#[derive(Default)]
struct First {
    /// The first request has come. `notify` wakes only a task that waits at that moment.
    noted: AtomicBool,
    notify: Notify,
}

impl First {
    fn note(&self) {
        if !self.noted.load(Ordering::Relaxed) && !self.noted.swap(true, Ordering::Release) {
            self.notify.notify_one();
        }
    }

    async fn noted(&self) {
        if !self.noted.load(Ordering::Acquire) {
            self.notify.notified().await;
        }
    }
}
