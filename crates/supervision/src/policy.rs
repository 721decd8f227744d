//! What a supervisor is told about itself and its children: OTP's words with OTP's meanings.
//!
//! Plain data, so that the core can be driven without a runtime and a tree can be drawn, linted
//! and compared without being started.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Which children are restarted when one of them has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Strategy {
    /// Only that one.
    OneForOne,
    /// All: the others are stopped in reverse order, then all are started in order.
    OneForAll,
    /// That one and those that were started after it.
    RestForOne,
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OneForOne => "one_for_one",
            Self::OneForAll => "one_for_all",
            Self::RestForOne => "rest_for_one",
        })
    }
}

/// Whether a child that ended by itself is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Restart {
    /// Always.
    Permanent,
    /// Only after an [abnormal](crate::Exit::is_abnormal) end.
    Transient,
    /// Never, not even as a bystander of a group restart.
    Temporary,
}

impl fmt::Display for Restart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Permanent => "permanent",
            Self::Transient => "transient",
            Self::Temporary => "temporary",
        })
    }
}

/// How a child is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stop {
    /// At its next await, without being asked: OTP's `brutal_kill`.
    Kill,
    /// It is asked, and killed if it is still there after this time.
    Within(Duration),
    /// It is asked, and waited for without limit: OTP's `infinity`. For supervisors, whose own
    /// children have their limits.
    Wait,
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill => f.write_str("kill"),
            Self::Within(time) => write!(f, "within {} ms", time.as_millis()),
            Self::Wait => f.write_str("wait"),
        }
    }
}

/// What a child is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChildKind {
    /// It does the work.
    Worker,
    /// It has children.
    Supervisor,
}

/// Whether a supervisor ends with its [significant](ChildPolicy::significant) children.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum AutoShutdown {
    /// No.
    #[default]
    Never,
    /// With the first of them that ends by itself and isn't restarted.
    AnySignificant,
    /// With the last of them.
    AllSignificant,
}

/// Time between restarts. OTP has none, and by default neither have we.
///
/// The first restart within a supervisor's period is immediate, the second waits for `first`, and
/// each further one twice as long as the one before, up to `max`, shortened by up to a quarter so
/// that siblings don't come back in step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Wait before the second restart within the period.
    pub first: Duration,
    /// Longest wait.
    pub max: Duration,
}

/// From this restart on, all waits are the same: the factor has grown as far as it does.
const GROWING: usize = 34;

impl Backoff {
    /// The wait before the `n`-th restart within the period, counted from 1.
    pub(crate) fn before(&self, n: usize) -> Duration {
        if n < 2 {
            return Duration::ZERO;
        }
        let doublings = u32::try_from(n - 2).unwrap_or(u32::MAX);
        let factor = 2_u32.checked_pow(doublings).unwrap_or(u32::MAX);
        self.first.saturating_mul(factor).min(self.max)
    }

    /// The sum of the waits before the first `n` restarts.
    fn before_all(&self, n: usize) -> Duration {
        let growing = n.min(GROWING);
        let sum =
            (1..=growing).map(|n| self.before(n)).fold(Duration::ZERO, Duration::saturating_add);
        let rest = u32::try_from(n - growing).unwrap_or(u32::MAX);
        sum.saturating_add(self.before(GROWING).saturating_mul(rest))
    }
}

/// All that a supervisor has to know of a child to supervise it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildPolicy {
    /// Its name, unique among its siblings.
    pub id: Arc<str>,
    /// Worker or supervisor.
    pub kind: ChildKind,
    /// Whether it is restarted.
    pub restart: Restart,
    /// How it is stopped.
    pub stop: Stop,
    /// Whether its supervisor may end with it: see [`AutoShutdown`].
    pub significant: bool,
    /// How long its init may take before it is killed and counted as a failed start. `None` for
    /// supervisors, whose start is bounded by their children's. OTP waits for ever.
    pub start_timeout: Option<Duration>,
    /// Time between its restarts.
    pub backoff: Option<Backoff>,
    /// For supervisors: an abnormal end or a meltdown is not restarted and charged, but leaves the
    /// child degraded for this time, and its siblings and its parent's budget untouched.
    pub firewall: Option<Duration>,
}

/// A supervisor's shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Structure {
    /// Children in a fixed order, restarted by this strategy.
    Static(Strategy),
    /// Children that come and go, independent of each other: OTP's `simple_one_for_one`, Elixir's
    /// `DynamicSupervisor`.
    Dynamic {
        /// Children at the same time, restarting ones included.
        max_children: usize,
    },
}

