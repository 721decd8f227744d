//! A pool of hands in a tree: services that do what a test tells them.

use crate::watching::Watching;
use crate::{LONG, ms, settle};
use astscope_supervision::{
    Ctx, Exit, Init, Mailbox, Observer, Order, Pool, PoolConfig, PoolState, Probe, Reply, Root,
    Service, Strategy, SupervisorSpec, Worker,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// What the workers of one test share.
#[derive(Default)]
pub(crate) struct Floor {
    pub(crate) alive: AtomicUsize,
    pub(crate) alive_max: AtomicUsize,
    /// Inits fail.
    pub(crate) fails: AtomicBool,
    /// How long a worker takes to stop, in milliseconds.
    pub(crate) stop_ms: AtomicUsize,
}

pub(crate) struct Hand(Arc<Floor>);

pub(crate) enum Task {
    /// Says which worker it is.
    Who(Reply<String>),
    /// Ends with a failure.
    Die,
    /// Answers after this time.
    Work(Duration, Reply<()>),
}

impl Service for Hand {
    type Args = Arc<Floor>;
    type Message = Task;

    async fn init(floor: Arc<Floor>, _: &Ctx) -> Result<Init<Self>, Exit> {
        if floor.fails.load(Ordering::SeqCst) {
            return Err(Exit::failed("no hand"));
        }
        let alive = floor.alive.fetch_add(1, Ordering::SeqCst) + 1;
        floor.alive_max.fetch_max(alive, Ordering::SeqCst);
        Ok(Init::Ready(Self(floor)))
    }

    async fn run(self, mut mailbox: Mailbox<Task>, ctx: Ctx) -> Result<(), Exit> {
        while let Some(task) = mailbox.recv().await {
            match task {
                Task::Who(reply) => reply.send(ctx.id().to_string()),
                Task::Die => return Err(Exit::failed("died")),
                Task::Work(time, reply) => {
                    tokio::time::sleep(time).await;
                    reply.send(());
                }
            }
        }
        tokio::time::sleep(ms(self.0.stop_ms.load(Ordering::SeqCst) as u64)).await;
        Ok(())
    }
}

impl Drop for Hand {
    fn drop(&mut self) {
        self.0.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

pub(crate) fn config(size: usize, max_overflow: usize) -> PoolConfig {
    PoolConfig { size, max_overflow, queue: 8, order: Order::Lifo, deaths: None }
}

/// A pool in a tree.
pub(crate) struct Bench {
    pub(crate) root: Root,
    pub(crate) pool: Pool<Task>,
    pub(crate) floor: Arc<Floor>,
    pub(crate) events: Arc<Watching>,
    pub(crate) probe: Probe,
}

impl Bench {
    pub(crate) async fn new(config: PoolConfig) -> Self {
        let floor = Arc::new(Floor::default());
        let (hands, pool) = Pool::new::<Hand>("hands", config, Arc::clone(&floor)).unwrap();
        let (events, probe) = (Watching::new(), Probe::new());
        let observer: Arc<dyn Observer> = Arc::clone(&events) as _;
        let root = SupervisorSpec::new(Strategy::OneForOne)
            .child(hands)
            .observer(observer)
            .probe(probe.clone())
            .start("root")
            .await
            .unwrap();
        settle().await;
        Self { root, pool, floor, events, probe }
    }

    pub(crate) async fn take(&self) -> Worker<Task> {
        self.pool.checkout(Duration::ZERO).await.unwrap()
    }

    pub(crate) async fn n_workers(&self) -> usize {
        let workers = self.root.supervisor().supervisor_at("hands/workers").await.unwrap();
        workers.count_children().await.unwrap().active
    }

    #[track_caller]
    pub(crate) fn check_status(
        &self,
        state: PoolState,
        idle: usize,
        overflow: usize,
        checked_out: usize,
    ) {
        let status = self.pool.status().unwrap();
        let actual = (status.state, status.idle, status.overflow, status.checked_out);
        assert_eq!(actual, (state, idle, overflow, checked_out));
    }
}

pub(crate) async fn who(worker: &Worker<Task>) -> String {
    worker.call(LONG, Task::Who).await.unwrap()
}

pub(crate) async fn kill(worker: &Worker<Task>) {
    worker.address().send_now(Task::Die).unwrap();
    settle().await;
}
