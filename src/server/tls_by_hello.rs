//! Ready connections. The application chooses the configuration of each of them by its ClientHello.

use std::future::Future;
use std::sync::Arc;

use super::listener::Listener;
use super::tls_builder::TlsListenerBuilder;
use super::tls_listener::TlsListener;
use crate::config::ServerTls;
use crate::core::alert::{Alert, alert_for};
use crate::core::client_hello::ClientHello;
use crate::error::{Error, Reason};
use crate::layers::tcp::TcpConnection;
use crate::layers::tls::TlsConnection;

impl TlsListenerBuilder {
    /// Every connection uses TLS from its first byte. `choose` gets the ClientHello, and returns either the
    /// configuration for the connection, or the alert that refuses the client (rules: hello-1, hello-3). `choose` may
    /// wait, for example for a database; the deadline of the handshake includes this wait.
    ///
    /// ```no_run
    /// # fn serve(listener: bowline::Listener, shop: bowline::ServerTls, other: bowline::ServerTls) {
    /// use bowline::TlsListener;
    /// use bowline::rustls::AlertDescription;
    ///
    /// let listener = TlsListener::builder().tls_by_hello(listener, move |hello| {
    ///     let tls = match hello.server_name() {
    ///         Some("shop.example") => Ok(shop.clone()),
    ///         Some(_) => Err(AlertDescription::UnrecognisedName),
    ///         None => Ok(other.clone()),
    ///     };
    ///     std::future::ready(tls)
    /// });
    /// # }
    /// ```
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    #[doc(alias = "GetConfigForClient")]
    #[doc(alias = "LazyConfigAcceptor")]
    pub fn tls_by_hello<F>(
        self,
        listener: Listener,
        choose: impl Fn(ClientHello) -> F + Send + Sync + 'static,
    ) -> TlsListener
    where
        F: Future<Output = Result<ServerTls, Alert>> + Send,
    {
        let choose = Arc::new(choose);
        self.prepare_by(listener, move |mut tcp, deadline| {
            let choose = Arc::clone(&choose);
            async move {
                let hello = match tcp.client_hello().await {
                    Ok(hello) => hello,
                    Err(Error::Ended(Reason::Tls(error))) => {
                        let alert = alert_for(&error.error).unwrap_or(Alert::HandshakeFailure);
                        return Err(tcp.fail_tls((*error).clone(), alert).await.reason.into());
                    }
                    Err(error) => return Err(error),
                };
                let tls = match choose(hello).await {
                    Ok(tls) => tls,
                    Err(alert) => return Err(tcp.refuse_tls(alert).await.reason.into()),
                };
                let mut connection: TlsConnection<TcpConnection> = TlsConnection::server(tcp, &tls)?;
                connection.handshake_by(deadline).await?;
                Ok(connection)
            }
        })
    }
}
