//! A TLS session: rustls, and the two halves. The owner passes bytes in and out, and calls `step` to learn what to do
//! next.
//!
//! The session owns three queues: `raw` (records as they were received), `staged` (plaintext that was accepted and is
//! not sealed yet) and `sealed` (records that have not left). The engine holds at most one opened record. It gets
//! whole records, one at a time, so that the bytes after the peer's close_notify still belong to this session when it
//! ends (rule: upgrade-9). No record is opened before the application wants to read it (rule: flow-4).

mod begin;
mod choice;
mod chosen;
mod failure;
mod seal;
mod states;

use self::choice::Choice;
pub use self::choice::{ChooseConfig, ConfigChoice};
pub use self::chosen::{Chosen, note_chosen};
use self::states::{CloseNotify, Framing};
#[cfg(feature = "express")]
pub(crate) use super::engine::express::exporter::Catcher;

use std::fmt;
use std::sync::Arc;

use super::binding::{EXPORTER_CONTEXT as CONTEXT, EXPORTER_LABEL as LABEL};
use super::buffer::Buffer;
use super::engine::AnyEngine;
use super::facts::{InitialFacts, SessionFacts};
use super::half::{End, RecvHalf, SendHalf};
use super::high_mark::Burst;
use super::input::Input;
use super::record::{HEADER, MAX_BODY, MAX_FRAGMENT, RECORD_TYPES, may_begin_tls};
use crate::error::{NotTls, Phase, Reason, SessionError};
use crate::policy::Watermarks;

/// The number of bytes that are sealed in advance while the layer accepts nothing.
const SEAL_AHEAD: usize = 64 << 10;

/// The next step for the owner of a session on the receiving side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Step {
    /// Pass in more bytes of the layer: [`Session::input_space`], [`Session::handle_input`] or
    /// [`Session::handle_eof`].
    NeedInput,
    /// The handshake has just finished. Returned once, before any data (rule: secure-2).
    Secured,
    /// Plaintext can be read: [`Session::plaintext`], [`Session::read`].
    Data,
    /// The receive half has ended: [`Session::recv`] returns how.
    Ended,
}

/// One TLS session.
pub struct Session {
    tls: AnyEngine,
    send: SendHalf,
    recv: RecvHalf,
    raw: Input,
    staged: Buffer,
    sealed: Buffer,
    facts: Option<Arc<SessionFacts>>,
    /// `None` once the facts of the handshake are known.
    known: Option<Box<InitialFacts>>,
    /// Set until the configuration of a server is chosen, if it depends on the client's hello.
    choice: Option<Box<Choice>>,
    failure: Option<Reason>,
    marks: Watermarks,
    burst: Burst,
    close_notify: CloseNotify,
    framing: Framing,
    /// The application holds small writes back. It may do so in a close too.
    corked: bool,
    /// The application closes. It may have ended the send half before, without a close.
    closing: bool,
    /// The peer may have sent a KeyUpdate that requests an answer. Only what the peer sends decides this.
    may_owe_answer: bool,
    /// None of our records has been encrypted yet. A handshake encrypts some before it is done.
    is_in_clear: bool,
    /// A close has given up the handshake. The failure alone may have another cause.
    is_abandoned: bool,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("send", &self.send).field("recv", &self.recv).finish_non_exhaustive()
    }
}

/// Methods that change nothing.
impl Session {
    /// The state of the send half.
    pub fn send(&self) -> &SendHalf {
        &self.send
    }

    /// The state of the receive half.
    pub fn recv(&self) -> &RecvHalf {
        &self.recv
    }

    /// The first failure, if there was one (rule: end-5).
    pub fn failure(&self) -> Option<&Reason> {
        self.failure.as_ref()
    }

    /// Whether the handshake is not done yet.
    pub fn is_handshaking(&self) -> bool {
        self.facts.is_none()
    }

    /// Whether the peer's close_notify came after ours had left for the layer below (rule: close-14).
    pub fn is_answered(&self) -> bool {
        self.close_notify == CloseNotify::Answered
    }

    /// Whether our abort has ended the session.
    pub fn is_aborted(&self) -> bool {
        matches!(self.send, SendHalf::Aborted)
    }

