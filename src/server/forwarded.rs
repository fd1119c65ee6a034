//! The PROXY header that describes an accepted connection to the service to which a proxy forwards it.

use crate::config;
use crate::core::facts::SessionFacts;
use crate::proxy::{ProxyHeader, ProxyTls};
use crate::transport::TlsTransport;

/// The longest common name that is passed on. X.520 allows 64 characters.
const MAX_NAME: usize = 1024;

impl ProxyHeader {
    /// The header that describes this connection of a client, for the service to which a proxy forwards it. It contains
    /// the addresses and, over TLS, the version, the cipher, the requested name (SNI, as authority), ALPN, and the
    /// common name of the client's certificate. If the connection itself began with a header, the destination address
    /// is the one in that header.
    ///
    /// [`EndpointConnector::connect_with_prefix`](crate::EndpointConnector::connect_with_prefix) sends it.
    ///
    /// ```no_run
    /// # async fn serve(client: bowline::BoxConnection) -> Result<(), bowline::Error> {
    /// use bowline::proxy::ProxyHeader;
    /// use bowline::{ClientEndpoint, Policy};
    ///
    /// let endpoint: ClientEndpoint = "tcp:127.0.0.1:8080".parse()?;
    /// let header = ProxyHeader::describing(&client).encode_v2();
    /// let service = endpoint.connector(Policy::default())?.connect_with_prefix(&header).await?;
    /// # drop(service);
    /// # Ok(()) }
    /// ```
    #[doc(alias = "send-proxy-v2-ssl-cn")]
    pub fn describing(connection: &(impl TlsTransport + ?Sized)) -> Self {
        let control = connection.control();
        let destination = control.proxy_header().and_then(|header| header.destination().cloned());
        let header = Self::new(control.peer_addr(), destination.unwrap_or_else(|| control.local_addr()));
        match connection.tls() {
            Some(tls) => header.with_session(&tls),
            None => header,
        }
    }

    fn with_session(mut self, tls: &SessionFacts) -> Self {
        if let Some(alpn) = &tls.alpn {
            self = self.with_alpn(alpn);
        }
        if let Some(sni) = &tls.sni {
            self = self.with_authority(sni);
        }
        let mut told = ProxyTls::new(tls.version_name()).cipher(tls.cipher_name());
        if let Some(cert) = tls.peer_chain.first() {
            // Facts contain only chains that were verified.
            (told.has_certificate, told.had_certificate, told.is_verified) = (!tls.resumed, true, true);
            told.common_name = config::common_name(cert).filter(|name| name.len() <= MAX_NAME);
        }
        self.with_tls(&told)
    }
}
