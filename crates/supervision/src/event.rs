//! Everything that happens in a tree, as one closed list.
//!
//! Logs, counters, alerts and tests all read the same events: what a test can't see, an operator
//! can't see either. An [`Observer`] is called where the event happens and must not block; what
//! takes time belongs behind a bounded channel of its own.

use crate::Exit;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Where in the tree something is: the ids from the root down, joined with `/`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TreePath(Arc<str>);

impl TreePath {
    /// The path of a root with this id.
    pub fn root(id: &str) -> Self {
        Self(id.into())
    }

    /// The path of a child with this id.
    #[must_use]
    pub fn child(&self, id: &str) -> Self {
        Self(format!("{}/{id}", self.0).into())
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Counts the events of one tree from 1. Threads may deliver neighbours out of order; a gap
    /// that stays is an event that was lost.
    pub number: u64,
    /// When, on tokio's clock.
    pub at: Instant,
    /// Where: the child, pool or breaker that it happened to.
    pub path: TreePath,
    /// What.
    pub kind: EventKind,
}

/// What can happen.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventKind {
    /// An incarnation acknowledged its start: OTP's `progress`.
    Started {
        /// Counts this child's incarnations from 1.
        incarnation: u64,
    },
    /// A child's init chose not to run.
    Ignored,
    /// A start failed: OTP's `start_error`.
    StartFailed {
        /// Why.
        exit: Exit,
    },
    /// An incarnation ended by itself. OTP's `child_terminated`, which reports it only where
    /// [`is_report`](EventKind::is_report) is true.
    Exited {
        /// Which one.
        incarnation: u64,
        /// Why.
        exit: Exit,
        /// Whether its supervisor means to start it again.
        restarts: bool,
    },
    /// An incarnation was told to stop.
    Stopping {
        /// Which one.
        incarnation: u64,
    },
    /// An incarnation that was told to stop ended.
    Stopped {
        /// Which one.
        incarnation: u64,
        /// Why.
        exit: Exit,
    },
    /// An incarnation ended otherwise than it was told to: OTP's `shutdown_error`. Follows its
    /// [`Stopped`](Self::Stopped).
    StopFailed {
        /// Why it ended.
        exit: Exit,
    },
    /// An incarnation was killed and didn't end: a thread or a task that never yields. It is no
    /// longer waited for.
    Unkillable {
        /// Which one.
        incarnation: u64,
    },
    /// A restart waits for its back-off.
    RetryScheduled {
        /// How long.
        after: Duration,
    },
    /// A subsystem behind a firewall ended. Its siblings and its supervisor's budget are
    /// untouched; it is started again after the cooldown.
    Degraded {
        /// Why it ended, or couldn't start.
        exit: Exit,
        /// How long until it is tried again.
        cooldown: Duration,
    },
    /// A supervisor had more restarts than its intensity allows, and stops. OTP's `shutdown` with
    /// `reached_max_restart_intensity`.
    Meltdown {
        /// The child whose restart was one too many.
        child: Arc<str>,
    },
    /// A supervisor and all its children are up.
    SupervisorUp,
    /// A supervisor and all its children are gone.
    SupervisorDown {
        /// Why.
        exit: Exit,
    },

    /// A pool lent a worker.
    CheckedOut {
        /// How long the caller waited for it.
        waited: Duration,
    },
    /// A pool started a worker beyond its size.
    Overflow {
        /// How many there are beyond the size now.
        overflow: usize,
    },
    /// A pool refused a caller because its queue is full.
    Full,
    /// A caller's deadline passed in a pool's queue.
    CheckoutTimeout,
    /// A pool's worker died and another took its place.
    WorkerReplaced {
        /// Why it died.
        exit: Exit,
    },
    /// A thread of a pool didn't come back by its job's deadline and its grace, and is given up.
    ThreadLost,
    /// The job of a thread that was given up came to its end after all, and the thread works again,
    /// if its pool still does.
    ThreadBack,

    /// A breaker opened: calls are refused.
    Opened {
        /// Failures within the window.
        failures: usize,
    },
    /// A breaker lets probes through.
    HalfOpen,
    /// A breaker closed: calls pass.
    Closed,
    /// A breaker refused a call.
    Rejected,
}

