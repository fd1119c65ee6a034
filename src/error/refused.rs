//! The failure of a handshake that this side refused by the ClientHello.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use super::{Phase, TlsError};

#[derive(Debug)]
enum Refused {
    ByApplication,
    UnknownName(String),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ByApplication => f.write_str("the application refused the ClientHello"),
            Self::UnknownName(name) => write!(f, "the client asks for {name:?}, and no identity has this name"),
        }
    }
}

impl StdError for Refused {}

impl TlsError {
    /// Whether the application refused the ClientHello.
    #[cfg(feature = "metrics")]
    pub(crate) fn is_refused(&self) -> bool {
        matches!(&self.error, rustls::Error::Other(other) if other.0.is::<Refused>())
    }

    /// The application refused the ClientHello. The alert is still to be sent.
    #[cfg_attr(not(feature = "tokio"), allow(dead_code))]
    pub(crate) fn refused() -> Self {
        Refused::ByApplication.into()
    }

    /// No identity of the server has the name. The alert is still to be sent.
    pub(crate) fn unknown_name(name: &str) -> Self {
        Refused::UnknownName(name.to_owned()).into()
    }
}

impl From<Refused> for TlsError {
    fn from(refused: Refused) -> Self {
        let error = rustls::Error::Other(rustls::OtherError(Arc::new(refused)));
        Self { phase: Phase::Handshake, error, alert_sent: None, not_tls: None }
    }
}
