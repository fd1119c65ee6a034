//! Server endpoints.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use tokio::task::coop::consume_budget;

use super::socket::Socket;
use super::{BoxConnection, inherited, unix};
use crate::address::{Address, IpFamily};
use crate::config::ServerTls;
use crate::config::start_tls::StartTls;
use crate::conn::control::Control;
use crate::conn::group::DrainGroup;
use crate::endpoint::parse::ServerEndpoint;
use crate::endpoint::parse::{Families, Security, ServerPlace};
use crate::error::Error;
use crate::policy::Policy;
use crate::reload::Reloader;
use crate::server::builder::ListenerBuilder;
use crate::server::incoming::Incoming;
use crate::server::listener::Listener;
use crate::server::status::ListenerStatus;

impl ServerEndpoint {
    /// Reads and checks the files that the arguments name, then listens. `policy` applies to the connections. For other
    /// settings, use [`listen_with`](Self::listen_with).
    ///
    /// # Errors
    /// As [`listen_with`](Self::listen_with).
    ///
    /// # Cancel safety
    /// Dropping the future leaves no socket open.
    ///
    /// # Panics
    /// Outside of a tokio runtime with I/O enabled.
    #[doc(alias = "listenTCP")]
    #[doc(alias = "listenSSL")]
    #[doc(alias = "listenUNIX")]
    #[track_caller]
    pub fn listen(&self, policy: impl Into<Arc<Policy>>) -> impl Future<Output = Result<EndpointListener, Error>> {
        self.listen_with(Listener::builder().policy(policy))
    }

    /// Reads and checks the files that the arguments name, then listens with the policy, the limits and the group of
    /// the builder. The endpoint's `backlog=` and `proxy=` override those of the builder. With `reload=`, a
    /// [`Reloader`] watches the files, and reports to the observers of the builder's policy. Settings about IP
    /// addresses, such as [`max_per_peer`](ListenerBuilder::max_per_peer), have no effect on a Unix socket.
    ///
    /// A stale Unix socket, on which nobody listens any more, is replaced. Anything else at the path is not touched and
    /// is an error; this includes a socket on which another process listens. The socket has its mode before it accepts
    /// the first connection. Its file is removed when the listener is dropped or when the group starts to drain. Two
    /// services that replace the same stale socket at the same moment may disturb each other, so let only one service
    /// use a path. (Linux distinguishes a full backlog from a stale socket; BSD refuses the connection in both cases.)
    ///
    /// # Errors
    /// [`Error::Config`] with the file, before anything is opened. [`Error::Bind`] with the address and the system's
    /// error (rule: tcp-8). If a name does not resolve, [`Error::Ended`] with the resolver's error.
    ///
    /// # Cancel safety
    /// Dropping the future leaves no socket open.
    ///
    /// # Panics
    /// Outside of a tokio runtime with I/O enabled.
    pub async fn listen_with(&self, builder: ListenerBuilder) -> Result<EndpointListener, Error> {
        // rule: life-6. The call may fail at once, so it costs budget.
        consume_budget().await;
        let builder = match self.backlog() {
            Some(backlog) => builder.backlog(backlog),
            None => builder,
        };
        #[cfg(feature = "proxy")]
        let builder = match self.proxy() {
            Some(text) => builder.proxy_or_none(text.load()),
            None => builder,
        };
        let policy = builder.its_policy();
        let (host, port, families, security, builder) = match self.place() {
            ServerPlace::Inet { host, port, families, reuse_port, security } => {
                let builder = if *reuse_port { builder.reuse_port(true) } else { builder };
                (host, *port, *families, security, builder)
            }
            ServerPlace::Unix { path, mode } => {
                let socket = Socket::Unix(unix::Listening::open(path.as_ref(), *mode, builder)?);
                return Ok(EndpointListener { socket, security: Security::Plain, reloader: None });
            }
            ServerPlace::Inherited { from, security } => {
                let security = security.load(|text| text.load())?;
                let socket = inherited::open(from, builder, security.get().is_some())?;
                return Ok(self.listening(socket, security, &policy));
            }
        };
        let security = security.load(|text| text.load())?;
        let (any, builder) = match families {
            Families::Given => (IpAddr::from(Ipv4Addr::UNSPECIFIED), builder),
            Families::V4 => (Ipv4Addr::UNSPECIFIED.into(), builder.only(IpFamily::V4)),
            Families::V6 => (Ipv6Addr::UNSPECIFIED.into(), builder.only(IpFamily::V6)),
            Families::Dual => (Ipv6Addr::UNSPECIFIED.into(), builder.dual_stack(true)),
        };
        let listener = match host {
            Some(host) => builder.bind((host.as_str(), port)).await?,
            None => builder.bind((any, port)).await?,
        };
        Ok(self.listening(Socket::Inet(listener), security, &policy))
    }

