//! The impl of [`Split`](crate::Split) for TLS connections.

use super::{TlsConnection, TlsReadHalf, TlsWriteHalf};
use crate::conn::control::Control;
use crate::core::half::{RecvHalf, SendHalf};
use crate::transport::Transport;
use crate::transport::split::{OwnedReadHalf, OwnedWriteHalf, ReuniteError, Split};

impl<T: Transport> Split for TlsConnection<T> {
    type ReadHalf = TlsReadHalf<T>;
    type WriteHalf = TlsWriteHalf<T>;

    fn into_split(self) -> (TlsReadHalf<T>, TlsWriteHalf<T>) {
        Self::into_split(self)
    }

    fn reunite(
        read: TlsReadHalf<T>,
        write: TlsWriteHalf<T>,
    ) -> Result<Self, ReuniteError<TlsReadHalf<T>, TlsWriteHalf<T>>> {
        read.reunite(write)
    }
}

impl<T: Transport> OwnedReadHalf for TlsReadHalf<T> {
    fn control(&self) -> Control {
        Self::control(self)
    }

    fn status(&self) -> RecvHalf {
        Self::status(self)
    }
}

impl<T: Transport> OwnedWriteHalf for TlsWriteHalf<T> {
    fn control(&self) -> Control {
        Self::control(self)
    }

    fn status(&self) -> SendHalf {
        Self::status(self)
    }
}
