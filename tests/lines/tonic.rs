//! A tonic server over TLS. SIGINT begins a drain, which is limited.

use std::time::Duration;

use ::bowline::ServerTls;
use ::tokio_rustls::TlsAcceptor;
use ::tonic::service::Routes;
use ::tonic::transport::{Server, ServerTlsConfig};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use crate::{DRAIN, Error, HANDSHAKE};

pub async fn bowline(tls: ServerTls, routes: Routes) -> Result<(), Error> {
    use ::bowline::tonic::Incoming;
    use ::bowline::{Listener, TlsListener};
    // lines: tonic, bowline
    let listener = TlsListener::new(Listener::bind("0.0.0.0:443").await?, tls);
    let group = listener.group().clone();
    let drained = {
        let group = group.clone();
        async move { group.draining().await }
    };
    tokio::spawn(Server::builder().add_routes(routes).serve_with_incoming_shutdown(Incoming::new(listener), drained));
    tokio::signal::ctrl_c().await?;
    println!("{}", group.drain(DRAIN).await);
    // end
    Ok(())
}

/// tonic's own TLS. By default, it has no limit for the time of a handshake.
pub async fn tonic(tls: ServerTlsConfig, routes: Routes) -> Result<(), Error> {
    // lines: tonic, tonic
    let (drain, drained) = oneshot::channel::<()>();
    let server = Server::builder().tls_config(tls)?.add_routes(routes);
    let serving = tokio::spawn(server.serve_with_shutdown(([0, 0, 0, 0], 443).into(), async { drop(drained.await) }));
    tokio::signal::ctrl_c().await?;
    drop(drain);
    timeout(DRAIN, serving).await???;
    // end
    Ok(())
}

pub async fn tokio_rustls(acceptor: TlsAcceptor, routes: Routes) -> Result<(), Error> {
    // lines: tonic, tokio-rustls
    let listener = TcpListener::bind("0.0.0.0:443").await?;
    let (is_ready, ready) = mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            let tcp = tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((tcp, _)) => tcp,
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
                    let _ = is_ready.send(tls).await;
                }
            });
        }
    });
    let (drain, drained) = oneshot::channel::<()>();
    let (incoming, drained) = (ReceiverStream::new(ready).map(Ok::<_, Error>), async { drop(drained.await) });
    let serving = Server::builder().add_routes(routes).serve_with_incoming_shutdown(incoming, drained);
    let serving = tokio::spawn(serving);
    tokio::signal::ctrl_c().await?;
    drop(drain);
    timeout(DRAIN, serving).await???;
    // end
    Ok(())
}
