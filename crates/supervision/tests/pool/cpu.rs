//! Pools of threads. On a paused clock jobs run where the test wants them to, else on threads that
//! end when the test lets them.

use crate::watching::Watching;
use crate::{LONG, ms, settle};
use astscope_supervision::{
    Checkpoint, CpuConfig, CpuError, CpuPool, CpuStatus, EventKind, Executor, Exit, Fault, Inline,
    Interrupted, Job, Lane, Observer, Point, PoolConfigError, PoolError, Probe, Root, Strategy,
    SupervisorSpec, Threads,
};
use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

const CONFIG: CpuConfig = CpuConfig { threads: 1, queue: 1, grace: ms(20) };
const THREADS: Threads = Threads { stack_bytes: None };

/// Keeps its jobs until they are told to run.
#[derive(Clone, Default)]
struct Stepped(Arc<Mutex<VecDeque<Job>>>);

impl Executor for Stepped {
    fn lane(&self, _: &str) -> io::Result<Lane> {
        let jobs = Arc::clone(&self.0);
        Ok(Box::new(move |job| jobs.lock().unwrap().push_back(job)))
    }
}

impl Stepped {
    fn run_next(&self) {
        let job = self.0.lock().unwrap().pop_front();
        job.unwrap()();
    }
}

/// Threads in a tree.
struct Bench {
    root: Root,
    cpu: CpuPool,
    events: Arc<Watching>,
    probe: Probe,
}

impl Bench {
    async fn new(config: CpuConfig, executor: impl Executor) -> Self {
        let (threads, cpu) = CpuPool::new("cpu", config, executor).unwrap();
        let (events, probe) = (Watching::new(), Probe::new());
        let observer: Arc<dyn Observer> = Arc::clone(&events) as _;
        let spec = SupervisorSpec::new(Strategy::OneForOne).child(threads);
        let root = spec.observer(observer).probe(probe.clone()).start("root").await.unwrap();
        Self { root, cpu, events, probe }
    }

    /// Begins a job, and what becomes of its caller.
    fn caller<R: Send + 'static>(
        &self,
        within: Duration,
        job: impl FnOnce(&Checkpoint) -> R + Send + 'static,
    ) -> JoinSet<Result<R, CpuError>> {
        let cpu = self.cpu.clone();
        let mut caller = JoinSet::new();
        caller.spawn(async move { cpu.run(within, job).await });
        caller
    }

    #[track_caller]
    fn check_status(&self, idle: usize, busy: usize, lost: usize) {
        let status = self.cpu.status().unwrap();
        assert_eq!((status.idle, status.busy, status.lost), (idle, busy, lost));
    }

    /// Waits until a thread is idle.
    async fn one_works(&self) {
        assert_eq!(self.cpu.run(LONG, |_| 7).await, Ok(7));
    }
}

async fn result<R: 'static>(caller: &mut JoinSet<Result<R, CpuError>>) -> Result<R, CpuError> {
    timeout(LONG, caller.join_next()).await.unwrap().unwrap().unwrap()
}

/// A job that stands still until the sender is used or dropped, and says that it has begun.
fn stuck() -> (SyncSender<()>, Receiver<()>, impl FnOnce(&Checkpoint) + Send + 'static) {
    let (release, released) = sync_channel(1);
    let (begin, begun) = sync_channel(1);
    let job = move |_: &Checkpoint| {
        begin.send(()).unwrap();
        let _released = released.recv();
    };
    (release, begun, job)
}

#[tokio::test(start_paused = true)]
async fn inline_a_job_runs_where_it_is_called() {
    let bench = Bench::new(CONFIG, Inline).await;
    assert_eq!(bench.cpu.run(LONG, |checkpoint| checkpoint.check().is_ok()).await, Ok(true));
    let panics = bench.cpu.run(LONG, |_| panic!("at {}", "work")).await;
    assert_eq!(panics, Err(CpuError::Panicked("at work".into())));
    let hasty = bench.cpu.run(Duration::ZERO, |_| panic!("it must not run")).await;
    assert_eq!(hasty, Err(CpuError::Timeout));
    bench.check_status(1, 0, 0);
}

#[tokio::test(start_paused = true)]
async fn the_queue_is_bounded_and_its_callers_have_deadlines() {
    let stepped = Stepped::default();
    let bench = Bench::new(CONFIG, stepped.clone()).await;
    let mut runs = bench.caller(LONG, |_| 1);
    settle().await;
    let mut waits = bench.caller(ms(10), |_| 2);
    tokio::task::yield_now().await;
    assert_eq!(bench.cpu.run(LONG, |_| 3).await, Err(PoolError::Full.into()));
    assert_eq!(result(&mut waits).await, Err(PoolError::Timeout.into()));
    stepped.run_next();
    assert_eq!(result(&mut runs).await, Ok(1));
    bench.check_status(1, 0, 0);
}

