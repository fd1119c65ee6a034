//! The command line.

use std::time::Duration;

use bowline::{Endpoint, EndpointKind, Leftover, TlsVersion};
use lexopt::Arg::{Long, Short};
use lexopt::Parser;

use crate::common::args::{Usage, leftover, list, only, pair, seconds, text};
use crate::offer::Offer;
use crate::starttls::StartTlsBy;

const HELP: &str = "\
Takes TLS off connections in front of a plain service, or puts it on; ends are passed on as what they were.

Usage: terminator --listen ENDPOINT --connect ENDPOINT [OPTIONS]

ENDPOINT is tcp:HOST:PORT or tls:HOST:PORT; an IPv6 address stands in brackets. Port 0 listens on any free port.

In front, where clients come in:
  --cert FILE --key FILE    our certificate chain and private key (PEM); needed with tls: and --starttls
  --client-ca FILE          ask clients for a certificate of this CA (PEM)
  --starttls HOW            clients begin in plaintext and upgrade: smtp, imap, pop3, or line:CMD (CMD is the line that
                            asks for it). The greeting is that of the service
  --leftover refuse|feed    bytes that came ahead of the upgrade: end the connection, or give them to TLS where they can
                            be the begin of a handshake; default feed
  --tolerate-truncation     a client that goes without close_notify has ended in order; default: it is a truncation, and
                            the service is sent RST

Behind, where the service is:
  --ca FILE                 whom to trust (PEM); default: whom the system trusts
  --dangerous-no-verify     trust anybody
  --name NAME               the name to ask for and to check; default: that of the endpoint
  --connect-starttls HOW    begin in plaintext and upgrade: smtp, imap, pop3, ftp, ldap, xmpp, postgres, or line:CMD

  --alpn a,b                application protocols to agree on in front and to offer behind, the preferred one first
  --tls12 | --tls13         speak this version only
  --handshake-timeout SECS  how long handshakes and what goes before them may take; default 30
  --half-open-timeout SECS  how long a connection may be idle once one side has ended; default: no bound
  --close-timeout SECS      how long a close waits for the peer; default 10
  --max-connections N       so many at once, the next wait; default 1000
  --drain-timeout SECS      how long open connections may go on behind SIGTERM; default 10
  --log text|json           one line on standard output for each connection; default text
  --help

On standard output a line `listening KIND ADDRESS`, then `ready`, then one line for each connection when it has ended.
SIGTERM and SIGINT drain: no new connections; the open ones go on to their end, and are aborted when --drain-timeout is
over or a second signal comes; then exit status 0.
Exit status: 2 for a wrong command line or a file that cannot be used, 1 for a port that cannot be opened.
";

/// A command line that was understood.
#[derive(Debug)]
pub(crate) struct Args {
    pub(crate) listen: Endpoint,
    pub(crate) connect: Endpoint,
    pub(crate) identity: Option<(String, String)>,
    pub(crate) client_ca: Option<String>,
    pub(crate) offer: Option<Offer>,
    pub(crate) ca: Option<String>,
    pub(crate) no_verify: bool,
    pub(crate) name: Option<String>,
    pub(crate) upgrade: Option<StartTlsBy>,
    pub(crate) options: Options,
}

/// What holds for both sides.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) tolerate_truncation: bool,
    pub(crate) leftover: Option<Leftover>,
    pub(crate) alpn: Vec<String>,
    pub(crate) only: Option<TlsVersion>,
    pub(crate) handshake_timeout: Duration,
    pub(crate) half_open_timeout: Option<Duration>,
    pub(crate) close_timeout: Duration,
    pub(crate) max_connections: usize,
    pub(crate) drain_timeout: Duration,
    pub(crate) json: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            tolerate_truncation: false,
            leftover: None,
            alpn: Vec::new(),
            only: None,
            handshake_timeout: Duration::from_secs(30),
            half_open_timeout: None,
            close_timeout: Duration::from_secs(10),
            max_connections: 1000,
            drain_timeout: Duration::from_secs(10),
            json: false,
        }
    }
}

