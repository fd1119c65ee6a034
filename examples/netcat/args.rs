//! The command line.

use std::time::Duration;

use bowline::starttls::Dialogue;
use bowline::{ClientEndpoint, EndpointKind, Leftover, TlsVersion};
use lexopt::Arg::{Long, Short, Value};
use lexopt::{Parser, ValueExt};

use crate::common::args::{Usage, leftover, seconds, text};
use crate::tls_flags::{list, only, pair};

const HELP: &str = "\
A client for pipes, over TCP and TLS.

Usage: netcat [OPTIONS] ENDPOINT

ENDPOINT is tcp:HOST:PORT or tls:HOST:PORT; write an IPv6 address in brackets. Optional arguments after the port:
:timeout=SECS, the time limit for connecting and starting TLS, and :bind=IP, the local address.

  --ca FILE                trusted roots (PEM); default: the roots of the system
  --dangerous-no-verify    accept any certificate
  --starttls HOW           use the plaintext part of a protocol, then upgrade to TLS: smtp, lmtp, imap, pop3, nntp, sieve,
                           irc, ftp, ldap, xmpp, xmpp-server, postgres, mysql, or line:CMD (read a line, send CMD, read
                           a line)
  --name NAME              the server name to request and to check; default: the host of the endpoint
  --cert FILE --key FILE   our own certificate chain and private key (PEM)
  --alpn a,b               application protocols to offer, the preferred one first
  --tls12 | --tls13        use only this version of TLS
  --half-close             the end of standard input ends our half only (close_write); the default
  --no-half-close          the end of standard input closes the connection
  --ignore-eof             the end of standard input ends nothing, and the connection lasts until the peer ends it: for
                           servers that drop their answer when our half ends
  --abort-after N          abort after N bytes were received
  --close-timeout SECS     how long a close waits for the peer; default 10
  --timeout SECS           the longest time for the whole run; default: no limit
  --leftover refuse|feed   how to treat bytes that the server sent before TLS started: end the connection, or pass them
                           to TLS if they can be the start of a handshake; default refuse
  --report                 print a last line of JSON to standard error: how the connection ended, and its facts
  --help

When the peer has ended and standard input is silent, the connection is closed. SIGINT aborts.

Exit status: 0 the peer ended cleanly, or --abort-after was done; 1 standard input or output failed; 2 wrong usage;
3 truncated; 4 reset; 5 TLS failure; 6 timed out; 7 could not connect; 8 upgrade refused; 130 interrupted.
";

/// The certificates to trust.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trust {
    Ca(String),
    Platform,
    Anybody,
}

/// A valid command line.
#[derive(Debug)]
pub(crate) struct Args {
    pub(crate) endpoint: ClientEndpoint,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) options: Options,
}

impl std::ops::Deref for Args {
    type Target = Options;

    fn deref(&self) -> &Options {
        &self.options
    }
}

/// Everything except the endpoint.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) trust: Trust,
    pub(crate) starttls: Option<Dialogue>,
    pub(crate) name: Option<String>,
    pub(crate) identity: Option<(String, String)>,
    pub(crate) alpn: Vec<String>,
    pub(crate) only: Option<TlsVersion>,
    pub(crate) half_close: bool,
    pub(crate) ignore_eof: bool,
    pub(crate) abort_after: Option<u64>,
    pub(crate) close_timeout: Option<Duration>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) leftover: Option<Leftover>,
    pub(crate) report: bool,
}

impl Args {
    /// Reads the command line of the process.
    pub(crate) fn parse() -> Result<Self, Usage> {
        let mut options = Options {
            trust: Trust::Platform,
            starttls: None,
            name: None,
            identity: None,
            alpn: Vec::new(),
            only: None,
            half_close: true,
            ignore_eof: false,
            abort_after: None,
            close_timeout: None,
            timeout: None,
            leftover: None,
            report: false,
        };
        let (mut endpoint, mut cert, mut key) = (None, None, None);
        let mut parser = Parser::from_env();
        while let Some(arg) = parser.next()? {
            match arg {
                Long("ca") => trust(&mut options.trust, Trust::Ca(text(&mut parser)?))?,
                Long("dangerous-no-verify") => trust(&mut options.trust, Trust::Anybody)?,
                Long("starttls") => options.starttls = Some(text(&mut parser)?.parse().map_err(Usage::of)?),
                Long("name") => options.name = Some(text(&mut parser)?),
                Long("cert") => cert = Some(text(&mut parser)?),
                Long("key") => key = Some(text(&mut parser)?),
                Long("alpn") => options.alpn = list(&mut parser)?,
                Long("tls12") => only(&mut options.only, TlsVersion::V1_2)?,
                Long("tls13") => only(&mut options.only, TlsVersion::V1_3)?,
                Long("half-close") => options.half_close = true,
                Long("no-half-close") => options.half_close = false,
                Long("ignore-eof") => options.ignore_eof = true,
                Long("abort-after") => options.abort_after = Some(parser.value()?.parse()?),
                Long("close-timeout") => options.close_timeout = Some(seconds(&mut parser)?),
                Long("timeout") => options.timeout = Some(seconds(&mut parser)?),
                Long("leftover") => options.leftover = Some(leftover(&mut parser)?),
                Long("report") => options.report = true,
                Long("help") | Short('h') => help(),
                Value(value) if endpoint.is_none() => endpoint = Some(value.string()?),
                other => return Err(other.unexpected().into()),
            }
        }
        options.identity = pair(cert, key)?;
        if options.ignore_eof && !options.half_close {
            return Err(Usage::new("--ignore-eof and --no-half-close contradict each other"));
        }
        let endpoint = endpoint.ok_or_else(|| Usage::new("an ENDPOINT is missing"))?;
        Self::new(endpoint.parse().map_err(Usage::of)?, options)
    }

    fn new(endpoint: ClientEndpoint, options: Options) -> Result<Self, Usage> {
        let (EndpointKind::Tcp | EndpointKind::Tls, Some(host), Some(port)) =
            (endpoint.kind(), endpoint.host(), endpoint.port())
        else {
            return Err(Usage::new(format!("ENDPOINT is tcp:HOST:PORT or tls:HOST:PORT, not {endpoint}")));
        };
        if let Some((name, _)) = endpoint.arguments().iter().find(|(name, _)| !["timeout", "bind"].contains(name)) {
            return Err(Usage::new(format!("{name}= in {endpoint}: use the options of the program for TLS")));
        }
        let host = host.to_owned();
        Ok(Self { endpoint, host, port, options })
    }

    /// Whether TLS is used.
    pub(crate) fn is_tls(&self) -> bool {
        self.endpoint.kind() == EndpointKind::Tls || self.starttls.is_some()
    }

    /// The kind of the connection in the report.
    pub(crate) fn kind(&self) -> &'static str {
        if self.starttls.is_some() { "starttls" } else { self.endpoint.kind().name() }
    }

    /// The name to send as SNI and to check.
    pub(crate) fn name(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.host)
    }
}

fn trust(old: &mut Trust, new: Trust) -> Result<(), Usage> {
    match std::mem::replace(old, new) {
        Trust::Platform => Ok(()),
        Trust::Ca(_) | Trust::Anybody => Err(Usage::new("give --ca or --dangerous-no-verify once, and not both")),
    }
}

fn help() -> ! {
    print!("{HELP}");
    std::process::exit(0)
}