#[tokio::test(start_paused = true)]
async fn a_job_that_does_not_end_costs_a_thread_until_it_does() {
    let stepped = Stepped::default();
    let bench = Bench::new(CpuConfig { threads: 2, ..CONFIG }, stepped.clone()).await;
    let start = Instant::now();
    assert_eq!(bench.cpu.run(ms(10), |_| ()).await, Err(CpuError::Timeout));
    assert_eq!(start.elapsed(), ms(10));
    bench.check_status(1, 1, 0);
    bench.events.until(|event| *event == EventKind::ThreadLost).await;
    assert_eq!(start.elapsed(), ms(30), "its deadline and its grace");
    bench.check_status(1, 0, 1);
    // The other one is all there is.
    let mut runs = bench.caller(LONG, |_| 1);
    settle().await;
    let nothing_left = bench.cpu.run(ms(10), |_| ()).await;
    assert_eq!(nothing_left, Err(PoolError::Timeout.into()));
    // It comes back, and is lent again.
    stepped.run_next();
    bench.check_status(1, 1, 0);
    let mut again = bench.caller(LONG, |_| 2);
    settle().await;
    stepped.run_next();
    stepped.run_next();
    assert_eq!((result(&mut runs).await, result(&mut again).await), (Ok(1), Ok(2)));
    assert_eq!(bench.events.take_log().matches("thread ").count(), 2);
    let outcome = bench.root.shutdown().await;
    assert_eq!((outcome.exit, outcome.unkillable), (Exit::Shutdown, 0));
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_leaves_stops_its_job() {
    let stepped = Stepped::default();
    let bench = Bench::new(CONFIG, stepped.clone()).await;
    let mut caller = bench.caller(LONG, |_| panic!("it must not run"));
    settle().await;
    let left_at = Instant::now();
    caller.shutdown().await;
    bench.events.until(|event| *event == EventKind::ThreadLost).await;
    assert_eq!(left_at.elapsed(), CONFIG.grace);
    stepped.run_next();
    bench.check_status(1, 0, 0);
}

#[tokio::test(start_paused = true)]
async fn a_stop_waits_for_the_grace_and_no_longer() {
    let stepped = Stepped::default();
    let bench = Bench::new(CONFIG, stepped.clone()).await;
    let mut runs = bench.caller(LONG, |_| ());
    settle().await;
    let mut waits = bench.caller(LONG, |_| ());
    tokio::task::yield_now().await;
    let start = Instant::now();
    let outcome = bench.root.shutdown().await;
    assert_eq!(start.elapsed(), CONFIG.grace);
    assert_eq!((outcome.exit, outcome.unkillable), (Exit::Shutdown, 1));
    assert_eq!(bench.events.take().last(), Some(&EventKind::ThreadLost));
    assert_eq!(result(&mut runs).await, Err(CpuError::Stopped));
    assert_eq!(result(&mut waits).await, Err(PoolError::Gone.into()));
    stepped.run_next();
    assert_eq!(bench.events.take(), [EventKind::ThreadBack]);
}

#[tokio::test(start_paused = true)]
async fn a_stop_does_not_wait_for_a_thread_that_is_lost_already() {
    let stepped = Stepped::default();
    let bench = Bench::new(CONFIG, stepped.clone()).await;
    assert_eq!(bench.cpu.run(ms(10), |_| ()).await, Err(CpuError::Timeout));
    bench.events.until(|event| *event == EventKind::ThreadLost).await;
    let start = Instant::now();
    let outcome = bench.root.shutdown().await;
    assert_eq!((start.elapsed(), outcome.unkillable), (Duration::ZERO, 1));
    assert_eq!(bench.events.take_log().matches("thread lost").count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_pool_without_threads_is_refused() {
    let refused = CpuPool::new("cpu", CpuConfig { threads: 0, ..CONFIG }, Inline).map(drop);
    assert_eq!(refused, Err(PoolConfigError::NoWorkers));
}

#[tokio::test]
async fn on_a_thread_a_panic_is_an_error_and_the_thread_goes_on() {
    let bench = Bench::new(CONFIG, THREADS).await;
    let name = |_: &Checkpoint| std::thread::current().name().map(str::to_owned);
    assert_eq!(bench.cpu.run(LONG, name).await, Ok(Some("cpu-1".to_owned())));
    let panics = bench.cpu.run(LONG, |_| panic!("on a thread")).await;
    assert_eq!(panics, Err(CpuError::Panicked("on a thread".into())));
    assert_eq!(bench.cpu.run(LONG, name).await, Ok(Some("cpu-1".to_owned())));
    bench.check_status(1, 0, 0);
}

/// Panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        assert!(std::thread::panicking(), "bomb");
    }
}

#[tokio::test]
async fn a_value_that_panics_when_it_is_dropped_does_no_harm() {
    let bench = Bench::new(CONFIG, THREADS).await;
    // One that the job holds, and one that its caller would have got.
    let bomb = Bomb;
    let panics = bench.cpu.run(LONG, move |_| drop(bomb)).await;
    assert_eq!(panics, Err(CpuError::Panicked("bomb".into())));
    let (release, begun, job) = stuck();
    let mut caller = bench.caller(LONG, |checkpoint| {
        job(checkpoint);
        Bomb
    });
    wait_for(begun).await;
    caller.shutdown().await;
    drop(release);
    bench.one_works().await;
}

/// Waits for a job to begin, without keeping the runtime from anything.
async fn wait_for(begun: Receiver<()>) {
    let mut waiting = JoinSet::new();
    waiting.spawn_blocking(move || begun.recv_timeout(LONG).unwrap());
    waiting.join_all().await;
}

#[tokio::test]
async fn on_a_thread_a_job_hears_that_its_caller_has_left() {
    let bench = Bench::new(CONFIG, THREADS).await;
    let (tell, told) = sync_channel(1);
    let (begin, begun) = sync_channel(1);
    let mut caller = bench.caller(LONG, move |checkpoint| {
        begin.send(()).unwrap();
        loop {
            if let Err(why) = checkpoint.check() {
                return tell.send(why).unwrap();
            }
            std::hint::spin_loop();
        }
    });
    wait_for(begun).await;
    caller.shutdown().await;
    assert_eq!(told.recv_timeout(LONG), Ok(Interrupted::Stopped));
    bench.one_works().await;
}

#[tokio::test]
async fn on_a_thread_a_job_hears_that_its_time_is_over() {
    let config = CpuConfig { grace: LONG, ..CONFIG };
    let bench = Bench::new(config, THREADS).await;
    let (tell, told) = sync_channel(1);
    let answer = bench
        .cpu
        .run(ms(1), move |checkpoint| {
            while checkpoint.check().is_ok() {
                std::hint::spin_loop();
            }
            tell.send(()).unwrap();
        })
        .await;
    // A busy machine may be late with the time, or with the job, which then doesn't begin.
    let expected = [Ok(()), Err(CpuError::Timeout), Err(PoolError::Timeout.into())];
    assert!(expected.contains(&answer), "{answer:?}");
    let _told = told.recv_timeout(LONG);
    bench.one_works().await;
    assert!(!bench.events.take().contains(&EventKind::ThreadLost));
}

#[tokio::test]
async fn a_stuck_thread_is_lost_and_found() {
    let config = CpuConfig { threads: 2, queue: 1, grace: ms(1) };
    let bench = Bench::new(config, THREADS).await;
    let (release, begun, job) = stuck();
    let mut caller = bench.caller(LONG, job);
    wait_for(begun).await;
    caller.shutdown().await;
    bench.events.until(|event| *event == EventKind::ThreadLost).await;
    bench.check_status(1, 0, 1);
    bench.one_works().await;
    drop(release);
    bench.events.until(|event| *event == EventKind::ThreadBack).await;
    bench.one_works().await;
    assert_eq!(bench.cpu.status().map(|status| status.lost), Some(0));
    assert_eq!(bench.root.shutdown().await.unkillable, 0);
}

#[tokio::test]
async fn a_crash_of_the_pool_gives_its_threads_up_and_starts_new_ones() {
    let bench = Bench::new(CONFIG, THREADS).await;
    let (release, begun, job) = stuck();
    let mut caller = bench.caller(LONG, job);
    wait_for(begun).await;
    bench.probe.arm("cpu", Point::Run, Fault::Panic, 1);
    assert_eq!(result(&mut caller).await, Err(CpuError::Stopped));
    bench.one_works().await;
    assert!(bench.events.take().contains(&EventKind::ThreadLost));
    drop(release);
    bench.events.until(|event| *event == EventKind::ThreadBack).await;
    bench.check_status(1, 0, 0);
    assert_eq!(bench.root.shutdown().await.unkillable, 0);
}

#[tokio::test]
async fn deep_recursion_has_the_stack_that_was_asked_for() {
    fn depth(n: u32) -> u32 {
        let frame = std::hint::black_box([0_u8; 1024]);
        if n == 0 { u32::from(frame[0]) } else { depth(n - 1) + 1 }
    }
    let bench = Bench::new(CONFIG, Threads { stack_bytes: Some(64 << 20) }).await;
    assert_eq!(bench.cpu.run(LONG, |_| depth(20_000)).await, Ok(20_000));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_callers_on_many_threads_are_all_answered() {
    let config = CpuConfig { threads: 3, queue: 64, grace: LONG };
    let bench = Bench::new(config, THREADS).await;
    let mut callers = JoinSet::new();
    for n in 0..32_u64 {
        let cpu = bench.cpu.clone();
        callers.spawn(async move {
            for round in 0..30 {
                let job = cpu.run(LONG, move |_| n * round);
                if (n + round) % 3 == 0 {
                    tokio::select! {
                        biased;
                        result = job => assert_eq!(result, Ok(n * round)),
                        () = tokio::task::yield_now() => {}
                    }
                } else {
                    assert_eq!(job.await, Ok(n * round));
                }
            }
        });
    }
    timeout(LONG, callers.join_all()).await.unwrap();
    bench.one_works().await;
    assert_eq!(timeout(LONG, bench.root.shutdown()).await.unwrap().unkillable, 0);
    let status: Option<CpuStatus> = bench.cpu.status();
    assert_eq!(status, None);
}
