//! Makes the configurations of a server: one for the server, and another one for each identity with its own settings.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::server::{ResolvesServerCert, ServerConfig};
use rustls::{KeyLog, SupportedProtocolVersion};

use super::ConfigWarning;
use super::bound::{Sessions, bind};
use super::client_auth::LoadedAuth;
use super::common::{contradiction, turned_off};
use super::noting::Noting;
use crate::error::Error;

/// A change of a configuration by the application.
pub(super) struct Change<C>(pub(super) Arc<dyn Fn(&mut C) + Send + Sync>);

impl<C> Clone for Change<C> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<C> Hash for Change<C> {
    /// The identity of the change: it is different for any two changes that exist at the same time.
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).addr().hash(state);
    }
}

impl<C> fmt::Debug for Change<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Change")
    }
}

/// The settings that all configurations of a server share.
pub(super) struct Blueprint<'a> {
    pub(super) provider: &'a Arc<CryptoProvider>,
    pub(super) versions: &'static [&'static SupportedProtocolVersion],
    pub(super) resolver: Arc<dyn ResolvesServerCert>,
    pub(super) sessions: Arc<Sessions>,
    pub(super) tickets: Option<u8>,
    pub(super) key_log: Option<Arc<dyn KeyLog>>,
    pub(super) changes: &'a [Change<ServerConfig>],
}

impl Blueprint<'_> {
    pub(super) fn make(
        &self,
        auth: &LoadedAuth,
        alpn: Vec<Vec<u8>>,
    ) -> Result<(ServerConfig, Vec<ConfigWarning>), Error> {
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
        if !self.resolves(&config) {
            config.cert_resolver = Arc::new(Noting::new(config.cert_resolver));
        }
        let warnings = turn_off_unsupported(&mut config);
        bind(&mut config, auth.tag);
        Ok((config, warnings))
    }

    /// Whether the application has left the resolver in its place.
    pub(super) fn resolves(&self, config: &ServerConfig) -> bool {
        Arc::ptr_eq(&config.cert_resolver, &self.resolver)
    }
}

/// Turns off what bowline does not support (rule: secure-11).
pub(super) fn turn_off_unsupported(config: &mut ServerConfig) -> Vec<ConfigWarning> {
    let mut warnings = Vec::new();
    if std::mem::take(&mut config.max_early_data_size) > 0 {
        warnings.push(turned_off("max_early_data_size", "early data is never accepted"));
    }
    if std::mem::take(&mut config.send_half_rtt_data) {
        warnings.push(turned_off("send_half_rtt_data", "nothing is sent before the handshake is done"));
    }
    warnings
}
