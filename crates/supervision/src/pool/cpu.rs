//! Threads as a pool: work that no await interrupts, kept away from the runtime's threads.
//!
//! A worker is a thread, and whoever waits for one stands in the same line by the same rules as
//! for any other [`Pool`](super::Pool), without overflow. What differs is the end: the worker is
//! checked in by its job when that is done, not by its caller when it has no more use for it.

use super::desk::{Desk, Errand, Lease};
use super::door::{AskDesk, Door};
use super::jobs::{JobId, Jobs};
use super::threads::{Executor, Lane};
use super::{Order, PoolConfig, PoolConfigError, PoolError};
use crate::{
    Checkpoint, ChildSpec, Ctx, Exit, Init, Interrupted, Mailbox, Service, Stop, delegated, later,
};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

/// What the service needs to end in order once its jobs' grace is over.
const STOP_MARGIN: Duration = Duration::from_secs(1);

/// How many threads, and how many callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuConfig {
    /// Threads, all started with the pool.
    pub threads: usize,
    /// Callers that may wait for a thread. One more is refused with [`PoolError::Full`].
    pub queue: usize,
    /// How long a job that should give up may take to notice: when its deadline has passed, its
    /// caller has gone, or the pool is stopped. After that its thread is lost. A few times what
    /// lies between two checks.
    pub grace: Duration,
}

/// A pool of threads for work that computes or blocks. Cheap to clone, valid before the first start
/// and across all restarts.
///
/// ```
/// use astscope_supervision::{
///     CpuConfig, CpuPool, Interrupted, Strategy, SupervisorSpec, Threads,
/// };
/// use std::time::Duration;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let config = CpuConfig { threads: 2, queue: 16, grace: Duration::from_millis(100) };
/// let (threads, cpu) = CpuPool::new("parsing", config, Threads { stack_bytes: None })?;
/// let root = SupervisorSpec::new(Strategy::OneForOne).child(threads).start("root").await?;
///
/// let sum = cpu
///     .run(Duration::from_secs(10), |checkpoint| {
///         let mut sum = 0;
///         for n in 0..1000_u64 {
///             checkpoint.check()?;
///             sum += n;
///         }
///         Ok::<_, Interrupted>(sum)
///     })
///     .await??;
/// assert_eq!(sum, 499_500);
/// root.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct CpuPool {
    door: Arc<Door<Thread>>,
}

/// A thread, for who has borrowed it.
struct Thread {
    lane: Lane,
    jobs: Arc<Jobs>,
}

impl CpuPool {
    /// A pool of threads that the executor makes: what goes into the tree, and the handle. The
    /// child is permanent; when it is stopped, it tells its jobs to give up, waits for their grace,
    /// and ends whether they did or not.
    pub fn new(
        id: impl Into<Arc<str>>,
        config: CpuConfig,
        executor: impl Executor,
    ) -> Result<(ChildSpec, Self), PoolConfigError> {
        pool_config(config).check()?;
        let door = Door::new(id);
        let plan = Plan { config, door: Arc::clone(&door), executor: Arc::new(executor) };
        let spec = ChildSpec::service::<Warden>(door.address(), plan)
            .stop(Stop::Within(config.grace.saturating_add(STOP_MARGIN)));
        Ok((spec, Self { door }))
    }

    /// Runs a job on a thread, as soon as one is free. `within` bounds everything; when it is over,
    /// the caller is told so, and the job's [`Checkpoint`] tells the job.
    ///
    /// # Cancel safety
    /// Dropping the future gives up the place in the queue; a job that runs already is told to
    /// give up.
    pub async fn run<R: Send + 'static>(
        &self,
        within: Duration,
        job: impl FnOnce(&Checkpoint) -> R + Send + 'static,
    ) -> Result<R, CpuError> {
        let deadline = later(Instant::now(), within);
        let lease = self.door.checkout(deadline, true).await?;
        let thread = Arc::clone(lease.worker());
        let stop = CancellationToken::new();
        let checkpoint = Checkpoint::new(stop.clone(), Some(deadline));
        let (tell, told) = oneshot::channel();

        let id = thread.jobs.begin(&stop, deadline);
        let caller = Caller { jobs: &thread.jobs, id };
        let running = Running { jobs: Arc::clone(&thread.jobs), id, _lease: lease };
        (thread.lane)(Box::new(move || {
            let result = match checkpoint.check() {
                Ok(()) => catch_unwind(AssertUnwindSafe(|| job(&checkpoint)))
                    .map_err(|payload| CpuError::panicked(&*payload)),
                Err(Interrupted::DeadlinePassed) => Err(CpuError::Timeout),
                Err(Interrupted::Stopped) => Err(CpuError::Stopped),
            };
            drop(running); // before the caller goes on, who may want the thread again
            drop(tell.send(result));
        }));

        let answer = tokio::select! {
            biased;
            answer = delegated(timeout_at(deadline, told)) => match answer {
                Ok(answer) => answer.unwrap_or(Err(CpuError::Stopped)),
                Err(_) => Err(CpuError::Timeout),
            },
            () = thread.jobs.given_up().cancelled() => Err(CpuError::Stopped),
        };
        drop(caller);
        answer
    }

    /// The pool at this moment. `None` while it is not up.
    pub fn status(&self) -> Option<CpuStatus> {
        let desk = self.door.desk()?;
        let (status, thread) = (desk.status()?, desk.any_worker()?);
        let n_lost = thread.jobs.n_lost().min(status.checked_out);
        Some(CpuStatus {
            idle: status.idle,
            busy: status.checked_out - n_lost,
            lost: n_lost,
            waiting: status.waiting,
        })
    }
}

