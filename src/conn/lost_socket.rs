//! Waits for an error of a socket that no task reads from (rule: flow-5).

use super::shared_socket::SharedSocket;

/// Returns when the system reports an error of the socket, or when a reset has taken the socket away.
#[cfg(not(any(windows, bowline_portable)))]
pub(crate) async fn error_of(socket: &SharedSocket) {
    if let Some(stream) = socket.get() {
        let _ = stream.ready(tokio::io::Interest::ERROR).await;
    }
}

#[cfg(any(windows, bowline_portable))]
pub(crate) use self::at_intervals::error_of;

/// On Windows no event reports only an error. A reset is reported as the end of both directions, and a wait for that
/// event would return at once while the socket can be written. So the socket is checked at intervals.
#[cfg(any(windows, bowline_portable))]
mod at_intervals {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};
    use std::time::Duration;

    use tokio::io::Interest;
    use tokio::net::TcpStream;
    use tokio::time::sleep;

    use super::SharedSocket;

    const INTERVAL: Duration = Duration::from_millis(250);

    pub(crate) async fn error_of(socket: &SharedSocket) {
        // The socket is not held between two checks: it closes when its last holder drops it.
        while socket.get().is_some_and(|stream| !has_error(&stream)) {
            sleep(INTERVAL).await;
        }
    }

    fn has_error(stream: &TcpStream) -> bool {
        let ready = pin!(stream.ready(Interest::READABLE | Interest::WRITABLE | Interest::ERROR));
        let Poll::Ready(Ok(ready)) = ready.poll(&mut Context::from_waker(Waker::noop())) else { return false };
        // Windows reports the end of the sending direction for a reset only.
        if cfg!(windows) { ready.is_write_closed() || was_reset(stream) } else { ready.is_error() }
    }

    /// Tries a read, because Windows reports no event for a reset while unread bytes wait.
    fn was_reset(stream: &TcpStream) -> bool {
        use std::io::ErrorKind::{ConnectionAborted, ConnectionReset};
        let peeked = socket2::SockRef::from(stream).peek(&mut [std::mem::MaybeUninit::uninit()]);
        peeked.is_err_and(|error| matches!(error.kind(), ConnectionReset | ConnectionAborted))
    }
}
