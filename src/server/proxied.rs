//! Reads the PROXY header at the start of an accepted connection.

use std::net::IpAddr;
use std::sync::Arc;

use crate::address::Address;
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
        let peer = connection.peer_addr();
        let expected = self.expected_from(peer_ip(&peer));
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

fn peer_ip(peer: &Address) -> Option<IpAddr> {
    Some(peer.as_inet()?.ip())
}

async fn read_header(connection: &mut TcpConnection, must: bool) -> Result<Option<ProxyHeader>, Error> {
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