    /// Whether the records are opened and sealed by the express engine.
    pub fn is_express(&self) -> bool {
        self.tls.is_express()
    }

    /// The facts of the session; `None` until the handshake is done.
    pub fn facts(&self) -> Option<&Arc<SessionFacts>> {
        self.facts.as_ref()
    }

    /// Fills `out` with keying material of this session (RFC 5705; RFC 8446, section 7.5).
    ///
    /// # Errors
    /// See [`SessionError`].
    pub fn export(&self, out: &mut [u8], label: &[u8], context: Option<&[u8]>) -> Result<(), SessionError> {
        self.tls.export(out, label, context)
    }

    /// The number of accepted bytes that have not left: plaintext and sealed records together (rule: write-8).
    pub fn queued(&self) -> usize {
        self.staged.len() + self.sealed.len()
    }

    /// Whether small writes are held back.
    pub fn is_corked(&self) -> bool {
        self.corked
    }

    /// Whether a write would be accepted now.
    pub fn can_write(&self) -> bool {
        self.send.may_write() && self.queued() < self.marks.high
    }

    /// Whether a writer that waits at the high mark may continue.
    pub fn is_below_low_mark(&self) -> bool {
        // If only a cork holds the bytes back, none of them will leave, so any free space lets the writer continue.
        self.queued() <= self.marks.low || (self.sealed.is_empty() && self.can_write())
    }

    /// Whether all accepted bytes, close_notify and other alerts were passed to the layer below.
    pub fn is_flushed(&self) -> bool {
        self.sealed.is_empty() && (self.staged.is_empty() || self.send.is_over())
    }

    /// Whether there are sealed records, or plaintext that may be sealed now, that have not left.
    pub fn has_records(&self) -> bool {
        !self.sealed.is_empty() || (!self.staged.is_empty() && !self.send.is_over() && !self.corked_short())
    }

    /// Whether the layer below may end now: after our marker, or after the alert of a failure (rule: secure-4).
    pub fn is_done_sending(&self) -> bool {
        self.send.is_finished()
            || (matches!(self.failure, Some(Reason::Tls(_) | Reason::KeyExhausted | Reason::Closed))
                && self.sealed.is_empty())
    }

    /// The opened plaintext that was not read yet.
    pub fn plaintext(&mut self) -> &[u8] {
        if self.tls.opened() == 0 {
            return &[];
        }
        self.tls.plaintext(&self.raw)
    }

    fn phase(&self) -> Phase {
        match (self.is_handshaking(), self.closing) {
            (true, _) => Phase::Handshake,
            (false, true) => Phase::Close,
            (false, false) => Phase::Open,
        }
    }
}

/// Events from outside.
impl Session {
    /// The space for bytes from the layer.
    pub fn input_space(&mut self) -> &mut [u8] {
        let is_known = !self.is_handshaking();
        self.raw.space_to_read(is_known)
    }

    /// The layer has put `n` bytes into [`Session::input_space`].
    pub fn handle_input(&mut self, n: usize) {
        self.raw.handle_read(n);
    }

    /// A read returned no bytes, and the owner is about to wait. Releases the input buffer if it is empty, and queues
    /// the answers to earlier records.
    pub fn handle_idle(&mut self) {
        if self.raw.is_empty() {
            self.raw.release();
        } else {
            self.raw.settle();
        }
        self.answer();
    }

    /// The layer accepts no more bytes, and a writer waits. Releases the memory that the queued bytes do not need.
    pub fn handle_full(&mut self) {
        // If the queue holds no more than the high mark and the overhead of its records, this was not caused by a
        // burst.
        self.burst.note(self.queued().saturating_sub(MAX_FRAGMENT), false);
        self.sealed.settle();
    }

    /// The number of received bytes that were not opened yet. Without more input, no more plaintext than this can
    /// follow.
    pub fn arrived(&self) -> usize {
        self.raw.len() + self.tls.opened()
    }

    /// Takes bytes that were received before the session started (rule: upgrade-2).
    pub fn handle_leftover(&mut self, bytes: &[u8]) {
        self.raw.push(bytes);
    }

