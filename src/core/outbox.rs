//! The bytes and steps of a protocol's calls that the transport has not handled yet, in the order of the calls.

use std::collections::VecDeque;
use std::fmt;

use super::buffer::Buffer;

/// The number of bytes of memory that an empty outbox keeps, so that small answers need no allocation.
const KEPT: usize = 1 << 10;

/// The end that a protocol has requested: it comes after the last byte of an outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EndRequest {
    /// Nothing: no end was requested.
    #[default]
    None,
    /// The end of our send half.
    CloseWrite,
    /// The end of the connection.
    Close,
}

/// The next thing to do.
#[derive(PartialEq, Eq)]
pub enum Due<'a> {
    /// Pass these bytes to the transport.
    Bytes(&'a [u8]),
    /// Perform the step that [`Outbox::take_step`] returns.
    Step,
    /// Everything before the requested end is done: perform the end.
    End(EndRequest),
    /// Nothing to do.
    Nothing,
}

impl fmt::Debug for Due<'_> {
    /// Shows the number of bytes, not their content (rule: tcp-11).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "Bytes({})", bytes.len()),
            Self::Step => f.write_str("Step"),
            Self::End(request) => write!(f, "End({request:?})"),
            Self::Nothing => f.write_str("Nothing"),
        }
    }
}

/// Bytes and steps in order, and the end that follows them. `S` is a step that bytes must not overtake: the start or
/// the end of TLS.
#[derive(Debug)]
pub struct Outbox<S> {
    bytes: Buffer,
    /// Each step, with the number of bytes between it and the step before it.
    steps: VecDeque<(usize, S)>,
    /// The sum of the numbers of bytes in `steps`: all bytes that precede a step.
    ahead: usize,
    request: EndRequest,
    /// Nothing can be sent any more. An end may have been requested before, and a producer may be registered still.
    is_over: bool,
    /// A producer is registered. The application decides when it comes and goes.
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

/// Methods that change nothing.
impl<S> Outbox<S> {
    /// Whether bytes would be accepted now. They are accepted until an end is requested, and after that while a
    /// producer is registered (rules: write-4, close-5).
    pub fn may_write(&self) -> bool {
        !self.is_over && (self.request == EndRequest::None || self.has_producer)
    }

    /// The number of queued bytes.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether no bytes and no steps are queued.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.steps.is_empty()
    }

    /// Whether a step is queued.
    pub fn has_steps(&self) -> bool {
        !self.steps.is_empty()
    }

    /// The next step, even if bytes precede it.
    pub fn next_step(&self) -> Option<&S> {
        self.steps.front().map(|(_, step)| step)
    }

    /// The requested end.
    pub fn requested_end(&self) -> EndRequest {
        self.request
    }

    /// The number of bytes that were accepted since the start.
    pub fn accepted(&self) -> u64 {
        self.accepted
    }

    /// The number of bytes that were written after the end and dropped (rule: write-4).
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// The next thing to do. An end is not due before the producer is done (rules: close-5, half-4).
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

/// Calls of the application.
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

    /// Adds a step after the queued bytes.
    pub fn push_step(&mut self, step: S) {
        let bytes = self.bytes.len() - self.ahead;
        self.ahead += bytes;
        self.steps.push_back((bytes, step));
    }

    /// Requests an end. Repeating a request changes nothing; a close replaces the end of the send half alone (rules:
    /// close-6, half-3).
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

    /// Sets whether a producer is registered. While it is, a requested end has to wait.
    pub fn set_producer(&mut self, is_there: bool) {
        self.has_producer = is_there;
    }

    /// Called when nothing can be sent any more. Discards the queued bytes; later ones are dropped.
    pub fn lose(&mut self) {
        self.is_over = true;
        self.bytes.clear();
        self.steps.clear();
        self.ahead = 0;
    }
}

/// Reports of the caller about what it has done.
impl<S> Outbox<S> {
    /// The first `n` of the due bytes were passed to the transport.
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

    /// Removes the step that is due.
    pub fn take_step(&mut self) -> Option<S> {
        match self.due() {
            Due::Step => self.steps.pop_front().map(|(_, step)| step),
            Due::Bytes(_) | Due::End(_) | Due::Nothing => None,
        }
    }

    /// Removes all bytes. No more bytes may be added after this.
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
    fn bytes_written_after_the_end_are_dropped_and_counted() {
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
    fn an_end_is_requested_once_and_a_close_overrides_close_write() {
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
    fn nothing_is_accepted_after_the_loss() {
        let mut outbox = outbox();
        outbox.write(b"queued");
        outbox.push_step("tls");
        outbox.lose();
        assert!(outbox.is_empty() && !outbox.write(b"late"));
        assert_eq!((drain(&mut outbox).as_str(), outbox.dropped()), ("", 4));
    }
}
