//! An executor in a small tree of its own: what each failure costs, and whom.

#![expect(clippy::disallowed_methods, reason = "a test may")]

use super::*;
use crate::service::{CacheConfig, QueryCache, supervisor};
use astscope_supervision::{
    ChildState, Order, Pool, PoolConfig, Recorder, Root, Seat, Strategy, SupervisorSpec,
};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Seats for this many queries and a queue for that many.
struct Bench {
    root: Root,
    executor: ExecutorHandle,
}

impl Bench {
    async fn new(size: usize, queue: usize) -> Self {
        let config = PoolConfig { size, max_overflow: 0, queue, order: Order::Lifo, deaths: None };
        let (pool, seats) = Pool::new::<Seat>("query_execution_pool", config, ()).unwrap();
        let executor = ExecutorHandle::new(ExecutorConfig::default(), seats);
        let cache = QueryCache::<Vec<()>>::new(CacheConfig::default());
        let tree = SupervisorSpec::new(Strategy::OneForOne)
            .child(pool)
            .child(supervisor(&executor, &cache))
            .observer(Recorder::new());
        Self { root: tree.start("root").await.unwrap(), executor }
    }

    /// Begins a query that works until it is told to end or given up.
    async fn begin(&self) -> Busy {
        let (end, told) = sync_channel::<()>(0);
        let (tell, begun) = oneshot::channel();
        let give_up = CancellationToken::new();
        let (executor, token) = (self.executor.clone(), give_up.clone());
        let result = tokio::spawn(async move {
            let watched = token.clone();
            executor
                .execute(None, &token, move |_| {
                    tell.send(()).unwrap();
                    work_until(&told, &watched)
                })
                .await
        });
        begun.await.unwrap();
        Busy { end, give_up, result }
    }

    async fn child(&self, path: &str) -> astscope_supervision::ChildRef {
        self.root.supervisor().child_at(path).await.unwrap()
    }

    /// Names of the workers there are.
    async fn workers(&self) -> Vec<String> {
        let pool = self.root.supervisor().supervisor_at("querying/worker_pool").await.unwrap();
        let children = pool.which_children().await.unwrap();
        children.iter().map(|child| child.id.to_string()).collect()
    }

    async fn quick(&self) -> Result<i32, ExecuteError> {
        self.executor.execute(None, &free(), |_| 42).await
    }
}

/// Gives nobody up.
fn free() -> CancellationToken {
    CancellationToken::new()
}

/// A query at work.
struct Busy {
    end: SyncSender<()>,
    give_up: CancellationToken,
    result: tokio::task::JoinHandle<Result<&'static str, ExecuteError>>,
}

impl Busy {
    async fn result(self) -> Result<&'static str, ExecuteError> {
        self.result.await.unwrap()
    }
}

fn work_until(told: &Receiver<()>, give_up: &CancellationToken) -> &'static str {
    loop {
        if give_up.is_cancelled() {
            return "given up";
        }
        if told.recv_timeout(Duration::from_millis(1)).is_ok() {
            return "done";
        }
    }
}

#[tokio::test]
async fn a_query_runs_on_a_thread_of_its_own_and_its_result_comes_back() {
    let bench = Bench::new(1, 0).await;
    let here = std::thread::current().id();
    let there = bench.executor.execute(None, &free(), |_| std::thread::current().id()).await;
    assert_ne!(there.unwrap(), here);
    let busy = bench.begin().await;
    assert_eq!(bench.workers().await.len(), 1);
    busy.end.send(()).unwrap();
    assert_eq!(busy.result().await, Ok("done"));
    assert_eq!(bench.quick().await, Ok(42));
    bench.root.shutdown().await;
}

#[tokio::test]
async fn as_many_as_have_seats_work_and_only_a_full_queue_is_overload() {
    let bench = Bench::new(2, 1).await;
    let (one, two) = (bench.begin().await, bench.begin().await);
    let soon = Some(Instant::now() + Duration::from_millis(20));
    let late = bench.executor.execute(soon, &free(), |_| ()).await;
    assert_eq!(late, Err(ExecuteError::NoTurn));

    let (executor, token) = (bench.executor.clone(), CancellationToken::new());
    let own = token.clone();
    let waits = tokio::spawn(async move { executor.execute(None, &own, |_| ()).await });
    while bench.executor.seats.status().unwrap().waiting == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(bench.quick().await, Err(ExecuteError::Overloaded));
    token.cancel();
    assert_eq!(waits.await.unwrap(), Err(ExecuteError::GivenUp));

    one.end.send(()).unwrap();
    assert_eq!(one.result().await, Ok("done"));
    assert_eq!(bench.quick().await, Ok(42));
    two.give_up.cancel();
    assert_eq!(two.result().await, Ok("given up"));
}

