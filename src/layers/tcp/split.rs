//! The halves of a TCP connection, for two tasks.

use super::{TcpConnection, TcpReadHalf, TcpWriteHalf};
use crate::conn::control::Control;
use crate::core::half::{RecvHalf, SendHalf};
use crate::transport::split::{OwnedReadHalf, OwnedWriteHalf, ReuniteError, Split};

/// The halves share no lock.
impl Split for TcpConnection {
    type ReadHalf = TcpReadHalf;
    type WriteHalf = TcpWriteHalf;

    fn into_split(self) -> (TcpReadHalf, TcpWriteHalf) {
        (self.read, self.write)
    }

    fn reunite(read: TcpReadHalf, write: TcpWriteHalf) -> Result<Self, ReuniteError<TcpReadHalf, TcpWriteHalf>> {
        if !read.control_ref().is_same(write.control_ref()) {
            return Err(ReuniteError::new(read, write));
        }
        Ok(Self { read, write })
    }
}

impl OwnedReadHalf for TcpReadHalf {
    fn control(&self) -> Control {
        self.control_ref().clone()
    }

    fn status(&self) -> RecvHalf {
        self.socket.state.clone()
    }
}

impl OwnedWriteHalf for TcpWriteHalf {
    fn control(&self) -> Control {
        self.control_ref().clone()
    }

    fn status(&self) -> SendHalf {
        self.socket.state.clone()
    }
}
