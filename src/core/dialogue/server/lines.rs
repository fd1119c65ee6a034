//! Protocols of lines.

use std::borrow::Cow;

use crate::core::dialogue::name::Dialogue;
use crate::core::dialogue::script::{Next, Script, ends, line};
use crate::error::DialogueError;

pub(super) struct Lines {
    protocol: Protocol,
    name: String,
}

enum Protocol {
    Mail { hello: &'static str, kind: &'static str },
    Imap,
    Pop3,
    Nntp,
    ManageSieve,
    Irc,
    Ftp,
    Any { command: String },
}

impl Lines {
    /// The script of a protocol of lines. Binary protocols and XMPP have scripts of their own.
    pub(super) fn new(dialogue: &Dialogue, name: String) -> Self {
        let protocol = match dialogue {
            Dialogue::Lmtp => Protocol::Mail { hello: "LHLO", kind: "LMTP" },
            Dialogue::Imap => Protocol::Imap,
            Dialogue::Pop3 => Protocol::Pop3,
            Dialogue::Nntp => Protocol::Nntp,
            Dialogue::ManageSieve => Protocol::ManageSieve,
            Dialogue::Irc => Protocol::Irc,
            Dialogue::Ftp => Protocol::Ftp,
            Dialogue::Line(command) => Protocol::Any { command: command.as_str().to_owned() },
            Dialogue::Smtp
            | Dialogue::Ldap
            | Dialogue::Xmpp
            | Dialogue::XmppServer
            | Dialogue::Postgres
            | Dialogue::MySql => Protocol::Mail { hello: "EHLO", kind: "ESMTP" },
        };
        Self { protocol, name }
    }

    pub(super) fn greeting(&self) -> Vec<u8> {
        let name = &self.name;
        let greeting = match &self.protocol {
            Protocol::Mail { kind, .. } => format!("220 {name} {kind}\r\n"),
            Protocol::Imap => "* OK [CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED] ready\r\n".into(),
            Protocol::Pop3 => "+OK ready\r\n".into(),
            Protocol::Nntp => format!("200 {name} ready\r\n"),
            Protocol::ManageSieve => SIEVE_CAPABILITIES.into(),
            Protocol::Irc => String::new(),
            Protocol::Ftp | Protocol::Any { .. } => format!("220 {name} ready\r\n"),
        };
        greeting.into_bytes()
    }
}

impl Script for Lines {
    fn is_whole(&mut self, unit: &[u8]) -> Result<bool, DialogueError> {
        ends(unit, b'\n')
    }

    fn hear(&mut self, unit: &[u8], out: &mut Vec<u8>) -> Result<Next, DialogueError> {
        // A line that contains another kind of line end is not a valid command.
        let text = line(unit).map(String::from_utf8_lossy).unwrap_or_default();
        let words: Vec<String> = text.split_ascii_whitespace().map(str::to_ascii_uppercase).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let (answer, next): (Cow<'_, str>, Next) = match &self.protocol {
            Protocol::Mail { hello, .. } => mail(hello, &words),
            Protocol::Imap => imap(text.split_ascii_whitespace().next().unwrap_or_default(), &words),
            Protocol::Pop3 => pop3(&words),
            Protocol::Nntp => nntp(&words),
            Protocol::ManageSieve => sieve(&words),
            Protocol::Irc => irc(&self.name, &words),
            Protocol::Ftp => ftp(&words),
            Protocol::Any { command } if text.trim().eq_ignore_ascii_case(command) => {
                ("220 go ahead\r\n".into(), Next::Agree)
            }
            Protocol::Any { command } => (format!("500 {command} first\r\n").into(), Next::Listen),
        };
        out.extend_from_slice(answer.as_bytes());
        Ok(next)
    }
}

