//! Parses and prints endpoint strings. The module `open` connects to endpoints and listens on them.
//!
//! ```text
//! client   = ( "tcp:" | "tls:" | "starttls:" ) host ":" port *argument
//!          | "unix:" path *argument
//! server   = ( "tcp:" | "tls:" | "starttls:" ) [ host ":" ] port *argument
//!          | "unix:" path *argument
//! host     = name | IPv4 address | "[" IPv6 address [ "%" scope ] "]"
//! port     = 0 .. 65535
//! argument = ":" name "=" value | ":" flag
//! ```
//! `\:`, `\=` and `\\` stand for the character after the backslash. A colon ends a value. An equals sign in a value
//! needs no backslash.

mod arguments;
mod client;
mod families;
mod host;
mod proxy;
mod server;
mod text;
mod tls;

#[cfg(test)]
mod tests;

use std::fmt;

pub use client::ClientEndpoint;
pub use server::ServerEndpoint;

#[cfg(feature = "tokio")]
pub(crate) use {client::ClientPlace, families::Families, server::Inherited, server::ServerPlace, tls::Security};

use text::{Cursor, Mistake};

/// The kind of an endpoint: the protocol that is used there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EndpointKind {
    /// Plain TCP.
    Tcp,
    /// TLS from the first byte on.
    Tls,
    /// TCP in plaintext, to be upgraded to TLS.
    StartTls,
    /// A Unix socket, in plaintext.
    Unix,
    /// A listening socket that the process was started with, by its number. Only servers have it.
    Fd,
    /// Listening sockets that systemd has passed in, by their name. Only servers have it.
    Systemd,
}

impl EndpointKind {
    const ALL: [Self; 6] = [Self::Tcp, Self::Tls, Self::StartTls, Self::Unix, Self::Fd, Self::Systemd];

    /// The word that endpoint strings begin with.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::StartTls => "starttls",
            Self::Unix => "unix",
            Self::Fd => "fd",
            Self::Systemd => "systemd",
        }
    }
}

impl fmt::Display for EndpointKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The side that uses the endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Client,
    Server,
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client => "client",
            Self::Server => "server",
        })
    }
}

/// Parses the kind and the colon after it.
fn read_kind(cursor: &mut Cursor<'_>, side: Side) -> Result<EndpointKind, Mistake> {
    let word = cursor.part()?;
    let Some(kind) = EndpointKind::ALL.into_iter().find(|kind| kind.name() == word.raw) else {
        let word = word.raw;
        let problem = if word.is_empty() { "the kind is missing".into() } else { format!("{word:?} is not a kind") };
        let kinds =
            "an endpoint begins with tcp:, tls:, starttls: or unix:, and that of a server also with fd: or systemd:";
        return Err(Mistake::new(0, format!("{problem}; {kinds}")));
    };
    if side == Side::Client && matches!(kind, EndpointKind::Fd | EndpointKind::Systemd) {
        let problem = format!("{kind}: is a place to listen at; a client takes tcp:, tls:, starttls: or unix:");
        return Err(Mistake::new(0, problem));
    }
    if cursor.pass(':') {
        return Ok(kind);
    }
    let missing = match kind {
        EndpointKind::Tcp | EndpointKind::Tls | EndpointKind::StartTls => "place is missing",
        EndpointKind::Unix => "path is missing; write unix:PATH",
        EndpointKind::Fd => "number is missing; write fd:NUMBER",
        EndpointKind::Systemd => "name is missing; write systemd:NAME",
    };
    Err(Mistake::new(word.end(), format!("the {missing}")))
}

/// The path of a Unix socket.
fn read_path(cursor: &mut Cursor<'_>) -> Result<String, Mistake> {
    let path = cursor.part_to(&[':', '='])?;
    if cursor.rest().starts_with('=') {
        return Err(Mistake::new(cursor.at(), r"an equals sign in the path of a socket is written \="));
    }
    path.read(check_path)
}

/// The most bytes of a name in Linux's abstract namespace (unix(7)).
const LONGEST_NAME: usize = 107;

/// The name of an abstract socket, if the place of a Unix socket is one.
fn abstract_name(path: &str) -> Option<&str> {
    path.strip_prefix('@')
}

fn check_path(path: &str) -> Result<String, Mistake> {
    match path.find(char::is_control) {
        _ if path.is_empty() => Err(Mistake::new(0, "the path is empty")),
        _ if path == "@" => {
            Err(Mistake::new(1, "the abstract name is empty; write unix:@NAME, or unix:./@ for a file"))
        }
        _ if path.starts_with('@') && path.len() > LONGEST_NAME + 1 => {
            let problem =
                format!("an abstract name has at most {LONGEST_NAME} bytes, and this one has {}", path.len() - 1);
            Err(Mistake::new(1, problem))
        }
        Some(at) => Err(Mistake::new(at, "control characters are not allowed here")),
        None => Ok(path.to_owned()),
    }
}

/// Adds arguments to a printed endpoint. One without a value is a flag.
fn with_arguments<'a>(endpoint: String, arguments: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    arguments.into_iter().fold(endpoint, |endpoint, (name, value)| {
        let equals = if value.is_empty() { "" } else { "=" };
        format!("{endpoint}:{}{equals}{}", text::escape(name), text::escape(value))
    })
}

/// Prints the arguments. Nothing is escaped between the brackets of an address.
fn print_arguments(arguments: &[(&'static str, String)], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for (name, value) in arguments {
        match value.as_str() {
            "" => write!(f, ":{name}")?,
            value if *name == arguments::Argument::Bind.name() => write!(f, ":{name}={}", text::escape_address(value))?,
            value => write!(f, ":{name}={}", text::escape(value))?,
        }
    }
    Ok(())
}