    /// The layer below has ended in order.
    pub fn handle_eof(&mut self) {
        if let Some(not_tls) = self.not_tls() {
            // The bytes are fewer than the header of a record, so the engine was not called.
            let error = rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType);
            return self.fail_tls(error, Some(not_tls));
        }
        if self.is_handshaking() {
            // rule: end-6
            return self.fail(Reason::Truncated(Phase::Handshake));
        }
        let end = if self.closing { End::Unconfirmed } else { End::Truncated };
        self.recv.layer_ended(end);
        self.note_consumed();
    }

    /// Reading from the layer below has failed: no more bytes will come.
    pub fn handle_read_lost(&mut self, reason: Reason) {
        let reason = self.in_phase(reason);
        self.failure.get_or_insert(reason.clone());
        self.recv.lose(reason.clone());
        self.lose_send(reason);
    }

    /// Writing to the layer below has failed. Bytes that the peer sent earlier may still be read, and may contain the
    /// reason (rule: secure-6).
    pub fn handle_write_lost(&mut self, reason: Reason) {
        let reason = self.in_phase(reason);
        self.lose_send(reason);
        self.sealed.clear();
    }

    /// Adds the phase to a reset during the handshake, so that the error names it (rule: end-6).
    fn in_phase(&self, reason: Reason) -> Reason {
        match reason {
            Reason::Reset(_) => Reason::Reset(self.phase()),
            Reason::Truncated(_) => Reason::Truncated(self.phase()),
            other => other,
        }
    }

    /// Whether a handshake cannot continue because the layer accepts nothing more. An unread alert may give the
    /// reason.
    pub fn is_stuck(&self) -> bool {
        self.is_handshaking() && self.recv.is_open() && matches!(self.send, SendHalf::Broken(_))
    }

    /// A handshake that cannot continue fails with the layer's error, if the peer has sent no reason (rule: end-5).
    pub fn handle_stuck(&mut self) {
        if let (true, SendHalf::Broken(reason)) = (self.is_stuck(), &self.send) {
            self.fail(reason.clone());
        }
    }

    fn lose_send(&mut self, reason: Reason) {
        self.send.lose(reason);
        self.staged.clear();
    }
}

/// Calls from the application.
impl Session {
    /// Ends the send half: the accepted bytes leave, followed by close_notify (rules: half-2, half-5).
    pub fn close_write(&mut self) {
        if self.send.close_write().is_ok() {
            self.corked = false;
            self.seal();
        }
    }

    /// The application closes. From now on, an end without a marker counts as unconfirmed (rule: close-7).
    pub fn begin_close(&mut self) {
        self.closing = true;
    }

    /// Whether [`Session::begin_close`] was called.
    pub fn is_closing(&self) -> bool {
        self.closing
    }

    /// Whether a close has nothing to finish: the handshake is not done, and no bytes were accepted (rule: close-9). A
    /// close that has given the handshake up and was dropped has nothing to finish either.
    pub fn is_pointless(&self) -> bool {
        self.is_abandoned || self.is_handshaking() && self.staged.is_empty() && !self.send.is_over()
    }

    /// Gives up a handshake that no task waits for. Sends no alert, which would be unencrypted (rule: close-9).
    pub fn abandon(&mut self) {
        self.is_abandoned = true;
        self.fail(Reason::Closed);
        self.sealed.clear();
    }

    /// Ends the session for a reason from outside of it, such as a deadline. Sends nothing to the peer.
    pub fn end(&mut self, reason: Reason) {
        if self.recv.is_open() || !self.send.is_over() {
            self.fail(reason);
        }
        self.sealed.clear();
    }

    /// Ends the session now. No record leaves after this (rule: abort-2).
    pub fn abort(&mut self) {
        self.send.abort();
        self.recv.abort();
        self.failure.get_or_insert(Reason::Aborted);
        self.staged.clear();
        self.sealed.clear();
        self.clear_input();
        self.tls.forget_opened();
    }

    fn clear_input(&mut self) {
        self.raw.clear();
        self.tls.forget_input();
    }

    /// Holds small writes back until [`Session::uncork`], so that they are merged.
    pub fn cork(&mut self) {
        self.corked = true;
    }

