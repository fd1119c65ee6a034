//! A configuration, with the facts that the crate needs about it.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;

use super::blueprint::Change;
use super::bound::Sessions;
use super::choices::Choices;
use super::fingerprint::Fingerprint;
use super::{ConfigWarning, IdentityInfo};
use crate::core::engine::EngineKind;

/// A configuration. `C` is rustls's configuration of the role.
pub(super) struct Settings<C> {
    pub(super) config: Arc<C>,
    pub(super) own: Option<Arc<[CertificateDer<'static>]>>,
    pub(super) warnings: Arc<[ConfigWarning]>,
    /// The identities of a server that was made from identities.
    pub(super) identities: Arc<[IdentityInfo]>,
    /// Set if the configuration of a server depends on the name that the client asks for.
    pub(super) choices: Option<Arc<Choices>>,
    pub(super) engine: EngineKind,
    /// Counts the configurations that a `ServerTls` or `ClientTls` has had, from 1.
    pub(super) generation: u64,
    /// The contents from which it was made. `None` if they are unknown, because the configuration came from rustls.
    pub(super) contents: Option<Fingerprint>,
    /// The tickets of a server that was made from identities.
    pub(super) sessions: Option<Arc<Sessions>>,
    /// Kept alive, because `contents` distinguishes changes by their addresses.
    pub(super) changes: Arc<[Change<C>]>,
}

impl<C> Clone for Settings<C> {
    fn clone(&self) -> Self {
        Self {
            config: Arc::clone(&self.config),
            own: self.own.clone(),
            warnings: Arc::clone(&self.warnings),
            identities: Arc::clone(&self.identities),
            choices: self.choices.clone(),
            sessions: self.sessions.clone(),
            changes: Arc::clone(&self.changes),
            ..*self
        }
    }
}

impl<C> Settings<C> {
    pub(super) fn new(
        config: impl Into<Arc<C>>,
        own: Option<Arc<[CertificateDer<'static>]>>,
        warnings: Vec<ConfigWarning>,
    ) -> Self {
        Self {
            config: config.into(),
            own,
            warnings: warnings.into(),
            identities: Arc::default(),
            choices: None,
            sessions: None,
            changes: Arc::default(),
            engine: EngineKind::default(),
            generation: 1,
            contents: None,
        }
    }
}
