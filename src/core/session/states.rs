//! States of a session that neither half has.

/// The progress of our close_notify, the marker of the send half.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CloseNotify {
    /// Not sealed yet.
    Unsealed,
    /// In the queue, or sent.
    Sealed,
    /// The peer's close_notify came after ours had left.
    Answered,
}

/// Whether the session knows where each record of the peer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// Known, but no complete record has arrived yet: the peer may not speak TLS at all.
    FirstRecord,
    /// Known: rustls holds no part of a record, except for one byte that `raw` holds too.
    Records,
    /// Not known, because another library started the session.
    Unknown,
}

impl Framing {
    /// A complete record has arrived.
    pub(super) fn handle_record(&mut self) {
        if *self == Self::FirstRecord {
            *self = Self::Records;
        }
    }

    pub(super) fn is_known(self) -> bool {
        self != Self::Unknown
    }
}