    fn listening(&self, socket: Socket, security: Security<ServerTls>, policy: &Policy) -> EndpointListener {
        let watched = self.security().get().zip(security.get());
        let reloader = watched.and_then(|(text, tls)| {
            let reloader = Reloader::builder().every(text.reload()?).observers_of(policy);
            Some(reloader.server(tls, text.files()).start())
        });
        EndpointListener { socket, security, reloader }
    }
}

/// Accepts connections at one endpoint. Made by [`ServerEndpoint::listen`].
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), bowline::Error> {
/// use bowline::{ClientEndpoint, Policy, ServerEndpoint, Transport};
/// use tokio::io::AsyncReadExt;
///
/// let endpoint: ServerEndpoint = "tcp:0:interface=127.0.0.1".parse()?;
/// let listener = endpoint.listen(Policy::default()).await?;
/// let client: ClientEndpoint = format!("tcp:{}:timeout=5", listener.local_addr()).parse()?;
/// let server = tokio::spawn(async move {
///     let incoming = listener.accept().await?;
///     let mut connection = incoming.begin().await?; // the handshake, on tls: in a task for each connection
///     Ok::<_, bowline::Error>(connection.close_with(b"welcome").await)
/// });
///
/// let mut connection = client.connect().await?;
/// let mut text = String::new();
/// connection.read_to_string(&mut text).await?;
/// assert_eq!(text, "welcome");
/// assert!(connection.close().await.is_clean());
/// assert!(server.await.expect("it does not panic")?.is_clean());
/// # Ok(()) }
/// ```
#[doc(alias = "serverFromString")]
#[doc(alias = "IStreamServerEndpoint")]
#[doc(alias = "IListeningPort")]
pub struct EndpointListener {
    pub(super) socket: Socket,
    pub(super) security: Security<ServerTls>,
    reloader: Option<Reloader>,
}

impl EndpointListener {
    /// The next connection, before its start. Like [`Listener::accept`], this method waits at the limits, skips
    /// connections that fail, and retries by itself if the system is out of descriptors (rule: tcp-5).
    ///
    /// # Errors
    /// [`Error::Bind`]: the listening socket is no longer usable. [`Error::Draining`]: the [group](Self::group) drains,
    /// and the listener is closed.
    ///
    /// # Cancel safety
    /// Cancel safe: no connection is lost when the future is dropped (rule: tcp-7).
    pub async fn accept(&self) -> Result<EndpointIncoming, Error> {
        let accepted = match &self.socket {
            Socket::Inet(listener) => Accepted::Inet(listener.accept().await?),
            Socket::Unix(listening) => Accepted::Unix(listening.accept().await?),
        };
        Ok(EndpointIncoming { accepted, security: self.security.clone() })
    }

    /// The bound address of each socket: several, if the endpoint's name has several addresses.
    pub fn local_addrs(&self) -> Vec<Address> {
        match &self.socket {
            Socket::Inet(listener) => listener.local_addrs(),
            Socket::Unix(listening) => vec![listening.local_addr()],
        }
    }

    /// Takes over a Unix socket that already listens, as [`ListenerBuilder::from_std`] takes over a TCP socket: other
    /// processes may hold it too (rule: tcp-10). Its file stays.
    ///
    /// # Errors
    /// The system's error if the socket cannot be used.
    ///
    /// # Panics
    /// Outside of a tokio runtime with I/O enabled.
    #[cfg(unix)]
    pub fn from_std_unix(socket: std::os::unix::net::UnixListener, builder: ListenerBuilder) -> Result<Self, Error> {
        let listening = unix::Listening::from_std(socket, builder)?;
        Ok(Self { socket: Socket::Unix(listening), security: Security::Plain, reloader: None })
    }

    /// The bound address; the first one, if there are several. Its port is never 0 (rule: tcp-8).
    #[doc(alias = "getHost")]
    pub fn local_addr(&self) -> Address {
        match &self.socket {
            Socket::Inet(listener) => listener.local_addr(),
            Socket::Unix(listening) => listening.local_addr(),
        }
    }

    /// The state of the listener.
    pub fn status(&self) -> ListenerStatus {
        match &self.socket {
            Socket::Inet(listener) => listener.status(),
            Socket::Unix(listening) => listening.status(),
        }
    }

    /// The group of the accepted connections: see [`Listener::group`].
    #[doc(alias = "stopListening")]
    pub fn group(&self) -> &DrainGroup {
        match &self.socket {
            Socket::Inet(listener) => listener.group(),
            Socket::Unix(listening) => listening.group(),
        }
    }

    /// How to start TLS on a connection, according to the endpoint's arguments. `None` for endpoints without TLS.
    pub fn start_tls(&self) -> Option<StartTls> {
        self.security.get().map(StartTls::server)
    }

    /// The TLS configuration of the endpoint, for example for its warnings.
    pub fn server_tls(&self) -> Option<&ServerTls> {
        self.security.get()
    }

    /// The reloader of an endpoint with `reload=`, for example to load the files on SIGHUP. It stops when the listener
    /// and all clones of the reloader are dropped.
    pub fn reloader(&self) -> Option<&Reloader> {
        self.reloader.as_ref()
    }

    /// The parts of a listener on TCP, for [`TlsListener`](crate::TlsListener), for
    /// [`protocol::Server`](crate::protocol::Server), and for everything else that takes a [`Listener`]. `None` for a
    /// Unix socket, which is closed then.
    pub fn into_parts(self) -> Option<EndpointParts> {
        let Self { socket, security, reloader } = self;
        // On systems without Unix sockets, the enum has one variant, and the pattern always matches.
        #[cfg_attr(not(unix), allow(irrefutable_let_patterns))]
        let Socket::Inet(listener) = socket else { return None };
        let begins_with_tls = matches!(security, Security::Tls(_));
        Some(EndpointParts { listener, begins_with_tls, tls: security.get().cloned(), reloader })
    }
}

/// The parts of an endpoint on TCP: see [`EndpointListener::into_parts`].
///
/// ```no_run
/// # async fn serve(protocol: impl bowline::protocol::Factory) -> Result<(), Box<dyn std::error::Error>> {
/// use bowline::protocol::Server;
/// use bowline::{Policy, ServerEndpoint};
///
/// let endpoint: ServerEndpoint = "tls:8443:identities=/etc/certs:reload=10".parse()?;
/// let parts = endpoint.listen(Policy::default()).await?.into_parts().ok_or("not on TCP")?;
/// let mut server = Server::new(parts.listener, protocol);
/// if let Some(tls) = parts.tls.as_ref().filter(|_| parts.begins_with_tls) {
///     server = server.tls(tls);
/// }
/// server.run().await?; // `parts.reloader` must live as long as the server
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct EndpointParts {
    /// The listener. If the endpoint has `proxy=`, it reads the headers.
    pub listener: Listener,
    /// The configuration, if the endpoint has TLS.
    pub tls: Option<ServerTls>,
    /// Whether TLS begins with the first byte (`tls:`). Otherwise it begins with an upgrade (`starttls:`).
    pub begins_with_tls: bool,
    /// Loads the files again, if the endpoint has `reload=`. Keep it as long as the listener: it stops when its last
    /// clone is dropped.
    pub reloader: Option<Reloader>,
}

impl fmt::Debug for EndpointListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointListener")
            .field("local_addr", &self.local_addr())
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}

