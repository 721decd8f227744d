//! How memory is asked back, and what each level asks for.

use crate::{Class, Level};
use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign};
use std::time::Duration;

/// What came back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Freed {
    /// Bytes.
    pub bytes: u64,
    /// Units that they belonged to: entries, files, whatever the owner counts.
    pub items: u64,
}

impl Add for Freed {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_add(other.bytes),
            items: self.items.saturating_add(other.items),
        }
    }
}

impl AddAssign for Freed {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sum for Freed {
    fn sum<I: Iterator<Item = Self>>(parts: I) -> Self {
        parts.fold(Self::default(), Add::add)
    }
}

/// One of the three caches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CacheKind {
    /// Results of queries.
    Query,
    /// What was derived from files, directories and patterns.
    Analysis,
    /// Code property graphs.
    Cpg,
}

impl CacheKind {
    /// All of them, the cheapest to fill again first.
    pub const ALL: [Self; 3] = [Self::Query, Self::Analysis, Self::Cpg];

    /// Its stable name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Query => "query",
            Self::Analysis => "analysis",
            Self::Cpg => "cpg",
        }
    }
}

/// What is to be dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cleanup {
    /// Whatever wasn't used for this long.
    pub max_age: Duration,
    /// Only count what would go. Nothing changes, not even the time of a last use.
    pub dry_run: bool,
}

impl Cleanup {
    /// Drops what wasn't used for this long.
    pub fn older_than(max_age: Duration) -> Self {
        Self { max_age, dry_run: false }
    }

    /// The same, but only counts.
    #[must_use]
    pub fn dry_run(self) -> Self {
        Self { dry_run: true, ..self }
    }
}

/// What is cold enough to be kept in a smaller form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compression {
    /// It wasn't used for this long,
    pub idle: Duration,
    /// and less often than this since it came.
    pub accesses_below: u32,
}

/// An owner of memory that can give some of it back.
///
/// It gives back only what can be rebuilt from the files, and nothing that was used within the
/// time that it is told: what is asked for changes how long an answer takes, never the answer. It
/// is called on a thread where it may take its time, but should ask `stop` about every millisecond
/// and then return with what it has freed so far.
pub trait Reclaim: Send + Sync {
    /// What people call it, in reports.
    fn name(&self) -> &str;

    /// What its memory is for.
    fn class(&self) -> Class;

    /// Which cache it is part of, if it is of one: when that is emptied it is asked for all that it
    /// has. `None` for an owner that is only asked for what wasn't used for long.
    fn cache(&self) -> Option<CacheKind> {
        None
    }

    /// Drops what wasn't used for long, or counts it.
    fn reclaim(&self, cleanup: Cleanup, stop: &dyn Fn() -> bool) -> Freed;

    /// Makes what is cold smaller, and says by how many bytes. `None` if it can't.
    fn compress(&self, _compression: Compression, _stop: &dyn Fn() -> bool) -> Option<Freed> {
        None
    }
}

/// One thing that is done against pressure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Empty a cache.
    Clear(CacheKind),
    /// Make cold things smaller, where their owners can.
    Compress(Compression),
    /// Drop what wasn't used for long.
    Cleanup(Cleanup),
    /// Have the allocator give its free pages back to the system.
    ReleaseFreePages,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Clear(kind) => write!(f, "clear {} cache", kind.name()),
            Self::Compress(cold) => write!(
                f,
                "compress what had fewer than {} accesses and none for {} s",
                cold.accesses_below,
                cold.idle.as_secs()
            ),
            Self::Cleanup(cleanup) => {
                write!(f, "clean up what is older than {} s", cleanup.max_age.as_secs())
            }
            Self::ReleaseFreePages => f.write_str("release free pages"),
        }
    }
}

/// What is done when a level is entered, in this order.
pub fn actions_of(level: Level) -> &'static [Action] {
    const COLD: Compression = Compression { idle: Duration::from_mins(15), accesses_below: 3 };
    const fn cleanup(max_age: u64) -> Action {
        Action::Cleanup(Cleanup { max_age: Duration::from_secs(max_age), dry_run: false })
    }
    const QUERY: Action = Action::Clear(CacheKind::Query);
    const ANALYSIS: Action = Action::Clear(CacheKind::Analysis);
    const CPG: Action = Action::Clear(CacheKind::Cpg);
    match level {
        Level::Normal => &[],
        Level::Low => &[QUERY],
        Level::Medium => &[QUERY, Action::Compress(COLD)],
        Level::High => &[QUERY, ANALYSIS, const { cleanup(1800) }],
        Level::Critical => {
            &[QUERY, ANALYSIS, CPG, const { cleanup(900) }, Action::ReleaseFreePages]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_level_does_what_the_table_says() {
        let lines = Level::ALL.map(|level| {
            let actions: Vec<_> = actions_of(level).iter().map(ToString::to_string).collect();
            actions.join(", ")
        });
        assert_eq!(
            lines,
            [
                "",
                "clear query cache",
                "clear query cache, compress what had fewer than 3 accesses and none for 900 s",
                "clear query cache, clear analysis cache, clean up what is older than 1800 s",
                "clear query cache, clear analysis cache, clear cpg cache, \
                 clean up what is older than 900 s, release free pages",
            ]
        );
    }

    #[test]
    fn an_owner_that_says_nothing_of_compressing_offers_none() {
        struct Plain;
        impl Reclaim for Plain {
            fn name(&self) -> &'static str {
                "plain"
            }
            fn class(&self) -> Class {
                Class::Other
            }
            fn reclaim(&self, _: Cleanup, _: &dyn Fn() -> bool) -> Freed {
                Freed::default()
            }
        }
        let cold = Compression { idle: Duration::ZERO, accesses_below: 1 };
        assert_eq!(Plain.compress(cold, &|| false), None);
    }
}
