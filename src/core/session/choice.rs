//! A server whose configuration depends on the name that the client asks for.
//!
//! rustls needs the configuration before it reads the ClientHello. So the client's records wait in the session until
//! the hello is complete, and the engine gets them with the configuration that was chosen (rule: identity-7).

use std::sync::Arc;

use rustls::{AlertDescription, ServerConfig};

use super::Session;
use crate::core::alert::alert_record;
use crate::core::client_hello::ClientHelloReader;
use crate::core::engine::{AnyEngine, EngineKind};
use crate::error::TlsError;

/// Chooses the configuration of a server.
pub trait ChooseConfig: Send + Sync {
    /// The configuration for a name, which is in lower case and has no dot at the end.
    fn choose(&self, name: Option<&str>) -> ConfigChoice;
}

/// The configuration for a client.
#[derive(Debug)]
pub enum ConfigChoice {
    /// The configuration with which the session was made.
    Common,
    /// The configuration of an identity with its own settings.
    Own(Arc<ServerConfig>),
    /// No identity has the name, and the client is refused.
    UnknownName,
}

/// A choice that is not made yet.
pub(super) struct Choice {
    by: Arc<dyn ChooseConfig>,
    engine: EngineKind,
    hello: ClientHelloReader,
    /// The reason why there is no hello. The engine gets the first record, because it may be an alert with the cause.
    /// Nothing after it is accepted.
    failure: Option<TlsError>,
}

impl Session {
    /// Chooses the configuration by the client's hello.
    pub fn choosing(mut self, engine: EngineKind, by: Arc<dyn ChooseConfig>) -> Self {
        let hello = ClientHelloReader::default();
        self.choice = Some(Box::new(Choice { by, engine, hello, failure: None }));
        self
    }

    /// Makes the choice as soon as the hello is complete. Returns whether it is still open.
    pub(super) fn awaits_hello(&mut self) -> bool {
        let Some(choice) = &mut self.choice else { return false };
        match choice.hello.read(self.raw.as_slice()) {
            Ok(None) => true,
            Ok(Some(hello)) => {
                let (config, engine) = (choice.by.choose(hello.server_name()), choice.engine);
                self.begin_with(config, engine, hello.server_name());
                false
            }
            Err(error) => {
                choice.failure = Some(error);
                false
            }
        }
    }

    fn begin_with(&mut self, config: ConfigChoice, engine: EngineKind, name: Option<&str>) {
        self.choice = None;
        match config {
            ConfigChoice::Common => {}
            ConfigChoice::Own(config) => match AnyEngine::server(engine, config) {
                Ok(tls) => self.tls = tls,
                Err(error) => self.fail_tls(error, None),
            },
            ConfigChoice::UnknownName => {
                let alert = AlertDescription::UnrecognisedName;
                self.sealed.push(&alert_record(alert));
                self.clear_input();
                let error = TlsError::unknown_name(name.unwrap_or_default());
                self.fail(TlsError { alert_sent: Some(alert), ..error }.into());
            }
        }
    }

    /// Ends the session after a record that the engine has accepted, because there was no hello to choose by.
    #[cold]
    pub(super) fn fail_without_choice(&mut self) {
        if let Some(TlsError { error, not_tls, .. }) = self.choice.take().and_then(|choice| choice.failure) {
            self.fail_tls(error, not_tls);
        }
    }
}
