//! What bowline is to reach, as ratios within one run, and whether it did.

use crate::conduct::Outcome;
use crate::spec::{Spec, Workload};
use crate::stats::{Rounds, Value, cpu, rate, ratios, resident, spread};

/// A target, and what became of it.
pub struct Judged {
    pub what: &'static str,
    /// Which of ours.
    pub ours: &'static str,
    /// What it is compared with.
    pub against: String,
    /// At least, or at most.
    pub bound: Bound,
    /// The value to aim for.
    pub aim: f64,
    /// Minimum, quartiles and maximum of the ratios, each within its round. `None`: not measured in this run.
    pub ratio: Option<[f64; 5]>,
}

/// Which side is good.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

use Bound::{AtLeast, AtMost};

/// What a ratio is against.
#[derive(Clone, Copy)]
enum Against {
    Peer(&'static str),
    /// The peer with TLS whose median is the best.
    Best,
    /// The same peer in this other measurement.
    Other(&'static str),
    /// Raw TCP and the cipher: the share that this is of ours.
    Limit,
}

struct Target {
    what: &'static str,
    id: &'static str,
    ours: &'static [&'static str],
    by: Value,
    against: Against,
    bound: Bound,
    aim: f64,
}

const BULK: &str = "bulk/64k/up/tls13/default";
const HOT: &str = "bulk/64k/up/tls13/hot";
const ONE: &str = "pingpong/1024/1/tls13/hot";
const SOME: &str = "pingpong/1024/64/tls13/hot";
const MANY: &str = "pingpong/1024/1024/tls13/hot";
const SMALL: &str = "small/100/tls13/hot";
const RUSTLS: Against = Against::Peer("tokio-rustls");

/// Both engines.
const STREAM: &[&str] = &["bowline", "bowline-express"];
const CALLBACK: &[&str] = &["bowline-callback", "bowline-express-callback"];
const CORKED: &[&str] = &["bowline-corked", "bowline-express-corked"];
const PLAIN: &[&str] = &["bowline-tcp"];

#[rustfmt::skip]
const TARGETS: &[Target] = &[
    t("bulk, default sockets: CPU", BULK, STREAM, cpu, RUSTLS, AtMost(0.97), 0.83),
    t("bulk, cache-hot: CPU", HOT, STREAM, cpu, RUSTLS, AtMost(0.90), 0.43),
    t("bulk, default sockets: CPU", BULK, STREAM, cpu, Against::Best, AtMost(1.02), 0.95),
    t("bulk, cache-hot: CPU", HOT, STREAM, cpu, Against::Best, AtMost(1.02), 0.95),
    t("bulk, default sockets: the limit's share of our CPU", BULK, STREAM, cpu, Against::Limit, AtLeast(0.78), 0.92),
    t("bulk, cache-hot: the limit's share of our CPU", HOT, STREAM, cpu, Against::Limit, AtLeast(0.78), 0.92),
    t("requests of 1 KiB, 1 connection: rate", ONE, STREAM, rate, RUSTLS, AtLeast(1.03), 1.17),
    t("requests of 1 KiB, 64 connections: rate", SOME, STREAM, rate, RUSTLS, AtLeast(1.03), 1.17),
    t("100-byte writes, corked: rate", SMALL, CORKED, rate, RUSTLS, AtLeast(10.0), 12.8),
    t("100-byte writes, callback face: rate", SMALL, CALLBACK, rate, RUSTLS, AtLeast(10.0), 12.8),
    t("100-byte writes, eager: rate", SMALL, STREAM, rate, RUSTLS, AtLeast(1.5), 2.4),
    t("100-byte writes, corked: rate", SMALL, CORKED, rate, Against::Peer("tokio-rustls+buf8k"), AtLeast(1.0), 1.2),
    t("full handshakes: rate", "handshake/full/tls13/hot", STREAM, rate, RUSTLS, AtLeast(0.98), 1.02),
    t("resumed handshakes: rate", "handshake/resumed/tls13/hot", STREAM, rate, RUSTLS, AtLeast(0.98), 1.02),
    t("churn with half-close: rate", "churn/tls13/hot", STREAM, rate, RUSTLS, AtLeast(0.98), 1.02),
    t("STARTTLS upgrade: rate", "upgrade/tls13/hot", STREAM, rate, RUSTLS, AtLeast(0.98), 1.02),
    t("idle connection: resident memory", "idle/10000/tls13/hot", STREAM, resident, RUSTLS, AtMost(0.65), 0.45),
    t("stalled reader: resident memory", "stalled/500/tls13/hot", STREAM, resident, RUSTLS, AtMost(1.0), 0.8),
    t("plain TCP, bulk: CPU", BULK, PLAIN, cpu, Against::Peer("tcp"), AtMost(1.05), 1.02),
    t("plain TCP, requests of 1 KiB: CPU", SOME, PLAIN, cpu, Against::Peer("tcp"), AtMost(1.05), 1.02),
    t("callback face, requests of 1 KiB: rate", SOME, &["bowline-callback"], rate, Against::Peer("bowline"), AtLeast(0.97), 1.05),
    t("callback face, requests of 1 KiB: rate", SOME, &["bowline-express-callback"], rate, Against::Peer("bowline-express"), AtLeast(0.97), 1.05),
    t("1,024 connections: rate", MANY, STREAM, rate, Against::Other(SOME), AtLeast(0.85), 0.95),
];

const fn t(
    what: &'static str,
    id: &'static str,
    ours: &'static [&'static str],
    by: Value,
    against: Against,
    bound: Bound,
    aim: f64,
) -> Target {
    Target { what, id, ours, by, against, bound, aim }
}