type Answer = (Cow<'static, str>, Next);

fn answer(answer: &'static str, next: Next) -> Answer {
    (answer.into(), next)
}

/// RFC 3207 section 4
fn mail(hello: &str, words: &[&str]) -> Answer {
    match words {
        ["HELO" | "NOOP" | "RSET", ..] => answer("250 ok\r\n", Next::Listen),
        ["STARTTLS"] => answer("220 2.0.0 go ahead\r\n", Next::Agree),
        ["STARTTLS", ..] => answer("501 5.5.4 STARTTLS has no parameters\r\n", Next::Listen),
        ["QUIT", ..] => answer("221 2.0.0 bye\r\n", Next::Leave),
        [verb, ..] if *verb == hello => answer("250-ready\r\n250 STARTTLS\r\n", Next::Listen),
        _ => answer("530 5.7.0 must issue a STARTTLS command first\r\n", Next::Listen),
    }
}

/// RFC 9051 section 6.2.1. The client chooses the tag. A tag that would break the answer is not repeated.
fn imap(tag: &str, words: &[&str]) -> Answer {
    let is_tag = tag.bytes().all(|byte| byte.is_ascii_graphic() && !br#"(){%*"\]+"#.contains(&byte));
    let (before, status, next) = match words.get(1..).unwrap_or_default() {
        _ if !is_tag || tag.len() > 100 || words.len() < 2 => return answer("* BAD no command\r\n", Next::Listen),
        ["CAPABILITY"] => ("* CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED\r\n", "OK done", Next::Listen),
        ["NOOP"] => ("", "OK done", Next::Listen),
        ["STARTTLS"] => ("", "OK begin TLS now", Next::Agree),
        ["STARTTLS", ..] => ("", "BAD STARTTLS has no arguments", Next::Listen),
        ["LOGOUT"] => ("* BYE\r\n", "OK done", Next::Leave),
        _ => ("", "NO [PRIVACYREQUIRED] STARTTLS first", Next::Listen),
    };
    (format!("{before}{tag} {status}\r\n").into(), next)
}

/// RFC 2595 section 4
fn pop3(words: &[&str]) -> Answer {
    match words {
        ["CAPA"] => answer("+OK\r\nSTLS\r\n.\r\n", Next::Listen),
        ["NOOP"] => answer("+OK\r\n", Next::Listen),
        ["STLS"] => answer("+OK begin TLS now\r\n", Next::Agree),
        ["QUIT"] => answer("+OK bye\r\n", Next::Leave),
        _ => answer("-ERR STLS first\r\n", Next::Listen),
    }
}

/// RFC 4642 section 2.2
fn nntp(words: &[&str]) -> Answer {
    match words {
        ["CAPABILITIES", ..] => answer("101 capabilities\r\nVERSION 2\r\nSTARTTLS\r\n.\r\n", Next::Listen),
        ["STARTTLS"] => answer("382 continue with TLS negotiation\r\n", Next::Agree),
        ["STARTTLS", ..] => answer("501 STARTTLS has no arguments\r\n", Next::Listen),
        ["QUIT"] => answer("205 bye\r\n", Next::Leave),
        _ => answer("483 STARTTLS first\r\n", Next::Listen),
    }
}

const SIEVE_CAPABILITIES: &str = "\"IMPLEMENTATION\" \"bowline\"\r\n\"SASL\" \"\"\r\n\"SIEVE\" \"\"\r\n\"STARTTLS\"\r\n\
    \"VERSION\" \"1.0\"\r\nOK\r\n";

/// RFC 5804 section 2.2
fn sieve(words: &[&str]) -> Answer {
    match words {
        ["CAPABILITY"] => answer(SIEVE_CAPABILITIES, Next::Listen),
        ["NOOP"] => answer("OK\r\n", Next::Listen),
        ["STARTTLS"] => answer("OK\r\n", Next::Agree),
        ["LOGOUT"] => answer("OK\r\n", Next::Leave),
        _ => answer("NO (ENCRYPT-NEEDED) \"STARTTLS first\"\r\n", Next::Listen),
    }
}

/// The IRCv3 extension `tls`
fn irc(name: &str, words: &[&str]) -> Answer {
    let (text, next) = match words {
        ["STARTTLS"] => ("670 * :STARTTLS successful, go ahead with TLS handshake", Next::Agree),
        ["CAP", "LS", ..] => ("CAP * LS :tls", Next::Listen),
        ["QUIT", ..] => return answer("ERROR :bye\r\n", Next::Leave),
        _ => ("451 * :STARTTLS first", Next::Listen),
    };
    (format!(":{name} {text}\r\n").into(), next)
}

/// RFC 4217 section 4
fn ftp(words: &[&str]) -> Answer {
    match words {
        ["AUTH", "TLS" | "TLS-C"] => answer("234 begin TLS now\r\n", Next::Agree),
        ["AUTH", ..] => answer("504 AUTH TLS is known only\r\n", Next::Listen),
        ["FEAT"] => answer("211-features\r\n AUTH TLS\r\n211 end\r\n", Next::Listen),
        ["NOOP"] => answer("200 ok\r\n", Next::Listen),
        ["QUIT"] => answer("221 bye\r\n", Next::Leave),
        _ => answer("530 AUTH TLS first\r\n", Next::Listen),
    }
}
