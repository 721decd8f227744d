//! `scrubber`: checks in the background that what is stored is what the disk holds (`scrub`), file
//! by file, cycle after cycle, at a rate that nobody notices.
//!
//! A step checks files for some milliseconds and is followed by a rest that is a multiple of them.
//! What a step took is told by the clock. Reading a file, parsing it and comparing it follow one
//! another, so that is no less than the processor time of this thread and of the parser's process
//! together; waiting for a disk or on a busy machine counts too, and only makes the scrub slower.
//! Where several threads worked, the clock counts for each.

use super::{Shared, SyncHandle};
use crate::scrub::{Drift, DriftCause, Survey, Target, Verdict};
use astscope_supervision::{Checkpoint, ChildSpec, Ctx, Exit, Init, Mailbox, Service, Stop};
use std::cell::Cell;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// Between its rests and its steps, which it waits for, it does next to nothing.
const STALLED_AFTER: Duration = Duration::from_secs(1);
/// How long it may take to stop. A step that is told to gives up at its next file or within it.
const STOP: Stop = Stop::Within(Duration::from_secs(2));
/// Files of one step at most, however fast they are: then it looks at its settings again.
const FILES_A_STEP: usize = 64;

/// How what is stored is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrubConfig {
    /// Whether it is at all.
    pub is_on: bool,
    /// A step goes on to the next file until it took this long: the shorter, the more often a
    /// machine is woken; the longer, the longer a query may have to share a core.
    pub step: Duration,
    /// A rest is at least this many times as long as the step before it took, on all its threads:
    /// the share of a core that checking may take is one over this.
    pub rest_factor: u32,
    /// The shortest rest: a machine without other work isn't woken more often.
    pub rest_min: Duration,
    /// The shortest rest between two cycles. Small roots are done in seconds, and nothing is won
    /// by checking them over and over.
    pub between: Duration,
}

impl Default for ScrubConfig {
    /// Half a percent of a core at most, and no more than a step a second.
    fn default() -> Self {
        Self {
            is_on: true,
            step: Duration::from_millis(5),
            rest_factor: 200,
            rest_min: Duration::from_secs(1),
            between: Duration::from_mins(10),
        }
    }
}

impl ScrubConfig {
    fn rest_after(&self, step: &Step) -> Duration {
        let rest = step.took.saturating_mul(self.rest_factor).saturating_mul(step.n_threads);
        rest.max(if step.has_ended { self.between } else { self.rest_min })
    }
}

/// How many files had drifted, by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DriftCounts {
    /// [`DriftCause::Content`].
    pub content: u64,
    /// [`DriftCause::Tree`].
    pub tree: u64,
    /// [`DriftCause::Missing`].
    pub missing: u64,
    /// [`DriftCause::Ghost`].
    pub ghost: u64,
}

impl DriftCounts {
    fn count(&mut self, cause: DriftCause) {
        *match cause {
            DriftCause::Content => &mut self.content,
            DriftCause::Tree => &mut self.tree,
            DriftCause::Missing => &mut self.missing,
            DriftCause::Ghost => &mut self.ghost,
        } += 1;
    }
}

/// What was checked, and what came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScrubStatus {
    /// Files that the cycle under way has checked, or had to leave out.
    pub n_checked: u64,
    /// Files of the cycle under way; 0 before the first.
    pub n_files: u64,
    /// Cycles that came to their end.
    pub n_cycles: u64,
    /// The last of them.
    pub last_cycle: Option<ScrubCycle>,
    /// What was found since the workspace was opened.
    pub drift: DriftCounts,
    /// The last of that.
    pub last_drift: Option<Drift>,
}

/// A cycle that came to its end: each file was checked once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScrubCycle {
    /// When it ended, in nanoseconds since 1970.
    pub ended_at_ns: i64,
    /// How long it took, with its rests.
    pub took: Duration,
    /// Files in it.
    pub n_files: u64,
    /// Those of them that could not be compared: changing, unreadable, not parsed in time.
    pub n_left_out: u64,
    /// What it found.
    pub drift: DriftCounts,
}

pub(super) fn service(handle: &SyncHandle) -> ChildSpec {
    ChildSpec::service::<Scrubber>(&handle.scrubber, Arc::clone(&handle.shared))
        .stop(STOP)
        .stall_after(STALLED_AFTER)
}

/// What outlives the service: one that is restarted goes on where the last one was.
#[derive(Debug, Default)]
pub(super) struct Scrub {
    status: watch::Sender<ScrubStatus>,
    cycle: Mutex<Option<Cycle>>,
}

/// The cycle under way.
#[derive(Debug)]
struct Cycle {
    began: Instant,
    left: Vec<Target>,
    so_far: ScrubCycle,
}

impl Scrub {
    pub(super) fn status(&self) -> watch::Receiver<ScrubStatus> {
        self.status.subscribe()
    }

    fn is_under_way(&self) -> bool {
        self.cycle().is_some()
    }

    fn begin(&self, began: Instant, targets: Vec<Target>) {
        let n_files = targets.len() as u64;
        let so_far = ScrubCycle { n_files, ..ScrubCycle::default() };
        *self.cycle() = Some(Cycle { began, left: targets, so_far });
        self.status.send_modify(|status| (status.n_checked, status.n_files) = (0, n_files));
    }

