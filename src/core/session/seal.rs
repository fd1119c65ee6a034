//! The send side of a session. It accepts plaintext, queues it and seals it. The marker follows the last byte.

use std::io::{self, IoSlice, Write};

use rustls::{ContentType, ProtocolVersion};

use super::{CloseNotify, SEAL_AHEAD, Session};
use crate::core::half::SendHalf;
use crate::core::record::{HEADER, MAX_FRAGMENT};
use crate::error::{Error, Phase, Reason, TlsError};

/// Writes of the application.
impl Session {
    /// Accepts plaintext, up to the high mark. Returns the number of accepted bytes; `0` means that the caller has to
    /// wait.
    pub fn write(&mut self, parts: &[IoSlice<'_>]) -> Result<usize, Error> {
        if !self.send.may_write() {
            return Err(self.write_error());
        }
        let room = self.room();
        // The answer must precede later data (RFC 8446 section 4.6.3).
        self.answer();
        if self.is_handshaking() || self.corked {
            return Ok(self.stage(parts, room));
        }
        Ok(if self.queue_is_empty() { self.seal_parts(parts, room) } else { self.queue_parts(parts, room) })
    }

    /// How much of a large write to accept, if the layer has space for all of it: this may exceed the high mark
    /// (rule: write-8). `None` while bytes are queued; the layer need not be asked then.
    pub fn burst(&self, parts: &[IoSlice<'_>]) -> Option<usize> {
        self.burst.of(total(parts)).filter(|_| self.may_pass())
    }

    /// As [`Session::write`], and writes the sealed records to `layer` without a copy. Bytes that the layer does not
    /// accept are queued. If nothing is queued, a `burst` above the high mark is accepted.
    pub fn write_through(
        &mut self,
        parts: &[IoSlice<'_>],
        burst: Option<usize>,
        layer: impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> Result<usize, Error> {
        if !self.may_pass() {
            // The answer to a KeyUpdate must precede later data (RFC 8446 section 4.6.3).
            self.answer();
            if !self.may_pass() {
                return self.write(parts);
            }
        }
        let room = burst.unwrap_or(self.marks.high);
        let accepted = self.tls.write(parts, room);
        let mut writer = LayerWriter(layer);
        while self.tls.wants_write() {
            if !self.tls.write_tls(&mut writer).is_ok_and(|n| n > 0) {
                self.collect();
                break;
            }
        }
        self.burst.note(accepted, self.sealed.is_empty());
        self.check_sealed(accepted, room.min(total(parts)));
        Ok(accepted)
    }

    /// Whether written bytes may leave at once: no other bytes precede them, and nothing holds them back.
    #[inline]
    fn may_pass(&self) -> bool {
        self.is_at_rest() && !self.corked
    }

    /// The number of bytes that would be accepted now.
    fn room(&self) -> usize {
        self.marks.high.saturating_sub(self.queued())
    }

    /// Holds plaintext back for a moment although it could leave, so that it shares a record with the next write
    /// (rule: write-7). Accepts as much as [`Session::write`]. If the half has ended, this is not reported here.
    ///
    /// With the default marks, up to 128 KiB are gathered if the layer has space for them (rule: write-8).
    pub fn gather(&mut self, parts: &[IoSlice<'_>], has_space: impl FnOnce(usize) -> bool) -> usize {
        if !self.send.may_write() {
            return 0;
        }
        if self.queue_is_empty() {
            self.burst.begin_gathering();
        }
        let mut room = self.room();
        if room == 0 && self.sealed.is_empty() && !self.is_handshaking() && !self.corked {
            room = self.burst.gathers(has_space).saturating_sub(self.queued());
        }
        self.stage(parts, room)
    }

    /// The error of a write after the send half has ended (rules: write-4, write-5).
    fn write_error(&self) -> Error {
        match (&self.send, &self.failure) {
            // The peer may have sent an alert with the reason since. rule: secure-6
            (SendHalf::Broken(_), Some(failure)) => Error::Ended(failure.clone()),
            (send, _) => send.refusal(),
        }
    }

    /// Whether nothing is queued, no answer to the peer is due, and more may be written.
    #[inline]
    pub fn is_at_rest(&self) -> bool {
        self.send.may_write() && !self.is_handshaking() && self.queue_is_empty() && !self.may_owe_answer
    }

    pub(super) fn queue_is_empty(&self) -> bool {
        self.staged.is_empty() && self.sealed.is_empty()
    }

    /// Queues plaintext without sealing it, so that small writes are merged into full records (rule: write-7).
    fn stage(&mut self, parts: &[IoSlice<'_>], room: usize) -> usize {
        let (mut left, most) = (room, self.staged.len() + room);
        for part in parts {
            let n = part.len().min(left);
            self.staged.push_within(&part[..n], most);
            left -= n;
        }
        room - left
    }

    /// Accepts bytes that are written while earlier records have not left. A full record gains nothing by waiting for
    /// more bytes, and sealing it at once saves a copy. So a writer waits until there is space for a full record, but
    /// only above the low mark, because only there will the queue wake it.
    fn queue_parts(&mut self, parts: &[IoSlice<'_>], room: usize) -> usize {
        let wanted = total(parts);
        if wanted < MAX_FRAGMENT || !self.staged.is_empty() || self.sealed.len() >= SEAL_AHEAD {
            return self.stage(parts, room);
        }
        let full = room.min(wanted).min(SEAL_AHEAD) / MAX_FRAGMENT * MAX_FRAGMENT;
        if full > 0 {
            let accepted = self.tls.write_after(parts, full, &mut self.sealed);
            self.check_sealed(accepted, full);
            return accepted;
        }
        let may_wait = self.marks.high >= 2 * MAX_FRAGMENT && self.queued() > self.marks.low;
        if may_wait { 0 } else { self.stage(parts, room) }
    }

    fn seal_parts(&mut self, parts: &[IoSlice<'_>], room: usize) -> usize {
        let accepted = self.tls.write(parts, room);
        self.collect();
        self.check_sealed(accepted, room.min(total(parts)));
        accepted
    }

    /// If an engine has sealed less than it was given, its key is used up, and TLS 1.2 has no next key. The truncated
    /// data must not look complete (rule: end-8). So instead of close_notify, a fatal alert leaves, if the engine can
    /// seal one, and then FIN.
    fn check_sealed(&mut self, sealed: usize, due: usize) {
        if sealed < due && !self.send.is_over() {
            self.cut_off();
        }
    }

    #[cold]
    fn cut_off(&mut self) {
        self.tls.send_internal_error();
        self.collect();
        self.fail(Reason::KeyExhausted);
    }
}

/// Seals the accepted plaintext.
impl Session {
    /// Seals as many staged bytes in advance as the layer needs, and then the marker if it is due.
    pub fn seal(&mut self) {
        if self.is_handshaking() || self.send.is_over() {
            return;
        }
        self.answer();
        while !self.staged.is_empty() && self.sealed.len() < SEAL_AHEAD && !self.corked_short() {
            let n = self.sealable();
            let sealed = self.tls.write(&[IoSlice::new(&self.staged.as_slice()[..n])], n);
            self.staged.consume(sealed);
            self.collect();
            self.check_sealed(sealed, n);
        }
        self.staged.release();
        if self.send.is_finishing() && self.staged.is_empty() && !self.has_sealed_marker() {
            self.seal_marker();
        }
    }

    /// Seals the marker after the plaintext. rustls alone would send the marker before queued plaintext, and would
    /// seal data after it, so the order is decided here.
    fn seal_marker(&mut self) {
        let before = self.sealed.len();
        self.tls.send_close_notify();
        self.collect();
        self.close_notify = CloseNotify::Sealed;
        if self.sealed.len() == before {
            // Otherwise the half would wait forever for a marker that is never sealed (rule: life-6).
            self.fail(unsealable(self.phase()));
        }
    }

    /// Whether nothing may be sealed any more, because our close_notify was.
    pub(super) fn has_sealed_marker(&self) -> bool {
        self.close_notify != CloseNotify::Unsealed
    }

    /// Answers KeyUpdate requests (rule: secure-7). One answer serves all earlier requests (rule: secure-13). Called
    /// before other data is sealed, and after everything that has arrived was processed. No answer follows our
    /// marker.
    pub(super) fn answer(&mut self) {
        let may_answer = !self.is_handshaking() && !self.send.is_over() && !self.has_sealed_marker();
        if self.may_owe_answer && may_answer && self.sealed.len() < SEAL_AHEAD {
            self.tls.answer();
            self.collect();
            self.may_owe_answer = false;
        }
    }

    /// Whether a cork holds the staged bytes back. Under a cork, only full records are sealed, or as many bytes as
    /// may be queued if that is less.
    pub(super) fn corked_short(&self) -> bool {
        self.corked && self.staged.len() < self.full()
    }

    fn full(&self) -> usize {
        MAX_FRAGMENT.min(self.marks.high)
    }

    fn sealable(&self) -> usize {
        let n = self.staged.len().min(SEAL_AHEAD);
        if self.corked { n - n % self.full() } else { n }
    }

    /// Moves the engine's output to our own queue. Nothing leaves after our marker, not even the engine's answer to a
    /// later record.
    pub(super) fn collect(&mut self) {
        if !self.tls.wants_write() {
        } else if self.has_sealed_marker() {
            self.tls.discard();
        } else {
            let before = self.sealed.len();
            self.tls.collect(&mut self.sealed);
            self.is_in_clear = self.is_in_clear && !self.encrypts_from(before);
        }
    }

    /// Whether one of the records from this offset on is encrypted, or announces that the next record is (TLS 1.2).
    fn encrypts_from(&self, before: usize) -> bool {
        let is_tls13 = self.tls.common().is_some_and(|it| it.protocol_version() == Some(ProtocolVersion::TLSv1_3));
        let mut rest = &self.sealed.as_slice()[before..];
        while let Some(&[typ, _, _, high, low]) = rest.first_chunk::<HEADER>() {
            match ContentType::from(typ) {
                ContentType::ApplicationData => return true,
                ContentType::ChangeCipherSpec if !is_tls13 => return true,
                _ => rest = rest.get(HEADER + usize::from(u16::from_be_bytes([high, low]))..).unwrap_or_default(),
            }
        }
        false
    }
}

/// The engine sealed nothing when it had to seal the marker.
fn unsealable(phase: Phase) -> Reason {
    TlsError { phase, error: rustls::Error::EncryptError, alert_sent: None, not_tls: None }.into()
}

fn total(parts: &[IoSlice<'_>]) -> usize {
    parts.iter().map(|part| part.len()).sum()
}

/// Passes rustls's own queue to the layer.
struct LayerWriter<F>(F);

impl<F: FnMut(&[IoSlice<'_>]) -> io::Result<usize>> Write for LayerWriter<F> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (self.0)(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        (self.0)(parts)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
