//! The builder of a server after all of its files were read.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::server::{ResolvesServerCert, ServerConfig};

use super::blueprint::{Blueprint, Change};
use super::by_name::ByName;
use super::choices::Choices;
use super::client_auth::{ClientAuth, LoadedAuth};
use super::common::{Common, checked_alpn, contradiction};
use super::fingerprint::Fingerprint;
use super::identities::{self, Identity, IdentityInfo, Loaded};
use super::noting::Noting;
use super::settings::Settings;
use super::ticketer::Ticketer;
use super::{ConfigWarning, fail};
use crate::error::{ConfigProblem, Error};

/// A builder, after all of its files were read.
pub(super) struct InMemory {
    pub(super) common: Common,
    /// If the builder itself has an identity, it comes first.
    pub(super) identities: Vec<Identity>,
    pub(super) warnings: Vec<ConfigWarning>,
    pub(super) default_identity: Option<String>,
    /// See [`ServerTlsBuilder::refuse_unknown_names`](super::ServerTlsBuilder::refuse_unknown_names).
    pub(super) refuse_unknown_names: bool,
    pub(super) client_auth: ClientAuth,
    pub(super) tickets: Option<u8>,
    pub(super) ticketer: Ticketer,
    pub(super) resolver: Option<Arc<dyn ResolvesServerCert>>,
    pub(super) changes: Vec<Change<ServerConfig>>,
}

impl Hash for InMemory {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.common, &self.identities, &self.warnings, &self.default_identity).hash(state);
        (self.refuse_unknown_names, &self.client_auth, self.tickets).hash(state);
        self.ticketer.hash(state);
        self.resolver.as_ref().map(|resolver| Arc::as_ptr(resolver).addr()).hash(state);
        self.changes.hash(state);
    }
}

impl InMemory {
    /// Checks everything and makes the configuration, with rustls's own engine.
    pub(super) fn settings(&self) -> Result<Settings<ServerConfig>, Error> {
        let provider = self.common.provider()?;
        let mut warnings = self.warnings.clone();
        let loaded = self.load_identities(&provider)?;
        let mut identities = identities::describe(&loaded)?;
        let default = self.number_of_default(&identities)?;
        if let Some(default) = identities.get_mut(default) {
            default.is_default = true;
        }
        let own = identities.get(default).map(|default| Arc::clone(&default.chain));
        let (by_name, of_names) = ByName::new(&loaded, &identities, default);
        warnings.extend(loaded.iter().flat_map(|loaded| loaded.warnings.iter().cloned()));
        warnings.extend(of_names);
        let by_name = Arc::new(by_name);
        let auth = self.client_auth.load(&provider)?;
        warnings.extend(auth.warnings.iter().cloned());
        let own_auths = own_auths(&loaded, &provider, &mut warnings)?;
        let sessions = Arc::new(self.ticketer.sessions(&self.common, &provider)?);
        let blueprint = Blueprint {
            provider: &provider,
            versions: self.common.versions()?,
            resolver: match &self.resolver {
                Some(resolver) => Arc::new(Noting::new(resolver.clone())),
                None => by_name.clone(),
            },
            sessions: Arc::clone(&sessions),
            tickets: self.tickets,
            key_log: self.common.key_log(),
            changes: &self.changes,
        };
        let alpn = checked_alpn(&self.common.alpn)?;
        let (config, of_changes) = blueprint.make(&auth, alpn.clone())?;
        warnings.extend(of_changes);
        let own = own.filter(|_| blueprint.resolves(&config));
        let mut configs = Vec::new();
        for (loaded, own_auth) in loaded.iter().zip(&own_auths) {
            configs.push(match (&loaded.alpn, own_auth) {
                (None, None) => None,
                (own_alpn, own_auth) => {
                    let alpn = own_alpn.as_deref().map(checked_alpn).transpose()?.unwrap_or_else(|| alpn.clone());
                    Some(Arc::new(blueprint.make(own_auth.as_ref().unwrap_or(&auth), alpn)?.0))
                }
            });
        }
        let choices = Choices { by_name, own: configs, refuses_unknown: self.refuse_unknown_names };
        let mut settings = Settings::new(config, own, warnings);
        settings.identities = identities.into();
        settings.choices = choices.is_needed().then(|| Arc::new(choices));
        settings.contents = Some(Fingerprint::of(self));
        settings.changes = self.changes.clone().into();
        settings.sessions = Some(sessions);
        Ok(settings)
    }

    /// All identities, in order. There is at least one, unless the application has a resolver.
    fn load_identities(&self, provider: &CryptoProvider) -> Result<Vec<Loaded>, Error> {
        let needs_identities = self.refuse_unknown_names || self.default_identity.is_some();
        match (&self.resolver, &self.identities[..]) {
            (None, []) => Err(fail(None, ConfigProblem::NoIdentity)),
            (None, all) => all.iter().map(|identity| identity.load(provider, &self.common.passphrase)).collect(),
            (Some(_), []) if needs_identities => {
                Err(contradiction("a default identity, or to refuse unknown names, needs identities and no resolver"))
            }
            (Some(_), []) => Ok(Vec::new()),
            (Some(_), _) => Err(contradiction("a certificate resolver takes the place of all identities")),
        }
    }

    fn number_of_default(&self, identities: &[IdentityInfo]) -> Result<usize, Error> {
        let Some(name) = &self.default_identity else { return Ok(0) };
        identities.iter().position(|identity| *identity.name == **name).ok_or_else(|| {
            let names: Vec<_> = identities.iter().map(|identity| format!("{:?}", identity.name)).collect();
            contradiction(format!("the default identity {name:?} is none of {}", names.join(", ")))
        })
    }
}

/// The policy of each identity that has its own policy.
fn own_auths(
    all: &[Loaded],
    provider: &Arc<CryptoProvider>,
    warnings: &mut Vec<ConfigWarning>,
) -> Result<Vec<Option<LoadedAuth>>, Error> {
    let load = |loaded: &Loaded| loaded.client_auth.as_ref().map(|own| own.load(provider)).transpose();
    let own = all.iter().map(load).collect::<Result<Vec<_>, _>>()?;
    warnings.extend(own.iter().flatten().flat_map(|own| own.warnings.iter().cloned()));
    Ok(own)
}
