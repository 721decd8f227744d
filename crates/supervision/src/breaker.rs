//! A breaker stops calls to what keeps failing, and finds out by itself when they may go on.
//!
//! A restart cures a service, not what the service depends on: a full disk, a peer that is gone.
//! The decisions are a [`Core`] that is told the time and knows neither tasks nor locks; the
//! handle over it adds a mutex and the events.
//!
//! ```text
//!            n-th failure in the window            open_wait is over
//!  closed ──────────────────────────────▶ open ──────────────────────▶ half-open
//!    ▲                                      ▲                            │    │
//!    │                                      └─────── any probe bad ──────┘    │
//!    └──────────────────────── all probes good ───────────────────────────────┘
//! ```
//! Each arrow begins a new generation, and the outcome of a call counts only in the generation
//! that it began in. So a call that outlived the change says nothing about the state after it.

use crate::event::{Emitter, EventKind};
use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

#[cfg(test)]
mod tests;

/// When a breaker opens, for how long, and how it closes.
///
/// ```
/// use astscope_supervision::BreakerConfig;
/// use std::time::Duration;
///
/// let config = BreakerConfig { probes: 3, ..BreakerConfig::new(Duration::from_secs(60)) };
/// assert_eq!((config.failures, config.open_wait), (5, Duration::from_secs(30)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerConfig {
    /// How many failures within the window open it: the n-th itself does. (Erlang's fuse
    /// tolerates n and blows at the one after.) Not 0.
    pub failures: usize,
    /// For how long a failure counts. The edge is exclusive: one that is exactly this old has
    /// stopped to count, unlike in a supervisor's intensity. Not 0.
    pub window: Duration,
    /// How long it stays open, from the moment it opened: what fails meanwhile doesn't prolong
    /// it. Not 0.
    pub open_wait: Duration,
    /// How many calls half-open lets through at once, and how many of them must succeed to close
    /// it. Not 0.
    pub probes: usize,
}

impl BreakerConfig {
    /// Five failures within this window and 30 s open, as the product's specification has it, and
    /// one probe, the least that half-open can do with.
    pub const fn new(window: Duration) -> Self {
        Self { failures: 5, window, open_wait: Duration::from_secs(30), probes: 1 }
    }

    fn check(&self) -> Result<(), BreakerConfigError> {
        if self.failures == 0 {
            return Err(BreakerConfigError::NoFailures);
        }
        if self.window.is_zero() {
            return Err(BreakerConfigError::NoWindow);
        }
        if self.open_wait.is_zero() {
            return Err(BreakerConfigError::NoOpenWait);
        }
        if self.probes == 0 {
            return Err(BreakerConfigError::NoProbes);
        }
        Ok(())
    }
}

/// Why no breaker can work like that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BreakerConfigError {
    /// `failures` is 0.
    #[error("a breaker that opens after 0 failures is never closed")]
    NoFailures,
    /// `window` is 0.
    #[error("a breaker with a window of 0 s never sees a failure")]
    NoWindow,
    /// `open_wait` is 0.
    #[error("a breaker that is open for 0 s never refuses a call")]
    NoOpenWait,
    /// `probes` is 0.
    #[error("a breaker with 0 probes never closes again")]
    NoProbes,
}

/// Why a call wasn't let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// It is open.
    #[error("the breaker is open for another {retry_after:?}")]
    Open {
        /// How long until it lets probes through. Not 0.
        retry_after: Duration,
    },
    /// It is half-open, and all its probes are on their way.
    #[error("the breaker is half-open, and its probes are on their way")]
    Probing,
    /// It was [disabled](CircuitBreaker::disable), until somebody enables it.
    #[error("the breaker is disabled")]
    Disabled,
}

impl Rejected {
    /// How long until a call may pass, where that is a matter of time alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Open { retry_after } => Some(*retry_after),
            Self::Probing | Self::Disabled => None,
        }
    }
}

/// Why a call through a breaker has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BreakerError<E> {
    /// It wasn't made.
    #[error("calling through a breaker")]
    Rejected(#[from] Rejected),
    /// It was made, and failed.
    #[error("calling through a breaker")]
    Failed(#[source] E),
}

/// Whether calls pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// All do.
    Closed,
    /// None does, for a while.
    Open,
    /// Probes do.
    HalfOpen,
    /// None does, until somebody enables it.
    Disabled,
}

