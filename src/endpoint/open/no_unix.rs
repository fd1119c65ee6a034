//! For systems without Unix sockets: every attempt to use one is an error.

use std::io;
use std::panic::Location;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::BoxConnection;
use crate::address::Address;
use crate::conn::control::Control;
use crate::conn::group::{DrainGroup, Drainable};
use crate::error::Error;
use crate::error::{BindError, ConnectAttempt, ConnectError};
use crate::policy::Policy;
use crate::server::builder::ListenerBuilder;
use crate::server::header_gate::HeaderGate;
use crate::server::status::ListenerStatus;

/// Has no values, because this system has no Unix sockets.
#[derive(Debug)]
pub enum Plain {}

pub(super) fn begun(plain: Plain) -> BoxConnection {
    match plain {}
}

pub(super) async fn pass(plain: &mut Plain, _: &HeaderGate) -> Result<(), Error> {
    match *plain {}
}

/// Has no values, because this system has no Unix sockets.
pub(super) enum Accepted {}

impl Accepted {
    pub(super) async fn begin(self) -> Result<BoxConnection, Error> {
        match self {}
    }

    pub(super) fn into_parts(self) -> (Option<Instant>, OwnedSemaphorePermit, Plain) {
        match self {}
    }

    pub(super) fn gate(&self) -> Option<Arc<HeaderGate>> {
        match *self {}
    }

    pub(super) fn control(&self) -> Control {
        match *self {}
    }
}

pub(crate) async fn connect(
    path: &Path,
    _: Option<Duration>,
    _: Arc<Policy>,
    _: &Location<'_>,
) -> Result<BoxConnection, Error> {
    let addr = Address::Unix(Some(path.to_owned()));
    let (target, attempts) = (addr.to_string(), vec![ConnectAttempt { addr, error: none() }]);
    Err(ConnectError { target, attempts, resolve: None, timed_out: false }.into())
}

/// Has no values, because this system has no Unix sockets.
pub(super) enum Listening {}

impl Listening {
    pub(super) fn open(path: &Path, _: Option<u32>, _: ListenerBuilder) -> Result<Self, Error> {
        Err(BindError { addr: Address::Unix(Some(path.to_owned())), error: none() }.into())
    }

    pub(super) fn local_addr(&self) -> Address {
        match *self {}
    }

    pub(super) fn status(&self) -> ListenerStatus {
        match *self {}
    }

    pub(super) fn group(&self) -> &DrainGroup {
        match *self {}
    }

    pub(super) fn socket(&self) -> Arc<dyn Drainable> {
        match *self {}
    }

    pub(super) fn policy(&self) -> Arc<Policy> {
        match *self {}
    }

    pub(super) fn finishes(&self) -> bool {
        match *self {}
    }

    pub(super) fn set_finishes(&self, _: bool) {
        match *self {}
    }

    pub(super) async fn accept(&self) -> Result<Accepted, Error> {
        match *self {}
    }
}

fn none() -> Arc<io::Error> {
    Arc::new(io::Error::new(io::ErrorKind::Unsupported, "this system has no Unix sockets"))
}