impl EventKind {
    /// Whether OTP would report this as an error. An `Exited` is none if the child isn't
    /// restarted and ended in order.
    pub fn is_report(&self) -> bool {
        match self {
            Self::StartFailed { .. }
            | Self::StopFailed { .. }
            | Self::Unkillable { .. }
            | Self::Degraded { .. }
            | Self::Meltdown { .. }
            | Self::Full
            | Self::ThreadLost
            | Self::WorkerReplaced { .. }
            | Self::Opened { .. } => true,
            Self::Exited { exit, restarts, .. } => *restarts || exit.is_abnormal(),
            Self::Started { .. }
            | Self::Ignored
            | Self::Stopping { .. }
            | Self::Stopped { .. }
            | Self::RetryScheduled { .. }
            | Self::SupervisorUp
            | Self::SupervisorDown { .. }
            | Self::CheckedOut { .. }
            | Self::Overflow { .. }
            | Self::CheckoutTimeout
            | Self::ThreadBack
            | Self::HalfOpen
            | Self::Closed
            | Self::Rejected => false,
        }
    }
}

/// Words and the fields that matter, as a log has them.
impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started { .. } => f.write_str("started"),
            Self::Ignored => f.write_str("ignored"),
            Self::StartFailed { exit } => write!(f, "start failed ({exit})"),
            Self::Exited { exit, restarts: true, .. } => write!(f, "exited ({exit}), restarts"),
            Self::Exited { exit, restarts: false, .. } => write!(f, "exited ({exit})"),
            Self::Stopping { .. } => f.write_str("stopping"),
            Self::Stopped { exit, .. } => write!(f, "stopped ({exit})"),
            Self::StopFailed { exit } => write!(f, "stop failed ({exit})"),
            Self::Unkillable { .. } => f.write_str("unkillable"),
            Self::RetryScheduled { after } => write!(f, "retry in {after:?}"),
            Self::Degraded { exit, cooldown } => {
                write!(f, "degraded ({exit}), retry in {cooldown:?}")
            }
            Self::Meltdown { child } => write!(f, "meltdown at {child}"),
            Self::SupervisorUp => f.write_str("up"),
            Self::SupervisorDown { exit } => write!(f, "down ({exit})"),
            Self::CheckedOut { waited } => write!(f, "checked out after {waited:?}"),
            Self::Overflow { overflow } => write!(f, "overflow {overflow}"),
            Self::Full => f.write_str("full"),
            Self::CheckoutTimeout => f.write_str("checkout timed out"),
            Self::WorkerReplaced { exit } => write!(f, "worker replaced ({exit})"),
            Self::ThreadLost => f.write_str("thread lost"),
            Self::ThreadBack => f.write_str("thread back"),
            Self::Opened { failures } => write!(f, "opened after {failures} failures"),
            Self::HalfOpen => f.write_str("half-open"),
            Self::Closed => f.write_str("closed"),
            Self::Rejected => f.write_str("rejected"),
        }
    }
}

/// Sees every event of a tree, on the thread where it happens. Must not block. A panic of its own
/// is logged, and has no other effect.
pub trait Observer: Send + Sync {
    /// Called once for each event.
    fn observe(&self, event: &Event);
}

/// Writes events to `tracing`: what OTP would report as a warning, all else at debug level.
#[derive(Clone, Copy, Debug, Default)]
pub struct TracingObserver;

impl Observer for TracingObserver {
    fn observe(&self, event: &Event) {
        let Event { number, path, kind, .. } = event;
        if kind.is_report() {
            tracing::warn!(target: "astscope::supervision", number, %path, "{kind}");
        } else {
            tracing::debug!(target: "astscope::supervision", number, %path, "{kind}");
        }
    }
}

/// Counts what operators look at first. Every tree has its own: see [`Emitter::counters`].
#[derive(Debug, Default)]
pub struct Counters {
    /// Starts that were acknowledged.
    pub starts: AtomicU64,
    /// Starts that failed.
    pub start_failures: AtomicU64,
    /// Incarnations that ended by themselves, abnormally.
    pub crashes: AtomicU64,
    /// Incarnations that ended otherwise than they were told to.
    pub stop_failures: AtomicU64,
    /// Supervisors that had more restarts than they may.
    pub meltdowns: AtomicU64,
    /// Times a subsystem fell behind its firewall.
    pub degradations: AtomicU64,
    /// Incarnations and threads that outlived their kill, without the threads that came back.
    pub unkillable: AtomicU64,
    /// Calls that a full pool or an open breaker refused.
    pub refusals: AtomicU64,
}

