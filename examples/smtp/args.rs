//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use lexopt::Arg::{Long, Short};
use lexopt::{Parser, ValueExt};

use crate::common::args::{Usage, seconds, text};
use crate::host_port::host_port;
use crate::tls_flags::pair;

const HELP: &str = "\
Receives mail (RFC 5321) with STARTTLS (RFC 3207), and delivers it into a Maildir.

Usage: smtp --maildir DIR [OPTIONS]

  --maildir DIR               the directory for mail, which is made if it does not exist
  --listen ADDR               the address to listen on; default 127.0.0.1:2525; port 0 is any free port
  --certs DIR                 the directory of the development certificates, which are made if missing; default certs
  --cert FILE --key FILE      a certificate chain and its private key (PEM), instead of the development certificates
  --no-tls                    do not offer STARTTLS
  --require-tls               accept no mail before STARTTLS
  --max-size BYTES            the size of the largest mail; default 10485760
  --timeout SECS              how long a client may take for a command; default 300. A mail may take one second longer for
                              each KiB, but no pause between its bytes may be longer than SECS
  --help

A mail is answered with 250 only after it is complete and on disk in the Maildir. A client that got no answer sends its mail
again, so a mail may be stored twice. SMTP allows this.

SIGTERM and SIGINT drain: no new connections are accepted, received mail is delivered and answered, and the exit
status is 0.
Exit status: 2 for a wrong command line or a file that cannot be used, 1 for a port that cannot be opened.
";

/// The source of the server's certificate.
pub(crate) enum Identity {
    /// A chain and a key.
    Files(String, String),
    /// A directory in which the program makes them.
    Made(String),
    /// No certificate, so no TLS.
    None,
}

/// A valid command line.
pub(crate) struct Args {
    pub(crate) maildir: PathBuf,
    pub(crate) listen: String,
    pub(crate) identity: Identity,
    pub(crate) requires_tls: bool,
    pub(crate) max_size: usize,
    pub(crate) timeout: Duration,
}

impl Args {
    /// Reads the command line of the process.
    pub(crate) fn parse() -> Result<Self, Usage> {
        let mut parser = Parser::from_env();
        let (mut maildir, mut cert, mut key) = (None, None, None);
        let (mut listen, mut certs, mut has_tls) = ("127.0.0.1:2525".to_owned(), "certs".to_owned(), true);
        let mut requires_tls = false;
        let (mut max_size, mut timeout) = (10 << 20, Duration::from_secs(300));
        while let Some(arg) = parser.next()? {
            match arg {
                Long("maildir") => maildir = Some(PathBuf::from(parser.value()?)),
                Long("listen") => listen = host_port("--listen", text(&mut parser)?).map_err(Usage::new)?,
                Long("certs") => certs = text(&mut parser)?,
                Long("cert") => cert = Some(text(&mut parser)?),
                Long("key") => key = Some(text(&mut parser)?),
                Long("no-tls") => has_tls = false,
                Long("require-tls") => requires_tls = true,
                Long("max-size") => max_size = parser.value()?.parse()?,
                Long("timeout") => timeout = seconds(&mut parser)?,
                Long("help") | Short('h') => help(),
                other => return Err(other.unexpected().into()),
            }
        }
        let maildir = maildir.ok_or_else(|| Usage::new("--maildir DIR is missing"))?;
        if requires_tls && !has_tls {
            return Err(Usage::new("--no-tls and --require-tls contradict each other"));
        }
        let identity = match pair(cert, key)? {
            _ if !has_tls => Identity::None,
            Some((cert, key)) => Identity::Files(cert, key),
            None => Identity::Made(certs),
        };
        Ok(Self { maildir, listen, identity, requires_tls, max_size, timeout })
    }
}

fn help() -> ! {
    print!("{HELP}");
    std::process::exit(0)
}
