//! Loopback sockets, the same for every peer.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use socket2::{Domain, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::peers::Stack;
use crate::spec::Regime;

/// The `SO_SNDBUF` of `hot`. The kernel doubles it.
pub const HOT_SNDBUF: usize = 256 << 10;

/// A listener whose connections inherit the options that are set here.
pub fn listen(regime: Regime) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    prepare(&socket, regime)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    socket.listen(4096)?;
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket.into())
}

/// A client's connection, with no-delay.
pub async fn connect(address: SocketAddr, regime: Regime) -> io::Result<TcpStream> {
    let stream = connect_bare(address, regime).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// An accepted connection, with no-delay.
pub async fn accept(listener: &TcpListener) -> io::Result<TcpStream> {
    let (stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn connect_bare(address: SocketAddr, regime: Regime) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    prepare(&SockRef::from(&socket), regime)?;
    socket.connect(address).await
}

/// Both ends of one connection.
pub async fn pair(listener: &TcpListener, regime: Regime) -> io::Result<(TcpStream, TcpStream)> {
    tokio::try_join!(connect(listener.local_addr()?, regime), accept(listener))
}

/// Both ends of one connection. No-delay is set here only if the peer does not set it itself, because setting it twice
/// would be a cost that no application of that peer has.
pub async fn pair_for<S: Stack>(listener: &TcpListener, regime: Regime) -> io::Result<(TcpStream, TcpStream)> {
    if !S::SETS_NODELAY {
        return pair(listener, regime).await;
    }
    let accept = async { Ok::<_, io::Error>(listener.accept().await?.0) };
    tokio::try_join!(connect_bare(listener.local_addr()?, regime), accept)
}

/// Closes without TIME_WAIT, for measurements that make thousands of connections. Used for every peer.
pub fn reset_on_drop(stream: &TcpStream) -> io::Result<()> {
    SockRef::from(stream).set_linger(Some(std::time::Duration::ZERO))
}

fn prepare(socket: &Socket, regime: Regime) -> io::Result<()> {
    // BBR, which some systems default to, paces bulk on loopback.
    socket.set_tcp_congestion(b"cubic")?;
    if regime == Regime::Hot {
        socket.set_send_buffer_size(HOT_SNDBUF)?;
    }
    Ok(())
}
