//! TLS configuration: safe by default, short to write.
//!
//! [`ServerTls`] and [`ClientTls`] are built from files, bytes or DER, and are cheap to clone. Mistakes with
//! certificates and keys are found when the configuration is built, not in the first handshake, and the error names the
//! file ([`ConfigError`]). A problem that does not stop the configuration from working is a [`ConfigWarning`].
//!
//! ```no_run
//! use bowline::{ClientTls, ServerTls};
//!
//! let server = ServerTls::builder().identity_pem_files("server.pem", "server.key").alpn(["h2", "http/1.1"]).build()?;
//! for warning in server.warnings().iter() {
//!     eprintln!("{warning}");
//! }
//! let client = ClientTls::builder().roots_pem_file("ca.pem").build()?;
//! # Ok::<(), bowline::Error>(())
//! ```
//!
//! The defaults: TLS 1.2 and 1.3, hybrid post-quantum key exchange if the provider has it (rule: secure-9), names
//! checked (rule: secure-8), resumption on, no early data, no key log, and only the given certificates trusted. The
//! crypto provider is the one that you pass, or else the provider of the enabled feature (`aws-lc-rs` is preferred to
//! `ring`). rustls's process-wide default is neither read nor set.
//!
//! For any other setting, [`customize`](ServerTlsBuilder::customize) lends rustls's configuration to a closure, and the
//! rest of the builder stays in effect. A [`rustls::ServerConfig`] or [`rustls::ClientConfig`] in an `Arc` converts
//! with `into()`. Both engines obey its settings, except early data and server data before the client's Finished. These
//! two are turned off in a copy, and the warnings say so (rule: secure-11).

mod blueprint;
mod bound;
mod by_name;
mod cell;
mod choices;
mod client;
mod client_auth;
mod client_sessions;
mod common;
mod directory;
mod fingerprint;
mod identities;
mod identity;
mod in_memory;
mod key_kind;
mod noting;
mod ocsp;
mod passphrase;
mod pem;
mod platform_roots;
mod revocation;
mod server;
mod settings;
mod shared_methods;
#[cfg(feature = "tokio")]
pub(crate) mod start_tls;
mod ticket_keys;
mod ticketer;
mod verify;
mod volume;
#[cfg(feature = "tokio")]
pub(crate) mod watched;
mod x509;

#[cfg(test)]
mod tests;

use std::fmt;
use std::net::Ipv6Addr;
use std::path::PathBuf;

use rustls::pki_types::ServerName;

use crate::error::{ConfigError, ConfigProblem, Error};

pub use client::{ClientTls, ClientTlsBuilder};
pub use client_auth::ClientAuth;
pub use client_sessions::ClientSessions;
pub use identities::{Identity, IdentityInfo};
pub use server::{ServerTls, ServerTlsBuilder};
#[cfg(feature = "tokio")]
pub use ticket_keys::WrapKey;
pub use ticket_keys::{TicketKey, TicketKeySet, TicketKeys};
#[cfg(all(feature = "proxy", feature = "tokio"))]
pub(crate) use x509::common_name;
pub use x509::subject;

/// The supported versions of TLS. Older versions are not supported (rule: secure-9).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    V1_2,
    /// TLS 1.3 (RFC 8446).
    V1_3,
}

impl fmt::Display for TlsVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V1_2 => "TLS 1.2",
            Self::V1_3 => "TLS 1.3",
        })
    }
}

/// A problem in a configuration that works all the same. Meant for a log line.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct ConfigWarning {
    /// The file, if the input was a file.
    pub file: Option<PathBuf>,
    /// The kind of the problem.
    pub kind: WarningKind,
    /// A description, with subject and date.
    pub detail: String,
}

impl fmt::Display for ConfigWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}: ", file.display())?;
        }
        f.write_str(&self.detail)
    }
}

/// The kinds of [`ConfigWarning`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WarningKind {
    /// One of our certificates has expired: peers will refuse it.
    Expired,
    /// One of our certificates is not valid yet, or the clock of this machine is slow.
    NotYetValid,
    /// One of our certificates expires within a week.
    ExpiresSoon,
    /// The server's certificate has no subject alternative name. Clients check only those names, not the common name.
    NoNames,
    /// The certificate is marked as a CA certificate, which is the default of `openssl req -x509`. Many peers refuse
    /// such a certificate from a server or a client.
    MarkedAsCa,
    /// A certificate of the chain is not the issuer of the one before it.
    ChainOrder,
    /// Some root certificates of the platform could not be loaded.
    PlatformRoots,
    /// A file of root certificates also holds a revocation list, but no revocation list was given: the list is not
    /// used.
    UnusedList,
    /// Two identities of a server have the same name and the same kind of key: the first one is used for the name.
    SharedName,
    /// No client can get an identity of a server: it has no DNS name, and is not the default one.
    NeverUsed,
    /// A file in a directory of identities belongs to no identity.
    NotAnIdentity,
    /// An OCSP response is old, or does not say that the certificate is good.
    OcspResponse,
    /// bowline does not support a setting of a rustls configuration, and has turned it off (rule: secure-11).
    TurnedOff,
}

/// Reads the name of a server: a DNS name or an IP address, as written in a URL or on a command line.
///
/// The brackets of an IPv6 literal and its scope (`[fe80::1%eth0]`) are removed, because certificates do not contain
/// them. The same holds for the final dot of an absolute DNS name. SNI is sent for DNS names only (rule: secure-8).
///
/// # Errors
/// [`ConfigProblem::BadServerName`]. A name outside ASCII must be given in its `xn--` form.
///
/// ```
/// use bowline::config::server_name;
/// use bowline::rustls::pki_types::ServerName;
///
/// assert!(matches!(server_name("example.com")?, ServerName::DnsName(_)));
/// assert!(matches!(server_name("[::1]")?, ServerName::IpAddress(_)));
/// # Ok::<(), bowline::Error>(())
/// ```
#[doc(alias = "server_hostname")]
pub fn server_name(name: &str) -> Result<ServerName<'static>, Error> {
    let bad = || fail(None, ConfigProblem::BadServerName(name.to_owned()));
    let bracketed = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let unscoped = without_scope(bracketed.unwrap_or(name));
    if bracketed.is_some() && unscoped.parse::<Ipv6Addr>().is_err() {
        return Err(bad());
    }
    ServerName::try_from(unscoped.to_owned()).map_err(|_| bad())
}

fn without_scope(name: &str) -> &str {
    match name.split_once('%') {
        Some((address, scope)) if !scope.is_empty() && address.parse::<Ipv6Addr>().is_ok() => address,
        _ => name,
    }
}

fn fail(file: Option<PathBuf>, problem: ConfigProblem) -> Error {
    ConfigError::new(file, problem).into()
}
