//! Makes the configurations of a server: one, and one more for each identity with its own settings.

use std::fmt;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::server::{ResolvesServerCert, ServerConfig};
use rustls::{KeyLog, SupportedProtocolVersion};

use super::bound::{Sessions, bind};
use super::client_auth::LoadedAuth;
use super::common::contradiction;
use crate::error::Error;

/// A change of a configuration by the application.
#[derive(Clone)]
pub(super) struct Change(pub(super) Arc<dyn Fn(&mut ServerConfig) + Send + Sync>);

impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Change")
    }
}

/// What all configurations of a server have in common.
pub(super) struct Blueprint<'a> {
    pub(super) provider: &'a Arc<CryptoProvider>,
    pub(super) versions: &'static [&'static SupportedProtocolVersion],
    pub(super) resolver: Arc<dyn ResolvesServerCert>,
    pub(super) sessions: Arc<Sessions>,
    pub(super) tickets: Option<u8>,
    pub(super) key_log: Option<Arc<dyn KeyLog>>,
    pub(super) changes: &'a [Change],
}

impl Blueprint<'_> {
    pub(super) fn make(&self, auth: &LoadedAuth, alpn: Vec<Vec<u8>>) -> Result<ServerConfig, Error> {
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(self.versions)
            .map_err(|error| contradiction(error.to_string()))?
            .with_client_cert_verifier(auth.verifier.clone())
            .with_cert_resolver(self.resolver.clone());
        config.alpn_protocols = alpn;
        if let Some(count) = self.tickets {
            config.send_tls13_tickets = count.into();
        }
        if let Some(key_log) = &self.key_log {
            config.key_log = key_log.clone();
        }
        config.ticketer = self.sessions.clone();
        config.session_storage = self.sessions.clone();
        for Change(change) in self.changes {
            change(&mut config);
        }
        bind(&mut config, auth.tag);
        Ok(config)
    }
}
