//! What was measured, and how fast it grows.

use crate::{ByClass, Level};
use std::collections::VecDeque;
use std::time::Duration;

/// Samples that are kept. At one in 30 s they show 50 minutes.
pub const SAMPLES_MAX: usize = 100;

/// Memory at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// When, from the measurer's own origin.
    pub at: Duration,
    /// Bytes that only the process itself can free, according to the kernel. `None` where it
    /// doesn't say.
    pub resident: Option<u64>,
    /// Bytes according to the accounts.
    pub accounted: ByClass,
    /// The level from here on.
    pub level: Level,
}

impl Sample {
    /// The bytes that count against the budget: the kernel's figure, else the accounts'.
    pub fn used(&self) -> u64 {
        self.resident.unwrap_or_else(|| self.accounted.total())
    }

    /// Bytes that no account explains: the allocator's own, its free pages, what nobody counts.
    pub fn residue(&self) -> u64 {
        self.used().saturating_sub(self.accounted.total())
    }

    /// How much of a budget is used, in percent.
    #[expect(clippy::cast_precision_loss, reason = "a percentage needs no 53 bits")]
    pub fn percent_of(&self, budget: u64) -> f64 {
        self.used() as f64 * 100.0 / budget.max(1) as f64
    }
}

/// The last [`SAMPLES_MAX`] samples.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History(VecDeque<Sample>);

impl History {
    /// One without samples.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the newest sample, and forgets the oldest if there are too many.
    pub fn push(&mut self, sample: Sample) {
        if self.0.len() == SAMPLES_MAX {
            self.0.pop_front();
        }
        self.0.push_back(sample);
    }

    /// The newest sample.
    pub fn latest(&self) -> Option<&Sample> {
        self.0.back()
    }

    /// All samples, the oldest first.
    pub fn samples(&self) -> impl ExactSizeIterator<Item = &Sample> {
        self.0.iter()
    }

    /// Bytes a second by which the use grew from the oldest to the newest sample; negative if it
    /// shrank. `None` as long as no time has passed between two samples.
    #[expect(clippy::cast_precision_loss, reason = "a rate needs no 53 bits")]
    pub fn growth_per_second(&self) -> Option<f64> {
        let (first, last) = (self.0.front()?, self.0.back()?);
        let seconds = last.at.saturating_sub(first.at).as_secs_f64();
        (seconds > 0.0).then(|| (last.used() as f64 - first.used() as f64) / seconds)
    }

    /// When the budget is used up, from the newest sample on, if the use goes on growing as it
    /// did. `None` if it doesn't grow.
    #[expect(clippy::cast_precision_loss, reason = "a forecast needs no 53 bits")]
    pub fn full_in(&self, budget: u64) -> Option<Duration> {
        let growth = self.growth_per_second().filter(|growth| *growth > 0.0)?;
        let left = budget.saturating_sub(self.latest()?.used()) as f64;
        Duration::try_from_secs_f64(left / growth).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(seconds: u64, resident: u64) -> Sample {
        Sample {
            at: Duration::from_secs(seconds),
            resident: Some(resident),
            accounted: ByClass::default(),
            level: Level::Normal,
        }
    }

    #[test]
    fn the_oldest_of_a_hundred_and_one_is_forgotten() {
        let mut history = History::new();
        (0..=100).for_each(|at| history.push(sample(at, at)));
        assert_eq!(history.samples().len(), SAMPLES_MAX);
        assert_eq!(history.samples().next(), Some(&sample(1, 1)));
        assert_eq!(history.latest(), Some(&sample(100, 100)));
    }

    #[test]
    fn growth_is_measured_from_end_to_end() {
        let mut history = History::new();
        assert_eq!(history.growth_per_second(), None);
        history.push(sample(10, 1000));
        assert_eq!(history.growth_per_second(), None, "no time has passed");
        history.push(sample(20, 5000));
        history.push(sample(30, 3000));
        assert_eq!(history.growth_per_second(), Some(100.0));
        assert_eq!(history.full_in(4000), Some(Duration::from_secs(10)));
        history.push(sample(40, 1000));
        assert_eq!((history.growth_per_second(), history.full_in(4000)), (Some(0.0), None));
    }

    #[test]
    fn where_the_kernel_says_nothing_the_accounts_count() {
        let known = sample(0, 92);
        assert_eq!((known.used(), known.residue(), known.percent_of(200)), (92, 92, 46.0));
        let unknown = Sample { resident: None, ..known };
        assert_eq!((unknown.used(), unknown.residue()), (0, 0));
    }
}
