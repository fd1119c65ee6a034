//! The application: the answer for each path.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, RawQuery, State};
use axum::http::{HeaderName, StatusCode, Version, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bowline::{Address, Control, SessionFacts};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::common::info::{self, Fields, to_json};
use crate::page;
use crate::pattern::PATTERN;
use crate::state::Web;

const TEXT: [(HeaderName, &str); 1] = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];

/// The paths of the service over TLS.
pub(crate) fn router(web: Arc<Web>) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/whoami", get(whoami))
        .route("/slow", get(slow))
        .route("/bytes", get(pattern))
        .route("/sum", post(sum))
        .route("/health", get(health))
        .fallback(not_found)
        .method_not_allowed_fallback(not_allowed)
        .with_state(web)
}

/// The paths on the address of `--metrics`.
pub(crate) fn metrics_router(web: Arc<Web>) -> Router {
    let router = Router::new().route("/health", get(health)).route("/metrics", get(metrics));
    router.fallback(not_found).method_not_allowed_fallback(not_allowed).with_state(web)
}

/// The facts of a connection.
pub(crate) struct Facts {
    peer: Address,
    via: Option<Address>,
    host: Address,
    tls: Arc<SessionFacts>,
}

impl Facts {
    pub(crate) fn of(connection: &Control, tls: Arc<SessionFacts>) -> Self {
        Self { peer: connection.peer_addr(), via: connection.via(), host: connection.local_addr(), tls }
    }

    /// The facts for the log.
    pub(crate) fn info(&self) -> Fields {
        let mut fields = info::info("tls", &self.host, &self.peer, Some(&self.tls));
        fields.push(("via", self.via()));
        fields
    }

    /// The facts for `/whoami`.
    pub(crate) fn whoami(&self) -> Fields {
        let mut fields = info::info("tls", &self.host, &self.peer, Some(&self.tls));
        let mut take = |wanted: &'static str| {
            let found = fields.iter_mut().find(|(name, _)| *name == wanted);
            (wanted, found.map_or(Value::Null, |(_, value)| value.take()))
        };
        vec![
            take("peer"),
            ("via", self.via()),
            take("host"),
            take("sni"),
            take("version"),
            take("cipher"),
            take("group"),
            take("alpn"),
            take("resumed"),
            take("peer_subject"),
            ("peer_names", self.peer_names()),
            ("generation", json!(self.tls.generation)),
        ]
    }

    fn via(&self) -> Value {
        json!(self.via.as_ref().map(Address::to_string))
    }

    /// The subject alternative names of the client's certificate; null without a certificate.
    fn peer_names(&self) -> Value {
        if self.tls.peer_chain.is_empty() {
            return Value::Null;
        }
        let names = self.tls.peer_alternative_names().unwrap_or_default();
        names.iter().map(ToString::to_string).collect()
    }
}

async fn whoami(Extension(facts): Extension<Arc<Facts>>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], to_json(&facts.whoami()) + "\n").into_response()
}

async fn index(version: Version, State(web): State<Arc<Web>>, Extension(facts): Extension<Arc<Facts>>) -> Response {
    let html = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (html, page::page(&facts.whoami(), version, &web)).into_response()
}

async fn slow(RawQuery(query): RawQuery) -> Response {
    match number(query.as_deref(), "ms") {
        Ok(ms) => {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            (TEXT, "done").into_response()
        }
        Err(problem) => problem.into_response(),
    }
}

async fn pattern(RawQuery(query): RawQuery) -> Response {
    match number(query.as_deref(), "n") {
        Ok(n) => (TEXT, Body::new(Pattern { rest: n })).into_response(),
        Err(problem) => problem.into_response(),
    }
}

/// The number that a query gives under this name.
fn number(query: Option<&str>, name: &str) -> Result<u64, impl IntoResponse> {
    let given = query.unwrap_or_default().split('&').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
    let number = given.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit())).and_then(|text| text.parse().ok());
    number.ok_or_else(|| (StatusCode::BAD_REQUEST, TEXT, format!("The query must be {name}= and a whole number.\n")))
}

async fn sum(body: Body) -> Response {
    let mut body = body;
    let (mut count, mut digest) = (0, Sha256::new());
    while let Some(frame) = body.frame().await {
        match frame.map(http_body::Frame::into_data) {
            Ok(Ok(bytes)) => {
                count += bytes.len() as u64;
                digest.update(&bytes);
            }
            // The frame has trailers and no data.
            Ok(Err(_)) => {}
            Err(_) => return (StatusCode::BAD_REQUEST, TEXT, "The body is not complete.\n").into_response(),
        }
    }
    let hex: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    (TEXT, format!("{count} {hex}\n")).into_response()
}

async fn health(State(web): State<Arc<Web>>) -> Response {
    if web.is_draining() {
        (StatusCode::SERVICE_UNAVAILABLE, TEXT, "draining").into_response()
    } else {
        (TEXT, "ok").into_response()
    }
}

async fn metrics(State(web): State<Arc<Web>>) -> Response {
    web.metrics.update();
    web.prometheus.run_upkeep();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], web.prometheus.render()).into_response()
}

async fn not_found() -> Response {
    (StatusCode::NOT_FOUND, TEXT, "There is nothing at this path.\n").into_response()
}

async fn not_allowed() -> Response {
    (StatusCode::METHOD_NOT_ALLOWED, TEXT, "This path has no such method.\n").into_response()
}

/// A body of this many bytes of the pattern. It allocates nothing, however many bytes are asked for.
struct Pattern {
    rest: u64,
}

impl http_body::Body for Pattern {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.rest == 0 {
            return Poll::Ready(None);
        }
        // Each piece except the last one has the full length, so the next piece begins with the first letter again.
        let length = self.rest.min(PATTERN.len() as u64);
        self.rest -= length;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&PATTERN[..length as usize])))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest)
    }
}
