//! The listener whose clients ask for TLS in plaintext first, by a dialogue such as STARTTLS of SMTP. It returns a
//! connection after the dialogue and the handshake.

use super::source::AnyListener;
use super::tls_builder::TlsListenerBuilder;
use super::tls_listener::TlsListener;
use crate::config::ServerTls;
use crate::config::start_tls::StartTls;
use crate::error::{DialogueError, Error, UpgradeError};
use crate::layers::upgradable::UpgradableConnection;
use crate::starttls::Server;
use crate::transport::Transport;

impl TlsListenerBuilder {
    /// Every connection begins in plaintext, with this dialogue, in which the client has to request TLS. The dialogue
    /// and the handshake together have the deadline of the handshake, which counts from accept (rule: accept-6). For
    /// another dialogue, use [`prepare`](Self::prepare).
    ///
    /// ```no_run
    /// # fn serve(listener: bowline::Listener, tls: bowline::ServerTls) {
    /// use bowline::TlsListener;
    /// use bowline::starttls::{Dialogue, Server};
    ///
    /// let dialogue = || Server::new(Dialogue::Smtp).name("mail.example");
    /// let listener = TlsListener::builder().starttls(listener, tls, dialogue);
    /// # }
    /// ```
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn starttls<L: AnyListener>(
        self,
        listener: L,
        tls: ServerTls,
        dialogue: impl Fn() -> Server + Send + Sync + 'static,
    ) -> TlsListener<UpgradableConnection<L::Connection>> {
        self.prepare_by(listener, move |plain, deadline| {
            let (tls, mut dialogue) = (tls.clone(), dialogue());
            async move {
                let mut connection = UpgradableConnection::new(plain);
                match dialogue.negotiate(&mut connection).await {
                    Ok(()) => {}
                    Err(error) => {
                        if matches!(error, Error::Upgrade(UpgradeError::Dialogue(DialogueError::Left))) {
                            // The client has left in order, so it still gets the answer to its last command.
                            connection.close().await;
                        }
                        return Err(error);
                    }
                }
                connection.start_tls_by(StartTls::server(&tls), deadline).await?;
                Ok(connection)
            }
        })
    }
}
