//! Bulkheads: a bounded number of workers, a bounded line of callers, and nothing in between.
//!
//! A subsystem that may be slow, crash or be asked too much stands behind a pool, so that it takes
//! only its own workers with it. The rules are poolboy's, and so are the words: callers *check out*
//! a worker and *check it in* again; a pool that has none to spare starts up to `max_overflow`
//! more, and dismisses as many when they come back; the rest of the callers wait in line, each
//! until its own deadline. Only a full line is overload.
//!
//! ```text
//! "parsers"  supervisor, one_for_all      ◄── goes into the tree
//! ├── "workers"  dynamic supervisor       Pool<M> ──► who has a worker to lend?  (a lock)
//! │   ├── "worker-1"  temporary                │
//! │   └── …                                    ▼
//! └── "desk"  starts, watches and stops   Worker<M> ──► Address<M> of one worker
//!             workers by poolboy's rules       └─ dropped: checked in
//! ```
//!
//! Three kinds of workers: services ([`Pool`]), services that own a process ([`Process`], whose
//! memory and time can be limited and who can be killed), and threads ([`CpuPool`], which can't
//! be killed, only given up).

mod core;
mod cpu;
mod desk;
mod door;
mod frame;
mod jobs;
mod keeper;
mod owned;
mod process;
mod seat;
mod threads;

pub use cpu::{CpuConfig, CpuError, CpuPool, CpuStatus};
pub use owned::{Lost, OwnedProcess, ProcessEnd};
pub use process::{Process, ProcessError, ProcessRequest, ProcessSpec};
pub use seat::Seat;
pub use threads::{Executor, Inline, Job, Lane, Threads};

use self::desk::Lease;
use self::door::Door;
use self::keeper::{Keeper, Plan};
use crate::incarnation::delegate;
use crate::{
    Address, CallError, ChildSpec, Reply, Service, SpecError, Stop, Strategy, Supervisor,
    SupervisorSpec, later,
};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Workers that one pool may have. Far more than any machine has use for: a larger number is a
/// mistake of unit.
const WORKERS_MAX: usize = 4096;
/// What stands for "without limit" where a deadline is needed: a worker whose start or stop isn't
/// bounded.
const PATIENCE_MAX: Duration = Duration::from_hours(1);

/// Makes a worker's spec for the address that the pool gave it.
type Template<M> = Arc<dyn Fn(Address<M>) -> ChildSpec + Send + Sync>;

/// How many workers, and how many callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolConfig {
    /// Workers that are always there. They are started with the pool. poolboy: 5.
    pub size: usize,
    /// Workers beyond those, started when all are out, stopped when they come back and nobody
    /// waits. poolboy: 10.
    pub max_overflow: usize,
    /// Callers that may wait for a worker. One more is refused with [`PoolError::Full`]. poolboy
    /// has no bound.
    pub queue: usize,
    /// Which idle worker is lent. Callers are served in the order in which they came in any case.
    pub order: Order,
    /// Worker deaths that are tolerated within a period; one more is the pool's own failure, and
    /// its supervisor restarts it whole. `None`: any number, as in poolboy, which replaces the
    /// dead for ever. A worker that doesn't start fails the pool at once in either case.
    pub deaths: Option<(usize, Duration)>,
}

impl PoolConfig {
    /// Refuses a pool that can't work.
    pub fn check(&self) -> Result<(), PoolConfigError> {
        match self.size.saturating_add(self.max_overflow) {
            0 => Err(PoolConfigError::NoWorkers),
            n if n > WORKERS_MAX => Err(PoolConfigError::TooManyWorkers { n, max: WORKERS_MAX }),
            _ => Ok(()),
        }
    }
}

/// Which of the idle workers is lent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Order {
    /// The one that came back last: warm caches, and the others may rest. poolboy's default.
    Lifo,
    /// The one that came back first: all are used alike.
    Fifo,
}

/// Why a pool can't be built as described. Nothing was started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PoolConfigError {
    /// It would never serve anybody.
    #[error("a pool needs at least one worker")]
    NoWorkers,
    /// More than anybody has use for.
    #[error("a pool of {n} workers is larger than the {max} that it may have")]
    TooManyWorkers {
        /// How many it would have.
        n: usize,
        /// How many it may.
        max: usize,
    },
    /// Its workers or its name can't be supervised as described.
    #[error("the pool can't be supervised as described")]
    Spec(#[from] SpecError),
    /// The template's spec is not of the address that it was given, so nobody would reach the
    /// worker.
    #[error("the template makes a worker at another address than the one it is given")]
    Template,
}

