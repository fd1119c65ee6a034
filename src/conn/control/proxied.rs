//! The client of a connection that came through a proxy.

use std::sync::Arc;

use super::Control;
use crate::address::Address;
use crate::proxy::ProxyHeader;

impl Control {
    /// The proxy through which the client has connected: the peer of the socket. `None` if no PROXY header has named
    /// the client; then [`peer_addr`](Self::peer_addr) is the peer of the socket.
    pub fn via(&self) -> Option<Address> {
        self.client().map(|_| self.0.peer.clone())
    }

    /// The PROXY header with which the connection began, once it was
    /// [read](crate::proxy::ProxyProtocol::read).
    pub fn proxy_header(&self) -> Option<&ProxyHeader> {
        self.rare()?.proxied.get().map(|header| &**header)
    }

    /// Whether the header says that this is a connection of the proxy itself: a health check.
    pub(crate) fn is_health_check(&self) -> bool {
        self.proxy_header().is_some_and(ProxyHeader::is_local)
    }

    pub(super) fn client(&self) -> Option<&Address> {
        self.proxy_header()?.source()
    }

    /// A connection begins with one header; a second call changes nothing.
    pub(crate) fn set_proxied(&self, header: Arc<ProxyHeader>) {
        let _ = self.make_rare().proxied.set(header);
    }
}
