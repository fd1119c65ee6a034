//! The plaintext parts of the protocols that upgrade to TLS. Each reads exactly what belongs to it, so that whatever lies
//! behind the last answer is the transport's to judge.
//!
//! A refusal is an error with [`Refused`] inside; any other error is the connection's.

mod binary;
mod lines;
mod xmpp;

use std::{fmt, io};

use bowline::{Phase, Reason};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite};

use crate::common::args::Usage;

/// Which plaintext protocol goes before TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StartTlsBy {
    Line(String),
    Smtp,
    Imap,
    Pop3,
    Ftp,
    Ldap,
    Xmpp,
    Postgres,
    MySql,
}

impl StartTlsBy {
    pub(crate) fn parse(how: &str) -> Result<Self, Usage> {
        if let Some(command) = how.strip_prefix("line:") {
            return Ok(Self::Line(command.into()));
        }
        Ok(match how {
            "smtp" => Self::Smtp,
            "imap" => Self::Imap,
            "pop3" => Self::Pop3,
            "ftp" => Self::Ftp,
            "ldap" => Self::Ldap,
            "xmpp" => Self::Xmpp,
            "postgres" => Self::Postgres,
            "mysql" => Self::MySql,
            _ => return Err(Usage::new(format!("no protocol {how:?} is known that begins TLS"))),
        })
    }
}

/// What a plaintext protocol needs of a connection.
pub(crate) trait Plain: AsyncBufRead + AsyncWrite + Unpin {}

impl<T: AsyncBufRead + AsyncWrite + Unpin> Plain for T {}

/// Speaks the protocol up to where TLS begins, and gives the server's greeting where it has one. `name` is who the server is
/// to be.
pub(crate) async fn negotiate(by: &StartTlsBy, name: &str, peer: &mut impl Plain) -> io::Result<String> {
    match by {
        StartTlsBy::Line(command) => lines::any(peer, command).await,
        StartTlsBy::Smtp => lines::smtp(peer).await,
        StartTlsBy::Imap => lines::imap(peer).await,
        StartTlsBy::Pop3 => lines::pop3(peer).await,
        StartTlsBy::Ftp => lines::ftp(peer).await,
        StartTlsBy::Ldap => binary::ldap(peer).await.map(|()| String::new()),
        StartTlsBy::Xmpp => xmpp::xmpp(peer, name).await.map(|()| String::new()),
        StartTlsBy::Postgres => binary::postgres(peer).await.map(|()| String::new()),
        StartTlsBy::MySql => binary::mysql(peer).await.map(|()| String::new()),
    }
}

/// The longest line, tag or message that a server may send before TLS.
const LONGEST: usize = 64 << 10;

/// Reads up to this byte, and with it.
pub(crate) async fn read_to(peer: &mut impl Plain, end: u8) -> io::Result<String> {
    let mut bytes = Vec::new();
    (&mut *peer).take(LONGEST as u64).read_until(end, &mut bytes).await?;
    match bytes.last() {
        Some(last) if *last == end => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        _ if bytes.len() == LONGEST => Err(refusal("the answer is too long")),
        _ => Err(ended()),
    }
}

async fn read_exactly(peer: &mut impl Plain, n: usize) -> io::Result<Vec<u8>> {
    if n > LONGEST {
        return Err(refusal("the answer is too long"));
    }
    let mut bytes = Vec::with_capacity(n);
    let read = (&mut *peer).take(n as u64).read_to_end(&mut bytes).await?;
    if read == n { Ok(bytes) } else { Err(ended()) }
}

/// The peer said no.
#[derive(Debug)]
pub(crate) struct Refused(String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the peer did not agree to TLS: {}", self.0)
    }
}

impl std::error::Error for Refused {}

pub(crate) fn refusal(what: &str) -> io::Error {
    io::Error::other(Refused(what.into()))
}

fn ended() -> io::Error {
    Reason::Truncated(Phase::Handshake).into()
}
