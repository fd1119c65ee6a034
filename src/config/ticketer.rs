//! The source of a server's tickets.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::server::ProducesTickets;

use super::TicketKeys;
use super::bound::Sessions;
use super::common::Common;
use super::ticket_keys::KeyFiles;
use super::volume::Volumes;
use crate::error::Error;

/// The encryption of a server's tickets.
#[derive(Debug, Clone, Default)]
pub(super) enum Ticketer {
    /// The configuration makes a random key.
    #[default]
    Own,
    /// The application has set a ticketer.
    Chosen(Arc<dyn ProducesTickets>),
    /// Servers share the keys.
    Keys(TicketKeys),
    /// Servers share the keys, which come from files.
    Files(KeyFiles),
}

impl Hash for Ticketer {
    /// Hashes the identity of the application's ticketer or of the `TicketKeys`: it is different for any two that exist
    /// at the same time.
    fn hash<H: Hasher>(&self, state: &mut H) {
        std::mem::discriminant(self).hash(state);
        match self {
            Self::Own => {}
            Self::Chosen(chosen) => Arc::as_ptr(chosen).addr().hash(state),
            Self::Keys(keys) => keys.hash(state),
            Self::Files(files) => files.hash(state),
        }
    }
}

impl Ticketer {
    /// Reads the files now.
    pub(super) fn read_files(&mut self, volumes: &mut Volumes) {
        match self {
            Self::Files(files) => files.read_files(volumes),
            Self::Own | Self::Chosen(_) | Self::Keys(_) => {}
        }
    }

    /// The ticketer and the session store of a configuration with this provider.
    pub(super) fn sessions(&self, common: &Common, provider: &CryptoProvider) -> Result<Sessions, Error> {
        Ok(match self {
            Self::Own => {
                let own = common.provider.is_none().then(feature_ticketer).flatten();
                Sessions::new(own, Some(common.provider_id()))
            }
            Self::Chosen(chosen) => Sessions::new(Some(Arc::clone(chosen)), None),
            Self::Keys(keys) => Sessions::shared(keys.clone(), provider)?,
            Self::Files(files) => Sessions::shared(TicketKeys::new(files.set()?), provider)?,
        })
    }
}

fn feature_ticketer() -> Option<Arc<dyn ProducesTickets>> {
    #[cfg(feature = "aws-lc-rs")]
    return rustls::crypto::aws_lc_rs::Ticketer::new().ok();
    #[cfg(all(feature = "ring", not(feature = "aws-lc-rs")))]
    return rustls::crypto::ring::Ticketer::new().ok();
    #[cfg(not(any(feature = "aws-lc-rs", feature = "ring")))]
    return None;
}
