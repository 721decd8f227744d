//! The last so many timings of one kind, and their percentiles.

use std::collections::VecDeque;
use std::time::Duration;

/// A bounded window of timings.
#[derive(Clone, Debug)]
pub struct Window {
    last: VecDeque<Duration>,
    max: usize,
    n_seen: u64,
}

/// What a window shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Percentiles {
    /// Timings since the beginning, those that have left the window too.
    pub n_seen: u64,
    /// Half of those in the window took at most this.
    pub p50: Duration,
    /// 90 % of them.
    pub p90: Duration,
    /// 95 % of them.
    pub p95: Duration,
    /// 99 % of them.
    pub p99: Duration,
    /// All of them.
    pub max: Duration,
}

impl Window {
    /// One that remembers the last `max` timings, at least 1.
    pub fn new(max: usize) -> Self {
        Self { last: VecDeque::new(), max: max.max(1), n_seen: 0 }
    }

    /// Adds a timing, and forgets the oldest if there are too many.
    pub fn push(&mut self, time: Duration) {
        if self.last.len() == self.max {
            self.last.pop_front();
        }
        self.last.push_back(time);
        self.n_seen += 1;
    }

    /// The percentiles of what is in the window, by nearest rank: each is a timing that occurred.
    pub fn percentiles(&self) -> Percentiles {
        let mut sorted: Vec<_> = self.last.iter().copied().collect();
        sorted.sort_unstable();
        let at = |percent: usize| {
            let rank = (sorted.len() * percent).div_ceil(100);
            sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
        };
        Percentiles {
            n_seen: self.n_seen,
            p50: at(50),
            p90: at(90),
            p95: at(95),
            p99: at(99),
            max: at(100),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn a_hundred_timings_are_their_own_percentiles() {
        let mut window = Window::new(100);
        (1..=200).rev().for_each(|n| window.push(ms(n)));
        let expected = Percentiles {
            n_seen: 200,
            p50: ms(50),
            p90: ms(90),
            p95: ms(95),
            p99: ms(99),
            max: ms(100),
        };
        assert_eq!(window.percentiles(), expected, "the last hundred count");
    }

    #[test]
    fn nothing_took_no_time() {
        assert_eq!(Window::new(5).percentiles(), Percentiles::default());
    }

    proptest! {
        #[test]
        fn at_least_the_share_is_at_most_the_percentile(times in proptest::collection::vec(0..50_u64, 1..100)) {
            let mut window = Window::new(1000);
            for n in &times {
                window.push(ms(*n));
            }
            let shown = window.percentiles();
            for (percent, bound) in [(50, shown.p50), (90, shown.p90), (95, shown.p95), (99, shown.p99), (100, shown.max)] {
                let below = times.iter().filter(|n| ms(**n) <= bound).count();
                prop_assert!(below * 100 >= times.len() * percent);
                let strictly = times.iter().filter(|n| ms(**n) < bound).count();
                prop_assert!(strictly * 100 < times.len() * percent);
            }
        }
    }
}
