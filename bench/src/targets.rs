//! The targets of bowline, as ratios within one run, and whether they are met.

use crate::outcome::Outcome;
use crate::spec::{Spec, Workload};
use crate::stats::{Rounds, Value, cpu, rate, ratios, resident, spread};

/// A target, and its result.
pub struct Judged {
    pub what: &'static str,
    /// The measurement.
    pub id: &'static str,
    /// Our peer.
    pub ours: &'static str,
    /// The peer that it is compared with.
    pub against: &'static str,
    /// The required ratio.
    pub bound: Bound,
    /// A better value that is aimed for, if there is one.
    pub aim: Option<f64>,
    /// Minimum, quartiles and maximum of the ratios, each within its round. `None`: not measured in one run.
    pub ratio: Option<[f64; 5]>,
}

/// Whether the ratio must be at least or at most a value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

use Bound::{AtLeast, AtMost};

/// The denominator of a ratio.
#[derive(Clone, Copy)]
enum Against {
    Peer(&'static str),
    /// The same ratio of raw TCP: the change from this other measurement to this one.
    Fall(&'static str),
    /// Raw TCP plus the cipher: its share of our CPU time.
    Limit,
}

/// Our peer, the required ratio, and the value aimed for.
type Ours = (&'static str, Bound, Option<f64>);

struct Target {
    what: &'static str,
    id: &'static str,
    by: Value,
    against: Against,
    ours: &'static [Ours],
}

const BULK: &str = "bulk/64k/up/tls13/default";
const LARGE: &str = "bulk/256k/up/tls13/default";
const HOT: &str = "bulk/64k/up/tls13/hot";
const ONE: &str = "pingpong/1024/1/tls13/hot";
const SOME: &str = "pingpong/1024/64/tls13/hot";
const MANY: &str = "pingpong/1024/1024/tls13/hot";
const SMALL: &str = "small/100/tls13/hot";
const RUSTLS: Against = Against::Peer("tokio-rustls");
const TCP: Against = Against::Peer("tcp");

const DEFAULT: &str = "bowline";
const EXPRESS: &str = "bowline-express";
const LIVES: &[Ours] = &[(DEFAULT, AtLeast(1.0), None), (EXPRESS, AtLeast(0.99), None)];
const REQUESTS: &[Ours] = &[(DEFAULT, AtLeast(1.0), Some(1.02)), (EXPRESS, AtLeast(1.04), Some(1.07))];
const TENFOLD: [&[Ours]; 2] = [
    &[("bowline-corked", AtLeast(10.0), None), ("bowline-express-corked", AtLeast(10.0), None)],
    &[("bowline-callback", AtLeast(10.0), None), ("bowline-express-callback", AtLeast(10.0), None)],
];
const CORKED: &[Ours] = &[("bowline-corked", AtLeast(1.0), None), ("bowline-express-corked", AtLeast(1.0), None)];
const CALLBACK: &[Ours] = &[("bowline-callback", AtLeast(1.0), None)];
const EXPRESS_CALLBACK: &[Ours] = &[("bowline-express-callback", AtLeast(1.0), None)];
const PLAIN: &[Ours] = &[("bowline-tcp", AtMost(1.05), None)];

#[rustfmt::skip]
const TARGETS: &[Target] = &[
    t("bulk, 64 KiB writes, default sockets: rate", BULK, rate, RUSTLS,
        &[(DEFAULT, AtLeast(1.0), Some(1.03)), (EXPRESS, AtLeast(1.03), Some(1.10))]),
    t("bulk, 256 KiB writes, default sockets: rate", LARGE, rate, RUSTLS,
        &[(DEFAULT, AtLeast(1.05), Some(1.17)), (EXPRESS, AtLeast(1.17), Some(1.30))]),
    t("bulk, hot: CPU", HOT, cpu, RUSTLS, &[(DEFAULT, AtMost(0.94), None), (EXPRESS, AtMost(0.80), None)]),
    t("bulk, hot: the limit's share of our CPU", HOT, cpu, Against::Limit,
        &[(DEFAULT, AtLeast(0.78), None), (EXPRESS, AtLeast(0.88), None)]),
    t("1 KiB requests, 1 connection: rate", ONE, rate, RUSTLS, REQUESTS),
    t("1 KiB requests, 64 connections: rate", SOME, rate, RUSTLS, REQUESTS),
    t("100-byte writes, eager: rate", SMALL, rate, RUSTLS,
        &[(DEFAULT, AtLeast(1.7), None), (EXPRESS, AtLeast(1.9), None)]),
    t("full handshakes: rate", "handshake/full/tls13/hot", rate, RUSTLS, LIVES),
    t("resumed handshakes: rate", "handshake/resumed/tls13/hot", rate, RUSTLS, LIVES),
    t("churn with half-close: rate", "churn/tls13/hot", rate, RUSTLS, LIVES),
    t("STARTTLS upgrade: rate", "upgrade/tls13/hot", rate, RUSTLS, LIVES),
    t("rate of 1,024 connections to that of 64", MANY, rate, Against::Fall(SOME),
        &[(DEFAULT, AtLeast(0.95), None), (EXPRESS, AtLeast(0.97), None)]),
    t("callback face, 1 KiB requests, 1 connection: rate", ONE, rate, Against::Peer(DEFAULT), CALLBACK),
    t("callback face, 1 KiB requests, 1 connection: rate", ONE, rate, Against::Peer(EXPRESS), EXPRESS_CALLBACK),
    t("callback face, 1 KiB requests, 64 connections: rate", SOME, rate, Against::Peer(DEFAULT), CALLBACK),
    t("callback face, 1 KiB requests, 64 connections: rate", SOME, rate, Against::Peer(EXPRESS), EXPRESS_CALLBACK),
    t("stalled reader: resident memory", "stalled/500/tls13/hot", resident, RUSTLS,
        &[(DEFAULT, AtMost(1.0), None), (EXPRESS, AtMost(1.0), None)]),
    // With the default engine, all but half a KiB of an idle connection's memory is rustls's.
    t("idle connection: resident memory", "idle/10000/tls13/hot", resident, RUSTLS,
        &[(DEFAULT, AtMost(1.0), None), (EXPRESS, AtMost(0.65), None)]),
    t("100-byte writes, corked: rate", SMALL, rate, RUSTLS, TENFOLD[0]),
    t("100-byte writes, callback face: rate", SMALL, rate, RUSTLS, TENFOLD[1]),
    t("100-byte writes, corked: rate", SMALL, rate, Against::Peer("tokio-rustls+buf8k"), CORKED),
    t("plain TCP, bulk, 64 KiB writes, default sockets: CPU", BULK, cpu, TCP, PLAIN),
    t("plain TCP, 1 KiB requests, 64 connections: CPU", SOME, cpu, TCP, PLAIN),
];

const fn t(what: &'static str, id: &'static str, by: Value, against: Against, ours: &'static [Ours]) -> Target {
    Target { what, id, by, against, ours }
}

/// Every target, for each of our peers to which it applies.
pub fn judge(outcome: &Outcome) -> Vec<Judged> {
    TARGETS.iter().flat_map(|target| target.ours.iter().map(|ours| target.judge(outcome, *ours))).collect()
}

/// Whether a target needs this measurement by this peer.
pub fn needs(id: &str, peer: &str) -> bool {
    let cipher = TARGETS.iter().filter(|target| matches!(target.against, Against::Limit));
    TARGETS.iter().any(|target| target.needs(id, peer)) || (peer == "aws-lc" && cipher.count() > 0 && id == CIPHER)
}

/// The cipher alone, with full records.
const CIPHER: &str = "aead/16384/tls13/hot";

impl Target {
    fn needs(&self, id: &str, peer: &str) -> bool {
        let is_ours = self.ours.iter().any(|ours| ours.0 == peer);
        match self.against {
            Against::Peer(other) => id == self.id && (is_ours || peer == other),
            Against::Limit => id == self.id && (is_ours || peer == "tcp"),
            Against::Fall(other) => (id == self.id || id == other) && (is_ours || peer == "tcp"),
        }
    }

    fn judge(&self, outcome: &Outcome, (ours, bound, aim): Ours) -> Judged {
        let values = |id: &str, peer: &str| outcome.values(id, peer, self.by);
        let fall = |peer: &str, from: &str| ratios(&values(self.id, peer), &values(from, peer));
        let (against, ratios) = match self.against {
            Against::Peer(peer) => (peer, ratios(&values(self.id, ours), &values(self.id, peer))),
            Against::Fall(from) => ("the same of raw TCP", ratios(&fall(ours, from), &fall("tcp", from))),
            Against::Limit => ("raw TCP and the cipher", ratios(&limits(outcome, self.id), &values(self.id, ours))),
        };
        Judged { what: self.what, id: self.id, ours, against, bound, aim, ratio: spread(&ratios) }
    }
}

impl Judged {
    /// The median.
    pub fn value(&self) -> Option<f64> {
        self.ratio.map(|ratio| ratio[2])
    }

    /// Whether the median meets the target.
    pub fn pass(&self) -> Option<bool> {
        self.value().map(|value| match self.bound {
            AtLeast(bound) => value >= bound,
            AtMost(bound) => value <= bound,
        })
    }

    /// `pass`, or by how much the target is missed, and whether the rounds disagree.
    pub fn verdict(&self) -> String {
        let (Some(pass), Some([_, low, value, high, _])) = (self.pass(), self.ratio) else {
            return "not measured in one run".to_owned();
        };
        let bound = self.bound.value();
        let mut verdict = match (pass, self.aim) {
            (true, Some(aim)) if value >= aim => "pass, and the aim".to_owned(),
            (true, _) => "pass".to_owned(),
            (false, _) => format!("**missed** by {:.1} %", (value / bound - 1.0).abs() * 100.0),
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

/// The CPU time per unit of raw TCP plus the cipher alone, by round: the limit that no library can go below.
pub fn limits(outcome: &Outcome, id: &str) -> Rounds {
    let cipher = |size: usize| outcome.values(&format!("aead/{size}/tls13/hot"), "aws-lc", cpu);
    // Bulk has full records. A request has two messages, and each is sealed once and opened once.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Sample;
    use crate::spec;

    #[test]
    fn every_measurement_that_a_target_needs_exists() {
        let specs = spec::all();
        let has = |id: &str, peer: &str| specs.iter().any(|spec| spec.id == id && spec.peers.contains(&peer));
        for target in TARGETS {
            let against = match target.against {
                Against::Peer(peer) => peer,
                Against::Fall(other) => {
                    assert!(target.ours.iter().all(|ours| has(other, ours.0)), "{}", target.what);
                    "tcp"
                }
                Against::Limit => "tcp",
            };
            assert!(target.ours.iter().all(|ours| has(target.id, ours.0)), "{}", target.what);
            assert!(has(target.id, against), "{}", target.what);
        }
        assert!(has(CIPHER, "aws-lc"));
    }

    #[test]
    fn growth_is_compared_with_that_of_raw_tcp() {
        let mut outcome = Outcome::new(Vec::new(), false);
        let mut took = |id: &str, peer: &str, rate: f64| {
            let sample = Sample { units: rate, wall: 1.0, round: 1, ..Sample::default() };
            outcome.samples.insert((id.to_owned(), peer.to_owned()), vec![sample]);
        };
        took(SOME, "tcp", 100.0);
        took(MANY, "tcp", 80.0);
        took(SOME, DEFAULT, 50.0);
        took(MANY, DEFAULT, 36.0);
        let judged = judge(&outcome);
        let one = judged.iter().find(|one| one.id == MANY && one.ours == DEFAULT);
        assert_eq!(one.and_then(Judged::value), Some(0.72 / 0.8));
        assert_eq!(one.and_then(Judged::pass), Some(false));
    }
}
