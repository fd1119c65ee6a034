//! The successor's side.

use std::io::{self, IoSliceMut};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;

use super::{STEP, check_user, failed, message};
use crate::conn::socket;
use crate::conn::time::{after, until};
use crate::error::Error;

/// The sockets that this process has taken from its predecessor.
///
/// If it is dropped before [`ready`](Self::ready), the predecessor continues to serve, as if no successor had connected
/// (rule: handover-2).
#[derive(Debug)]
pub struct Handover {
    predecessor: UnixStream,
    path: String,
    sockets: Vec<(String, OwnedFd)>,
}

impl Handover {
    /// Takes the sockets of the process that offers them at this path. `None` if there is no such process.
    ///
    /// # Errors
    /// [`Error::Ended`]: the process there belongs to another user, does not answer within 10 seconds, or is no
    /// [`Offer`](super::Offer); or one of the descriptors is not a listening socket.
    ///
    /// # Cancel safety
    /// Dropping the future closes the sockets that have been received. The predecessor keeps its own.
    ///
    /// # Panics
    /// Outside of a tokio runtime with I/O enabled.
    pub async fn take(path: impl AsRef<Path>) -> Result<Option<Self>, Error> {
        let path = path.as_ref();
        let name = path.display().to_string();
        let asked = until(after(Some(STEP)), async {
            let predecessor = match crate::endpoint::open::dial_unix(path).await {
                Err(error) if is_nobody(error.kind()) => return Ok(None),
                dialled => dialled?,
            };
            check_user(&predecessor, &name)?;
            let sockets = receive(&predecessor).await?;
            Ok(Some(Self { predecessor, path: name.clone(), sockets }))
        });
        asked.await.ok_or_else(|| failed(format!("the process at {name} does not hand its sockets over")))?
    }

    /// Takes out the sockets with this name, for
    /// [`ListenerBuilder::from_std_all`](crate::ListenerBuilder::from_std_all). A second call with the same name
    /// returns none. Accept from all of the sockets: each has a backlog of its own.
    pub fn sockets(&mut self, name: &str) -> Vec<TcpListener> {
        let all = std::mem::take(&mut self.sockets);
        let (found, rest): (Vec<_>, Vec<_>) = all.into_iter().partition(|(known, _)| known == name);
        self.sockets = rest;
        found.into_iter().map(|(_, socket)| socket.into()).collect()
    }

    /// The names of the sockets that [`sockets`](Self::sockets) has not returned yet.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.sockets.iter().map(|(name, _)| name.as_str())
    }

    /// Tells the predecessor that this process accepts connections, and waits until the predecessor has removed its
    /// Unix socket. Call it when this process accepts from all the sockets, because the predecessor then begins its
    /// drain. Sockets that [`sockets`](Self::sockets) has not returned are closed.
    ///
    /// # Errors
    /// [`Error::Ended`]: the predecessor has ended in the meantime, or has stopped waiting. This process can use the
    /// sockets nevertheless. If the predecessor still runs, it has not begun to drain.
    ///
    /// # Cancel safety
    /// If the future is dropped, the predecessor may or may not have got the message.
    pub async fn ready(mut self) -> Result<(), Error> {
        self.sockets.clear();
        let told = until(after(Some(STEP)), async {
            self.predecessor.write_all(&[message::READY]).await?;
            self.predecessor.read_u8().await
        });
        let path = &self.path;
        match told.await {
            Some(Ok(message::CLOSED)) => Ok(()),
            Some(Ok(_)) => Err(failed(format!("the process at {path} sent something other than the end of its offer"))),
            Some(Err(error)) => Err(failed(format!("the process at {path} has ended, or given up waiting: {error}"))),
            None => Err(failed(format!("the process at {path} does not end its offer"))),
        }
    }
}

fn is_nobody(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

/// Receives the names and the sockets.
async fn receive(from: &UnixStream) -> io::Result<Vec<(String, OwnedFd)>> {
    let (mut message, mut sockets) = (Vec::new(), Vec::new());
    let names = loop {
        if let Some(names) = message::decode(&message)? {
            break names;
        }
        from.readable().await?;
        let mut part = [0; 4096];
        let received = from.try_io(Interest::READABLE, || receive_part(from, &mut part, &mut sockets));
        match received {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(0) => {
                let problem = "the predecessor ended the connection: it may belong to another user, or it is stopping";
                return Err(io::Error::other(problem));
            }
            received => message.extend_from_slice(&part[..received?]),
        }
    };
    if names.len() != sockets.len() {
        let problem = format!("the predecessor names {} sockets and sent {}", names.len(), sockets.len());
        return Err(message::invalid(problem));
    }
    sockets.iter().try_for_each(socket::check_listening)?;
    Ok(names.into_iter().zip(sockets).collect())
}

fn receive_part(from: &UnixStream, part: &mut [u8], sockets: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(message::MOST_SOCKETS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(from, &mut [IoSliceMut::new(part)], &mut ancillary, FLAGS)?;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(all) = message {
            for socket in all {
                socket::close_on_exec(&socket)?;
                sockets.push(socket);
            }
        }
    }
    if received.flags.contains(ReturnFlags::CTRUNC) {
        return Err(io::Error::other("the limit of descriptors of this process is too low to take the sockets"));
    }
    Ok(received.bytes)
}

/// Sets close-on-exec as the sockets arrive, so that a child that another thread starts at this moment does not inherit
/// them.
#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
const FLAGS: RecvFlags = RecvFlags::CMSG_CLOEXEC;
#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
const FLAGS: RecvFlags = RecvFlags::empty();
