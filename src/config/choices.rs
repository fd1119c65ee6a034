//! The configurations of the identities that have their own settings.

use std::sync::Arc;

use rustls::ServerConfig;

use super::by_name::ByName;
use crate::core::session::{ChooseConfig, ConfigChoice};

#[derive(Clone)]
pub(super) struct Choices {
    pub(super) by_name: Arc<ByName>,
    /// By the number of the identity; `None` for an identity without own settings.
    pub(super) own: Vec<Option<Arc<ServerConfig>>>,
    /// Whether a client that asks for an unknown name is refused.
    pub(super) refuses_unknown: bool,
}

impl Choices {
    /// Whether the choice depends on the client.
    pub(super) fn is_needed(&self) -> bool {
        self.refuses_unknown || self.own.iter().any(Option::is_some)
    }

    /// Changes the configurations for the express engine.
    #[cfg(feature = "express")]
    pub(super) fn express(&mut self) {
        for config in self.own.iter_mut().flatten() {
            let config = Arc::make_mut(config);
            config.enable_secret_extraction = true;
            config.key_log = Arc::new(crate::core::session::Catcher(Arc::clone(&config.key_log)));
        }
    }
}

impl ChooseConfig for Choices {
    /// If several identities have the name, the first one decides.
    fn choose(&self, name: Option<&str>) -> ConfigChoice {
        let number = match name.map(|name| self.by_name.first_with(name)) {
            Some(None) if self.refuses_unknown => return ConfigChoice::UnknownName,
            found => found.flatten().unwrap_or(self.by_name.first_default()),
        };
        match self.own.get(number) {
            Some(Some(own)) => ConfigChoice::Own(Arc::clone(own)),
            Some(None) | None => ConfigChoice::Common,
        }
    }
}
