//! TLS flags of the programs whose endpoints have no TLS arguments.

use bowline::TlsVersion;
use lexopt::Parser;

use crate::common::args::{Usage, text};

/// `a,b,c`
pub(crate) fn list(parser: &mut Parser) -> Result<Vec<String>, Usage> {
    Ok(text(parser)?.split(',').map(str::to_owned).collect())
}

/// `--tls12` and `--tls13`: the only version to use.
pub(crate) fn only(version: &mut Option<TlsVersion>, wanted: TlsVersion) -> Result<(), Usage> {
    match version.replace(wanted) {
        Some(other) if other != wanted => Err(Usage::new("--tls12 and --tls13 cannot be combined")),
        _ => Ok(()),
    }
}

/// Both or none.
pub(crate) fn pair(cert: Option<String>, key: Option<String>) -> Result<Option<(String, String)>, Usage> {
    match (cert, key) {
        (Some(cert), Some(key)) => Ok(Some((cert, key))),
        (None, None) => Ok(None),
        (Some(_), None) => Err(Usage::new("--cert needs --key")),
        (None, Some(_)) => Err(Usage::new("--key needs --cert")),
    }
}
