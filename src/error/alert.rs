//! The alert of a failed TLS session, for logs.

use rustls::Error as TlsFault;

use super::Reason;

impl Reason {
    /// The alert that the peer has sent or, if it sent none, the one that we sent: `received CertificateExpired`.
    pub(crate) fn alert(&self) -> Option<String> {
        let Self::Tls(error) = self else { return None };
        match (&error.error, error.alert_sent) {
            (TlsFault::AlertReceived(alert), _) => Some(format!("received {alert:?}")),
            (_, Some(alert)) => Some(format!("sent {alert:?}")),
            (_, None) => None,
        }
    }
}