#[tokio::test]
async fn who_waits_for_a_client_leaves_the_seat_to_others() {
    let bench = Bench::new(1, 4).await;
    let (read, client) = oneshot::channel::<()>();
    let (tell, waits) = oneshot::channel();
    let executor = bench.executor.clone();
    let slow = tokio::spawn(async move {
        let work = move |turn: &Turn| {
            turn.wait(async {
                tell.send(()).unwrap();
                client.await.unwrap();
            });
        };
        executor.execute(None, &free(), work).await
    });
    waits.await.unwrap();
    let other = bench.begin().await;
    read.send(()).unwrap();
    // Now it waits for its seat, which the other has.
    assert!(!slow.is_finished());
    other.end.send(()).unwrap();
    assert_eq!(other.result().await, Ok("done"));
    assert_eq!(slow.await.unwrap(), Ok(()));
}

#[tokio::test]
async fn an_executor_that_is_killed_gives_up_its_queries_and_takes_the_next() {
    let bench = Bench::new(4, 4).await;
    let (one, two) = (bench.begin().await, bench.begin().await);
    let (token, workers) = (one.give_up.clone(), bench.child("querying/worker_pool").await);
    bench.child("querying/query_executor").await.kill();
    for busy in [one, two] {
        assert_eq!(busy.result().await, Err(ExecuteError::Ended(Exit::Killed)));
    }
    token.cancelled().await;
    assert_eq!(bench.quick().await, Ok(42));
    assert_eq!(workers.status().incarnation(), 1, "the workers' supervisor is another child");
    assert_eq!(bench.executor.child().status().incarnation(), 2);
}

#[tokio::test]
async fn check_06_a_worker_that_is_killed_costs_its_own_query_and_is_not_restarted() {
    let bench = Bench::new(4, 4).await;
    let (one, two) = (bench.begin().await, bench.begin().await);
    let newest = bench.workers().await.remove(0);
    bench.child(&format!("querying/worker_pool/{newest}")).await.kill();
    assert_eq!(two.result().await, Err(ExecuteError::Ended(Exit::Killed)));
    assert_eq!(bench.workers().await.len(), 1);
    one.end.send(()).unwrap();
    assert_eq!(one.result().await, Ok("done"));
}

#[tokio::test]
async fn workers_whose_supervisor_is_killed_fail_and_the_next_query_is_run() {
    let bench = Bench::new(1, 4).await;
    let one = bench.begin().await;
    let workers = bench.child("querying/worker_pool").await;
    workers.kill();
    assert_eq!(one.result().await, Err(ExecuteError::Ended(Exit::Killed)));
    // Its seat is free again, and its supervisor back.
    assert_eq!(bench.quick().await, Ok(42));
    assert_eq!(workers.status().incarnation(), 2);
}

#[tokio::test]
async fn a_panic_is_its_own_querys() {
    let bench = Bench::new(2, 4).await;
    let other = bench.begin().await;
    let panics = bench.executor.execute(None, &free(), |_| -> () { panic!("x") }).await;
    assert_eq!(panics, Err(ExecuteError::Ended(Exit::Panicked("x".into()))));
    other.end.send(()).unwrap();
    assert_eq!(other.result().await, Ok("done"));
}

#[tokio::test]
async fn a_caller_that_leaves_gives_its_query_up() {
    let bench = Bench::new(1, 4).await;
    let busy = bench.begin().await;
    busy.result.abort();
    busy.give_up.cancelled().await;
    assert_eq!(bench.quick().await, Ok(42));
}

#[tokio::test(start_paused = true)]
async fn without_an_executor_a_query_waits_for_a_while() {
    let bench = Bench::new(1, 4).await;
    let querying = bench.root.supervisor().supervisor_at("querying").await.unwrap();
    querying.terminate_child("query_executor").await.unwrap();
    let (asked, token) = (Instant::now(), free());
    let refused = bench.executor.execute(None, &token, |_| 42).await;
    assert_eq!(refused, Err(ExecuteError::Unavailable(SendError::Down)));
    assert_eq!(asked.elapsed(), Duration::from_secs(10));
    assert!(!token.is_cancelled(), "who asked may ask again");
    let executor = bench.executor.child();
    assert_eq!(executor.status().state(), ChildState::Down);
    querying.restart_child("query_executor").await.unwrap();
    assert_eq!(bench.quick().await, Ok(42));
}