impl fmt::Debug for CpuPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CpuPool").field("status", &self.status()).finish_non_exhaustive()
    }
}

/// A job that runs, or is about to: it keeps its thread until it is done, whatever its caller does.
struct Running {
    jobs: Arc<Jobs>,
    id: JobId,
    /// Checked in after `drop`.
    _lease: Lease<Thread>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.jobs.end(self.id);
    }
}

/// A job's caller: while it is there, somebody waits.
struct Caller<'a> {
    jobs: &'a Jobs,
    id: JobId,
}

impl Drop for Caller<'_> {
    fn drop(&mut self) {
        self.jobs.abandon(self.id);
    }
}

/// Threads at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuStatus {
    /// Threads without a job.
    pub idle: usize,
    /// Threads whose job is within its time.
    pub busy: usize,
    /// Threads whose job didn't end in time: the pool is smaller by that many, until they do.
    pub lost: usize,
    /// Callers that wait for a thread.
    pub waiting: usize,
}

/// Why a job has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CpuError {
    /// It didn't run.
    #[error("the job didn't run")]
    NotRun(#[from] PoolError),
    /// It wasn't done by its deadline, and was told to give up.
    #[error("the job wasn't done in time")]
    Timeout,
    /// It panicked: the payload, if that was text. Its thread goes on.
    #[error("the job panicked: {0}")]
    Panicked(Arc<str>),
    /// The pool was stopped before it was done.
    #[error("the pool was stopped before the job was done")]
    Stopped,
}

impl CpuError {
    fn panicked(payload: &(dyn std::any::Any + Send)) -> Self {
        match Exit::panicked(payload) {
            Exit::Panicked(text) => Self::Panicked(text),
            other => Self::Panicked(other.to_string().into()),
        }
    }
}

/// What every incarnation of the service is made from.
#[derive(Clone)]
struct Plan {
    config: CpuConfig,
    door: Arc<Door<Thread>>,
    executor: Arc<dyn Executor>,
}

/// The service: has the threads started, and gives up those that are lost.
struct Warden {
    door: Arc<Door<Thread>>,
    desk: Arc<Desk<Thread>>,
    jobs: Arc<Jobs>,
}

impl Service for Warden {
    type Args = Plan;
    type Message = AskDesk<Thread>;

    async fn init(plan: Plan, ctx: &Ctx) -> Result<Init<Self>, Exit> {
        let Plan { config, door, executor } = plan;
        let desk = Desk::open(pool_config(config), ctx.emitter().clone());
        let jobs = Jobs::new(config.grace, ctx.emitter().clone());
        let (closing, last) = (Arc::clone(&desk), Arc::clone(&jobs));
        ctx.at_end(move || {
            closing.close();
            last.give_up_all();
        });
        for errand in desk.take_errands() {
            if let Errand::Start(key) = errand {
                let lane = executor.lane(&format!("{}-{}", ctx.id(), key.0))?;
                desk.started(key, Thread { lane, jobs: Arc::clone(&jobs) });
            }
        }
        Ok(Init::Ready(Self { door, desk, jobs }))
    }

    async fn run(self, mut mailbox: Mailbox<Self::Message>, _: Ctx) -> Result<(), Exit> {
        self.door.lead_to(&self.desk);
        let serve = async {
            while let Some(AskDesk(reply)) = mailbox.recv().await {
                reply.send(Arc::clone(&self.desk));
            }
        };
        tokio::select! {
            biased;
            () = serve => {}
            () = self.jobs.watch() => {}
        }
        self.desk.close();
        self.jobs.stop().await;
        Ok(())
    }
}

fn pool_config(config: CpuConfig) -> PoolConfig {
    let CpuConfig { threads, queue, .. } = config;
    PoolConfig { size: threads, max_overflow: 0, queue, order: Order::Lifo, deaths: None }
}
