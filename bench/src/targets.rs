//! What bowline is to reach, as ratios within one run, and whether it did.

use crate::conduct::Outcome;
use crate::measure::Sample;
use crate::report::quantiles;
use crate::spec::Workload;

/// A target, and what became of it.
pub struct Judged {
    pub what: &'static str,
    /// `≤0.97`
    pub bound: String,
    /// The value to aim for.
    pub aim: f64,
    /// `None`: not measured in this run.
    pub value: Option<f64>,
    pub pass: bool,
}

/// What is compared.
#[derive(Clone, Copy)]
enum By {
    /// Seconds of CPU for a unit.
    Cpu,
    /// Units in a second.
    Rate,
    /// Bytes resident for a connection.
    Resident,
}

/// Another peer's value, or the best of all that speak TLS.
#[derive(Clone, Copy)]
enum Against {
    Peer(&'static str),
    Best,
    /// The same peer in this other measurement.
    Other(&'static str),
    /// Raw TCP and the cipher: the share that this is of ours.
    Limit,
}

struct Target {
    what: &'static str,
    id: &'static str,
    ours: &'static str,
    by: By,
    against: Against,
    /// Positive: at least; negative: at most.
    bound: f64,
    aim: f64,
}

const BULK: &str = "bulk/64k/up/tls13/default";
const HOT: &str = "bulk/64k/up/tls13/hot";
const RUSTLS: Against = Against::Peer("tokio-rustls");

#[rustfmt::skip]
const TARGETS: &[Target] = &[
    t("bulk, default sockets: CPU against tokio-rustls", BULK, "bowline", By::Cpu, RUSTLS, -0.97, 0.83),
    t("bulk, cache-hot: CPU against tokio-rustls", HOT, "bowline", By::Cpu, RUSTLS, -0.90, 0.43),
    t("bulk, default sockets: CPU against the best of all peers", BULK, "bowline", By::Cpu, Against::Best, -1.02, 0.95),
    t("bulk, cache-hot: CPU against the best of all peers", HOT, "bowline", By::Cpu, Against::Best, -1.02, 0.95),
    t("bulk, default sockets: the limit's share of our CPU", BULK, "bowline", By::Cpu, Against::Limit, 0.78, 0.92),
    t("bulk, cache-hot: the limit's share of our CPU", HOT, "bowline", By::Cpu, Against::Limit, 0.78, 0.92),
    t("requests of 1 KiB, 1 connection: rate", "pingpong/1024/1/tls13/hot", "bowline", By::Rate, RUSTLS, 1.03, 1.17),
    t("requests of 1 KiB, 64 connections: rate", "pingpong/1024/64/tls13/hot", "bowline", By::Rate, RUSTLS, 1.03, 1.17),
    t("100-byte writes, corked: rate against eager tokio-rustls", "small/100/tls13/hot", "bowline-corked", By::Rate, RUSTLS, 10.0, 12.8),
    t("100-byte writes, callback face: rate against eager tokio-rustls", "small/100/tls13/hot", "bowline-callback", By::Rate, RUSTLS, 10.0, 12.8),
    t("100-byte writes, eager: rate", "small/100/tls13/hot", "bowline", By::Rate, RUSTLS, 1.5, 2.4),
    t("100-byte writes, corked: rate against BufWriter (8 KiB)", "small/100/tls13/hot", "bowline-corked", By::Rate, Against::Peer("tokio-rustls+buf8k"), 1.0, 1.2),
    t("handshakes: rate", "handshake/full/tls13/hot", "bowline", By::Rate, RUSTLS, 0.98, 1.02),
    t("handshakes, resumed: rate", "handshake/resumed/tls13/hot", "bowline", By::Rate, RUSTLS, 0.98, 1.02),
    t("churn with half-close: rate", "churn/tls13/hot", "bowline", By::Rate, RUSTLS, 0.98, 1.02),
    t("STARTTLS upgrade: rate", "upgrade/tls13/hot", "bowline", By::Rate, RUSTLS, 0.98, 1.02),
    t("resident memory of an idle TLS connection", "idle/10000/tls13/hot", "bowline", By::Resident, RUSTLS, -0.65, 0.45),
    t("plain TCP, bulk: CPU against raw tokio", BULK, "bowline-tcp", By::Cpu, Against::Peer("tcp"), -1.05, 1.02),
    t("plain TCP, requests of 1 KiB: CPU against raw tokio", "pingpong/1024/64/tls13/hot", "bowline-tcp", By::Cpu, Against::Peer("tcp"), -1.05, 1.02),
    t("callback face against async face: requests, rate", "pingpong/1024/64/tls13/hot", "bowline-callback", By::Rate, Against::Peer("bowline"), 0.97, 1.05),
    t("1,024 connections against 64: rate", "pingpong/1024/1024/tls13/hot", "bowline", By::Rate, Against::Other("pingpong/1024/64/tls13/hot"), 0.85, 0.95),
];

const fn t(
    what: &'static str,
    id: &'static str,
    ours: &'static str,
    by: By,
    against: Against,
    bound: f64,
    aim: f64,
) -> Target {
    Target { what, id, ours, by, against, bound, aim }
}

/// Every target.
pub fn judge(outcome: &Outcome) -> Vec<Judged> {
    TARGETS.iter().map(|target| target.judge(outcome)).collect()
}

impl Target {
    fn judge(&self, outcome: &Outcome) -> Judged {
        let ours = median(outcome, self.id, self.ours, self.by);
        let theirs = match self.against {
            Against::Peer(peer) => median(outcome, self.id, peer, self.by),
            Against::Best => self.best(outcome),
            Against::Other(id) => median(outcome, id, self.ours, self.by),
            Against::Limit => limit(outcome, self.id),
        };
        let value = match self.against {
            Against::Limit => theirs.zip(ours).map(|(limit, ours)| limit / ours),
            _ => ours.zip(theirs).map(|(ours, theirs)| ours / theirs),
        };
        let (sign, bound) = if self.bound < 0.0 { ('≤', -self.bound) } else { ('≥', self.bound) };
        let pass = value.is_some_and(|value| if self.bound < 0.0 { value <= bound } else { value >= bound });
        Judged { what: self.what, bound: format!("{sign}{bound:.2}"), aim: self.aim, value, pass }
    }

    /// The least CPU that any peer with TLS needs.
    fn best(&self, outcome: &Outcome) -> Option<f64> {
        let spec = outcome.specs.iter().find(|spec| spec.id == self.id)?;
        let others = spec.peers.iter().filter(|peer| !peer.starts_with("bowline") && **peer != "tcp");
        others.filter_map(|peer| median(outcome, self.id, peer, self.by)).min_by(f64::total_cmp)
    }
}

/// Seconds of CPU for a unit that raw TCP and the cipher take by themselves: what nobody can do without.
pub fn limit(outcome: &Outcome, id: &str) -> Option<f64> {
    let spec = outcome.specs.iter().find(|spec| spec.id == id)?;
    let tcp = median(outcome, id, "tcp", By::Cpu)?;
    let aead = |size: usize| median(outcome, &format!("aead/{size}/tls13/hot"), "aws-lc", By::Cpu);
    match spec.workload {
        Workload::Bulk { .. } => Some(tcp + aead(16 << 10)?),
        // Two messages, each sealed once and opened once.
        Workload::Pingpong { size, .. } => Some(tcp + 2.0 * size as f64 * aead(size)? / f64::from(1 << 30)),
        _ => None,
    }
}

fn median(outcome: &Outcome, id: &str, peer: &str, by: By) -> Option<f64> {
    let samples = outcome.samples.get(&(id.to_owned(), peer.to_owned()))?;
    let value = |sample: &Sample| match by {
        By::Cpu => Some(sample.cpu() / sample.units),
        By::Rate => Some(sample.units / sample.wall),
        By::Resident => sample.memory.map(|memory| memory.0),
    };
    Some(quantiles(samples.iter().filter_map(value).collect())[2]).filter(|value| value.is_finite())
}
