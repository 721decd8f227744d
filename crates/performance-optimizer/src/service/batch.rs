//! The batch processor: works on items in chunks, each within its time, and loses none silently.
//!
//! What waits stands above the service. An item is settled exactly once: done, failed with a
//! reason, cancelled, or lost with the incarnation that was at work on it.

use super::{Counter, Full, OptimizerConfig, Shared, Timing};
use astscope_supervision::{Checkpoint, CpuError, Ctx, Exit, Init, Mailbox, Reply, Service};
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

/// How long after its deadline an item is waited for, before it is given up: some times what lies
/// between two of its looks at the clock.
const GRACE: Duration = Duration::from_millis(100);

/// Why an item has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ItemError {
    /// Its work said so.
    #[error("{0}")]
    Failed(String),
    /// Its work panicked: the payload, if that was text.
    #[error("panicked: {0}")]
    Panicked(Arc<str>),
    /// It wasn't done by its deadline.
    #[error("not done in time")]
    Timeout,
    /// Its batch was cancelled before it began.
    #[error("cancelled")]
    Cancelled,
    /// What was at work on it ended, or the whole was taken down before it began.
    #[error("lost with the service that worked on it")]
    Lost,
}

/// How far a batch is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Items in all.
    pub total: usize,
    /// Of them, those that have a result.
    pub done: usize,
    /// Of them, those that have a reason why not.
    pub failed: usize,
}

impl Progress {
    /// Whether every item has a result or a reason.
    pub fn is_complete(&self) -> bool {
        self.done + self.failed == self.total
    }
}

/// A batch that isn't complete. It goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the batch wasn't complete in time: {} of {} items done", .0.done, .0.total)]
pub struct StillRunning(pub Progress);

/// What the items of a batch become. Dropping it changes nothing; see [`cancel`](Self::cancel).
pub struct Ticket<R>(Arc<Batch<R>>);

struct Batch<R> {
    results: Mutex<Vec<Option<Result<R, ItemError>>>>,
    progress: watch::Sender<Progress>,
    cancelled: AtomicBool,
}

impl<R> Ticket<R> {
    /// How far it is.
    pub fn progress(&self) -> Progress {
        *self.0.progress.borrow()
    }

    /// How far it is, for who wants to know when that changes.
    pub fn watch(&self) -> watch::Receiver<Progress> {
        self.0.progress.subscribe()
    }

    /// Has items that haven't begun passed over. Those that have are finished.
    pub fn cancel(&self) {
        self.0.cancelled.store(true, Ordering::Relaxed);
    }

    /// Waits until every item has a result or a reason why not, and returns them in the order of
    /// the items. They are handed out once: whoever asks again gets none.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn outcome(
        &self,
        within: Duration,
    ) -> Result<Vec<Result<R, ItemError>>, StillRunning> {
        let mut progress = self.0.progress.subscribe();
        if timeout(within, progress.wait_for(Progress::is_complete)).await.is_err() {
            return Err(StillRunning(self.progress()));
        }
        let results = std::mem::take(&mut *self.0.results());
        Ok(results.into_iter().map(|result| result.unwrap_or(Err(ItemError::Lost))).collect())
    }
}

impl<R> fmt::Debug for Ticket<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Ticket").field(&self.progress()).finish()
    }
}

impl<R> Batch<R> {
    fn results(&self) -> MutexGuard<'_, Vec<Option<Result<R, ItemError>>>> {
        self.results.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn settle(&self, at: usize, result: Result<R, ItemError>) {
        let is_done = result.is_ok();
        if let Some(slot) = self.results().get_mut(at) {
            *slot = Some(result);
        }
        self.progress.send_modify(|progress| {
            let count = if is_done { &mut progress.done } else { &mut progress.failed };
            *count += 1;
        });
    }
}

/// What a task may ask and tell its batch, whatever its results are.
trait Sink: Send + Sync {
    fn fail(&self, at: usize, error: ItemError);
    fn is_cancelled(&self) -> bool;
}

