//! The ClientHello of an accepted connection, before its configuration is chosen.

use super::incoming::Incoming;
use crate::conn::time::until;
use crate::core::alert::Alert;
use crate::core::client_hello::ClientHello;
use crate::core::report::CloseReport;
use crate::error::{Error, Phase, Reason};
use crate::transport::layer::{AsLayer, TOKEN};

impl Incoming {
    /// Waits for the client's ClientHello, and reads it without removing it (rule: hello-1). Then choose:
    /// [`handshake`](Self::handshake) with any configuration, [`refuse`](Self::refuse), or
    /// [`into_tcp`](Self::into_tcp) and [`relay`](crate::relay()) to a server that does the handshake itself.
    ///
    /// ```no_run
    /// # async fn serve(mut incoming: bowline::Incoming, one: bowline::ServerTls, other: bowline::ServerTls) -> Result<(), bowline::Error> {
    /// use bowline::rustls::AlertDescription;
    ///
    /// let hello = incoming.client_hello().await?;
    /// let tls = match hello.server_name() {
    ///     Some("one.example") => one,
    ///     Some("other.example") => other,
    ///     _ => {
    ///         incoming.refuse(AlertDescription::UnrecognisedName).await;
    ///         return Ok(());
    ///     }
    /// };
    /// let connection = incoming.handshake(&tls).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The errors of [`TcpConnection::client_hello`](crate::TcpConnection::client_hello); [`Reason::TimedOut`] in
    /// [`Phase::Handshake`] at the deadline of the handshake, which counts from accept (rule: secure-5);
    /// [`Error::Draining`] if the group of the listener starts to drain. After the last two the connection has ended.
    ///
    /// # Cancel safety
    /// Cancel safe: received bytes stay in the connection.
    pub async fn client_hello(&mut self) -> Result<ClientHello, Error> {
        self.pass_gate().await?;
        let (control, deadline) = (self.control(), self.deadline());
        let ended = tokio::select! {
            biased;
            () = control.draining(), if !self.finishes => {
                control.abort_unready();
                Err(Error::Draining)
            }
            hello = until(deadline, self.connection_mut().client_hello()) => match hello {
                Some(hello) => return hello,
                None => {
                    let reason = Reason::TimedOut(Phase::Handshake);
                    control.end(reason.clone());
                    Err(reason.into())
                }
            }
        };
        // The connection has failed, so its socket is closed now, although the caller still holds the connection.
        self.connection_mut().layer_mut(TOKEN).release(&Reason::Aborted);
        ended
    }

    /// Refuses the client with this alert: see [`TcpConnection::refuse_tls`](crate::TcpConnection::refuse_tls).
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: dropping it ends the connection, perhaps without the alert.
    pub async fn refuse(self, alert: Alert) -> CloseReport {
        let (_, _unfinished, connection) = self.into_parts();
        connection.refuse_tls(alert).await
    }
}
