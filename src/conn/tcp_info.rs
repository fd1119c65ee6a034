//! The system's statistics of a TCP connection: round trips, retransmissions, acknowledged bytes.

use std::time::Duration;

/// The system's statistics of a TCP connection: see [`Control::tcp_info`](crate::Control::tcp_info). A value is `None`
/// if the system is too old to report it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct TcpInfo {
    /// The smoothed round-trip time.
    pub round_trip: Duration,
    /// The mean deviation of the round-trip time.
    pub round_trip_deviation: Duration,
    /// The smallest round-trip time of the last minutes.
    pub min_round_trip: Option<Duration>,
    /// The time after which the next unacknowledged segment is sent again.
    pub retransmission_timeout: Duration,
    /// How many segments were sent again since the connection began.
    pub retransmitted_segments: u32,
    /// How many bytes were sent again since the connection began.
    pub retransmitted_bytes: Option<u64>,
    /// How many segments are considered lost now.
    pub lost_segments: u32,
    /// How many segments are sent and not acknowledged now.
    pub unacknowledged_segments: u32,
    /// How many bytes the peer's system has acknowledged.
    pub acknowledged_bytes: Option<u64>,
    /// How many bytes our system has received in order.
    pub received_bytes: Option<u64>,
    /// How many bytes our system has accepted and not sent yet.
    pub unsent_bytes: Option<u32>,
    /// The congestion window, in segments.
    pub congestion_window: u32,
    /// The largest segment that we send, in bytes.
    pub max_segment: u32,
    /// The last measured rate of delivery, in bytes per second.
    pub delivery_rate: Option<u64>,
}

impl TcpInfo {
    /// Reads the kernel's `struct tcp_info` (linux/tcp.h). Its fields never move; a newer kernel has more of them.
    /// `None` if it is shorter than that of Linux 2.6.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let u32_at = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let u64_at = |at: usize| Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let micros = |at: usize| Some(Duration::from_micros(u32_at(at)?.into()));
        Some(Self {
            retransmission_timeout: micros(8)?,
            max_segment: u32_at(16)?,
            unacknowledged_segments: u32_at(24)?,
            lost_segments: u32_at(32)?,
            round_trip: micros(68)?,
            round_trip_deviation: micros(72)?,
            congestion_window: u32_at(80)?,
            retransmitted_segments: u32_at(100)?,
            acknowledged_bytes: u64_at(120),
            received_bytes: u64_at(128),
            unsent_bytes: u32_at(144),
            min_round_trip: micros(148),
            delivery_rate: u64_at(160),
            retransmitted_bytes: u64_at(208),
        })
    }
}

#[cfg(all(test, any(target_os = "linux", target_os = "android")))]
mod tests {
    use super::*;

    /// rule: tcp-12
    #[test]
    fn an_older_system_reports_fewer_values() {
        let bytes: Vec<u8> = (0..232).map(|at| if at % 4 == 0 { (at / 4 + 1) as u8 } else { 0 }).collect();
        let all = TcpInfo::parse(&bytes).unwrap();
        assert_eq!((all.round_trip, all.retransmitted_segments), (Duration::from_micros(18), 26));
        assert_eq!(all.acknowledged_bytes, Some(31 | 32 << 32));
        assert_eq!(all.retransmitted_bytes, Some(53 | 54 << 32));
        let old = TcpInfo::parse(&bytes[..104]).unwrap();
        assert_eq!((old.retransmitted_segments, old.acknowledged_bytes, old.min_round_trip), (26, None, None));
        assert_eq!(TcpInfo::parse(&bytes[..103]), None);
    }
}
