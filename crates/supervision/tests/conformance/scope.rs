//! What belongs to an incarnation: its tasks, its blocking work, its progress and its panics.

use super::play::{Log, check, children, ended, ms, one_for_one, perform, secs, skip, stop, take};
use crate::stage::{Stage, settle};
use astscope_supervision::{
    Address, Checkpoint, ChildSpec, Ctx, Exit, Fault, Init, Mailbox, Point, Probe, Reply, Restart,
    Service, Stop, SupervisorSpec,
};
use expect_test::expect;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

/// Says when it is dropped.
struct Held(Stage, String);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.line(format!("{} dropped", self.1));
    }
}

/// A child that begins something in the scope of each of its incarnations.
fn child<F>(id: &'static str, begin: F) -> ChildSpec
where
    F: Fn(&Ctx) + Send + Sync + 'static,
{
    ChildSpec::task(id, move |ctx: Ctx| {
        begin(&ctx);
        async move {
            ctx.stopping().await;
            Ok(())
        }
    })
}

#[tokio::test(start_paused = true)]
async fn a_scope_is_gone_before_the_end_is_reported() {
    let stage = Stage::new();
    let log = stage.clone();
    let spec = child("a", move |ctx| {
        for n in 0..2 {
            let held = Held(log.clone(), format!("task {n} of #{}", ctx.incarnation()));
            ctx.spawn(async move {
                let _held = held;
                std::future::pending::<()>().await;
            });
        }
    });
    let root = perform(&stage, one_for_one().child(spec)).await;
    skip(&stage);
    root.supervisor().terminate_child("a").await.unwrap();
    root.supervisor().restart_child("a").await.unwrap();
    stage.line(format!("> {:?}", root.kill().await.exit));
    check(
        &stage,
        expect![[r#"
        a stopping
        task 0 of #1 dropped
        task 1 of #1 dropped
        a stopped (shutdown)
        a started #2
        task 0 of #2 dropped
        task 1 of #2 dropped
        a stopped (killed)
        root down (killed)
        > Killed
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_scope_is_the_end_of_the_incarnation() {
    let stage = Stage::new();
    let spec = child("a", |ctx| {
        let first = ctx.incarnation() == 1;
        ctx.spawn(async move {
            sleep(secs(1)).await;
            assert!(!first, "in a scope");
        });
    });
    let root = perform(&stage, one_for_one().child(spec)).await;
    skip(&stage);
    sleep(secs(5)).await;
    children(&stage, root.supervisor()).await;
    check(
        &stage,
        expect![[r#"
        ! a exited (panicked: in a scope), restarts
        a started #2
        > children: a up #2
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_scope_before_the_start_is_done_is_a_failed_start() {
    /// Spawns in its init, and then never gets on.
    struct Stuck;

    impl Service for Stuck {
        type Args = ();
        type Message = ();

        async fn init((): (), ctx: &Ctx) -> Result<Init<Self>, Exit> {
            ctx.spawn(async { panic!("in a scope") });
            std::future::pending().await
        }

        async fn run(self, _: Mailbox<()>, _: Ctx) -> Result<(), Exit> {
            Ok(())
        }
    }

    let stage = Stage::new();
    let root = perform(&stage, one_for_one()).await;
    skip(&stage);
    let spec = ChildSpec::service::<Stuck>(&Address::new("a", 1), ());
    let started = root.supervisor().start_child(spec).await;
    super::play::answer(&stage, "start_child", started.map(drop));
    check(
        &stage,
        expect![[r#"
        > start_child: error Start(Panicked("in a scope"))
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn a_context_that_outlives_its_incarnation_starts_nothing() {
    let stage = Stage::new();
    let kept = Arc::new(Mutex::new(None::<Ctx>));
    let keep = Arc::clone(&kept);
    let spec = child("a", move |ctx| *keep.lock().unwrap() = Some(ctx.clone()));
    let root = perform(&stage, one_for_one().child(spec)).await;
    root.shutdown().await;
    skip(&stage);
    let ctx = kept.lock().unwrap().take().unwrap();
    let held = Held(stage.clone(), "too late".into());
    ctx.spawn(async move {
        held.0.line("never");
    });
    let blocked = ctx.blocking(None, |_| 7).await;
    stage.line(format!("> stopping {}, {blocked:?}", ctx.is_stopping()));
    check(
        &stage,
        expect![[r#"
        too late dropped
        > stopping true, Err(Shutdown)
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_drop_is_the_end_whatever_it_was_before() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            assert!(std::thread::panicking(), "in a drop");
        }
    }
    let stage = Stage::new();
    let spec = ChildSpec::task("a", |ctx: Ctx| {
        let bomb = Bomb;
        async move {
            let _bomb = &bomb;
            ctx.stopping().await;
            std::future::pending().await
        }
    });
    let root = perform(&stage, one_for_one().child(spec.stop(Stop::Within(ms(100))))).await;
    skip(&stage);
    stop(&stage, &root).await;
    check(
        &stage,
        expect![[r#"
        a stopping
        a stopped (panicked: in a drop)
        ! a stop failed (panicked: in a drop)
        root down (shutdown)
        > shutdown after 100ms
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn a_panic_whose_payload_panics_too_is_an_end_like_any_other() {
    struct Payload;
    impl Drop for Payload {
        fn drop(&mut self) {
            panic!("the payload's own");
        }
    }
    let stage = Stage::new();
    let spec = ChildSpec::task("a", |ctx: Ctx| async move {
        if ctx.incarnation() == 1 {
            std::panic::panic_any(Payload);
        }
        ctx.stopping().await;
        Ok(())
    });
    let root = perform(&stage, one_for_one().child(spec)).await;
    children(&stage, root.supervisor()).await;
    ended(&stage, &root).await;
    check(
        &stage,
        expect![[r#"
            a started #1
            root up
            ! a exited (panicked: the payload's own), restarts
            a started #2
            > children: a up #2
            > still there
        "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn the_function_that_makes_a_task_may_panic() {
    let stage = Stage::new();
    let spec = ChildSpec::task("a", |ctx: Ctx| {
        assert!(ctx.incarnation() != 1, "before there is a future");
        async move {
            ctx.stopping().await;
            Ok(())
        }
    });
    let started = super::play::try_perform(&stage, one_for_one().child(spec)).await;
    super::play::answer(&stage, "start", started.map(drop));
    check(
        &stage,
        expect![[r#"
        ! a start failed (panicked: before there is a future)
        > start: error Child { id: "a", exit: Panicked("before there is a future") }
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn blocking_work_is_asked_to_end_and_waited_for() {
    let stage = Stage::new();
    let (log, begun) = (stage.clone(), Arc::new(tokio::sync::Notify::new()));
    let begins = Arc::clone(&begun);
    let spec = child("a", move |ctx| {
        let (ctx, log, begins) = (ctx.clone(), log.clone(), Arc::clone(&begins));
        ctx.clone().spawn(async move {
            let work = move |checkpoint: &Checkpoint| {
                begins.notify_one();
                while checkpoint.check().is_ok() {
                    std::thread::yield_now();
                }
                log.line(format!("{:?}", checkpoint.check()));
            };
            drop(ctx.blocking(None, work).await);
        });
    });
    // A clock that is paused stands still while a thread is at work, so nothing here may wait.
    let tree = one_for_one().child(spec).observer(Arc::new(Log(stage.clone())));
    let root = tree.start("root").await.unwrap();
    begun.notified().await;
    stop(&stage, &root).await;
    check(
        &stage,
        expect![[r#"
        a started #1
        root up
        a stopping
        Err(Stopped)
        a stopped (shutdown)
        root down (shutdown)
        > shutdown after 0ns
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn blocking_work_tells_its_result_its_panic_and_its_deadline() {
    let stage = Stage::new();
    let (tell, told) = oneshot::channel();
    let tell = Mutex::new(Some(tell));
    let spec = ChildSpec::task("a", move |ctx: Ctx| {
        let tell = tell.lock().unwrap().take();
        async move {
            let past = Instant::now();
            let results = (
                ctx.blocking(None, |_| 7).await,
                ctx.blocking(None, move |_| assert!(past > Instant::now(), "at work")).await,
                ctx.blocking(Some(past), Checkpoint::check).await,
            );
            drop(tell.unwrap().send(results));
            ctx.stopping().await;
            Ok(())
        }
    });
    let _root = perform(&stage, one_for_one().child(spec)).await;
    expect![[r#"
        (
            Ok(
                7,
            ),
            Err(
                Panicked(
                    "at work",
                ),
            ),
            Ok(
                Err(
                    DeadlinePassed,
                ),
            ),
        )
    "#]]
    .assert_debug_eq(&told.await.unwrap());
}

// ── progress ────────────────────────────────────────────────────────────────────────────────────

fn stalling(work: impl Fn(Ctx) -> futures_like::Work + Send + Sync + 'static) -> SupervisorSpec {
    one_for_one().child(ChildSpec::task("a", work).stall_after(secs(2)))
}

/// The future of a task as a type that has a name.
mod futures_like {
    pub(super) type Work =
        std::pin::Pin<Box<dyn Future<Output = Result<(), astscope_supervision::Exit>> + Send>>;
}

#[tokio::test(start_paused = true)]
async fn work_without_progress_ends_the_incarnation() {
    let stage = Stage::new();
    let tree = stalling(|ctx| {
        Box::pin(async move {
            if ctx.incarnation() == 1 {
                sleep(secs(100)).await;
            }
            ctx.idle();
            ctx.stopping().await;
            Ok(())
        })
    });
    let start = Instant::now();
    let root = perform(&stage, tree).await;
    skip(&stage);
    let mut monitor = root.supervisor().child_at("a").await.unwrap().monitor();
    let exit = monitor.down().await;
    stage.line(format!("> {exit} after {:?}", start.elapsed()));
    sleep(secs(100)).await; // idle is no stall
    children(&stage, root.supervisor()).await;
    check(
        &stage,
        expect![[r#"
        ! a exited (stalled), restarts
        a started #2
        > stalled after 2s
        > children: a up #2
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn progress_keeps_an_incarnation_alive_and_counts_from_the_last() {
    let stage = Stage::new();
    let tree = stalling(|ctx| {
        Box::pin(async move {
            for _ in 0..10 {
                sleep(ms(1900)).await;
                ctx.progress();
            }
            ctx.idle();
            sleep(secs(50)).await;
            ctx.progress();
            std::future::pending().await
        })
    });
    let start = Instant::now();
    let root = perform(&stage, tree.child(stage.worker("b"))).await;
    skip(&stage);
    let mut monitor = root.supervisor().child_at("a").await.unwrap().monitor();
    let exit = monitor.down().await;
    stage.line(format!("> {exit} after {:?}", start.elapsed()));
    check(
        &stage,
        expect![[r#"
        ! a exited (stalled), restarts
        a started #2
        > stalled after 71s
    "#]],
    );
}

/// Does what it is told, without a word about progress.
struct Told;

enum Tell {
    /// Ask another service, for so long.
    Ask(Address<Tell>, std::time::Duration),
    /// Wait for nobody.
    Sleep(std::time::Duration),
    /// Never answered.
    Nothing(Reply<()>),
}

impl Service for Told {
    type Args = ();
    type Message = Tell;
    async fn init((): (), _: &Ctx) -> Result<Init<Self>, Exit> {
        Ok(Init::Ready(Self))
    }
    async fn run(self, mut mailbox: Mailbox<Tell>, _: Ctx) -> Result<(), Exit> {
        let mut kept = Vec::new();
        while let Some(tell) = mailbox.recv().await {
            match tell {
                Tell::Ask(whom, within) => {
                    let answer = whom.call(within, Tell::Nothing).await;
                    assert_eq!(answer, Err(astscope_supervision::CallError::Timeout));
                }
                Tell::Sleep(time) => sleep(time).await,
                Tell::Nothing(reply) => kept.push(reply),
            }
        }
        Ok(())
    }
}

/// Two services below a supervisor that says when those below are stalled: after 2 s.
fn inheriting(a: &Address<Tell>, b: &Address<Tell>) -> SupervisorSpec {
    let below = one_for_one()
        .child(ChildSpec::service::<Told>(a, ()))
        .child(ChildSpec::service::<Told>(b, ()).stall_after(secs(100)));
    // Neither a task, which says nothing of itself, nor who wouldn't come back is ended.
    let task = ChildSpec::task("task", |_| std::future::pending());
    one_for_one()
        .stall_after(secs(2))
        .child(ChildSpec::supervisor("below", below))
        .child(task)
        .child(ChildSpec::service::<Told>(&Address::new("once", 1), ()).restart(Restart::Temporary))
}

#[tokio::test(start_paused = true)]
async fn a_limit_is_handed_down_and_a_wait_for_others_is_no_stall() {
    let stage = Stage::new();
    let (a, b) = (Address::new("a", 4), Address::new("b", 4));
    let root = perform(&stage, inheriting(&a, &b)).await;
    skip(&stage);
    a.send(secs(1), Tell::Ask(b.clone(), secs(50))).await.unwrap();
    sleep(secs(60)).await;
    b.send(secs(1), Tell::Sleep(secs(50))).await.unwrap();
    sleep(secs(60)).await;
    stage.line("> 120 s");
    let mut monitor = a.child().monitor();
    let struck = Instant::now();
    a.send(secs(1), Tell::Sleep(secs(50))).await.unwrap();
    let exit = monitor.down().await;
    stage.line(format!("> {exit} after {:?}", struck.elapsed()));
    settle().await;
    stop(&stage, &root).await;
    check(
        &stage,
        expect![[r#"
        > 120 s
        ! below/a exited (stalled), restarts
        below/a started #2
        > stalled after 2s
        once stopping
        once stopped (shutdown)
        task stopping
        task stopped (killed)
        ! task stop failed (killed)
        below stopping
        below/b stopping
        below/b stopped (shutdown)
        below/a stopping
        below/a stopped (shutdown)
        below down (shutdown)
        below stopped (shutdown)
        root down (shutdown)
        > shutdown after 5s
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn who_hangs_is_found_whatever_he_waited_for() {
    let stage = Stage::new();
    let (a, b) = (Address::new("a", 4), Address::new("b", 4));
    let probe = Probe::new();
    let root = perform(&stage, inheriting(&a, &b).probe(probe.clone())).await;
    a.send(secs(1), Tell::Ask(b.clone(), secs(50))).await.unwrap();
    sleep(secs(10)).await;
    for what in ["asks", "is idle"] {
        skip(&stage);
        let mut monitor = a.child().monitor();
        let struck = Instant::now();
        probe.arm("a", Point::Run, Fault::Hang, 1);
        let exit = monitor.down().await;
        assert_eq!((exit, struck.elapsed()), (Exit::Stalled, secs(2)), "while it {what}");
        settle().await;
    }
    stop(&stage, &root).await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_init_and_a_slow_stop_are_no_stall() {
    struct Slow;
    impl Service for Slow {
        type Args = ();
        type Message = ();
        async fn init((): (), _: &Ctx) -> Result<Init<Self>, Exit> {
            sleep(secs(10)).await;
            Ok(Init::Ready(Self))
        }
        async fn run(self, mut mailbox: Mailbox<()>, _: Ctx) -> Result<(), Exit> {
            while mailbox.recv().await.is_some() {}
            Ok(())
        }
    }
    let stage = Stage::new();
    let spec = ChildSpec::service::<Slow>(&Address::new("a", 1), ()).stall_after(secs(2));
    let start = Instant::now();
    let root = perform(&stage, one_for_one().child(spec)).await;
    sleep(secs(10)).await;
    stop(&stage, &root).await;
    stage.line(format!("> {} s", start.elapsed().as_secs()));
    check(
        &stage,
        expect![[r#"
        a started #1
        root up
        a stopping
        a stopped (shutdown)
        root down (shutdown)
        > shutdown after 0ns
        > 20 s
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn an_end_by_return_is_told_apart_by_whether_it_was_asked_for() {
    let stage = Stage::new();
    let mut logs = String::new();
    for wait in [Duration::ZERO, secs(9)] {
        let spec = ChildSpec::task("a", move |ctx: Ctx| async move {
            tokio::select! {
                () = ctx.stopping() => {}
                () = sleep(wait) => {}
            }
            Ok(())
        });
        let root = perform(&stage, one_for_one().child(spec.restart(Restart::Transient))).await;
        stop(&stage, &root).await;
        logs += &take(&stage);
    }
    expect![[r#"
        a started #1
        root up
        a exited (normal)
        root down (shutdown)
        > shutdown after 0ns
        a started #1
        root up
        a stopping
        a stopped (shutdown)
        root down (shutdown)
        > shutdown after 0ns
    "#]]
    .assert_eq(&logs);
}
