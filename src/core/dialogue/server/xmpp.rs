//! XMPP (RFC 6120 section 5).

use crate::core::dialogue::script::{Next, Script, XMPP_STREAMS, XMPP_TLS, ends, for_xml, is_tag, tag, unexpected};
use crate::error::DialogueError;

pub(super) struct Xmpp {
    namespace: &'static str,
    from: String,
    state: State,
}

#[derive(Clone, Copy)]
enum State {
    /// The client's stream header, perhaps after an XML declaration.
    Header { is_declared: bool },
    /// `<starttls/>`
    Request,
    /// `</starttls>`
    EndOfRequest,
}

impl Xmpp {
    pub(super) fn new(namespace: &'static str, name: &str) -> Self {
        Self { namespace, from: for_xml(name), state: State::Header { is_declared: false } }
    }

    fn open(&self, out: &mut Vec<u8>) {
        let (namespace, from, id) = (self.namespace, &self.from, super::unguessed());
        let open = format!(
            "<?xml version='1.0'?><stream:stream from='{from}' id='{id:016x}' version='1.0' xmlns='{namespace}' \
             xmlns:stream='{XMPP_STREAMS}'>",
        );
        out.extend_from_slice(open.as_bytes());
    }
}

impl Script for Xmpp {
    fn is_whole(&mut self, unit: &[u8]) -> Result<bool, DialogueError> {
        ends(unit, b'>')
    }

    fn hear(&mut self, unit: &[u8], out: &mut Vec<u8>) -> Result<Next, DialogueError> {
        let refuse = |out: &mut Vec<u8>| {
            let error = "<stream:error><policy-violation xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>\
                         </stream:stream>";
            out.extend_from_slice(error.as_bytes());
            Err(unexpected(unit))
        };
        let proceed = |out: &mut Vec<u8>| {
            out.extend_from_slice(format!("<proceed xmlns='{XMPP_TLS}'/>").as_bytes());
            Ok(Next::Agree)
        };
        let tag = tag(unit)?;
        match self.state {
            State::Header { is_declared: false } if is_tag(tag, "<?xml") => {
                self.state = State::Header { is_declared: true };
                Ok(Next::Listen)
            }
            State::Header { .. } if is_tag(tag, "<stream:stream") && !tag.ends_with(b"/>") => {
                self.open(out);
                let features =
                    format!("<stream:features><starttls xmlns='{XMPP_TLS}'><required/></starttls></stream:features>");
                out.extend_from_slice(features.as_bytes());
                self.state = State::Request;
                Ok(Next::Listen)
            }
            State::Header { .. } => {
                self.open(out);
                refuse(out)
            }
            State::Request if is_tag(tag, "<starttls") => {
                if !tag.windows(XMPP_TLS.len()).any(|part| part == XMPP_TLS.as_bytes()) {
                    return refuse(out);
                }
                if tag.ends_with(b"/>") {
                    return proceed(out);
                }
                self.state = State::EndOfRequest;
                Ok(Next::Listen)
            }
            State::Request if tag == b"</stream:stream>" => {
                out.extend_from_slice(tag);
                Ok(Next::Leave)
            }
            State::EndOfRequest if tag == b"</starttls>" => proceed(out),
            State::Request | State::EndOfRequest => refuse(out),
        }
    }
}
