//! The cleaner: lives for one cleanup, and is started when somebody needs one.
//!
//! It stands in the tree without an order, where its init chooses not to run. Whoever has an order
//! adds it again, with the order as its argument: a temporary child's arguments go with it, so an
//! order is never executed twice, and one that its cleaner died on is told to whoever asked.

use super::{ANSWER_WITHIN, Shared};
use crate::{Class, Cleanup, Freed, Reclaim};
use astscope_supervision::{AdminError, Ctx, Exit, Init, Mailbox, Service, delegated};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout_at};

/// How long after its deadline an owner is waited for, before it is reported as late: some times
/// what lies between two of its looks at the clock.
const GRACE: Duration = Duration::from_millis(100);
/// Time between two looks whether the cleaner that was under way has left the tree.
const RETRY: Duration = Duration::from_millis(5);

/// What one cleanup did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CleanupReport {
    /// What was asked for.
    pub cleanup: Cleanup,
    /// What each owner did, in the order in which they were registered.
    pub parts: Vec<Part>,
    /// Expired entries of the caches.
    pub expired: Freed,
    /// How long it took.
    pub took: Duration,
}

impl CleanupReport {
    /// What was freed in all, or would have been.
    pub fn freed(&self) -> Freed {
        freed(&self.parts) + self.expired
    }

    /// The first owner that didn't do what it was asked for, in words.
    pub fn failure(&self) -> Option<String> {
        failure(&self.parts)
    }
}

/// What one owner did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// What it is called.
    pub name: String,
    /// What its memory is for.
    pub class: Class,
    /// How it went.
    pub outcome: PartOutcome,
}

/// How it went with one owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartOutcome {
    /// It freed this, maybe not all that it could have: it was told to stop in time.
    Freed(Freed),
    /// It panicked. What it freed before isn't known.
    Panicked(Arc<str>),
    /// It didn't come back in time.
    Late,
    /// It wasn't asked, since time was up or the service was told to stop.
    NotAsked,
}

pub(super) fn freed(parts: &[Part]) -> Freed {
    let freed = |part: &Part| match part.outcome {
        PartOutcome::Freed(freed) => freed,
        PartOutcome::Panicked(_) | PartOutcome::Late | PartOutcome::NotAsked => Freed::default(),
    };
    parts.iter().map(freed).sum()
}

pub(super) fn failure(parts: &[Part]) -> Option<String> {
    parts.iter().find_map(|Part { name, outcome, .. }| match outcome {
        PartOutcome::Freed(_) => None,
        PartOutcome::Panicked(text) => Some(format!("`{name}` panicked: {text}")),
        PartOutcome::Late => Some(format!("`{name}` didn't come back in time")),
        PartOutcome::NotAsked => Some(format!("there was no time to ask `{name}`")),
    })
}

/// Why there is no report.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CleanupError {
    /// The cleaner couldn't be started. Nothing was changed.
    #[error("the cleaner couldn't be started")]
    NotStarted(#[from] AdminError),
    /// It wasn't done by the deadline. It may still be.
    #[error("the cleanup wasn't done in time")]
    Timeout,
    /// The cleaner ended before it was done. It may have freed something.
    #[error("the cleaner ended before it was done")]
    Died,
}

/// What the cleaner is started with.
#[derive(Clone)]
pub(super) struct Job {
    shared: Arc<Shared>,
    order: Option<Arc<Order>>,
}

struct Order {
    cleanup: Cleanup,
    reply: Mutex<Option<oneshot::Sender<CleanupReport>>>,
}

impl Job {
    /// Nothing to do: what the tree is written with.
    pub(super) fn none(shared: Arc<Shared>) -> Self {
        Self { shared, order: None }
    }
}

