//! The names of the dialogues.

use std::error::Error as StdError;
use std::fmt;
use std::str::FromStr;

use crate::escape::printable;

/// A protocol that starts in plaintext and changes to TLS on the same connection.
///
/// It is parsed from and printed as the words in the table, which OpenSSL's `s_client -starttls` uses too:
///
/// ```
/// use bowline::starttls::Dialogue;
///
/// let dialogue: Dialogue = "smtp".parse()?;
/// assert_eq!(dialogue, Dialogue::Smtp);
/// assert_eq!("line:XTLS now".parse::<Dialogue>()?.to_string(), "line:XTLS now");
/// assert!("telepathy".parse::<Dialogue>().is_err());
/// # Ok::<_, bowline::starttls::UnknownDialogue>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dialogue {
    /// `smtp`: RFC 3207, for submission too. `EHLO`, then `STARTTLS`.
    Smtp,
    /// `lmtp`: RFC 2033 with RFC 3207. `LHLO`, then `STARTTLS`.
    Lmtp,
    /// `imap`: RFC 9051 section 6.2.1, and RFC 2595. `STARTTLS`.
    Imap,
    /// `pop3`: RFC 2595 section 4. `STLS`.
    Pop3,
    /// `nntp`: RFC 4642. `STARTTLS`.
    Nntp,
    /// `sieve` or `managesieve`: RFC 5804. `STARTTLS`. After the handshake, the server sends its capabilities again
    /// without a request.
    ManageSieve,
    /// `irc`: the IRCv3 extension `tls`. `STARTTLS`.
    Irc,
    /// `ftp`: RFC 4217. `AUTH TLS`, on the control connection.
    Ftp,
    /// `ldap`: RFC 4511 section 4.14, and RFC 4513. The extended operation StartTLS, with message id 1.
    Ldap,
    /// `xmpp`: RFC 6120 section 5, and RFC 7590, between a client and a server. `<starttls/>`.
    Xmpp,
    /// `xmpp-server`: as `xmpp`, between two servers.
    XmppServer,
    /// `postgres` or `postgresql`: PostgreSQL's SSLRequest.
    Postgres,
    /// `mysql`: the SSLRequest packet of MySQL and MariaDB. The server sends no go-ahead: TLS follows the packet. The
    /// numbering of packets continues in TLS, where the next packet has number 2.
    MySql,
    /// `line:COMMAND`: the server sends one line, the client sends this command, and the server sends one line. A
    /// client treats an answer as a refusal if it is a refusal in a common protocol.
    Line(LineCommand),
}

/// A command that requests TLS. It is one line and not empty.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LineCommand(String);

impl LineCommand {
    /// The command, without the end of the line.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for LineCommand {
    type Err = UnknownDialogue;

    /// Spaces at both ends are removed.
    fn from_str(command: &str) -> Result<Self, UnknownDialogue> {
        let command = command.trim();
        if command.is_empty() || command.contains(char::is_control) {
            return Err(UnknownDialogue(format!("line:{command}")));
        }
        Ok(Self(command.to_owned()))
    }
}

const NAMES: [(&str, Dialogue); 13] = [
    ("smtp", Dialogue::Smtp),
    ("lmtp", Dialogue::Lmtp),
    ("imap", Dialogue::Imap),
    ("pop3", Dialogue::Pop3),
    ("nntp", Dialogue::Nntp),
    ("sieve", Dialogue::ManageSieve),
    ("irc", Dialogue::Irc),
    ("ftp", Dialogue::Ftp),
    ("ldap", Dialogue::Ldap),
    ("xmpp", Dialogue::Xmpp),
    ("xmpp-server", Dialogue::XmppServer),
    ("postgres", Dialogue::Postgres),
    ("mysql", Dialogue::MySql),
];

const ALIASES: [(&str, Dialogue); 2] = [("managesieve", Dialogue::ManageSieve), ("postgresql", Dialogue::Postgres)];

impl Dialogue {
    /// All dialogues with a name of their own, for example to list them in the help of a program. [`Self::Line`] is
    /// not among them.
    ///
    /// ```
    /// use bowline::starttls::Dialogue;
    ///
    /// assert!(Dialogue::all().any(|dialogue| dialogue == Dialogue::Smtp));
    /// ```
    pub fn all() -> impl Iterator<Item = Self> {
        NAMES.into_iter().map(|(_, dialogue)| dialogue)
    }
}

impl FromStr for Dialogue {
    type Err = UnknownDialogue;

    fn from_str(name: &str) -> Result<Self, UnknownDialogue> {
        if let Some(command) = name.strip_prefix("line:") {
            return command.parse().map(Self::Line);
        }
        let found = NAMES.iter().chain(&ALIASES).find(|(known, _)| *known == name);
        found.map(|(_, dialogue)| dialogue.clone()).ok_or_else(|| UnknownDialogue(name.to_owned()))
    }
}

impl fmt::Display for Dialogue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::Line(command) = self {
            return write!(f, "line:{}", command.0);
        }
        let found = NAMES.iter().find(|(_, dialogue)| dialogue == self);
        f.write_str(found.map_or("", |(name, _)| name))
    }
}

/// This is not the name of a dialogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownDialogue(String);

impl fmt::Display for UnknownDialogue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\" is not a protocol that begins in plaintext; known are ", printable(&self.0))?;
        NAMES.iter().try_for_each(|(name, _)| write!(f, "{name}, "))?;
        f.write_str("and line:COMMAND")
    }
}

impl StdError for UnknownDialogue {}
