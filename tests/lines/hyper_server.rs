//! A hyper server over TLS. Handshakes run concurrently, and their number and their time are limited. SIGINT begins a
//! drain, which has a limit too.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bowline::ServerTls;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use crate::{DRAIN, Error, HANDSHAKE, HANDSHAKES};

async fn answer<B>(_: Request<B>) -> Result<Response<String>, Infallible> {
    Ok(Response::new("hello".to_owned()))
}

pub async fn bowline(tls: ServerTls) -> Result<(), Error> {
    use ::bowline::hyper::Server;
    use ::bowline::{Listener, TlsListener};
    // lines: hyper server, bowline
    let listener = TlsListener::new(Listener::bind("0.0.0.0:443").await?, tls);
    let group = listener.group().clone();
    tokio::spawn(async move { Server::new().serve(listener, service_fn(answer)).await });
    tokio::signal::ctrl_c().await?;
    println!("{}", group.drain(DRAIN).await);
    // end
    Ok(())
}

pub async fn tokio_rustls(acceptor: TlsAcceptor) -> Result<(), Error> {
    // lines: hyper server, tokio-rustls
    let listener = TcpListener::bind("0.0.0.0:443").await?;
    let (places, graceful) = (Arc::new(Semaphore::new(HANDSHAKES)), GracefulShutdown::new());
    let mut signal = pin!(tokio::signal::ctrl_c());
    loop {
        let place = places.clone().acquire_owned().await?;
        let tcp = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((tcp, _)) => tcp,
                Err(_) => {
                    sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            _ = &mut signal => break,
        };
        let (acceptor, watcher) = (acceptor.clone(), graceful.watcher());
        tokio::spawn(async move {
            tcp.set_nodelay(true)?;
            let tls = timeout(HANDSHAKE, acceptor.accept(tcp)).await??;
            drop(place);
            let http = Builder::new(TokioExecutor::new());
            let serving = http.serve_connection(TokioIo::new(tls), service_fn(answer)).into_owned();
            watcher.watch(serving).await
        });
    }
    drop(listener);
    timeout(DRAIN, graceful.shutdown()).await?;
    // end
    Ok(())
}

/// tls-listener limits the time of a handshake, but not the number of handshakes.
pub async fn tls_listener(acceptor: TlsAcceptor) -> Result<(), Error> {
    // lines: hyper server, tls-listener
    let mut listener = tls_listener::TlsListener::new(acceptor, TcpListener::bind("0.0.0.0:443").await?);
    let graceful = GracefulShutdown::new();
    let mut signal = pin!(tokio::signal::ctrl_c());
    loop {
        let tls = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((tls, _)) => tls,
                Err(tls_listener::Error::ListenerError(_)) => {
                    sleep(Duration::from_millis(100)).await;
                    continue;
                }
                Err(_) => continue,
            },
            _ = &mut signal => break,
        };
        let watcher = graceful.watcher();
        tokio::spawn(async move {
            let http = Builder::new(TokioExecutor::new());
            let serving = http.serve_connection(TokioIo::new(tls), service_fn(answer)).into_owned();
            watcher.watch(serving).await
        });
    }
    drop(listener);
    timeout(DRAIN, graceful.shutdown()).await?;
    // end
    Ok(())
}
