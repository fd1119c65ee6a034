//! Without the feature `proxy`, no connection begins with a header.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use tokio::time::Instant;

use super::accept_error::AcceptErrors;
use super::builder::ListenerBuilder;
use super::limits::Limits;
use crate::error::{ConfigError, Error};
use crate::transport::Transport;

/// Has no values, because no listener can expect a header.
// The public trait `AnyListener` names it.
#[allow(unreachable_pub, reason = "Rust 1.85 warns here, and later versions do not")]
#[derive(Debug)]
pub enum HeaderGate {}

impl HeaderGate {
    pub(super) fn new(_: &ListenerBuilder, _: &Limits, _: &Arc<Mutex<AcceptErrors>>) -> Option<Arc<Self>> {
        None
    }

    pub(super) fn expects_from(&self, _: IpAddr) -> bool {
        match *self {}
    }

    pub(crate) async fn pass(&self, _: &mut impl Transport) -> Result<(), Error> {
        match *self {}
    }

    pub(crate) async fn pass_by(&self, _: &mut impl Transport, _: Option<Instant>, _: bool) -> Result<(), Error> {
        match *self {}
    }

    pub(super) fn end_unread(&self, _: &impl Transport) {
        match *self {}
    }
}

impl ListenerBuilder {
    /// Whether a Unix socket can be opened with these settings.
    #[cfg_attr(not(unix), allow(dead_code))] // Unix sockets use it.
    pub(crate) fn check_unix(&self) -> Result<(), ConfigError> {
        Ok(())
    }
}