/// Why no worker was lent. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// All workers are out, and so many callers wait that no more may; for
    /// [`try_checkout`](Pool::try_checkout), all workers are out.
    #[error("the pool is full")]
    Full,
    /// No worker came back before the caller's deadline.
    #[error("no worker was free in time")]
    Timeout,
    /// The pool is being started or restarted, and wasn't done by the caller's deadline.
    #[error("the pool is restarting")]
    Restarting,
    /// The pool is down, and nothing is under way to start it.
    #[error("the pool is down")]
    Down,
    /// The pool is down for good.
    #[error("the pool is gone")]
    Gone,
}

/// A pool at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolStatus {
    /// poolboy's word for it.
    pub state: PoolState,
    /// Workers that can be lent at once.
    pub idle: usize,
    /// Workers that are lent.
    pub checked_out: usize,
    /// Workers beyond the size, those that are starting included.
    pub overflow: usize,
    /// Workers that are starting, or will be as soon as those that are stopping have made room.
    pub starting: usize,
    /// Workers that were dismissed and aren't gone yet.
    pub stopping: usize,
    /// Callers that wait, those for whom a worker is starting included.
    pub waiting: usize,
}

/// What the next caller would meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PoolState {
    /// An idle worker.
    Ready,
    /// A worker that has to be started for it, beyond the size.
    Overflow,
    /// The queue.
    Full,
}

/// A pool of services that take messages `M`. Cheap to clone, valid before the first start and
/// across all restarts.
///
/// ```
/// use astscope_supervision::{
///     Ctx, Exit, Init, Mailbox, Order, Pool, PoolConfig, Reply, Service, Strategy, SupervisorSpec,
/// };
/// use std::time::Duration;
///
/// struct Doubler;
/// struct Double(u64, Reply<u64>);
///
/// impl Service for Doubler {
///     type Args = ();
///     type Message = Double;
///
///     async fn init((): (), _: &Ctx) -> Result<Init<Self>, Exit> {
///         Ok(Init::Ready(Doubler))
///     }
///
///     async fn run(self, mut mailbox: Mailbox<Double>, _: Ctx) -> Result<(), Exit> {
///         while let Some(Double(n, reply)) = mailbox.recv().await {
///             reply.send(n * 2);
///         }
///         Ok(())
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let config =
///     PoolConfig { size: 2, max_overflow: 1, queue: 16, order: Order::Lifo, deaths: None };
/// let (doublers, pool) = Pool::new::<Doubler>("doublers", config, ())?;
/// let root = SupervisorSpec::new(Strategy::OneForOne).child(doublers).start("root").await?;
///
/// let within = Duration::from_secs(1);
/// let worker = pool.checkout(within).await?;
/// assert_eq!(worker.call(within, |reply| Double(21, reply)).await?, 42);
/// drop(worker); // checked in
/// root.shutdown().await;
/// # Ok(())
/// # }
/// ```
pub struct Pool<M> {
    door: Arc<Door<Address<M>>>,
}

