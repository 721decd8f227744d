//! The subtree: its configuration, what it is given, its handle, and the tree as one expression.
//!
//! The work itself stands above the services, in what all of them share: what waits, what was
//! counted. A crash costs the items in progress, and whoever waits for them is told.

mod batch;
mod lazy;
mod scheduler;
mod statistics;

pub use batch::{ItemError, Progress, StillRunning, Ticket};
pub use lazy::{LazyCounts, LazyError};
pub use scheduler::CycleReport;
pub use statistics::{Counter, Meter, Statistics, Timing};

use crate::{FileFacts, Priority, PriorityQueue};
use astscope_memory_manager::Compression;
use astscope_memory_manager::service::MemoryHandle;
use astscope_repository::{FileRecord, Snapshot};
use astscope_supervision::{
    Address, CallError, Checkpoint, ChildSpec, CpuPool, Stop, Strategy, SupervisorSpec,
};
use batch::{BatchProcessor, TaskQueue};
use lazy::LazyLoader;
use scheduler::{OptimizationScheduler, ScheduledJobs};
use statistics::{Ledger, StatisticsCollector};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Messages that wait for a service whose callers wait for answers.
const MAILBOX: usize = 64;
/// How long each of the services may take to stop: the seed's time.
const STOP: Stop = Stop::Within(Duration::from_secs(5));
/// How long a question may take that is answered from what is known.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// How background work is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptimizerConfig {
    /// Items that are run together. 1 to 10,000; 50 by default: the seed's.
    pub chunk_items: usize,
    /// How long an item waits for its chunk to fill. At most 1 min, 1 s by default: nobody waits
    /// for background work, and the last few items of a batch must not wait for others.
    pub flush_after: Duration,
    /// Time that one item may take. 1 ms to 10 min, 30 s by default: the seed's.
    pub item_within: Duration,
    /// Items that may wait, of all batches together. 1 to 1,000,000; 100,000 by default: some
    /// 100 bytes each, and more files than most trees have.
    pub items_max: usize,
    /// Items that run at the same time. 1 to 64; 1 by default, since it is background work.
    pub parallel: usize,
    /// Time that the facts of one file may take, the wait for those before it included. 1 ms to
    /// 10 min, 5 s by default.
    pub facts_within: Duration,
    /// Time between two looks at the memory. 1 s to 1 day, 10 min by default: the seed's.
    pub cycle: Duration,
    /// Percent of the budget above which a cycle has what is old dropped. 70 by default.
    pub cleanup_above: u8,
    /// What is old then: not used for this long. 1 h by default.
    pub cleanup_age: Duration,
    /// Percent of the budget above which a cycle has what is cold compressed. 60 by default.
    pub compress_above: u8,
    /// What is cold then: fewer than 5 accesses and none for half an hour by default.
    pub compression: Compression,
    /// Jobs that may wait for a quiet moment. 1 to 10,000; 64 by default.
    pub jobs_max: usize,
    /// Time between two looks whether queries have ended. 1 ms to 1 min, 250 ms by default.
    pub busy_retry: Duration,
    /// Timings of each kind that percentiles are taken of. 1 to 100,000; 1024 by default, 16 KiB.
    pub window: usize,
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        Self {
            chunk_items: 50,
            flush_after: Duration::from_secs(1),
            item_within: Duration::from_secs(30),
            items_max: 100_000,
            parallel: 1,
            facts_within: Duration::from_secs(5),
            cycle: Duration::from_mins(10),
            cleanup_above: 70,
            cleanup_age: Duration::from_hours(1),
            compress_above: 60,
            compression: Compression { idle: Duration::from_mins(30), accesses_below: 5 },
            jobs_max: 64,
            busy_retry: Duration::from_millis(250),
            window: 1024,
        }
    }
}

/// A field that is outside of what it may be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` is {found}, and may be {bound}")]
pub struct OptimizerConfigError {
    /// The field.
    pub field: &'static str,
    /// What it is.
    pub found: String,
    /// What it may be.
    pub bound: &'static str,
}

