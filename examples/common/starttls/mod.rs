//! The plaintext parts of the protocols that upgrade to TLS. Each reads exactly its own bytes, so that the transport judges all
//! bytes after the last answer.
//!
//! A refusal is an error with [`Refused`] inside; any other error is the connection's.

mod binary;
mod lines;
mod xmpp;

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::{fmt, io};

use bowline::{Phase, Reason, escaped};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::common::args::Usage;

/// The plaintext protocol before TLS.
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

/// The operations of a connection that a plaintext protocol needs.
pub(crate) trait Plain: AsyncBufRead + AsyncWrite + Unpin {}

impl<T: AsyncBufRead + AsyncWrite + Unpin> Plain for T {}

/// Runs the protocol up to the start of TLS, and returns the server's greeting if there is one. `name` is the expected
/// name of the server.
///
/// Plaintext is not authenticated, so each protocol is read strictly: unexpected bytes, an answer that comes before its question,
/// and an answer that is too long are refusals.
pub(crate) async fn negotiate(by: &StartTlsBy, name: &str, peer: &mut impl Plain) -> io::Result<String> {
    let talk = &mut Talk { peer, left: LONGEST };
    match by {
        StartTlsBy::Line(command) => lines::any(talk, command).await,
        StartTlsBy::Smtp => lines::smtp(talk).await,
        StartTlsBy::Imap => lines::imap(talk).await,
        StartTlsBy::Pop3 => lines::pop3(talk).await,
        StartTlsBy::Ftp => lines::ftp(talk).await,
        StartTlsBy::Ldap => binary::ldap(talk).await.map(|()| String::new()),
        StartTlsBy::Xmpp => xmpp::xmpp(talk, name).await.map(|()| String::new()),
        StartTlsBy::Postgres => binary::postgres(talk).await.map(|()| String::new()),
        StartTlsBy::MySql => binary::mysql(talk).await.map(|()| String::new()),
    }
}

/// The most bytes that a server may send before TLS; also the longest line of a client.
pub(crate) const LONGEST: usize = 64 << 10;

/// One conversation in plaintext.
struct Talk<'a, P> {
    peer: &'a mut P,
    /// The number of bytes that the peer may still send.
    left: usize,
}

impl<P: Plain> Talk<'_, P> {
    /// Sends a question. If an answer has already arrived, the peer sent it before the question, and this fails.
    async fn say(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.say_beside(bytes, |_| false).await
    }

    /// The same for a protocol whose peer may send unsolicited messages.
    async fn say_beside(&mut self, bytes: &[u8], may_be_unread: fn(&[u8]) -> bool) -> io::Result<()> {
        let early = poll_fn(|cx| {
            Poll::Ready(match Pin::new(&mut *self.peer).poll_fill_buf(cx) {
                Poll::Ready(Err(error)) => Err(error),
                Poll::Ready(Ok([])) => Err(ended()),
                Poll::Ready(Ok(unread)) if !may_be_unread(unread) => {
                    Err(refusal(&format!("it answers before it is asked: {}", said(unread))))
                }
                Poll::Ready(Ok(_)) | Poll::Pending => Ok(()),
            })
        });
        early.await?;
        self.peer.write_all(bytes).await
    }

    /// One line, without its end.
    async fn line(&mut self) -> io::Result<String> {
        let line = self.read_to(b'\n').await?;
        let text = line.strip_suffix("\r\n").or(line.strip_suffix('\n')).unwrap_or(&line);
        if text.contains(['\r', '\n', '\0']) { Err(refused(text)) } else { Ok(text.to_owned()) }
    }

    /// Reads up to and including this byte.
    async fn read_to(&mut self, end: u8) -> io::Result<String> {
        let text = read_within(self.peer, end, self.left).await?;
        self.left -= text.len();
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    async fn read_exactly(&mut self, n: usize) -> io::Result<Vec<u8>> {
        self.left = self.left.checked_sub(n).ok_or_else(too_long)?;
        let mut bytes = Vec::new();
        let read = (&mut *self.peer).take(n as u64).read_to_end(&mut bytes).await?;
        if read == n { Ok(bytes) } else { Err(ended()) }
    }
}

/// Reads up to and including this byte, but at most so many bytes.
pub(crate) async fn read_within(peer: &mut impl Plain, end: u8, most: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    (&mut *peer).take(most as u64).read_until(end, &mut bytes).await?;
    match bytes.last() {
        Some(last) if *last == end => Ok(bytes),
        _ if bytes.len() == most => Err(too_long()),
        _ => Err(ended()),
    }
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

/// A refusal in our words.
pub(crate) fn refusal(what: &str) -> io::Error {
    io::Error::other(Refused(what.into()))
}

/// A refusal in the peer's words.
pub(crate) fn refused(words: &str) -> io::Error {
    refusal(&said(words.as_bytes()))
}

/// The peer's words for a person to read: escaped, and cut to the length of a terminal's line.
fn said(words: &[u8]) -> String {
    const SHOWN: usize = 200;
    let shown = words.get(..SHOWN).unwrap_or(words);
    format!("\"{}\"{}", escaped(shown), if shown.len() < words.len() { "..." } else { "" })
}

fn too_long() -> io::Error {
    refusal("the answer is too long")
}

fn ended() -> io::Error {
    Reason::Truncated(Phase::Handshake).into()
}
