//! `query_executor`: takes queries, waits for a seat for each, and starts and watches its worker.

use super::turn::{Seats, Turn};
use astscope_supervision::{
    Address, AdminError, ChildSpec, Ctx, DynamicSupervisor, Exit, Init, Mailbox, PoolError,
    SendError, Service, Stop, SupervisorSpec,
};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long a worker may take to stop: a second, though it looks every millisecond or so.
const WORKER_STOP: Duration = Duration::from_secs(1);

/// How a workspace's queries are run.
#[derive(Clone, Debug)]
pub struct ExecutorConfig {
    /// Queries that wait to be taken, of all clients together: each client has a bound of its own,
    /// and a burst of all of them is no reason to refuse one.
    pub mailbox: usize,
    /// Queries that run or wait for a seat: as many as may be in flight in all connections.
    pub workers_max: usize,
    /// How long a query waits for an executor that is being restarted.
    pub restart_within: Duration,
}

impl Default for ExecutorConfig {
    fn default() -> Self {
        Self { mailbox: 1024, workers_max: 1 << 14, restart_within: Duration::from_secs(10) }
    }
}

/// Runs queries, whichever incarnation of the executor is up.
#[derive(Clone)]
pub struct ExecutorHandle {
    executor: Address<Query>,
    workers: DynamicSupervisor<Job>,
    seats: Seats,
    config: ExecutorConfig,
}

/// Why a query has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExecuteError {
    /// As many queries wait already as may.
    #[error("too many queries wait")]
    Overloaded,
    /// Its deadline passed before it had a seat.
    #[error("the query had no turn in time")]
    NoTurn,
    /// It was given up before it had a seat.
    #[error("the query was given up")]
    GivenUp,
    /// The executor, or the worker, ended before it did. It may be asked again.
    #[error("the part that ran the query ended: {0}")]
    Ended(Exit),
    /// The executor isn't up, and wasn't for as long as a query waits. It may be asked again.
    #[error("queries can't be run at this moment: {0}")]
    Unavailable(SendError),
}

impl ExecutorHandle {
    /// An executor that isn't started yet, whose queries take turns on these seats.
    pub fn new(config: ExecutorConfig, seats: Seats) -> Self {
        Self {
            executor: Address::new("query_executor", config.mailbox),
            workers: DynamicSupervisor::new("worker_pool", worker),
            seats,
            config,
        }
    }

    /// The executor's child, for who only wants to look.
    pub fn child(&self) -> astscope_supervision::ChildRef {
        self.executor.child()
    }

    /// Runs a query on a thread of its own, when there is a seat for it; that must be by
    /// `deadline`, if there is one. `work` is to look at `give_up` every millisecond or so:
    /// whatever ends the query from outside cancels it.
    ///
    /// # Cancel safety
    /// Dropping the future gives the query up.
    pub async fn execute<R: Send + 'static>(
        &self,
        deadline: Option<Instant>,
        give_up: &CancellationToken,
        work: impl FnOnce(&Turn) -> R + Send + 'static,
    ) -> Result<R, ExecuteError> {
        let give_up_if_dropped = give_up.clone().drop_guard();
        let (give, result) = oneshot::channel();
        let (reply, ended) = oneshot::channel();
        let work: Work = Box::new(move |turn| drop(give.send(work(turn))));
        let query = Query { work, deadline, give_up: give_up.clone(), reply };
        let ended = match self.executor.send(self.config.restart_within, query).await {
            Ok(()) => ended.await.unwrap_or(Err(ExecuteError::Ended(Exit::Killed))),
            Err(SendError::Overloaded) => Err(ExecuteError::Overloaded),
            Err(other) => Err(ExecuteError::Unavailable(other)),
        };
        drop(give_up_if_dropped.disarm());
        ended?;
        result.await.map_err(|_lost| ExecuteError::Ended(Exit::Killed))
    }

    pub(super) fn service(&self) -> ChildSpec {
        let desk = Desk { workers: self.workers.clone(), seats: self.seats.clone() };
        ChildSpec::service::<Executor>(&self.executor, desk)
    }

    pub(super) fn workers(&self) -> ChildSpec {
        let workers = SupervisorSpec::dynamic(self.config.workers_max);
        self.workers.spec(workers.intensity(10, Duration::from_secs(5)))
    }
}