/// Starts the cleaner, after the one that is under way, and waits for its report.
pub(super) async fn request(
    shared: &Arc<Shared>,
    cleanup: Cleanup,
    within: Duration,
) -> Result<CleanupReport, CleanupError> {
    let deadline = Instant::now() + within;
    let (reply, report) = oneshot::channel();
    let order = Order { cleanup, reply: Mutex::new(Some(reply)) };
    let job = Job { shared: Arc::clone(shared), order: Some(Arc::new(order)) };
    let Some(tree) = shared.tree.get() else { return Err(AdminError::Gone.into()) };
    let start = async {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let child = shared.cleaner_spec(job.clone());
            match tree.within(left.min(ANSWER_WITHIN)).start_child(child).await {
                // Its end is known a moment before its supervisor has forgotten it.
                Err(AdminError::AlreadyStarted | AdminError::AlreadyPresent) => {
                    shared.cleaner.child().monitor().down().await;
                    sleep(RETRY).await;
                }
                // It may still start it: not what `NotStarted` promises.
                Err(AdminError::Timeout) => return Err(CleanupError::Timeout),
                started => return Ok(started.map(drop)?),
            }
        }
    };
    timeout_at(deadline, start).await.map_err(|_late| CleanupError::Timeout)??;
    drop(job); // from here on only the cleaner can answer
    match delegated(timeout_at(deadline, report)).await {
        Ok(report) => report.map_err(|_ended| CleanupError::Died),
        Err(_) => Err(CleanupError::Timeout),
    }
}

pub(super) struct Cleaner {
    shared: Arc<Shared>,
    order: Arc<Order>,
}

impl Service for Cleaner {
    type Args = Job;
    type Message = ();

    async fn init(job: Job, _: &Ctx) -> Result<Init<Self>, Exit> {
        let Job { shared, order } = job;
        Ok(order.map_or(Init::Ignore, |order| Init::Ready(Self { shared, order })))
    }

    async fn run(self, _: Mailbox<()>, ctx: Ctx) -> Result<(), Exit> {
        let Self { shared, order } = self;
        let (begun, cleanup) = (Instant::now(), order.cleanup);
        let deadline = begun + shared.config.cleanup_within;
        let parts = tokio::select! {
            biased;
            () = ctx.stopping() => return Ok(()),
            parts = ask_each(&ctx, shared.owners(), deadline, move |owner, stop| {
                Some(owner.reclaim(cleanup, stop))
            }) => parts,
        };
        let caches = &shared.caches;
        let expired = if cleanup.dry_run { caches.expired() } else { caches.sweep() };
        let report = CleanupReport { cleanup, parts, expired, took: begun.elapsed() };
        let reply = order.reply.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(reply) = reply {
            // Whoever asked may have given up.
            let _given_up = reply.send(report);
        }
        Ok(())
    }
}

/// Asks one owner after the other, each on a thread where it may take its time, until a deadline
/// for all of them. One that panics or hangs costs its own part only. Those that answer with
/// `None` have nothing to offer, and aren't listed. One that hangs keeps its thread, and the service that
/// asked can't end before it does: supervision reports that as unkillable.
pub(super) async fn ask_each(
    ctx: &Ctx,
    owners: Vec<Arc<dyn Reclaim>>,
    deadline: Instant,
    ask: impl Fn(&dyn Reclaim, &dyn Fn() -> bool) -> Option<Freed> + Clone + Send + 'static,
) -> Vec<Part> {
    let mut parts = Vec::with_capacity(owners.len());
    for owner in owners {
        let (name, class) = (owner.name().to_owned(), owner.class());
        if Instant::now() >= deadline {
            parts.push(Part { name, class, outcome: PartOutcome::NotAsked });
            continue;
        }
        let ask = ask.clone();
        let work = ctx.blocking(Some(deadline), move |checkpoint| {
            ask(&*owner, &|| checkpoint.check().is_err())
        });
        let outcome = match timeout_at(deadline + GRACE, work).await {
            Ok(Ok(Some(freed))) => PartOutcome::Freed(freed),
            Ok(Ok(None)) => continue,
            Ok(Err(Exit::Panicked(text))) => PartOutcome::Panicked(text),
            Ok(Err(_)) => PartOutcome::NotAsked,
            Err(_) => PartOutcome::Late,
        };
        parts.push(Part { name, class, outcome });
    }
    parts
}
