//! How a session fails: both halves end, and an alert is sent to the peer if the RFC requires one.

use rustls::{AlertDescription, ContentType, ProtocolVersion};

use super::Session;
use crate::core::alert::{alert_for, alert_record};
use crate::error::{NotTls, Reason, TlsError};

impl Session {
    #[cold]
    pub(super) fn fail(&mut self, reason: Reason) {
        let reason = self.failure.get_or_insert(reason).clone();
        self.recv.lose(reason.clone());
        self.lose_send(reason);
    }

    #[cold]
    pub(super) fn fail_tls(&mut self, error: rustls::Error, not_tls: Option<NotTls>) {
        let before = self.sealed.len();
        self.clear_input();
        self.note_opened();
        self.collect();
        if self.sealed.len() == before && !self.has_sealed_marker() {
            self.add_missing_alert(&error);
        }
        let by_rustls = || alert_for(&error).filter(|alert| *alert != AlertDescription::InternalError);
        let sealed_alert = || self.tls.alert_sent().or_else(by_rustls);
        let alert_sent = plaintext_alert(&self.sealed.as_slice()[before..])
            .or_else(|| (self.sealed.len() > before).then(sealed_alert).flatten());
        self.fail(TlsError { phase: self.phase(), error, alert_sent, not_tls }.into());
    }

    /// Makes a record fail whose header is not the one that was sealed.
    #[inline]
    pub(super) fn spoil_changed_header(&mut self, record: usize) {
        const SEALED: [u8; 3] = [23, 3, 3];
        if !self.raw.as_slice().starts_with(&SEALED) {
            self.spoil_other_header(record);
        }
    }

    /// rule: secure-17. TLS 1.3 authenticates the header with the body (RFC 8446 section 5.2). rustls 0.23 authenticates
    /// the length and ignores the rest. So the body is changed too, and cannot be opened.
    ///
    /// rustls knows SSL 2 and DTLS by their versions, and accepts these in a header. It refuses version 0.
    ///
    /// The bytes of an unknown framing do not begin with a header.
    #[cold]
    fn spoil_other_header(&mut self, record: usize) {
        let Some(facts) = self.facts.as_ref().filter(|_| self.framing.is_known()) else { return };
        match &mut self.raw.as_mut_slice()[..record] {
            [_, major, minor, ..] if *major != 3 => (*major, *minor) = (0, 0),
            // This type is never sealed in TLS 1.3.
            [typ, ..] if ContentType::from(*typ) == ContentType::ChangeCipherSpec => {}
            [_, _, _, _, _, .., last] if facts.version == ProtocolVersion::TLSv1_3 => *last ^= 1,
            _ => {}
        }
    }

    /// rule: secure-10. For some failures (a handshake message that is too long, too many warnings), rustls sends no
    /// alert. We can send one ourselves while none of our records has been encrypted: until then, the peer accepts our
    /// alert in plaintext, in TLS 1.3 too. After that, the engine would have to seal the alert, and rustls's buffered
    /// API cannot.
    fn add_missing_alert(&mut self, error: &rustls::Error) {
        let Some(alert) = alert_for(error) else { return };
        if self.is_in_clear {
            self.sealed.push(&alert_record(alert));
        } else {
            self.tls.send_missing_alert();
            self.collect();
        }
    }
}

/// The unencrypted alert at the end of the outgoing bytes, if there is one: a record of type 21 with two bytes.
fn plaintext_alert(sealed: &[u8]) -> Option<AlertDescription> {
    match sealed.last_chunk::<7>() {
        Some([21, 3, _, 0, 2, _, alert]) => Some(AlertDescription::from(*alert)),
        _ => None,
    }
}
