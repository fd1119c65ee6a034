//! The answers of hyper, and bowline's connections in the ways in which users serve HTTP over them: in `Lingering`, and
//! by `hyper::Server`.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bowline::hyper::Server;
use bowline::{Lingering, TcpConnection, TlsConnection};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::bowline::Bowline;
use super::{Facts, Stack};
use crate::error::{Error, Result};
use crate::spec::Http;

/// The answer to each request, which counts them.
#[derive(Clone)]
pub struct Answer {
    pub body: Bytes,
    pub answered: Arc<AtomicU64>,
}

impl Answer {
    fn to<B>(&self, _: &Request<B>) -> Response<Full<Bytes>> {
        self.answered.fetch_add(1, Ordering::Relaxed);
        Response::new(Full::new(self.body.clone()))
    }
}

/// hyper over this stream, as hyper's documentation shows it.
pub async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    http: Http,
    answer: Answer,
) -> Result<()> {
    let answer = move |request: Request<_>| {
        let response = answer.to(&request);
        async move { Ok::<_, Infallible>(response) }
    };
    let (io, service) = (TokioIo::new(stream), service_fn(answer));
    match http {
        Http::One => http1::Builder::new().serve_connection(io, service).await?,
        Http::Two => http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await?,
    }
    Ok(())
}

/// A connection in `Lingering`.
#[derive(Clone)]
pub struct Lingered(pub Bowline);

impl Stack for Lingered {
    type Stream = Lingering<TlsConnection<TcpConnection>>;
    const FLUSHES: bool = false;
    const SETS_NODELAY: bool = true;
    const SETS_DEADLINE: bool = true;

    async fn connect(&self, tcp: TcpStream) -> Result<Self::Stream> {
        Ok(Lingering::new(self.0.connect(tcp).await?))
    }

    async fn accept(&self, tcp: TcpStream) -> Result<Self::Stream> {
        Ok(Lingering::new(self.0.accept(tcp).await?))
    }

    fn facts(stream: &Self::Stream) -> Option<Facts> {
        Bowline::facts(stream.get_ref())
    }
}

/// A connection that `hyper::Server` serves.
#[derive(Clone)]
pub struct Served(pub Bowline);

impl Stack for Served {
    type Stream = TlsConnection<TcpConnection>;
    const FLUSHES: bool = false;
    const SETS_NODELAY: bool = true;
    const SETS_DEADLINE: bool = true;

    async fn connect(&self, tcp: TcpStream) -> Result<Self::Stream> {
        self.0.connect(tcp).await
    }

    async fn accept(&self, tcp: TcpStream) -> Result<Self::Stream> {
        self.0.accept(tcp).await
    }

    fn facts(stream: &Self::Stream) -> Option<Facts> {
        Bowline::facts(stream)
    }

    async fn serve_http(stream: Self::Stream, _: Http, answer: Answer) -> Result<()> {
        let answer = move |request: Request<_>| {
            let response = answer.to(&request);
            async move { Ok::<_, Infallible>(response) }
        };
        Server::new().connection(stream, service_fn(answer)).await.map_err(Error::from)
    }
}
