//! The engine of a session: either rustls alone, or rustls for the handshake and our own code for the records.
//!
//! The session has the halves and the queues, and decides the order of records. The engine has the keys. It gets whole
//! records, one at a time, and holds at most one opened record.

mod alignment;
mod buffered;
mod export;
#[cfg(feature = "express")]
pub(in crate::core) mod express;
mod hello;
mod interface;
pub(crate) mod library;

use std::io::{self, IoSlice, Write};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, Connection, Error, ServerConfig, ServerConnection};

use self::buffered::Buffered;
#[cfg(feature = "express")]
use self::express::Express;
use self::interface::Engine;
use super::buffer::Buffer;
use super::catch::catch;
use super::record::max_fragment;
use crate::error::SessionError;

/// The choice between the two engines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EngineKind {
    /// rustls alone.
    #[default]
    Rustls,
    /// The handshake by rustls, and the records by our own code.
    #[cfg(feature = "express")]
    Express,
}

/// One of the two engines. An enum and not a box of the trait, so that a build with one engine calls it directly.
pub(super) enum AnyEngine {
    Rustls(Box<Buffered>),
    #[cfg(feature = "express")]
    Express(Box<Express>),
}

/// Calls the engine directly.
macro_rules! either {
    ($either:expr, $engine:ident => $call:expr) => {
        match $either {
            Self::Rustls($engine) => $call,
            #[cfg(feature = "express")]
            Self::Express($engine) => $call,
        }
    };
}

impl AnyEngine {
    /// The client's side, from the start of a handshake.
    pub(super) fn client(
        kind: EngineKind,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> Result<Self, Error> {
        guarded(|| match kind {
            EngineKind::Rustls => {
                let record = config.max_fragment_size;
                Ok(Self::rustls(ClientConnection::new(config, name)?, record))
            }
            #[cfg(feature = "express")]
            EngineKind::Express => Ok(Self::Express(Box::new(Express::client(config, name)?))),
        })
    }

    /// The server's side, from the start of a handshake.
    pub(super) fn server(kind: EngineKind, config: Arc<ServerConfig>) -> Result<Self, Error> {
        guarded(|| match kind {
            EngineKind::Rustls => {
                let record = config.max_fragment_size;
                Ok(Self::rustls(ServerConnection::new(config)?, record))
            }
            #[cfg(feature = "express")]
            EngineKind::Express => Ok(Self::Express(Box::new(Express::server(config)?))),
        })
    }

    /// rustls; `record` is the `max_fragment_size` of its configuration.
    fn rustls(tls: impl Into<Connection>, record: Option<usize>) -> Self {
        Self::Rustls(Box::new(Buffered::new(tls.into(), Some(max_fragment(record)))))
    }

    /// rustls, with a session that another library started.
    pub(super) fn adopted(tls: Connection) -> Self {
        Self::Rustls(Box::new(Buffered::new(tls, None)))
    }

    pub(super) fn is_express(&self) -> bool {
        !matches!(self, Self::Rustls(_))
    }

    // The methods below are called for each record, so they bypass `dyn Engine` and call the engine directly.

    #[inline]
    pub(super) fn opened(&self) -> usize {
        either!(self, engine => engine.opened())
    }

    #[inline]
    pub(super) fn read(&mut self, out: &mut [u8], input: &mut Buffer) -> usize {
        either!(self, engine => engine.read(out, input))
    }

    #[inline]
    pub(super) fn write(&mut self, parts: &[IoSlice<'_>], room: usize) -> usize {
        either!(self, engine => engine.write(parts, room))
    }

    #[inline]
    pub(super) fn wants_write(&self) -> bool {
        either!(self, engine => engine.wants_write())
    }

    #[inline]
    pub(super) fn write_tls(&mut self, layer: &mut dyn Write) -> io::Result<usize> {
        either!(self, engine => engine.write_tls(layer))
    }

    /// [`Engine::export`], with the checks that both engines need. If rustls panics, there is no keying material.
    pub(super) fn export(&self, out: &mut [u8], label: &[u8], context: Option<&[u8]>) -> Result<(), SessionError> {
        export::check_arguments(out, label, context)?;
        self.master().check()?;
        let exported = guarded(|| Ok(self.deref().export(out, label, context)));
        exported.unwrap_or_else(|error| Err(SessionError::Export(error)))
    }

    /// Calls [`Engine::open`], and treats a panic as a failure.
    pub(super) fn open(&mut self, input: &mut Buffer, record: usize, reader: &mut [u8]) -> Result<usize, Error> {
        guarded(|| either!(self, engine => engine.open(input, record, reader)))
    }

    /// [`Engine::send_missing_alert`]. After a panic, rustls is not called, so there is no alert.
    pub(super) fn send_missing_alert(&mut self) {
        let _ = guarded(|| {
            self.deref_mut().send_missing_alert();
            Ok(())
        });
    }
}

impl Deref for AnyEngine {
    type Target = dyn Engine;

    #[inline]
    fn deref(&self) -> &(dyn Engine + 'static) {
        either!(self, engine => &**engine)
    }
}

impl DerefMut for AnyEngine {
    #[inline]
    fn deref_mut(&mut self) -> &mut (dyn Engine + 'static) {
        either!(self, engine => &mut **engine)
    }
}

/// Calls rustls, and turns its panic into a failure of the session, after which rustls is not called again. rustls runs
/// code of the application (verifiers, resolvers, session stores). In debug builds it also asserts that it has sent no
/// close_notify when a bad record requires a fatal alert, so a peer could cause a panic.
fn guarded<T>(call: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    let panicked =
        |_: &_| Error::General("rustls, or code of its configuration, panicked while it processed a record".into());
    catch(call, panicked).and_then(|result| result)
}
