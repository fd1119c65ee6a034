//! The arguments of endpoints: their names, the kinds of endpoint that accept them, and the parsers of their values.

use std::time::Duration;

use super::text::{Cursor, Mistake, Text};
use super::{EndpointKind, Side};
use crate::config::{TlsVersion, server_name};
use crate::error::chain;

/// The arguments, which follow the address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Argument {
    Interface,
    Backlog,
    DualStack,
    Ipv4Only,
    Ipv6Only,
    ReusePort,
    Mode,
    StartTls,
    Cert,
    Key,
    Identities,
    ClientCa,
    ClientOptional,
    Crl,
    TicketKeys,
    Ca,
    Name,
    Alpn,
    Min,
    Max,
    Timeout,
    Bind,
    Reload,
    Proxy,
    Trusted,
}

const INET: &[EndpointKind] = &[EndpointKind::Tcp, EndpointKind::Tls, EndpointKind::StartTls];
const TLS: &[EndpointKind] = &[EndpointKind::Tls, EndpointKind::StartTls];
const UNIX: &[EndpointKind] = &[EndpointKind::Unix];
const OPENED: &[EndpointKind] = &[EndpointKind::Tcp, EndpointKind::Tls, EndpointKind::StartTls, EndpointKind::Unix];
const INHERITED: &[EndpointKind] = &[EndpointKind::Fd, EndpointKind::Systemd];
const MAY_TLS: &[EndpointKind] = &[EndpointKind::Tls, EndpointKind::StartTls, EndpointKind::Fd, EndpointKind::Systemd];
const ALL: &[EndpointKind] = &[
    EndpointKind::Tcp,
    EndpointKind::Tls,
    EndpointKind::StartTls,
    EndpointKind::Unix,
    EndpointKind::Fd,
    EndpointKind::Systemd,
];
const NONE: &[EndpointKind] = &[];

impl Argument {
    const ALL: [Self; 25] = [
        Self::Interface,
        Self::Backlog,
        Self::DualStack,
        Self::Ipv4Only,
        Self::Ipv6Only,
        Self::ReusePort,
        Self::Mode,
        Self::StartTls,
        Self::Cert,
        Self::Key,
        Self::Identities,
        Self::ClientCa,
        Self::ClientOptional,
        Self::Crl,
        Self::TicketKeys,
        Self::Ca,
        Self::Name,
        Self::Alpn,
        Self::Min,
        Self::Max,
        Self::Timeout,
        Self::Bind,
        Self::Reload,
        Self::Proxy,
        Self::Trusted,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Interface => "interface",
            Self::Backlog => "backlog",
            Self::DualStack => "dual-stack",
            Self::Ipv4Only => "ipv4-only",
            Self::Ipv6Only => "ipv6-only",
            Self::ReusePort => "reuse-port",
            Self::Mode => "mode",
            Self::StartTls => "starttls",
            Self::Cert => "cert",
            Self::Key => "key",
            Self::Identities => "identities",
            Self::ClientCa => "client-ca",
            Self::ClientOptional => "client-optional",
            Self::Crl => "crl",
            Self::TicketKeys => "ticket-keys",
            Self::Ca => "ca",
            Self::Name => "name",
            Self::Alpn => "alpn",
            Self::Min => "min",
            Self::Max => "max",
            Self::Timeout => "timeout",
            Self::Bind => "bind",
            Self::Reload => "reload",
            Self::Proxy => "proxy",
            Self::Trusted => "trusted",
        }
    }

    /// The kinds of endpoint that accept the argument.
    fn takers(self, side: Side) -> &'static [EndpointKind] {
        match (self, side) {
            (Self::Interface, Side::Server) | (Self::Bind, Side::Client) => INET,
            (Self::Ipv4Only | Self::Ipv6Only, Side::Server | Side::Client) => INET,
            (Self::DualStack | Self::ReusePort, Side::Server) => INET,
            (Self::DualStack | Self::ReusePort, Side::Client) => NONE,
            (Self::Backlog, Side::Server) | (Self::Timeout, Side::Client) => OPENED,
            (Self::Mode, Side::Server) => UNIX,
            (Self::StartTls, Side::Server) => INHERITED,
            (Self::StartTls, Side::Client) => NONE,
            (Self::Cert | Self::Key | Self::Alpn | Self::Min | Self::Max, Side::Server) => MAY_TLS,
            (Self::Identities | Self::ClientCa | Self::ClientOptional | Self::Crl, Side::Server) => MAY_TLS,
            (Self::Reload, Side::Server) => MAY_TLS,
            (Self::Proxy | Self::Trusted, Side::Server) => ALL,
            (Self::Reload, Side::Client) => TLS,
            (Self::Proxy | Self::Trusted, Side::Client) => NONE,
            (Self::Cert | Self::Key | Self::Alpn | Self::Min | Self::Max, Side::Client) => TLS,
            (Self::TicketKeys, Side::Server) => MAY_TLS,
            (Self::TicketKeys, Side::Client) => NONE,
            (Self::Ca | Self::Name, Side::Client) => TLS,
            (Self::Interface | Self::Backlog | Self::Mode, Side::Client) => NONE,
            (Self::Identities | Self::ClientCa | Self::ClientOptional | Self::Crl, Side::Client) => NONE,
            (Self::Ca | Self::Name | Self::Timeout | Self::Bind, Side::Server) => NONE,
        }
    }

    /// Whether the argument is a flag, without a value.
    fn is_flag(self) -> bool {
        match self {
            Self::ClientOptional
            | Self::StartTls
            | Self::DualStack
            | Self::Ipv4Only
            | Self::Ipv6Only
            | Self::ReusePort => true,
            Self::Interface
            | Self::Backlog
            | Self::Mode
            | Self::Cert
            | Self::Key
            | Self::Identities
            | Self::ClientCa
            | Self::Crl
            | Self::TicketKeys
            | Self::Reload
            | Self::Proxy
            | Self::Trusted => false,
            Self::Ca | Self::Name | Self::Alpn | Self::Min | Self::Max | Self::Timeout | Self::Bind => false,
        }
    }

    /// Whether colons between brackets belong to the value.
    pub(super) fn is_address(self) -> bool {
        matches!(self, Self::Interface | Self::Bind)
    }

    fn find(name: Text<'_>, side: Side, kind: EndpointKind) -> Result<Self, Mistake> {
        let word = name.value();
        let found = Self::ALL.into_iter().find(|argument| argument.name() == word);
        let problem = match found {
            Some(argument) if argument.takers(side).contains(&kind) => return Ok(argument),
            _ if word.is_empty() => "an argument is missing here".to_owned(),
            Some(argument) if !argument.takers(side).is_empty() => {
                let takers: Vec<_> = argument.takers(side).iter().map(|kind| kind.name()).collect();
                format!("{word} is an argument of {} only", takers.join(", "))
            }
            Some(_) => format!("{word} is an argument of {}s, and this is a {side}", side.other()),
            None => format!("{word:?} is not an argument"),
        };
        Err(Mistake::new(name.at, format!("{problem}; a {kind} {side} takes {}", known(side, kind))))
    }
}

