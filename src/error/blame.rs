//! The party that caused an error.

use std::error::Error as StdError;
use std::io;

use super::{Error, UpgradeError};

/// The party that caused an error. An operator who reads a log wants to know this first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Blame {
    /// Nobody: the connection ended cleanly.
    Nobody,
    /// This side: a call at the wrong time, a wrong configuration, an abort.
    Us,
    /// The other side of the connection.
    Peer,
    /// The TLS implementation or configuration of the other side, for example its certificate, alert or records.
    PeerTls,
    /// A deadline passed.
    Time,
    /// The operating system or the network.
    System,
}

/// The party that caused the failure of an application protocol. An error of this crate names the party itself, for
/// example the peer if it tried to inject bytes into an upgrade. The peer is to blame for invalid data. Any other error
/// counts as ours, because only the application knows its meaning.
pub(super) fn of_protocol(error: &(dyn StdError + 'static)) -> Blame {
    if let Some(error) = error.downcast_ref::<Error>() {
        return error.blame();
    }
    if let Some(error) = error.downcast_ref::<UpgradeError>() {
        return error.blame();
    }
    let is_invalid = |error: &io::Error| error.kind() == io::ErrorKind::InvalidData;
    if error.downcast_ref::<io::Error>().is_some_and(is_invalid) { Blame::Peer } else { Blame::Us }
}
