//! XMPP (RFC 6120 section 5).

use crate::core::dialogue::script::{
    Next, Script, XMPP_STREAMS, XMPP_TLS, declined, ends, for_xml, is_tag, tag, unexpected,
};
use crate::error::DialogueError;

pub(super) struct Xmpp {
    state: State,
    /// STARTTLS was one of the features. The features may also continue after STARTTLS.
    is_offered: bool,
}

enum State {
    /// The server's stream header, perhaps after an XML declaration.
    Header { is_declared: bool },
    /// `<stream:features>`
    Features,
    /// Inside the features, at this depth of elements.
    Inside { depth: usize },
    /// The answer to our request for TLS.
    GoAhead,
    /// `</proceed>`
    EndOfGoAhead,
}

impl Xmpp {
    pub(super) fn begin(namespace: &str, to: &str, from: Option<&str>, out: &mut Vec<u8>) -> Self {
        let from = from.map(|from| format!(" from='{}'", for_xml(from))).unwrap_or_default();
        let to = for_xml(to);
        let open = format!(
            "<?xml version='1.0'?><stream:stream to='{to}'{from} version='1.0' xmlns='{namespace}' \
             xmlns:stream='{XMPP_STREAMS}'>",
        );
        out.extend_from_slice(open.as_bytes());
        Self { state: State::Header { is_declared: false }, is_offered: false }
    }
}

impl Script for Xmpp {
    fn is_whole(&mut self, unit: &[u8]) -> Result<bool, DialogueError> {
        ends(unit, b'>')
    }

    fn hear(&mut self, unit: &[u8], out: &mut Vec<u8>) -> Result<Next, DialogueError> {
        match self.state {
            State::Header { is_declared } => {
                let tag = tag(unit)?;
                self.state = match is_tag(tag, "<stream:stream") && !tag.ends_with(b"/>") {
                    true => State::Features,
                    false if !is_declared && is_tag(tag, "<?xml") => State::Header { is_declared: true },
                    false => return Err(unexpected(tag)),
                };
                Ok(Next::Listen)
            }
            State::Features => {
                let tag = tag(unit)?;
                if !is_tag(tag, "<stream:features") {
                    return Err(unexpected(tag));
                }
                if tag.ends_with(b"/>") {
                    return Err(DialogueError::NotOffered);
                }
                self.state = State::Inside { depth: 1 };
                Ok(Next::Listen)
            }
            State::Inside { depth } => self.feature(unit, depth, out),
            // RFC 6120 section 5.3.1: from here on, whitespace is not allowed between elements either.
            State::GoAhead if is_tag(unit, "<proceed") => match unit.ends_with(b"/>") {
                true => Ok(Next::Agree),
                false => {
                    self.state = State::EndOfGoAhead;
                    Ok(Next::Listen)
                }
            },
            State::GoAhead if is_tag(unit, "<failure") => Err(declined(unit)),
            State::EndOfGoAhead if unit == b"</proceed>" => Ok(Next::Agree),
            State::GoAhead | State::EndOfGoAhead => Err(unexpected(unit)),
        }
    }
}

impl Xmpp {
    /// A tag inside the features. Text is allowed only inside a feature, as in the list of SASL mechanisms.
    fn feature(&mut self, unit: &[u8], depth: usize, out: &mut Vec<u8>) -> Result<Next, DialogueError> {
        let tag = match unit.iter().position(|byte| *byte == b'<') {
            Some(begin) if depth > 1 => &unit[begin..],
            _ => tag(unit)?,
        };
        if tag.starts_with(b"<!") || tag.starts_with(b"<?") {
            return Err(unexpected(tag));
        }
        self.is_offered |= depth == 1 && is_tag(tag, "<starttls");
        let depth = match tag {
            [b'<', b'/', ..] => depth - 1,
            [.., b'/', b'>'] => depth,
            _ => depth + 1,
        };
        self.state = State::Inside { depth };
        match (depth, self.is_offered) {
            (0, _) if tag != b"</stream:features>" => Err(unexpected(tag)),
            (0, false) => Err(DialogueError::NotOffered),
            (0, true) => {
                out.extend_from_slice(format!("<starttls xmlns='{XMPP_TLS}'/>").as_bytes());
                self.state = State::GoAhead;
                Ok(Next::Listen)
            }
            _ => Ok(Next::Listen),
        }
    }
}