fn known(side: Side, kind: EndpointKind) -> String {
    let takes = |argument: &Argument| argument.takers(side).contains(&kind);
    let names: Vec<_> = Argument::ALL.into_iter().filter(takes).map(Argument::name).collect();
    names.join(", ")
}

/// The arguments of one endpoint. Each is valid for the endpoint's kind and side, and occurs once. A flag has an empty
/// value.
pub(super) struct Given<'a> {
    all: Vec<(Argument, Text<'a>)>,
    end: usize,
}

impl<'a> Given<'a> {
    /// Parses the rest of the string.
    pub(super) fn read(cursor: &mut Cursor<'a>, side: Side, kind: EndpointKind) -> Result<Self, Mistake> {
        let mut all: Vec<(Argument, Text<'a>)> = Vec::new();
        while cursor.pass(':') {
            let name = cursor.part_to(&[':', '='])?;
            let argument = Argument::find(name, side, kind)?;
            if all.iter().any(|(other, _)| *other == argument) {
                return Err(Mistake::new(name.at, format!("{} is given twice", argument.name())));
            }
            all.push((argument, value(cursor, argument)?));
        }
        Ok(Self { all, end: cursor.at() })
    }

    /// The offset of the end of the string.
    pub(super) fn end(&self) -> usize {
        self.end
    }

    pub(super) fn text(&self, argument: Argument) -> Option<Text<'a>> {
        self.all.iter().find(|(given, _)| *given == argument).map(|(_, text)| *text)
    }

    /// The value of an argument, if it is given.
    pub(super) fn value<T>(
        &self,
        argument: Argument,
        read: impl FnOnce(&str) -> Result<T, Mistake>,
    ) -> Result<Option<T>, Mistake> {
        self.text(argument).map(|text| text.read(read)).transpose()
    }

    pub(super) fn string(&self, argument: Argument) -> Option<String> {
        self.text(argument).map(|text| text.value())
    }

    /// The value of a required argument. If it is missing, the error says that `why` needs it.
    pub(super) fn required(&self, argument: Argument, why: &str) -> Result<String, Mistake> {
        self.string(argument).ok_or_else(|| Mistake::new(self.end, format!("{why} needs {}=", argument.name())))
    }
}

