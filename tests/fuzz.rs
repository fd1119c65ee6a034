//! The fuzz targets of `fuzz`, without libFuzzer: each with its seeds, and with random changes of them.
//!
//! `BOWLINE_FUZZ` is the number of seconds for which each target gets more changes. `BOWLINE_SEED` is the number from
//! which the changes follow.

#![allow(clippy::unwrap_used)]

#[path = "../fuzz/src/lib.rs"]
// The targets are a crate of their own when they run with libFuzzer.
#[allow(unreachable_pub)]
mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind, set_hook, take_hook};
use std::sync::Once;
use std::time::{Duration, Instant};

use targets::{TARGETS, Target};

/// Random numbers that follow from the first one.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % limit.max(1)
    }

    fn change(&mut self, seed: &[u8]) -> Vec<u8> {
        let mut changed = seed.to_vec();
        for _ in 0..=self.below(3) {
            match self.below(4) {
                0 if !changed.is_empty() => {
                    let place = self.below(changed.len());
                    changed[place] ^= 1 << self.below(8);
                }
                1 => changed.insert(self.below(changed.len() + 1), self.below(256) as u8),
                2 if !changed.is_empty() => drop(changed.remove(self.below(changed.len()))),
                _ => changed.truncate(self.below(changed.len() + 1)),
            }
        }
        changed
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|value| value.parse().expect("a number"))
}

fn run(target: &Target, input: &[u8]) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (target.run)(input))) {
        let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
        eprintln!("{} fails with this input: {hex}", target.name);
        resume_unwind(panic);
    }
}

/// Panics of rustls itself are not reported: in a build with debug assertions, it panics at a bad record after
/// close_notify, and the crate catches this.
fn hide_panics_of_rustls() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let report = take_hook();
        set_hook(Box::new(move |panic| {
            if !panic.location().is_some_and(|place| place.file().contains("/rustls-0.")) {
                report(panic);
            }
        }));
    });
}

/// Each seed and one change of it, and more changes until the time is over.
fn fuzz(name: &str) {
    hide_panics_of_rustls();
    let target = TARGETS.iter().find(|target| target.name == name).expect("it is a target");
    let until = Instant::now() + Duration::from_secs(number("BOWLINE_FUZZ").unwrap_or(0));
    let mut dice = Dice(number("BOWLINE_SEED").unwrap_or(1));
    let seeds = (target.seeds)();
    let mut inputs = 0;
    for seed in &seeds {
        run(target, seed);
        run(target, &dice.change(seed));
        inputs += 2;
    }
    for seed in seeds.iter().cycle() {
        if Instant::now() >= until {
            break;
        }
        run(target, &dice.change(seed));
        inputs += 1;
    }
    println!("{name}: {inputs} inputs");
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            fuzz(stringify!($name));
        })*

        #[test]
        fn every_target_has_a_test() {
            assert_eq!(TARGETS.map(|target| target.name), [$(stringify!($name)),*]);
        }
    };
}

targets!(session handover inbox upgrade proxy hello pem endpoint dialogue ticket);
