//! Client endpoints.

use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::task::coop::consume_budget;
use tokio::time::Instant;

use super::{BoxConnection, unix};
use crate::address::IpFamily;
use crate::client::connect::Connector;
use crate::config::ClientTls;
use crate::config::start_tls::StartTls;
use crate::conn::time::{after, until};
use crate::endpoint::parse::ClientEndpoint;
use crate::endpoint::parse::{ClientPlace, Families, Security};
use crate::error::{Error, Phase, Reason};
use crate::layers::upgradable::UpgradableConnection;
use crate::policy::Policy;
use crate::reload::Reloader;
use crate::transport::Transport;

/// The time for the whole connect if the endpoint sets none (rule: tcp-9).
const TIMEOUT: Duration = Duration::from_secs(30);

impl ClientEndpoint {
    /// Connects, with the default [`Policy`]. For more than one connection make a [`connector`](Self::connector), which
    /// reads the files once.
    ///
    /// # Errors
    /// As those of [`connector`](Self::connector) and of [`EndpointConnector::connect`].
    ///
    /// # Cancel safety
    /// Dropping the future ends all attempts; no connection is left open.
    #[track_caller]
    pub fn connect(&self) -> impl Future<Output = Result<BoxConnection, Error>> + use<> {
        let connector = self.connector_at(Arc::default(), Location::caller());
        async move { connector?.connect().await }
    }

    /// Reads and checks the files that the arguments name. With `reload=`, a [`Reloader`] watches them, and reports to
    /// the observers of the policy. It stops when the last clone of the connector is dropped.
    ///
    /// # Errors
    /// [`Error::Config`], as [`client_tls`](Self::client_tls).
    ///
    /// # Panics
    /// With `reload=`, outside of a tokio runtime with time enabled.
    #[track_caller]
    pub fn connector(&self, policy: impl Into<Arc<Policy>>) -> Result<EndpointConnector, Error> {
        let policy = policy.into();
        let mut connector = self.connector_at(Arc::clone(&policy), Location::caller())?;
        let watched = self.security().get().zip(connector.client_tls());
        if let Some((every, text, tls)) = watched.and_then(|(text, tls)| Some((text.reload()?, text, tls))) {
            let reloader = Reloader::builder().every(every).observers_of(&policy);
            connector.reloader = Some(reloader.client(tls, text.files()?).start());
        }
        Ok(connector)
    }

    /// A connector that reads the files once.
    fn connector_at(&self, policy: Arc<Policy>, place: &'static Location<'static>) -> Result<EndpointConnector, Error> {
        let security = match self.place() {
            ClientPlace::Unix { .. } => Security::Plain,
            ClientPlace::Inet { inet, security, .. } => security.load(|text| {
                let name = text.name.as_ref().unwrap_or(&inet.host);
                Ok(HandshakeSettings { tls: text.load()?, name: name.clone() })
            })?,
        };
        Ok(EndpointConnector { endpoint: self.clone(), policy, security, place, reloader: None })
    }
}

/// Connects to one endpoint, any number of times. Made by [`ClientEndpoint::connector`]; cheap to clone. Its
/// connections share the cache of TLS sessions for resumption.
///
/// ```no_run
/// # async fn example() -> Result<(), bowline::Error> {
/// use bowline::{ClientEndpoint, Policy, Transport, UpgradableTransport};
/// use tokio::io::{AsyncBufReadExt, AsyncWriteExt};
///
/// let endpoint: ClientEndpoint = "starttls:mail.example.org:2525:ca=certs/ca.pem:timeout=5".parse()?;
/// let connector = endpoint.connector(Policy::default())?;
/// let mut connection = connector.connect().await?;
/// let mut answer = String::new();
/// connection.write_all(b"STARTTLS\r\n").await?;
/// connection.read_line(&mut answer).await?;
/// if let Some(how) = connector.start_tls() {
///     connection.start_tls(how).await?;
/// }
/// println!("{}", connection.close().await);
/// # Ok(()) }
/// ```
#[doc(alias = "clientFromString")]
#[doc(alias = "IStreamClientEndpoint")]
#[derive(Debug, Clone)]
pub struct EndpointConnector {
    endpoint: ClientEndpoint,
    policy: Arc<Policy>,
    security: Security<HandshakeSettings>,
    /// The place in the code that made the connector.
    place: &'static Location<'static>,
    reloader: Option<Reloader>,
}

/// The settings of a handshake.
#[derive(Debug, Clone)]
struct HandshakeSettings {
    tls: ClientTls,
    name: String,
}

