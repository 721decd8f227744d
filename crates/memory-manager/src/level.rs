//! How near the budget is: four levels, entered at a threshold and left some points below it.

use std::fmt;

/// How near the budget is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Nothing has to be done.
    #[default]
    Normal,
    /// Level 1.
    Low,
    /// Level 2.
    Medium,
    /// Level 3.
    High,
    /// Level 4.
    Critical,
}

impl Level {
    /// All of them, the lowest first.
    pub const ALL: [Self; 5] = [Self::Normal, Self::Low, Self::Medium, Self::High, Self::Critical];

    /// 0 for normal, else 1 to 4.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// Its stable name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where the levels begin and end.
///
/// ```
/// use astscope_memory_manager::{Level, Thresholds};
///
/// let thresholds = Thresholds::default();
/// assert_eq!(thresholds.next(Level::Normal, 92, 100), Level::Medium);
/// assert_eq!(thresholds.next(Level::Medium, 86, 100), Level::Medium, "left below 85 %");
/// assert_eq!(thresholds.next(Level::Medium, 84, 100), Level::Low);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// At how many percent of the budget levels 1 to 4 are entered. Each 50 to 100, ascending:
    /// what is reached at half the budget is no pressure. 80, 90, 95, 98 by default.
    pub enter: [u8; 4],
    /// How many points below its threshold a level is left. 1 to 49, so that a level can be left
    /// at all; 5 by default. Less than a usual swing would make it come and go.
    pub margin: u8,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self { enter: [80, 90, 95, 98], margin: 5 }
    }
}

/// Thresholds that make no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ThresholdError {
    /// One isn't within 50 to 100 %.
    #[error("a pressure threshold of {0} % is not within 50 to 100 %")]
    OutOfRange(u8),
    /// One isn't above the one before it.
    #[error("the pressure thresholds are not ascending: {1} % after {0} %")]
    NotAscending(u8, u8),
    /// The margin is none, or as large as the lowest threshold may be.
    #[error("a margin of {0} points is not within 1 to 49")]
    Margin(u8),
}

impl Thresholds {
    /// Refuses what makes no sense.
    pub fn check(&self) -> Result<(), ThresholdError> {
        if let Some(bad) = self.enter.iter().find(|percent| !(50..=100).contains(*percent)) {
            return Err(ThresholdError::OutOfRange(*bad));
        }
        if let Some(pair) = self.enter.windows(2).find(|pair| pair[0] >= pair[1]) {
            return Err(ThresholdError::NotAscending(pair[0], pair[1]));
        }
        if !(1..50).contains(&self.margin) {
            return Err(ThresholdError::Margin(self.margin));
        }
        Ok(())
    }

    /// The level after `now`, with so many bytes used.
    pub fn next(&self, now: Level, used: u64, budget: u64) -> Level {
        let highest = |margin: u8| {
            let reached = self.enter.iter().zip(&Level::ALL[1..]).rev().find(|(enter, _)| {
                let percent = u128::from(enter.saturating_sub(margin));
                u128::from(used) * 100 >= percent * u128::from(budget)
            });
            reached.map_or(Level::Normal, |(_, level)| *level)
        };
        // What is entered now, or what is held from before: not a level that was never entered.
        highest(0).max(highest(self.margin).min(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_levels_of_a_rising_use_are_those_of_the_table() {
        let thresholds = Thresholds::default();
        let levels =
            [75, 80, 85, 92, 96, 99].map(|used| thresholds.next(Level::Normal, used, 100).number());
        assert_eq!(levels, [0, 1, 1, 2, 3, 4]);
    }

    #[test]
    fn a_level_is_left_five_points_below() {
        let thresholds = Thresholds::default();
        let mut level = Level::Critical;
        let levels = [97, 93, 92, 90, 89, 85, 84, 75, 74].map(|used| {
            level = thresholds.next(level, used, 100);
            level.number()
        });
        assert_eq!(levels, [4, 4, 3, 3, 2, 2, 1, 1, 0]);
    }

    #[test]
    fn thresholds_that_make_no_sense_are_refused() {
        let check = |enter, margin| Thresholds { enter, margin }.check();
        assert_eq!(check([80, 90, 95, 98], 5), Ok(()));
        assert_eq!(check([80, 90, 90, 98], 5), Err(ThresholdError::NotAscending(90, 90)));
        assert_eq!(check([80, 95, 90, 98], 5), Err(ThresholdError::NotAscending(95, 90)));
        assert_eq!(check([49, 90, 95, 98], 5), Err(ThresholdError::OutOfRange(49)));
        assert_eq!(check([80, 90, 95, 101], 5), Err(ThresholdError::OutOfRange(101)));
        assert_eq!(check([80, 90, 95, 98], 0), Err(ThresholdError::Margin(0)));
        assert_eq!(check([80, 90, 95, 98], 50), Err(ThresholdError::Margin(50)));
    }

    fn thresholds() -> impl Strategy<Value = Thresholds> {
        let enter = proptest::collection::btree_set(50_u8..=100, 4);
        (enter, 1_u8..50).prop_map(|(set, margin)| {
            let mut enter = [0; 4];
            enter.iter_mut().zip(set).for_each(|(to, from)| *to = from);
            Thresholds { enter, margin }
        })
    }

    fn level() -> impl Strategy<Value = Level> {
        (0..5_usize).prop_map(|at| Level::ALL[at])
    }

    proptest! {
        #[test]
        fn generated_thresholds_pass_the_check(thresholds in thresholds()) {
            prop_assert_eq!(thresholds.check(), Ok(()));
        }

        /// The same reading twice changes nothing: there is no flapping without a change of use.
        #[test]
        fn a_reading_settles_at_once(t in thresholds(), now in level(), used in 0..200_u64) {
            let next = t.next(now, used, 100);
            prop_assert_eq!(t.next(next, used, 100), next);
        }

        /// Never below what is reached, never above both what is reached and what was.
        #[test]
        fn a_level_is_reached_or_held(t in thresholds(), now in level(), used in 0..200_u64) {
            let reached = t.next(Level::Normal, used, 100);
            let next = t.next(now, used, 100);
            prop_assert!(next >= reached && next <= reached.max(now));
        }

        #[test]
        fn more_use_is_never_a_lower_level(t in thresholds(), now in level(), a in 0..200_u64, b in 0..200_u64) {
            let (less, more) = (a.min(b), a.max(b));
            prop_assert!(t.next(now, less, 100) <= t.next(now, more, 100));
        }

        /// A swing below a threshold that stays within the margin changes the level at most once.
        #[test]
        fn a_swing_within_the_margin_changes_nothing(
            t in thresholds(),
            at in 0..4_usize,
            swing in proptest::collection::vec(0..50_u8, 1..20),
        ) {
            let enter = t.enter[at];
            let mut level = t.next(Level::Normal, u64::from(enter), 100);
            let before = level;
            for points in swing {
                level = t.next(level, u64::from(enter - points.min(t.margin)), 100);
                prop_assert_eq!(level, before);
            }
        }

        #[test]
        fn a_budget_of_any_size_scales(now in level(), percent in 0..120_u64, budget in 1..u64::MAX / 200) {
            let t = Thresholds::default();
            let used = budget / 100 * percent;
            let scaled = t.next(now, used, budget / 100 * 100);
            prop_assume!(budget >= 100);
            prop_assert_eq!(scaled, t.next(now, percent, 100));
        }
    }
}
