//! The optimization scheduler: tidies memory before it is short, and lets background jobs run
//! while no query does.
//!
//! A job is handed to the batch processor one chunk at a time, and before each of them it is asked
//! whether a query runs: so a query waits for the items of one chunk at most, not for a job.

use super::batch::{self, Task};
use super::{Counter, Full, Shared, Timing};
use crate::{Priority, PriorityQueue};
use astscope_memory_manager::{Cleanup, Freed};
use astscope_supervision::{Ctx, Exit, Init, Mailbox, Reply, Service};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};

/// How long a cleanup may take, the wait for one that is under way included.
const CLEANUP_WITHIN: Duration = Duration::from_secs(30);
/// What a chunk may take besides its items: the one that is being run when it is handed over.
const CHUNK_MARGIN: Duration = Duration::from_mins(1);

/// What a look at the memory led to.
#[derive(Clone, Debug, PartialEq)]
pub struct CycleReport {
    /// How much of the budget was used, in percent. `None`: nobody measured it.
    pub percent: Option<f64>,
    /// What a cleanup freed, or why it didn't. `None`: it wasn't needed.
    pub cleanup: Option<Result<Freed, String>>,
    /// The same for compression.
    pub compression: Option<Result<Freed, String>>,
}

/// Jobs that wait for a quiet moment.
pub(super) struct ScheduledJobs {
    waiting: Mutex<PriorityQueue<VecDeque<Task>>>,
    changed: Notify,
    max: usize,
}

impl ScheduledJobs {
    pub(super) fn new(queue: PriorityQueue<VecDeque<Task>>, max: usize) -> Self {
        Self { waiting: Mutex::new(queue), changed: Notify::new(), max }
    }

    pub(super) fn push(&self, priority: Priority, tasks: Vec<Task>) -> Result<(), Full> {
        let refused = {
            let mut waiting = self.waiting();
            let free = self.max.saturating_sub(waiting.len());
            waiting.push(priority, tasks.into()).map_err(|tasks| (tasks, Full { asked: 1, free }))
        };
        match refused {
            Ok(()) => {
                self.changed.notify_one();
                Ok(())
            }
            Err((_tasks, full)) => Err(full),
        }
    }

    /// The next items of the most urgent job; the rest of it stays in its place.
    fn take(&self, n: usize) -> Vec<Task> {
        let mut waiting = self.waiting();
        let Some(job) = waiting.front_mut() else { return Vec::new() };
        let n = n.min(job.len());
        let tasks = job.drain(..n).collect();
        if job.is_empty() {
            drop(waiting.pop());
        }
        tasks
    }

    fn waiting(&self) -> MutexGuard<'_, PriorityQueue<VecDeque<Task>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) enum Message {
    /// Look at the memory now.
    Cycle(Reply<CycleReport>),
}

pub(super) struct OptimizationScheduler(Arc<Shared>);

impl Service for OptimizationScheduler {
    type Args = Arc<Shared>;
    type Message = Message;

    async fn init(shared: Arc<Shared>, _: &Ctx) -> Result<Init<Self>, Exit> {
        Ok(Init::Ready(Self(shared)))
    }

    async fn run(self, mut mailbox: Mailbox<Message>, ctx: Ctx) -> Result<(), Exit> {
        let every = self.0.config.cycle;
        // The first cycle is a cycle away: there is nothing to tidy at a start.
        let mut ticks = interval_at(Instant::now() + every, every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let reply = tokio::select! {
                biased;
                message = mailbox.recv() => match message {
                    None => return Ok(()),
                    Some(Message::Cycle(reply)) => Some(reply),
                },
                _ = ticks.tick() => None,
                () = self.quiet() => {
                    tokio::select! {
                        biased;
                        () = ctx.stopping() => return Ok(()),
                        () = self.run_chunk() => continue,
                    }
                }
            };
            let report = tokio::select! {
                biased;
                () = ctx.stopping() => return Ok(()),
                report = self.cycle() => report,
            };
            if let Some(reply) = reply {
                reply.send(report);
            }
        }
    }
}

impl OptimizationScheduler {
    /// Waits until there is a job and no query.
    async fn quiet(&self) {
        loop {
            if self.0.jobs.waiting().is_empty() {
                self.0.jobs.changed.notified().await;
            } else if (self.0.deps.is_busy)() {
                sleep(self.0.config.busy_retry).await;
            } else {
                return;
            }
        }
    }

    /// Has the next chunk of the most urgent job worked on.
    async fn run_chunk(&self) {
        let config = &self.0.config;
        let tasks = self.0.jobs.take(config.chunk_items);
        let n_items = u32::try_from(tasks.len()).unwrap_or(u32::MAX);
        let within = config.item_within.saturating_mul(n_items).saturating_add(CHUNK_MARGIN);
        let run = |reply| batch::Message::Run(tasks, reply);
        // Items of a chunk that wasn't run are lost, which their batch is told when they are
        // dropped.
        let _told = self.0.batch.call(within, run).await;
    }

    async fn cycle(&self) -> CycleReport {
        let Shared { config, deps, meter, .. } = &*self.0;
        let (begun, memory) = (Instant::now(), &deps.memory);
        let percent = match memory.sample().await {
            Ok(sample) => Some(sample.percent_of(memory.budget_bytes())),
            Err(_) => memory.percent_used(),
        };
        let above = |bound: u8| percent.is_some_and(|percent| percent > f64::from(bound));
        let mut report = CycleReport { percent, cleanup: None, compression: None };
        if above(config.cleanup_above) {
            let cleanup = Cleanup::older_than(config.cleanup_age);
            let cleaned = memory.request_cleanup(cleanup, CLEANUP_WITHIN).await;
            report.cleanup = Some(match cleaned {
                Ok(report) => report.failure().map_or(Ok(report.freed()), Err),
                Err(error) => Err(error.to_string()),
            });
        }
        if above(config.compress_above) {
            let compressed = memory.compress(config.compression).await;
            report.compression =
                Some(compressed.map(|relief| relief.freed()).map_err(|error| error.to_string()));
        }
        let outcomes = [&report.cleanup, &report.compression];
        let freed: Freed = outcomes
            .into_iter()
            .flatten()
            .filter_map(|outcome| outcome.as_ref().ok())
            .copied()
            .sum();
        if outcomes.iter().any(|outcome| outcome.is_some()) {
            meter.count(Counter::Relieved, 1);
            meter.count(Counter::BytesFreed, freed.bytes);
        }
        meter.time(Timing::Cycle, begun.elapsed());
        report
    }
}
