//! Splits PEM text into sections (RFC 7468). A text that looks like a section but cannot be read as one is an error:
//! skipping it could lose a certificate (rule: secure-12).
//!
//! The parser accepts more than RFC 7468 requires. Lines may end in CR, LF or both, and white space may surround
//! them. A byte order mark may precede a BEGIN. A BEGIN may follow an END on the same line: `cat` produces this from
//! files without a final line end. Any text may stand between sections, as `openssl x509 -text` writes it, unless it
//! looks like a part of a section.

use crate::escape::escaped;

/// A mistake in a PEM text: the number of its line, counted from one, and what is wrong.
pub(super) type Mistake = (usize, String);

/// The bytes between a BEGIN and its END.
pub(super) struct Section<'a> {
    pub(super) label: String,
    /// The number of its BEGIN line, counted from one.
    pub(super) line: usize,
    body: &'a [u8],
}

impl<'a> Section<'a> {
    /// PKCS#8 marks an encrypted key in the label, the older forms in a header (RFC 1421, section 4.6.1.1).
    pub(super) fn is_encrypted(&self) -> bool {
        let is_header = |line: &[u8]| line.starts_with(b"Proc-Type:") && line.ends_with(b"ENCRYPTED");
        self.label == "ENCRYPTED PRIVATE KEY" || self.lines().any(|(_, line)| is_header(line))
    }

    /// The section in the form that a strict parser accepts, with a label that the parser knows.
    pub(super) fn rewritten(&self, label: &str) -> Vec<u8> {
        let mut text = format!("-----BEGIN {label}-----\n").into_bytes();
        for (_, line) in self.base64() {
            text.extend_from_slice(line);
            text.push(b'\n');
        }
        text.extend_from_slice(format!("-----END {label}-----\n").as_bytes());
        text
    }

    /// The line of invalid base64: the first line with an invalid character, or else the BEGIN line.
    pub(super) fn broken_line(&self) -> usize {
        let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/= \t".contains(byte);
        self.base64().find(|(_, line)| !line.iter().all(is_base64)).map_or(self.line, |(number, _)| number)
    }

    /// The lines after the headers, if there are headers.
    fn base64(&self) -> impl Iterator<Item = (usize, &'a [u8])> {
        self.lines().skip_while(|(_, line)| line.contains(&b':'))
    }

    fn lines(&self) -> impl Iterator<Item = (usize, &'a [u8])> {
        let (body, mut counter) = (self.body, LineCounter { line: self.line, at: 0 });
        let lines = body.split(|&byte| is_line_end(byte)).scan(0, |next, line| {
            let at = *next;
            *next += line.len() + 1;
            Some((at, line))
        });
        lines
            .filter(|(_, line)| !line.is_empty())
            .map(move |(at, line)| (counter.moved_to(at, body), line.trim_ascii()))
    }
}

/// Splits a text into sections.
pub(super) fn sections(text: &[u8]) -> Result<Vec<Section<'_>>, Mistake> {
    let mut reader = Reader { text, at: 0, lines: LineCounter { line: 1, at: 0 } };
    let mut found = Vec::new();
    while let Some(section) = reader.next_section()? {
        found.push(section);
    }
    Ok(found)
}

const BEGIN: &[u8] = b"-----BEGIN ";
const END: &[u8] = b"-----END ";
const DASHES: &[u8] = b"-----";
const UTF8_MARK: &[u8] = b"\xef\xbb\xbf";

struct Reader<'a> {
    text: &'a [u8],
    /// Everything before this offset has been read.
    at: usize,
    lines: LineCounter,
}

