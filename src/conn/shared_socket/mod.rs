//! The socket that both halves of a TCP connection share. A reset ends it for both halves at once.
//!
//! Linux has a call that resets a socket while others hold it and wait on it. On other systems, RST is sent when the
//! last holder closes the socket, so a reset takes the socket away from all holders. With `--cfg bowline_portable`,
//! that code also runs on Linux, for tests.

#[cfg(all(target_os = "linux", not(bowline_portable)))]
mod linux;
#[cfg(any(test, not(target_os = "linux"), bowline_portable))]
mod portable;

#[cfg(all(target_os = "linux", not(bowline_portable)))]
pub(crate) use self::linux::{SharedSocket, SocketRef};
#[cfg(any(not(target_os = "linux"), bowline_portable))]
pub(crate) use self::portable::{SharedSocket, SocketRef};

/// Whether a reset takes the socket away from its holders. Then no caller may keep a reference to it.
pub(crate) const TAKES_AWAY: bool = cfg!(any(not(target_os = "linux"), bowline_portable));
