//! The server side of the plaintext part of a protocol, until a client asks for TLS. The service speaks first, and the
//! terminator passes the service's greeting on to the client.

use std::io;

use tokio::io::AsyncWriteExt;

use crate::common::args::Usage;
use crate::starttls::{LONGEST, Plain, read_within, refusal, refused};

/// The way in which clients ask for TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Offer {
    Smtp,
    Imap,
    Pop3,
    /// This line, in upper or lower case.
    Line(String),
}

/// The next step.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// Read the next line of the client.
    Listen,
    /// TLS.
    Upgrade,
    /// The client has left.
    Leave,
}

/// The most lines of a client before TLS. A client that sends more is disconnected.
const MOST_LINES: usize = 100;

impl Offer {
    pub(crate) fn parse(how: &str) -> Result<Self, Usage> {
        match how {
            "smtp" => Ok(Self::Smtp),
            "imap" => Ok(Self::Imap),
            "pop3" => Ok(Self::Pop3),
            _ => match how.strip_prefix("line:") {
                Some(command) if !command.trim().is_empty() => Ok(Self::Line(command.trim().into())),
                _ => Err(Usage::new(format!("--starttls is smtp, imap, pop3 or line:CMD, not {how:?}"))),
            },
        }
    }

    /// Forwards the service's greeting, and answers the client until TLS starts. `false`: the client has left. An error is
    /// the client's fault: it sent too much, or its connection has ended.
    pub(crate) async fn speak(&self, greeting: &str, client: &mut impl Plain) -> io::Result<bool> {
        client.write_all(greeting.as_bytes()).await?;
        for _ in 0..MOST_LINES {
            let line = read_line(client).await?;
            let (answer, next) = self.answer(line.trim_end_matches(['\r', '\n']));
            client.write_all(answer.as_bytes()).await?;
            match next {
                Next::Listen => {}
                Next::Upgrade => return Ok(true),
                Next::Leave => return Ok(false),
            }
        }
        Err(refusal("the client goes on and on in plaintext"))
    }

    /// Reads the service's greeting. An error means that the service refused, or that its connection has ended.
    pub(crate) async fn greeting(&self, service: &mut impl Plain) -> io::Result<String> {
        let mut greeting = read_line(service).await?;
        let is_welcome = match self {
            Self::Smtp => greeting.starts_with("220"),
            Self::Imap => greeting.starts_with("* OK"),
            Self::Pop3 => greeting.starts_with("+OK"),
            Self::Line(_) => true,
        };
        if !is_welcome {
            return Err(refused(greeting.trim_end()));
        }
        match self {
            Self::Smtp => {
                for _ in 0..MOST_LINES {
                    let last = greeting.lines().last().unwrap_or_default();
                    if last.get(3..4) != Some("-") {
                        return Ok(greeting);
                    }
                    greeting += &read_line(service).await?;
                }
                Err(refusal("the greeting is too long"))
            }
            // The service lists its capabilities again after TLS. Before TLS, the only capability is STARTTLS.
            Self::Imap => Ok("* OK [CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED] ready\r\n".into()),
            Self::Pop3 | Self::Line(_) => Ok(greeting),
        }
    }

    fn answer(&self, line: &str) -> (String, Next) {
        let mut words = line.split_ascii_whitespace();
        let first = words.next().unwrap_or_default();
        match self {
            Self::Smtp => smtp(&first.to_ascii_uppercase()),
            Self::Imap => imap(first, &words.next().unwrap_or_default().to_ascii_uppercase()),
            Self::Pop3 => pop3(&first.to_ascii_uppercase()),
            Self::Line(command) if line.trim().eq_ignore_ascii_case(command) => {
                ("220 go ahead\r\n".into(), Next::Upgrade)
            }
            Self::Line(command) => (format!("500 {command} first\r\n"), Next::Listen),
        }
    }
}

/// A line with its end.
async fn read_line(peer: &mut impl Plain) -> io::Result<String> {
    read_within(peer, b'\n', LONGEST).await.map(|line| String::from_utf8_lossy(&line).into_owned())
}

/// RFC 3207 section 4
fn smtp(verb: &str) -> (String, Next) {
    let (answer, next) = match verb {
        "EHLO" => ("250-ready\r\n250 STARTTLS", Next::Listen),
        "HELO" | "NOOP" | "RSET" => ("250 ok", Next::Listen),
        "STARTTLS" => ("220 2.0.0 go ahead", Next::Upgrade),
        "QUIT" => ("221 2.0.0 bye", Next::Leave),
        _ => ("530 5.7.0 must issue a STARTTLS command first", Next::Listen),
    };
    (format!("{answer}\r\n"), next)
}

/// RFC 9051 section 6.2.1
fn imap(tag: &str, verb: &str) -> (String, Next) {
    match verb {
        "CAPABILITY" => (format!("* CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED\r\n{tag} OK done\r\n"), Next::Listen),
        "NOOP" => (format!("{tag} OK done\r\n"), Next::Listen),
        "STARTTLS" => (format!("{tag} OK begin TLS now\r\n"), Next::Upgrade),
        "LOGOUT" => (format!("* BYE\r\n{tag} OK done\r\n"), Next::Leave),
        "" => ("* BAD no command\r\n".into(), Next::Listen),
        _ => (format!("{tag} NO [PRIVACYREQUIRED] STARTTLS first\r\n"), Next::Listen),
    }
}

/// RFC 2595 section 4
fn pop3(verb: &str) -> (String, Next) {
    let (answer, next) = match verb {
        "CAPA" => ("+OK\r\nSTLS\r\n.", Next::Listen),
        "NOOP" => ("+OK", Next::Listen),
        "STLS" => ("+OK begin TLS now", Next::Upgrade),
        "QUIT" => ("+OK bye", Next::Leave),
        _ => ("-ERR STLS first", Next::Listen),
    };
    (format!("{answer}\r\n"), next)
}
