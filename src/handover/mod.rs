//! Hands the listening sockets of a process to its successor, so that a service is replaced without refusing a client.
//!
//! The running process [offers](Offer) its sockets at the path of a Unix socket. The next version of the service
//! [takes](Handover::take) them, begins to accept, and says that it is [ready](Handover::ready). Then the offer ends,
//! and the old process drains. Meanwhile both processes hold the same sockets and may accept clients from the backlog,
//! and no SYN is refused (rule: handover-1).
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let path = std::env::temp_dir().join(format!("bowline-handover-{}", std::process::id()));
//! use bowline::Listener;
//! use bowline::handover::{Handover, Offer};
//!
//! # let predecessor = Listener::bind("127.0.0.1:0").await?;
//! # let mut offered = Offer::new();
//! # offered.add("https", &predecessor)?;
//! # let old = tokio::spawn(offered.open(&path)?.taken());
//! let mut handover = Handover::take(&path).await?;
//! let listener = match handover.as_mut().map(|from| from.sockets("https")) {
//!     Some(sockets) => Listener::builder().from_std_all(sockets)?,
//!     None => Listener::bind("127.0.0.1:8443").await?,
//! };
//! let mut offer = Offer::new();
//! offer.add("https", &listener)?;
//! // Start a task that accepts from the listener here.
//! if let Some(handover) = handover {
//!     handover.ready().await?;
//! }
//! # old.await??;
//! let offer = offer.open(&path)?;
//! tokio::select! {
//!     taken = offer.taken() => taken?,
//! #   () = std::future::ready(()) => {}
//!     _ = tokio::signal::ctrl_c() => {}
//! }
//! // Drain here: the successor accepts the new clients.
//! # Ok(())
//! # }
//! ```
//!
//! If a service manager holds the sockets (`LISTEN_FDS`), it passes them to each new process itself. Then this module
//! is not needed.

mod message;
mod offer;
mod take;
#[cfg(test)]
mod tests;

use std::io;
use std::time::Duration;

use tokio::net::UnixStream;

pub use offer::{Offer, OpenOffer};
pub use take::Handover;

use crate::error::Error;

/// The time limit for each exchange of messages. An exchange takes microseconds unless a process hangs.
const STEP: Duration = Duration::from_secs(10);

/// Refuses a process of another user, except root: only the user of a service may have its sockets (rule: handover-3).
fn check_user(stream: &UnixStream, path: &str) -> Result<(), Error> {
    let (theirs, ours) = (stream.peer_cred()?.uid(), rustix::process::geteuid().as_raw());
    if theirs == ours || theirs == 0 {
        return Ok(());
    }
    let problem = format!("the process at {path} belongs to the user {theirs}, and this one to {ours}");
    Err(io::Error::new(io::ErrorKind::PermissionDenied, problem).into())
}

/// A failure with this text, and without an I/O kind of its own: a kind such as "timed out" or "unexpected end" would
/// make the [`Error`] look like the failure of a client's connection.
fn failed(problem: impl Into<String>) -> Error {
    io::Error::other(problem.into()).into()
}
