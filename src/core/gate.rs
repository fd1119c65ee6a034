//! The upgrade from plaintext to TLS, and the way back.

use super::half::Refused;
use crate::policy::Leftover;

/// Where a transport stands between plaintext and TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Gate {
    /// Plaintext flows.
    #[default]
    Plain,
    /// Plaintext accepted earlier leaves; nothing new is accepted.
    Quiescing,
    /// The handshake is made.
    Handshaking,
    /// TLS flows. It can be upgraded again: TLS in TLS.
    Secure,
    /// Both close_notify are exchanged, the way back to plaintext.
    Unwrapping,
    /// It failed, and the connection with it.
    Failed,
}

/// What happens at the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GateEvent {
    /// The application wants TLS.
    StartTls,
    /// The plaintext has left, and the leftover was judged and let in.
    Quiesced,
    /// The handshake succeeded.
    Secured,
    /// The application wants plaintext again.
    StopTls,
    /// Both close_notify have been exchanged; `true`: another TLS session is beneath the one that ended.
    Unwrapped {
        /// Whether the layer beneath is TLS too.
        tls_beneath: bool,
    },
    /// A refusal, a failed handshake, a dead connection.
    Fail,
}

impl Gate {
    /// Moves on by one event. A refused event changes nothing.
    pub fn handle(&mut self, event: GateEvent) -> Result<(), Refused> {
        use GateEvent::{Fail, Quiesced, Secured, StartTls, StopTls, Unwrapped};
        *self = match (*self, event) {
            // rule: upgrade-8: also from Secure.
            (Self::Plain | Self::Secure, StartTls) => Self::Quiescing,
            (Self::Plain, Quiesced | Secured | StopTls | Unwrapped { .. }) => return Err(Refused),

            (Self::Quiescing, Quiesced) => Self::Handshaking,
            (Self::Quiescing, StartTls | Secured | StopTls | Unwrapped { .. }) => return Err(Refused),

            (Self::Handshaking, Secured) => Self::Secure,
            (Self::Handshaking, StartTls | Quiesced | StopTls | Unwrapped { .. }) => return Err(Refused),

            (Self::Secure, StopTls) => Self::Unwrapping,
            (Self::Secure, Quiesced | Secured | Unwrapped { .. }) => return Err(Refused),

            (Self::Unwrapping, Unwrapped { tls_beneath: false }) => Self::Plain,
            (Self::Unwrapping, Unwrapped { tls_beneath: true }) => Self::Secure,
            // rule: upgrade-9: a wait that was given up is taken up again by the same call.
            (Self::Unwrapping, StopTls) => return Ok(()),
            (Self::Unwrapping, StartTls | Quiesced | Secured) => return Err(Refused),

            (Self::Failed, StartTls | Quiesced | Secured | StopTls | Unwrapped { .. }) => return Err(Refused),
            (
                Self::Plain | Self::Quiescing | Self::Handshaking | Self::Secure | Self::Unwrapping | Self::Failed,
                Fail,
            ) => Self::Failed,
        };
        Ok(())
    }

    /// Whether application data may flow.
    pub fn is_settled(self) -> bool {
        matches!(self, Self::Plain | Self::Secure)
    }
}

/// What is to be done with the bytes that were received before the upgrade and not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// They are none, or the first bytes of TLS: hand them to the session.
    Admit,
    /// They end the connection.
    Refuse {
        /// How many there are.
        count: usize,
    },
}

/// Judges the leftover. No byte of it is ever delivered to the application, whatever the verdict (rule: upgrade-2).
pub fn judge(leftover: &[u8], policy: Leftover) -> Verdict {
    let admit = match policy {
        _ if leftover.is_empty() => true,
        Leftover::Refuse => false,
        Leftover::Feed => can_be_tls(leftover),
    };
    if admit { Verdict::Admit } else { Verdict::Refuse { count: leftover.len() } }
}

/// Whether bytes can be the begin of a handshake: RFC 8446 section 5.1, a record of type handshake (22), version 3.x, of
/// at most 2^14 bytes.
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
    fn leftover_is_let_in_only_where_it_can_be_the_begin_of_a_handshake() {
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