    /// Releases the bytes that a cork held back.
    pub fn uncork(&mut self) {
        self.corked = false;
        self.seal();
    }

    /// Seals the staged bytes, even under a cork, because a task waits for them.
    pub fn flush(&mut self) {
        let corked = std::mem::take(&mut self.corked);
        self.seal();
        self.corked = corked;
    }

    /// Copies opened plaintext to `out`, and returns the number of bytes.
    pub fn read(&mut self, out: &mut [u8]) -> usize {
        if self.tls.opened() == 0 {
            return 0;
        }
        let n = self.tls.read(out, &mut self.raw);
        self.note_consumed();
        n
    }

    /// Removes `n` bytes of [`Session::plaintext`].
    pub fn consume(&mut self, n: usize) {
        self.tls.consume(n, &mut self.raw);
        self.note_consumed();
    }

    /// Takes the bytes after the peer's close_notify: the first plaintext after a downgrade (rule: upgrade-9).
    pub fn take_leftover(&mut self) -> Vec<u8> {
        self.raw.take()
    }
}

/// The next step of the owner.
impl Session {
    /// Opens records until the owner has something to do, and returns that step.
    pub fn step(&mut self) -> Step {
        self.step_into(&mut []).0
    }

    /// As `step`, and also reads: writes plaintext to `out`, from as many arrived records as fit, and returns the
    /// number of bytes. If there are any, the step is [`Step::Data`], and the next call reports what came after them.
    pub fn step_into(&mut self, out: &mut [u8]) -> (Step, usize) {
        let mut read = 0;
        let step = loop {
            if self.tls.opened() > 0 {
                read += self.read(&mut out[read..]);
            }
            if self.tls.opened() > 0 || (read > 0 && read == out.len()) {
                break Step::Data;
            }
            let awaits_hello = self.choice.is_some() && self.awaits_hello();
            if !self.recv.is_open() {
                break Step::Ended;
            }
            if awaits_hello {
                break Step::NeedInput;
            }
            let Some(record) = self.next_record() else { break Step::NeedInput };
            if read > 0 && !self.tls.suits(out.len() - read, record) {
                // In this small space, the engine could not open the record directly, and would have to copy it
                // later. The next read provides a new buffer, and opens the record into it.
                break Step::Data;
            }
            let was_handshaking = self.is_handshaking();
            read += self.open(record, &mut out[read..]);
            if was_handshaking && !self.is_handshaking() {
                break Step::Secured;
            }
        };
        if matches!(step, Step::Data | Step::Ended) && !self.has_more() {
            // A KeyUpdate is answered now, because the next write may come much later.
            self.answer();
        }
        // The memory is released, so that an empty buffer is not kept.
        self.raw.release();
        (if read > 0 { Step::Data } else { step }, read)
    }

    /// Whether reading the layer is the only thing to do: no bytes are waiting to be read, opened or sent, no answer
    /// to the peer is due, and no half has ended. Most connections are in this state between two messages.
    #[inline]
    pub fn awaits_data(&self) -> bool {
        self.is_at_rest() && self.recv.is_open() && self.raw.is_empty() && self.tls.opened() == 0
    }

    /// Does what [`Session::step_into`] does, for the case that one record of data has arrived and nothing else is
    /// pending. The caller must have checked [`Session::awaits_data`] before it read `n` bytes into
    /// [`Session::input_space`]. If these bytes are exactly one record with data, this returns the number of bytes
    /// that were read into `out`, and no other step is needed. Otherwise this returns `None`, and the caller
    /// continues with [`Session::step_into`].
    #[inline]
    pub fn read_record(&mut self, n: usize, out: &mut [u8]) -> Option<usize> {
        self.raw.handle_read(n);
        if !self.framing.is_known() || self.raw.there_is_more() || self.next_record() != Some(n) {
            return None;
        }
        let opened = self.open(n, out);
        let read = if self.tls.opened() > 0 { self.tls.read(out, &mut self.raw) } else { opened };
        self.raw.release();
        (read > 0 || self.tls.opened() > 0).then_some(read)
    }

