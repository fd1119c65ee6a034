//! Bytes and steps that a protocol has asked for and the transport has not handled yet, in the order of the calls.

use std::collections::VecDeque;
use std::fmt;

use super::buffer::Buffer;

/// Memory that an empty outbox keeps, in bytes: enough for small answers to need no allocation.
const KEPT: usize = 1 << 10;

/// How an outbox ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EndRequest {
    /// No end was asked for.
    #[default]
    None,
    /// After its last byte our send half ends.
    CloseWrite,
    /// After its last byte the connection ends.
    Close,
}

/// The next thing to do.
#[derive(PartialEq, Eq)]
pub enum Due<'a> {
    /// Hand over these bytes.
    Bytes(&'a [u8]),
    /// A step is next: [`Outbox::take_step`].
    Step,
    /// Everything is done up to the requested end.
    End(EndRequest),
    /// Nothing to do.
    Nothing,
}

impl fmt::Debug for Due<'_> {
    /// Shows how many bytes there are, not their content (rule: tcp-11).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "Bytes({})", bytes.len()),
            Self::Step => f.write_str("Step"),
            Self::End(request) => write!(f, "End({request:?})"),
            Self::Nothing => f.write_str("Nothing"),
        }
    }
}

/// Bytes and steps in order, and how the send half ends after them. `S` is a step that bytes must not pass: the start or
/// the end of TLS.
#[derive(Debug)]
pub struct Outbox<S> {
    bytes: Buffer,
    /// Each step, and how many bytes lie between it and the step before.
    steps: VecDeque<(usize, S)>,
    /// The sum of those counts: all bytes that a step has to wait for.
    ahead: usize,
    request: EndRequest,
    is_over: bool,
    has_producer: bool,
    accepted: u64,
    dropped: u64,
}

impl<S> Default for Outbox<S> {
    fn default() -> Self {
        Self {
            bytes: Buffer::default(),
            steps: VecDeque::new(),
            ahead: 0,
            request: EndRequest::None,
            is_over: false,
            has_producer: false,
            accepted: 0,
            dropped: 0,
        }
    }
}

/// Looking.
impl<S> Outbox<S> {
    /// Whether bytes would be accepted now: until the end was requested, and after that as long as a producer is registered
    /// (rules: write-4, close-5).
    pub fn may_write(&self) -> bool {
        !self.is_over && (self.request == EndRequest::None || self.has_producer)
    }

    /// How many bytes wait.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether no byte and no step waits.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.steps.is_empty()
    }

    /// Whether a step waits.
    pub fn has_steps(&self) -> bool {
        !self.steps.is_empty()
    }

    /// The next step, however many bytes are before it.
    pub fn next_step(&self) -> Option<&S> {
        self.steps.front().map(|(_, step)| step)
    }

    /// The requested end.
    pub fn requested_end(&self) -> EndRequest {
        self.request
    }

    /// How many bytes were accepted since the start.
    pub fn accepted(&self) -> u64 {
        self.accepted
    }

    /// How many bytes came after the end and were dropped (rule: write-4).
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// The next thing to do. The end waits for the producer (rules: close-5, half-4).
    pub fn due(&self) -> Due<'_> {
        let until_step = self.steps.front().map_or(self.bytes.len(), |(bytes, _)| *bytes);
        match self.request {
            _ if until_step > 0 => Due::Bytes(&self.bytes.as_slice()[..until_step]),
            _ if self.has_steps() => Due::Step,
            EndRequest::CloseWrite | EndRequest::Close if !self.has_producer => Due::End(self.request),
            EndRequest::None | EndRequest::CloseWrite | EndRequest::Close => Due::Nothing,
        }
    }
}

/// The application wants.
impl<S> Outbox<S> {
    /// Adds bytes and returns whether they were accepted.
    pub fn write(&mut self, bytes: &[u8]) -> bool {
        let accepted = self.may_write();
        if accepted {
            self.bytes.push(bytes);
            self.accepted += bytes.len() as u64;
        } else {
            self.dropped += bytes.len() as u64;
        }
        accepted
    }

    /// Adds a step after the accepted bytes.
    pub fn push_step(&mut self, step: S) {
        let bytes = self.bytes.len() - self.ahead;
        self.ahead += bytes;
        self.steps.push_back((bytes, step));
    }

    /// Asks for an end. A second call changes nothing; a close overrides the end of the send half alone (rules: close-6,
    /// half-3).
    pub fn end(&mut self, request: EndRequest) {
        self.request = match (self.request, request) {
            (EndRequest::None, request) => request,
            (EndRequest::CloseWrite, EndRequest::Close) => EndRequest::Close,
            (
                asked @ (EndRequest::CloseWrite | EndRequest::Close),
                EndRequest::None | EndRequest::CloseWrite | EndRequest::Close,
            ) => asked,
        };
    }

