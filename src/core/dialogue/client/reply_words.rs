//! Protocols whose answers begin with a word.

use crate::core::dialogue::name::LineCommand;
use crate::core::dialogue::script::{Next, Script, declined, ends, line, starts, unexpected};
use crate::error::{DialogueError, PeerWords};

/// RFC 2595 section 4
#[derive(Default)]
pub(super) struct Pop3 {
    /// The greeting has come, and we have asked for TLS.
    is_asked: bool,
}

impl Script for Pop3 {
    fn is_whole(&mut self, unit: &[u8]) -> Result<bool, DialogueError> {
        ends(unit, b'\n')
    }

    fn hear(&mut self, unit: &[u8], out: &mut Vec<u8>) -> Result<Next, DialogueError> {
        let line = line(unit)?;
        if starts(line, "-ERR") {
            return Err(declined(line));
        }
        if !starts(line, "+OK") {
            return Err(unexpected(line));
        }
        ask_or_agree(&mut self.is_asked, "STLS\r\n", out)
    }
}

/// Answers the greeting with the question. The answer to the question leads to TLS.
fn ask_or_agree(is_asked: &mut bool, question: &str, out: &mut Vec<u8>) -> Result<Next, DialogueError> {
    if std::mem::replace(is_asked, true) {
        return Ok(Next::Agree);
    }
    out.extend_from_slice(question.as_bytes());
    Ok(Next::Listen)
}

/// RFC 9051 section 6.2.1. A server that greets with PREAUTH has left the state in which STARTTLS is allowed. At any
/// time, a server may send responses that nobody asked for; they have no tag (section 7).
#[derive(Default)]
pub(super) struct Imap {
    /// The greeting has come, and we have asked for TLS.
    is_asked: bool,
}

const UNTAGGED: &[u8] = b"* ";

impl Script for Imap {
    fn is_whole(&mut self, unit: &[u8]) -> Result<bool, DialogueError> {
        ends(unit, b'\n')
    }

    fn hear(&mut self, unit: &[u8], out: &mut Vec<u8>) -> Result<Next, DialogueError> {
        let line = line(unit)?;
        let (agrees, declines) = match self.is_asked {
            false => ("* OK", &["* BYE", "* PREAUTH"][..]),
            true => ("a1 OK", &["* BYE", "a1 NO", "a1 BAD"][..]),
        };
        if starts(line, agrees) {
            return ask_or_agree(&mut self.is_asked, "a1 STARTTLS\r\n", out);
        }
        match line {
            _ if declines.iter().any(|words| starts(line, words)) => Err(declined(line)),
            _ if self.is_asked && line.starts_with(UNTAGGED) => Ok(Next::Listen),
            _ => Err(unexpected(line)),
        }
    }

    fn may_be_early(&mut self, unread: &[u8]) -> bool {
        let is_untagged = |line: &[u8]| line.starts_with(UNTAGGED) || UNTAGGED.starts_with(line);
        unread.split_inclusive(|byte| *byte == b'\n').all(is_untagged)
    }
}

/// RFC 5804 section 2.2. The greeting is a list of capabilities, followed by `OK`.
#[derive(Default)]
pub(super) struct ManageSieve {
    progress: Progress,
    /// The offset before which the current literal cannot end.
    literal: usize,
}

#[derive(Default)]
enum Progress {
    /// The server lists its capabilities.
    #[default]
    Greeting,
    /// STARTTLS was one of the capabilities.
    Offered,
    /// We have asked for TLS.
    Asked,
}

impl Script for ManageSieve {
    /// If a line ends with the length of a literal, it continues after that literal (RFC 5804 section 4: `{5}`,
    /// `{5+}`).
    fn is_whole(&mut self, unit: &[u8]) -> Result<bool, DialogueError> {
        if unit.len() <= self.literal || !unit.ends_with(b"\n") {
            return Ok(false);
        }
        if let Some(length) = literal_length(&unit[self.literal..]) {
            self.literal = unit.len().saturating_add(length);
            return Ok(false);
        }
        self.literal = 0;
        Ok(true)
    }

