//! Without the feature `proxy`, no connection begins with a header.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use super::accept_error::AcceptErrors;
use super::builder::ListenerBuilder;
use super::limits::Limits;
use crate::error::Error;
use crate::layers::tcp::TcpConnection;

/// Has no values, because no listener can expect a header.
#[derive(Debug)]
pub(crate) enum HeaderGate {}

impl HeaderGate {
    pub(super) fn new(_: &ListenerBuilder, _: &Limits, _: &Arc<Mutex<AcceptErrors>>) -> Option<Arc<Self>> {
        None
    }

    pub(super) fn expects_from(&self, _: IpAddr) -> bool {
        match *self {}
    }

    pub(super) async fn pass(&self, _: &mut TcpConnection) -> Result<(), Error> {
        match *self {}
    }
}
