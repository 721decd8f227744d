//! What is ours and not OTP's: back-off, start timeouts, and a meltdown that has a name.
//!
//! The exact window is case 40, the two ways out of a hung init are case 11, the delays of a
//! back-off case 47, and an ignored restart of a dynamic child is a rule of 1.8.

use super::play::{
    answer, check, children, ended, ms, one_for_all, one_for_one, perform, rest_for_one, secs,
    skip, stop, workers,
};
use crate::stage::{Stage, settle};
use astscope_supervision::{Backoff, ChildSpec, Exit, Restart, Stop, Strategy, SupervisorSpec};
use expect_test::expect;
use std::time::Duration;
use tokio::time::{Instant, sleep};

const BACKOFF: Backoff = Backoff { first: Duration::from_secs(1), max: Duration::from_secs(2) };

/// A tree with a back-off at `b` that is waited out: its second crash within the period.
async fn in_backoff(stage: &Stage, tree: SupervisorSpec) -> astscope_supervision::Root {
    let tree = tree
        .intensity(10, secs(60))
        .children(workers(stage, "a"))
        .child(stage.worker("b").backoff(BACKOFF))
        .children(workers(stage, "c"));
    let root = perform(stage, tree).await;
    stage.crash("b").await;
    stage.crash("b").await;
    skip(stage);
    children(stage, root.supervisor()).await;
    root
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_its_back_off_is_restarting_to_every_request() {
    let stage = Stage::new();
    let root = in_backoff(&stage, one_for_one()).await;
    let supervisor = root.supervisor();
    let started = supervisor.start_child(stage.worker("b")).await;
    answer(&stage, "start_child", started.map(drop));
    answer(&stage, "restart_child", supervisor.restart_child("b").await);
    answer(&stage, "delete_child", supervisor.delete_child("b").await);
    answer(&stage, "terminate_child", supervisor.terminate_child("b").await);
    sleep(secs(3)).await;
    children(&stage, supervisor).await;
    answer(&stage, "restart_child", supervisor.restart_child("b").await);
    check(
        &stage,
        expect![[r#"
        > children: c up #1, b restarting #2, a up #1
        > start_child: error AlreadyPresent
        > restart_child: error Restarting
        > delete_child: error Restarting
        > terminate_child: ()
        > children: c up #1, b down #2, a up #1
        init b
        b started #3
        > restart_child: true
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_does_not_wait_for_a_back_off() {
    let stage = Stage::new();
    let root = in_backoff(&stage, one_for_one()).await;
    stop(&stage, &root).await;
    check(
        &stage,
        expect![[r#"
        > children: c up #1, b restarting #2, a up #1
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
async fn a_group_runs_on_until_the_back_off_of_its_dead_one_is_over() {
    let stage = Stage::new();
    let root = in_backoff(&stage, one_for_all()).await;
    stage.line("> 2 s");
    sleep(secs(2)).await;
    children(&stage, root.supervisor()).await;
    check(
        &stage,
        expect![[r#"
        > children: c up #2, b restarting #2, a up #2
        > 2 s
        c stopping
        stop c
        c stopped (shutdown)
        a stopping
        stop a
        a stopped (shutdown)
        init a
        a started #3
        init b
        b started #3
        init c
        c started #3
        > children: c up #3, b up #3, a up #3
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn another_restart_of_the_group_brings_back_who_waits_for_its_back_off() {
    let stage = Stage::new();
    let root = in_backoff(&stage, rest_for_one()).await;
    stage.crash("a").await;
    children(&stage, root.supervisor()).await;
    stage.line("> 3 s");
    sleep(secs(3)).await; // the old timer is void
    children(&stage, root.supervisor()).await;
    check(
        &stage,
        expect![[r#"
        > children: c up #2, b restarting #2, a up #1
        ! a exited (failed: boom), restarts
        c stopping
        stop c
        c stopped (shutdown)
        init a
        a started #2
        init b
        b started #3
        init c
        c started #3
        > children: c up #3, b up #3, a up #2
        > 3 s
        > children: c up #3, b up #3, a up #2
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn failing_tries_keep_the_back_off() {
    let stage = Stage::new();
    let tree = SupervisorSpec::new(Strategy::OneForOne)
        .intensity(3, secs(60))
        .child(stage.worker("b").backoff(BACKOFF));
    let root = perform(&stage, tree).await;
    skip(&stage);
    stage.fail("b", u32::MAX);
    let start = Instant::now();
    stage.crash("b").await;
    root.wait().await;
    stage.line(format!("> {} ms", start.elapsed().as_millis()));
    check(
        &stage,
        expect![[r#"
        ! b exited (failed: boom), restarts
        init b
        ! b start failed (failed: boom)
        b retry in 993.83545ms
        init b
        ! b start failed (failed: boom)
        b retry in 1.658126832s
        init b
        ! b start failed (failed: boom)
        ! root meltdown at b
        root down (meltdown: too many restarts)
        > 2653 ms
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn siblings_with_a_back_off_do_not_come_back_in_step() {
    let stage = Stage::new();
    let tree = one_for_one()
        .intensity(10, secs(60))
        .children(["a", "b", "c", "d"].map(|id| stage.worker(id).backoff(BACKOFF)));
    let root = perform(&stage, tree).await;
    stage.crash("a").await;
    skip(&stage);
    for id in ["a", "b", "c", "d"] {
        stage.exit_now(id, Exit::failed("boom"));
    }
    settle().await;
    children(&stage, root.supervisor()).await;
    sleep(secs(3)).await;
    check(
        &stage,
        expect![[r#"
        ! a exited (failed: boom), restarts
        a retry in 993.83545ms
        ! b exited (failed: boom), restarts
        b retry in 1.804878235s
        ! c exited (failed: boom), restarts
        c retry in 1.622077942s
        ! d exited (failed: boom), restarts
        d retry in 1.939285279s
        > children: d restarting #1, c restarting #1, b restarting #1, a restarting #2
        init a
        a started #3
        init c
        c started #2
        init b
        b started #2
        init d
        d started #2
    "#]],
    );
}

#[test]
fn an_unlimited_intensity_with_a_back_off_is_refused_without_counting_that_far() {
    for (intensity, period, backoff) in [
        (usize::MAX, secs(5), BACKOFF),
        (usize::MAX, secs(5), Backoff { first: Duration::ZERO, max: secs(1) }),
        (usize::MAX, secs(5), Backoff { first: Duration::MAX, max: Duration::MAX }),
        (1_000_000_000, secs(999_999_999), Backoff { first: secs(1), max: secs(1) }),
        (1_000_000_000, secs(999_999_998), Backoff { first: secs(1), max: secs(1) }),
    ] {
        let child = ChildSpec::task("a", |_| async { Ok(()) }).backoff(backoff);
        let tree = SupervisorSpec::new(Strategy::OneForOne).intensity(intensity, period);
        let checked = tree.child(child).check();
        let fits = backoff.first.is_zero() || period == secs(999_999_999);
        assert_eq!(checked.is_ok(), fits, "{intensity} {backoff:?}: {checked:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_subtree_that_hangs_in_its_start_is_killed_at_its_start_timeout() {
    let stage = Stage::new();
    stage.hold("y");
    let inner = one_for_one().children(workers(&stage, "x y z"));
    let inner = ChildSpec::supervisor("inner", inner).start_timeout(secs(2));
    let root = perform(&stage, one_for_one().children(workers(&stage, "a"))).await;
    skip(&stage);
    let start = Instant::now();
    let started = root.supervisor().start_child(inner).await;
    stage.line(format!("> {} s", start.elapsed().as_secs()));
    answer(&stage, "start_child", started.map(drop));
    children(&stage, root.supervisor()).await;
    check(
        &stage,
        expect![[r#"
        init x
        inner/x started #1
        init y
        inner/x stopped (killed)
        inner/y stopped (killed)
        inner down (killed)
        > 2 s
        > start_child: error Start(StartTimeout)
        > children: a up #1
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn a_start_that_is_done_at_the_last_moment_is_in_time() {
    let stage = Stage::new();
    let root = perform(&stage, one_for_one()).await;
    skip(&stage);
    for (id, after) in [("a", ms(1999)), ("b", ms(2001))] {
        stage.hold(id);
        let release = async {
            sleep(after).await;
            stage.release(id);
        };
        let spec = stage.worker(id).start_timeout(secs(2));
        let (started, ()) = tokio::join!(root.supervisor().start_child(spec), release);
        answer(&stage, id, started.map(drop));
    }
    check(
        &stage,
        expect![[r#"
        init a
        a started #1
        > a: ()
        init b
        > b: error Start(StartTimeout)
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn a_meltdown_has_a_name_and_is_a_shutdown_to_those_above() {
    let stage = Stage::new();
    let inner = |id| {
        let inner = SupervisorSpec::new(Strategy::OneForOne).intensity(0, secs(5));
        inner.children(workers(&stage, id))
    };
    let tree = one_for_one()
        .child(ChildSpec::supervisor("p", inner("x")).restart(Restart::Transient))
        .child(ChildSpec::supervisor("q", inner("y")).stop(Stop::Wait));
    let root = perform(&stage, tree).await;
    let mut monitor = root.supervisor().child_at("p").await.unwrap().monitor();
    stage.crash("x").await;
    assert_eq!(monitor.down().await, Exit::Meltdown);
    let listed = root.supervisor().which_children().await.unwrap();
    assert_eq!(listed[1].last_exit, Some(Exit::Meltdown));
    skip(&stage);
    children(&stage, root.supervisor()).await;
    ended(&stage, &root).await;
    check(
        &stage,
        expect![[r#"
        > children: q up #1, p down #1
        > still there
    "#]],
    );
}
