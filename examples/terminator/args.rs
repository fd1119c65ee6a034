//! The command line.

use std::time::Duration;

use bowline::proxy::ProxyProtocol;
use bowline::starttls::Dialogue;
use bowline::{ClientEndpoint, EndpointKind, Leftover, ServerEndpoint};
use lexopt::Arg::{Long, Short};
use lexopt::Parser;

use crate::common::args::{Usage, leftover, seconds, text};
use crate::host_port::host_port;
use crate::log_format::is_json;
use crate::proxy::ProxyFlags;
use crate::ticket_keys::{KeySource, TicketKeyFlags};

const HELP: &str = "\
Terminates TLS in front of a plaintext service, or adds TLS. When one connection ends, the other one ends in the same way.

Usage: terminator --listen ENDPOINT --connect ENDPOINT [OPTIONS]

For --listen, where clients connect, ENDPOINT is one of
  tcp:HOST:PORT  unix:PATH  tls:HOST:PORT:cert=FILE:key=FILE  starttls:HOST:PORT:cert=FILE:key=FILE
Arguments of tls and starttls: cert= and key=, our certificate chain and private key (PEM); client-ca=FILE, require client
certificates of this CA; client-optional, accept clients without one too; alpn=a,b; min=1.2 and max=1.3. Of all kinds:
backlog=N. Of unix: mode=660.
  --starttls HOW            how clients of a starttls: endpoint request TLS: smtp, lmtp, imap, pop3, nntp, irc, ftp,
                            ldap, xmpp, xmpp-server, postgres, or line:CMD (CMD is the line that requests TLS). Clients
                            get the greeting of the service
  --leftover refuse|feed    how to treat bytes that came before the upgrade: end the connection, or pass them to TLS
                            if they can be the start of a handshake; default feed
  --tolerate-truncation     treat a client's end without close_notify as a clean end; by default it is a truncation, and the
                            service gets RST

For --connect, where the service is, ENDPOINT is one of
  tcp:HOST:PORT  unix:PATH  tls:HOST:PORT  starttls:HOST:PORT
