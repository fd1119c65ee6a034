//! Splits an endpoint string into parts, resolves escapes, and tracks the offsets of mistakes.

use crate::error::EndpointError;

/// A mistake, and its byte offset.
#[derive(Debug)]
pub(super) struct Mistake {
    pub(super) at: usize,
    pub(super) problem: String,
}

impl Mistake {
    pub(super) fn new(at: usize, problem: impl Into<String>) -> Self {
        Self { at, problem: problem.into() }
    }

    pub(super) fn of(self, input: &str) -> EndpointError {
        EndpointError { input: input.to_owned(), at: self.at, problem: self.problem }
    }
}

/// A part of an endpoint string. Its escapes are valid.
#[derive(Debug, Clone, Copy)]
pub(super) struct Text<'a> {
    pub(super) raw: &'a str,
    pub(super) at: usize,
}

impl Text<'_> {
    /// The offset after the part.
    pub(super) fn end(&self) -> usize {
        self.at + self.raw.len()
    }

    /// The value, with its escapes resolved.
    pub(super) fn value(&self) -> String {
        self.characters().map(|(_, c)| c).collect()
    }

    /// Parses the value. The offset of a mistake is converted to an offset in the input.
    pub(super) fn read<T>(&self, read: impl FnOnce(&str) -> Result<T, Mistake>) -> Result<T, Mistake> {
        read(&self.value()).map_err(|mistake| Mistake { at: self.place(mistake.at), ..mistake })
    }

    /// The offset in the input of a byte of the value.
    fn place(&self, in_value: usize) -> usize {
        let mut length = 0;
        for (at, c) in self.characters() {
            if length >= in_value {
                return at;
            }
            length += c.len_utf8();
        }
        self.end()
    }

    /// Each character of the value, with the offset in the input at which it or its escape begins.
    fn characters(&self) -> impl Iterator<Item = (usize, char)> {
        let mut raw = self.raw.char_indices();
        std::iter::from_fn(move || {
            let (at, c) = raw.next()?;
            let c = if c == ESCAPE { raw.next()?.1 } else { c };
            Some((self.at + at, c))
        })
    }
}

const ESCAPE: char = '\\';

fn is_special(c: char) -> bool {
    matches!(c, ':' | '=' | ESCAPE)
}

/// Escapes a value.
pub(super) fn escape(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for c in value.chars() {
        if is_special(c) {
            escaped.push(ESCAPE);
        }
        escaped.push(c);
    }
    escaped
}

/// Escapes an address. The colons between the brackets of an IPv6 address are not separators, so they stay as they are.
pub(super) fn escape_address(value: &str) -> String {
    match value.split_once(']') {
        Some((host, rest)) if value.starts_with('[') => format!("{host}]{}", escape(rest)),
        _ => escape(value),
    }
}

/// Reads an endpoint string part by part.
pub(super) struct Cursor<'a> {
    input: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(input: &'a str) -> Self {
        Self { input, at: 0 }
    }

    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn rest(&self) -> &'a str {
        &self.input[self.at..]
    }

    /// Skips a separator, if it comes next.
    pub(super) fn pass(&mut self, separator: char) -> bool {
        let comes = self.rest().starts_with(separator);
        self.at += if comes { separator.len_utf8() } else { 0 };
        comes
    }

    /// The part up to the next colon.
    pub(super) fn part(&mut self) -> Result<Text<'a>, Mistake> {
        self.part_to(&[':'])
    }

    /// The part up to the next separator.
    pub(super) fn part_to(&mut self, separators: &[char]) -> Result<Text<'a>, Mistake> {
        self.take(separators, 0)
    }

    /// The part up to the next colon. Colons between brackets at the start of the part do not count.
    pub(super) fn address(&mut self) -> Result<Text<'a>, Mistake> {
        if !self.rest().starts_with('[') {
            return self.part();
        }
        let bracketed = self.rest().find(']').ok_or_else(|| Mistake::new(self.at, "the bracket is not closed"))?;
        self.take(&[':'], bracketed)
    }

    /// Ignores separators in the first `opaque` bytes.
    fn take(&mut self, separators: &[char], opaque: usize) -> Result<Text<'a>, Mistake> {
        let rest = self.rest();
        let mut length = rest.len();
        let mut characters = rest.char_indices();
        while let Some((at, c)) = characters.next() {
            if c.is_control() {
                return Err(Mistake::new(self.at + at, "control characters are not allowed here"));
            }
            if c == ESCAPE && !characters.next().is_some_and(|(_, c)| is_special(c)) {
                let problem = r"a backslash may only precede a colon, an equals sign or another backslash";
                return Err(Mistake::new(self.at + at, problem));
            }
            if separators.contains(&c) && at >= opaque {
                length = at;
                break;
            }
        }
        let text = Text { raw: &rest[..length], at: self.at };
        self.at += length;
        Ok(text)
    }
}
