//! Listeners and facts of connections for axum.

use std::future::pending;
use std::io;

use ::axum::extract::connect_info::Connected;
use ::axum::serve::{IncomingStream, Listener as AxumListener};

use crate::address::Address;
use crate::conn::control::Control;
use crate::layers::tcp::TcpConnection;
use crate::server::listener::Listener;
use crate::server::tls_listener::TlsListener;
use crate::transport::Transport;
use crate::transport::lingering::Lingering;

/// `axum::serve` accepts connections from this listener. Each connection ends with a complete close ([`Lingering`]).
///
/// axum's trait has no way to report that a listener has ended: after a drain has begun, `accept` waits forever. So end
/// `axum::serve` with `with_graceful_shutdown` and [`DrainGroup::draining`](crate::DrainGroup::draining). `accept` also
/// waits forever if the listening socket is no longer usable.
/// [`Observer::accept_failed`](crate::Observer::accept_failed) reports this, with the fault
/// [`Listener`](crate::AcceptFault::Listener).
impl<C: Transport> AxumListener for TlsListener<C> {
    type Io = Lingering<C>;
    type Addr = Address;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match Self::accept(self).await {
            Ok(connection) => with_peer(connection),
            Err(_) => pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Address> {
        Ok(Self::local_addr(self))
    }
}

/// `axum::serve` accepts connections in plaintext from this listener: see the implementation for [`TlsListener`].
///
/// If the listener expects PROXY headers, use [`TlsListenerBuilder::plaintext`](crate::TlsListenerBuilder::plaintext)
/// instead: it reads the headers concurrently. Here, the next connection waits for the header of the one before.
impl AxumListener for Listener {
    type Io = Lingering<TcpConnection>;
    type Addr = Address;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            match Self::accept(self).await {
                Ok(incoming) => {
                    // The failure of one connection affects no other connection.
                    if let Ok(connection) = incoming.begin_plaintext().await {
                        return with_peer(connection);
                    }
                }
                Err(_) => pending().await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<Address> {
        Ok(Self::local_addr(self))
    }
}

fn with_peer<T: Transport>(connection: T) -> (Lingering<T>, Address) {
    let peer = connection.peer_addr();
    (Lingering::new(connection), peer)
}

/// A handler gets the handle of its connection as `ConnectInfo<Control>`, if the application is served with
/// `into_make_service_with_connect_info::<Control>()`. The handle has the address of the peer or of the client that a
/// PROXY header names ([`peer_addr`](Control::peer_addr)), the session with the client's certificates
/// ([`tls`](Control::tls)), and [`busy`](Control::busy).
impl<C: Transport> Connected<IncomingStream<'_, TlsListener<C>>> for Control {
    fn connect_info(stream: IncomingStream<'_, TlsListener<C>>) -> Self {
        stream.io().control()
    }
}

/// As for a [`TlsListener`].
impl Connected<IncomingStream<'_, Listener>> for Control {
    fn connect_info(stream: IncomingStream<'_, Listener>) -> Self {
        stream.io().control()
    }
}
