//! `worker_pool`: one worker for each analysis, and never more than there are seats.
//!
//! A worker is a temporary child that is started with its job, answers, and ends. How many there
//! may be at once isn't this pool's to say: each takes a seat of a bulkhead that is given from
//! outside, which grows to its overflow when its seats are taken, and says so.

use super::patience::Patience;
use crate::doc::CompactDoc;
use crate::library::Compiled;
use crate::matches::Match;
use astscope_supervision::{
    AdminError, Checkpoint, ChildSpec, DynamicSupervisor, Exit, Pool, PoolError, Restart, Stop,
    SupervisorSpec,
};
use astscope_syntax::ParsedFile;
use std::fmt;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use thiserror::Error;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

/// A worker's place in the bulkhead, until it is dropped.
pub type Seat = Box<dyn Send>;

/// A seat, or why there is none.
pub type TakingSeat<'a> = Pin<Box<dyn Future<Output = Result<Seat, PoolError>> + Send + 'a>>;

/// The bulkhead that admits workers.
pub trait Seats: Send + Sync + 'static {
    /// Waits for a seat, no longer than this.
    fn take(&self, within: Duration) -> TakingSeat<'_>;
}

impl<M: Send + 'static> Seats for Pool<M> {
    fn take(&self, within: Duration) -> TakingSeat<'_> {
        Box::pin(async move {
            let worker = self.checkout(within).await?;
            Ok(Box::new(worker) as Seat)
        })
    }
}

/// Why an analysis has no result.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AnalysisError {
    /// No seat: they are all taken, or it took too long to get one.
    #[error("waiting for a seat")]
    Seat(#[from] PoolError),
    /// The worker can't be started.
    #[error("starting a worker")]
    Start(#[source] AdminError),
    /// It wasn't done by its limit. The next one has more time.
    #[error("the analysis wasn't done within {0:?}")]
    TimedOut(Duration),
    /// It wasn't done by the caller's own deadline.
    #[error("the analysis wasn't done by the caller's deadline")]
    Late,
    /// It panicked.
    #[error("the analysis panicked: {0}")]
    Panicked(Arc<str>),
    /// Its worker was killed, or the pool went down.
    #[error("the analysis' worker died")]
    Died,
}

/// What was found in one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Which file: its place among those that were searched.
    pub file: usize,
    /// The matches, host tree first, in the order of their nodes.
    pub matches: Vec<Match>,
}

/// What a search found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Searched {
    /// By file; those without a match are left out.
    pub found: Vec<Found>,
    /// Files that took longer than one may: what was found in them may not be all.
    pub unfinished: Vec<usize>,
}

/// What runs as a child.
pub(super) struct Job {
    id: String,
    run: Box<dyn FnOnce(astscope_supervision::Ctx) -> Running + Send>,
}

type Running = Pin<Box<dyn Future<Output = Result<(), Exit>> + Send>>;

/// The pool. Cheap to clone.
#[derive(Clone)]
pub(super) struct Workers {
    supervisor: DynamicSupervisor<Job>,
    seats: Arc<dyn Seats>,
    last: Arc<AtomicU64>,
}

impl Workers {
    pub(super) fn new(seats: Arc<dyn Seats>, stop_within: Duration) -> Self {
        let supervisor = DynamicSupervisor::new("worker_pool", move |job: Job| {
            ChildSpec::once(job.id, job.run)
                .restart(Restart::Temporary)
                .stop(Stop::Within(stop_within))
        });
        Self { supervisor, seats, last: Arc::default() }
    }

    pub(super) fn spec(&self, workers_max: usize) -> ChildSpec {
        let spec = SupervisorSpec::dynamic(workers_max).intensity(10, Duration::from_secs(5));
        self.supervisor.spec(spec)
    }

    pub(super) fn supervisor(&self) -> &astscope_supervision::Supervisor {
        self.supervisor.supervisor()
    }

    /// Runs a job on a worker of its own. It is interrupted when nobody waits for it any more.
    pub(super) async fn run<R: Send + 'static>(
        &self,
        within: Duration,
        patience: &Patience,
        job: impl FnOnce(&Checkpoint) -> R + Send + 'static,
    ) -> Result<R, AnalysisError> {
        let start = Instant::now();
        let seat = self.seats.take(within).await?;
        let (limit, left) = (patience.limit(), within.saturating_sub(start.elapsed()));
        let deadline = Instant::now() + limit.min(left);
        let (mut tell, told) = oneshot::channel();
        let run = move |ctx: astscope_supervision::Ctx| -> Running {
            Box::pin(async move {
                let work = ctx.blocking(Some(deadline), move |checkpoint| {
                    // Taken until the thread has come back, whoever gave it up.
                    let _until_done = seat;
                    job(checkpoint)
                });
                let done = tokio::select! {
                    done = work => done,
                    () = tell.closed() => return Ok(()),
                };
                let failed = done.as_ref().err().cloned();
                // Who no longer waits has been told.
                drop(tell.send(done));
                failed.map_or(Ok(()), Err)
            })
        };
        let id = format!("worker_{}", self.last.fetch_add(1, Ordering::Relaxed) + 1);
        let started = self.supervisor.start_child(Job { id, run: Box::new(run) });
        match timeout_at(deadline, started).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(AnalysisError::Start(error)),
            Err(_) => return Err(AnalysisError::Late),
        }
        let told = timeout_at(deadline, told).await;
        // A job that was interrupted has a result too, and not the whole one.
        let is_late = Instant::now() >= deadline;
        match told {
            Ok(Ok(Ok(result))) if !is_late => {
                patience.shrink();
                Ok(result)
            }
            Ok(Ok(Err(Exit::Panicked(text)))) => Err(AnalysisError::Panicked(text)),
            Ok(Ok(Err(_)) | Err(_)) => Err(AnalysisError::Died),
            _ if limit <= left => {
                patience.grow(limit);
                Err(AnalysisError::TimedOut(limit))
            }
            _ => Err(AnalysisError::Late),
        }
    }
}

impl fmt::Debug for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workers").field("supervisor", &self.supervisor).finish_non_exhaustive()
    }
}

/// Searches files, each for no longer than `file_limit`, until `checkpoint` says that it's enough.
pub(super) fn search(
    compiled: &Compiled,
    files: &[Arc<ParsedFile>],
    limit: usize,
    file_limit: Duration,
    checkpoint: &Checkpoint,
) -> Searched {
    let mut searched = Searched::default();
    let mut left = limit;
    for (at, file) in files.iter().enumerate() {
        if left == 0 || checkpoint.check().is_err() {
            break;
        }
        let deadline = Instant::now() + file_limit;
        let stop = || checkpoint.check().is_err() || Instant::now() >= deadline;
        let mut matches = Vec::new();
        for doc in CompactDoc::all(file) {
            match compiled {
                Compiled::Matcher(matcher) => {
                    let is_admitted = matcher.language() == doc.language()
                        && matcher.requirement().admits(&file.text, doc.parsed());
                    if is_admitted {
                        matches.extend(matcher.find_until(doc, left - matches.len(), &stop));
                    }
                }
                Compiled::Rules(rules) => {
                    let found = rules.scan(doc, Path::new(""), false).into_iter();
                    matches.extend(found.take(left - matches.len()).map(|found| found.found));
                }
            }
        }
        if Instant::now() >= deadline {
            searched.unfinished.push(at);
        }
        left -= matches.len();
        if !matches.is_empty() {
            searched.found.push(Found { file: at, matches });
        }
    }
    searched
}
