//! The impl of [`Split`](crate::Split) for TCP connections.

use super::{TcpConnection, TcpReadHalf, TcpWriteHalf};
use crate::conn::control::Control;
use crate::core::half::{RecvHalf, SendHalf};
use crate::transport::split::{OwnedReadHalf, OwnedWriteHalf, ReuniteError, Split};

impl Split for TcpConnection {
    type ReadHalf = TcpReadHalf;
    type WriteHalf = TcpWriteHalf;

    fn into_split(self) -> (TcpReadHalf, TcpWriteHalf) {
        Self::into_split(self)
    }

    fn reunite(read: TcpReadHalf, write: TcpWriteHalf) -> Result<Self, ReuniteError<TcpReadHalf, TcpWriteHalf>> {
        read.reunite(write)
    }
}

impl OwnedReadHalf for TcpReadHalf {
    fn control(&self) -> Control {
        Self::control(self)
    }

    fn status(&self) -> RecvHalf {
        Self::status(self).clone()
    }
}

impl OwnedWriteHalf for TcpWriteHalf {
    fn control(&self) -> Control {
        Self::control(self)
    }

    fn status(&self) -> SendHalf {
        Self::status(self).clone()
    }
}