    fn hear(&mut self, unit: &[u8], out: &mut Vec<u8>) -> Result<Next, DialogueError> {
        let response = unit.trim_ascii_end();
        let word = response.split(|byte| matches!(byte, b' ' | b'(' | b'\r' | b'\n')).next().unwrap_or_default();
        let is = |known: &str| word.eq_ignore_ascii_case(known.as_bytes());
        if is("OK") {
            return match self.progress {
                Progress::Greeting => Err(DialogueError::NotOffered),
                Progress::Offered => {
                    self.progress = Progress::Asked;
                    out.extend_from_slice(b"STARTTLS\r\n");
                    Ok(Next::Listen)
                }
                Progress::Asked => Ok(Next::Agree),
            };
        }
        match word {
            _ if is("NO") || is("BYE") => Err(declined(response)),
            [b'"' | b'{', ..] if !matches!(self.progress, Progress::Asked) => {
                if is("\"STARTTLS\"") {
                    self.progress = Progress::Offered;
                }
                Ok(Next::Listen)
            }
            _ => Err(unexpected(response)),
        }
    }
}

/// The length of a literal, if these bytes end with its announcement.
fn literal_length(bytes: &[u8]) -> Option<usize> {
    let line = bytes.strip_suffix(b"\r\n").or(bytes.strip_suffix(b"\n"))?;
    let inside = line.strip_suffix(b"}")?;
    let inside = inside.strip_suffix(b"+").unwrap_or(inside);
    let digits = inside.rsplit(|byte| *byte == b'{').next().filter(|digits| digits.len() < inside.len())?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The IRCv3 extension `tls`. The client sends the first message. While the server looks up the client's address, it
/// may send notices at any time.
pub(super) struct Irc {
    /// Whether the current line started before our question.
    is_early: bool,
}

impl Irc {
    pub(super) fn begin(out: &mut Vec<u8>) -> Self {
        out.extend_from_slice(b"STARTTLS\r\n");
        Self { is_early: false }
    }
}

/// The messages that a server may send before its answer: notices, and the reply 020 ("please wait").
const NOTICES: [&[u8]; 2] = [b"NOTICE", b"020"];

impl Script for Irc {
    fn is_whole(&mut self, unit: &[u8]) -> Result<bool, DialogueError> {
        ends(unit, b'\n')
    }

    fn hear(&mut self, unit: &[u8], _: &mut Vec<u8>) -> Result<Next, DialogueError> {
        let line = line(unit)?;
        let is_early = std::mem::take(&mut self.is_early);
        match irc_command(line) {
            command if NOTICES.contains(&command) => Ok(Next::Listen),
            _ if is_early => Err(DialogueError::Early(PeerWords::new(line))),
            b"670" => Ok(Next::Agree),
            // 691: STARTTLS failed. 421: unknown command. 451: not registered.
            b"691" | b"421" | b"451" | b"ERROR" => Err(declined(line)),
            _ => Err(unexpected(line)),
        }
    }

    fn may_be_early(&mut self, unread: &[u8]) -> bool {
        self.is_early = !unread.ends_with(b"\n");
        let mut lines = unread.split_inclusive(|byte| *byte == b'\n');
        lines.all(|line| !line.ends_with(b"\n") || NOTICES.contains(&irc_command(line.trim_ascii_end())))
    }
}

/// The command or the number of a message, after its prefix.
fn irc_command(line: &[u8]) -> &[u8] {
    let mut words = line.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
    let first = words.next().unwrap_or_default();
    if first.starts_with(b":") { words.next().unwrap_or_default() } else { first }
}

/// `line:COMMAND`: a greeting, the command, an answer.
pub(super) struct Line {
    command: String,
    /// The greeting has come, and we have asked for TLS.
    is_asked: bool,
}

impl Line {
    pub(super) fn new(command: &LineCommand) -> Self {
        Self { command: format!("{}\r\n", command.as_str()), is_asked: false }
    }
}

impl Script for Line {
    fn is_whole(&mut self, unit: &[u8]) -> Result<bool, DialogueError> {
        ends(unit, b'\n')
    }

    fn hear(&mut self, unit: &[u8], out: &mut Vec<u8>) -> Result<Next, DialogueError> {
        let line = line(unit)?;
        if is_no(line) { Err(declined(line)) } else { ask_or_agree(&mut self.is_asked, &self.command, out) }
    }
}

/// Whether an answer is a refusal: a 4xx or 5xx code, `-ERR`, or one of the words NO, BAD, ERR and ERROR.
fn is_no(answer: &[u8]) -> bool {
    let first = answer.split(u8::is_ascii_whitespace).find(|word| !word.is_empty()).unwrap_or_default();
    let is_code = first.len() >= 3 && first[..3].iter().all(u8::is_ascii_digit) && matches!(first[0], b'4' | b'5');
    is_code || ["-ERR", "NO", "BAD", "ERR", "ERROR"].iter().any(|word| first.eq_ignore_ascii_case(word.as_bytes()))
}