impl OptimizerConfig {
    /// Refuses what makes no sense.
    pub fn check(&self) -> Result<(), OptimizerConfigError> {
        let (ms, s) = (Duration::from_millis, Duration::from_secs);
        let ten_minutes = "1 ms to 10 min";
        let durations = [
            ("flush_after", self.flush_after, s(0)..=s(60), "at most 1 min"),
            ("item_within", self.item_within, ms(1)..=s(600), ten_minutes),
            ("facts_within", self.facts_within, ms(1)..=s(600), ten_minutes),
            ("cycle", self.cycle, s(1)..=s(86_400), "1 s to 1 day"),
            ("busy_retry", self.busy_retry, ms(1)..=s(60), "1 ms to 1 min"),
        ];
        for (field, found, range, bound) in durations {
            if !range.contains(&found) {
                return Err(OptimizerConfigError { field, found: format!("{found:?}"), bound });
            }
        }
        let numbers = [
            ("chunk_items", self.chunk_items, 1..=10_000, "1 to 10,000"),
            ("items_max", self.items_max, 1..=1_000_000, "1 to 1,000,000"),
            ("parallel", self.parallel, 1..=64, "1 to 64"),
            ("cleanup_above", self.cleanup_above.into(), 0..=100, "0 to 100"),
            ("compress_above", self.compress_above.into(), 0..=100, "0 to 100"),
            ("jobs_max", self.jobs_max, 1..=10_000, "1 to 10,000"),
            ("window", self.window, 1..=100_000, "1 to 100,000"),
        ];
        for (field, found, range, bound) in numbers {
            if !range.contains(&found) {
                return Err(OptimizerConfigError { field, found: found.to_string(), bound });
            }
        }
        Ok(())
    }
}

/// What the subtree is given by whoever embeds it.
#[derive(Clone)]
pub struct OptimizerDeps {
    /// Whose caches and whose cleaner are used.
    pub memory: MemoryHandle,
    /// Whether a query runs, so that background jobs wait. Asked often: an atomic will do.
    pub is_busy: Arc<dyn Fn() -> bool + Send + Sync>,
    /// The threads on which items run. Without one they run on threads of the runtime,
    /// of which an item that hangs keeps one.
    pub cpu: Option<CpuPool>,
}

impl fmt::Debug for OptimizerDeps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OptimizerDeps").field("memory", &self.memory).finish_non_exhaustive()
    }
}

/// The subtree, and the handle to it. The handle works before the start (callers wait until their
/// deadlines) and across all restarts.
pub fn supervisor(
    config: OptimizerConfig,
    deps: OptimizerDeps,
) -> Result<(ChildSpec, OptimizerHandle), OptimizerConfigError> {
    config.check()?;
    let shared = Arc::new(Shared::new(config, deps));
    let args = || Arc::clone(&shared);
    let spec = SupervisorSpec::new(Strategy::OneForOne) // none needs another to be up
        .intensity(5, Duration::from_secs(10))
        .child(ChildSpec::service::<BatchProcessor>(&shared.batch, args()).stop(STOP))
        .child(ChildSpec::service::<LazyLoader>(&shared.lazy, args()).stop(STOP))
        .child(ChildSpec::service::<OptimizationScheduler>(&shared.scheduler, args()).stop(STOP))
        .child(
            ChildSpec::service::<StatisticsCollector>(shared.meter.address(), args()).stop(STOP),
        );
    Ok((ChildSpec::supervisor("performance_optimizer", spec), OptimizerHandle(shared)))
}

/// What the services share, and what outlives each of them.
struct Shared {
    config: OptimizerConfig,
    deps: OptimizerDeps,
    tasks: TaskQueue,
    jobs: ScheduledJobs,
    lazy_counts: lazy::Tally,
    ledger: Ledger,
    meter: Meter,
    batch: Address<batch::Message>,
    lazy: Address<lazy::Message>,
    scheduler: Address<scheduler::Message>,
}

