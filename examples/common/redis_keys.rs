//! Ticket keys that servers rotate together in Redis.

use std::fmt;
use std::time::Duration;

use bowline::config::{TicketKeys, WrapKey};
use bowline::{ClientTls, Connector, RotationEvent, TicketKeyStore, TicketRotation, TlsConnection};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisConnectionInfo, RedisError, cmd};

use crate::common::args::Usage;
use crate::signals::Hangups;

/// How long the program waits for Redis when it starts. Without an answer, it starts without keys.
const FIRST: Duration = Duration::from_secs(1);

/// The ticket keys, and the rotation that renews them.
pub(crate) struct RedisKeys {
    rotation: TicketRotation<Redis>,
    last: Option<String>,
}

impl fmt::Debug for RedisKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.rotation.fmt(f)
    }
}

impl RedisKeys {
    /// `redis://[USER:PASSWORD@]HOST[:PORT]/NAME[?rotate=SECS&lifetime=SECS]`. With `rediss`, the connection uses TLS.
    /// `wrap` is the file of the key that encrypts the keys, and `ca` a file of roots for TLS.
    pub(crate) fn new(url: &str, wrap: Option<&str>, ca: Option<&str>) -> Result<Self, Usage> {
        let Url { is_tls, info, host, port, name, lifetime, rotate } = Url::parse(url)?;
        let tls = match (is_tls, ca) {
            (true, Some(ca)) => Some(ClientTls::builder().roots_pem_file(ca).build().map_err(Usage::of)?),
            (true, None) => Some(ClientTls::builder().platform_roots().build().map_err(Usage::of)?),
            (false, Some(_)) => return Err(Usage::new("--ticket-ca is for rediss:// only")),
            (false, None) => None,
        };
        let store = Redis { host, port, tls, info, connection: None };
        let rotation = TicketRotation::new(store, format!("bowline:{name}"));
        let mut rotation = rotation.lifetimes(lifetime, rotate).map_err(Usage::of)?;
        match wrap {
            Some(wrap) => rotation = rotation.wrap_key(WrapKey::from_file(wrap).map_err(Usage::of)?),
            None => eprintln!(
                "warning: without --ticket-wrap, everybody who can read this Redis can decrypt sessions that were recorded"
            ),
        }
        Ok(Self { rotation, last: None })
    }

    pub(crate) fn keys(&self) -> &TicketKeys {
        self.rotation.keys()
    }

    /// Reads the keys in Redis, and waits only a short time for the answer.
    pub(crate) async fn begin(&mut self) {
        // An error is ignored: `run` reads the keys again, and reports an error then.
        let _ = tokio::time::timeout(FIRST, self.rotation.look()).await;
    }

    /// Reads the keys in Redis at this interval and on SIGHUP. Reports failures, and the first success after a failure.
    pub(crate) async fn run(mut self, every: Duration, mut hangups: Hangups, tell: impl Fn(&RotationEvent)) {
        loop {
            let looked = self.rotation.look().await;
            RotationEvent::of(looked, &mut self.last).iter().for_each(&tell);
            tokio::select! {
                () = hangups.next() => {}
                () = tokio::time::sleep(every) => {}
            }
        }
    }
}

/// The parts of a URL.
struct Url {
    is_tls: bool,
    info: RedisConnectionInfo,
    host: String,
    port: u16,
    name: String,
    lifetime: Duration,
    rotate: Duration,
}