Arguments of tls and starttls: ca=FILE, trusted roots (PEM; default the system's); name=NAME, the server name to request
and to check (default the host); cert=, key=, alpn=, min=, max=. Of all kinds: timeout=SECS for connecting,
default 30; bind=IP.
  --connect-starttls HOW    how to request TLS from the service of a starttls: endpoint; the values of --starttls

  --identities DIR          instead of cert= and key=: certificates and keys, chosen by the name that the client asks for.
                            NAME.pem with NAME.key, or sub-folders with tls.crt and tls.key, or both of these in DIR itself
  --client-ca FILE, --client-optional   as the arguments of the endpoint
  --crl FILE                refuse client certificates that this list revokes (PEM); needs a client CA
  --ticket-keys FILE,...    share the keys of session tickets with other processes, so that clients can resume their sessions
                            on each of them: files as nginx (one key of 48 or 80 bytes) or HAProxy (base64, at least
                            three lines) reads them. The first file has the key that encrypts new tickets
  --ticket-keys redis://HOST:PORT/NAME   the same, with keys of this name in Redis, which the processes rotate together
                            (only if this program was built in examples/web). rediss:// uses TLS. Credentials:
                            redis://USER:PASSWORD@HOST:PORT/NAME. Two times can follow the name:
                            ?rotate=SECS&lifetime=SECS. rotate is the time after which a new key encrypts (default: a
                            quarter of the lifetime), and lifetime is the time for which a ticket is valid (default 86400)
  --ticket-wrap FILE        encrypt the keys in Redis with the 32 bytes of this file, so that nobody can open a ticket with
                            the contents of Redis alone
  --ticket-ca FILE          the roots for rediss:// (PEM); default the roots of the system
  --reload-every SECS       the interval at which the files of TLS (as with the argument reload=SECS), and the keys in
                            Redis, are read again; default 10. SIGHUP reads them at once
  --proxy off|accept|require   the PROXY protocol, versions 1 and 2, from clients; default off. accept and require need
                            --trusted
  --trusted CIDR,...        the networks of the proxies; for a unix: endpoint, write unix. With accept, connections from
                            elsewhere need no header; with require, they are refused
  --proxy-out off|v1|v2     send the service a PROXY header before anything else. v2 contains the client's TLS version, cipher,
                            server name, ALPN and certificate name, unless TLS begins only after the header (starttls)

Write an IPv6 address in brackets, and a colon in a value as \\:. Port 0 listens on any free port.

  --handshake-timeout SECS  how long a handshake, and the plaintext before it, may take; default 30
  --idle-timeout SECS       how long a connection may be without traffic in both directions; default 600, 0: no limit
  --half-open-timeout SECS  how long a connection may be idle after one side has ended; default: no limit
  --close-timeout SECS      how long a close waits for the peer; default 10
  --max-connections N       the largest number of open connections; further ones wait; default 10000, or as many as
                            the limit of descriptors allows (two each)
  --max-per-peer N          the largest number of open connections of one IPv4 address or IPv6 /64; further ones are reset;
                            default: no limit
  --drain-delay SECS        how long connections are accepted after SIGTERM, while /health says draining; default 0
  --drain-timeout SECS      how long open connections may continue after SIGTERM; default 10
  --metrics ADDR            answer GET /metrics (Prometheus) and GET /health here, in plain HTTP
  --log text|json           one line on standard output for each connection; default text
  --help

The program prints `listening KIND ADDRESS` and `ready` to standard output, and then one line for each connection that has
ended. While more than 512 KiB of these lines are unread, no connection is accepted. If nothing is read for 5 seconds,
connections are accepted again. Lines beyond 1 MiB are dropped, and a later line reports how many.
SIGHUP reloads certificates, client CA, revocation list and ticket keys: all of them, or none if one of them cannot be
used.
SIGTERM and SIGINT drain: connections in the backlog and handshakes under way are finished, and no new connections are accepted. Open
connections continue until they end, and are aborted after --drain-timeout or at a second signal. The exit status is 0.
Exit status: 2 for a wrong command line or a file that cannot be used, 1 for a port that cannot be opened.
";

/// The time between two reads of the files, unless the user has chosen another one.
const DEFAULT_RELOAD: Duration = Duration::from_secs(10);

/// A valid command line.
#[derive(Debug)]
pub(crate) struct Args {
    pub(crate) listen: ServerEndpoint,
    pub(crate) connect: ClientEndpoint,
    /// Set if `--listen` is `starttls`.
    pub(crate) offer: Option<Dialogue>,
    /// Set if `--connect` is `starttls`.
    pub(crate) upgrade: Option<Dialogue>,
    pub(crate) options: Options,
}

/// The options that complete the arguments of the endpoint of `--listen`.
#[derive(Default)]
struct TlsFlags {
    identities: Option<String>,
    client_ca: Option<String>,
    client_optional: bool,
    crl: Option<String>,
    ticket_keys: Option<String>,
    reload_every: Option<Duration>,
}

impl TlsFlags {
    /// The endpoint, with these options as its arguments.
    fn listen(&self, endpoint: &str) -> Result<ServerEndpoint, Usage> {
        let options = [
            ("identities", &self.identities),
            ("client-ca", &self.client_ca),
            ("crl", &self.crl),
            ("ticket-keys", &self.ticket_keys),
        ];
        let mut all = endpoint.to_owned();
        for (name, value) in options {
            if let Some(value) = value {
                all.push_str(&format!(":{name}={}", escaped(value)));
            }
        }
        if self.client_optional {
            all.push_str(":client-optional");
        }
        let endpoint: ServerEndpoint = all.parse().map_err(Usage::of)?;
        self.reloading(&endpoint)
    }

    /// The files are read again every 10 seconds, unless the user has chosen another interval.
    fn reloading(&self, endpoint: &ServerEndpoint) -> Result<ServerEndpoint, Usage> {
        let has = |wanted: &str| endpoint.arguments().iter().any(|(name, _)| *name == wanted);
        let has_tls = has("cert") || has("identities");
        match self.reload_every {
            _ if !has_tls => Ok(endpoint.clone()),
            None if has("reload") => Ok(endpoint.clone()),
            every => {
                let every = every.unwrap_or(DEFAULT_RELOAD);
                let seconds = format!("{}.{:09}", every.as_secs(), every.subsec_nanos());
                endpoint.with([("reload", seconds.as_str())]).map_err(Usage::of)
            }
        }
    }
}

/// The characters that have a special meaning in an endpoint.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace(':', "\\:").replace('=', "\\=")
}