impl fmt::Debug for ExecutorHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExecutorHandle").field("config", &self.config).finish_non_exhaustive()
    }
}

type Work = Box<dyn FnOnce(&Turn) + Send>;

struct Query {
    work: Work,
    deadline: Option<Instant>,
    give_up: CancellationToken,
    reply: oneshot::Sender<Result<(), ExecuteError>>,
}

#[derive(Clone)]
struct Desk {
    workers: DynamicSupervisor<Job>,
    seats: Seats,
}

struct Executor(Desk);

impl Service for Executor {
    type Args = Desk;
    type Message = Query;

    async fn init(desk: Desk, _: &Ctx) -> Result<Init<Self>, Exit> {
        Ok(Init::Ready(Self(desk)))
    }

    async fn run(self, mut mailbox: Mailbox<Query>, ctx: Ctx) -> Result<(), Exit> {
        while let Some(query) = mailbox.recv().await {
            let desk = self.0.clone();
            ctx.spawn(async move {
                let Query { work, deadline, give_up, reply } = query;
                // An executor that ends gives up what it has taken.
                let given_up_with_it = give_up.clone().drop_guard();
                let ended = desk.run(work, deadline, give_up).await;
                drop(given_up_with_it.disarm());
                drop(reply.send(ended));
            });
        }
        Ok(())
    }
}

impl Desk {
    async fn run(
        self,
        work: Work,
        deadline: Option<Instant>,
        give_up: CancellationToken,
    ) -> Result<(), ExecuteError> {
        let within = match deadline {
            Some(deadline) => deadline.saturating_duration_since(Instant::now()),
            None => Duration::MAX,
        };
        let turn = tokio::select! {
            biased;
            () = give_up.cancelled() => return Err(ExecuteError::GivenUp),
            turn = Turn::wait_for(self.seats, within, give_up.clone()) => turn,
        };
        let turn = turn.map_err(|error| match error {
            PoolError::Full => ExecuteError::Overloaded,
            PoolError::Timeout => ExecuteError::NoTurn,
            other => ExecuteError::Ended(Exit::failed(other.to_string())),
        })?;
        let started = self.workers.start_child(Job { work, turn, give_up }).await;
        let exit = match started {
            Ok(Some(child)) => child.monitor().down().await,
            Ok(None) => Exit::Normal, // a worker has no init that could refuse
            Err(AdminError::MaxChildren) => return Err(ExecuteError::Overloaded),
            Err(error) => Exit::failed(error.to_string()),
        };
        match exit {
            Exit::Normal => Ok(()),
            other => Err(ExecuteError::Ended(other)),
        }
    }
}

/// A query that has a seat.
struct Job {
    work: Work,
    turn: Turn,
    give_up: CancellationToken,
}

/// Numbers workers, for their names.
static LAST_WORKER: AtomicU64 = AtomicU64::new(0);

fn worker(job: Job) -> ChildSpec {
    let id = format!("query_worker_{}", LAST_WORKER.fetch_add(1, Ordering::Relaxed) + 1);
    ChildSpec::once(id, |ctx| work(ctx, job)).stop(Stop::Within(WORKER_STOP))
}

async fn work(ctx: Ctx, Job { work, turn, give_up }: Job) -> Result<(), Exit> {
    // Also when this future is dropped, which is how a kill comes.
    let given_up_with_it = give_up.clone().drop_guard();
    let done = ctx.blocking(None, move |_| work(&turn));
    tokio::pin!(done);
    let ended = tokio::select! {
        biased;
        ended = &mut done => ended,
        () = ctx.stopping() => {
            give_up.cancel();
            done.await?;
            Err(Exit::Shutdown)
        }
    };
    drop(given_up_with_it.disarm());
    ended
}

#[cfg(test)]
mod tests;