impl Shared {
    fn new(config: OptimizerConfig, deps: OptimizerDeps) -> Self {
        Self {
            deps,
            tasks: TaskQueue::new(&config),
            jobs: ScheduledJobs::new(PriorityQueue::new(config.jobs_max), config.jobs_max),
            lazy_counts: lazy::Tally::default(),
            ledger: Ledger::new(config.window),
            meter: Meter::new("statistics_collector"),
            batch: Address::new("batch_processor", MAILBOX),
            lazy: Address::new("lazy_loader", MAILBOX),
            scheduler: Address::new("optimization_scheduler", MAILBOX),
            config,
        }
    }
}

/// There is no room for more work. Nothing of it was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is room for {free} more, not for {asked}")]
pub struct Full {
    /// What was asked for: items of a batch, or one job.
    pub asked: usize,
    /// What there is room for.
    pub free: usize,
}

/// The way to the performance optimizer. Cheap to clone.
#[derive(Clone)]
pub struct OptimizerHandle(Arc<Shared>);

impl OptimizerHandle {
    /// Has every item worked on soon, in chunks. `work` runs on a thread where it may take its
    /// time, up to the item's deadline, which its [`Checkpoint`] tells; an error, a panic or a
    /// missed deadline costs that item, and stands in the ticket.
    pub fn batch<I, R, F>(&self, items: Vec<I>, work: F) -> Result<Ticket<R>, Full>
    where
        I: Send + 'static,
        R: Send + 'static,
        F: Fn(&I, &Checkpoint) -> Result<R, String> + Send + Sync + 'static,
    {
        let (tasks, ticket) = batch::prepare(items, work);
        self.0.tasks.push(tasks)?;
        Ok(ticket)
    }

    /// The same, while no query runs: between two chunks a query that has begun goes first.
    pub fn schedule<I, R, F>(
        &self,
        priority: Priority,
        items: Vec<I>,
        work: F,
    ) -> Result<Ticket<R>, Full>
    where
        I: Send + 'static,
        R: Send + 'static,
        F: Fn(&I, &Checkpoint) -> Result<R, String> + Send + Sync + 'static,
    {
        let (tasks, ticket) = batch::prepare(items, work);
        self.0.jobs.push(priority, tasks)?;
        Ok(ticket)
    }

    /// The facts of each file of a snapshot, in no order, while no query runs. They add up to
    /// those of the whole.
    pub fn survey(
        &self,
        priority: Priority,
        snapshot: &Snapshot,
    ) -> Result<Ticket<FileFacts>, Full> {
        let records: Vec<_> = snapshot.records().map(Arc::clone).collect();
        self.schedule(priority, records, |record: &Arc<FileRecord>, checkpoint| {
            let facts = FileFacts::of(&record.file, &|| checkpoint.check().is_err());
            facts.ok_or_else(|| "the facts of a file took too long".to_owned())
        })
    }

    /// Has the items that wait run now, without waiting for their chunk to fill. Returns how many
    /// they were when they have been.
    pub async fn flush(&self, within: Duration) -> Result<usize, CallError> {
        self.0.batch.call(within, batch::Message::Flush).await
    }

    /// The facts of a file: those that were computed before for this content, as long as they are
    /// asked for now and then, else computed now.
    pub async fn facts(&self, record: &Arc<FileRecord>) -> Result<Arc<FileFacts>, LazyError> {
        lazy::facts(&self.0, record).await
    }

    /// How often facts were computed, and how often that was spared.
    pub fn lazy_counts(&self) -> LazyCounts {
        self.0.lazy_counts.read()
    }

    /// Looks at the memory now, as each cycle does, and says what was done.
    pub async fn cycle(&self, within: Duration) -> Result<CycleReport, CallError> {
        self.0.scheduler.call(within, scheduler::Message::Cycle).await
    }

    /// Where everybody may report to. Never waits.
    pub fn meter(&self) -> &Meter {
        &self.0.meter
    }

    /// What was counted and measured so far.
    pub async fn statistics(&self) -> Result<Statistics, CallError> {
        self.0.meter.read(ANSWER_WITHIN).await
    }
}

impl fmt::Debug for OptimizerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OptimizerHandle")
            .field("n_waiting", &self.0.tasks.len())
            .field("lazy", &self.lazy_counts())
            .finish_non_exhaustive()
    }
}
