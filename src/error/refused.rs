//! The failure of a handshake that the application refused.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use super::{Phase, TlsError};

#[derive(Debug)]
struct Refused;

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the application refused the ClientHello")
    }
}

impl StdError for Refused {}

impl TlsError {
    /// The application refused the ClientHello. The alert is still to be sent.
    #[cfg_attr(not(feature = "tokio"), allow(dead_code))]
    pub(crate) fn refused() -> Self {
        let error = rustls::Error::Other(rustls::OtherError(Arc::new(Refused)));
        Self { phase: Phase::Handshake, error, alert_sent: None, not_tls: None }
    }
}