/// How a breaker stood at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerStatus {
    /// Whether calls pass.
    pub state: BreakerState,
    /// Failures within the window. Never more than [`BreakerConfig::failures`]: of more, the
    /// latest are remembered.
    pub failures: usize,
    /// If it is open: how long until it lets probes through.
    pub half_open_in: Option<Duration>,
}

/// A circuit breaker. Cheap to clone: all clones are the same breaker.
///
/// ```
/// use astscope_supervision::{
///     BreakerConfig, BreakerError, CircuitBreaker, Emitter, TracingObserver, TreePath,
/// };
/// use std::{sync::Arc, time::Duration};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), astscope_supervision::BreakerConfigError> {
/// let emitter = Emitter::new(TreePath::root("disk"), Arc::new(TracingObserver));
/// let config = BreakerConfig { failures: 1, ..BreakerConfig::new(Duration::from_secs(60)) };
/// let breaker = CircuitBreaker::new(config, emitter)?;
///
/// let read = breaker.call(async { Err::<(), _>("the disk is gone") }).await;
/// assert_eq!(read, Err(BreakerError::Failed("the disk is gone")));
/// let read = breaker.call(async { Ok::<_, &str>("never asked for") }).await;
/// assert!(matches!(read, Err(BreakerError::Rejected(_))));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct CircuitBreaker {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    emitter: Emitter,
    /// A std mutex: it is held for a few comparisons, never over a call, an observer or an await.
    core: Mutex<Core>,
}

impl CircuitBreaker {
    /// A closed one. Its events are told to this emitter, at this emitter's path.
    pub fn new(config: BreakerConfig, emitter: Emitter) -> Result<Self, BreakerConfigError> {
        config.check()?;
        Ok(Self { shared: Arc::new(Shared { emitter, core: Mutex::new(Core::new(config)) }) })
    }

    /// Makes this call if the breaker lets it through. Every error counts as a failure, and so
    /// does a panic, which goes on unwinding.
    ///
    /// In half-open a call that never ends holds its slot for ever: give calls a deadline, whose
    /// error counts.
    ///
    /// # Cancel safety
    /// Dropping it drops the call, gives back its slot, and counts as neither good nor bad. What
    /// that means for the call itself is up to the call.
    pub async fn call<T, E>(
        &self,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, BreakerError<E>> {
        self.call_counting(call, |_| true).await
    }

    /// Like [`call`](Self::call), but only those errors are failures of which `counts` says so.
    /// Others count as neither good nor bad: a syntax error says nothing about the service.
    ///
    /// # Cancel safety
    /// As for [`call`](Self::call).
    pub async fn call_counting<T, E>(
        &self,
        call: impl Future<Output = Result<T, E>>,
        counts: impl FnOnce(&E) -> bool,
    ) -> Result<T, BreakerError<E>> {
        let mut permit = self.acquire()?;
        let mut call = pin!(call);
        let result = std::future::poll_fn(|cx| {
            // Only while the call itself runs: what else panics may drop it, but is not its fault.
            permit.answers_for_panic = !std::thread::panicking();
            let poll = call.as_mut().poll(cx);
            permit.answers_for_panic = false;
            poll
        })
        .await;
        match &result {
            Ok(_) => permit.succeed(),
            Err(error) if counts(error) => permit.fail(),
            Err(_) => drop(permit),
        }
        result.map_err(BreakerError::Failed)
    }

    /// Asks for a call to be let through, for a caller who makes it otherwise than with
    /// [`call`](Self::call).
    pub fn acquire(&self) -> Result<Permit, Rejected> {
        let generation = self.step(Core::acquire)?;
        Ok(Permit {
            breaker: self.clone(),
            generation: Some(generation),
            answers_for_panic: !std::thread::panicking(),
        })
    }

    /// How it stands now. If the wait is over, it becomes half-open here: there is no timer.
    pub fn state(&self) -> BreakerStatus {
        self.step(Core::status)
    }

    /// Closes it and forgets all failures. A disabled one forgets, and stays disabled.
    pub fn reset(&self) {
        self.step(|core, _| ((), core.reset()));
    }

    /// Refuses all calls until it is [enabled](Self::enable): nothing else lifts this, neither
    /// time nor success nor [`reset`](Self::reset).
    pub fn disable(&self) {
        self.step(|core, now| ((), core.disable(now)));
    }

    /// Lifts [`disable`](Self::disable): closed, without a history. Does nothing to one that isn't
    /// disabled.
    pub fn enable(&self) {
        self.step(|core, _| ((), core.enable()));
    }

    /// One step of the core. Its event is stamped under the lock and delivered after it, so that
    /// observers may use the breaker and yet the numbers follow the order of the steps.
    fn step<R>(&self, step: impl FnOnce(&mut Core, Instant) -> (R, Option<EventKind>)) -> R {
        let (answer, event) = {
            let mut core = self.shared.core.lock().unwrap_or_else(PoisonError::into_inner);
            let (answer, kind) = step(&mut core, Instant::now());
            (answer, kind.map(|kind| self.shared.emitter.stamp(kind)))
        };
        if let Some(event) = event {
            self.shared.emitter.deliver(&event);
        }
        answer
    }
}

/// The right to make one call. Say how the call ended: a permit that is dropped without a word, as
/// that of a cancelled call, counts as neither good nor bad, and that of a panic as bad.
#[derive(Debug)]
#[must_use = "a permit that is dropped at once lets no call through"]
pub struct Permit {
    breaker: CircuitBreaker,
    /// The one that the call began in. `None`: its outcome was told.
    generation: Option<u64>,
    /// False if the thread was unwinding before the call: that panic isn't the call's.
    answers_for_panic: bool,
}

impl Permit {
    /// The call did what it should.
    pub fn succeed(mut self) {
        self.tell(Outcome::Succeeded);
    }

