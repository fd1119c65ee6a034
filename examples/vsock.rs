//! TLS over vsock, the sockets between a virtual machine and its host: any `AsyncRead + AsyncWrite` is a transport by
//! `Stream`.
//!
//! ```sh
//! cargo run --example vsock
//! ```
//!
//! Both ends are here, joined by the kernel's loopback (`modprobe vsock_loopback`). Between a machine and its host,
//! only the context id in `connect` differs: 2 is the host.

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("vsock: this example is for Linux");
}

#[cfg(target_os = "linux")]
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), bowline::Error> {
    use bowline::{TlsConnection, Transport};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let (client, server) = match linux::pair().await {
        Ok(pair) => pair,
        Err(error) => {
            eprintln!("vsock: this kernel has no vsock loopback: {error}");
            return Ok(());
        }
    };
    println!("{} and {}", client.local_addr(), server.local_addr());
    let pki = bowline::testing::pki::Pki::new();
    let (server_tls, client_tls) = (pki.server_tls(), pki.client_tls());
    let (client, server) = tokio::join!(
        TlsConnection::connect(client, &client_tls, "localhost"),
        TlsConnection::accept(server, &server_tls),
    );
    let (mut client, mut server) = (client?, server?);
    client.write_all(b"hello").await?;
    client.close_write().await?;
    let mut heard = String::new();
    server.read_to_string(&mut heard).await?;
    println!("{heard}");
    let (ours, theirs) = tokio::join!(client.close(), server.close());
    println!("{ours}\n{theirs}");
    Ok(())
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io::{self, Read, Write};
    use std::net::Shutdown;
    use std::pin::Pin;
    use std::task::{Context, Poll, ready};

    use bowline::{Address, Policy, Stream};
    use socket2::{Domain, SockAddr, Socket, Type};
    use tokio::io::unix::AsyncFd;
    use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

    /// The context id of this system itself, and any free port: see vsock(7).
    const LOCAL: u32 = 1;
    const ANY: u32 = u32::MAX;

    /// The two ends of a connection over the loopback.
    pub(crate) async fn pair() -> io::Result<(Stream<Vsock>, Stream<Vsock>)> {
        let listener = Socket::new(Domain::VSOCK, Type::STREAM, None)?;
        // Without the loopback, this system has no such address, and the bind fails. A connect without it would only
        // time out.
        listener.bind(&SockAddr::vsock(LOCAL, ANY))?;
        listener.listen(1)?;
        let (_, port) = listener.local_addr()?.as_vsock_address().ok_or(io::ErrorKind::Unsupported)?;
        let client = Socket::new(Domain::VSOCK, Type::STREAM, None)?;
        client.connect(&SockAddr::vsock(LOCAL, port))?;
        let (server, _) = listener.accept()?;
        Ok((stream(client)?, stream(server)?))
    }

    /// tokio wakes tasks without holding a lock (`wakes_unlocked`), and the kernel delivers written bytes without
    /// further calls (`delivers_at_once`).
    fn stream(socket: Socket) -> io::Result<Stream<Vsock>> {
        let name = |addr: SockAddr| {
            let (cid, port) = addr.as_vsock_address().unwrap_or_default();
            Address::Other(format!("vsock:{cid}:{port}"))
        };
        let (host, peer) = (name(socket.local_addr()?), name(socket.peer_addr()?));
        socket.set_nonblocking(true)?;
        // `AsyncFd::register`, which replaces it, is newer than the oldest tokio that this crate supports.
        #[allow(deprecated)]
        let vsock = Vsock(AsyncFd::new(socket)?);
        Ok(Stream::with(vsock, host, peer, Policy::default()).wakes_unlocked().delivers_at_once())
    }

    /// A vsock socket as a stream.
    pub(crate) struct Vsock(AsyncFd<Socket>);

    impl AsyncRead for Vsock {
        fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            loop {
                let mut ready = ready!(self.0.poll_read_ready(cx))?;
                let read = ready.try_io(|socket| socket.get_ref().read(buf.initialize_unfilled()));
                if let Ok(n) = read {
                    buf.advance(n?);
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }

    impl AsyncWrite for Vsock {
        fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            loop {
                let mut ready = ready!(self.0.poll_write_ready(cx))?;
                if let Ok(written) = ready.try_io(|socket| socket.get_ref().write(buf)) {
                    return Poll::Ready(written);
                }
            }
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        /// Ends our half of the connection, by `shutdown`.
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(self.0.get_ref().shutdown(Shutdown::Write))
        }
    }
}
