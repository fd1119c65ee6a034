//! The measurements: workloads, peers and regimes.

use std::fmt;

/// The runtime and the sockets of both ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Regime {
    /// A runtime with two threads, and socket buffers whose size the kernel chooses. On loopback they grow until the
    /// kernel copies memory that is in no cache.
    Default,
    /// A runtime with one thread on one CPU, and an `SO_SNDBUF` of 256 KiB, so that the copied bytes are in a cache.
    Hot,
}

/// The version of TLS. The suites use AES-128-GCM, the certificate is ECDSA P-256, and the group is X25519 except in
/// the post-quantum handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    /// 1.3
    V13,
    /// 1.2
    V12,
}

/// The direction of bulk data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
}

/// The kind of handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Certificates and X25519; no tickets.
    Full,
    /// Resumed with the ticket of the previous connection, which is asserted for each connection.
    Resumed,
    /// Certificates and X25519MLKEM768; no tickets.
    PostQuantum,
}

/// The version of HTTP, which determines the client program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Http {
    /// HTTP/1.1, by wrk.
    One,
    /// HTTP/2, by h2load.
    Two,
}

impl Http {
    /// The program, and its Debian package.
    pub fn client(self) -> &'static str {
        match self {
            Self::One => "wrk",
            Self::Two => "h2load",
        }
    }
}

/// The work of a measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    /// One connection, writes of `size`, as fast as possible. Unit: GiB.
    Bulk { size: usize, way: Way },
    /// A file, sent by `tokio::io::copy`. Unit: GiB.
    Copy,
    /// hyper answers each request with `size` bytes, on each of `connections`. Unit: a request.
    Http { http: Http, size: usize, connections: usize },
    /// A million writes of 100 bytes, and no flush between them. Unit: a million writes.
    Small,
    /// A request and a response of `size`, one after the other, on each of `connections`. Unit: one of them.
    Pingpong { size: usize, connections: usize },
    /// A TCP connection and a handshake. Unit: one of them.
    Handshake(Kind),
    /// A connection's whole life: a request, half-close, the response, close. Unit: one of them.
    Churn,
    /// As `Churn`, after STARTTLS. Unit: one of them.
    Upgrade,
    /// The memory of this many idle connections in the server. Unit: one of them.
    Idle { connections: usize },
    /// The memory of this many connections in the server whose peers do not read. Unit: one of them.
    Stalled { connections: usize },
    /// Sealing and opening records of `size` in memory, which every peer has to do. Unit: GiB.
    Aead { size: usize },
}

/// One workload in one regime, with every peer that supports it.
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
    /// The unit of the results.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Bulk { .. } | Self::Copy | Self::Aead { .. } => "GiB",
            Self::Small => "million writes",
            Self::Pingpong { .. } | Self::Http { .. } => "request",
            Self::Handshake(_) => "handshake",
            Self::Churn | Self::Upgrade | Self::Idle { .. } | Self::Stalled { .. } => "connection",
        }
    }
}

/// Peers with TLS that are read and written with tokio's traits.
const STREAMS: &[&str] =
    &["bowline", "bowline-express", "tokio-rustls", "tokio-openssl", "s2n-tls-tokio", "tokio-boring"];
/// The callback face.
const CALLBACK: &[&str] = &["bowline-callback", "bowline-express-callback"];
/// Peers without TLS.
const PLAIN: &[&str] = &["tcp", "bowline-tcp"];
/// Programs in other languages. They are measured where their runtimes have enough CPUs, and with fewer workloads.
const GO: &[&str] = &["go"];
const PYTHON: &[&str] = &["asyncio", "twisted"];
/// Peers with other settings than their defaults, or than in their other measurements.
const UNTUNED: &[&str] = &["tokio-openssl+untuned", "s2n-tls-tokio+untuned"];
const LIMIT: &[&str] = &["tokio-rustls+limit256k"];
const BUFFERED: &[&str] = &["tokio-rustls+buf64k"];
/// The peers under hyper. All of them use rustls.
const SERVERS: &[&str] = &["bowline", "bowline-express", "bowline-lingering", "bowline-server", "tokio-rustls", "tcp"];
/// Peers that gather small writes.
const GATHERED: &[&str] = &["bowline-corked", "bowline-express-corked", "tokio-rustls+buf8k", "tokio-rustls+buf64k"];

