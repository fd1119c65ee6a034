//! The command line.

use std::time::Duration;

use bowline::{Leftover, TlsVersion};
use lexopt::Arg::{Long, Short};
use lexopt::Parser;

use crate::common::args::{Usage, leftover, seconds, text};
use crate::host_port::host_port;
use crate::log_format::is_json;
use crate::tls_flags::{list, only, pair};

const HELP: &str = "\
A service for manual tests: connect, type HELP, and see what the transport of the server does.

Usage: console [OPTIONS]

  --tcp ADDR                  plaintext; default 127.0.0.1:7000
  --tls ADDR                  TLS from the first byte on; default 127.0.0.1:7001
  --starttls ADDR             plaintext until STARTTLS; default 127.0.0.1:7002
                              If any of these three is given, only those are opened. Port 0 is any free port.
  --certs DIR                 the directory of the development certificates, which are made if missing; default certs
  --cert FILE --key FILE      a certificate chain and its private key (PEM), instead of the development certificates
  --client-ca FILE            ask clients for a certificate of this CA (PEM)
  --client-optional           ... and also accept clients without a certificate
  --alpn a,b                  application protocols to negotiate, the preferred one first
  --tls12 | --tls13           use only this version of TLS
  --close-timeout SECS        how long a close waits for the peer; default 10
  --handshake-timeout SECS    how long a handshake may take; default 30
  --leftover refuse|feed      how to treat bytes that came before an upgrade: end the connection, or pass them to TLS
                              if they can be the start of a handshake; default feed
  --face async|protocol       the API of the crate that serves; default async
  --log text|json             one line on standard output for each event; default text
  --help

While more than 512 KiB of standard output are unread, no connection is accepted. If nothing is read for 5 seconds,
connections are accepted again. Lines beyond 1 MiB are dropped, and a later line reports how many.
SIGTERM and SIGINT drain: no new connections are accepted, the open ones are closed in order, and the exit status is 0.
Exit status: 2 for a wrong command line or a file that cannot be used, 1 for a port that cannot be opened.
";

/// One port of the console.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Tcp,
    Tls,
    StartTls,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::StartTls => "starttls",
        }
    }

    fn default_addr(self) -> &'static str {
        match self {
            Self::Tcp => "127.0.0.1:7000",
            Self::Tls => "127.0.0.1:7001",
            Self::StartTls => "127.0.0.1:7002",
        }
    }
}

const KINDS: [Kind; 3] = [Kind::Tcp, Kind::Tls, Kind::StartTls];

/// The source of the server's certificate.
#[derive(Debug)]
pub(crate) enum Identity {
    /// A chain and a key.
    Files(String, String),
    /// A directory in which the program makes them.
    Made(String),
}

/// The API of the crate that serves the connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Face {
    /// The async API.
    Async,
    /// The callback API.
    Protocol,
}

/// A valid command line.
#[derive(Debug)]
pub(crate) struct Args {
    pub(crate) ports: Vec<(Kind, String)>,
    pub(crate) identity: Identity,
    pub(crate) client_ca: Option<String>,
    pub(crate) client_optional: bool,
    pub(crate) alpn: Vec<String>,
    pub(crate) only: Option<TlsVersion>,
    pub(crate) close_timeout: Option<Duration>,
    pub(crate) handshake_timeout: Option<Duration>,
    pub(crate) leftover: Option<Leftover>,
    pub(crate) face: Face,
    pub(crate) json: bool,
}

impl Args {
    /// Reads the command line of the process.
    pub(crate) fn parse() -> Result<Self, Usage> {
        let mut args = Self {
            ports: Vec::new(),
            identity: Identity::Made("certs".into()),
            client_ca: None,
            client_optional: false,
            alpn: Vec::new(),
            only: None,
            close_timeout: None,
            handshake_timeout: None,
            leftover: None,
            face: Face::Async,
            json: false,
        };
        let (mut cert, mut key) = (None, None);
        let mut parser = Parser::from_env();
        while let Some(arg) = parser.next()? {
            match arg {
                Long("tcp") => args.listen(Kind::Tcp, &mut parser)?,
                Long("tls") => args.listen(Kind::Tls, &mut parser)?,
                Long("starttls") => args.listen(Kind::StartTls, &mut parser)?,
                Long("certs") => args.identity = Identity::Made(text(&mut parser)?),
                Long("cert") => cert = Some(text(&mut parser)?),
                Long("key") => key = Some(text(&mut parser)?),
                Long("client-ca") => args.client_ca = Some(text(&mut parser)?),
                Long("client-optional") => args.client_optional = true,
                Long("alpn") => args.alpn = list(&mut parser)?,
                Long("tls12") => only(&mut args.only, TlsVersion::V1_2)?,
                Long("tls13") => only(&mut args.only, TlsVersion::V1_3)?,
                Long("close-timeout") => args.close_timeout = Some(seconds(&mut parser)?),
                Long("handshake-timeout") => args.handshake_timeout = Some(seconds(&mut parser)?),
                Long("leftover") => args.leftover = Some(leftover(&mut parser)?),
                Long("face") => args.face = face(&text(&mut parser)?)?,
                Long("log") => args.json = is_json(&mut parser)?,
                Long("help") | Short('h') => help(),
                other => return Err(other.unexpected().into()),
            }
        }
        args.finish(pair(cert, key)?)
    }

    fn finish(mut self, files: Option<(String, String)>) -> Result<Self, Usage> {
        if self.client_optional && self.client_ca.is_none() {
            return Err(Usage::new("--client-optional needs --client-ca"));
        }
        if let Some((cert, key)) = files {
            self.identity = Identity::Files(cert, key);
        }
        if self.ports.is_empty() {
            self.ports = KINDS.map(|kind| (kind, kind.default_addr().to_owned())).into();
        }
        self.ports.sort_by_key(|(kind, _)| KINDS.iter().position(|known| known == kind));
        Ok(self)
    }

    fn listen(&mut self, kind: Kind, parser: &mut Parser) -> Result<(), Usage> {
        let addr = host_port(&format!("--{}", kind.name()), text(parser)?).map_err(Usage::new)?;
        self.ports.push((kind, addr));
        Ok(())
    }
}

fn face(name: &str) -> Result<Face, Usage> {
    match name {
        "async" => Ok(Face::Async),
        "protocol" => Ok(Face::Protocol),
        other => Err(Usage::new(format!("--face is async or protocol, not {other:?}"))),
    }
}

fn help() -> ! {
    print!("{HELP}");
    std::process::exit(0)
}
