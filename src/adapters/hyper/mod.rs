//! HTTP with hyper: a [`Server`] whose connections end in order, and a connector for clients ([`HttpConnector`]).
//!
//! An accept loop of your own needs no adapter: `TokioIo::new(Lingering::new(connection))` of hyper-util implements
//! hyper's I/O traits, and reads into hyper's buffers without another copy. See [`Lingering`](crate::Lingering).

mod accept;
mod body;
mod connector;
mod io;
mod server;

pub use self::accept::Accept;
pub use self::body::RequestBody;
pub use self::connector::{HttpConnection, HttpConnector};
pub use self::io::Io;
pub use self::server::{BoxError, Server};
