//! Each target with its seeds, and with changes of them, without libFuzzer.

#[test]
fn the_seeds_and_changes_of_them_pass() {
    let mut dice = 1_u64;
    let mut below = |limit: usize| {
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        (dice >> 33) as usize % limit.max(1)
    };
    let mut inputs = 0;
    for target in bowline_fuzz::TARGETS {
        for seed in (target.seeds)() {
            (target.run)(&seed);
            inputs += 6;
            for _ in 0..5 {
                let mut changed = seed.clone();
                for _ in 0..=below(3) {
                    match below(4) {
                        0 if !changed.is_empty() => {
                            let place = below(changed.len());
                            changed[place] ^= 1 << below(8);
                        }
                        1 => changed.insert(below(changed.len() + 1), below(256) as u8),
                        2 if !changed.is_empty() => drop(changed.remove(below(changed.len()))),
                        _ => changed.truncate(below(changed.len() + 1)),
                    }
                }
                (target.run)(&changed);
            }
        }
    }
    println!("{inputs} inputs");
}