impl EndpointConnector {
    /// Connects. On `tls`, this includes the handshake and the verification of the server (rule: secure-1). The other
    /// kinds start in plaintext.
    ///
    /// The endpoint's `timeout=` (default 30 seconds) limits the whole connect, including the handshake (rule: tcp-4).
    /// [`Policy::handshake_timeout`](crate::Policy) can only make the handshake's time shorter.
    ///
    /// # Errors
    /// [`Error::Connect`] with every address that was tried (rule: tcp-4). On `tls`, also the errors of the handshake:
    /// see [`UpgradableConnection::connect`]; at the deadline it is [`TimedOut`](crate::Reason::TimedOut) in
    /// [`Phase::Handshake`](crate::Phase).
    ///
    /// # Cancel safety
    /// Dropping the future ends all attempts; no connection is left open.
    #[doc(alias = "connectTCP")]
    #[doc(alias = "connectSSL")]
    #[doc(alias = "connectUNIX")]
    pub async fn connect(&self) -> Result<BoxConnection, Error> {
        self.connect_with_prefix(b"").await
    }

    /// As [`connect`](Self::connect), but sends these bytes first, for example a PROXY header
    /// (`proxy::ProxyHeader`). They are sent in plaintext, even if TLS follows at once. They count as bytes
    /// of the connection, and its deadline covers them.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    ///
    /// # Cancel safety
    /// As [`connect`](Self::connect).
    #[doc(alias = "PROXY")]
    pub async fn connect_with_prefix(&self, prefix: &[u8]) -> Result<BoxConnection, Error> {
        // rule: life-6. The call may fail at once, so it costs budget.
        consume_budget().await;
        let timeout = self.endpoint.timeout().unwrap_or(TIMEOUT);
        let deadline = after(Some(timeout));
        let (inet, bind, families) = match self.endpoint.place() {
            ClientPlace::Unix { path } => {
                let mut connection =
                    unix::connect(path.as_ref(), Some(timeout), Arc::clone(&self.policy), self.place).await?;
                write_first(&mut connection, prefix, deadline).await?;
                return Ok(connection);
            }
            ClientPlace::Inet { inet, bind, families, .. } => (inet, bind, *families),
        };
        let mut connector = Connector::at(self.place).timeout(timeout).policy(Arc::clone(&self.policy));
        if let Some(local) = *bind {
            connector = connector.bind_to(local);
        }
        connector = match families {
            Families::Given | Families::Dual => connector,
            Families::V4 => connector.only(IpFamily::V4),
            Families::V6 => connector.only(IpFamily::V6),
        };
        let mut connection = UpgradableConnection::new(connector.connect(&inet.host, inet.port).await?);
        write_first(&mut connection, prefix, deadline).await?;
        match &self.security {
            Security::Plain | Security::StartTls(_) => {}
            Security::Tls(HandshakeSettings { tls, name }) => {
                let bound = after(self.policy.handshake_timeout);
                let deadline = deadline.map_or(bound, |end| Some(bound.map_or(end, |bound| bound.min(end))));
                connection.start_tls_by(StartTls::client(tls, name).at_begin(), deadline).await?;
            }
        }
        Ok(Box::new(connection))
    }

    /// How to start TLS on a connection, according to the endpoint's arguments: for the upgrade on `starttls`, for
    /// another session inside the first one on `tls`. `None` for endpoints without TLS.
    pub fn start_tls(&self) -> Option<StartTls> {
        self.security.get().map(|HandshakeSettings { tls, name }| StartTls::client(tls, name))
    }

    /// The TLS configuration of the endpoint, for example for its warnings.
    pub fn client_tls(&self) -> Option<&ClientTls> {
        self.security.get().map(|HandshakeSettings { tls, .. }| tls)
    }

    /// The reloader of an endpoint with `reload=`.
    pub fn reloader(&self) -> Option<&Reloader> {
        self.reloader.as_ref()
    }

    /// The endpoint.
    pub fn endpoint(&self) -> &ClientEndpoint {
        &self.endpoint
    }
}

/// Writes the first bytes of a connection.
async fn write_first(
    connection: &mut (impl Transport + ?Sized),
    prefix: &[u8],
    deadline: Option<Instant>,
) -> Result<(), Error> {
    if prefix.is_empty() {
        return Ok(());
    }
    let written = until(deadline, connection.write_all(prefix)).await;
    written.unwrap_or_else(|| Err(Reason::TimedOut(Phase::Connect).into())).map_err(Error::from)
}