impl<M: Send + 'static> Pool<M> {
    /// A pool of workers that are all made from these arguments: what goes into the tree, and the
    /// handle. Its supervisor tolerates 3 restarts of the whole pool within 5 s.
    pub fn new<S: Service<Message = M>>(
        id: impl Into<Arc<str>>,
        config: PoolConfig,
        args: S::Args,
    ) -> Result<(ChildSpec, Self), PoolConfigError> {
        Self::from_template(id, config, move |address| {
            ChildSpec::service::<S>(&address, args.clone())
        })
    }

    /// A pool of workers that are made by `template` for the addresses that it is given, which
    /// says how they are stopped, and how long they may take to start. The pool decides when they
    /// are restarted, whatever the template says.
    ///
    /// The template runs where a worker is started, and once here.
    pub fn from_template(
        id: impl Into<Arc<str>>,
        config: PoolConfig,
        template: impl Fn(Address<M>) -> ChildSpec + Send + Sync + 'static,
    ) -> Result<(ChildSpec, Self), PoolConfigError> {
        config.check()?;
        let n_max = config.size + config.max_overflow;
        let address = Address::new("worker", 1);
        let sample = template(address.clone());
        if !Arc::ptr_eq(&sample.slot, address.slot()) {
            return Err(PoolConfigError::Template);
        }
        let patience = patience(&sample, n_max);
        let supervisor = Supervisor::new("workers");
        let workers = ChildSpec::supervisor_at(&supervisor, SupervisorSpec::dynamic(n_max));
        let door = Door::new("desk");
        let plan = Plan {
            config,
            door: Arc::clone(&door),
            workers: supervisor.within(patience),
            template: Arc::new(template),
        };
        let desk = ChildSpec::service::<Keeper<M>>(door.address(), plan).start_timeout(patience);
        // A worker without its desk is nobody's, and a desk without its workers has nothing to
        // lend: either both or none.
        let spec = SupervisorSpec::new(Strategy::OneForAll).child(workers).child(desk);
        let spec = ChildSpec::supervisor(id, spec);
        spec.check()?;
        Ok((spec, Self { door }))
    }

    /// Lends a worker: an idle one, else one beyond the size, else whichever comes back first
    /// after those who wait already got theirs. `within` bounds everything, the wait for a pool
    /// that is being restarted included.
    ///
    /// # Cancel safety
    /// Dropping the future gives up the place in the queue; a worker that was just lent to it goes
    /// back.
    pub async fn checkout(&self, within: Duration) -> Result<Worker<M>, PoolError> {
        let _waiting = delegate();
        let lease = self.door.checkout(later(Instant::now(), within), true).await?;
        Ok(Worker { lease })
    }

    /// Like [`checkout`](Self::checkout), but doesn't wait for what others have: if all workers
    /// are out, the pool is [`Full`](PoolError::Full), and one that is being restarted is reported
    /// at once. `within` bounds the start of a worker beyond the size.
    pub async fn try_checkout(&self, within: Duration) -> Result<Worker<M>, PoolError> {
        let lease = self.door.checkout(later(Instant::now(), within), false).await?;
        Ok(Worker { lease })
    }

    /// Runs a transaction: checks out a worker, and in again when `f` is done, has failed or
    /// panicked, or when the future is dropped. `within` bounds the checkout only.
    pub async fn run<R>(
        &self,
        within: Duration,
        f: impl AsyncFnOnce(&Worker<M>) -> R,
    ) -> Result<R, PoolError> {
        let worker = self.checkout(within).await?;
        Ok(f(&worker).await)
    }

    /// The pool at this moment. `None` while it is not up.
    pub fn status(&self) -> Option<PoolStatus> {
        self.door.desk()?.status()
    }
}

impl<M> Clone for Pool<M> {
    fn clone(&self) -> Self {
        Self { door: Arc::clone(&self.door) }
    }
}

impl<M: Send + 'static> fmt::Debug for Pool<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("status", &self.status()).finish_non_exhaustive()
    }
}

/// A worker that is lent. Dropping it checks it in, as it is: what its borrower asked of it and
/// didn't wait for is still worked on.
pub struct Worker<M> {
    lease: Lease<Address<M>>,
}

impl<M: Send + 'static> Worker<M> {
    /// Sends a request to the worker: [`Address::call`]. The worker is never restarted; one that
    /// dies meanwhile is [gone](CallError::Gone).
    pub async fn call<R>(
        &self,
        within: Duration,
        request: impl FnOnce(Reply<R>) -> M,
    ) -> Result<R, CallError> {
        self.address().call(within, request).await
    }

    /// The worker's address. Not to be used when the worker has been checked in.
    pub fn address(&self) -> &Address<M> {
        self.lease.worker()
    }
}

impl<M> fmt::Debug for Worker<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Worker").field(self.lease.worker()).finish()
    }
}

/// How long one request to the workers' supervisor may take: it serves them one after the other.
fn patience(worker: &ChildSpec, n_max: usize) -> Duration {
    let start = worker.policy.start_timeout.unwrap_or(PATIENCE_MAX);
    let stop = match worker.policy.stop {
        Stop::Kill => Duration::ZERO,
        Stop::Within(time) => time,
        Stop::Wait => PATIENCE_MAX,
    };
    let grace = SupervisorSpec::dynamic(n_max).policy.kill_grace;
    let one = start.saturating_add(stop).saturating_add(grace * 2);
    one.saturating_mul(u32::try_from(n_max).unwrap_or(u32::MAX)).min(PATIENCE_MAX)
}
