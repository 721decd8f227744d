//! Tasks and streams of them, held to Elixir's `Task.Supervisor`: cases 79 to 83 of the
//! conformance list and the rules around them.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may, and has no scope to spawn in"
)]

mod stage;

use astscope_supervision::{
    AdminError, ChildSpec, Ctx, Exit, Fault, Observer, OnTimeout, Point, Probe, Recorder, Restart,
    Root, Strategy, StreamOptions, SupervisorSpec, Task, TaskError, TaskStream, TaskSupervisor,
};
use stage::{Stage, settle};
use std::future::{Future, pending};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep, timeout};

const LONG: Duration = Duration::from_hours(1);

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// A tree with nothing in it but a task supervisor.
async fn tasks(spec: SupervisorSpec) -> (Root, TaskSupervisor) {
    let tasks = TaskSupervisor::new("tasks");
    let root = SupervisorSpec::new(Strategy::OneForOne)
        .child(tasks.spec(spec))
        .observer(Recorder::new())
        .start("root")
        .await
        .unwrap();
    (root, tasks)
}

async fn n_active(tasks: &TaskSupervisor) -> usize {
    tasks.supervisor().count_children().await.unwrap().active
}

fn n_alive() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

/// Counts those who are inside.
#[derive(Clone, Default)]
struct Inside(Arc<(AtomicUsize, AtomicUsize)>);

struct Visit(Inside);

impl Inside {
    fn enter(&self) -> Visit {
        let now = self.0.0.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.1.fetch_max(now, Ordering::SeqCst);
        Visit(self.clone())
    }

    fn now(&self) -> usize {
        self.0.0.load(Ordering::SeqCst)
    }