impl<R: Send> Sink for Batch<R> {
    fn fail(&self, at: usize, error: ItemError) {
        self.settle(at, Err(error));
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}

/// Writes a result down.
type Commit = Box<dyn FnOnce() + Send>;
type Work = Box<dyn FnOnce(&Checkpoint) -> Result<Commit, String> + Send>;

/// An item and its work.
pub(super) struct Task {
    work: Work,
    place: Place,
}

/// An item's place in its batch. Dropped without a word, the item is lost, and its batch is told.
struct Place {
    sink: Arc<dyn Sink>,
    at: usize,
    settled: bool,
}

impl Place {
    fn settle(mut self, outcome: Result<Commit, ItemError>) {
        self.settled = true;
        match outcome {
            Ok(commit) => commit(),
            Err(error) => self.sink.fail(self.at, error),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.settled {
            self.sink.fail(self.at, ItemError::Lost);
        }
    }
}

/// The tasks of a batch, and its ticket.
pub(super) fn prepare<I, R, F>(items: Vec<I>, work: F) -> (Vec<Task>, Ticket<R>)
where
    I: Send + 'static,
    R: Send + 'static,
    F: Fn(&I, &Checkpoint) -> Result<R, String> + Send + Sync + 'static,
{
    let progress = Progress { total: items.len(), ..Progress::default() };
    let batch = Arc::new(Batch {
        results: Mutex::new((0..items.len()).map(|_| None).collect()),
        progress: watch::Sender::new(progress),
        cancelled: AtomicBool::new(false),
    });
    let work = Arc::new(work);
    let task = |(at, item)| {
        let (into, work) = (Arc::clone(&batch), Arc::clone(&work));
        let sink: Arc<dyn Sink> = Arc::<Batch<R>>::clone(&batch);
        let work = move |checkpoint: &Checkpoint| {
            let result = work(&item, checkpoint)?;
            Ok(Box::new(move || into.settle(at, Ok(result))) as Commit)
        };
        Task { work: Box::new(work), place: Place { sink, at, settled: false } }
    };
    (items.into_iter().enumerate().map(task).collect(), Ticket(batch))
}

/// Items that wait for their chunk.
pub(super) struct TaskQueue {
    waiting: Mutex<VecDeque<(Instant, Task)>>,
    changed: Notify,
    chunk_items: usize,
    flush_after: Duration,
    items_max: usize,
}

impl TaskQueue {
    pub(super) fn new(config: &OptimizerConfig) -> Self {
        let OptimizerConfig { chunk_items, flush_after, items_max, .. } = *config;
        let waiting = Mutex::default();
        Self { waiting, changed: Notify::new(), chunk_items, flush_after, items_max }
    }

    pub(super) fn len(&self) -> usize {
        self.waiting().len()
    }

    /// All of them or none.
    pub(super) fn push(&self, tasks: Vec<Task>) -> Result<(), Full> {
        let now = Instant::now();
        {
            let mut waiting = self.waiting();
            let free = self.items_max.saturating_sub(waiting.len());
            if tasks.len() > free {
                return Err(Full { asked: tasks.len(), free });
            }
            waiting.extend(tasks.into_iter().map(|task| (now, task)));
        }
        self.changed.notify_one();
        Ok(())
    }

    fn take(&self, n: usize) -> Vec<Task> {
        let mut waiting = self.waiting();
        let n = n.min(waiting.len());
        waiting.drain(..n).map(|(_, task)| task).collect()
    }

    /// Waits for a full chunk, or for one whose oldest item has waited long enough. What it
    /// returns is taken out; a dropped wait takes nothing.
    async fn chunk(&self) -> Vec<Task> {
        loop {
            let (len, oldest) = {
                let waiting = self.waiting();
                (waiting.len(), waiting.front().map(|(since, _)| *since))
            };
            let Some(oldest) = oldest else {
                self.changed.notified().await;
                continue;
            };
            let flush_at = oldest + self.flush_after;
            if len >= self.chunk_items || Instant::now() >= flush_at {
                return self.take(self.chunk_items);
            }
            tokio::select! {
                () = self.changed.notified() => {}
                () = sleep_until(flush_at) => {}
            }
        }
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<(Instant, Task)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) enum Message {
    /// Run these now, and say when they are settled.
    Run(Vec<Task>, Reply<()>),
    /// Run what waits now, and say how many they were.
    Flush(Reply<usize>),
}

pub(super) struct BatchProcessor(Arc<Shared>);

impl Service for BatchProcessor {
    type Args = Arc<Shared>;
    type Message = Message;