/// All measurements, in the order of the report.
pub fn all() -> Vec<Spec> {
    let mut specs = Vec::new();
    let mut add = |workload, tls, regime, peers: &[&[&'static str]]| {
        let id = format!("{workload}/{tls}/{regime}");
        specs.push(Spec { id, workload, tls, regime, peers: peers.concat() });
    };
    let none: &[&str] = &[];
    for regime in [Regime::Default, Regime::Hot] {
        let go = if regime == Regime::Default { GO } else { none };
        let python = if regime == Regime::Default { PYTHON } else { none };
        for way in [Way::Up, Way::Down] {
            let untuned = if way == Way::Up { UNTUNED } else { none };
            let all = [STREAMS, untuned, CALLBACK, go, PLAIN, python];
            add(Workload::Bulk { size: 64 << 10, way }, Tls::V13, regime, &all);
            let all = [STREAMS, BUFFERED, CALLBACK, go, PLAIN];
            add(Workload::Bulk { size: 16 << 10, way }, Tls::V13, regime, &all);
            add(Workload::Bulk { size: 64 << 10, way }, Tls::V12, regime, &[STREAMS, go]);
        }
        for size in [256 << 10, 1 << 20] {
            let all = [STREAMS, LIMIT, CALLBACK, go, PLAIN];
            add(Workload::Bulk { size, way: Way::Up }, Tls::V13, regime, &all);
        }
        add(Workload::Copy, Tls::V13, regime, &[STREAMS, BUFFERED, PLAIN]);
    }
    for regime in [Regime::Hot, Regime::Default] {
        let go = if regime == Regime::Default { GO } else { none };
        for size in [1024, 64] {
            for connections in [1, 8, 64, 256, 1024] {
                let all = [STREAMS, CALLBACK, go, PLAIN];
                let few: &[&[&'static str]] = &[&["bowline", "bowline-express", "tokio-rustls", "tcp"]];
                let peers = match (regime, size, connections) {
                    // The plot of growth needs these numbers of connections, for few peers.
                    (Regime::Hot, 1024, 8 | 256) => few,
                    (_, _, 8 | 256) => continue,
                    (Regime::Default, 1024, 1 | 64) => &[STREAMS, CALLBACK, go, PLAIN, PYTHON],
                    _ => &all,
                };
                add(Workload::Pingpong { size, connections }, Tls::V13, regime, peers);
            }
        }
    }
    for regime in [Regime::Hot, Regime::Default] {
        let go = if regime == Regime::Default { GO } else { none };
        add(Workload::Small, Tls::V13, regime, &[STREAMS, GATHERED, CALLBACK, go, &["tcp"]]);
    }
    for http in [Http::One, Http::Two] {
        for size in [1 << 10, 64 << 10] {
            let connections = if http == Http::One { 64 } else { 8 };
            add(Workload::Http { http, size, connections }, Tls::V13, Regime::Hot, &[SERVERS]);
        }
    }
    for (kind, tls) in
        [(Kind::Full, Tls::V13), (Kind::Resumed, Tls::V13), (Kind::Full, Tls::V12), (Kind::Resumed, Tls::V12)]
    {
        add(Workload::Handshake(kind), tls, Regime::Hot, &[STREAMS, GO]);
    }
    let post_quantum = ["bowline", "bowline-express", "tokio-rustls", "s2n-tls-tokio", "tokio-boring"];
    add(Workload::Handshake(Kind::PostQuantum), Tls::V13, Regime::Hot, &[&post_quantum]);
    add(Workload::Churn, Tls::V13, Regime::Hot, &[STREAMS, GO, PLAIN]);
    add(Workload::Upgrade, Tls::V13, Regime::Hot, &[STREAMS, GO]);
    add(Workload::Idle { connections: 10_000 }, Tls::V13, Regime::Hot, &[STREAMS, CALLBACK, GO, PLAIN]);
    add(Workload::Stalled { connections: 500 }, Tls::V13, Regime::Hot, &[STREAMS, CALLBACK, GO, PLAIN]);
    for size in [16 << 10, 1024, 64] {
        add(Workload::Aead { size }, Tls::V13, Regime::Hot, &[&["aws-lc"]]);
    }
    specs
}

/// The number of rounds of a measurement. Memory is measured in few rounds, because it does not vary and takes long.
pub fn rounds(spec: &Spec, all: usize, quick: bool) -> usize {
    match spec.workload {
        Workload::Idle { .. } | Workload::Stalled { .. } => all.min(if quick { 1 } else { 3 }),
        _ => all,
    }
}

/// Whether the number of system calls is meaningful.
pub fn is_counted(spec: &Spec) -> bool {
    spec.tls == Tls::V13
        && match spec.workload {
            Workload::Bulk { size, way } => matches!(size >> 10, 64 | 256) && way == Way::Up,
            Workload::Small => spec.regime == Regime::Hot,
            Workload::Pingpong { size, connections } => {
                size == 1024 && spec.regime == Regime::Hot && matches!(connections, 1 | 64)
            }
            _ => false,
        }
}

/// Whether a quick run includes this measurement.
pub fn is_quick(spec: &Spec) -> bool {
    let is_extra = match spec.workload {
        Workload::Bulk { size, way } => size != 64 << 10 || way == Way::Down || spec.tls == Tls::V12,
        Workload::Pingpong { size, connections } => {
            size != 1024 || matches!(connections, 8 | 256) || (spec.regime == Regime::Default && connections != 64)
        }
        Workload::Small | Workload::Copy => spec.regime == Regime::Default,
        Workload::Http { size, .. } => size != 1024,
        Workload::Handshake(kind) => spec.tls == Tls::V12 || kind == Kind::PostQuantum,
        Workload::Churn | Workload::Upgrade | Workload::Idle { .. } | Workload::Stalled { .. } => false,
        Workload::Aead { .. } => false,
    };
    !is_extra
}

impl Spec {
    /// The measurement in words.
    pub fn words(&self) -> String {
        let regime = match self.regime {
            Regime::Default => "default sockets, two threads",
            Regime::Hot => "cache-hot, one CPU",
        };
        let tls = match self.tls {
            Tls::V13 => "TLS 1.3",
            Tls::V12 => "TLS 1.2",
        };
        let size = |size: usize| match size {
            0..1024 => format!("{size} B"),
            1024..0x10_0000 => format!("{} KiB", size >> 10),
            _ => format!("{} MiB", size >> 20),
        };
        let connections =
            |n: usize| if n == 1 { "one connection".to_owned() } else { format!("{} connections", thousands(n)) };
        match self.workload {
            Workload::Bulk { size: bytes, way: Way::Up } => {
                format!("bulk to the server, writes of {}, {tls}; {regime}", size(bytes))
            }
            Workload::Bulk { size: bytes, way: Way::Down } => {
                format!("bulk to the client, writes of {}, {tls}; {regime}", size(bytes))
            }
            Workload::Copy => format!("a file sent by tokio::io::copy, {tls}; {regime}"),
            Workload::Http { http: Http::One, size: bytes, connections: n } => {
                format!("hyper answers with {} over HTTP/1.1, {}, one request at a time", size(bytes), connections(n))
            }
            Workload::Http { http: Http::Two, size: bytes, connections: n } => {
                format!("hyper answers with {} over HTTP/2, {}, ten requests at a time", size(bytes), connections(n))
            }
            Workload::Small => format!("a million writes of 100 bytes, no flush between them; {regime}"),
            Workload::Pingpong { size: bytes, connections: n } => {
                format!("request and response of {}, {}; {regime}", size(bytes), connections(n))
            }
            Workload::Handshake(Kind::Full) => format!("full handshakes, {tls}"),
            Workload::Handshake(Kind::Resumed) => format!("resumed handshakes, {tls}"),
            Workload::Handshake(Kind::PostQuantum) => format!("full handshakes with X25519MLKEM768, {tls}"),
            Workload::Churn => "a connection's whole life, with half-close".to_owned(),
            Workload::Upgrade => "a connection's whole life behind STARTTLS".to_owned(),
            Workload::Idle { connections: n } => format!("memory of an idle connection, {}", connections(n)),
            Workload::Stalled { connections: n } => {
                format!("memory of a connection whose peer does not read, {}", connections(n))
            }
            Workload::Aead { size: bytes } => format!("the cipher alone, records of {}", size(bytes)),
        }
    }
}

/// Three or four digits.
pub fn number(value: f64) -> String {
    match value.abs() {
        x if x >= 1000.0 => format!("{value:.0}"),
        x if x >= 100.0 => format!("{value:.1}"),
        x if x >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// `1,024`
pub fn thousands(n: usize) -> String {
    if n >= 1000 { format!("{},{:03}", n / 1000, n % 1000) } else { n.to_string() }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bulk { size, way: Way::Up } => write!(f, "bulk/{}k/up", size >> 10),
            Self::Bulk { size, way: Way::Down } => write!(f, "bulk/{}k/down", size >> 10),
            Self::Copy => write!(f, "copy/64m"),
            Self::Http { http: Http::One, size, connections } => write!(f, "http1/{size}/{connections}"),
            Self::Http { http: Http::Two, size, connections } => write!(f, "http2/{size}/{connections}"),
            Self::Small => write!(f, "small/100"),
            Self::Pingpong { size, connections } => write!(f, "pingpong/{size}/{connections}"),
            Self::Handshake(Kind::Full) => write!(f, "handshake/full"),
            Self::Handshake(Kind::Resumed) => write!(f, "handshake/resumed"),
            Self::Handshake(Kind::PostQuantum) => write!(f, "handshake/post-quantum"),
            Self::Churn => write!(f, "churn"),
            Self::Upgrade => write!(f, "upgrade"),
            Self::Idle { connections } => write!(f, "idle/{connections}"),
            Self::Stalled { connections } => write!(f, "stalled/{connections}"),
            Self::Aead { size } => write!(f, "aead/{size}"),
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