impl Args {
    /// Reads the command line of the process.
    pub(crate) fn parse() -> Result<Self, Usage> {
        let mut options = Options::default();
        let (mut listen, mut connect, mut cert, mut key, mut client_ca) = (None, None, None, None, None);
        let (mut offer, mut ca, mut no_verify, mut name, mut upgrade) = (None, None, false, None, None);
        let mut parser = Parser::from_env();
        while let Some(arg) = parser.next()? {
            match arg {
                Long("listen") => listen = Some(endpoint(&mut parser)?),
                Long("connect") => connect = Some(endpoint(&mut parser)?),
                Long("cert") => cert = Some(text(&mut parser)?),
                Long("key") => key = Some(text(&mut parser)?),
                Long("client-ca") => client_ca = Some(text(&mut parser)?),
                Long("starttls") => offer = Some(Offer::parse(&text(&mut parser)?)?),
                Long("ca") => ca = Some(text(&mut parser)?),
                Long("dangerous-no-verify") => no_verify = true,
                Long("name") => name = Some(text(&mut parser)?),
                Long("connect-starttls") => upgrade = Some(upgrade_by(&text(&mut parser)?)?),
                Long("help") | Short('h') => help(),
                Long(name) => {
                    let name = name.to_owned();
                    if !options.read(&name, &mut parser)? {
                        return Err(Long(&name).unexpected().into());
                    }
                }
                other => return Err(other.unexpected().into()),
            }
        }
        let listen = listen.ok_or_else(|| Usage::new("--listen is missing"))?;
        let connect = connect.ok_or_else(|| Usage::new("--connect is missing"))?;
        let identity = pair(cert, key)?;
        let args = Self { listen, connect, identity, client_ca, offer, ca, no_verify, name, upgrade, options };
        args.check()?;
        Ok(args)
    }

    fn check(&self) -> Result<(), Usage> {
        let is_tls = |endpoint: &Endpoint| endpoint.kind() == EndpointKind::Tls;
        let wrong = match self {
            _ if self.offer.is_some() && is_tls(&self.listen) => "--starttls begins in plaintext: --listen tcp:…",
            _ if self.upgrade.is_some() && is_tls(&self.connect) => {
                "--connect-starttls begins in plaintext: --connect tcp:…"
            }
            _ if self.is_tls_in_front() && self.identity.is_none() => "TLS in front needs --cert and --key",
            _ if !self.is_tls_in_front() && (self.identity.is_some() || self.client_ca.is_some()) => {
                "--cert, --key and --client-ca are for --listen tls:… and --starttls"
            }
            _ if self.ca.is_some() && self.no_verify => "--ca and --dangerous-no-verify do not go together",
            _ if !self.is_tls_behind() && (self.ca.is_some() || self.no_verify || self.name.is_some()) => {
                "--ca, --dangerous-no-verify and --name are for --connect tls:… and --connect-starttls"
            }
            _ => return Ok(()),
        };
        Err(Usage::new(wrong))
    }

    pub(crate) fn is_tls_in_front(&self) -> bool {
        self.offer.is_some() || self.listen.kind() == EndpointKind::Tls
    }

    pub(crate) fn is_tls_behind(&self) -> bool {
        self.upgrade.is_some() || self.connect.kind() == EndpointKind::Tls
    }

    /// The name of the service, to ask for and to check.
    pub(crate) fn name(&self) -> &str {
        self.name.as_deref().unwrap_or(self.connect.host())
    }
}

impl Options {
    /// Reads the option of this name; `false`: there is none.
    fn read(&mut self, name: &str, parser: &mut Parser) -> Result<bool, Usage> {
        match name {
            "tolerate-truncation" => self.tolerate_truncation = true,
            "leftover" => self.leftover = Some(leftover(parser)?),
            "alpn" => self.alpn = list(parser)?,
            "tls12" => only(&mut self.only, TlsVersion::V1_2)?,
            "tls13" => only(&mut self.only, TlsVersion::V1_3)?,
            "handshake-timeout" => self.handshake_timeout = seconds(parser)?,
            "half-open-timeout" => self.half_open_timeout = Some(seconds(parser)?),
            "close-timeout" => self.close_timeout = seconds(parser)?,
            "max-connections" => self.max_connections = count(parser)?,
            "drain-timeout" => self.drain_timeout = seconds(parser)?,
            "log" => self.json = is_json(&text(parser)?)?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn endpoint(parser: &mut Parser) -> Result<Endpoint, Usage> {
    text(parser)?.parse().map_err(Usage::new)
}

fn upgrade_by(how: &str) -> Result<StartTlsBy, Usage> {
    match StartTlsBy::parse(how)? {
        StartTlsBy::MySql => {
            Err(Usage::new("mysql numbers its packets through the upgrade: it cannot be put in between"))
        }
        by => Ok(by),
    }
}

fn count(parser: &mut Parser) -> Result<usize, Usage> {
    let text = text(parser)?;
    let count = text.parse().ok().filter(|count| (1..=1_000_000).contains(count));
    count.ok_or_else(|| Usage::new(format!("{text:?} is not a number of connections")))
}

fn is_json(how: &str) -> Result<bool, Usage> {
    match how {
        "text" => Ok(false),
        "json" => Ok(true),
        other => Err(Usage::new(format!("--log is text or json, not {other:?}"))),
    }
}

fn help() -> ! {
    print!("{HELP}");
    std::process::exit(0)
}