    /// The next file. It is taken first and checked then: one that a check fails over must not be
    /// the next one's end, too.
    fn take(&self) -> Option<Target> {
        self.cycle().as_mut()?.left.pop()
    }

    fn put_back(&self, target: Target) {
        if let Some(cycle) = &mut *self.cycle() {
            cycle.left.push(target);
        }
    }

    fn checked(&self, is_left_out: bool) {
        if let Some(cycle) = &mut *self.cycle() {
            cycle.so_far.n_left_out += u64::from(is_left_out);
        }
        self.status.send_modify(|status| status.n_checked += 1);
    }

    fn drifted(&self, drift: &Drift) {
        if let Some(cycle) = &mut *self.cycle() {
            cycle.so_far.drift.count(drift.cause);
        }
        self.status.send_modify(|status| {
            status.drift.count(drift.cause);
            status.last_drift = Some(drift.clone());
        });
    }

    /// Ends the cycle if no file is left.
    fn end(&self, now_ns: i64) -> Option<ScrubCycle> {
        let Cycle { began, so_far, .. } = self.cycle().take_if(|cycle| cycle.left.is_empty())?;
        let done = ScrubCycle { ended_at_ns: now_ns, took: began.elapsed(), ..so_far };
        self.status.send_modify(|status| {
            status.n_cycles += 1;
            status.last_cycle = Some(done);
        });
        Some(done)
    }

    fn cycle(&self) -> MutexGuard<'_, Option<Cycle>> {
        // Nothing that can panic happens between two changes of it.
        self.cycle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A service only so that it has an address: nobody sends it anything.
struct Scrubber(Arc<Shared>);

impl Service for Scrubber {
    type Args = Arc<Shared>;
    type Message = Infallible;

    async fn init(shared: Arc<Shared>, _: &Ctx) -> Result<Init<Self>, Exit> {
        Ok(Init::Ready(Self(shared)))
    }

    async fn run(self, _: Mailbox<Infallible>, ctx: Ctx) -> Result<(), Exit> {
        let shared = self.0;
        let mut settings = shared.config.scrub.clone();
        let mut config = *settings.borrow_and_update();
        let mut next = Instant::now() + config.rest_min;
        loop {
            ctx.idle();
            tokio::select! {
                biased;
                () = ctx.stopping() => return Ok(()),
                // Never, once there is nobody who could change them.
                Ok(()) = settings.changed() => {
                    config = *settings.borrow_and_update();
                    next = next.min(Instant::now() + config.between);
                    continue;
                }
                () = sleep_until(next), if config.is_on => {}
            }
            ctx.progress();
            if shared.is_indexing() {
                next = Instant::now() + config.rest_min;
                continue;
            }
            let own = Arc::clone(&shared);
            let step = move |checkpoint: &Checkpoint| step(&own, &config, checkpoint);
            let step = ctx.blocking(None, step).await?;
            next = Instant::now() + config.rest_after(&step);
        }
    }
}

/// What a step came to.
struct Step {
    took: Duration,
    n_threads: u32,
    /// Whether it was the last of its cycle.
    has_ended: bool,
}

/// Begins a cycle, or checks the next files of the one that is under way.
fn step(shared: &Shared, config: &ScrubConfig, checkpoint: &Checkpoint) -> Step {
    let Shared { engine, scrub, .. } = shared;
    let began = Instant::now();
    let stop = || checkpoint.check().is_err();
    let is_parallel = Cell::new(false);
    let settle = || {
        is_parallel.set(true);
        engine.settle(&stop)
    };
    let tell = |drifts: &[Drift]| {
        for drift in drifts {
            scrub.drifted(drift);
            (shared.config.drifted)(drift);
        }
    };
    if scrub.is_under_way() {
        for _ in 0..FILES_A_STEP {
            let Some(target) = scrub.take() else { break };
            match engine.check(&target, &settle, &stop) {
                Verdict::Open if stop() => {
                    scrub.put_back(target);
                    break;
                }
                Verdict::Open => scrub.checked(true),
                Verdict::Sound => scrub.checked(false),
                Verdict::Drifted(drifts) => {
                    tell(&drifts);
                    scrub.checked(false);
                }
            }
            if began.elapsed() >= config.step {
                break;
            }
        }
    } else {
        is_parallel.set(true);
        if let Some(Survey { targets, drifts }) = engine.survey(&settle, &stop) {
            scrub.begin(began, targets);
            tell(&drifts);
        }
    }
    let ended = scrub.end(engine.disk.now_ns());
    if let Some(ScrubCycle { n_files, took, drift, .. }) = ended {
        let root = engine.root().display();
        tracing::debug!(%root, n_files, ?took, ?drift, "checked against the disk");
    }
    let n_threads = if is_parallel.get() {
        std::thread::available_parallelism().map_or(1, usize::from)
    } else {
        1
    };
    Step {
        took: began.elapsed(),
        n_threads: u32::try_from(n_threads).unwrap_or(u32::MAX),
        has_ended: ended.is_some(),
    }
}

#[cfg(test)]
mod tests;