    /// The call did what it should, and what failed before it doesn't count any longer: for who
    /// counts failures in a row instead of those of a time.
    pub fn succeed_and_forget(mut self) {
        self.tell(Outcome::Recovered);
    }

    /// The call failed.
    pub fn fail(mut self) {
        self.tell(Outcome::Failed);
    }

    fn tell(&mut self, outcome: Outcome) {
        if let Some(generation) = self.generation.take() {
            self.breaker.step(|core, now| ((), core.finish(now, generation, outcome)));
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let panicked = self.answers_for_panic && std::thread::panicking();
        self.tell(if panicked { Outcome::Failed } else { Outcome::Abandoned });
    }
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Succeeded,
    /// It succeeded, and ends a row of failures.
    Recovered,
    Failed,
    /// Without a verdict: cancelled, or an error that doesn't count.
    Abandoned,
}

#[derive(Debug)]
enum Phase {
    Closed,
    /// Since, not until: `open_wait` may be longer than an instant can say.
    Open {
        since: Instant,
    },
    /// `in_flight + succeeded <= probes`.
    HalfOpen {
        in_flight: usize,
        succeeded: usize,
    },
    Disabled,
}

/// What a breaker decides. It is told the time, and no step of it makes more than one event.
#[derive(Debug)]
struct Core {
    config: BreakerConfig,
    phase: Phase,
    /// Of the current phase.
    generation: u64,
    /// The latest failures, oldest first, at most `config.failures` of them. They outlive the
    /// opening, so that an operator sees them, and are forgotten when it closes.
    failures: VecDeque<Instant>,
}

impl Core {
    fn new(config: BreakerConfig) -> Self {
        Self { config, phase: Phase::Closed, generation: 0, failures: VecDeque::new() }
    }

    /// The generation that a call begins in.
    fn acquire(&mut self, now: Instant) -> (Result<u64, Rejected>, Option<EventKind>) {
        let half_opened = self.pass_time(now);
        let rejected = match &mut self.phase {
            Phase::Closed => return (Ok(self.generation), None),
            Phase::HalfOpen { in_flight, succeeded }
                if *in_flight + *succeeded < self.config.probes =>
            {
                *in_flight += 1;
                return (Ok(self.generation), half_opened);
            }
            Phase::HalfOpen { .. } => Rejected::Probing,
            Phase::Open { since } => {
                Rejected::Open { retry_after: left(self.config.open_wait, *since, now) }
            }
            Phase::Disabled => Rejected::Disabled,
        };
        (Err(rejected), Some(EventKind::Rejected))
    }

