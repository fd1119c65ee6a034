//! Serves gRPC with tonic.
//!
//! ```ignore
//! use bowline::TlsListener;
//!
//! let listener = TlsListener::new(listener, tls); // tls: ALPN "h2", and for mutual TLS the clients' CA
//! let group = listener.group().clone();
//! let drained = async move { group.draining().await };
//! tonic::transport::Server::builder()
//!     .add_routes(routes)
//!     .serve_with_incoming_shutdown(bowline::tonic::Incoming::new(listener), drained)
//!     .await?;
//! ```
//!
//! A handler gets the handle of its connection from the extensions of the request:
//!
//! ```
//! # fn example(request: tonic::Request<()>) {
//! let control = request.extensions().get::<bowline::Control>();
//! let certificate = control.and_then(|control| control.tls()).and_then(|session| session.peer_chain.first().cloned());
//! # }
//! ```
//!
//! tonic's own `Request::peer_certs` works only for streams of tokio-rustls, because code outside of tonic cannot make
//! the type that it returns. [`addresses`] makes `remote_addr` and `local_addr` work.
//!
//! For a client, pass `HttpConnector` of the feature `hyper` to tonic's `Endpoint::connect_with_connector`.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use ::tonic::transport::server::{Connected, TcpConnectInfo};
use ::tonic::{Request, Status};
use futures_core::Stream;

use crate::conn::control::Control;
use crate::error::Error;
use crate::server::stream::Connections;
use crate::server::tls_listener::TlsListener;
use crate::transport::Transport;
use crate::transport::lingering::Lingering;

/// Requests carry the [`Control`] of their connection in their extensions.
impl<T: Transport> Connected for Lingering<T> {
    type ConnectInfo = Control;

    fn connect_info(&self) -> Control {
        self.control()
    }
}

/// The connections of a [`TlsListener`] as a stream for tonic's `serve_with_incoming`. The stream ends when the
/// listener's group drains. The connections end with a complete close ([`Lingering`]).
pub struct Incoming<C>(Connections<C>);

impl<C: Transport> Incoming<C> {
    /// The connections of this listener.
    pub fn new(listener: TlsListener<C>) -> Self {
        Self(listener.into_stream())
    }
}

impl<C: Transport> Stream for Incoming<C> {
    type Item = Result<Lingering<C>, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.0).poll_next(cx).map(|next| next.map(|accepted| accepted.map(Lingering::new)))
    }
}

impl<C> fmt::Debug for Incoming<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Incoming").field(&self.0).finish()
    }
}

/// An interceptor that makes tonic's `remote_addr` and `local_addr` of a request work. After a PROXY header, the remote
/// address is the client's.
///
/// ```no_run
/// # fn example<S>(service: S) {
/// let service = tonic::service::interceptor::InterceptedService::new(service, bowline::tonic::addresses);
/// # }
/// ```
///
/// # Errors
/// None.
pub fn addresses(mut request: Request<()>) -> Result<Request<()>, Status> {
    if let Some(control) = request.extensions().get::<Control>() {
        let info =
            TcpConnectInfo { local_addr: control.local_addr().as_inet(), remote_addr: control.peer_addr().as_inet() };
        request.extensions_mut().insert(info);
    }
    Ok(request)
}
