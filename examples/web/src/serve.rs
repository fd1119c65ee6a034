//! Accepting connections, and one connection from its first byte to its last.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use bowline::proxy::ProxyProtocol;
use bowline::{
    Control, Error, Lingering, Listener, Phase, Reason, StartTls, TcpConnection, TlsListener, TlsTransport, Transport,
    UpgradableConnection,
};
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode, Version};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::io::AsyncBufReadExt;
use tokio::sync::mpsc::Sender;
use tokio::sync::watch;

use crate::app::{self, Facts};
use crate::io::Watched;
use crate::state::Web;
use crate::unread::Unread;

/// How long a connection without a request may continue during a drain. A client that has just connected gets its answer.
const FIRST_REQUEST: Duration = Duration::from_secs(2);

/// Accepts connections until the drain, and serves each in a task of its own.
pub(crate) async fn accept(
    listener: Listener,
    proxy: Option<ProxyProtocol>,
    web: Arc<Web>,
    served: Sender<()>,
) -> Result<(), Error> {
    let router = app::router(Arc::clone(&web));
    let preparing = Arc::clone(&web);
    let mut listener = TlsListener::builder().finish_on_drain(true).prepare(listener, move |tcp| {
        let (web, proxy) = (Arc::clone(&preparing), proxy.clone());
        async move { prepare(tcp, proxy, web).await }
    });
    loop {
        match listener.accept().await {
            Ok(ready) => {
                let (web, router, served) = (Arc::clone(&web), router.clone(), served.clone());
                tokio::spawn(async move {
                    let _served = served;
                    serve(ready, router, &web).await;
                });
            }
            Err(Error::Draining) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// A connection that is ready for requests.
struct Ready {
    connection: UpgradableConnection<TcpConnection>,
    entry: Entry,
}

/// Reads the PROXY header and does the handshake. A client that speaks plaintext gets a connection in plaintext.
async fn prepare(mut tcp: TcpConnection, proxy: Option<ProxyProtocol>, web: Arc<Web>) -> Result<Ready, Error> {
    web.log.room().await;
    let mut entry = Entry::new(&web, tcp.control());
    let prepared = async {
        if let Some(proxy) = proxy {
            proxy.read(&mut tcp).await?;
        }
        let is_tls = tcp.fill_buf().await?.first().is_none_or(|first| *first == 22);
        let mut connection = UpgradableConnection::new(tcp);
        if is_tls {
            connection.start_tls(StartTls::server(&web.tls)).await?;
        }
        Ok(connection)
    };
    match prepared.await {
        Ok(connection) => {
            web.handshakes.done.fetch_add(1, Ordering::Relaxed);
            Ok(Ready { connection, entry })
        }
        Err(error) => {
            entry.failed(&error);
            Err(error)
        }
    }
}

/// Serves one connection to its end.
async fn serve(ready: Ready, router: Router, web: &Arc<Web>) {
    let Ready { connection, mut entry } = ready;
    entry.is_prepared = true;
    let control = connection.control();
    let facts = Arc::new(Facts::of(&connection));
    if connection.is_secure() {
        web.log.secured(entry.number, facts.info());
    }
    let is_plain = !connection.is_secure();
    let io = Watched::new(Lingering::new(connection), entry.number, web);
    let counts = io.counts();
    let (requested, first) = watch::channel(false);
    let router = TowerToHyperService::new(router);
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        requested.send_replace(true);
        let is_http2 = request.version() == Version::HTTP_2;
        let mut request = request.map(|body| if is_http2 { Body::new(Unread::new(body)) } else { Body::new(body) });
        request.extensions_mut().insert(Arc::clone(&facts));
        let router = router.clone();
        async move {
            if is_plain {
                return Ok(not_tls());
            }
            hyper::service::Service::call(&router, request).await
        }
    });
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new()).half_close(true);
    http.http2().timer(TokioTimer::new());
    {
        let mut serving = pin!(http.serve_connection(TokioIo::new(io), service));
        tokio::select! {
            _ = serving.as_mut() => {}
            () = should_stop(&control, first) => {
                serving.as_mut().graceful_shutdown();
                let _ = serving.await;
            }
        }
    }
    entry.counts = Some(counts);
}

/// Waits for the drain, and then for the first request of a new connection.
async fn should_stop(control: &Control, mut first: watch::Receiver<bool>) {
    control.draining().await;
    let _ = tokio::time::timeout(FIRST_REQUEST, first.wait_for(|requested| *requested)).await;
}

fn not_tls() -> Response<Body> {
    let mut answer = Response::new(Body::from("This port speaks HTTPS; use an address that begins with https://.\n"));
    *answer.status_mut() = StatusCode::BAD_REQUEST;
    let headers = answer.headers_mut();
    headers.insert("content-type", hyper::header::HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert("connection", hyper::header::HeaderValue::from_static("close"));
    answer
}

/// The log's entry of a connection: `made` at its start, `lost` at its end.
struct Entry {
    number: u64,
    control: Control,
    web: Arc<Web>,
    is_prepared: bool,
    failed: Option<Reason>,
    counts: Option<Arc<crate::io::Counts>>,
}

impl Entry {
    fn new(web: &Arc<Web>, control: Control) -> Self {
        let number = web.next_number();
        web.log.made(number, control.peer_addr().to_string());
        Self { number, control, web: Arc::clone(web), is_prepared: false, failed: None, counts: None }
    }

    fn failed(&mut self, error: &Error) {
        self.failed = Some(Reason::from(error.clone()));
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let reported = || self.control.report().map(|report| report.reason.clone());
        let reason = self.failed.take().or_else(reported);
        // The handshake was given up at its deadline, or for another connection.
        let reason =
            reason.unwrap_or(if self.is_prepared { Reason::Dropped } else { Reason::TimedOut(Phase::Handshake) });
        if !self.is_prepared {
            self.web.handshakes.failed.fetch_add(1, Ordering::Relaxed);
        }
        let via = self.control.via().map(|via| via.to_string());
        let who =
            vec![("peer", serde_json::json!(self.control.peer_addr().to_string())), ("via", serde_json::json!(via))];
        let counts = self.counts.as_ref();
        let received = counts.map_or(0, |counts| counts.received.load(Ordering::Relaxed));
        let sent = counts.map_or(0, |counts| counts.sent.load(Ordering::Relaxed));
        self.web.log.lost(self.number, who, &reason, received, sent);
    }
}

/// Answers `/metrics` and `/health` in plain HTTP, until the program ends.
pub(crate) async fn metrics(listener: Listener, web: Arc<Web>) {
    let router = TowerToHyperService::new(app::metrics_router(web));
    while let Ok(incoming) = listener.accept().await {
        let router = router.clone();
        tokio::spawn(async move {
            let http = auto::Builder::new(TokioExecutor::new());
            let io = TokioIo::new(Lingering::new(incoming.into_tcp()));
            let _ = http.serve_connection(io, router).await;
        });
    }
}