    /// The records that have not left, oldest first. Pass them to the layer, and report with
    /// [`Session::transmitted`].
    #[must_use]
    pub fn transmit(&mut self) -> &[u8] {
        if self.sealed.is_empty() {
            self.seal();
        }
        self.sealed.as_slice()
    }

    /// The layer has accepted `n` bytes of [`Session::transmit`].
    pub fn transmitted(&mut self, n: usize) {
        self.sealed.consume(n);
        if self.sealed.is_empty() {
            self.sealed.release();
        }
        if self.has_sealed_marker() && self.queue_is_empty() {
            let drained = self.send.drained();
            debug_assert!(drained.is_ok() || self.send.is_over(), "close_notify left before the half ended");
        }
    }

    /// Whether more bytes have arrived that were not processed: in `raw`, or in the layer.
    fn has_more(&self) -> bool {
        self.raw.there_is_more() || self.next_record().is_some()
    }

    /// The length of the next record in `raw`, once it is complete; or of bytes that are no valid record, which
    /// rustls will refuse.
    fn next_record(&self) -> Option<usize> {
        let raw = self.raw.as_slice().get(self.tls.kept()..)?;
        if !self.framing.is_known() {
            return (!raw.is_empty()).then_some(raw.len());
        }
        if raw.len() < HEADER {
            return None;
        }
        let body = usize::from(raw[3]) << 8 | usize::from(raw[4]);
        let is_sound = RECORD_TYPES.contains(&raw[0]) && raw[1] == 3 && body <= MAX_BODY;
        if !is_sound {
            return Some(raw.len());
        }
        (raw.len() >= HEADER + body).then_some(HEADER + body)
    }

    /// Passes one record to the engine. Returns how much of its plaintext was written to `out`; the rest is kept.
    #[inline(never)]
    fn open(&mut self, record: usize, out: &mut [u8]) -> usize {
        let not_tls = self.not_tls();
        self.spoil_changed_header(record);
        let opened = match &mut self.known {
            Some(known) => known.noting_choice(|| self.tls.open(&mut self.raw, record, out)),
            None => self.tls.open(&mut self.raw, record, out),
        };
        let read = match opened {
            Ok(read) => read,
            Err(error) => {
                self.fail_tls(error, not_tls);
                return 0;
            }
        };
        if self.choice.is_some() {
            self.fail_without_choice();
            return 0;
        }
        self.framing.handle_record();
        // A record with data contains nothing else, so no other step is needed.
        let is_data = self.framing.is_known() && (read > 0 || self.tls.opened() > 0);
        if !is_data || self.is_handshaking() {
            self.handle_opened();
        }
        read
    }

    /// Handles a record that may have held something other than data: a handshake message, an alert, a KeyUpdate.
    #[inline(never)]
    fn handle_opened(&mut self) {
        self.note_opened();
        self.may_owe_answer = true;
        self.collect();
        if self.is_handshaking() && !self.tls.is_handshaking() {
            self.note_secured();
            self.collect();
            self.seal();
        }
    }

    /// The first bytes of the peer, if they are not TLS.
    fn not_tls(&self) -> Option<NotTls> {
        let raw = self.raw.as_slice();
        (self.framing == Framing::FirstRecord && !may_begin_tls(raw)).then(|| NotTls::begun_by(raw))
    }

    fn note_opened(&mut self) {
        if self.tls.peer_has_closed() && self.recv.marker().is_ok() {
            if self.send.is_finished() {
                self.close_notify = CloseNotify::Answered;
            }
            self.note_consumed();
        }
    }

    fn note_consumed(&mut self) {
        if self.tls.opened() == 0 && matches!(self.recv, RecvHalf::Ending(_)) {
            self.recv.consumed();
        }
    }

    fn note_secured(&mut self) {
        let Some(mut known) = self.known.take() else { return };
        known.sni = known.sni.or_else(|| self.tls.take_sni());
        let facts = self.tls.common().map(|common| SessionFacts::of(common, *known));
        let finished = self.tls.finish_handshake();
        self.facts = facts.map(|facts| Arc::new(facts.with_exporter(|out| self.tls.export(out, LABEL, CONTEXT))));
        if let Err(error) = finished {
            self.fail_tls(error, None);
        }
    }
}