    /// A call ended that began in this generation.
    fn finish(&mut self, now: Instant, generation: u64, outcome: Outcome) -> Option<EventKind> {
        if generation != self.generation {
            return None;
        }
        match &mut self.phase {
            Phase::Closed => match outcome {
                Outcome::Failed => {
                    self.remember_failure(now);
                    if self.failures.len() == self.config.failures {
                        return Some(self.open(now));
                    }
                }
                Outcome::Recovered => self.failures.clear(),
                Outcome::Succeeded | Outcome::Abandoned => {}
            },
            Phase::HalfOpen { in_flight, succeeded } => {
                *in_flight -= 1;
                match outcome {
                    Outcome::Failed => {
                        self.remember_failure(now);
                        return Some(self.open(now));
                    }
                    Outcome::Succeeded | Outcome::Recovered => {
                        *succeeded += 1;
                        if *succeeded == self.config.probes {
                            return Some(self.close());
                        }
                    }
                    Outcome::Abandoned => {}
                }
            }
            // No call begins in these, so none has their generation.
            Phase::Open { .. } | Phase::Disabled => {}
        }
        None
    }

    fn status(&mut self, now: Instant) -> (BreakerStatus, Option<EventKind>) {
        let half_opened = self.pass_time(now);
        self.forget_old_failures(now);
        let (state, half_open_in) = match self.phase {
            Phase::Closed => (BreakerState::Closed, None),
            Phase::Open { since } => {
                (BreakerState::Open, Some(left(self.config.open_wait, since, now)))
            }
            Phase::HalfOpen { .. } => (BreakerState::HalfOpen, None),
            Phase::Disabled => (BreakerState::Disabled, None),
        };
        (BreakerStatus { state, failures: self.failures.len(), half_open_in }, half_opened)
    }

    fn reset(&mut self) -> Option<EventKind> {
        match self.phase {
            Phase::Disabled => self.failures.clear(),
            // Nobody would understand a second "closed", but the calls under way are old now.
            Phase::Closed => drop(self.close()),
            Phase::Open { .. } | Phase::HalfOpen { .. } => return Some(self.close()),
        }
        None
    }

    fn disable(&mut self, now: Instant) -> Option<EventKind> {
        self.forget_old_failures(now);
        let passed = matches!(self.phase, Phase::Closed | Phase::HalfOpen { .. });
        self.enter(Phase::Disabled);
        // For whoever calls there is no difference between disabled and open.
        passed.then_some(EventKind::Opened { failures: self.failures.len() })
    }

    fn enable(&mut self) -> Option<EventKind> {
        matches!(self.phase, Phase::Disabled).then(|| self.close())
    }

    /// Whoever comes first after the wait makes the change: there is no timer that could be late.
    fn pass_time(&mut self, now: Instant) -> Option<EventKind> {
        match self.phase {
            Phase::Open { since } if left(self.config.open_wait, since, now).is_zero() => {
                self.enter(Phase::HalfOpen { in_flight: 0, succeeded: 0 });
                Some(EventKind::HalfOpen)
            }
            _ => None,
        }
    }

    fn open(&mut self, now: Instant) -> EventKind {
        self.enter(Phase::Open { since: now });
        EventKind::Opened { failures: self.failures.len() }
    }

    fn close(&mut self) -> EventKind {
        self.enter(Phase::Closed);
        self.failures.clear();
        EventKind::Closed
    }

    /// The only place where phase and generation change.
    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.generation += 1;
    }

    fn remember_failure(&mut self, now: Instant) {
        self.forget_old_failures(now);
        if self.failures.len() == self.config.failures {
            self.failures.pop_front();
        }
        self.failures.push_back(now);
    }

    fn forget_old_failures(&mut self, now: Instant) {
        let is_old = |at: &Instant| left(self.config.window, *at, now).is_zero();
        while self.failures.front().is_some_and(is_old) {
            self.failures.pop_front();
        }
    }
}

/// How much of a time that began then is left. Zero when exactly as much has passed.
fn left(whole: Duration, since: Instant, now: Instant) -> Duration {
    whole.saturating_sub(now.saturating_duration_since(since))
}