fn value<'a>(cursor: &mut Cursor<'a>, argument: Argument) -> Result<Text<'a>, Mistake> {
    let equals = cursor.at();
    let name = argument.name();
    match (cursor.pass('='), argument.is_flag()) {
        (true, true) => return Err(Mistake::new(equals, format!("{name} takes no value"))),
        (false, true) => return cursor.part(),
        (false, false) => return Err(Mistake::new(equals, format!("{name} needs a value: {name}=VALUE"))),
        (true, false) => {}
    }
    let text = if argument.is_address() { cursor.address()? } else { cursor.part()? };
    if text.raw.is_empty() {
        return Err(Mistake::new(text.at, format!("the value of {name} is empty")));
    }
    Ok(text)
}

pub(super) fn backlog(text: &str) -> Result<u32, Mistake> {
    let problem = "a backlog is a number from 1 to 2147483647";
    let number = digits(text, 10, problem)?.parse().map_err(|_| Mistake::new(0, problem))?;
    if (1..=i32::MAX as u32).contains(&number) { Ok(number) } else { Err(Mistake::new(0, problem)) }
}

/// The permissions of a file, in octal.
pub(super) fn mode(text: &str) -> Result<u32, Mistake> {
    let problem = "a mode is an octal number from 0 to 777, as in 660";
    match u32::from_str_radix(digits(text, 8, problem)?, 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => Err(Mistake::new(0, problem)),
    }
}

/// Seconds, optionally with a fraction of up to nine digits.
pub(super) fn seconds(text: &str) -> Result<Duration, Mistake> {
    let problem = "a time is a number of seconds, as in 10 or 0.5";
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    digits(whole, 10, problem)?;
    let behind = |mistake: Mistake| Mistake { at: mistake.at + whole.len() + 1, ..mistake };
    digits(fraction, 10, problem).map_err(behind)?;
    if fraction.len() > 9 {
        return Err(Mistake::new(whole.len() + 10, "a fraction of a second has at most nine digits"));
    }
    let seconds: u32 = whole.parse().map_err(|_| Mistake::new(0, "the number of seconds is too large"))?;
    let nanos = format!("{fraction:0<9}").parse().map_err(|_| Mistake::new(0, problem))?;
    match Duration::new(seconds.into(), nanos) {
        Duration::ZERO => Err(Mistake::new(0, "a time must be more than 0 seconds")),
        time => Ok(time),
    }
}

/// Prints a time in the form that [`seconds`] parses.
pub(super) fn print_seconds(time: Duration) -> String {
    let text = format!("{}.{:09}", time.as_secs(), time.subsec_nanos());
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The names of files, separated by commas.
pub(super) fn file_names(text: &str) -> Result<Vec<String>, Mistake> {
    let mut at = 0;
    for name in text.split(',') {
        if name.is_empty() {
            return Err(Mistake::new(at, "the name of a file is empty"));
        }
        at += name.len() + 1;
    }
    Ok(text.split(',').map(str::to_owned).collect())
}

/// Application protocols, the preferred one first. RFC 7301 section 3.1: a name has 1 to 255 bytes.
pub(super) fn alpn(text: &str) -> Result<Vec<String>, Mistake> {
    let (mut names, mut at) = (Vec::new(), 0);
    for name in text.split(',') {
        let length = name.len();
        if let Some(bad) = name.find(|c: char| !c.is_ascii_graphic()) {
            return Err(Mistake::new(at + bad, "the name of a protocol consists of visible ASCII characters"));
        }
        match length {
            0 => return Err(Mistake::new(at, "the name of a protocol is empty")),
            1..=255 => names.push(name.to_owned()),
            _ => return Err(Mistake::new(at, "the name of a protocol has at most 255 characters")),
        }
        at += length + 1;
    }
    Ok(names)
}

pub(super) fn version(text: &str) -> Result<TlsVersion, Mistake> {
    match text {
        "1.2" => Ok(TlsVersion::V1_2),
        "1.3" => Ok(TlsVersion::V1_3),
        _ => Err(Mistake::new(0, "the version of TLS must be 1.2 or 1.3")),
    }
}

/// Prints a version in the form that [`version`] parses.
pub(super) fn print_version(version: TlsVersion) -> &'static str {
    match version {
        TlsVersion::V1_2 => "1.2",
        TlsVersion::V1_3 => "1.3",
    }
}

/// The name of a server that a certificate can be checked against.
pub(super) fn name(text: &str) -> Result<String, Mistake> {
    let checked = server_name(text).map_err(|error| Mistake::new(0, chain(&error).to_string()));
    checked.map(|_| text.to_owned())
}

fn digits<'a>(text: &'a str, radix: u32, problem: &str) -> Result<&'a str, Mistake> {
    match text.find(|c: char| !c.is_digit(radix)) {
        None if !text.is_empty() => Ok(text),
        bad => Err(Mistake::new(bad.unwrap_or(0), problem)),
    }
}
