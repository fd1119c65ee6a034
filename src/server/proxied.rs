//! Reads the PROXY header at the start of an accepted connection.

use std::io;
use std::sync::Arc;

use crate::error::{Error, Phase, Reason};
use crate::layers::tcp::TcpConnection;
use crate::proxy::{Decoded, Expected, ProxyError, ProxyHeader, ProxyProtocol};
use crate::transport::Transport;

impl ProxyProtocol {
    /// Reads the header at the start of a connection, before the application or TLS reads anything. Call it in
    /// [`Incoming::finish`](crate::Incoming::finish), which gives it the deadline of the handshake.
    ///
    /// If the header contains the client's address, [`peer_addr`](Transport::peer_addr) of the connection is the
    /// client's address from then on, and [`Control::via`](crate::Control::via) the proxy's. The bytes after the header
    /// stay in the connection, and so do the first bytes of a connection without a header.
    ///
    /// ```no_run
    /// # async fn serve(incoming: bowline::Incoming, tls: bowline::ServerTls) -> Result<(), bowline::Error> {
    /// use bowline::proxy::ProxyProtocol;
    /// use bowline::{TlsConnection, Transport};
    ///
    /// let proxy = ProxyProtocol::require("10.0.0.0/8".parse().expect("a network"));
    /// let connection = incoming
    ///     .finish(|mut tcp| async move {
    ///         proxy.read(&mut tcp).await?;
    ///         TlsConnection::accept(tcp, &tls).await
    ///     })
    ///     .await?;
    /// println!("{} by way of {:?}", connection.peer_addr(), connection.control().via());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Proxy`] if the header is malformed, if a required header is missing, or if the peer is not
    /// trusted. The connection is then aborted, as the specification demands. [`Reason::Truncated`] in
    /// [`Phase::Handshake`] if the connection ends within a header. Each of these errors is the peer's fault.
    ///
    /// # Cancel safety
    /// Cancel safe: received bytes stay in the connection.
    pub async fn read(&self, connection: &mut TcpConnection) -> Result<Option<Arc<ProxyHeader>>, Error> {
        self.read_from(connection).await
    }

    /// Whether this connection must, may or must not begin with a header.
    pub(super) fn expected_of(&self, connection: &impl Transport) -> Expected {
        self.expected_from(connection.peer_addr().as_inet().map(|peer| peer.ip()))
    }

    pub(super) async fn read_from(&self, connection: &mut impl Headed) -> Result<Option<Arc<ProxyHeader>>, Error> {
        let (peer, expected) = (connection.peer_addr(), self.expected_of(connection));
        let header = match expected {
            Expected::NoHeader => return Ok(None),
            Expected::Untrusted => Err(ProxyError::Untrusted(peer).into()),
            Expected::Perhaps | Expected::Header => read_header(connection, expected == Expected::Header).await,
        };
        let control = connection.control();
        let header = header.inspect_err(|error| {
            if matches!(error, Error::Proxy(_)) {
                control.abort();
            }
        })?;
        let header = header.map(Arc::new);
        if let Some(header) = &header {
            control.set_proxied(Arc::clone(header));
        }
        Ok(header)
    }
}

async fn read_header(connection: &mut impl Headed, must: bool) -> Result<Option<ProxyHeader>, Error> {
    loop {
        let received = connection.unread();
        match ProxyHeader::decode(received).map_err(ProxyError::Malformed)? {
            Decoded::Complete { header, len } => {
                connection.skip(len);
                return Ok(Some(header));
            }
            Decoded::NotAHeader if must => return Err(ProxyError::missing(received).into()),
            Decoded::NotAHeader => return Ok(None),
            Decoded::Partial => {}
        }
        let is_first = received.is_empty();
        if !connection.read_more().await? {
            // The peer ended its half before the first byte. If no header is required, the application handles this.
            let nothing_owed = is_first && !must;
            return if nothing_owed { Ok(None) } else { Err(Reason::Truncated(Phase::Handshake).into()) };
        }
    }
}

/// An accepted connection that may begin with a header: a TCP connection, or the connection of a Unix socket.
pub(crate) trait Headed: Transport {
    /// Received bytes that nobody has read yet.
    fn unread(&self) -> &[u8];

    /// Removes the first of these bytes.
    fn skip(&mut self, n: usize);

    /// Waits until there are more of these bytes than before. `false`: the peer has ended its half.
    ///
    /// Cancel safe: received bytes stay in the connection.
    fn read_more(&mut self) -> impl Future<Output = io::Result<bool>> + Send;
}

macro_rules! headed {
    ($connection:ty) => {
        impl Headed for $connection {
            fn unread(&self) -> &[u8] {
                self.unread()
            }

            fn skip(&mut self, n: usize) {
                self.skip(n);
            }

            fn read_more(&mut self) -> impl Future<Output = io::Result<bool>> + Send {
                self.read_more()
            }
        }
    };
}

headed!(TcpConnection);
#[cfg(unix)]
headed!(crate::layers::stream::Stream<tokio::net::UnixStream>);
