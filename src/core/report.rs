//! How a connection ended: the report of a close, as plain data.

use std::fmt;

use super::half::{End, RecvHalf, SendHalf};
use crate::error::{Reason, chain};

/// How a close went (rule: close-4). Each connection has one report, so a second close returns the same one.
///
/// ```
/// # #[cfg(feature = "tokio")]
/// # async fn example(connection: &mut dyn bowline::Transport) {
/// use bowline::Reason;
///
/// let report = connection.close().await;
/// match &report.reason {
///     Reason::Closed => println!("the peer's system has everything"),
///     Reason::Unconfirmed => println!("everything was sent, but the peer did not confirm it"),
///     _ => eprintln!("{report}; {:?} bytes not acknowledged", report.unacknowledged),
/// }
/// # }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CloseReport {
    /// How the connection ended.
    pub reason: Reason,
    /// How each layer ended. The topmost layer comes first.
    pub layers: Vec<LayerReport>,
    /// The limit that ended the wait, if one did.
    pub limit: Option<CloseLimit>,
    /// The number of bytes passed to [`close_with`](crate::Transport::close_with) that were not accepted.
    pub unwritten: usize,
    /// The number of bytes from the peer that were discarded while the close waited for its end.
    pub discarded: u64,
    /// The number of bytes that the peer's kernel had not acknowledged when the socket was closed; `None` if our
    /// system does not report it. Our kernel continues to send these bytes, unless the peer has reset the connection.
    pub unacknowledged: Option<u64>,
}

impl CloseReport {
    /// The report of a connection that was not closed, but ended for this reason.
    pub(crate) fn of(reason: Reason) -> Self {
        Self { reason, layers: Vec::new(), limit: None, unwritten: 0, discarded: 0, unacknowledged: None }
    }

    /// Whether both sides ended in order, and our last byte and our marker have arrived (rule: close-14).
    pub fn is_clean(&self) -> bool {
        self.reason.is_clean()
    }

    /// Whether our marker of the topmost layer was sent.
    pub fn marker_sent(&self) -> bool {
        self.layers.first().is_some_and(|layer| layer.marker_sent)
    }

    /// Whether the peer's marker of the topmost layer has arrived.
    pub fn marker_received(&self) -> bool {
        self.layers.first().is_some_and(|layer| layer.received == Received::Marker)
    }

    /// Whether the time limit ended the wait.
    pub fn timed_out(&self) -> bool {
        self.limit == Some(CloseLimit::Time)
    }
}

/// `closed; the peer did not confirm the end; 70000 bytes discarded, 3 not written, 12 not acknowledged; gave up at the
/// limit of bytes`
impl fmt::Display for CloseReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {} bytes discarded", chain(&self.reason), self.discarded)?;
        if self.unwritten > 0 {
            write!(f, ", {} not written", self.unwritten)?;
        }
        if let Some(bytes @ 1..) = self.unacknowledged {
            write!(f, ", {bytes} not acknowledged")?;
        }
        match self.limit {
            Some(limit) => write!(f, "; gave up at the limit of {}", limit.name()),
            None => Ok(()),
        }
    }
}

/// How one layer ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LayerReport {
    /// The kind of the layer.
    pub kind: LayerKind,
    /// Whether our marker was sent.
    pub marker_sent: bool,
    /// How the peer's half ended.
    pub received: Received,
}

impl LayerReport {
    pub(crate) fn of(kind: LayerKind, send: &SendHalf, recv: &RecvHalf) -> Self {
        let received = match recv {
            RecvHalf::Open => Received::Nothing,
            RecvHalf::Ending(End::Clean) | RecvHalf::Ended(End::Clean) => Received::Marker,
            RecvHalf::Ending(_) | RecvHalf::Ended(_) => Received::BareEnd,
            RecvHalf::Aborted => Received::Nothing,
            RecvHalf::Broken(Reason::Closed | Reason::TimedOut(_) | Reason::KeyExhausted) => Received::Nothing,
            RecvHalf::Broken(Reason::Reset(_)) => Received::Reset,
            RecvHalf::Broken(_) => Received::Failure,
        };
        Self { kind, marker_sent: send.is_finished(), received }
    }
}

/// The kinds of layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LayerKind {
    /// A TCP connection.
    Tcp,
    /// A TLS session.
    Tls,
    /// A stream of another kind: a Unix socket, a pipe.
    Stream,
}

/// How the peer ended its half of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Received {
    /// The peer has not ended its half: it was open when we closed.
    Nothing,
    /// The peer sent its marker: FIN on TCP, close_notify on TLS.
    Marker,
    /// The layer below ended without the marker.
    BareEnd,
    /// The peer sent RST.
    Reset,
    /// The half ended with a failure of another kind.
    Failure,
}

/// A limit of a close.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CloseLimit {
    /// [`Policy::close_timeout`](crate::Policy::close_timeout).
    Time,
    /// [`Policy::close_discard`](crate::Policy::close_discard).
    Bytes,
    /// [`Policy::close_quiet`](crate::Policy::close_quiet).
    Silence,
}

impl CloseLimit {
    /// One lower-case word for logs and machine-readable output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Time => "time",
            Self::Bytes => "bytes",
            Self::Silence => "silence",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// rule: close-4
    #[test]
    fn the_text_of_a_report_names_what_was_not_delivered() {
        let report = CloseReport::of(Reason::Closed);
        assert_eq!(report.to_string(), format!("{}; 0 bytes discarded", chain(&Reason::Closed)));
        let (limit, unacknowledged) = (Some(CloseLimit::Bytes), Some(12));
        let report = CloseReport { limit, unwritten: 3, discarded: 70_000, unacknowledged, ..report };
        let expected = "; 70000 bytes discarded, 3 not written, 12 not acknowledged; gave up at the limit of bytes";
        assert!(report.to_string().ends_with(expected), "{report}");
        let report = CloseReport { unacknowledged: Some(0), ..report };
        assert!(!report.to_string().contains("acknowledged"), "{report}");
    }
}
