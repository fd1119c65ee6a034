//! The command line.

use std::time::Duration;

use bowline::proxy::ProxyProtocol;
use lexopt::Arg::{Long, Short};
use lexopt::Parser;

use crate::common::args::{Usage, seconds, text};
use crate::host_port::host_port;
use crate::log_format::is_json;
use crate::proxy::ProxyFlags;
use crate::ticket_keys::{KeySource, TicketKeyFlags};
use crate::tls_flags::{list, pair};

const HELP: &str = "\
A web service over TLS: HTTP/1.1 and HTTP/2. GET / shows a page about the connection and the server.

Usage: web [OPTIONS]

  --listen ADDR               where to listen; default 127.0.0.1:8443. Port 0 is any free port. Sockets that a service
                              manager passes in (LISTEN_FDS) are used instead
  --certs DIR                 the directory of the development certificates, which are made if missing; default certs
  --cert FILE --key FILE      a certificate chain and its private key (PEM), instead of the development certificates
  --identities DIR            certificates and keys, chosen by the name that the client asks for: NAME.pem with NAME.key,
                              or sub-folders with tls.crt and tls.key, or tls.crt and tls.key in DIR itself. A client that
                              asks for no name or for an unknown one gets the first pair in the order of the names
  --client-ca FILE            require client certificates of this CA (PEM)
  --client-optional           ... and also accept clients without a certificate
  --crl FILE                  refuse client certificates that this list revokes (PEM); needs --client-ca
  --alpn a,b                  application protocols, the preferred one first; default h2,http/1.1
  --proxy off|accept|require  the PROXY protocol, versions 1 and 2; default off. accept and require need --trusted
  --trusted CIDR,...          the networks of the proxies. With accept, connections from elsewhere need no header; with
                              require, they are refused
  --ticket-keys FILE,...      share the keys of session tickets with other processes, so that clients can resume their
                              sessions on each of them: files as nginx (one key of 48 or 80 bytes) or HAProxy (base64,
                              at least three lines) reads them. The first file has the key that encrypts new tickets
  --ticket-keys redis://HOST:PORT/NAME   the same, with keys of this name in Redis, which the processes rotate together.
                              rediss:// uses TLS. Credentials: redis://USER:PASSWORD@HOST:PORT/NAME. Two times can
                              follow the name: ?rotate=SECS&lifetime=SECS. rotate is the time after which a new key
                              encrypts (default: a quarter of the lifetime), and lifetime is the time for which a ticket
                              is valid (default 86400)
  --ticket-wrap FILE          encrypt the keys in Redis with the 32 bytes of this file, so that nobody can open a ticket
                              with the contents of Redis alone
  --ticket-ca FILE            the roots for rediss:// (PEM); default the roots of the system
  --reload-every SECS         the interval at which the files, and the keys in Redis, are read again; default 10. SIGHUP
                              reads them at once
  --handshake-timeout SECS    how long a PROXY header and a handshake may take together; default 30
  --max-unfinished N          the largest number of unfinished handshakes; the next connection waits; default 4096
  --max-connections N         the largest number of open connections; the next one waits; default: no limit
  --max-per-peer N            the largest number of open connections of one client address (IPv6: /64); the next one is
                              reset; default: no limit
  --drain-delay SECS          how long connections are accepted after SIGTERM, while /health says draining; default 0
  --drain-timeout SECS        how long open connections may continue after that; default 30
  --workers N                 the number of listening sockets on the port (SO_REUSEPORT); default 1
  --upgrade-from PATH         take over the listening sockets of the service that runs with the same PATH (a Unix socket),
                              and let that service drain; no client is refused. Without such a service, open the ports.
                              A later service can take over from this one in the same way
  --metrics ADDR              answer GET /metrics (Prometheus) and GET /health here, in plain HTTP
  --log text|json             one line on standard output for each event; default text
  --help

GET /whoami describes the connection in JSON. GET /slow?ms=N answers after that time, GET /bytes?n=N with that many bytes,
POST /sum with the number and the SHA-256 of the bytes of the body. GET /health answers ok, or 503 during a drain.
The program prints `listening https ADDR` for each address and `ready` to standard output, and then the events.
SIGHUP reloads certificates, client CA, revocation list and ticket keys: all of them, or none if one of them cannot be
used.
SIGTERM and SIGINT drain: handshakes and requests under way are finished, and the exit status is 0. A second signal aborts.
Exit status: 2 for a wrong command line or a file that cannot be used, 1 for a port that cannot be opened.
";

/// The source of the server's certificates.
#[derive(Debug)]
pub(crate) enum Identity {
    /// A chain and a key.
    Files(String, String),
    /// A directory of identities.
    Several(String),
    /// A directory in which the program makes development certificates.
    Made(String),
}

/// A valid command line.
#[derive(Debug)]
pub(crate) struct Args {
    pub(crate) listen: Option<String>,
    pub(crate) identity: Identity,
    pub(crate) client_ca: Option<String>,
    pub(crate) client_optional: bool,
    pub(crate) crl: Option<String>,
    pub(crate) ticket_keys: KeySource,
    pub(crate) alpn: Vec<String>,
    pub(crate) proxy: Option<ProxyProtocol>,
    pub(crate) reload_every: Duration,
    pub(crate) handshake_timeout: Duration,
    pub(crate) max_unfinished: Option<usize>,
    pub(crate) max_connections: Option<usize>,
    pub(crate) max_per_peer: Option<usize>,
    pub(crate) drain_delay: Duration,
    pub(crate) drain_timeout: Duration,
    pub(crate) workers: Option<usize>,
    pub(crate) upgrade_from: Option<String>,
    pub(crate) metrics: Option<String>,
    pub(crate) json: bool,
}