impl fmt::Display for Structure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Static(strategy) => strategy.fmt(f),
            Self::Dynamic { .. } => f.write_str("dynamic"),
        }
    }
}

/// All that a supervisor has to know of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SupervisorPolicy {
    /// Its shape.
    pub structure: Structure,
    /// Restarts that it tolerates within the period. One more is a meltdown.
    pub intensity: usize,
    /// Length of the sliding window.
    pub period: Duration,
    /// Whether it ends with its significant children.
    pub auto_shutdown: AutoShutdown,
    /// How long a killed child may take to end before it is given up as unkillable.
    pub kill_grace: Duration,
}

impl SupervisorPolicy {
    pub(crate) fn is_dynamic(&self) -> bool {
        matches!(self.structure, Structure::Dynamic { .. })
    }

    /// Refuses what can't be supervised as written, before anything is started.
    pub fn check<'a>(
        &self,
        children: impl IntoIterator<Item = &'a ChildPolicy>,
    ) -> Result<(), SpecError> {
        if self.is_dynamic() && self.auto_shutdown != AutoShutdown::Never {
            return Err(SpecError::DynamicAutoShutdown);
        }
        let mut ids = rustc_hash::FxHashSet::default();
        for child in children {
            if !ids.insert(&child.id) {
                return Err(SpecError::DuplicateId(child.id.to_string()));
            }
            self.check_child(child)?;
        }
        if let Structure::Dynamic { max_children } = self.structure
            && ids.len() > max_children
        {
            return Err(SpecError::MaxChildren(max_children));
        }
        Ok(())
    }

    /// Refuses a child that can't be supervised as written.
    pub fn check_child(&self, child: &ChildPolicy) -> Result<(), SpecError> {
        let id = || child.id.to_string();
        if !is_name(&child.id) {
            return Err(SpecError::Id(id()));
        }
        if child.significant && child.restart == Restart::Permanent {
            return Err(SpecError::SignificantPermanent(id()));
        }
        if child.significant && self.auto_shutdown == AutoShutdown::Never {
            return Err(SpecError::SignificantNever(id()));
        }
        if child.firewall.is_some() && child.kind == ChildKind::Worker {
            return Err(SpecError::FirewalledWorker(id()));
        }
        if child.firewall.is_some() && child.restart == Restart::Temporary {
            return Err(SpecError::FirewalledTemporary(id()));
        }
        if let Some(backoff) = child.backoff {
            let waits = backoff.before_all(self.intensity);
            if waits > self.period {
                return Err(SpecError::BackoffNeverMelts { id: id(), waits, period: self.period });
            }
        }
        Ok(())
    }
}

/// Whether this can stand in a path.
pub(crate) fn is_name(id: &str) -> bool {
    !id.is_empty() && !id.contains('/')
}

/// Why a tree can't be built as written. Nothing was started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// Two siblings have one name.
    #[error("two children are called `{0}`")]
    DuplicateId(String),
    /// A name that can't stand in a path.
    #[error("`{0}` can't name a child: a name isn't empty and has no `/`")]
    Id(String),
    /// A permanent child never ends for good.
    #[error("`{0}` is permanent, so it can't be significant")]
    SignificantPermanent(String),
    /// A significant child under a supervisor that doesn't care.
    #[error("`{0}` is significant, but its supervisor never shuts down by itself")]
    SignificantNever(String),
    /// A dynamic supervisor with an auto shutdown.
    #[error("a dynamic supervisor can't shut down by itself")]
    DynamicAutoShutdown,
    /// A firewall around a worker.
    #[error("`{0}` is a worker: only a supervisor can stand behind a firewall")]
    FirewalledWorker(String),
    /// A firewall around a child that never comes back.
    #[error("`{0}` is temporary: it wouldn't come back from behind its firewall")]
    FirewalledTemporary(String),
    /// A dynamic supervisor that starts with more children than it may have.
    #[error("a dynamic supervisor starts with more children than its {0}")]
    MaxChildren(usize),
    /// The waits are so long that the restarts never add up to a meltdown.
    #[error(
        "the back-off of `{id}` waits {waits:?} in all, longer than the period of {period:?}: the supervisor would never melt down"
    )]
    BackoffNeverMelts {
        /// The child.
        id: String,
        /// Sum of the waits before as many restarts as the intensity allows.
        waits: Duration,
        /// The window they would have to fit into.
        period: Duration,
    },
    /// A partition supervisor without partitions.
    #[error("a partition supervisor needs at least one partition")]
    NoPartitions,
}
