//! Subsystems that must not take the rest down: `ChildSpec::degrade`.

use super::play::{
    answer, check, children, ended, ms, one_for_one, perform, rest_for_one, secs, skip, stop, take,
    workers,
};
use crate::stage::{Stage, settle};
use astscope_supervision::{
    AutoShutdown, ChildSpec, Exit, Restart, SpecError, Strategy, SupervisorSpec,
};
use expect_test::expect;
use std::fmt::Write as _;
use std::time::Duration;
use tokio::time::sleep;

const COOLDOWN: Duration = Duration::from_secs(10);

/// A subsystem that melts down at its first crash.
fn fragile(stage: &Stage, ids: &str) -> SupervisorSpec {
    SupervisorSpec::new(Strategy::OneForOne).intensity(0, secs(5)).children(workers(stage, ids))
}

/// A tree that tolerates nothing, with a firewall in its middle.
fn protected(stage: &Stage, strategy: Strategy) -> SupervisorSpec {
    SupervisorSpec::new(strategy)
        .intensity(0, secs(5))
        .children(workers(stage, "a"))
        .child(ChildSpec::supervisor("sub", fragile(stage, "x y")).degrade(COOLDOWN))
        .children(workers(stage, "b"))
}

#[tokio::test(start_paused = true)]
async fn a_meltdown_behind_a_firewall_is_nobody_elses_and_over_after_the_cooldown() {
    let stage = Stage::new();
    let mut logs = String::new();
    for strategy in [Strategy::OneForAll, Strategy::RestForOne, Strategy::OneForOne] {
        let root = perform(&stage, protected(&stage, strategy)).await;
        for _ in 0..3 {
            stage.crash("x").await;
            sleep(COOLDOWN).await;
        }
        skip(&stage);
        stage.crash("x").await;
        children(&stage, root.supervisor()).await;
        sleep(COOLDOWN.saturating_sub(ms(31))).await;
        stage.line("> 1 ms before the cooldown is over");
        sleep(ms(2)).await;
        children(&stage, root.supervisor()).await;
        write!(logs, "{strategy}\n{}", take(&stage)).unwrap();
        root.kill().await;
    }
    expect![[r#"
        one_for_all
        ! sub/x exited (failed: boom), restarts
        ! sub meltdown at x
        sub/y stopping
        stop y
        sub/y stopped (shutdown)
        sub down (meltdown: too many restarts)
        ! sub degraded (meltdown: too many restarts), retry in 10s
        > children: b up #1, sub degraded #4, a up #1
        > 1 ms before the cooldown is over
        init x
        sub/x started #5
        init y
        sub/y started #5
        sub up
        sub started #5
        > children: b up #1, sub up #5, a up #1
        rest_for_one
        ! sub/x exited (failed: boom), restarts
        ! sub meltdown at x
        sub/y stopping
        stop y
        sub/y stopped (shutdown)
        sub down (meltdown: too many restarts)
        ! sub degraded (meltdown: too many restarts), retry in 10s
        > children: b up #1, sub degraded #4, a up #1
        > 1 ms before the cooldown is over
        init x
        sub/x started #5
        init y
        sub/y started #5
        sub up
        sub started #5
        > children: b up #1, sub up #5, a up #1
        one_for_one
        ! sub/x exited (failed: boom), restarts
        ! sub meltdown at x
        sub/y stopping
        stop y
        sub/y stopped (shutdown)
        sub down (meltdown: too many restarts)
        ! sub degraded (meltdown: too many restarts), retry in 10s
        > children: b up #1, sub degraded #4, a up #1
        > 1 ms before the cooldown is over
        init x
        sub/x started #5
        init y
        sub/y started #5
        sub up
        sub started #5
        > children: b up #1, sub up #5, a up #1
    "#]]
    .assert_eq(&logs);
}

#[tokio::test(start_paused = true)]
async fn a_crash_behind_a_firewall_is_reported_as_degradation() {
    let stage = Stage::new();
    let root = perform(&stage, protected(&stage, Strategy::OneForAll)).await;
    skip(&stage);
    stage.crash("y").await;
    ended(&stage, &root).await;
    check(
        &stage,
        expect![[r#"
        ! sub/y exited (failed: boom), restarts
        ! sub meltdown at y
        sub/x stopping
        stop x
        sub/x stopped (shutdown)
        sub down (meltdown: too many restarts)
        ! sub degraded (meltdown: too many restarts), retry in 10s
        > still there
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn restart_child_ends_a_degradation_early() {
    let stage = Stage::new();
    let root = perform(&stage, protected(&stage, Strategy::OneForAll)).await;
    stage.crash("x").await;
    skip(&stage);
    answer(&stage, "restart_child", root.supervisor().restart_child("sub").await);
    children(&stage, root.supervisor()).await;
    stage.line("> the cooldown");
    sleep(COOLDOWN * 2).await; // the old timer is void
    children(&stage, root.supervisor()).await;
    check(
        &stage,
        expect![[r#"
        init x
        sub/x started #2
        init y
        sub/y started #2
        sub up
        sub started #2
        > restart_child: true
        > children: b up #1, sub up #2, a up #1
        > the cooldown
        > children: b up #1, sub up #2, a up #1
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn restart_child_that_fails_begins_a_new_cooldown() {
    let stage = Stage::new();
    let root = perform(&stage, protected(&stage, Strategy::OneForAll)).await;
    stage.crash("x").await;
    skip(&stage);
    sleep(COOLDOWN / 2).await;
    stage.fail("y", 1);
    answer(&stage, "restart_child", root.supervisor().restart_child("sub").await);
    sleep(COOLDOWN.saturating_sub(ms(1))).await;
    children(&stage, root.supervisor()).await;
    sleep(ms(1)).await;
    children(&stage, root.supervisor()).await;
    check(
        &stage,
        expect![[r#"
        init x
        sub/x started #2
        init y
        ! sub/y start failed (failed: boom)
        sub/x stopping
        stop x
        sub/x stopped (shutdown)
        ! sub degraded (failed: `y` didn't start: failed: boom), retry in 10s
        > restart_child: error Start(Failed("`y` didn't start: failed: boom"))
        > children: b up #1, sub degraded #2, a up #1
        init x
        sub/x started #3
        init y
        sub/y started #3
        sub up
        sub started #3
        > children: b up #1, sub up #3, a up #1
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn the_other_requests_to_a_degraded_child() {
    let stage = Stage::new();
    let root = perform(&stage, protected(&stage, Strategy::OneForOne)).await;
    stage.crash("x").await;
    skip(&stage);
    let supervisor = root.supervisor();
    let again = ChildSpec::supervisor("sub", fragile(&stage, "z"));
    answer(&stage, "start_child", supervisor.start_child(again).await.map(drop));
    answer(&stage, "delete_child", supervisor.delete_child("sub").await);
    answer(&stage, "terminate_child", supervisor.terminate_child("sub").await);
    stage.line("> the cooldown");
    sleep(COOLDOWN * 2).await;
    children(&stage, supervisor).await;
    answer(&stage, "delete_child", supervisor.delete_child("sub").await);
    children(&stage, supervisor).await;
    check(
        &stage,
        expect![[r#"
        > start_child: error AlreadyPresent
        > delete_child: error Restarting
        > terminate_child: ()
        > the cooldown
        > children: b up #1, sub down #1, a up #1
        > delete_child: ()
        > children: b up #1, a up #1
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn a_first_start_that_fails_behind_a_firewall_degrades_and_the_tree_starts() {
    let stage = Stage::new();
    stage.fail("y", 1);
    let root = perform(&stage, protected(&stage, Strategy::OneForAll)).await;
    children(&stage, root.supervisor()).await;
    sleep(COOLDOWN).await;
    children(&stage, root.supervisor()).await;
    check(
        &stage,
        expect![[r#"
        init a
        a started #1
        init x
        sub/x started #1
        init y
        ! sub/y start failed (failed: boom)
        sub/x stopping
        stop x
        sub/x stopped (shutdown)
        ! sub degraded (failed: `y` didn't start: failed: boom), retry in 10s
        init b
        b started #1
        root up
        > children: b up #1, sub degraded #1, a up #1
        init x
        sub/x started #2
        init y
        sub/y started #2
        sub up
        sub started #2
        > children: b up #1, sub up #2, a up #1
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn a_start_that_fails_again_after_the_cooldown_begins_a_new_one() {
    let stage = Stage::new();
    stage.fail("y", 3);
    let root = perform(&stage, protected(&stage, Strategy::OneForAll)).await;
    skip(&stage);
    sleep(COOLDOWN * 4).await;
    ended(&stage, &root).await;
    check(
        &stage,
        expect![[r#"
        init x
        sub/x started #2
        init y
        ! sub/y start failed (failed: boom)
        sub/x stopping
        stop x
        sub/x stopped (shutdown)
        ! sub degraded (failed: `y` didn't start: failed: boom), retry in 10s
        init x
        sub/x started #3
        init y
        ! sub/y start failed (failed: boom)
        sub/x stopping
        stop x
        sub/x stopped (shutdown)
        ! sub degraded (failed: `y` didn't start: failed: boom), retry in 10s
        init x
        sub/x started #4
        init y
        sub/y started #4
        sub up
        sub started #4
        > still there
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn start_child_that_fails_is_an_error_also_behind_a_firewall() {
    let stage = Stage::new();
    let root = perform(&stage, one_for_one().children(workers(&stage, "a"))).await;
    skip(&stage);
    stage.fail("x", 1);
    let sub = || ChildSpec::supervisor("sub", fragile(&stage, "x")).degrade(COOLDOWN);
    let started = root.supervisor().start_child(sub()).await;
    answer(&stage, "start_child", started.map(drop));
    children(&stage, root.supervisor()).await;
    let started = root.supervisor().start_child(sub()).await;
    answer(&stage, "start_child", started.map(drop));
    check(
        &stage,
        expect![[r#"
        init x
        ! sub/x start failed (failed: boom)
        > start_child: error Start(Failed("`x` didn't start: failed: boom"))
        > children: a up #1
        init x
        sub/x started #1
        sub up
        sub started #1
        > start_child: ()
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn a_group_restart_ends_a_degradation_early_and_goes_on_past_a_start_that_fails() {
    let stage = Stage::new();
    let tree = rest_for_one()
        .children(workers(&stage, "a"))
        .child(ChildSpec::supervisor("sub", fragile(&stage, "x")).degrade(COOLDOWN))
        .children(workers(&stage, "b"));
    let root = perform(&stage, tree).await;
    stage.crash("x").await;
    skip(&stage);
    stage.fail("x", 1);
    stage.crash("a").await;
    children(&stage, root.supervisor()).await;
    stage.crash("a").await;
    children(&stage, root.supervisor()).await;
    stage.line("> the cooldown");
    sleep(COOLDOWN * 2).await;
    check(
        &stage,
        expect![[r#"
        ! a exited (failed: boom), restarts
        b stopping
        stop b
        b stopped (shutdown)
        init a
        a started #2
        init x
        ! sub/x start failed (failed: boom)
        ! sub degraded (failed: `x` didn't start: failed: boom), retry in 10s
        init b
        b started #2
        > children: b up #2, sub degraded #2, a up #2
        ! a exited (failed: boom), restarts
        b stopping
        stop b
        b stopped (shutdown)
        init a
        a started #3
        init x
        sub/x started #3
        sub up
        sub started #3
        init b
        b started #3
        > children: b up #3, sub up #3, a up #3
        > the cooldown
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn an_orderly_end_behind_a_firewall_is_like_any_other() {
    let stage = Stage::new();
    let sub = fragile(&stage, "a")
        .auto_shutdown(AutoShutdown::AnySignificant)
        .child(stage.worker("x").restart(Restart::Transient).significant());
    let tree = one_for_one().child(ChildSpec::supervisor("sub", sub).degrade(COOLDOWN));
    let root = perform(&stage, tree).await;
    skip(&stage);
    stage.exit("x", Exit::Normal).await;
    children(&stage, root.supervisor()).await;
    check(
        &stage,
        expect![[r#"
        sub/x exited (normal)
        sub/a stopping
        stop a
        sub/a stopped (shutdown)
        sub down (shutdown)
        ! sub exited (shutdown), restarts
        init a
        sub/a started #2
        init x
        sub/x started #2
        sub up
        sub started #2
        > children: sub up #2
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn a_degraded_subsystem_is_no_obstacle_to_a_stop() {
    let stage = Stage::new();
    let root = perform(&stage, protected(&stage, Strategy::OneForOne)).await;
    stage.crash("x").await;
    skip(&stage);
    stop(&stage, &root).await;
    sleep(COOLDOWN * 2).await;
    check(
        &stage,
        expect![[r#"
        b stopping
        stop b
        b stopped (shutdown)
        a stopping
        stop a
        a stopped (shutdown)
        root down (shutdown)
        > shutdown after 0ns
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn a_cooldown_that_ends_during_another_start_does_not_cut_the_next_one_short() {
    let stage = Stage::new();
    let root = perform(&stage, protected(&stage, Strategy::OneForOne)).await;
    stage.crash("x").await;
    skip(&stage);
    // While `c` is being started, the cooldown ends; before that, a restart by hand was asked for.
    stage.hold("c");
    stage.fail("x", 1);
    let supervisor = root.supervisor();
    let start = async {
        let started = supervisor.start_child(stage.worker("c")).await;
        answer(&stage, "start_child", started.map(drop));
    };
    let restart = async {
        settle().await;
        answer(&stage, "restart_child", supervisor.restart_child("sub").await);
    };
    let release = async {
        sleep(COOLDOWN + secs(1)).await;
        stage.line("> release c");
        stage.release("c");
    };
    tokio::join!(start, restart, release);
    settle().await;
    children(&stage, supervisor).await;
    stage.line("> the cooldown");
    sleep(COOLDOWN).await;
    children(&stage, supervisor).await;
    check(
        &stage,
        expect![[r#"
            init c
            > release c
            c started #1
            init x
            ! sub/x start failed (failed: boom)
            ! sub degraded (failed: `x` didn't start: failed: boom), retry in 10s
            > start_child: ()
            > restart_child: error Start(Failed("`x` didn't start: failed: boom"))
            > children: c up #1, b up #1, sub degraded #2, a up #1
            > the cooldown
            init x
            sub/x started #3
            init y
            sub/y started #2
            sub up
            sub started #3
            > children: c up #1, b up #1, sub up #3, a up #1
        "#]],
    );
}

#[test]
fn only_a_supervisor_that_may_come_back_can_stand_behind_a_firewall() {
    let stage = Stage::new();
    let temporary = ChildSpec::supervisor("sub", fragile(&stage, "x"))
        .restart(Restart::Temporary)
        .degrade(COOLDOWN);
    for (child, refused) in [
        (stage.worker("a").degrade(COOLDOWN), SpecError::FirewalledWorker("a".into())),
        (temporary, SpecError::FirewalledTemporary("sub".into())),
    ] {
        assert_eq!(one_for_one().child(child).check(), Err(refused));
    }
}