/// Settings of both sides.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) tolerate_truncation: bool,
    pub(crate) leftover: Option<Leftover>,
    pub(crate) handshake_timeout: Duration,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) half_open_timeout: Option<Duration>,
    pub(crate) close_timeout: Duration,
    /// `None`: the option was not given.
    pub(crate) max_connections: Option<usize>,
    pub(crate) max_per_peer: Option<usize>,
    pub(crate) drain_delay: Duration,
    pub(crate) drain_timeout: Duration,
    pub(crate) ticket_keys: KeySource,
    /// The time between two reads of the keys in Redis.
    #[cfg(feature = "redis")]
    pub(crate) look_every: Duration,
    pub(crate) proxy: Option<ProxyProtocol>,
    pub(crate) proxy_out: ProxyOut,
    pub(crate) metrics: Option<String>,
    pub(crate) json: bool,
}

/// The header that the service gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProxyOut {
    Off,
    V1,
    V2,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            tolerate_truncation: false,
            leftover: None,
            handshake_timeout: Duration::from_secs(30),
            idle_timeout: Some(Duration::from_secs(600)),
            half_open_timeout: None,
            close_timeout: Duration::from_secs(10),
            max_connections: None,
            max_per_peer: None,
            drain_delay: Duration::ZERO,
            drain_timeout: Duration::from_secs(10),
            ticket_keys: KeySource::Own,
            #[cfg(feature = "redis")]
            look_every: DEFAULT_RELOAD,
            proxy: None,
            proxy_out: ProxyOut::Off,
            metrics: None,
            json: false,
        }
    }
}

impl Args {
    /// Reads the command line of the process.
    pub(crate) fn parse() -> Result<Self, Usage> {
        let mut options = Options::default();
        let (mut listen, mut connect, mut offer, mut upgrade) = (None, None, None, None);
        let (mut tls, mut proxy) = (TlsFlags::default(), ProxyFlags::default());
        let mut ticket_keys = TicketKeyFlags::default();
        let mut parser = Parser::from_env();
        while let Some(arg) = parser.next()? {
            match arg {
                Long("listen") => listen = Some(text(&mut parser)?),
                Long("connect") => connect = Some(text(&mut parser)?.parse().map_err(Usage::of)?),
                Long("starttls") => offer = Some(dialogue(&text(&mut parser)?)?),
                Long("connect-starttls") => upgrade = Some(dialogue(&text(&mut parser)?)?),
                Long("identities") => tls.identities = Some(text(&mut parser)?),
                Long("client-ca") => tls.client_ca = Some(text(&mut parser)?),
                Long("client-optional") => tls.client_optional = true,
                Long("crl") => tls.crl = Some(text(&mut parser)?),
                Long("reload-every") => tls.reload_every = Some(positive(seconds(&mut parser)?)?),
                Long("proxy") => proxy.proxy = Some(text(&mut parser)?),
                Long("trusted") => proxy.trusted = Some(text(&mut parser)?),
                Long("help") | Short('h') => help(),
                Long(name) => {
                    let name = name.to_owned();
                    if !options.read(&name, &mut parser)? && !ticket_keys.read(&name, &mut parser)? {
                        return Err(Long(&name).unexpected().into());
                    }
                }
                other => return Err(other.unexpected().into()),
            }
        }
        options.ticket_keys = ticket_keys.finish()?;
        #[cfg(feature = "redis")]
        {
            options.look_every = tls.reload_every.unwrap_or(DEFAULT_RELOAD);
        }
        if let KeySource::Files(files) = &options.ticket_keys {
            tls.ticket_keys = Some(files.clone());
        }
        let listen = tls.listen(&listen.ok_or_else(|| Usage::new("--listen is missing"))?)?;
        options.proxy = proxy.finish()?;
        if options.proxy.is_some() && listen.arguments().iter().any(|(name, _)| *name == "proxy") {
            return Err(Usage::new("--proxy and the argument proxy= of --listen are both given"));
        }
        let connect = connect.ok_or_else(|| Usage::new("--connect is missing"))?;
        let args = Self { listen, connect, offer, upgrade, options };
        args.check()?;
        Ok(args)
    }