impl Observer for Counters {
    fn observe(&self, event: &Event) {
        let counter = match &event.kind {
            EventKind::Started { .. } => &self.starts,
            EventKind::StartFailed { .. } => &self.start_failures,
            EventKind::Exited { exit, .. } if exit.is_abnormal() => &self.crashes,
            EventKind::StopFailed { .. } => &self.stop_failures,
            EventKind::Meltdown { .. } => &self.meltdowns,
            EventKind::Degraded { .. } => &self.degradations,
            EventKind::Unkillable { .. } | EventKind::ThreadLost => &self.unkillable,
            EventKind::ThreadBack => {
                self.unkillable.fetch_sub(1, Ordering::Relaxed);
                return;
            }
            EventKind::Full | EventKind::Rejected => &self.refusals,
            _ => return,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// Keeps every event, for tests.
#[derive(Debug, Default)]
pub struct Recorder {
    events: Mutex<Vec<Event>>,
}

impl Recorder {
    /// One that has seen nothing yet.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// What was seen so far, by number.
    pub fn events(&self) -> Vec<Event> {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner).clone();
        events.sort_by_key(|event| event.number);
        events
    }

    /// Forgets what was seen so far, and returns it.
    pub fn take(&self) -> Vec<Event> {
        let mut events =
            std::mem::take(&mut *self.events.lock().unwrap_or_else(PoisonError::into_inner));
        events.sort_by_key(|event| event.number);
        events
    }

    /// The events so far, a line each: path and what happened. Forgets them.
    pub fn take_log(&self) -> String {
        let lines: Vec<_> =
            self.take().iter().map(|event| format!("{} {}\n", event.path, event.kind)).collect();
        lines.concat()
    }
}

impl Observer for Recorder {
    fn observe(&self, event: &Event) {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).push(event.clone());
    }
}

/// Several observers as one, called in order.
impl Observer for Vec<Arc<dyn Observer>> {
    fn observe(&self, event: &Event) {
        for observer in self {
            observer.observe(event);
        }
    }
}

/// Stamps events with number, time and path, and hands them to the tree's observer.
#[derive(Clone)]
pub struct Emitter {
    tree: Arc<Sink>,
    path: TreePath,
}

/// What the emitters of one tree share.
struct Sink {
    observer: Arc<dyn Observer>,
    last_number: AtomicU64,
    counters: Counters,
}

impl Emitter {
    /// One that counts from 1, for a pool or a breaker outside any tree.
    pub fn new(path: TreePath, observer: Arc<dyn Observer>) -> Self {
        let sink = Sink { observer, last_number: AtomicU64::new(0), counters: Counters::default() };
        Self { tree: Arc::new(sink), path }
    }

    /// The same numbers and observer, at this child's path.
    #[must_use]
    pub fn child(&self, id: &str) -> Self {
        Self { tree: Arc::clone(&self.tree), path: self.path.child(id) }
    }

    /// Whose events these are.
    pub fn path(&self) -> &TreePath {
        &self.path
    }

    /// Tells the observer that this happened now.
    pub fn emit(&self, kind: EventKind) {
        self.deliver(&self.stamp(kind));
    }

    /// An event with its number and time, for who decides under a lock and tells after it: the
    /// observer is never called with a lock held.
    pub(crate) fn stamp(&self, kind: EventKind) -> Event {
        let number = self.tree.last_number.fetch_add(1, Ordering::Relaxed) + 1;
        Event { number, at: Instant::now(), path: self.path.clone(), kind }
    }

    /// Tells the observer of an event that was [stamped](Self::stamp) before.
    ///
    /// It is called in the middle of a supervisor's work, so its panic must not be the
    /// supervisor's: that would take the children with it.
    pub(crate) fn deliver(&self, event: &Event) {
        self.tree.counters.observe(event);
        let observed = catch_unwind(AssertUnwindSafe(|| self.tree.observer.observe(event)));
        if observed.is_err() {
            let Event { number, path, .. } = event;
            tracing::error!(target: "astscope::supervision", number, %path, "an observer panicked");
        }
    }

    /// The counters of the whole tree.
    pub fn counters(&self) -> &Counters {
        &self.tree.counters
    }

    /// Incarnations and threads of this tree that outlived their kill.
    pub(crate) fn unkillable(&self) -> usize {
        let n = self.tree.counters.unkillable.load(Ordering::Relaxed);
        usize::try_from(n).unwrap_or(usize::MAX)
    }
}

impl fmt::Debug for Emitter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Emitter").field("path", &self.path).finish_non_exhaustive()
    }
}
