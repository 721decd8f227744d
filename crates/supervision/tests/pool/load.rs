//! Pools of services with many clients, some of whom leave in the middle of everything.

use crate::hands::{Bench, Floor, Hand, Task, config, who};
use crate::{LONG, ms, settle};
use astscope_supervision::{
    CallError, Event, Exit, Fault, Observer, Point, Pool, PoolConfig, PoolState, Strategy,
    SupervisorSpec,
};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Clients as they come: each takes a worker, uses it for a while or leaves in the middle of it.
async fn client(pool: Pool<Task>, n: u64) -> (usize, usize) {
    let (mut n_good, mut n_bad) = (0, 0);
    for round in 0..40_u64 {
        let work = ms((n * 7 + round * 13) % 11);
        let job = pool
            .run(ms(50), async |worker| worker.call(LONG, |reply| Task::Work(work, reply)).await);
        match timeout(ms((n + round * 5) % 17), job).await {
            Ok(Ok(Ok(()))) => n_good += 1,
            Ok(Ok(Err(CallError::Died | CallError::Gone)) | Err(_)) | Err(_) => {
                n_bad += 1;
                settle().await;
            }
            Ok(Ok(Err(other))) => panic!("{other}"),
        }
    }
    (n_good, n_bad)
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_is_restarted_under_load_loses_nobody() {
    let bench = Bench::new(PoolConfig { queue: 4, ..config(3, 2) }).await;
    let mut clients = JoinSet::new();
    for n in 0..16 {
        clients.spawn(client(bench.pool.clone(), n));
    }
    let desk = bench.root.supervisor().child_at("hands/desk").await.unwrap();
    for victim in ["desk", "worker-2", "desk", "worker-1"] {
        settle().await;
        bench.probe.arm(victim, Point::Run, Fault::Panic, 1);
    }
    let counts = timeout(LONG, clients.join_all()).await.unwrap();
    assert_eq!(desk.status().incarnation(), 3);
    let n_good: usize = counts.iter().map(|count| count.0).sum();
    assert!(n_good > 100, "{counts:?}");
    settle().await;
    bench.check_status(PoolState::Ready, 3, 0, 0);
    assert_eq!(bench.pool.status().unwrap().waiting, 0);
    assert_eq!(bench.n_workers().await, 3);
    assert_eq!(bench.floor.alive.load(Ordering::SeqCst), 3);
    assert!(bench.floor.alive_max.load(Ordering::SeqCst) <= 5);
}

/// Real threads, no clock: whatever order things happen in, the counts come out.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn clients_on_many_threads_leave_the_pool_as_it_was() {
    let floor = Arc::new(Floor::default());
    let config = PoolConfig { queue: 64, ..config(2, 2) };
    let (hands, pool) = Pool::new::<Hand>("hands", config, Arc::clone(&floor)).unwrap();
    let root = SupervisorSpec::new(Strategy::OneForOne).child(hands).start("root").await.unwrap();
    let mut clients = JoinSet::new();
    for n in 0..32 {
        let pool = pool.clone();
        clients.spawn(async move {
            for round in 0..50 {
                let job = pool.run(LONG, async |worker| who(worker).await);
                if (n + round) % 3 == 0 {
                    // Dropped wherever it stands after a few polls.
                    let mut job = Box::pin(job);
                    for _ in 0..round % 4 {
                        tokio::select! {
                            biased;
                            _ = &mut job => break,
                            () = tokio::task::yield_now() => {}
                        }
                    }
                } else {
                    job.await.unwrap();
                }
            }
        });
    }
    timeout(LONG, clients.join_all()).await.unwrap();
    let status = pool.status().unwrap();
    assert_eq!((status.checked_out, status.overflow, status.waiting), (0, 0, 0));
    assert!(floor.alive_max.load(Ordering::SeqCst) <= 4);
    let outcome = timeout(LONG, root.shutdown()).await.unwrap();
    assert_eq!((outcome.exit, outcome.unkillable), (Exit::Shutdown, 0));
    assert_eq!(floor.alive.load(Ordering::SeqCst), 0);
}

/// A worker may be returned where there is no runtime.
#[test]
fn a_worker_can_outlive_the_runtime() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let floor = Arc::new(Floor::default());
    let (hands, pool) = Pool::new::<Hand>("hands", config(0, 1), floor).unwrap();
    let worker = runtime.block_on(async {
        let spec = SupervisorSpec::new(Strategy::OneForOne).child(hands).observer(Arc::new(Quiet));
        let root = spec.start("root").await.unwrap();
        let worker = pool.checkout(LONG).await.unwrap();
        std::mem::forget(root);
        worker
    });
    drop(runtime);
    let dropped = std::panic::catch_unwind(AssertUnwindSafe(|| drop(worker)));
    assert!(dropped.is_ok());
}

struct Quiet;

impl Observer for Quiet {
    fn observe(&self, _: &Event) {}
}