/// Every target, for each of ours that it is about.
pub fn judge(outcome: &Outcome) -> Vec<Judged> {
    TARGETS.iter().flat_map(|target| target.ours.iter().map(|ours| target.judge(outcome, ours))).collect()
}

impl Target {
    fn judge(&self, outcome: &Outcome, ours: &'static str) -> Judged {
        let values = outcome.values(self.id, ours, self.by);
        let (against, ratios) = match self.against {
            Against::Peer(peer) => (peer.to_owned(), ratios(&values, &outcome.values(self.id, peer, self.by))),
            Against::Best => match self.best(outcome) {
                Some(peer) => (format!("the best, {peer}"), ratios(&values, &outcome.values(self.id, peer, self.by))),
                None => ("the best".to_owned(), Rounds::new()),
            },
            Against::Other(id) => ("itself with 64".to_owned(), ratios(&values, &outcome.values(id, ours, self.by))),
            Against::Limit => ("raw TCP and the cipher".to_owned(), ratios(&limits(outcome, self.id), &values)),
        };
        Judged { what: self.what, ours, against, bound: self.bound, aim: self.aim, ratio: spread(&ratios) }
    }

    /// Which peer with TLS needs the least CPU. Chosen by its median: the least of each round would be luck.
    fn best(&self, outcome: &Outcome) -> Option<&'static str> {
        let spec = outcome.specs.iter().find(|spec| spec.id == self.id)?;
        let others = spec.peers.iter().filter(|peer| !peer.starts_with("bowline") && **peer != "tcp");
        let medians = others.filter_map(|peer| Some((*peer, outcome.spread(self.id, peer, self.by)?[2])));
        medians.min_by(|a, b| a.1.total_cmp(&b.1)).map(|(peer, _)| peer)
    }
}

impl Judged {
    /// The median.
    pub fn value(&self) -> Option<f64> {
        self.ratio.map(|ratio| ratio[2])
    }

    /// Whether the median is on the good side.
    pub fn pass(&self) -> Option<bool> {
        self.value().map(|value| match self.bound {
            AtLeast(bound) => value >= bound,
            AtMost(bound) => value <= bound,
        })
    }

    /// `pass`, or how far it is missed; and whether the rounds are of one mind.
    pub fn verdict(&self) -> String {
        let (Some(pass), Some([_, low, value, high, _])) = (self.pass(), self.ratio) else {
            return "not measured".to_owned();
        };
        let bound = self.bound.value();
        let mut verdict = if pass {
            "pass".to_owned()
        } else {
            format!("**missed** by {:.1} %", (value / bound - 1.0).abs() * 100.0)
        };
        if low < bound && bound < high {
            verdict += "; the quartiles are on both sides";
        }
        verdict
    }
}

impl Bound {
    pub fn value(self) -> f64 {
        match self {
            AtLeast(bound) | AtMost(bound) => bound,
        }
    }
}

impl std::fmt::Display for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            AtLeast(bound) => write!(f, "≥ {bound:.2}"),
            AtMost(bound) => write!(f, "≤ {bound:.2}"),
        }
    }
}

/// Seconds of CPU for a unit that raw TCP and the cipher take by themselves, by round: what nobody can do without.
pub fn limits(outcome: &Outcome, id: &str) -> Rounds {
    let cipher = |size: usize| outcome.values(&format!("aead/{size}/tls13/hot"), "aws-lc", cpu);
    // Full records for bulk; for a request two messages, each sealed once and opened once.
    let (size, share) = match outcome.specs.iter().find(|spec| spec.id == id) {
        Some(Spec { workload: Workload::Bulk { .. }, .. }) => (16 << 10, 1.0),
        Some(Spec { workload: Workload::Pingpong { size, .. }, .. }) => {
            (*size, 2.0 * *size as f64 / f64::from(1 << 30))
        }
        _ => return Rounds::new(),
    };
    let cipher = cipher(size);
    let tcp = outcome.values(id, "tcp", cpu);
    tcp.iter().filter_map(|(round, tcp)| Some((*round, tcp + share * cipher.get(round)?))).collect()
}
