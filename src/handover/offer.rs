//! The predecessor's side.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;

use super::{STEP, check_user, failed, message};
use crate::conn::time::{after, until};
use crate::endpoint::open::PrivateSocket;
use crate::error::Error;
use crate::server::listener::Listener;

/// The listening sockets of this process that its successor gets.
///
/// It keeps duplicates of the descriptors, so the listeners may be moved into the tasks that accept.
#[derive(Debug)]
#[must_use = "nobody can take the sockets before the offer is opened"]
pub struct Offer {
    sockets: Vec<(String, OwnedFd)>,
    ready_timeout: Duration,
}

impl Default for Offer {
    fn default() -> Self {
        Self { sockets: Vec::new(), ready_timeout: Duration::from_secs(60) }
    }
}

impl Offer {
    /// An offer without sockets.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the sockets of a listener. The successor gets them under this name. A later drain of the listener leaves
    /// these sockets listening, for the successor.
    ///
    /// # Errors
    /// [`Error::Draining`]: the listener is closed already. [`Error::Ended`]: the name is not 1 to 64 letters, digits
    /// and signs of `-_.`, there would be more than 200 sockets, or the process has no descriptors left.
    pub fn add(&mut self, name: &str, listener: &Listener) -> Result<(), Error> {
        message::check_name(name)?;
        let duplicates = listener.with_fds(|fd| fd.try_clone_to_owned()).ok_or(Error::Draining)?;
        if self.sockets.len() + duplicates.len() > message::MOST_SOCKETS {
            return Err(failed(format!("more than {} sockets cannot be handed over", message::MOST_SOCKETS)));
        }
        for duplicate in duplicates {
            self.sockets.push((name.to_owned(), duplicate?));
        }
        Ok(())
    }

    /// The time that a successor has to become [ready](super::Handover::ready) after it got the sockets. After that,
    /// the offer refuses this successor, and another process may take the sockets. The default is 60 seconds.
    pub fn ready_timeout(mut self, timeout: Duration) -> Self {
        self.ready_timeout = timeout;
        self
    }

    /// Opens the Unix socket to which a successor connects. Its file has the mode 0600, and is removed when the offer
    /// ends. A path that begins with `@` is a name in Linux's abstract namespace.
    ///
    /// # Errors
    /// [`Error::Bind`] with the path and the system's error: another process offers its sockets there, or the directory
    /// is missing or not writable.
    ///
    /// # Panics
    /// Outside of a tokio runtime with I/O enabled.
    pub fn open(self, path: impl AsRef<Path>) -> Result<OpenOffer, Error> {
        let path = path.as_ref();
        Ok(OpenOffer { socket: PrivateSocket::listen(path)?, path: path.display().to_string(), offer: self })
    }
}

/// An offer that a successor can take.
///
/// Until a successor has said that it accepts connections, nothing changes for this process (rule: handover-2). After
/// the offer is dropped, for example because the process drains on a signal, no process can take the sockets.
#[derive(Debug)]
#[must_use = "nobody gets the sockets before `taken` is polled"]
pub struct OpenOffer {
    socket: PrivateSocket,
    path: String,
    offer: Offer,
}

impl OpenOffer {
    /// Waits until a successor has taken the sockets and accepts connections. Then the offer has removed its Unix
    /// socket, so that the successor can open its own at the same path, and this process should drain. If a successor
    /// fails before that, the offer stays open (rule: handover-2).
    ///
    /// # Errors
    /// [`Error::Ended`] with the system's error: the Unix socket can no longer accept.
    ///
    /// # Cancel safety
    /// Dropping the future ends the offer and removes its file. The sockets stay with this process.
    pub async fn taken(self) -> Result<(), Error> {
        loop {
            let mut successor = self.socket.accept().await?;
            // If a successor fails, its connection is dropped here. The successor reports the error, and the offer
            // waits for another one.
            if self.serve(&mut successor).await.is_ok() {
                drop(self);
                let _ = until(after(Some(STEP)), successor.write_all(&[message::CLOSED])).await;
                return Ok(());
            }
        }
    }

    /// Gives the sockets to a successor, and waits until it is ready.
    async fn serve(&self, successor: &mut UnixStream) -> Result<(), Error> {
        check_user(successor, &self.path)?;
        let late = || failed("the successor does not read");
        until(after(Some(STEP)), self.send(successor)).await.ok_or_else(late)??;
        let ready = until(after(Some(self.offer.ready_timeout)), successor.read_u8()).await;
        match ready.ok_or_else(|| failed("the successor is not ready"))?? {
            message::READY => Ok(()),
            _ => Err(failed("the successor sent something other than the message that it is ready")),
        }
    }

    async fn send(&self, successor: &mut UnixStream) -> io::Result<()> {
        let message = message::encode(self.offer.sockets.iter().map(|(name, _)| name.as_str()));
        let sockets: Vec<BorrowedFd<'_>> = self.offer.sockets.iter().map(|(_, socket)| socket.as_fd()).collect();
        let sent = loop {
            successor.writable().await?;
            match successor.try_io(Interest::WRITABLE, || Ok(send_with(successor, &message, &sockets)?)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                sent => break sent?,
            }
        };
        successor.write_all(&message[sent..]).await
    }
}

/// Sends the first bytes of a message together with the sockets.
fn send_with(to: &UnixStream, message: &[u8], sockets: &[BorrowedFd<'_>]) -> rustix::io::Result<usize> {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(message::MOST_SOCKETS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !sockets.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(sockets));
    }
    sendmsg(to, &[IoSlice::new(message)], &mut ancillary, FLAGS)
}

/// Rust ignores SIGPIPE, but a program may have restored it.
#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
const FLAGS: SendFlags = SendFlags::NOSIGNAL;
#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
const FLAGS: SendFlags = SendFlags::empty();