/// An accepted connection before its start: no byte has been read or written. It counts as unfinished, and on TCP its
/// handshake deadline is running: see [`Incoming`].
#[must_use = "dropping it closes the connection"]
pub struct EndpointIncoming {
    pub(super) accepted: Accepted,
    pub(super) security: Security<ServerTls>,
}

#[cfg_attr(not(unix), allow(clippy::large_enum_variant))]
pub(super) enum Accepted {
    Inet(Incoming),
    Unix(unix::Accepted),
}

impl EndpointIncoming {
    /// Starts the connection. On `tls`, this does the handshake, with a deadline that counts from accept (rules:
    /// secure-1, secure-5). The other kinds are ready at once, in plaintext.
    ///
    /// # Errors
    /// As [`Incoming::handshake_upgradable`].
    ///
    /// # Cancel safety
    /// Dropping the future drops the connection.
    pub async fn begin(self) -> Result<BoxConnection, Error> {
        let incoming = match self.accepted {
            Accepted::Inet(mut incoming) => {
                incoming.pass_gate().await?;
                incoming
            }
            Accepted::Unix(accepted) => return accepted.begin().await,
        };
        Ok(Box::new(match &self.security {
            Security::Plain | Security::StartTls(_) => incoming.into_upgradable(),
            Security::Tls(tls) => incoming.handshake_upgradable(tls).await?,
        }))
    }

    /// How to start TLS on the connection: see [`EndpointListener::start_tls`].
    pub fn start_tls(&self) -> Option<StartTls> {
        self.security.get().map(StartTls::server)
    }

    /// The handle of the connection. It stays the same after the start.
    pub fn control(&self) -> Control {
        match &self.accepted {
            Accepted::Inet(incoming) => incoming.control(),
            Accepted::Unix(accepted) => accepted.control(),
        }
    }

    /// Our address.
    #[doc(alias = "getHost")]
    #[doc(alias = "host")]
    pub fn local_addr(&self) -> Address {
        self.control().local_addr()
    }

    /// The peer's address.
    #[doc(alias = "getPeer")]
    #[doc(alias = "peer")]
    pub fn peer_addr(&self) -> Address {
        self.control().peer_addr()
    }
}

impl fmt::Debug for EndpointIncoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointIncoming")
            .field("local_addr", &self.local_addr())
            .field("peer_addr", &self.peer_addr())
            .finish_non_exhaustive()
    }
}
