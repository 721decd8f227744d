//! Pools of services: poolboy's rules, and what becomes of a pool's callers when it is restarted.

use crate::hands::{Bench, Floor, Hand, Task, config, kill, who};
use crate::{LONG, ms, settle};
use astscope_supervision::{
    CallError, ChildSpec, EventKind, Exit, Fault, Order, Point, Pool, PoolConfig, PoolConfigError,
    PoolError, PoolState, Stop, Strategy, SupervisorSpec,
};
use expect_test::expect;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

#[tokio::test(start_paused = true)]
async fn case_87_seven_out_of_five_and_five_are_seven_workers() {
    let bench = Bench::new(config(5, 5)).await;
    let mut out = Vec::new();
    for _ in 0..7 {
        out.push(bench.pool.checkout(LONG).await.unwrap());
    }
    assert_eq!(bench.n_workers().await, 7);
    bench.check_status(PoolState::Overflow, 0, 2, 7);
    out.truncate(5);
    settle().await;
    assert_eq!(bench.n_workers().await, 5);
    bench.check_status(PoolState::Overflow, 0, 0, 5);
    out.clear();
    bench.check_status(PoolState::Ready, 5, 0, 0);
    assert_eq!(bench.n_workers().await, 5);
}

#[tokio::test(start_paused = true)]
async fn a_patience_without_end_is_patience() {
    let bench = Bench::new(config(1, 0)).await;
    drop(bench.pool.checkout(Duration::MAX).await.unwrap());
    drop(bench.pool.try_checkout(Duration::MAX).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn case_88_full_is_told_at_once_and_no_time_is_an_error() {
    let bench = Bench::new(config(1, 0)).await;
    let worker = bench.take().await;
    let before = (bench.pool.status(), Instant::now());
    assert_eq!(bench.pool.try_checkout(LONG).await.unwrap_err(), PoolError::Full);
    assert_eq!(bench.pool.checkout(Duration::ZERO).await.unwrap_err(), PoolError::Timeout);
    assert_eq!((bench.pool.status(), Instant::now()), before);
    drop(worker);
    assert_eq!(who(&bench.pool.try_checkout(LONG).await.unwrap()).await, "worker-1");
}

#[tokio::test(start_paused = true)]
async fn case_89_lifo_and_fifo_are_about_workers_and_not_about_callers() {
    for (order, expected) in
        [(Order::Lifo, ["worker-1", "worker-2"]), (Order::Fifo, ["worker-2", "worker-1"])]
    {
        let bench = Bench::new(PoolConfig { order, ..config(2, 0) }).await;
        let (a, b) = (bench.take().await, bench.take().await);
        let (first, second) = if who(&a).await == "worker-1" { (a, b) } else { (b, a) };
        drop(second);
        drop(first);
        let out = [bench.take().await, bench.take().await];
        assert_eq!([who(&out[0]).await, who(&out[1]).await], expected, "{order:?}");

        let mut callers = JoinSet::new();
        let (tell, mut told) = tokio::sync::mpsc::channel(8);
        for caller in 0..3 {
            let (pool, tell) = (bench.pool.clone(), tell.clone());
            callers.spawn(async move {
                let worker = pool.checkout(LONG).await.unwrap();
                tell.send(caller).await.unwrap();
                drop(worker);
            });
            settle().await;
        }
        drop(out);
        let served = [told.recv().await, told.recv().await, told.recv().await];
        assert_eq!(served, [Some(0), Some(1), Some(2)]);
        callers.join_all().await;
    }
}

#[tokio::test(start_paused = true)]
async fn case_90_a_worker_that_dies_while_it_is_out() {
    let bench = Bench::new(config(1, 1)).await;
    // Nobody waits, no overflow: another takes its place.
    let first = bench.take().await;
    kill(&first).await;
    bench.check_status(PoolState::Ready, 1, 0, 0);
    drop(first); // which is nobody's any more
    bench.check_status(PoolState::Ready, 1, 0, 0);
    // Over the size: none does.
    let second = bench.take().await;
    let third = bench.pool.checkout(LONG).await.unwrap();
    kill(&third).await;
    bench.check_status(PoolState::Overflow, 0, 0, 1);
    assert_eq!(bench.n_workers().await, 1);
    // Somebody waits, and gets a fresh one.
    let fourth = bench.pool.checkout(LONG).await.unwrap();
    let waits = bench.pool.checkout(LONG);
    let (fifth, ()) = tokio::join!(waits, kill(&second));
    assert_eq!(who(&fifth.unwrap()).await, "worker-5");
    assert_eq!(who(&fourth).await, "worker-4");
    expect![[r#"
        checked out after 0ns
        worker replaced (failed: died)
        checked out after 0ns
        overflow 1
        checked out after 0ns
        overflow 1
        checked out after 0ns
        worker replaced (failed: died)
        checked out after 0ns
    "#]]
    .assert_eq(&bench.events.take_log());
}

#[tokio::test(start_paused = true)]
async fn case_91_a_client_that_panics_or_leaves_takes_nothing_with_it() {
    let bench = Bench::new(config(1, 0)).await;
    let pool = bench.pool.clone();
    let mut clients = JoinSet::new();
    clients.spawn(async move {
        pool.run(LONG, async |_| panic!("client")).await.unwrap();
    });
    assert!(clients.join_next().await.unwrap().unwrap_err().is_panic());
    bench.check_status(PoolState::Ready, 1, 0, 0);

    // One that is dropped in the middle of its transaction, and one in the queue.
    let pool = bench.pool.clone();
    clients.spawn(async move {
        pool.run(LONG, async |worker| worker.call(LONG, |reply| Task::Work(LONG, reply)).await)
            .await
            .unwrap()
            .unwrap();
    });
    let pool = bench.pool.clone();
    let waits = clients.spawn(async move { drop(pool.checkout(LONG).await) });
    settle().await;
    bench.check_status(PoolState::Full, 0, 0, 1);
    assert_eq!(bench.pool.status().unwrap().waiting, 1);
    waits.abort();
    assert!(clients.join_next().await.unwrap().unwrap_err().is_cancelled());
    assert_eq!(bench.pool.status().unwrap().waiting, 0);
    clients.shutdown().await;
    bench.check_status(PoolState::Ready, 1, 0, 0);
    // A transaction's failure is its result.
    let failed: Result<(), _> = bench.pool.run(LONG, async |_| Err("no")).await.unwrap();
    assert_eq!(failed, Err("no"));
    bench.check_status(PoolState::Ready, 1, 0, 0);
}

#[tokio::test(start_paused = true)]
async fn case_93_the_status_over_four_shapes() {
    let bench = Bench::new(config(2, 0)).await;
    bench.check_status(PoolState::Ready, 2, 0, 0);
    let _out = [bench.take().await, bench.take().await];
    bench.check_status(PoolState::Full, 0, 0, 2);

    let bench = Bench::new(config(1, 1)).await;
    bench.check_status(PoolState::Ready, 1, 0, 0);
    let _base = bench.take().await;
    bench.check_status(PoolState::Overflow, 0, 0, 1);
    let _more = bench.pool.checkout(LONG).await.unwrap();
    bench.check_status(PoolState::Full, 0, 1, 2);

    let bench = Bench::new(config(0, 2)).await;
    bench.check_status(PoolState::Overflow, 0, 0, 0);
    let _one = bench.pool.checkout(LONG).await.unwrap();
    bench.check_status(PoolState::Overflow, 0, 1, 1);
    let _two = bench.pool.checkout(LONG).await.unwrap();
    bench.check_status(PoolState::Full, 0, 2, 2);

    // The fourth, which serves nobody, isn't built; its status is in the core's tests.
    let floor = Arc::new(Floor::default());
    let refused = Pool::new::<Hand>("hands", config(0, 0), floor).map(drop);
    assert_eq!(refused, Err(PoolConfigError::NoWorkers));
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_cannot_work_is_refused() {
    let floor = Arc::new(Floor::default());
    let many = Pool::new::<Hand>("hands", config(usize::MAX, 1), Arc::clone(&floor)).map(drop);
    assert!(matches!(many, Err(PoolConfigError::TooManyWorkers { .. })), "{many:?}");
    let stray = Pool::<Task>::from_template("hands", config(1, 0), |_| {
        ChildSpec::task("another", |_| async { Ok(()) })
    });
    assert_eq!(stray.map(drop), Err(PoolConfigError::Template));
}

#[tokio::test(start_paused = true)]
async fn only_a_full_queue_is_overload() {
    let bench = Bench::new(PoolConfig { queue: 1, ..config(1, 0) }).await;
    let worker = bench.take().await;
    let callers = async {
        tokio::join!(bench.pool.checkout(ms(10)), async {
            let (checkout, start) = (bench.pool.checkout(ms(10)), Instant::now());
            (checkout.await.map(drop), start.elapsed())
        })
    };
    let (waited, refused) = callers.await;
    assert_eq!(waited.map(drop), Err(PoolError::Timeout));
    assert_eq!(refused, (Err(PoolError::Full), Duration::ZERO));
    drop(worker);
    expect![[r#"
        checked out after 0ns
        full
        checkout timed out
    "#]]
    .assert_eq(&bench.events.take_log());
    bench.check_status(PoolState::Ready, 1, 0, 0);
}

#[tokio::test(start_paused = true)]
async fn a_worker_granted_to_who_has_just_left_goes_back() {
    let bench = Bench::new(config(1, 0)).await;
    let worker = bench.take().await;
    let mut waits = Box::pin(bench.pool.checkout(LONG));
    assert!(timeout(ms(1), &mut waits).await.is_err());
    drop(worker); // and it is granted, but nobody has looked yet
    assert_eq!(bench.pool.status().unwrap().checked_out, 1);
    drop(waits);
    bench.check_status(PoolState::Ready, 1, 0, 0);
}

#[tokio::test(start_paused = true)]
async fn a_dismissed_worker_keeps_its_place_until_it_is_gone() {
    let bench = Bench::new(config(1, 1)).await;
    bench.floor.stop_ms.store(1000, Ordering::SeqCst);
    for _ in 0..3 {
        let start = Instant::now();
        let out = [bench.take().await, bench.pool.checkout(LONG).await.unwrap()];
        assert!(start.elapsed() <= ms(1000));
        drop(out);
        settle().await;
    }
    assert_eq!(bench.floor.alive_max.load(Ordering::SeqCst), 2);
    assert_eq!(bench.pool.status().unwrap().stopping, 1);
}

#[tokio::test(start_paused = true)]
async fn an_idle_worker_that_dies_is_replaced() {
    let bench = Bench::new(config(2, 0)).await;
    bench.probe.arm("worker-1", Point::Run, Fault::Panic, 1);
    settle().await;
    bench.check_status(PoolState::Ready, 2, 0, 0);
    let mut names = [who(&bench.take().await).await, String::new()];
    let worker = bench.take().await;
    names[1] = who(&bench.take().await).await;
    assert_eq!(who(&worker).await, names[0]);
    names.sort();
    assert_eq!(names, ["worker-2", "worker-3"]);
}

#[tokio::test(start_paused = true)]
async fn who_holds_a_worker_that_died_is_told() {
    let bench = Bench::new(config(1, 0)).await;
    let worker = bench.take().await;
    kill(&worker).await;
    let answer = worker.call(LONG, Task::Who).await;
    assert_eq!(answer, Err(CallError::Gone));
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_does_not_start_crashes_the_pool_and_the_handle_survives() {
    let bench = Bench::new(config(2, 1)).await;
    let held = bench.take().await;
    let _other = bench.take().await;
    bench.floor.fails.store(true, Ordering::SeqCst);
    // The worker beyond the size doesn't start: the pool crashes, and can't be started either.
    let pool = bench.pool.clone();
    let mut callers = JoinSet::new();
    callers.spawn(async move { pool.checkout(LONG).await.map(drop) });
    bench.events.until(|event| matches!(event, EventKind::StartFailed { .. })).await;
    assert!(bench.pool.status().is_none());
    bench.floor.fails.store(false, Ordering::SeqCst);
    // Who waited gets a worker of the next incarnation; who held one of the last has nothing.
    assert_eq!(callers.join_next().await.unwrap().unwrap(), Ok(()));
    assert_eq!(held.call(LONG, Task::Who).await, Err(CallError::Gone));
    drop(held);
    bench.check_status(PoolState::Ready, 2, 0, 0);
    assert_eq!(bench.floor.alive.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn more_deaths_than_tolerated_restart_the_pool() {
    let deaths = Some((1, Duration::from_secs(5)));
    let bench = Bench::new(PoolConfig { deaths, ..config(1, 0) }).await;
    let desk = bench.root.supervisor().child_at("hands/desk").await.unwrap();
    for incarnation in [1, 2] {
        kill(&bench.pool.checkout(LONG).await.unwrap()).await;
        assert_eq!(desk.status().incarnation(), incarnation);
    }
    bench.check_status(PoolState::Ready, 1, 0, 0);
}

#[tokio::test(start_paused = true)]
async fn the_states_of_a_pool_that_is_not_up() {
    let floor = Arc::new(Floor::default());
    let (hands, pool) = Pool::new::<Hand>("hands", config(1, 0), floor).unwrap();
    assert_eq!(pool.checkout(ms(10)).await.map(drop), Err(PoolError::Down));
    assert!(pool.status().is_none());

    let root = SupervisorSpec::new(Strategy::OneForOne).child(hands).start("root").await.unwrap();
    let worker = pool.checkout(LONG).await.unwrap();
    let waits = pool.checkout(LONG);
    let (waited, outcome) = tokio::join!(waits, root.shutdown());
    assert_eq!(waited.map(drop), Err(PoolError::Gone));
    assert_eq!(outcome.exit, Exit::Shutdown);
    assert_eq!(pool.try_checkout(LONG).await.map(drop), Err(PoolError::Gone));
    drop(worker);
    assert!(pool.status().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_template_says_how_its_workers_are_stopped() {
    let floor = Arc::new(Floor::default());
    floor.stop_ms.store(10_000, Ordering::SeqCst);
    let (hands, pool) = Pool::from_template("hands", config(1, 0), move |address| {
        ChildSpec::service::<Hand>(&address, Arc::clone(&floor)).stop(Stop::Kill)
    })
    .unwrap();
    let root = SupervisorSpec::new(Strategy::OneForOne).child(hands).start("root").await.unwrap();
    drop(pool.checkout(LONG).await.unwrap());
    let start = Instant::now();
    root.shutdown().await;
    assert_eq!(start.elapsed(), Duration::ZERO);
}