impl Url {
    /// An error does not show the password.
    fn parse(url: &str) -> Result<Self, Usage> {
        let wrong = |why: &str| {
            Usage::new(format!(
                "--ticket-keys {why}: redis://USER:PASSWORD@HOST:PORT/NAME, the credentials are optional"
            ))
        };
        let (is_tls, rest) = match (url.strip_prefix("redis://"), url.strip_prefix("rediss://")) {
            (Some(rest), _) => (false, rest),
            (None, Some(rest)) => (true, rest),
            (None, None) => return Err(wrong("begins with redis:// or rediss://")),
        };
        let (place, name) = rest.split_once('/').ok_or_else(|| wrong("has no name after the host"))?;
        let (name, query) = name.split_once('?').unwrap_or((name, ""));
        if name.is_empty() || name.contains('/') {
            return Err(wrong("needs a name after the host"));
        }
        let (credentials, place) = place.rsplit_once('@').map_or((None, place), |(who, place)| (Some(who), place));
        let mut info = RedisConnectionInfo::default();
        if let Some(credentials) = credentials {
            let decoded = |text: &str| decoded(text).ok_or_else(|| wrong("has credentials that are not encoded well"));
            let (user, password) = credentials.split_once(':').unwrap_or(("", credentials));
            if !user.is_empty() {
                info = info.set_username(decoded(user)?);
            }
            info = info.set_password(decoded(password)?);
        }
        // The colons of an IPv6 address are in brackets, so a last part that ends with `]` is no port.
        let (host, port) = match place.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                (host, port.parse().map_err(|_| wrong("has a port that is not a number"))?)
            }
            _ => (place, 6379),
        };
        if host.is_empty() {
            return Err(wrong("names no host"));
        }
        let (mut lifetime, mut rotate) = (TicketKeys::LIFETIME, None);
        for argument in query.split('&').filter(|argument| !argument.is_empty()) {
            let (option, value) = argument.split_once('=').unwrap_or((argument, ""));
            let time =
                value.parse().map(Duration::from_secs).map_err(|_| wrong("has a time that is not in seconds"))?;
            match option {
                "lifetime" => lifetime = time,
                "rotate" => rotate = Some(time),
                _ => return Err(wrong("has an argument that is neither rotate=SECS nor lifetime=SECS")),
            }
        }
        let rotate = rotate.unwrap_or(lifetime / 4);
        Ok(Self { is_tls, info, host: host.to_owned(), port, name: name.to_owned(), lifetime, rotate })
    }
}

/// Decodes `%3A` and the like.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        bytes.push(match (first, after) {
            (b'%', [high, low, after @ ..]) => {
                rest = after;
                let digit = |byte: u8| char::from(byte).to_digit(16);
                u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()?
            }
            (b'%', _) => return None,
            (byte, _) => *byte,
        });
    }
    String::from_utf8(bytes).ok()
}

/// A Redis server. TLS is that of this crate.
struct Redis {
    host: String,
    port: u16,
    tls: Option<ClientTls>,
    info: RedisConnectionInfo,
    /// Kept only after a successful call. After any other call, the next one opens a new connection.
    connection: Option<MultiplexedConnection>,
}

/// The reason why a call of Redis has failed.
#[derive(Debug)]
pub(crate) enum Failure {
    Connect(bowline::Error),
    Redis(RedisError),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(error) => bowline::chain(error).fmt(f),
            Self::Redis(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Failure {}

impl From<RedisError> for Failure {
    fn from(error: RedisError) -> Self {
        Self::Redis(error)
    }
}

impl From<bowline::Error> for Failure {
    fn from(error: bowline::Error) -> Self {
        Self::Connect(error)
    }
}

impl Redis {
    async fn connection(&mut self) -> Result<MultiplexedConnection, Failure> {
        if let Some(open) = self.connection.take() {
            return Ok(open);
        }
        let tcp = Connector::new().connect(&self.host, self.port).await?;
        // No time limit is needed here, because `TicketRotation::look` has one.
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let connection = match &self.tls {
            Some(tls) => {
                let connection = TlsConnection::connect(tcp, tls, self.host.as_str()).await?;
                let (connection, driver) =
                    MultiplexedConnection::new_with_config(&self.info, connection, config).await?;
                tokio::spawn(driver);
                connection
            }
            None => {
                let (connection, driver) = MultiplexedConnection::new_with_config(&self.info, tcp, config).await?;
                tokio::spawn(driver);
                connection
            }
        };
        Ok(connection)
    }
}

impl TicketKeyStore for Redis {
    type Error = Failure;

    async fn put_if_absent(&mut self, name: &str, value: &[u8], expires_in: Duration) -> Result<(), Failure> {
        let mut connection = self.connection().await?;
        let millis = u64::try_from(expires_in.as_millis()).unwrap_or(u64::MAX).max(1);
        let mut set = cmd("SET");
        set.arg(name).arg(value).arg("NX").arg("PX").arg(millis);
        set.query_async::<()>(&mut connection).await?;
        self.connection = Some(connection);
        Ok(())
    }

    async fn get(&mut self, names: &[String]) -> Result<Vec<Option<Vec<u8>>>, Failure> {
        let mut connection = self.connection().await?;
        let values = cmd("MGET").arg(names).query_async(&mut connection).await?;
        self.connection = Some(connection);
        Ok(values)
    }
}
