//! Accepting connections, and serving them.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use bowline::hyper::{Accept, Server};
use bowline::proxy::ProxyProtocol;
use bowline::{
    Control, Error, Listener, Observer, StartTls, TcpConnection, TlsListener, Transport, UpgradableConnection,
};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderValue};
use hyper::service::{Service, service_fn};
use hyper::{Request, Response, StatusCode, Version};
use hyper_util::service::TowerToHyperService;
use tokio::io::AsyncBufReadExt;

use crate::app::{self, Facts};
use crate::state::Web;
use crate::unread::Unread;

type Connection = UpgradableConnection<TcpConnection>;

/// Serves the connections of a listener until the drain. Returns after the last one has ended.
pub(crate) async fn serve(listener: Listener, proxy: Option<ProxyProtocol>, web: Arc<Web>) -> Result<(), Error> {
    let preparing = Arc::clone(&web);
    let listener = TlsListener::builder().finish_on_drain(true).prepare(listener, move |tcp| {
        let (web, proxy) = (Arc::clone(&preparing), proxy.clone());
        async move { prepare(tcp, proxy, web).await }
    });
    let router = TowerToHyperService::new(app::router(Arc::clone(&web)));
    let service = service_fn(move |request: Request<Incoming>| answer(router.clone(), request));
    Server::new().serve(WithSpaceInLog { listener, web }, service).await
}

/// Accepts a connection when the log has space.
struct WithSpaceInLog {
    listener: TlsListener<Connection>,
    web: Arc<Web>,
}

impl Accept for WithSpaceInLog {
    type Connection = Connection;

    async fn accept(&mut self) -> Result<Connection, Error> {
        tokio::select! {
            () = self.web.log.room() => {}
            () = self.web.group.draining() => {}
        }
        self.listener.accept().await
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

/// Gives the request to the application, with the facts of its connection.
async fn answer(
    router: TowerToHyperService<Router>,
    request: Request<Incoming>,
) -> Result<Response<Body>, std::convert::Infallible> {
    let is_http2 = request.version() == Version::HTTP_2;
    let mut request = request.map(|body| if is_http2 { Body::new(Unread::new(body)) } else { Body::new(body) });
    let Some(control) = request.extensions().get::<Control>() else { return Ok(not_tls()) };
    let Some(tls) = control.tls() else { return Ok(not_tls()) };
    let facts = Facts::of(control, tls);
    request.extensions_mut().insert(Arc::new(facts));
    router.call(request).await
}

/// The answer to plain HTTP.
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
    let service = TowerToHyperService::new(app::metrics_router(web));
    let _ = Server::new().serve(listener, service).await;
}
