//! Computes the wait before the next attempt. The caller does the waiting.

use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

/// Waits that grow from attempt to attempt. Each wait is shortened by a random part, so that many clients that failed
/// at the same moment do not all retry at the same moment (rule: retry-1).
///
/// By default the first wait is 1 second. Each further wait is twice as long, up to 60 seconds. Each wait is then
/// shortened at random, to at least half of its length.
///
/// ```
/// use std::time::Duration;
/// use bowline::Backoff;
///
/// let mut backoff = Backoff::new().initial(Duration::from_millis(100)).max(Duration::from_secs(1)).jitter(0.0);
/// let waits: Vec<u128> = (0..6).map(|_| backoff.next_wait().as_millis()).collect();
/// assert_eq!(waits, [100, 200, 400, 800, 1000, 1000]);
/// backoff.reset();
/// assert_eq!(backoff.next_wait().as_millis(), 100);
/// ```
#[doc(alias = "ReconnectingClientFactory")]
#[doc(alias = "ExponentialBackoff")]
#[doc(alias = "initialDelay")]
#[doc(alias = "backoffPolicy")]
#[derive(Debug, Clone)]
pub struct Backoff {
    initial: Duration,
    factor: f64,
    max: Duration,
    jitter: f64,
    waits: u32,
    random: u64,
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new()
    }
}

impl Backoff {
    /// The default: waits from 1 second, doubled up to 60 seconds, each shortened at random to at least half of its
    /// length.
    pub fn new() -> Self {
        let (initial, max) = (Duration::from_secs(1), Duration::from_secs(60));
        // The keys of the standard library's hash maps are random, and good enough for this purpose.
        let random = std::collections::hash_map::RandomState::new().build_hasher().finish();
        Self { initial, factor: 2.0, max, jitter: 0.5, waits: 0, random }
    }

    /// The first wait; default 1 second.
    pub fn initial(self, initial: Duration) -> Self {
        Self { initial, ..self }
    }

    /// The factor between one wait and the next; default 2. A value below 1, or NaN, becomes 1, so that all waits have
    /// the same length.
    pub fn factor(self, factor: f64) -> Self {
        Self { factor: factor.max(1.0), ..self }
    }

    /// The longest wait; default 1 minute.
    #[doc(alias = "maxDelay")]
    pub fn max(self, max: Duration) -> Self {
        Self { max, ..self }
    }

    /// The largest part of a wait that chance may remove, from 0 (nothing) to 1 (all of it); default 0.5. A value
    /// outside of that range is clamped to it; NaN becomes 0.
    pub fn jitter(self, jitter: f64) -> Self {
        let jitter = if jitter.is_nan() { 0.0 } else { jitter.clamp(0.0, 1.0) };
        Self { jitter, ..self }
    }

    /// Sets the seed of the random numbers: the same seed gives the same waits. For tests.
    pub fn seed(self, seed: u64) -> Self {
        Self { random: seed, ..self }
    }

    /// The length of the wait that is due now. The next call returns a longer one.
    pub fn next_wait(&mut self) -> Duration {
        let exponent = i32::try_from(self.waits).unwrap_or(i32::MAX);
        self.waits = self.waits.saturating_add(1);
        let max = self.max.as_secs_f64();
        // If the value is too large for a float, it is infinite here, and `min` selects the longest wait.
        let full = (self.initial.as_secs_f64() * self.factor.powi(exponent)).min(max);
        let wait = full * (1.0 - self.jitter * self.chance());
        Duration::try_from_secs_f64(wait).unwrap_or(self.max).min(self.max)
    }

    /// The number of waits since the start or the last [`reset`](Self::reset).
    pub fn waits(&self) -> u32 {
        self.waits
    }

    /// Call this after a success: the next wait is the first one again.
    #[doc(alias = "resetDelay")]
    pub fn reset(&mut self) {
        self.waits = 0;
    }

    /// A random number from 0 to 1, by SplitMix64.
    fn chance(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) as f64 / u64::MAX as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// rule: retry-1
    #[test]
    fn waits_grow_to_the_longest_and_chance_only_shortens_them() {
        for seed in 0..100 {
            let mut backoff = Backoff::new().seed(seed);
            for expected in [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0] {
                let wait = backoff.next_wait().as_secs_f64();
                assert!(wait >= expected / 2.0 - 1e-9 && wait <= expected, "{seed}: {wait} of {expected}");
            }
            backoff.reset();
            assert!(backoff.next_wait() <= Duration::from_secs(1) && backoff.waits() == 1);
        }
    }

    /// The first numbers of SplitMix64 after the seed 1234567, as its authors publish them.
    #[test]
    fn chance_is_splitmix64() {
        let mut backoff = Backoff::new().seed(1_234_567);
        for expected in [6_457_827_717_110_365_317_u64, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423] {
            let chance = backoff.chance();
            assert!((chance - expected as f64 / u64::MAX as f64).abs() < 1e-15, "{chance}");
        }
    }

    /// rule: retry-1
    #[test]
    fn a_seed_repeats_its_waits_and_two_without_one_differ() {
        let waits = |mut backoff: Backoff| (0..8).map(|_| backoff.next_wait()).collect::<Vec<_>>();
        assert_eq!(waits(Backoff::new().seed(7)), waits(Backoff::new().seed(7)));
        assert_ne!(waits(Backoff::new().seed(7)), waits(Backoff::new().seed(8)));
        assert_ne!(waits(Backoff::new()), waits(Backoff::new()));
        assert_eq!(waits(Backoff::new().jitter(0.0))[..3], [1, 2, 4].map(Duration::from_secs));
        let all = waits(Backoff::new().seed(7).jitter(1.0));
        assert!(all.iter().any(|wait| *wait < Duration::from_secs(30)));
    }

    /// The first numbers of SplitMix64 with this seed, as its author's program prints them.
    #[test]
    fn the_random_numbers_are_those_of_splitmix64() {
        let mut backoff = Backoff::new().seed(1_234_567);
        for number in [6_457_827_717_110_365_317_u64, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423] {
            assert_eq!(backoff.chance(), number as f64 / u64::MAX as f64);
        }
    }

    /// rule: retry-1
    #[test]
    fn no_number_of_waits_and_no_choice_is_too_much() {
        let odd = Backoff::new().initial(Duration::MAX).max(Duration::MAX).factor(f64::NAN).jitter(f64::INFINITY);
        for mut backoff in [Backoff::new().factor(f64::INFINITY), Backoff::new().factor(-3.0), odd] {
            backoff.waits = u32::MAX - 2;
            for _ in 0..5 {
                assert!(backoff.next_wait() <= backoff.max);
            }
        }
        let mut zero = Backoff::new().initial(Duration::ZERO).factor(f64::INFINITY);
        (0..3).for_each(|_| assert!(zero.next_wait() <= zero.max));
    }
}
