//! Medians, spreads, ratios within rounds, and whether there are two modes.

use std::collections::BTreeMap;

use crate::measure::Sample;
use crate::outcome::Outcome;

/// A figure of a sample.
pub type Value = fn(&Sample) -> Option<f64>;

/// Seconds of CPU for a unit.
pub fn cpu(sample: &Sample) -> Option<f64> {
    Some(sample.cpu() / sample.units)
}

/// Units in a second.
pub fn rate(sample: &Sample) -> Option<f64> {
    Some(sample.units / sample.wall)
}

/// Bytes resident for a connection.
pub fn resident(sample: &Sample) -> Option<f64> {
    sample.memory.map(|memory| memory.0)
}

/// Values by round.
pub type Rounds = BTreeMap<usize, f64>;

impl Outcome {
    /// The values of a peer in a measurement, by round.
    pub fn values(&self, id: &str, peer: &str, value: Value) -> Rounds {
        let samples = self.samples.get(&(id.to_owned(), peer.to_owned()));
        samples.into_iter().flatten().filter_map(|sample| Some((sample.round, value(sample)?))).collect()
    }

    /// Minimum, quartiles and maximum of these values.
    pub fn spread(&self, id: &str, peer: &str, value: Value) -> Option<[f64; 5]> {
        spread(&self.values(id, peer, value))
    }
}

/// `a` divided by `b`, within each round, because a disturbance in a round affects both.
pub fn ratios(a: &Rounds, b: &Rounds) -> Rounds {
    a.iter().filter_map(|(round, value)| Some((*round, value / b.get(round)?))).collect()
}

/// One peer compared with another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Ratio {
    /// The median of the ratios within the rounds.
    Within(f64),
    /// The ratio of the medians, because the peers have no round in common.
    Across(f64),
}

impl std::fmt::Display for Ratio {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Within(ratio) => write!(f, "{ratio:.2}"),
            Self::Across(ratio) => write!(f, "~{ratio:.2}"),
        }
    }
}

/// `a` divided by `b`, within the common rounds if there are any.
pub fn compare(a: &Rounds, b: &Rounds) -> Option<Ratio> {
    match spread(&ratios(a, b)) {
        Some(ratio) => Some(Ratio::Within(ratio[2])),
        None => Some(Ratio::Across(spread(a)?[2] / spread(b)?[2])),
    }
}

/// Minimum, quartiles and maximum; `None` without values.
pub fn spread(values: &Rounds) -> Option<[f64; 5]> {
    (!values.is_empty()).then(|| quantiles(values.values().copied().collect()))
}

fn quantiles(mut values: Vec<f64>) -> [f64; 5] {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1) as f64;
    [0.0, 0.25, 0.5, 0.75, 1.0].map(|part| {
        let at = last * part;
        let (low, high) = (at.floor() as usize, at.ceil() as usize);
        match (values.get(low), values.get(high)) {
            (Some(low), Some(high)) => low + (high - low) * at.fract(),
            _ => f64::NAN,
        }
    })
}

/// One of two modes: its median, and its number of samples.
pub type Mode = (f64, usize);

/// The two modes, if there are two: separated by a gap that is more than half of the range and more than a tenth of the
/// median, with at least two samples on either side.
pub fn modes(values: &Rounds) -> Option<[Mode; 2]> {
    let mut values: Vec<f64> = values.values().copied().collect();
    values.sort_by(f64::total_cmp);
    let (least, most) = (*values.first()?, *values.last()?);
    let median = quantiles(values.clone())[2];
    let enough = ((most - least) / 2.0).max(median.abs() / 10.0);
    let split = (2..values.len().saturating_sub(1)).find(|at| values[*at] - values[at - 1] > enough)?;
    let (low, high) = values.split_at(split);
    Some([low, high].map(|mode| (quantiles(mode.to_vec())[2], mode.len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds(values: &[f64]) -> Rounds {
        values.iter().copied().enumerate().collect()
    }

    #[test]
    fn two_modes_are_seen() {
        let found = modes(&rounds(&[0.38, 0.61, 0.39, 0.62, 0.63, 0.37, 0.6]));
        assert_eq!(found, Some([(0.38, 3), (0.615, 4)]));
    }

    #[test]
    fn one_mode_with_an_outlier_is_one() {
        assert_eq!(modes(&rounds(&[1.0, 1.01, 1.02, 0.99, 1.0, 1.03, 2.0])), None);
        assert_eq!(modes(&rounds(&[1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6])), None);
        assert_eq!(modes(&rounds(&[1.0, 1.0, 1.0, 1.01, 1.01])), None);
        assert_eq!(modes(&rounds(&[])), None);
    }

    #[test]
    fn without_a_round_in_common_medians_are_compared() {
        let (a, b) = (Rounds::from([(1, 3.0), (2, 4.0), (3, 9.0)]), Rounds::from([(8, 2.0)]));
        assert_eq!(compare(&a, &b), Some(Ratio::Across(2.0)));
        assert_eq!(compare(&a, &Rounds::from([(2, 8.0)])), Some(Ratio::Within(0.5)));
        assert_eq!(compare(&a, &Rounds::new()), None);
    }

    #[test]
    fn ratios_are_within_rounds() {
        let (a, b) = (Rounds::from([(1, 1.0), (2, 4.0), (3, 9.0)]), Rounds::from([(1, 2.0), (3, 3.0)]));
        assert_eq!(ratios(&a, &b), Rounds::from([(1, 0.5), (3, 3.0)]));
    }
}