impl Default for Args {
    fn default() -> Self {
        Self {
            listen: None,
            identity: Identity::Made("certs".into()),
            client_ca: None,
            client_optional: false,
            crl: None,
            ticket_keys: KeySource::Own,
            alpn: vec!["h2".into(), "http/1.1".into()],
            proxy: None,
            reload_every: Duration::from_secs(10),
            handshake_timeout: Duration::from_secs(30),
            max_unfinished: None,
            max_connections: None,
            max_per_peer: None,
            drain_delay: Duration::ZERO,
            drain_timeout: Duration::from_secs(30),
            workers: None,
            upgrade_from: None,
            metrics: None,
            json: false,
        }
    }
}

/// The options that are checked together.
#[derive(Default)]
struct Together {
    cert: Option<String>,
    key: Option<String>,
    identities: Option<String>,
    certs: Option<String>,
    proxy: ProxyFlags,
    ticket_keys: TicketKeyFlags,
}

impl Args {
    /// Reads the command line of the process.
    pub(crate) fn parse() -> Result<Self, Usage> {
        let mut args = Self::default();
        let mut together = Together::default();
        let mut parser = Parser::from_env();
        while let Some(arg) = parser.next()? {
            match arg {
                Long("help") | Short('h') => help(),
                Long(name) => {
                    let name = name.to_owned();
                    if !args.read(&name, &mut parser)? && !together.read(&name, &mut parser)? {
                        return Err(Long(&name).unexpected().into());
                    }
                }
                other => return Err(other.unexpected().into()),
            }
        }
        args.finish(together)
    }

    /// Parses the option with this name; `false` if there is no such option.
    fn read(&mut self, name: &str, parser: &mut Parser) -> Result<bool, Usage> {
        match name {
            "listen" => self.listen = Some(host_port("--listen", text(parser)?).map_err(Usage::new)?),
            "client-ca" => self.client_ca = Some(text(parser)?),
            "client-optional" => self.client_optional = true,
            "crl" => self.crl = Some(text(parser)?),
            "alpn" => self.alpn = list(parser)?,
            "reload-every" => self.reload_every = positive("--reload-every", seconds(parser)?)?,
            "handshake-timeout" => self.handshake_timeout = positive("--handshake-timeout", seconds(parser)?)?,
            "max-unfinished" => self.max_unfinished = Some(count(parser)?),
            "max-connections" => self.max_connections = Some(count(parser)?),
            "max-per-peer" => self.max_per_peer = Some(count(parser)?),
            "drain-delay" => self.drain_delay = seconds(parser)?,
            "drain-timeout" => self.drain_timeout = seconds(parser)?,
            "workers" => self.workers = Some(workers(parser)?),
            "metrics" => self.metrics = Some(host_port("--metrics", text(parser)?).map_err(Usage::new)?),
            "log" => self.json = is_json(parser)?,
            "upgrade-from" => self.upgrade_from = Some(text(parser)?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn finish(mut self, together: Together) -> Result<Self, Usage> {
        if self.client_ca.is_none() && self.client_optional {
            return Err(Usage::new("--client-optional needs --client-ca"));
        }
        if self.client_ca.is_none() && self.crl.is_some() {
            return Err(Usage::new("--crl needs --client-ca"));
        }
        self.proxy = together.proxy.finish()?;
        self.ticket_keys = together.ticket_keys.finish()?;
        self.identity = identity(pair(together.cert, together.key)?, together.identities, together.certs)?;
        Ok(self)
    }
}

impl Together {
    /// As [`Args::read`].
    fn read(&mut self, name: &str, parser: &mut Parser) -> Result<bool, Usage> {
        let option = match name {
            "cert" => &mut self.cert,
            "key" => &mut self.key,
            "identities" => &mut self.identities,
            "certs" => &mut self.certs,
            "proxy" => &mut self.proxy.proxy,
            "trusted" => &mut self.proxy.trusted,
            _ => return self.ticket_keys.read(name, parser),
        };
        *option = Some(text(parser)?);
        Ok(true)
    }
}

fn identity(files: Option<(String, String)>, several: Option<String>, made: Option<String>) -> Result<Identity, Usage> {
    match (files, several, made) {
        (Some((cert, key)), None, None) => Ok(Identity::Files(cert, key)),
        (None, Some(dir), None) => Ok(Identity::Several(dir)),
        (None, None, made) => Ok(Identity::Made(made.unwrap_or_else(|| "certs".into()))),
        _ => Err(Usage::new("only one of --cert with --key, --identities and --certs can be given")),
    }
}

fn positive(option: &str, time: Duration) -> Result<Duration, Usage> {
    if time.is_zero() { Err(Usage::new(format!("{option} must be more than 0"))) } else { Ok(time) }
}

fn count(parser: &mut Parser) -> Result<usize, Usage> {
    let text = text(parser)?;
    let count = text.parse().ok().filter(|count| (1..=1_000_000).contains(count));
    count.ok_or_else(|| Usage::new(format!("{text:?} is not a number from 1 to 1000000")))
}

fn workers(parser: &mut Parser) -> Result<usize, Usage> {
    let text = text(parser)?;
    let count = text.parse().ok().filter(|count| (1..=1024).contains(count));
    count.ok_or_else(|| Usage::new(format!("{text:?} is not a number of sockets from 1 to 1024")))
}

fn help() -> ! {
    print!("{HELP}");
    std::process::exit(0)
}
