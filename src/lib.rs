//! TCP, TLS and STARTTLS-upgradable transports that end exactly as the application meant them to.
//!
//! ```toml
//! [dependencies]
//! bowline = "0.1"
//! tokio = { version = "1", features = ["rt-multi-thread", "macros", "io-util"] }
//! ```
//!
//! The features are listed in [the table of
//! features](https://github.com/bowline-rs/bowline/blob/main/docs/features.md). An item that needs a feature says so.
//!
//! # The map
//!
//! A connection is a stack of **layers**: TCP, or any other stream, at the bottom; TLS sessions on top. Each layer is a
//! [`Transport`], and a TLS layer can run over any other layer.
//!
//! ```text
//!   UpgradableConnection<T>    plaintext that becomes TLS, and the way back
//!   TlsConnection<T>           a TLS session on T                marker: close_notify
//!   TcpConnection              a socket                          marker: FIN
//!   Stream<S>                  a Unix socket, a pipe, ...        marker: its shutdown
//! ```
//!
//! Each layer has two **halves**, [`SendHalf`] and [`RecvHalf`], which live and end independently. Each half ends
//! with its own **marker**. If the layer below ends before the marker has arrived, the end is **truncated**.
//!
//! Read and write with tokio's `AsyncRead`, `AsyncBufRead` and `AsyncWrite`; you need not flush. [`Transport`] adds
//! these operations:
//!
//! | operation | what it ends | what success means |
//! |---|---|---|
//! | [`close_write`](Transport::close_write) | our send half; reading continues | the kernel has all bytes and the marker |
//! | [`close`](Transport::close) | the connection, in order and within limits | the [`CloseReport`] tells how it ended |
//! | [`abort`](Transport::abort) | the connection, at once, with RST | it cannot fail |
//!
//! If a transport is dropped without one of these calls, the peer sees a truncation.
//!
//! [`TcpTransport`] adds socket options, [`TlsTransport`] the facts of the session, [`UpgradableTransport`]
//! `start_tls` and `stop_tls`. Each layer also has the options and facts of the layers beneath it. [`Control`] is the
//! handle for other tasks.
//!
//! [`Split`] splits a connection into two halves for two tasks, and joins them again. [`relay`] joins two
//! connections, and passes on how each of them ends.
//!
//! A [`Connector`], a [`Reconnector`] or a [`Listener`] makes connections. A [`DrainGroup`] ends many of them
//! together. [`ClientTls`] and [`ServerTls`] configure TLS. A [`ClientEndpoint`] or a [`ServerEndpoint`] describes an
//! address and its TLS settings in one string. [`Policy`] holds limits and options. If a call fails, it returns an
//! [`Error`]; when a connection ends, it has a [`Reason`]. Both can be recovered from a [`std::io::Error`].
//!
//! If you prefer callbacks, implement [`Protocol`](protocol::Protocol): the module [`protocol`] is the callback
//! interface.
//!
//! # An example
//!
//! ```
//! # #[cfg(not(all(feature = "tokio", feature = "testing")))] fn main() {}
//! # #[cfg(all(feature = "tokio", feature = "testing"))]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), bowline::Error> {
//! use bowline::{ClientTls, Connector, Listener, Reason, ServerTls, TlsConnection, TlsTransport, Transport};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! # let pki = bowline::testing::pki::Pki::new();
//! # let identity = pki.server(&["localhost"]);
//! # let (chain_pem, key_pem, ca_pem) = (identity.chain_pem(), identity.key_pem(), pki.ca_pem());
//! let tls = ServerTls::builder().identity_pem(chain_pem, key_pem).build()?;
//! let listener = Listener::bind("127.0.0.1:0").await?;
//! let address = listener.local_addr();
//! let server = tokio::spawn(async move {
//!     let mut connection = listener.accept().await?.handshake(&tls).await?;
//!     let mut question = String::new();
//!     connection.read_to_string(&mut question).await?; // to the client's close_notify; a bare FIN is an error
//!     connection.write_all(format!("{question}? Yes.").as_bytes()).await?;
//!     Ok::<_, bowline::Error>(connection.close().await)
//! });
//!
//! let tls = ClientTls::builder().roots_pem(ca_pem).build()?;
//! let tcp = Connector::new().connect_addr(address).await?;
//! let mut connection = TlsConnection::connect(tcp, &tls, "localhost").await?;
//! assert_eq!(connection.tls().unwrap().version_name(), "TLSv1.3");
//! connection.write_all(b"Does it hold").await?;
//! connection.close_write().await?; // the answer is still to come
//! let mut answer = String::new();
//! connection.read_to_string(&mut answer).await?;
//! assert_eq!(answer, "Does it hold? Yes.");
//! assert!(matches!(connection.close().await.reason, Reason::Closed));
//! assert!(server.await.expect("it does not panic")?.is_clean());
//! # Ok(()) }
//! ```
//!
//! # Where to read on
//!
//! [`rules`] lists the rules of this crate, with their tests. `docs/architecture.md` describes the path of a byte and
//! of an end through the code. In the code, `core` makes the decisions and uses no socket, `layers/tls/pump` moves
//! bytes between a session and the layer beneath it, and `transport/close.rs` contains the orderly close.
//!
//! Without the feature `tokio`, the crate contains only configurations, endpoint strings and errors.

