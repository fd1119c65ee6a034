//! The start of a TLS connection, before there is a TLS layer: reads the ClientHello, and refuses it.

use std::future::poll_fn;

use tokio::io::AsyncWriteExt;

use super::TcpConnection;
use crate::conn::time::{FAREWELL, after, until};
use crate::core::alert::{Alert, alert_record};
use crate::core::client_hello::{ClientHello, ClientHelloReader};
use crate::core::report::CloseReport;
use crate::error::{Error, Phase, Reason, TlsError};
use crate::transport::Transport;
use crate::transport::layer::{AsLayer, Discard, Layer, TOKEN};

impl TcpConnection {
    /// Waits for the ClientHello of a TLS client, and reads it without removing it: a TLS server on this connection, or
    /// the server to which the connection is forwarded, gets the same bytes (rule: hello-1).
    ///
    /// There is no deadline: use [`Incoming::client_hello`](crate::Incoming::client_hello), or a timeout of your own.
    /// The message may occupy at most 64 KiB.
    ///
    /// # Errors
    /// [`Reason::Tls`]: the peer does not speak TLS (see [`TlsError::not_tls`]), or the message is malformed
    /// or too long. The connection is still open and its bytes are unread, so the application can answer in plaintext
    /// or with [`refuse_tls`](Self::refuse_tls). [`Reason::Truncated`]: the peer ended its half before the message was
    /// complete. In all of these cases, the peer is to blame. Any other error is the reason why the connection has
    /// ended.
    ///
    /// # Cancel safety
    /// Cancel safe: received bytes stay in the connection.
    pub async fn client_hello(&mut self) -> Result<ClientHello, Error> {
        let mut reader = ClientHelloReader::default();
        loop {
            match reader.read(self.unread()) {
                Ok(Some(hello)) => return Ok(hello),
                Ok(None) => {}
                Err(error) => return Err(Reason::from(error).into()),
            }
            if !self.read_more().await? {
                return Err(Reason::Truncated(Phase::Handshake).into());
            }
        }
    }

    /// Refuses a TLS client: sends this alert, ends the connection, and reads the client's remaining bytes for a short
    /// time, so that the alert reaches the client. Takes at most one second, and at most
    /// [`Policy::close_timeout`](crate::Policy::close_timeout).
    ///
    /// `unrecognized_name` (RFC 6066 section 3) is the alert for an unknown host name, `no_application_protocol` (RFC
    /// 7301 section 3.2) for ALPN, `protocol_version` for a version, and `access_denied` or `handshake_failure` for
    /// anything else (RFC 8446 section 6.2).
    ///
    /// The reason of the connection is then [`Reason::Tls`] (rule: hello-3).
    ///
    /// # Cancel safety
    /// Dropping the future drops the connection; the client may not get the alert then.
    pub async fn refuse_tls(self, alert: Alert) -> CloseReport {
        self.fail_tls(TlsError::refused(), alert).await
    }

    /// Ends the connection with this error and this alert.
    pub(crate) async fn fail_tls(mut self, error: TlsError, alert: Alert) -> CloseReport {
        let reason = Reason::from(TlsError { alert_sent: Some(alert), ..error });
        let control = Layer::control(&self).clone();
        control.note_handshake_failed(&reason);
        control.note_reason(&reason);
        let bound = control.policy().close_timeout.map_or(FAREWELL, |bound| bound.min(FAREWELL));
        let _ = until(after(Some(bound)), self.send_last(&alert_record(alert))).await;
        self.release(&reason);
        control.set_report(CloseReport::of(reason)).clone()
    }

    /// Sends the last bytes and FIN, and discards what the peer sends until its own end.
    async fn send_last(&mut self, last: &[u8]) {
        if self.write_all(last).await.is_ok() && self.close_write().await.is_ok() {
            let limit = self.layer(TOKEN).control().policy().close_discard;
            let mut discarded = Discard { bytes: 0, limit };
            poll_fn(|cx| self.poll_discard(cx, &mut discarded)).await;
        }
    }
}
