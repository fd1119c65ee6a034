//! What there is to measure: workloads, peers, and the regimes that they run in.

use std::fmt;

/// Where both ends run, and over which sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Regime {
    /// A runtime of two threads; socket buffers as the kernel tunes them. On loopback these grow until the kernel copies
    /// memory that no cache holds.
    Default,
    /// A runtime of one thread on one CPU, `SO_SNDBUF` 256 KiB: what is copied is in a cache.
    Hot,
}

/// What TLS is spoken. The suites are the AES-128-GCM ones, the certificate is ECDSA P-256, and the group X25519 but for
/// the post-quantum handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    /// 1.3
    V13,
    /// 1.2
    V12,
}

/// Which way bulk data goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    /// One connection, writes of `size`, as fast as it goes. Unit: GiB.
    Bulk { size: usize, way: Way },
    /// A million writes of 100 bytes, and no flush between them. Unit: a million writes.
    Small,
    /// A request and a response of `size`, one after the other, on each of `connections`. Unit: one of them.
    Pingpong { size: usize, connections: usize },
}

/// One workload in one regime, by every peer that can do it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// `bulk/64k/up/tls13/default`
    pub id: String,
    pub workload: Workload,
    pub tls: Tls,
    pub regime: Regime,
    pub peers: Vec<&'static str>,
}

impl Workload {
    /// What results are counted in.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Bulk { .. } => "GiB",
            Self::Small => "million writes",
            Self::Pingpong { .. } => "request",
        }
    }
}

/// Peers that are in every build, and speak TLS.
const STREAMS: &[&str] = &["bowline", "tokio-rustls"];

/// All there is, in the order of the report.
pub fn all() -> Vec<Spec> {
    let mut specs = Vec::new();
    let mut add = |workload, tls, regime, peers: Vec<&'static str>| {
        let id = format!("{workload}/{tls}/{regime}");
        specs.push(Spec { id, workload, tls, regime, peers });
    };
    for regime in [Regime::Default, Regime::Hot] {
        for (size, way, tls) in [
            (64 << 10, Way::Up, Tls::V13),
            (64 << 10, Way::Down, Tls::V13),
            (16 << 10, Way::Up, Tls::V13),
            (16 << 10, Way::Down, Tls::V13),
            (64 << 10, Way::Up, Tls::V12),
            (64 << 10, Way::Down, Tls::V12),
        ] {
            let mut peers = STREAMS.to_vec();
            peers.push("bowline-callback");
            if tls == Tls::V13 {
                peers.extend(["tcp", "bowline-tcp"]);
            }
            add(Workload::Bulk { size, way }, tls, regime, peers);
        }
    }
    for regime in [Regime::Hot, Regime::Default] {
        for connections in [1, 64, 1024] {
            for size in [64, 1024] {
                let peers = [STREAMS, &["bowline-callback", "tcp", "bowline-tcp"]].concat();
                add(Workload::Pingpong { size, connections }, Tls::V13, regime, peers);
            }
        }
    }
    for regime in [Regime::Hot, Regime::Default] {
        let peers = ["bowline-corked", "bowline-callback", "tokio-rustls+buf8k", "tokio-rustls+buf64k", "tcp"];
        add(Workload::Small, Tls::V13, regime, [STREAMS, &peers].concat());
    }
    specs
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bulk { size, way: Way::Up } => write!(f, "bulk/{}k/up", size >> 10),
            Self::Bulk { size, way: Way::Down } => write!(f, "bulk/{}k/down", size >> 10),
            Self::Small => write!(f, "small/100"),
            Self::Pingpong { size, connections } => write!(f, "pingpong/{size}/{connections}"),
        }
    }
}

impl fmt::Display for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V13 => "tls13",
            Self::V12 => "tls12",
        })
    }
}

impl fmt::Display for Regime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Default => "default",
            Self::Hot => "hot",
        })
    }
}