    async fn init(shared: Arc<Shared>, _: &Ctx) -> Result<Init<Self>, Exit> {
        Ok(Init::Ready(Self(shared)))
    }

    async fn run(self, mut mailbox: Mailbox<Message>, ctx: Ctx) -> Result<(), Exit> {
        let queue = &self.0.tasks;
        loop {
            let message = tokio::select! {
                biased;
                message = mailbox.recv() => match message {
                    None => return Ok(()),
                    Some(message) => Ok(message),
                },
                chunk = queue.chunk() => Err(chunk),
            };
            let work = async {
                match message {
                    Err(chunk) => self.run_chunk(chunk, &ctx).await,
                    Ok(Message::Run(tasks, reply)) => {
                        self.run_chunk(tasks, &ctx).await;
                        reply.send(());
                    }
                    Ok(Message::Flush(reply)) => {
                        let tasks = queue.take(usize::MAX);
                        let n_tasks = tasks.len();
                        self.run_chunk(tasks, &ctx).await;
                        reply.send(n_tasks);
                    }
                }
            };
            tokio::select! {
                biased;
                () = ctx.stopping() => return Ok(()),
                () = work => {}
            }
        }
    }
}

impl BatchProcessor {
    async fn run_chunk(&self, tasks: Vec<Task>, ctx: &Ctx) {
        let begun = Instant::now();
        let tasks = Mutex::new(VecDeque::from(tasks));
        let next = || tasks.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let lane = || async {
            while let Some(task) = next() {
                self.run_task(task, ctx).await;
                ctx.progress();
            }
        };
        let lanes: Vec<_> = (0..self.0.config.parallel).map(|_| Box::pin(lane())).collect();
        all(lanes).await;
        self.0.meter.time(Timing::Chunk, begun.elapsed());
    }

    async fn run_task(&self, Task { work, place }: Task, ctx: &Ctx) {
        let Shared { config, deps, meter, .. } = &*self.0;
        if place.sink.is_cancelled() {
            meter.count(Counter::ItemsFailed, 1);
            return place.settle(Err(ItemError::Cancelled));
        }
        let begun = Instant::now();
        let deadline = begun + config.item_within;
        let outcome = match &deps.cpu {
            Some(pool) => pool.run(config.item_within, work).await.map_err(|error| match error {
                CpuError::Timeout => ItemError::Timeout,
                CpuError::Panicked(text) => ItemError::Panicked(text),
                other => ItemError::Failed(other.to_string()),
            }),
            None => match timeout_at(deadline + GRACE, ctx.blocking(Some(deadline), work)).await {
                Ok(result) => result.map_err(|exit| match exit {
                    Exit::Panicked(text) => ItemError::Panicked(text),
                    _ => ItemError::Lost,
                }),
                Err(_) => Err(ItemError::Timeout),
            },
        };
        let outcome = outcome.and_then(|result| {
            // Work that gave up since its time was over says so in its own words.
            let late = Instant::now() >= deadline;
            result.map_err(|text| if late { ItemError::Timeout } else { ItemError::Failed(text) })
        });
        let counter = if outcome.is_ok() { Counter::ItemsDone } else { Counter::ItemsFailed };
        meter.count(counter, 1);
        meter.time(Timing::Item, begun.elapsed());
        place.settle(outcome);
    }
}

/// Polls futures until all are ready.
async fn all<F: Future<Output = ()>>(mut futures: Vec<Pin<Box<F>>>) {
    poll_fn(|cx| {
        futures.retain_mut(|future| future.as_mut().poll(cx).is_pending());
        if futures.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}
