//! Accepting connections, and serving them.

use std::convert::Infallible;
use std::future::{Future, ready};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use bowline::hyper::{Accept, RequestBody, Server};
use bowline::{Control, Error, Listener, TcpConnection, TlsListener, UpgradableConnection};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::{Service, service_fn};
use hyper::{Request, Response, StatusCode};
use hyper_util::service::TowerToHyperService;

use crate::app::{self, Facts};
use crate::state::Web;

type Connection = UpgradableConnection<TcpConnection>;

/// A connection on which nothing moves for this time ends in order. `deploy/haproxy.cfg` cuts it off a little later.
const IDLE: Duration = Duration::from_secs(840);
/// A connection whose client is gone, so that it does not end in order, is reset after this time.
pub(crate) const GONE: Duration = Duration::from_secs(1200);

/// Serves the connections of a listener until the drain. Returns after the last one has ended.
pub(crate) async fn serve(listener: Listener, web: Arc<Web>) -> Result<(), Error> {
    let listener = TlsListener::builder().tls_or_plaintext(listener, web.tls.clone());
    let router = TowerToHyperService::new(app::router(Arc::clone(&web)));
    let service = service_fn(move |request: Request<RequestBody>| answer(router.clone(), request));
    Server::new().idle_timeout(IDLE).answer_plaintext(not_tls()).serve(WithSpaceInLog { listener, web }, service).await
}

/// Accepts a connection when the log has space.
struct WithSpaceInLog {
    listener: TlsListener<Connection>,
    web: Arc<Web>,
}

impl Accept for WithSpaceInLog {
    type Accepted = Connection;
    type Connection = Connection;

    async fn accept(&mut self) -> Result<Connection, Error> {
        tokio::select! {
            () = self.web.log.room() => {}
            () = self.web.group.draining() => {}
        }
        self.listener.accept().await
    }

    fn begin(accepted: Connection) -> impl Future<Output = Result<Connection, Error>> + Send {
        ready(Ok(accepted))
    }
}

/// Gives the request to the application, with the facts of its connection.
async fn answer(
    router: TowerToHyperService<Router>,
    mut request: Request<RequestBody>,
) -> Result<Response<Body>, Infallible> {
    let facts = request.extensions().get::<Control>().and_then(|control| Some(Facts::of(control, control.tls()?)));
    if let Some(facts) = facts {
        request.extensions_mut().insert(Arc::new(facts));
    }
    router.call(request).await
}

/// The answer to plain HTTP.
fn not_tls() -> Response<String> {
    let text = "This port speaks HTTPS; use an address that begins with https://.\n";
    let mut answer = Response::new(text.to_owned());
    *answer.status_mut() = StatusCode::BAD_REQUEST;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}

/// Answers `/metrics` and `/health` in plain HTTP, until the program ends.
pub(crate) async fn metrics(listener: Listener, web: Arc<Web>) {
    let service = TowerToHyperService::new(app::metrics_router(web));
    let _ = Server::new().serve(listener, service).await;
}
