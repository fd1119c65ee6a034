//! Runs a protocol for each accepted connection.

use std::fmt;
use std::sync::Arc;

use super::callbacks::Protocol;
use super::conn::Handle;
use super::guard::guard;
use super::runner::Runner;
use crate::config::ServerTls;
use crate::config::start_tls::StartTls;
use crate::error::Error;
use crate::layers::tcp::TcpConnection;
use crate::layers::upgradable::UpgradableConnection;
use crate::server::incoming::Incoming;
use crate::server::listener::Listener;

/// Makes the protocol for a connection, or refuses the connection. A closure of the form `|incoming| Some(protocol)`
/// is a factory; [`every`] makes a factory of a closure that never refuses.
#[doc(alias = "IFactory")]
#[doc(alias = "ServerFactory")]
pub trait Factory: Send + Sync + 'static {
    /// The type of the protocols.
    type Protocol: Protocol;

    /// Makes the protocol of one connection, which has not started yet. If this method returns `None` or panics, the
    /// connection is refused with RST (rule: life-7).
    #[doc(alias = "buildProtocol")]
    fn build(&self, incoming: &Incoming) -> Option<Self::Protocol>;
}

impl<F, P> Factory for F
where
    F: Fn(&Incoming) -> Option<P> + Send + Sync + 'static,
    P: Protocol,
{
    type Protocol = P;

    fn build(&self, incoming: &Incoming) -> Option<P> {
        self(incoming)
    }
}

/// A factory that refuses no connection: `every(|| Echo)`.
pub fn every<P: Protocol>(make: impl Fn() -> P + Send + Sync + 'static) -> impl Factory<Protocol = P> {
    move |_: &Incoming| Some(make())
}

/// Accepts connections, and runs a protocol for each in a task of its own.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use bowline::protocol::{CallbackResult, Conn, Protocol, Server, every};
/// use bowline::{Connector, Listener};
/// use tokio::io::AsyncReadExt;
///
/// struct Greeter;
///
/// impl Protocol for Greeter {
///     fn connection_made(&mut self, conn: &mut dyn Conn) -> CallbackResult {
///         conn.write(b"hello\r\n");
///         conn.close();
///         Ok(())
///     }
///
///     fn data_received(&mut self, _: &mut dyn Conn, data: &[u8]) -> CallbackResult<usize> {
///         Ok(data.len())
///     }
/// }
///
/// let listener = Listener::bind("127.0.0.1:0").await?;
/// let address = listener.local_addr();
/// let serving = tokio::spawn(Server::new(listener, every(|| Greeter)).run());
///
/// let mut client = Connector::new().connect_addr(address).await?;
/// let mut greeting = String::new();
/// client.read_to_string(&mut greeting).await?;
/// assert_eq!(greeting, "hello\r\n");
/// # serving.abort();
/// # Ok(()) }
/// ```
#[doc(alias = "listenTCP")]
#[doc(alias = "listenSSL")]
#[must_use = "a server does nothing until it is run"]
pub struct Server<F> {
    listener: Listener,
    tls: Option<ServerTls>,
    factory: Arc<F>,
}

impl<F> fmt::Debug for Server<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("listener", &self.listener).finish_non_exhaustive()
    }
}

impl<F: Factory> Server<F> {
    /// Connections start in plaintext, and can be upgraded.
    pub fn new(listener: Listener, factory: F) -> Self {
        Self { listener, tls: None, factory: Arc::new(factory) }
    }

    /// Connections start with TLS. The handshake deadline counts from accept (rule: secure-5). `connection_made` is
    /// called before the handshake.
    pub fn tls(self, tls: &ServerTls) -> Self {
        Self { tls: Some(tls.clone()), ..self }
    }

    /// The listener.
    pub fn listener(&self) -> &Listener {
        &self.listener
    }

    /// Accepts until the listener's [group](Listener::group) drains. Then every protocol is notified by
    /// [`Protocol::draining`].
    ///
    /// # Errors
    /// The errors of [`Listener::accept`]: the listening socket is no longer usable. A failure of one connection
    /// affects no other connection.
    ///
    /// # Cancel safety
    /// Dropping the future stops accepting. Existing connections continue.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub async fn run(self) -> Result<(), Error> {
        loop {
            let mut incoming = match self.listener.accept().await {
                Ok(incoming) => incoming,
                Err(Error::Draining) => return Ok(()),
                Err(error) => return Err(error),
            };
            if !incoming.has_gate() {
                self.serve(incoming);
                continue;
            }
            // rule: proxy-5. The factory sees the client.
            let (factory, tls) = (Arc::clone(&self.factory), self.tls.clone());
            tokio::spawn(async move {
                if incoming.pass_gate().await.is_ok() {
                    serve(&*factory, tls.as_ref(), incoming);
                }
            });
        }
    }

    /// Runs a protocol for this connection, in its own task. `None`: the factory has refused the connection or
    /// panicked.
    ///
    /// If the listener expects PROXY headers, the header is read before the first callback (rule: proxy-5). The factory
    /// sees the client only if `read_proxy_header` of the connection was awaited before.
    pub fn serve(&self, incoming: Incoming) -> Option<Handle> {
        serve(&*self.factory, self.tls.as_ref(), incoming)
    }
}

fn serve<F: Factory>(factory: &F, tls: Option<&ServerTls>, incoming: Incoming) -> Option<Handle> {
    // rule: life-7
    let Ok(Some(protocol)) = guard(|| Ok(factory.build(&incoming))) else {
        incoming.control().abort();
        return None;
    };
    let runner = Runner::accept(protocol, incoming, tls);
    let handle = runner.handle();
    tokio::spawn(runner.run());
    Some(handle)
}

impl<P: Protocol> Runner<P, UpgradableConnection<TcpConnection>> {
    /// Runs this protocol over an accepted connection. If a configuration is given, the connection starts with TLS,
    /// and the handshake deadline counts from accept (rule: secure-5). The connection can be upgraded and downgraded.
    ///
    /// If the listener expects PROXY headers, the header is read before the first callback (rule: proxy-5). If the
    /// connection is refused because of its header, the protocol gets no callback, and the report of
    /// [`run`](Self::run) has the reason.
    pub fn accept(protocol: P, incoming: Incoming, tls: Option<&ServerTls>) -> Self {
        let (gate, finishes) = (incoming.gate(), incoming.finishes());
        let (deadline, unfinished, connection) = incoming.into_parts();
        let runner = Self::new(protocol, UpgradableConnection::new(connection));
        // rule: tcp-6: the connection counts as unfinished until its header was read and its handshake is done.
        let (runner, until_header) = match tls {
            Some(tls) => (runner.begin_tls_by(StartTls::server(tls), deadline).unfinished(unfinished), None),
            None => (runner, Some(unfinished)),
        };
        let Some(gate) = gate else { return runner };
        runner.after_header(Box::new(move |connection| {
            Box::pin(async move {
                let _until_header = until_header;
                match connection.plain_mut() {
                    Some(tcp) => gate.pass_by(tcp, deadline, finishes).await,
                    None => Ok(()),
                }
            })
        }))
    }
}
