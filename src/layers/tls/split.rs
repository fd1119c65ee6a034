//! The halves of a TLS connection, for two tasks.

use std::sync::Arc;

use super::{TlsConnection, TlsReadHalf, TlsWriteHalf};
use crate::conn::control::Control;
use crate::core::half::{RecvHalf, SendHalf};
use crate::transport::Transport;
use crate::transport::split::{OwnedReadHalf, OwnedWriteHalf, ReuniteError, Split};

/// The halves share the session under a lock. The read half drives a handshake that is not done; the write half waits
/// for it, at most until the same deadline.
impl<T: Transport> Split for TlsConnection<T> {
    type ReadHalf = TlsReadHalf<T>;
    type WriteHalf = TlsWriteHalf<T>;

    fn into_split(self) -> (TlsReadHalf<T>, TlsWriteHalf<T>) {
        let Self { read, mut write } = self;
        write.set_deadline(read.deadline());
        (read, write)
    }

    fn reunite(
        read: TlsReadHalf<T>,
        write: TlsWriteHalf<T>,
    ) -> Result<Self, ReuniteError<TlsReadHalf<T>, TlsWriteHalf<T>>> {
        if !Arc::ptr_eq(read.shared(), write.shared()) {
            return Err(ReuniteError::new(read, write));
        }
        Ok(Self { read, write })
    }
}

impl<T: Transport> OwnedReadHalf for TlsReadHalf<T> {
    fn control(&self) -> Control {
        self.control_ref().clone()
    }

    fn status(&self) -> RecvHalf {
        self.shared().with(|pump| pump.session.recv().clone())
    }
}

impl<T: Transport> OwnedWriteHalf for TlsWriteHalf<T> {
    fn control(&self) -> Control {
        self.control_ref().clone()
    }

    fn status(&self) -> SendHalf {
        self.shared().with(|pump| pump.session.send().clone())
    }
}