    fn most(&self) -> usize {
        self.0.1.load(Ordering::SeqCst)
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.0.0.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A worker that starts a task, keeps it, and does nothing else.
fn caller<F, W>(id: &str, start: F) -> ChildSpec
where
    F: Fn(Ctx) -> W + Clone + Send + Sync + 'static,
    W: Future<Output = Result<Task<()>, AdminError>> + Send,
{
    ChildSpec::task(id, move |ctx| {
        let start = start.clone();
        async move {
            let _task = start(ctx.clone()).await?;
            ctx.stopping().await;
            Ok(())
        }
    })
    .restart(Restart::Temporary)
}

// ── single tasks ────────────────────────────────────────────────────────────────────────────────

#[tokio::test(start_paused = true)]
async fn case_79_an_unlinked_task_that_crashes_is_only_its_joiners_business() {
    let (root, tasks) = tasks(SupervisorSpec::dynamic(10)).await;
    let bystander = tasks.spawn(async { sleep(secs(1)).await }).await.unwrap();
    let crash = tasks.spawn(async { panic!("boom") }).await.unwrap();
    let error = TaskError::Exited(Exit::Panicked("boom".into()));
    assert_eq!(crash.join(secs(5)).await, Err::<(), _>(error));
    assert_eq!(bystander.join(secs(5)).await, Ok(()));
    assert_eq!(root.shutdown().await.exit, Exit::Shutdown);
}

#[tokio::test(start_paused = true)]
async fn case_79_a_linked_task_that_crashes_takes_its_caller_along() {
    let (root, tasks) = tasks(SupervisorSpec::dynamic(10)).await;
    let bystander = tasks.spawn(async { sleep(secs(9)).await }).await.unwrap();
    let own = tasks.clone();
    let caller = caller("caller", move |ctx| {
        let tasks = own.clone();
        async move {
            let crash = async {
                sleep(secs(1)).await;
                panic!("boom");
            };
            tasks.spawn_linked(&ctx, crash).await
        }
    });
    let caller = root.supervisor().start_child(caller).await.unwrap().unwrap();
    assert_eq!(caller.monitor().down().await, Exit::Panicked("boom".into()));
    assert_eq!(bystander.join(secs(10)).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_linked_task_ends_with_its_caller_and_an_unlinked_one_does_not() {
    let (root, tasks) = tasks(SupervisorSpec::dynamic(10)).await;
    let (linked, unlinked) = (Inside::default(), Inside::default());
    for (id, inside, is_linked) in [("a", &linked, true), ("b", &unlinked, false)] {
        let (tasks, inside) = (tasks.clone(), inside.clone());
        let caller = caller(id, move |ctx| {
            let (tasks, visit) = (tasks.clone(), inside.enter());
            async move {
                let work = async move {
                    let _visit = visit;
                    sleep(LONG).await;
                };
                if is_linked {
                    tasks.spawn_linked(&ctx, work).await
                } else {
                    tasks.spawn(work).await
                }
            }
        });
        root.supervisor().start_child(caller).await.unwrap();
    }
    settle().await;
    assert_eq!((linked.now(), unlinked.now()), (1, 1));
    root.supervisor().terminate_child("a").await.unwrap();
    root.supervisor().terminate_child("b").await.unwrap();
    settle().await;
    assert_eq!((linked.now(), unlinked.now()), (0, 1));
    assert_eq!(n_active(&tasks).await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_linked_task_that_is_shut_down_leaves_its_caller_alone() {
    let (root, tasks) = tasks(SupervisorSpec::dynamic(10)).await;
    let own = tasks.clone();
    let caller = ChildSpec::task("caller", move |ctx| {
        let tasks = own.clone();
        async move {
            let task = tasks.spawn_linked(&ctx, pending::<()>()).await?;
            if task.shutdown().await != Ok(None) {
                return Err(Exit::failed("it wasn't shut down"));
            }
            sleep(secs(1)).await;
            Err(Exit::ShutdownWith("all is well".into()))
        }
    })
    .restart(Restart::Temporary);
    let caller = root.supervisor().start_child(caller).await.unwrap().unwrap();
    assert_eq!(caller.monitor().down().await, Exit::ShutdownWith("all is well".into()));
}

#[tokio::test(start_paused = true)]
async fn case_80_a_join_that_times_out_discards_the_late_result_and_leaks_nothing() {
    let (root, tasks) = tasks(SupervisorSpec::dynamic(10)).await;
    let base = n_alive();
    let results = Inside::default();
    for _ in 0..5 {
        let results = results.clone();
        let late = async move {
            sleep(secs(10)).await;
            results.enter()
        };
        let task = tasks.spawn(late).await.unwrap();
        let begun = Instant::now();
        assert!(matches!(task.join(secs(1)).await, Err(TaskError::Timeout)));
        assert_eq!(begun.elapsed(), secs(1));
    }
    settle().await;
    assert_eq!((n_active(&tasks).await, n_alive()), (5, base + 5), "they go on");
    sleep(secs(10)).await;
    assert_eq!((results.most(), results.now()), (1, 0), "each result was made and dropped");
    assert_eq!((n_active(&tasks).await, n_alive()), (0, base));
    root.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_gives_the_result_if_it_was_there_nothing_if_not_and_the_exit_of_a_crash() {
    let (_root, tasks) = tasks(SupervisorSpec::dynamic(10)).await;
    let done = tasks.spawn(async { 1 }).await.unwrap();
    let busy = tasks.spawn(pending::<i32>()).await.unwrap();
    let dead = tasks.spawn(async { panic!("boom") }).await.unwrap();
    settle().await;
    assert_eq!(done.shutdown().await, Ok(Some(1)));
    assert_eq!(busy.shutdown().await, Ok(None));
    assert_eq!(dead.shutdown().await, Err::<Option<i32>, _>(Exit::Panicked("boom".into())));
    assert_eq!(n_active(&tasks).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_is_no_longer_wanted_ends_in_order_and_is_nothing_to_report() {
    let tasks = TaskSupervisor::new("tasks");
    let recorder = Recorder::new();
    let root = SupervisorSpec::new(Strategy::OneForOne)
        .child(tasks.spec(SupervisorSpec::dynamic(10)))
        .observer(Arc::clone(&recorder) as Arc<dyn Observer>)
        .start("root")
        .await
        .unwrap();
    tasks.spawn(pending::<()>()).await.unwrap().shutdown().await.unwrap();
    settle().await;
    let reports: Vec<_> =
        recorder.events().into_iter().filter(|event| event.kind.is_report()).collect();
    assert_eq!(reports, []);
    drop(root);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_does_not_end_is_waited_for_no_longer_than_5_s() {
    let probe = Probe::new();
    let (_root, tasks) = tasks(SupervisorSpec::dynamic(10).probe(probe.clone())).await;
    probe.arm("task#1", Point::Drop, Fault::Slow(LONG), 1);
    let stuck = tasks.spawn(pending::<()>()).await.unwrap();
    let begun = Instant::now();
    assert_eq!(stuck.shutdown().await, Err(Exit::Unkillable));
    assert_eq!(begun.elapsed(), secs(5));

    // One that crashed, and whose end takes longer than its joiner wants to wait.
    probe.arm("task#2", Point::Drop, Fault::Slow(LONG), 1);
    let stuck = tasks.spawn(async { panic!("boom") }).await.unwrap();
    let begun = Instant::now();
    assert_eq!(stuck.join(secs(2)).await, Err::<(), _>(TaskError::Timeout));
    assert_eq!(begun.elapsed(), secs(2));
}

#[tokio::test(start_paused = true)]
async fn there_are_never_more_tasks_than_there_may_be() {
    let (_root, tasks) = tasks(SupervisorSpec::dynamic(2)).await;
    let one = tasks.spawn(pending::<()>()).await.unwrap();
    let _two = tasks.spawn(pending::<()>()).await.unwrap();
    assert_eq!(tasks.spawn(pending::<()>()).await.unwrap_err(), AdminError::MaxChildren);
    one.shutdown().await.unwrap();
    let _three = tasks.spawn(pending::<()>()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_has_a_result_finds_the_place_of_its_task_free() {
    let (root, tasks) = tasks(SupervisorSpec::dynamic(1)).await;
    for n in 0..300 {
        assert_eq!(tasks.spawn(async move { n }).await.unwrap().join(LONG).await, Ok(n));
    }
    root.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_spawn_that_is_given_up_leaves_no_task_behind() {
    let (_root, tasks) = tasks(SupervisorSpec::dynamic(10)).await;
    let inside = Inside::default();
    let work = |visit: Visit| async move {
        let _visit = visit;
        sleep(LONG).await;
    };
    let mut spawn = Box::pin(tasks.spawn(work(inside.enter())));
    // The request is on its way. By the time that it is given up, the task runs.
    assert!(timeout(Duration::ZERO, &mut spawn).await.is_err());
    settle().await;
    assert_eq!((inside.now(), n_active(&tasks).await), (1, 1));
    drop(spawn);
    settle().await;
    assert_eq!((inside.now(), n_active(&tasks).await), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn to_wait_for_ever_is_no_error() {
    let (_root, tasks) = tasks(SupervisorSpec::dynamic(10)).await;
    let task = tasks.spawn(async { sleep(LONG).await }).await.unwrap();
    assert_eq!(task.join(Duration::MAX).await, Ok(()));
    let options = StreamOptions { timeout: Duration::MAX, ..StreamOptions::default() };
    let mut stream = tasks.stream([1], options, |n| async move { n });
    assert_eq!(stream.next().await, Some(Ok(1)));
}

#[tokio::test(start_paused = true)]
async fn tasks_end_with_their_supervisor_and_a_new_one_takes_new_ones() {
    let (root, tasks) = tasks(SupervisorSpec::dynamic(10)).await;
    let task = tasks.spawn(pending::<()>()).await.unwrap();
    root.supervisor().terminate_child("tasks").await.unwrap();
    assert_eq!(task.join(secs(1)).await, Err(TaskError::Exited(Exit::Shutdown)));
    root.supervisor().restart_child("tasks").await.unwrap();
    assert_eq!(tasks.spawn(async { 1 }).await.unwrap().join(secs(1)).await, Ok(1));
}

#[tokio::test(start_paused = true)]
async fn a_task_that_ends_at_once_was_started_also_while_a_sibling_is_tried_again() {
    let stage = Stage::new();
    let root = SupervisorSpec::new(Strategy::OneForOne).child(stage.worker("a"));
    let root = stage.start(root).await;
    // The request waits for the restart of `a`, which fails and is to be tried again after it.
    stage.hold("a");
    stage.fail("a", 1);
    stage.crash("a").await;
    let start = root.supervisor().start_child(ChildSpec::once("b", |_| async { Ok(()) }));
    let release = async {
        settle().await;
        stage.release("a");
    };
    let (started, ()) = tokio::join!(start, release);
    let task = started.unwrap().unwrap();
    assert_eq!(task.monitor().down().await, Exit::Normal);
    root.shutdown().await;
}

// ── streams ─────────────────────────────────────────────────────────────────────────────────────

fn options(max_concurrency: usize, ordered: bool) -> StreamOptions {
    StreamOptions { max_concurrency, ordered, ..StreamOptions::default() }
}

async fn collect<T: Send + 'static>(stream: &mut TaskStream<T>) -> Vec<Result<T, TaskError>> {
    let mut results = Vec::new();
    while let Some(result) = stream.next().await {
        results.push(result);
    }
    results
}

/// How long each of ten items takes, so that no two of four at a time are done together.
const TEN: [u64; 10] = [20_000, 9000, 8000, 6000, 1000, 5000, 3500, 2000, 4000, 1000];

fn stream_of_ten(
    tasks: &TaskSupervisor,
    options: StreamOptions,
    inside: &Inside,
) -> TaskStream<usize> {
    let inside = inside.clone();
    let options = StreamOptions { timeout: LONG, ..options };
    tasks.stream(TEN.into_iter().enumerate(), options, move |(n, millis)| {
        let visit = inside.enter();
        async move {
            let _visit = visit;
            sleep(Duration::from_millis(millis)).await;
            n
        }
    })
}

#[tokio::test(start_paused = true)]
async fn case_81_no_more_tasks_at_once_than_wanted_and_results_in_the_order_that_is_wanted() {
    let in_order: Vec<_> = (0..10).collect();
    let as_done = vec![3, 4, 2, 1, 7, 6, 5, 9, 8, 0];
    for (n, ordered, millis, expected) in [
        (1, true, 59_500, &in_order),
        (1, false, 59_500, &in_order),
        // 0 holds its place until 20 s, and with the seven behind it everything.
        (4, true, 24_000, &in_order),
        (4, false, 20_000, &as_done),
    ] {
        let (root, tasks) = tasks(SupervisorSpec::dynamic(100)).await;
        let inside = Inside::default();
        let begun = Instant::now();
        let results = collect(&mut stream_of_ten(&tasks, options(n, ordered), &inside)).await;
        let results: Vec<_> = results.into_iter().map(Result::unwrap).collect();
        assert_eq!(&results, expected, "{n} at once, ordered: {ordered}");
        assert_eq!(begun.elapsed().as_millis(), millis, "{n} at once, ordered: {ordered}");
        assert_eq!((inside.most(), inside.now()), (n, 0));
        root.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn case_81_the_source_is_pulled_only_when_a_task_can_start_and_somebody_waits() {
    let (_root, tasks) = tasks(SupervisorSpec::dynamic(100)).await;
    let log = Arc::new(Mutex::new(String::new()));
    let line = |log: &Mutex<String>, text: String| log.lock().unwrap().push_str(&text);
    let (pulls, ends) = (Arc::clone(&log), Arc::clone(&log));
    let source = (0..6_u64).inspect(move |n| line(&pulls, format!("pull {n}, ")));
    let mut stream = tasks.stream(source, options(2, true), move |n| {
        let ends = Arc::clone(&ends);
        async move {
            sleep(secs(1)).await;
            line(&ends, format!("end {n}, "));
        }
    });
    settle().await;
    assert_eq!(*log.lock().unwrap(), "", "nobody waits");
    for expected in [
        "pull 0, pull 1, end 0, end 1, pull 2, end 2, ",
        "pull 3, end 3, ",
        "pull 4, end 4, ",
        "pull 5, end 5, ",
        "",
        "",
    ] {
        assert_eq!(stream.next().await, Some(Ok(())));
        sleep(LONG).await; // as long as the consumer likes
        assert_eq!(std::mem::take(&mut *log.lock().unwrap()), expected);
    }
    assert_eq!(stream.next().await, None);
    assert_eq!(stream.next().await, None, "and so it stays");
}

#[tokio::test(start_paused = true)]
async fn a_slow_head_holds_the_others_back_instead_of_filling_the_memory() {
    let (_root, tasks) = tasks(SupervisorSpec::dynamic(100)).await;
    let pulled = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&pulled);
    let source = (0..100_u64).inspect(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
    });
    let options = StreamOptions { timeout: LONG, ..options(4, true) };
    let mut stream = tasks.stream(source, options, |n| async move {
        sleep(secs(if n == 0 { 1000 } else { 1 })).await;
        n
    });
    assert!(timeout(secs(900), stream.next()).await.is_err());
    assert_eq!(pulled.load(Ordering::SeqCst), 8, "the head, and twice as many as may run in all");
    assert_eq!(n_active(&tasks).await, 1, "only the head still runs");
    let results = collect(&mut stream).await;
    assert_eq!(results, (0..100).map(Ok).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn case_82_an_item_that_takes_too_long_is_killed_and_the_others_go_on() {
    let (_root, tasks) = tasks(SupervisorSpec::dynamic(100)).await;
    for ordered in [true, false] {
        let inside = Inside::default();
        let visits = inside.clone();
        let options = StreamOptions { on_timeout: OnTimeout::KillTask, ..options(2, ordered) };
        let mut stream = tasks.stream(0..5_u64, options, move |n| {
            let visit = visits.enter();
            async move {
                let _visit = visit;
                sleep(secs(if n == 1 { 60 } else { 3 })).await;
                n
            }
        });
        let begun = Instant::now();
        let mut results = collect(&mut stream).await;
        results.sort_by_key(|result| result.clone().unwrap_or(1));
        let timeout = Err(TaskError::Timeout);
        assert_eq!(results, [Ok(0), timeout, Ok(2), Ok(3), Ok(4)]);
        // 0 until 3, 2 until 6, 4 until 9; 1 is killed at 5, so 3 is done at 8.
        assert_eq!(begun.elapsed(), secs(9));
        assert_eq!((inside.now(), inside.most(), n_active(&tasks).await), (0, 2, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn case_82_a_timeout_may_end_the_stream_and_then_everything_is_gone_when_it_is_told() {
    let (_root, tasks) = tasks(SupervisorSpec::dynamic(100)).await;
    for ordered in [true, false] {
        let inside = Inside::default();
        let visits = inside.clone();
        let mut stream = tasks.stream(0..10_u64, options(3, ordered), move |n| {
            let visit = visits.enter();
            async move {
                let _visit = visit;
                sleep(secs(if n == 1 { 60 } else { 3 })).await;
                n
            }
        });
        assert_eq!(stream.next().await, Some(Ok(0)));
        assert_eq!(inside.now(), 2);
        let rest = collect(&mut stream).await;
        let before = usize::from(!ordered);
        assert_eq!(rest[..before], [Ok(2)][..before]);
        assert_eq!(rest[before..], [Err(TaskError::Timeout)]);
        assert_eq!((inside.now(), n_active(&tasks).await), (0, 0));
        assert_eq!(stream.next().await, None);
    }
}

#[tokio::test(start_paused = true)]
async fn the_time_of_an_item_runs_from_its_own_start() {
    let (_root, tasks) = tasks(SupervisorSpec::dynamic(100)).await;
    // The last one starts after 12 s, and has its 5 s from there.
    let mut stream = tasks.stream(0..4_u64, options(1, true), |n| async move {
        sleep(secs(4)).await;
        n
    });
    assert_eq!(collect(&mut stream).await, [Ok(0), Ok(1), Ok(2), Ok(3)]);
}

#[tokio::test(start_paused = true)]
async fn case_83_all_tasks_are_gone_when_a_close_returns_and_soon_after_a_drop() {
    let (_root, tasks) = tasks(SupervisorSpec::dynamic(100)).await;
    let base = n_alive();
    for closes in [true, false] {
        let inside = Inside::default();
        let mut stream = stream_of_ten(&tasks, options(4, false), &inside);
        assert_eq!(stream.next().await, Some(Ok(3)));
        assert_eq!(inside.now(), 4);
        if closes {
            stream.close().await;
        } else {
            drop(stream);
            settle().await;
        }
        assert_eq!((inside.now(), n_active(&tasks).await, n_alive()), (0, 0, base));
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_with_the_service_that_reads_it() {
    let (root, tasks) = tasks(SupervisorSpec::dynamic(100)).await;
    let inside = Inside::default();
    let (own, visits) = (tasks.clone(), inside.clone());
    let reader = ChildSpec::task("reader", move |_| {
        let mut stream = stream_of_ten(&own, options(4, true), &visits);
        async move {
            while stream.next().await.is_some() {}
            Ok(())
        }
    })
    .stop(astscope_supervision::Stop::Kill);
    root.supervisor().start_child(reader).await.unwrap();
    settle().await;
    assert_eq!(inside.now(), 4);
    root.supervisor().terminate_child("reader").await.unwrap();
    settle().await;
    assert_eq!((inside.now(), n_active(&tasks).await), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_close_waits_for_the_task_that_is_just_being_started() {
    let (_root, tasks) = tasks(SupervisorSpec::dynamic(100)).await;
    let inside = Inside::default();
    let mut stream = stream_of_ten(&tasks, options(4, true), &inside);
    assert!(timeout(Duration::ZERO, stream.next()).await.is_err());
    stream.close().await;
    assert_eq!((inside.now(), n_active(&tasks).await), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_crash_takes_its_items_place_wherever_in_the_work_it_happens() {
    let (_root, tasks) = tasks(SupervisorSpec::dynamic(100)).await;
    let options = options(2, true);
    let mut stream = tasks.stream(0..4_u64, options, |n| {
        assert!(n != 1, "before the future is made");
        async move {
            sleep(secs(1)).await;
            assert!(n != 2, "in the future");
            n
        }
    });
    let crash = |text: &str| Err(TaskError::Exited(Exit::Panicked(text.into())));
    let expected = [Ok(0), crash("before the future is made"), crash("in the future"), Ok(3)];
    assert_eq!(collect(&mut stream).await, expected);
}

#[tokio::test(start_paused = true)]
async fn a_crash_that_takes_a_while_to_be_reported_does_not_hold_the_others_back() {
    let probe = Probe::new();
    let (_root, tasks) = tasks(SupervisorSpec::dynamic(100).probe(probe.clone())).await;
    probe.arm("task#1", Point::Drop, Fault::Slow(secs(3)), 1);
    let mut stream = tasks.stream(0..3_u64, options(3, false), |n| async move {
        assert!(n != 0, "boom");
        sleep(secs(n)).await;
        n
    });
    let crash = Err(TaskError::Exited(Exit::Panicked("boom".into())));
    assert_eq!(collect(&mut stream).await, [Ok(1), Ok(2), crash]);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_panics_does_so_in_next_and_ends_the_stream() {
    let (_root, tasks) = tasks(SupervisorSpec::dynamic(100)).await;
    let mut pulls = 0;
    let source = std::iter::from_fn(move || {
        pulls += 1;
        assert!(pulls < 3, "no more");
        Some(pulls)
    });
    let mut stream = tasks.stream(source, options(4, true), |n| async move { n });
    let reader = tokio::spawn(async move {
        let panicked = tokio::spawn(async move {
            let stream = Arc::new(tokio::sync::Mutex::new(stream));
            let own = Arc::clone(&stream);
            let first = tokio::spawn(async move { own.lock().await.next().await });
            assert!(first.await.unwrap_err().is_panic());
            Arc::into_inner(stream).unwrap().into_inner()
        });
        stream = panicked.await.unwrap();
        collect(&mut stream).await
    });
    assert_eq!(reader.await.unwrap(), [Ok(1), Ok(2)]);
}

#[tokio::test(start_paused = true)]
async fn a_consumer_that_keeps_giving_up_gets_every_result_once() {
    for ordered in [true, false] {
        let (_root, tasks) = tasks(SupervisorSpec::dynamic(100)).await;
        let mut stream = stream_of_ten(&tasks, options(3, ordered), &Inside::default());
        let mut results = Vec::new();
        loop {
            match timeout(Duration::ZERO, stream.next()).await {
                Ok(Some(result)) => results.push(result.unwrap()),
                Ok(None) => break,
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        }
        results.sort_unstable();
        assert_eq!(results, (0..10).collect::<Vec<_>>());
    }
}

#[tokio::test(start_paused = true)]
async fn a_timeout_that_ends_the_stream_is_told_also_to_a_consumer_who_gave_up_meanwhile() {
    let probe = Probe::new();
    let (_root, tasks) = tasks(SupervisorSpec::dynamic(100).probe(probe.clone())).await;
    probe.arm("task#2", Point::Drop, Fault::Slow(secs(2)), 1);
    let mut stream = tasks.stream(0..9, options(2, true), |_| pending::<()>());
    // Both are killed at 5 s, and the second one is there until 7 s.
    assert!(timeout(secs(6), stream.next()).await.is_err());
    let begun = Instant::now();
    assert_eq!(stream.next().await, Some(Err(TaskError::Timeout)));
    assert_eq!(begun.elapsed(), secs(1));
    assert_eq!(stream.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_killed_item_stays_timed_out_for_a_consumer_who_gave_up_meanwhile() {
    let probe = Probe::new();
    let (_root, tasks) = tasks(SupervisorSpec::dynamic(100).probe(probe.clone())).await;
    probe.arm("task#1", Point::Drop, Fault::Slow(secs(2)), 1);
    let options = StreamOptions { on_timeout: OnTimeout::KillTask, ..options(1, true) };
    let mut stream = tasks.stream(0..1, options, |_| pending::<()>());
    assert!(timeout(secs(6), stream.next()).await.is_err());
    assert_eq!(stream.next().await, Some(Err(TaskError::Timeout)));
    assert_eq!(stream.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_cannot_be_killed_holds_a_stream_for_5_s_more_and_nobody_else() {
    let probe = Probe::new();
    let (_root, tasks) = tasks(SupervisorSpec::dynamic(100).probe(probe.clone())).await;
    probe.arm("task#1", Point::Drop, Fault::Slow(LONG), 1);
    let options = StreamOptions { on_timeout: OnTimeout::KillTask, ..options(2, false) };
    let mut stream = tasks.stream(0..4_u64, options, |n| async move {
        match n {
            0 => pending().await,
            _ => sleep(secs(4)).await,
        }
        n
    });
    let begun = Instant::now();
    let mut told = Vec::new();
    while let Some(result) = stream.next().await {
        told.push((begun.elapsed().as_secs(), result));
    }
    let stuck = (10, Err(TaskError::Timeout));
    assert_eq!(told, [(4, Ok(1)), (8, Ok(2)), stuck, (12, Ok(3))]);

    probe.arm("task#5", Point::Drop, Fault::Slow(LONG), 1);
    let mut stream = tasks.stream(0..2, options, |_| pending::<()>());
    assert!(timeout(secs(1), stream.next()).await.is_err());
    let begun = Instant::now();
    stream.close().await;
    assert_eq!(begun.elapsed(), secs(5));
}

#[tokio::test(start_paused = true)]
async fn an_item_whose_task_cannot_start_says_so_in_its_place() {
    let (root, tasks) = tasks(SupervisorSpec::dynamic(1)).await;
    let mut stream = tasks.stream(0..2, options(2, true), |_| async {
        sleep(secs(1)).await;
    });
    let refused = |why| Err(TaskError::NotStarted(why));
    assert_eq!(collect(&mut stream).await, [Ok(()), refused(AdminError::MaxChildren)]);
    root.shutdown().await;
    let mut stream = tasks.stream(0..2, options(2, true), |_| async {});
    let gone = || refused(AdminError::Gone);
    assert_eq!(collect(&mut stream).await, [gone(), gone()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_as_many_tasks_as_there_may_be_is_never_refused_one() {
    let (root, tasks) = tasks(SupervisorSpec::dynamic(2)).await;
    for ordered in [true, false] {
        let mut stream = tasks.stream(0..300, options(2, ordered), |n| async move { n });
        let mut results: Vec<i32> =
            collect(&mut stream).await.into_iter().map(Result::unwrap).collect();
        results.sort_unstable();
        assert_eq!(results, (0..300).collect::<Vec<_>>());
    }
    root.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_without_items_ends_at_once() {
    let (_root, tasks) = tasks(SupervisorSpec::dynamic(1)).await;
    let nothing = StreamOptions { max_concurrency: 0, ..StreamOptions::default() };
    let mut stream = tasks.stream(std::iter::empty::<()>(), nothing, |()| async {});
    assert_eq!(stream.next().await, None);
    // None at a time would never end: it means one.
    let mut stream = tasks.stream([1, 2], nothing, |n| async move { n });
    assert_eq!(collect(&mut stream).await, [Ok(1), Ok(2)]);
}
