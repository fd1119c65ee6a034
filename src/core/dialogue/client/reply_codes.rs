//! Protocols whose answers begin with a code of three digits.

use std::collections::VecDeque;

use crate::core::dialogue::script::{Next, Script, declined, ends, line, unexpected};
use crate::error::DialogueError;

/// The form of a reply of several lines.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Each line except the last one starts with the code and a dash (RFC 5321 section 4.2.1).
    EachLine,
    /// The first line starts with the code and a dash. Any text may follow, until a line starts with the code and a
    /// space (RFC 959 section 4.2).
    FirstAndLast,
    /// The reply has only one line (RFC 3977 section 3.2).
    OneLine,
}

/// One expected reply, and the command that follows it.
struct Stage {
    codes: &'static [&'static str],
    /// Whether one of its lines must be STARTTLS.
    must_offer: bool,
    /// The next command; `None`: TLS starts.
    then: Option<String>,
}

pub(super) struct Coded {
    form: Form,
    stages: VecDeque<Stage>,
    /// The lines of the current reply so far.
    reply: Vec<u8>,
    /// One of these lines is STARTTLS.
    is_offered: bool,
}

impl Coded {
    /// RFC 3207: SMTP. RFC 2033: LMTP.
    pub(super) fn mail(verb: &str, hello: &str) -> Self {
        Self::new(
            Form::EachLine,
            [
                Stage { codes: &["220"], must_offer: false, then: Some(format!("{verb} {hello}\r\n")) },
                Stage { codes: &["250"], must_offer: true, then: Some("STARTTLS\r\n".into()) },
                Stage { codes: &["220"], must_offer: false, then: None },
            ],
        )
    }

    /// RFC 4217 section 4
    pub(super) fn ftp() -> Self {
        Self::new(
            Form::FirstAndLast,
            [
                Stage { codes: &["220"], must_offer: false, then: Some("AUTH TLS\r\n".into()) },
                Stage { codes: &["234"], must_offer: false, then: None },
            ],
        )
    }

    /// RFC 4642 section 2.2
    pub(super) fn nntp() -> Self {
        Self::new(
            Form::OneLine,
            [
                Stage { codes: &["200", "201"], must_offer: false, then: Some("STARTTLS\r\n".into()) },
                Stage { codes: &["382"], must_offer: false, then: None },
            ],
        )
    }

    fn new<const N: usize>(form: Form, stages: [Stage; N]) -> Self {
        Self { form, stages: stages.into(), reply: Vec::new(), is_offered: false }
    }
}

impl Script for Coded {
    fn is_whole(&mut self, unit: &[u8]) -> Result<bool, DialogueError> {
        ends(unit, b'\n')
    }

    fn hear(&mut self, unit: &[u8], out: &mut Vec<u8>) -> Result<Next, DialogueError> {
        let line = line(unit)?;
        let is_first = self.reply.is_empty();
        // All lines of a reply must have the code of the first one.
        let with_code = if is_first { line } else { &self.reply };
        let code =
            with_code.get(..3).filter(|code| code.iter().all(u8::is_ascii_digit)).ok_or_else(|| unexpected(line))?;
        let rest = line.strip_prefix(code);
        let is_last = rest.is_some_and(|rest| matches!(rest.first(), None | Some(b' ')));
        let goes_on = match self.form {
            Form::OneLine => false,
            Form::FirstAndLast if !is_first => true,
            Form::FirstAndLast | Form::EachLine => rest.is_some_and(|rest| rest.starts_with(b"-")),
        };
        if !is_last && !goes_on {
            return Err(unexpected(line));
        }
        let offer = rest.and_then(|rest| rest.get(1..)).unwrap_or_default();
        self.is_offered |= offer.trim_ascii().eq_ignore_ascii_case(b"STARTTLS");
        self.reply.extend_from_slice(unit);
        if is_last { self.answer(out) } else { Ok(Next::Listen) }
    }
}

impl Coded {
    /// Handles a complete reply.
    fn answer(&mut self, out: &mut Vec<u8>) -> Result<Next, DialogueError> {
        let reply = std::mem::take(&mut self.reply);
        let is_offered = std::mem::take(&mut self.is_offered);
        let code = &reply[..3];
        let is_expected = |stage: &Stage| stage.codes.iter().any(|known| known.as_bytes() == code);
        let is_expected = self.stages.front().is_some_and(is_expected);
        match is_expected.then(|| self.stages.pop_front()).flatten() {
            Some(stage) if stage.must_offer && !is_offered => Err(DialogueError::NotOffered),
            Some(Stage { then: Some(command), .. }) => {
                out.extend_from_slice(command.as_bytes());
                Ok(Next::Listen)
            }
            Some(Stage { then: None, .. }) => Ok(Next::Agree),
            None => match code[0] {
                b'4' | b'5' => Err(declined(reply.trim_ascii_end())),
                // RFC 959 section 5.4: code 120 means that the greeting follows later.
                b'1' if self.form == Form::FirstAndLast && self.stages.len() == 2 => Ok(Next::Listen),
                _ => Err(unexpected(reply.trim_ascii_end())),
            },
        }
    }
}