    fn check(&self) -> Result<(), Usage> {
        let wrong = match (self.listen.kind(), &self.offer, self.connect.kind(), &self.upgrade) {
            (EndpointKind::StartTls, None, ..) => "--listen starttls:… needs --starttls",
            (kind, Some(_), ..) if kind != EndpointKind::StartTls => "--starttls is for --listen starttls:…",
            (_, _, EndpointKind::StartTls, None) => "--connect starttls:… needs --connect-starttls",
            (_, _, kind, Some(_)) if kind != EndpointKind::StartTls => "--connect-starttls is for --connect starttls:…",
            _ => return Ok(()),
        };
        Err(Usage::new(wrong))
    }
}

impl Options {
    /// Parses the option with this name; `false` if there is no such option.
    fn read(&mut self, name: &str, parser: &mut Parser) -> Result<bool, Usage> {
        match name {
            "tolerate-truncation" => self.tolerate_truncation = true,
            "leftover" => self.leftover = Some(leftover(parser)?),
            "handshake-timeout" => self.handshake_timeout = seconds(parser)?,
            "idle-timeout" => self.idle_timeout = Some(seconds(parser)?).filter(|bound| !bound.is_zero()),
            "half-open-timeout" => self.half_open_timeout = Some(seconds(parser)?),
            "close-timeout" => self.close_timeout = seconds(parser)?,
            "max-connections" => self.max_connections = Some(count(parser)?),
            "max-per-peer" => self.max_per_peer = Some(count(parser)?),
            "drain-delay" => self.drain_delay = seconds(parser)?,
            "proxy-out" => self.proxy_out = proxy_out(&text(parser)?)?,
            "metrics" => self.metrics = Some(host_port("--metrics", text(parser)?).map_err(Usage::new)?),
            "drain-timeout" => self.drain_timeout = seconds(parser)?,
            "log" => self.json = is_json(parser)?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn dialogue(how: &str) -> Result<Dialogue, Usage> {
    match how.parse().map_err(Usage::of)? {
        Dialogue::MySql => {
            Err(Usage::new("mysql is not supported here, because it numbers its packets across the upgrade"))
        }
        Dialogue::ManageSieve => {
            Err(Usage::new("sieve is not supported here, because the server greets again after the upgrade"))
        }
        dialogue => Ok(dialogue),
    }
}

fn count(parser: &mut Parser) -> Result<usize, Usage> {
    let text = text(parser)?;
    let count = text.parse().ok().filter(|count| (1..=1_000_000).contains(count));
    count.ok_or_else(|| Usage::new(format!("{text:?} is not a number of connections")))
}

fn positive(time: Duration) -> Result<Duration, Usage> {
    if time.is_zero() { Err(Usage::new("--reload-every must be more than 0")) } else { Ok(time) }
}

fn proxy_out(how: &str) -> Result<ProxyOut, Usage> {
    match how {
        "off" => Ok(ProxyOut::Off),
        "v1" => Ok(ProxyOut::V1),
        "v2" => Ok(ProxyOut::V2),
        other => Err(Usage::new(format!("--proxy-out is off, v1 or v2, not {other:?}"))),
    }
}

fn help() -> ! {
    print!("{HELP}");
    std::process::exit(0)
}
