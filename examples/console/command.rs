//! Parses a line into a command.

use std::num::IntErrorKind;

/// One command.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command<'a> {
    Echo(&'a [u8]),
    Send(u64),
    SendSeq(u64, u64),
    /// A write sequence that would need too much memory.
    TooLarge,
    Tiny(u64),
    Close(u64),
    Half(u64),
    Abort(u64),
    Sum,
    Pause(u64),
    StartTls,
    StopTls,
    Info,
    Nodelay(bool),
    Keepalive(bool),
    Help,
    Quit,
}

/// The answer to HELP, in one line.
pub(crate) const HELP: &str = "214 ECHO text | SEND n | SENDSEQ k n | TINY n | CLOSE [n] | HALF [n] | ABORT [n] | SUM | \
                               PAUSE ms | STARTTLS | STOPTLS | INFO | NODELAY on|off | KEEPALIVE on|off | HELP | QUIT";

/// A transport accepts a write sequence whole, and may have to hold all of it. A sequence of more bytes than this is
/// refused.
const MAX_SEQUENCE: u64 = 16 << 20;

impl<'a> Command<'a> {
    /// `None` if the line is not a command.
    pub(crate) fn parse(line: &'a [u8]) -> Option<Self> {
        let end = line.iter().position(|byte| *byte == b' ').unwrap_or(line.len());
        let name = line[..end].to_ascii_uppercase();
        let rest = line.get(end + 1..).unwrap_or_default();
        if name == b"ECHO" {
            return Some(Self::Echo(rest));
        }
        let words: Vec<&str> = std::str::from_utf8(rest).ok()?.split_ascii_whitespace().collect();
        Some(match (name.as_slice(), words.as_slice()) {
            (b"SEND", [n]) => Self::Send(n.parse().ok()?),
            (b"SENDSEQ", [k, n]) => sequence(number(k)?, number(n)?),
            (b"TINY", [n]) => Self::Tiny(n.parse().ok()?),
            (b"CLOSE", n) => Self::Close(count(n)?),
            (b"HALF", n) => Self::Half(count(n)?),
            (b"ABORT", n) => Self::Abort(count(n)?),
            (b"SUM", []) => Self::Sum,
            (b"PAUSE", [ms]) => Self::Pause(ms.parse().ok()?),
            (b"STARTTLS", []) => Self::StartTls,
            (b"STOPTLS", []) => Self::StopTls,
            (b"INFO", []) => Self::Info,
            (b"NODELAY", [on]) => Self::Nodelay(switch(on)?),
            (b"KEEPALIVE", [on]) => Self::Keepalive(switch(on)?),
            (b"HELP", []) => Self::Help,
            (b"QUIT", []) => Self::Quit,
            _ => return None,
        })
    }
}

impl Command<'_> {
    /// Whether the connection is closed after this command.
    pub(crate) fn is_last(&self) -> bool {
        matches!(self, Self::Close(_) | Self::Half(_) | Self::Abort(_) | Self::Sum | Self::Quit)
    }
}

fn count(words: &[&str]) -> Option<u64> {
    match words {
        [] => Some(0),
        [n] => n.parse().ok(),
        _ => None,
    }
}

/// A number. A number that is too large for the type becomes the largest one.
fn number(word: &str) -> Option<u64> {
    match word.parse::<u64>() {
        Err(error) if *error.kind() == IntErrorKind::PosOverflow => Some(u64::MAX),
        parsed => parsed.ok(),
    }
}

/// A request that is too large is refused before anything is allocated for it (rule: write-10).
fn sequence(parts: u64, n: u64) -> Command<'static> {
    match parts.checked_mul(n) {
        Some(..=MAX_SEQUENCE) => Command::SendSeq(parts, n),
        Some(_) | None => Command::TooLarge,
    }
}

fn switch(word: &str) -> Option<bool> {
    match word.to_ascii_lowercase().as_str() {
        "on" => Some(true),
        "off" => Some(false),
        _ => None,
    }
}
