//! Accepting connections, and one connection from its first request to its last byte.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use bowline::proxy::ProxyProtocol;
use bowline::{
    Control, Error, Lingering, Listener, Observer, StartTls, TcpConnection, TlsListener, TlsTransport, Transport,
    UpgradableConnection,
};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderValue};
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

type Connection = UpgradableConnection<TcpConnection>;

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
        tokio::select! {
            () = web.log.room() => {}
            () = web.group.draining() => {}
        }
        match listener.accept().await {
            Ok(connection) => {
                let (web, router, served) = (Arc::clone(&web), router.clone(), served.clone());
                tokio::spawn(async move {
                    let _served = served;
                    serve(connection, router, &web).await;
                });
            }
            Err(Error::Draining) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// Reads the PROXY header and does the handshake. A client that speaks plaintext gets a connection in plaintext.
async fn prepare(mut tcp: TcpConnection, proxy: Option<ProxyProtocol>, web: Arc<Web>) -> Result<Connection, Error> {
    if let Some(proxy) = proxy {
        proxy.read(&mut tcp).await?;
    }
    let is_tls = tcp.fill_buf().await?.first().is_none_or(|first| *first == 22);
    let mut connection = UpgradableConnection::new(tcp);
    if is_tls {
        connection.start_tls(StartTls::server(&web.tls)).await?;
    } else {
        let observers: [&dyn Observer; 2] = [&*web.watch, &*web.metrics];
        observers.iter().for_each(|observer| observer.began_in_plaintext(&connection.control()));
    }
    Ok(connection)
}

/// Serves one connection to its end.
async fn serve(connection: Connection, router: Router, web: &Arc<Web>) {
    let control = connection.control();
    let facts = Arc::new(Facts::of(&control, connection.tls()));
    let is_plain = !connection.is_secure();
    let io = TokioIo::new(Watched::new(Lingering::new(connection), web));
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
    let mut serving = pin!(http.serve_connection(io, service));
    tokio::select! {
        _ = serving.as_mut() => {}
        () = should_stop(&control, first) => {
            serving.as_mut().graceful_shutdown();
            let _ = serving.await;
        }
    }
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
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    answer
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
