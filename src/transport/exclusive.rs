//! The only reference to a transport, inside a future that must be `Sync`.

use std::fmt;
use std::sync::PoisonError;

use crate::sync::Mutex;
use crate::transport::Transport;

/// A transport that only the owner of this reference uses. A shared `&Exclusive` gives no access to the transport, so
/// `Exclusive` is `Sync` although a transport need not be. No lock is taken for a use.
pub(super) struct Exclusive<'a>(Mutex<&'a mut dyn Transport>);

impl<'a> Exclusive<'a> {
    pub(super) fn new(transport: &'a mut dyn Transport) -> Self {
        Self(Mutex::new(transport))
    }

    pub(super) fn get(&mut self) -> &mut dyn Transport {
        *self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Shows the `Control` of the transport, or `<in use>`.
impl fmt::Debug for Exclusive<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.try_lock() {
            Ok(transport) => transport.control().fmt(f),
            Err(_) => f.write_str("<in use>"),
        }
    }
}
