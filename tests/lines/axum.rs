//! axum over TLS. Handshakes run concurrently and in limited time. SIGINT begins a drain, which is limited too. A
//! handler knows how many certificates the client has sent.

use std::future::IntoFuture;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ::axum::Router;
use ::axum::extract::connect_info::Connected;
use ::axum::extract::{ConnectInfo, Extension};
use ::axum::serve::IncomingStream;
use ::bowline::ServerTls;
use ::tokio_rustls::TlsAcceptor;
use ::tokio_rustls::server::TlsStream;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{sleep, timeout};

use crate::{DRAIN, Error, HANDSHAKE, HANDSHAKES};

pub async fn bowline(tls: ServerTls, app: Router) -> Result<(), Error> {
    use ::bowline::hyper::Server;
    use ::bowline::{Listener, TlsListener};
    // lines: axum, bowline
    let listener = TlsListener::new(Listener::bind("0.0.0.0:443").await?, tls);
    let group = listener.group().clone();
    tokio::spawn(async move { Server::new().serve(listener, TowerToHyperService::new(app)).await });
    tokio::signal::ctrl_c().await?;
    println!("{}", group.drain(DRAIN).await);
    // end
    Ok(())
}

pub mod bowline_handler {
    use super::*;
    use ::bowline::Control;

    // lines: axum certificates, bowline
    pub async fn handler(Extension(control): Extension<Control>) -> String {
        control.tls().map_or(0, |session| session.peer_chain.len()).to_string()
    }
    // end
}

pub async fn axum_server(config: ::axum_server::tls_rustls::RustlsConfig, app: Router) -> Result<(), Error> {
    // lines: axum, axum-server
    let handle = ::axum_server::Handle::new();
    let server = ::axum_server::bind_rustls(SocketAddr::from(([0, 0, 0, 0], 443)), config).handle(handle.clone());
    let serving = tokio::spawn(server.serve(app.into_make_service()));
    tokio::signal::ctrl_c().await?;
    handle.graceful_shutdown(Some(DRAIN));
    serving.await??;
    // end
    Ok(())
}

pub mod axum_server_handler {
    use super::*;
    use ::axum_server::tls::TlsInfo;

    // lines: axum certificates, axum-server
    pub async fn handler(Extension(info): Extension<Arc<TlsInfo>>) -> String {
        info.peer_certificates.len().to_string()
    }
    // end
}

pub async fn tls_listener(acceptor: TlsAcceptor, app: Router) -> Result<(), Error> {
    // lines: axum, tls-listener
    let listener = ::tls_listener::TlsListener::new(acceptor, TcpListener::bind("0.0.0.0:443").await?);
    let (drain, drained) = oneshot::channel::<()>();
    let server = ::axum::serve(listener, app).with_graceful_shutdown(async { drop(drained.await) });
    let serving = tokio::spawn(server.into_future());
    tokio::signal::ctrl_c().await?;
    drop(drain);
    timeout(DRAIN, serving).await???;
    // end
    Ok(())
}

pub async fn tokio_rustls(acceptor: TlsAcceptor, app: Router) -> Result<(), Error> {
    // lines: axum, tokio-rustls
    let listener = Handshakes::new(TcpListener::bind("0.0.0.0:443").await?, acceptor)?;
    let (drain, drained) = oneshot::channel::<()>();
    let server = ::axum::serve(listener, app).with_graceful_shutdown(async { drop(drained.await) });
    let serving = tokio::spawn(server.into_future());
    tokio::signal::ctrl_c().await?;
    drop(drain);
    timeout(DRAIN, serving).await???;
    // end
    Ok(())
}

// lines: axum, tokio-rustls
pub struct Handshakes {
    ready: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    local_addr: SocketAddr,
}

impl Handshakes {
    pub fn new(listener: TcpListener, acceptor: TlsAcceptor) -> io::Result<Self> {
        let local_addr = listener.local_addr()?;
        let (is_ready, ready) = mpsc::channel(1);
        let places = Arc::new(Semaphore::new(HANDSHAKES));
        tokio::spawn(async move {
            while let Ok(place) = places.clone().acquire_owned().await {
                let (tcp, peer) = tokio::select! {
                    accepted = listener.accept() => match accepted {
                        Ok(accepted) => accepted,
                        Err(_) => {
                            sleep(Duration::from_millis(100)).await;
                            continue;
                        }
                    },
                    () = is_ready.closed() => break,
                };
                let (acceptor, is_ready) = (acceptor.clone(), is_ready.clone());
                tokio::spawn(async move {
                    if let Ok(Ok(tls)) = timeout(HANDSHAKE, acceptor.accept(tcp)).await {
                        let _ = is_ready.send((tls, peer)).await;
                    }
                    drop(place);
                });
            }
        });
        Ok(Self { ready, local_addr })
    }
}

impl ::axum::serve::Listener for Handshakes {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        match self.ready.recv().await {
            Some(ready) => ready,
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local_addr)
    }
}
// end

pub mod tokio_rustls_handler {
    use super::*;

    // lines: axum certificates, tokio-rustls
    #[derive(Clone)]
    pub struct Certificates(usize);

    impl Connected<IncomingStream<'_, Handshakes>> for Certificates {
        fn connect_info(stream: IncomingStream<'_, Handshakes>) -> Self {
            Self(stream.io().get_ref().1.peer_certificates().map_or(0, <[_]>::len))
        }
    }

    pub async fn handler(ConnectInfo(certificates): ConnectInfo<Certificates>) -> String {
        certificates.0.to_string()
    }
    // end
}
