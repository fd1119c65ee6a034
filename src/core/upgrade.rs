//! The change from plaintext to TLS, and back.

use super::half::Refused;
use crate::error::Error;
use crate::policy::Leftover;

/// The progress of a change between plaintext and TLS. This state does not tell whether the connection is in
/// plaintext or in TLS; the topmost layer knows that.
#[derive(Debug, Clone, Default)]
pub enum Upgrade {
    /// No change is in progress, and application data may pass.
    #[default]
    Settled,
    /// Plaintext that was accepted before the change is being sent. No more is accepted.
    Quiescing,
    /// The handshake is in progress.
    Handshaking,
    /// Both sides exchange close_notify, to return to the layer beneath.
    Unwrapping,
    /// The change failed with this error, and the connection failed with it.
    Failed(Box<Error>),
}

/// The events of an upgrade. A refused event changes nothing.
impl Upgrade {
    /// The application calls `start_tls`, in plaintext or inside TLS (rule: upgrade-8).
    pub fn start_tls(&mut self) -> Result<(), Refused> {
        *self = match self {
            Self::Settled => Self::Quiescing,
            Self::Quiescing | Self::Handshaking | Self::Unwrapping | Self::Failed(_) => return Err(Refused),
        };
        Ok(())
    }

    /// The plaintext has been sent, and the leftover bytes were admitted and passed to the session.
    pub fn quiesced(&mut self) -> Result<(), Refused> {
        *self = match self {
            Self::Quiescing => Self::Handshaking,
            Self::Settled | Self::Handshaking | Self::Unwrapping | Self::Failed(_) => return Err(Refused),
        };
        Ok(())
    }

    /// Changes the state after a successful handshake.
    pub fn secured(&mut self) -> Result<(), Refused> {
        *self = match self {
            Self::Handshaking => Self::Settled,
            Self::Settled | Self::Quiescing | Self::Unwrapping | Self::Failed(_) => return Err(Refused),
        };
        Ok(())
    }

    /// The application calls `stop_tls`. If an earlier call was dropped while it waited, this call resumes it (rule:
    /// upgrade-9).
    pub fn stop_tls(&mut self) -> Result<(), Refused> {
        *self = match self {
            Self::Settled | Self::Unwrapping => Self::Unwrapping,
            Self::Quiescing | Self::Handshaking | Self::Failed(_) => return Err(Refused),
        };
        Ok(())
    }

    /// Changes the state after both sides have sent close_notify.
    pub fn unwrapped(&mut self) -> Result<(), Refused> {
        *self = match self {
            Self::Unwrapping => Self::Settled,
            Self::Settled | Self::Quiescing | Self::Handshaking | Self::Failed(_) => return Err(Refused),
        };
        Ok(())
    }

    /// Records a failure: leftover bytes were refused, a handshake failed, or the connection was lost. The first failure
    /// is kept (rule: end-5).
    pub fn fail(&mut self, error: Error) {
        match self {
            Self::Settled | Self::Quiescing | Self::Handshaking | Self::Unwrapping => {
                *self = Self::Failed(Box::new(error))
            }
            Self::Failed(_) => {}
        }
    }

    /// Whether application data may flow.
    pub fn is_settled(&self) -> bool {
        matches!(self, Self::Settled)
    }
}

/// The decision about bytes that were received before the upgrade and not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// There are no such bytes, or they are the first bytes of TLS: pass them to the session.
    Admit,
    /// The bytes are not the start of TLS, so they end the connection (rule: upgrade-2).
    Refuse {
        /// The number of bytes.
        count: usize,
    },
}

/// Decides about leftover bytes. In no case are they delivered to the application (rule: upgrade-2).
pub fn judge(leftover: &[u8], policy: Leftover) -> Verdict {
    let admit = match policy {
        _ if leftover.is_empty() => true,
        Leftover::Refuse => false,
        Leftover::Feed => can_be_tls(leftover),
    };
    if admit { Verdict::Admit } else { Verdict::Refuse { count: leftover.len() } }
}

/// Whether these bytes can be the start of a handshake: a record of type handshake (22) and version 3.x, with a body
/// of at most 2^14 bytes (RFC 8446 section 5.1).
fn can_be_tls(bytes: &[u8]) -> bool {
    let header = |n: usize| bytes.get(n).copied();
    let length = header(3).map(|high| usize::from(high) << 8 | usize::from(header(4).unwrap_or(0)));
    header(0).is_none_or(|kind| kind == 22)
        && header(1).is_none_or(|major| major == 3)
        && header(2).is_none_or(|minor| minor <= 4)
        && length.is_none_or(|length| length <= 1 << 14)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// rule: upgrade-2
    #[test]
    fn leftover_is_admitted_only_if_it_can_start_a_handshake() {
        let cases: [(&[u8], bool); 8] = [
            (b"", true),
            (b"\x16", true),
            (b"\x16\x03\x01", true),
            (b"\x16\x03\x01\x02\x00\x01", true),
            (b"\x17\x03\x03\x00\x10", false),
            (b"\x16\x03\x01\xff\xff", false),
            (b"MAIL FROM:<>\r\n", false),
            (b"\x16GET", false),
        ];
        for (bytes, admitted) in cases {
            let verdict = judge(bytes, Leftover::Feed);
            assert_eq!(verdict == Verdict::Admit, admitted, "{bytes:?}");
        }
        assert_eq!(judge(b"\x16\x03\x01", Leftover::Refuse), Verdict::Refuse { count: 3 });
    }
}