    /// Sets whether a producer is registered: the end waits for it.
    pub fn set_producer(&mut self, is_there: bool) {
        self.has_producer = is_there;
    }

    /// Nothing can be sent any more: the queued bytes are discarded, and later ones are dropped.
    pub fn lose(&mut self) {
        self.is_over = true;
        self.bytes.clear();
        self.steps.clear();
        self.ahead = 0;
    }
}

/// The caller did.
impl<S> Outbox<S> {
    /// The first `n` of the due bytes were handed over.
    pub fn handed_over(&mut self, n: usize) {
        self.bytes.consume(n);
        if let Some((bytes, _)) = self.steps.front_mut() {
            *bytes -= n;
            self.ahead -= n;
        }
        if self.bytes.is_empty() && self.bytes.capacity() > KEPT {
            self.bytes.release();
        }
    }

    /// The step that is due.
    pub fn take_step(&mut self) -> Option<S> {
        match self.due() {
            Due::Step => self.steps.pop_front().map(|(_, step)| step),
            Due::Bytes(_) | Due::End(_) | Due::Nothing => None,
        }
    }

    /// Takes all bytes. No more are added after this.
    pub fn take_last(&mut self) -> Vec<u8> {
        self.ahead = 0;
        self.steps.clear();
        self.bytes.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outbox() -> Outbox<&'static str> {
        Outbox::default()
    }

    fn drain(outbox: &mut Outbox<&'static str>) -> String {
        let mut out = String::new();
        loop {
            match outbox.due() {
                Due::Bytes(bytes) => {
                    out.push_str(std::str::from_utf8(bytes).unwrap());
                    let n = bytes.len();
                    outbox.handed_over(n);
                }
                Due::Step => {
                    let step = outbox.take_step().unwrap();
                    out.push_str(&format!("<{step}>"));
                }
                Due::End(request) => return format!("{out}<{request:?}>"),
                Due::Nothing => return out,
            }
        }
    }

    /// rule: upgrade-1, write-1
    #[test]
    fn steps_keep_their_place_between_bytes() {
        let mut outbox = outbox();
        outbox.write(b"a");
        outbox.write(b"b");
        outbox.push_step("tls");
        outbox.push_step("tls again");
        outbox.write(b"c");
        outbox.push_step("plain");
        outbox.end(EndRequest::Close);
        assert_eq!(drain(&mut outbox), "ab<tls><tls again>c<plain><Close>");
    }

    /// rule: write-4
    #[test]
    fn what_is_written_behind_the_end_is_dropped_and_counted() {
        for request in [EndRequest::CloseWrite, EndRequest::Close] {
            let mut outbox = outbox();
            assert!(outbox.write(b"kept"));
            outbox.end(request);
            assert!(!outbox.write(b"dropped"));
            assert_eq!((outbox.accepted(), outbox.dropped()), (4, 7));
            assert_eq!(drain(&mut outbox), format!("kept<{request:?}>"));
        }
    }

    /// rule: close-5, half-4
    #[test]
    fn the_end_waits_for_the_producer_and_for_what_it_writes() {
        let mut outbox = outbox();
        outbox.set_producer(true);
        outbox.end(EndRequest::CloseWrite);
        assert_eq!(drain(&mut outbox), "");
        assert!(outbox.write(b"tail"));
        outbox.set_producer(false);
        assert!(!outbox.write(b"late"));
        assert_eq!(drain(&mut outbox), "tail<CloseWrite>");
    }

    /// rule: close-6, half-3
    #[test]
    fn ends_are_asked_for_once_and_close_is_the_stronger() {
        let mut outbox = outbox();
        outbox.end(EndRequest::CloseWrite);
        outbox.end(EndRequest::CloseWrite);
        assert_eq!(outbox.requested_end(), EndRequest::CloseWrite);
        outbox.end(EndRequest::Close);
        outbox.end(EndRequest::CloseWrite);
        assert_eq!(outbox.requested_end(), EndRequest::Close);
    }

    /// rule: write-5
    #[test]
    fn nothing_is_accepted_once_all_is_lost() {
        let mut outbox = outbox();
        outbox.write(b"queued");
        outbox.push_step("tls");
        outbox.lose();
        assert!(outbox.is_empty() && !outbox.write(b"late"));
        assert_eq!((drain(&mut outbox).as_str(), outbox.dropped()), ("", 4));
    }
}