impl<'a> Reader<'a> {
    fn next_section(&mut self) -> Result<Option<Section<'a>>, Mistake> {
        let Some(begin) = self.find(BEGIN, self.at) else {
            self.check_between(self.text.len())?;
            self.check_last_line()?;
            return Ok(None);
        };
        self.check_between(begin)?;
        self.check_is_first(begin)?;
        let line = self.lines.moved_to(begin, self.text);
        let (label, body) = self.label(begin + BEGIN.len(), line)?;
        let next = self.find(BEGIN, body).unwrap_or(self.text.len());
        let end = self.find(END, body).filter(|&end| end < next);
        let Some(end) = end else { return Err((line, format!("the {label} that begins here has no END line"))) };
        self.check_markers(body, end)?;
        let rest = &self.text[end + END.len()..line_end(self.text, end)];
        let Some(length) = find(rest, DASHES) else {
            return Err((self.line(end), "this END line is incomplete".into()));
        };
        let end_label = name(&rest[..length]);
        if end_label != label {
            return Err((
                self.line(end),
                format!("the section that begins as {label} in line {line} ends as {end_label}"),
            ));
        }
        self.at = end + END.len() + length + DASHES.len();
        Ok(Some(Section { label, line, body: &self.text[body..end] }))
    }

    /// The label that begins here, and the end of its line.
    fn label(&self, from: usize, line: usize) -> Result<(String, usize), Mistake> {
        let rest = &self.text[from..line_end(self.text, from)];
        let Some(length) = find(rest, DASHES) else { return Err((line, "this BEGIN line is incomplete".into())) };
        let behind = rest[length + DASHES.len()..].trim_ascii();
        let problem = match behind {
            [] => return Ok((name(&rest[..length]), from + length + DASHES.len())),
            [b'\\', b'n' | b'r', ..] => r"the line ends are the two characters \n: replace them by real line ends",
            _ if find(behind, END).is_some() => {
                "the line ends are missing: BEGIN, base64 and END are lines of their own"
            }
            _ => "there is text after the BEGIN marker, which must be alone on its line",
        };
        Err((line, problem.into()))
    }

    /// A BEGIN may follow an END or invisible characters. Other text before it may be a comment sign, or
    /// the rest of a section whose beginning is missing.
    fn check_is_first(&self, begin: usize) -> Result<(), Mistake> {
        let ahead = &self.text[self.at..begin];
        let ahead = ahead.rsplit(|&byte| is_line_end(byte)).next().unwrap_or_default().trim_ascii();
        match ahead.strip_prefix(UTF8_MARK).unwrap_or(ahead).trim_ascii() {
            [] => Ok(()),
            _ => Err((self.line(begin), "this BEGIN does not start its line".into())),
        }
    }

    /// A text that was cut off inside a BEGIN.
    fn check_last_line(&self) -> Result<(), Mistake> {
        let last = self.text[self.at..].rsplit(|&byte| is_line_end(byte)).next().unwrap_or_default().trim_ascii();
        match !last.is_empty() && BEGIN.starts_with(last) {
            true => Err((self.line(self.text.len()), "this BEGIN line is incomplete".into())),
            false => Ok(()),
        }
    }

    /// Text outside of the sections. It must not look like a part of a section.
    fn check_between(&self, end: usize) -> Result<(), Mistake> {
        self.check_markers(self.at, end)?;
        let mut begin = self.at;
        for line in self.text[self.at..end].split(|&byte| is_line_end(byte)) {
            let is_binary = line.iter().any(|&byte| byte < b' ' && !matches!(byte, b'\t' | 0x0b | 0x0c | 0x1a | 0x1b));
            let is_der = line.trim_ascii().starts_with(b"MI") && line.len() >= 60 && !line.contains(&b' ');
            if is_binary {
                return Err((
                    self.line(begin),
                    "there are binary bytes here, perhaps DER, but PEM is text: convert them".into(),
                ));
            }
            if is_der {
                return Err((self.line(begin), "there is base64 here without a BEGIN line".into()));
            }
            begin += line.len() + 1;
        }
        Ok(())
    }

    /// A malformed BEGIN or END, such as `--BEGIN CERTIFICATE` or `-----end certificate`.
    fn check_markers(&self, from: usize, to: usize) -> Result<(), Mistake> {
        let text = &self.text[from..to];
        let is_upper = |at: usize| matches!(text[at], b'B' | b'E');
        let is_marker = |&at: &usize| {
            let ahead = &text[..at];
            let is_dash =
                ahead.ends_with(b"-") || ends_in_typeset_dash(ahead) || (ahead.ends_with(b"- ") && is_upper(at));
            is_dash && !ends_in_hyphen(ahead) && names_a_section(&text[at..line_end(text, at)])
        };
        let mut places = text.iter().enumerate().filter(|(_, byte)| b"BbEe".contains(byte)).map(|(at, _)| at);
        let Some(at) = places.find(is_marker) else { return Ok(()) };
        let problem = match text[at] {
            b'B' | b'b' => "this BEGIN is not written `-----BEGIN LABEL-----`",
            _ => "this END has no BEGIN",
        };
        Err((self.line(from + at), problem.into()))
    }

    /// The number of the line at this offset, for a mistake.
    fn line(&self, at: usize) -> usize {
        LineCounter { line: 1, at: 0 }.moved_to(at, self.text)
    }

    fn find(&self, what: &[u8], from: usize) -> Option<usize> {
        find(&self.text[from..], what).map(|at| from + at)
    }
}

/// Whether the text after BEGIN or END continues like a label of the wanted kind.
fn names_a_section(text: &[u8]) -> bool {
    let upper = text[..text.len().min(64)].to_ascii_uppercase();
    let word = upper.strip_prefix(b"BEGIN").or(upper.strip_prefix(b"END"));
    word.is_some_and(|label| {
        [&b"CERTIFICATE"[..], b"KEY", b"CRL", b"PKCS"].iter().any(|kind| find(label, kind).is_some())
    })
}

/// The hyphen inside a word, as in the friendly name `back-end certificate`.
fn ends_in_hyphen(text: &[u8]) -> bool {
    matches!(text, [.., word, b'-'] if word.is_ascii_alphanumeric())
}

/// Word processors turn two hyphens into U+2012 to U+2015, which end in these bytes.
fn ends_in_typeset_dash(text: &[u8]) -> bool {
    matches!(text, [.., 0xe2, 0x80, 0x92..=0x95])
}

/// A label, valid or not, for a message.
fn name(label: &[u8]) -> String {
    escaped(label.trim_ascii()).to_string()
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

/// The end of the line at this offset.
fn line_end(text: &[u8], at: usize) -> usize {
    text[at..].iter().position(|&byte| is_line_end(byte)).map_or(text.len(), |length| at + length)
}

fn is_line_end(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

/// Counts lines that end in CR, LF or both.
struct LineCounter {
    line: usize,
    at: usize,
}

impl LineCounter {
    /// Moves to this offset and returns the number of its line. The offsets of successive calls must not decrease.
    fn moved_to(&mut self, at: usize, text: &[u8]) -> usize {
        while self.at < at {
            let is_end = match text[self.at] {
                b'\n' => true,
                b'\r' => text.get(self.at + 1) != Some(&b'\n'),
                _ => false,
            };
            self.line += usize::from(is_end);
            self.at += 1;
        }
        self.line
    }
}
