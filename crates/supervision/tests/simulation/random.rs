//! Random numbers from a printed seed, and the loop over seeds.

use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

/// `SplitMix64`: small, and good enough to choose a next step.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `end`, which isn't 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }

    /// Whether something of this chance in a hundred happens.
    pub(crate) fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }

    pub(crate) fn of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())].clone()
    }

    pub(crate) fn ms(&mut self, below: usize) -> Duration {
        Duration::from_millis(self.below(below) as u64)
    }
}

/// Plays as many seeds as the environment or else `cases` says, or the one that it names.
#[expect(clippy::print_stderr, reason = "the seed must be seen, whatever fails")]
pub(crate) fn runs(test: &str, cases: u64, play: impl Fn(&mut Random)) {
    let number = |name: &str| env::var(name).ok().map(|text| text.parse().unwrap());
    if let Some(seed) = number("SEED") {
        return play(&mut Random::new(seed));
    }
    let cases = number("SIM_CASES").or_else(|| number("PROPTEST_CASES")).unwrap_or(cases);
    for seed in 0..cases {
        let run = catch_unwind(AssertUnwindSafe(|| play(&mut Random::new(seed))));
        if let Err(failure) = run {
            eprintln!("SEED={seed} cargo test -p astscope-supervision --test simulation {test}");
            resume_unwind(failure);
        }
    }
}
