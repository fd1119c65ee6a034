//! The configurations and keys that a [`Reloader`](crate::Reloader) reads again. Each was made from files and is in
//! use.
//!
//! Everything that can be watched is listed in this file. To watch another kind of file, implement [`Watched`] here,
//! and add a method to `ReloaderBuilder`.
//!
//! One pass over the files has three steps, so that several configurations change together. First the pass reads all
//! files; a file that cannot be read is no error yet. If the contents are new, the pass checks them. If all of them can
//! be used, the pass puts them in use, and this step cannot fail.

use std::sync::Arc;
use std::time::SystemTime;

use super::client::{ClientTls, ClientTlsBuilder};
pub(crate) use super::fingerprint::Fingerprint;
use super::server::{ServerTls, ServerTlsBuilder};
use super::volume::Reading;
use crate::error::{Error, chain};

/// Something that is made from files, and is in use.
pub(crate) trait Watched: Send + Sync + 'static {
    /// Reads the files. Called on a thread that may block.
    fn read(&self) -> Contents;

    /// The contents that are in use now.
    fn in_use(&self) -> InUse;
}

/// The contents of the files at one moment.
pub(crate) struct Contents {
    pub(crate) fingerprint: Fingerprint,
    /// Checks the contents. Called on a thread that may block.
    pub(crate) check: Box<dyn FnOnce() -> Result<PutInUse, Error> + Send>,
}

/// Puts checked contents in use, and returns whether they differ from the old ones. It must not block.
pub(crate) type PutInUse = Box<dyn FnOnce() -> bool + Send>;

/// The part that is in use.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct InUse {
    /// The generation of a configuration. `None` for a part of a configuration.
    pub(crate) generation: Option<u64>,
    /// The time at which the first certificate expires.
    pub(crate) not_after: Option<SystemTime>,
}

impl Contents {
    pub(crate) fn new(
        fingerprint: Fingerprint,
        check: impl FnOnce() -> Result<PutInUse, Error> + Send + 'static,
    ) -> Self {
        Self { fingerprint, check: Box::new(check) }
    }

    /// Stands for the contents of files that could not be read: the text of the error, so that a new error counts as a
    /// change.
    pub(crate) fn unreadable(error: Error) -> Self {
        let text = chain(&error).to_string();
        Self::new(Fingerprint::of(text), move || Err(error))
    }
}

/// The configuration of a server, and the builder that reads its files.
pub(crate) struct WatchedServer {
    pub(crate) tls: ServerTls,
    pub(crate) files: ServerTlsBuilder,
}

impl Watched for WatchedServer {
    fn read(&self) -> Contents {
        let tls = self.tls.clone();
        match self.files.read_files(Reading::Again) {
            Ok(read) => Contents::new(Fingerprint::of(&read), move || {
                let new = ServerTls::from_memory(&read)?;
                Ok(Box::new(move || replaces(|| tls.generation(), || tls.replace(new))))
            }),
            Err(error) => Contents::unreadable(error),
        }
    }

    fn in_use(&self) -> InUse {
        let first_end = self.tls.identities().iter().filter_map(|identity| identity.not_after).min();
        InUse { generation: Some(self.tls.generation()), not_after: first_end }
    }
}

/// The configuration of a client, and the builder that reads its files.
pub(crate) struct WatchedClient {
    pub(crate) tls: ClientTls,
    pub(crate) files: ClientTlsBuilder,
}

impl Watched for WatchedClient {
    fn read(&self) -> Contents {
        let (tls, read) = (self.tls.clone(), self.files.read_files(Reading::Again));
        Contents::new(read.fingerprint(), move || {
            let new = read.build_from_memory()?;
            Ok(Box::new(move || replaces(|| tls.generation(), || tls.replace(new))))
        })
    }

    fn in_use(&self) -> InUse {
        InUse { generation: Some(self.tls.generation()), not_after: self.tls.own_not_after() }
    }
}

fn replaces(generation: impl Fn() -> u64, replace: impl FnOnce() -> u64) -> bool {
    let before = generation();
    replace() != before
}

/// Puts a watched configuration into an `Arc`, so that several tasks can share it.
pub(crate) fn shared(watched: impl Watched) -> Arc<dyn Watched> {
    Arc::new(watched)
}
