//! A proxy that disturbs a connection as bad networks and middleboxes do.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::direction::{Broken, Direction};
use crate::conn::socket;

/// A proxy on loopback that forwards one connection and disturbs it. It works on bytes, below TLS, so it can cut a
/// record at any offset.
///
/// Commands go to the two directions, [`to_server`](Self::to_server) and [`to_client`](Self::to_client): see
/// [`Direction`]. Without commands, it forwards everything unchanged: FIN as FIN, so that half-closes work through it,
/// and RST as RST.
///
/// It ends by itself when both sides have ended. Dropping it ends the connection on both sides at once.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use bowline::testing::{peer::Meddler, pki::Pki};
/// use bowline::{Connector, Error, Listener, Reason, TlsConnection, Transport};
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// let pki = Pki::new();
/// let (server_tls, client_tls) = (pki.server_tls(), pki.client_tls());
/// let listener = Listener::bind("127.0.0.1:0").await?;
/// let meddler = Meddler::to(listener.local_addr().as_inet().unwrap()).await?;
/// // The connection breaks in the middle of the upload, somewhere inside a record.
/// meddler.to_server().fin_after(50_000);
///
/// let service = tokio::spawn(async move {
///     let mut tls = listener.accept().await?.handshake(&server_tls).await?;
///     let mut upload = Vec::new();
///     let end = tls.read_to_end(&mut upload).await;
///     Ok::<_, Error>((end, upload.len()))
/// });
/// let tcp = Connector::new().connect_addr(meddler.addr()).await?;
/// let mut client = TlsConnection::connect(tcp, &client_tls, "localhost").await?;
/// client.write_all(&[0; 100_000]).await?;
/// client.close_write().await?;
///
/// let (end, length) = service.await??;
/// assert!(matches!(Error::from(end.unwrap_err()).reason(), Some(Reason::Truncated(_))));
/// assert!(length > 30_000 && length < 50_000);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Meddler {
    addr: SocketAddr,
    to_server: Direction,
    to_client: Direction,
    ended: watch::Receiver<bool>,
    task: AbortHandle,
}

impl Meddler {
    /// Listens on loopback, accepts the first connection, and forwards it to this address. It refuses all further
    /// connections.
    ///
    /// # Errors
    /// Panics if it cannot listen.
    pub async fn to(server: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let addr = listener.local_addr()?;
        Ok(Self::spawn(addr, async move {
            let (client, _) = listener.accept().await?;
            drop(listener);
            // If the server refuses the connection, the client sees a connection that ends at once.
            Ok((client, TcpStream::connect(server).await?))
        }))
    }

    /// Forwards between two connected sockets.
    ///
    /// # Errors
    /// Panics if the client's socket no longer has an address.
    pub fn between(client: TcpStream, server: TcpStream) -> io::Result<Self> {
        let addr = client.local_addr()?;
        Ok(Self::spawn(addr, async move { Ok((client, server)) }))
    }

    fn spawn(
        addr: SocketAddr,
        sockets: impl Future<Output = io::Result<(TcpStream, TcpStream)>> + Send + 'static,
    ) -> Self {
        let (to_server, to_client) = (Direction::new(), Direction::new());
        let lanes = (to_server.share(), to_client.share());
        let (has_ended, ended) = watch::channel(false);
        let task = tokio::spawn(async move {
            if let Ok((client, server)) = sockets.await {
                forward(client, server, &lanes.0, &lanes.1).await;
            }
            has_ended.send_replace(true);
        });
        Self { addr, to_server, to_client, ended, task: task.abort_handle() }
    }

    /// The address for the client to connect to.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The direction from the client to the server.
    pub fn to_server(&self) -> &Direction {
        &self.to_server
    }

    /// The direction from the server to the client.
    pub fn to_client(&self) -> &Direction {
        &self.to_client
    }

    /// Waits until both sides have ended.
    pub async fn ended(&self) {
        // An error means that the task is gone, so both sides have ended too.
        let _ = self.ended.clone().wait_for(|ended| *ended).await;
    }
}

impl Drop for Meddler {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward(mut client: TcpStream, mut server: TcpStream, to_server: &Direction, to_client: &Direction) {
    for stream in [&client, &server] {
        // One segment per write. If the peer is already gone, the next call reports it.
        let _ = stream.set_nodelay(true);
    }
    let (client_read, client_write) = client.split();
    let (server_read, server_write) = server.split();
    let both = tokio::try_join!(to_server.run(client_read, server_write), to_client.run(server_read, client_write));
    if let Err(Broken) = both {
        for stream in [&client, &server] {
            socket::Options::of(stream).reset_on_drop();
        }
    }
}
