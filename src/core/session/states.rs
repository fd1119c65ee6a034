//! States of a session that neither half has.

/// The progress of our close_notify, the marker of the send half.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CloseNotify {
    /// Our close_notify is not sealed yet.
    Unsealed,
    /// Our close_notify is in the queue, or was sent.
    Sealed,
    /// The peer's close_notify came after ours had left.
    Answered,
}

/// Whether the session knows the framing of the peer's bytes, that is, where each record ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// The framing is known, but no complete record has arrived yet. Perhaps the peer does not speak TLS at all.
    FirstRecord,
    /// The framing is known: rustls holds no part of a record, except for one byte that `raw` holds too.
    Records,
    /// The framing is not known, because another library started the session.
    Unknown,
}

impl Framing {
    /// Records that a complete record has arrived.
    pub(super) fn handle_record(&mut self) {
        if *self == Self::FirstRecord {
            *self = Self::Records;
        }
    }

    pub(super) fn is_known(self) -> bool {
        self != Self::Unknown
    }
}