#![cfg_attr(test, allow(clippy::unwrap_used))]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "tokio")]
mod adapters;
mod address;
mod certificate;
#[cfg(feature = "tokio")]
mod client;
pub mod config;
#[cfg(feature = "tokio")]
mod conn;
#[cfg(not(feature = "unstable"))]
#[allow(dead_code, unreachable_pub)] // The tests use all of it.
mod core;
#[cfg(feature = "unstable")]
#[doc(hidden)]
pub mod core;
mod endpoint;
mod error;
mod escape;
#[cfg(all(feature = "tokio", unix))]
pub mod handover;
#[cfg(feature = "tokio")]
mod layers;
#[cfg(all(feature = "tokio", any(feature = "metrics", feature = "tracing")))]
mod observers;
mod policy;
#[cfg(feature = "tokio")]
mod reload;
#[cfg(feature = "tokio")]
mod rotation;
#[cfg(feature = "tokio")]
mod server;
#[cfg(feature = "starttls")]
pub mod starttls;
#[cfg(feature = "tokio")]
mod sync;
#[cfg(feature = "tokio")]
mod transport;

#[cfg(feature = "tokio")]
pub mod protocol;
#[cfg(feature = "proxy")]
pub mod proxy;
#[cfg(feature = "tokio")]
mod relay;
#[cfg(feature = "testing")]
pub mod testing;

#[cfg(feature = "hyper")]
#[doc(inline)]
pub use self::adapters::hyper;
#[cfg(feature = "postgres")]
#[doc(inline)]
pub use self::adapters::postgres;
#[cfg(feature = "tonic")]
#[doc(inline)]
pub use self::adapters::tonic;
pub use address::Address;
pub use certificate::AlternativeName;
#[doc(inline)]
pub use config::{ClientTls, ServerTls, TlsVersion};
pub use core::backoff::Backoff;
pub use core::binding::ChannelBinding;
#[cfg(feature = "tokio")]
pub use core::client_hello::ClientHello;
pub use core::facts::SessionFacts;
pub use core::half::{End, RecvHalf, SendHalf};
pub use endpoint::parse::{ClientEndpoint, EndpointKind, ServerEndpoint};
pub use error::{
    BindError, Blame, ConfigError, ConfigProblem, ConnectAttempt, ConnectError, DialogueError, EndpointError, Error,
    NotTls, PeerWords, Phase, Reason, SessionError, TlsError, UpgradeError, chain,
};
pub use escape::{escaped, printable};
#[cfg(feature = "metrics")]
pub use observers::metrics::Metrics;
#[cfg(feature = "tracing")]
pub use observers::tracing::Tracing;
pub use policy::{Leftover, Policy, Role, Truncation, Watermarks};
pub use rustls;

#[cfg(feature = "stream")]
pub use server::stream::Connections;

#[cfg(feature = "tokio")]
pub use self::{
    address::IpFamily,
    client::connect::Connector,
    client::reconnect::{AttemptFailure, GaveUp, Reconnector},
    config::start_tls::StartTls,
    conn::control::{AcceptFailure, AcceptFault, Busy, Control, Observer, PeerCred, Reload, Traffic},
    conn::group::DrainGroup,
    conn::options::{SocketOptions, TcpOptions},
    conn::refusal::{Refusal, RefusalReason},
    conn::socket::Keepalive,
    conn::tcp_info::TcpInfo,
    core::drain::DrainReport,
    core::outcome::Outcome,
    core::report::{CloseLimit, CloseReport, LayerKind, LayerReport, Received},
    endpoint::open::{BoxConnection, EndpointConnector, EndpointIncoming, EndpointListener, EndpointParts},
    layers::stream::Stream,
    layers::tcp::{TcpConnection, TcpReadHalf, TcpWriteHalf},
    layers::tls::{TlsConnection, TlsReadHalf, TlsWriteHalf},
    layers::upgradable::UpgradableConnection,
    layers::upgradable::split::{UpgradableReadHalf, UpgradableWriteHalf},
    relay::{RelayReport, relay},
    reload::{ReloadEvents, Reloaded, Reloader, ReloaderBuilder},
    rotation::{RotationError, RotationEvent, TicketKeyStore, TicketRotation},
    server::builder::ListenerBuilder,
    server::incoming::Incoming,
    server::listener::Listener,
    server::source::AnyListener,
    server::status::ListenerStatus,
    server::tls_builder::TlsListenerBuilder,
    server::tls_listener::TlsListener,
    transport::close::Close,
    transport::futures::{CloseWrite, Corked, WriteSequence},
    transport::lingering::Lingering,
    transport::split::{OwnedReadHalf, OwnedWriteHalf, ReuniteError, Split},
    transport::tcp::TcpTransport,
    transport::{Starting, Status, Stopping, TlsTransport, Transport, UpgradableTransport},
};

#[cfg(doc)]
pub mod rules {
    #![doc = include_str!("../docs/rules.md")]
}

/// Compiles the code in the README and in these pages.
#[cfg(all(doctest, feature = "tokio"))]
mod pages {
    #[doc = include_str!("../README.md")]
    struct Readme;
    #[doc = include_str!("../docs/endpoints.md")]
    struct Endpoints;
    #[doc = include_str!("../docs/observability.md")]
    struct Observability;
    #[doc = include_str!("../docs/identities.md")]
    struct Identities;
    #[doc = include_str!("../docs/tickets.md")]
    struct Tickets;
    #[doc = include_str!("../docs/reload.md")]
    struct Reload;
    #[doc = include_str!("../docs/dropped.md")]
    struct Dropped;
    #[cfg(all(feature = "hyper", feature = "axum", feature = "tonic", feature = "postgres"))]
    #[doc = include_str!("../docs/frameworks.md")]
    struct Frameworks;
    #[cfg(feature = "testing")]
    #[doc = include_str!("../docs/testing.md")]
    struct Testing;
    #[cfg(feature = "starttls")]
    #[doc = include_str!("../docs/starttls.md")]
    struct StartTls;
    #[cfg(feature = "codec")]
    #[doc = include_str!("../docs/protocols.md")]
    struct Protocols;
}
