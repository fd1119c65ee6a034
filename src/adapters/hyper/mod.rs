//! HTTP with hyper: a [`Server`] whose connections end in order, and a connector for clients ([`HttpConnector`]).
//!
//! For your own loop over connections, no adapter is needed: `TokioIo::new(Lingering::new(connection))` of hyper-util is the
//! I/O that hyper wants, and reads into hyper's buffers without a copy of its own. See [`Lingering`](crate::Lingering).

mod connector;
mod io;
mod server;

pub use self::connector::{HttpConnection, HttpConnector};
pub use self::io::Io;
pub use self::server::{Accept, BoxError, Server};
