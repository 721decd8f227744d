//! 2.5: a supervisor whose restart fails goes on trying, and everybody is heard in between.
//!
//! The tries follow each other without delay, so what comes in between has to be asked before the
//! first of them: a test's request is in the supervisor's mailbox when its child dies.

use super::play::{
    answer, check, children, count, ended, one_for_one, perform, rest_for_one, secs, skip, stop,
    workers,
};
use crate::stage::{Stage, settle};
use astscope_supervision::{ChildSpec, Exit, Root, Strategy, SupervisorSpec};
use expect_test::expect;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Crashes `b`, whose starts fail from now on, and leaves the supervisor in the middle of it.
fn crash_for_good(stage: &Stage) {
    stage.fail("b", u32::MAX);
    stage.exit_now("b", Exit::failed("boom"));
}

#[tokio::test(start_paused = true)]
async fn case_49_who_is_tried_again_is_restarting_to_every_request() {
    let stage = Stage::new();
    let tree = SupervisorSpec::new(Strategy::OneForOne).intensity(10, secs(60));
    let root = perform(&stage, tree.children(workers(&stage, "a b"))).await;
    skip(&stage);
    let supervisor = root.supervisor().clone();
    crash_for_good(&stage);
    let start = async {
        let started = supervisor.start_child(stage.worker("b")).await;
        answer(&stage, "start_child", started.map(drop));
    };
    let restart = async {
        answer(&stage, "restart_child", supervisor.restart_child("b").await);
    };
    let delete = async {
        answer(&stage, "delete_child", supervisor.delete_child("b").await);
    };
    tokio::join!(children(&stage, &supervisor), start, restart, delete);
    root.wait().await;
    check(
        &stage,
        expect![[r#"
        ! b exited (failed: boom), restarts
        init b
        ! b start failed (failed: boom)
        > start_child: error AlreadyPresent
        > restart_child: error Restarting
        > delete_child: error Restarting
        > children: b restarting #2, a up #1
        init b
        ! b start failed (failed: boom)
        init b
        ! b start failed (failed: boom)
        init b
        ! b start failed (failed: boom)
        init b
        ! b start failed (failed: boom)
        init b
        ! b start failed (failed: boom)
        init b
        ! b start failed (failed: boom)
        init b
        ! b start failed (failed: boom)
        init b
        ! b start failed (failed: boom)
        init b
        ! b start failed (failed: boom)
        ! root meltdown at b
        a stopping
        stop a
        a stopped (shutdown)
        root down (meltdown: too many restarts)
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn case_50_terminate_child_ends_the_tries_and_restart_child_begins_anew() {
    let stage = Stage::new();
    let root = perform(&stage, one_for_one().children(workers(&stage, "a b"))).await;
    skip(&stage);
    crash_for_good(&stage);
    answer(&stage, "terminate_child", root.supervisor().terminate_child("b").await);
    children(&stage, root.supervisor()).await;
    settle().await;
    answer(&stage, "terminate_child", root.supervisor().terminate_child("b").await);
    answer(&stage, "restart_child", root.supervisor().restart_child("b").await);
    stage.fail("b", 0);
    answer(&stage, "restart_child", root.supervisor().restart_child("b").await);
    children(&stage, root.supervisor()).await;
    check(
        &stage,
        expect![[r#"
        ! b exited (failed: boom), restarts
        init b
        ! b start failed (failed: boom)
        > terminate_child: ()
        > children: b down #2, a up #1
        > terminate_child: ()
        init b
        > restart_child: error Start(Failed("boom"))
        init b
        b started #4
        > restart_child: true
        > children: b up #4, a up #1
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn case_51_a_shutdown_ends_the_tries() {
    let stage = Stage::new();
    let tree = one_for_one().intensity(usize::MAX, secs(60));
    let root = perform(&stage, tree.children(workers(&stage, "a b c"))).await;
    crash_for_good(&stage);
    while stage.incarnation("b") < 100 {
        tokio::task::yield_now().await;
    }
    skip(&stage);
    stop(&stage, &root).await;
    check(
        &stage,
        expect![[r#"
        c stopping
        stop c
        c stopped (shutdown)
        a stopping
        stop a
        a stopped (shutdown)
        root down (shutdown)
        > shutdown after 0ns
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn a_kill_ends_the_tries_too() {
    let stage = Stage::new();
    let tree = one_for_one().intensity(usize::MAX, secs(60));
    let root = perform(&stage, tree.children(workers(&stage, "a b c"))).await;
    crash_for_good(&stage);
    while stage.incarnation("b") < 100 {
        tokio::task::yield_now().await;
    }
    skip(&stage);
    root.kill().await;
    check(
        &stage,
        expect![[r#"
        b stopped (killed)
        a stopped (killed)
        c stopped (killed)
        root down (killed)
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn case_52_below_the_child_that_fails_all_are_down_and_above_it_all_are_up() {
    let stage = Stage::new();
    let root = perform(&stage, rest_for_one().children(workers(&stage, "a b c d e"))).await;
    skip(&stage);
    stage.fail("c", 1);
    stage.exit_now("b", Exit::failed("boom"));
    children(&stage, root.supervisor()).await;
    settle().await;
    children(&stage, root.supervisor()).await;
    check(
        &stage,
        expect![[r#"
        ! b exited (failed: boom), restarts
        e stopping
        stop e
        e stopped (shutdown)
        d stopping
        stop d
        d stopped (shutdown)
        c stopping
        stop c
        c stopped (shutdown)
        init b
        b started #2
        init c
        ! c start failed (failed: boom)
        > children: e down #1, d down #1, c restarting #2, b up #2, a up #1
        init c
        c started #3
        init d
        d started #2
        init e
        e started #2
        > children: e up #2, d up #2, c up #3, b up #2, a up #1
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn case_53_who_is_tried_again_counts_as_a_spec_and_not_as_active() {
    let stage = Stage::new();
    let root = perform(&stage, one_for_one().children(workers(&stage, "a b"))).await;
    skip(&stage);
    stage.fail("b", 1);
    stage.exit_now("b", Exit::failed("boom"));
    count(&stage, root.supervisor()).await;
    settle().await;
    count(&stage, root.supervisor()).await;
    check(
        &stage,
        expect![[r#"
        ! b exited (failed: boom), restarts
        init b
        ! b start failed (failed: boom)
        > count: 2 specs, 1 active, 0 supervisors, 2 workers
        init b
        b started #3
        > count: 2 specs, 2 active, 0 supervisors, 2 workers
    "#]],
    );
}

// ── rules of 1.4 ────────────────────────────────────────────────────────────────────────────────

#[tokio::test(start_paused = true)]
async fn rule_1_4_a_try_comes_after_all_requests_that_wait() {
    let stage = Stage::new();
    let root = perform(&stage, one_for_one().children(workers(&stage, "a b"))).await;
    skip(&stage);
    stage.fail("b", 2);
    stage.exit_now("b", Exit::failed("boom"));
    let supervisor = root.supervisor().clone();
    let one = async {
        for _ in 0..3 {
            children(&stage, &supervisor).await;
        }
    };
    tokio::join!(one, count(&stage, &supervisor), count(&stage, &supervisor));
    check(
        &stage,
        expect![[r#"
        ! b exited (failed: boom), restarts
        init b
        ! b start failed (failed: boom)
        > count: 2 specs, 1 active, 0 supervisors, 2 workers
        > count: 2 specs, 1 active, 0 supervisors, 2 workers
        > children: b restarting #2, a up #1
        init b
        ! b start failed (failed: boom)
        > children: b restarting #2, a up #1
        init b
        b started #4
        > children: b restarting #3, a up #1
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn rule_1_4_a_try_comes_after_the_deaths_that_wait() {
    let stage = Stage::new();
    let root = perform(&stage, one_for_one().children(workers(&stage, "a b c"))).await;
    skip(&stage);
    stage.fail("b", 1);
    stage.exit_now("b", Exit::failed("boom"));
    stage.exit_now("c", Exit::failed("bang"));
    settle().await;
    children(&stage, root.supervisor()).await;
    check(
        &stage,
        expect![[r#"
        ! b exited (failed: boom), restarts
        init b
        ! b start failed (failed: boom)
        ! c exited (failed: bang), restarts
        init c
        c started #2
        init b
        b started #3
        > children: c up #2, b up #3, a up #1
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn rule_1_4_a_terminated_child_stays_down_when_its_try_comes_too_late() {
    let stage = Stage::new();
    let tree = SupervisorSpec::new(Strategy::OneForAll).intensity(5, secs(60));
    let root = perform(&stage, tree.children(workers(&stage, "a b c"))).await;
    skip(&stage);
    stage.fail("b", 1);
    stage.exit_now("a", Exit::failed("boom"));
    answer(&stage, "terminate_child", root.supervisor().terminate_child("b").await);
    settle().await;
    children(&stage, root.supervisor()).await;
    check(
        &stage,
        expect![[r#"
        ! a exited (failed: boom), restarts
        c stopping
        stop c
        c stopped (shutdown)
        b stopping
        stop b
        b stopped (shutdown)
        init a
        a started #2
        init b
        ! b start failed (failed: boom)
        > terminate_child: ()
        > children: c down #1, b down #2, a up #2
    "#]],
    );
}

/// Crashes `b`, which fails to start while `c`, a task that ends as soon as it has started, is
/// being restarted too. Returns when both restarts are over.
async fn ends_at_once(stage: &Stage) -> Root {
    let runs = Arc::new(AtomicU64::new(0));
    let (log, told) = (stage.clone(), tokio::sync::watch::Sender::new(false));
    let end = told.clone();
    let task = ChildSpec::task("c", move |_| {
        let run = runs.fetch_add(1, Ordering::Relaxed) + 1;
        let (log, mut end) = (log.clone(), end.subscribe());
        async move {
            log.line(format!("c runs {run}"));
            match run {
                1 => drop(end.wait_for(|end| *end).await),
                2 => {}
                _ => std::future::pending().await,
            }
            Err(Exit::failed("bang"))
        }
    });
    let tree = one_for_one().children(workers(stage, "a b")).child(task);
    let root = perform(stage, tree).await;
    skip(stage);
    stage.fail("b", 1);
    stage.exit_now("b", Exit::failed("boom"));
    told.send_replace(true);
    settle().await;
    root
}

#[tokio::test(start_paused = true)]
async fn a_task_that_ends_at_once_has_started_also_when_it_is_started_before_a_try() {
    let stage = Stage::new();
    let root = ends_at_once(&stage).await;
    children(&stage, root.supervisor()).await;
    ended(&stage, &root).await;
    check(
        &stage,
        expect![[r#"
            ! b exited (failed: boom), restarts
            init b
            ! b start failed (failed: boom)
            ! c exited (failed: bang), restarts
            c runs 2
            c started #2
            ! c exited (failed: bang), restarts
            c runs 3
            c started #3
            init b
            b started #3
            > children: c up #3, b up #3, a up #1
            > still there
        "#]],
    );
}
