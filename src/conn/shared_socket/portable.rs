//! The reset on systems other than Linux, which takes the socket away from its holders.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::Context;

use tokio::net::TcpStream;

use crate::conn::socket::Options;
use crate::conn::waiting::Waiting;

pub(crate) struct SharedSocket {
    /// RST is sent when the last reference is dropped, so a caller may keep a reference only during a call.
    stream: Mutex<Option<Arc<TcpStream>>>,
    /// The tasks that wait on the socket. A reset has to wake them, because dropping a socket wakes no task.
    waiting: Waiting,
}

/// The socket, for one call. A task must not hold it while it waits.
pub(crate) type SocketRef<'a> = Arc<TcpStream>;

// On Linux, only the tests compile this file, and they do not call every method.
#[cfg_attr(test, allow(dead_code))]
impl SharedSocket {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self { stream: Mutex::new(Some(Arc::new(stream))), waiting: Waiting::default() }
    }

    /// The socket; `None` after a reset.
    pub(crate) fn get(&self) -> Option<SocketRef<'_>> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// As `get`, for a half that may have to wait for the socket. A reset wakes its task.
    pub(crate) fn get_for(&self, half: usize, cx: &mut Context<'_>) -> Option<SocketRef<'_>> {
        // The task is registered before the socket is taken. Otherwise a reset between these two steps would not wake
        // the task.
        self.waiting.park(half, cx);
        self.get()
    }

    /// Does nothing: [`get_for`](Self::get_for) has noted the task.
    pub(crate) fn park(&self, _half: usize, _: &mut Context<'_>) {}

    /// Wakes the tasks that wait on the socket.
    pub(crate) fn wake(&self) {
        self.waiting.wake();
    }

    /// Sends RST as soon as no call uses the socket, and wakes the tasks that wait on it (rules: abort-1, abort-4).
    pub(crate) fn reset(&self) {
        let taken = self.stream.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(stream) = taken {
            Options::of(&stream).reset_on_drop();
        }
        self.waiting.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::ErrorKind;
    use std::pin::pin;
    use std::task::{Poll, Waker, ready};

    use tokio::io::{AsyncReadExt, Interest};

    use super::*;
    use crate::conn::waiting::{READER, WRITER};

    /// Reads or writes until an error occurs, and waits for the socket in between.
    async fn use_up(socket: Arc<SharedSocket>, half: usize) {
        poll_fn(|cx| {
            loop {
                let Some(stream) = socket.get_for(half, cx) else { return Poll::Ready(()) };
                let _ = if half == READER {
                    ready!(stream.poll_read_ready(cx)).map(|()| stream.try_read(&mut [0; 100]))
                } else {
                    ready!(stream.poll_write_ready(cx)).map(|()| stream.try_write(&[0; 65_536]))
                };
            }
        })
        .await;
    }

    /// rule: abort-1, abort-4
    #[tokio::test]
    async fn a_reset_by_another_thread_sends_rst_and_wakes_reader_and_writer() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut peer, _) = listener.accept().await.unwrap();
        let socket = Arc::new(SharedSocket::new(stream));
        let tasks = [READER, WRITER].map(|half| tokio::spawn(use_up(Arc::clone(&socket), half)));
        // Both halves wait, because the peer neither sends nor reads.
        while socket.get().is_some_and(|stream| can_write(&stream)) {
            tokio::task::yield_now().await;
        }
        std::thread::spawn(move || socket.reset()).join().unwrap();
        for task in tasks {
            tokio::time::timeout(std::time::Duration::from_secs(20), task).await.unwrap().unwrap();
        }
        let end = peer.read_to_end(&mut Vec::new()).await;
        assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
    }

    /// Whether the system has reported the socket as writable.
    fn can_write(stream: &TcpStream) -> bool {
        // `poll_write_ready` would replace the waker of the waiting task, so it is not used here.
        pin!(stream.ready(Interest::WRITABLE)).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }
}
