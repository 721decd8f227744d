//! 2.4 and 1.3: how many restarts are too many, and what a meltdown is to those above.

use super::play::{
    answer, check, children, ended, ms, one_for_one, perform, secs, skip, supervisor, take, workers,
};
use crate::stage::{Stage, settle};
use astscope_supervision::{Backoff, ChildSpec, Exit, Restart, Stop, Strategy, SupervisorSpec};
use expect_test::expect;
use tokio::time::sleep;

fn limited(strategy: Strategy, intensity: usize) -> SupervisorSpec {
    supervisor(strategy).intensity(intensity, secs(60))
}

#[tokio::test(start_paused = true)]
async fn case_36_one_restart_more_than_the_intensity_is_a_meltdown() {
    let stage = Stage::new();
    let tree = limited(Strategy::OneForOne, 2).children(workers(&stage, "a b c"));
    let root = perform(&stage, tree).await;
    skip(&stage);
    for _ in 0..3 {
        stage.crash("b").await;
    }
    ended(&stage, &root).await;
    check(
        &stage,
        expect![[r#"
        ! b exited (failed: boom), restarts
        init b
        b started #2
        ! b exited (failed: boom), restarts
        init b
        b started #3
        ! b exited (failed: boom), restarts
        ! root meltdown at b
        c stopping
        stop c
        c stopped (shutdown)
        a stopping
        stop a
        a stopped (shutdown)
        root down (meltdown: too many restarts)
        > ended: meltdown: too many restarts
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn case_37_with_intensity_zero_the_first_restart_is_one_too_many() {
    let stage = Stage::new();
    let tree = limited(Strategy::OneForOne, 0)
        .children(workers(&stage, "a"))
        .child(stage.worker("b").restart(Restart::Transient))
        .child(stage.worker("c").restart(Restart::Temporary));
    let root = perform(&stage, tree).await;
    skip(&stage);
    stage.exit("b", Exit::Normal).await;
    stage.crash("c").await;
    ended(&stage, &root).await;
    stage.exit("a", Exit::Normal).await;
    ended(&stage, &root).await;
    check(
        &stage,
        expect![[r#"
        b exited (normal)
        ! c exited (failed: boom)
        > still there
        ! a exited (normal), restarts
        ! root meltdown at a
        root down (meltdown: too many restarts)
        > ended: meltdown: too many restarts
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn case_38_the_budget_is_the_supervisors_not_the_childs() {
    let stage = Stage::new();
    let tree = limited(Strategy::OneForOne, 3).children(workers(&stage, "a b"));
    let root = perform(&stage, tree).await;
    skip(&stage);
    for id in ["a", "b", "a", "b"] {
        stage.crash(id).await;
    }
    ended(&stage, &root).await;
    check(
        &stage,
        expect![[r#"
        ! a exited (failed: boom), restarts
        init a
        a started #2
        ! b exited (failed: boom), restarts
        init b
        b started #2
        ! a exited (failed: boom), restarts
        init a
        a started #3
        ! b exited (failed: boom), restarts
        ! root meltdown at b
        a stopping
        stop a
        a stopped (shutdown)
        root down (meltdown: too many restarts)
        > ended: meltdown: too many restarts
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn case_39_crashes_just_beyond_the_window_never_melt() {
    let stage = Stage::new();
    let tree = SupervisorSpec::new(Strategy::OneForOne).intensity(1, secs(1));
    let root = perform(&stage, tree.children(workers(&stage, "a"))).await;
    for _ in 0..1000 {
        stage.exit_now("a", Exit::failed("boom"));
        sleep(ms(1001)).await;
    }
    skip(&stage);
    children(&stage, root.supervisor()).await;
    ended(&stage, &root).await;
    check(
        &stage,
        expect![[r#"
        > children: a up #1001
        > still there
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn case_40_the_window_is_exact_and_its_edge_inclusive() {
    let stage = Stage::new();
    let mut logs = String::new();
    for gap in [ms(999), ms(1000), ms(1001)] {
        let tree = SupervisorSpec::new(Strategy::OneForOne).intensity(1, secs(1));
        let root = perform(&stage, tree.children(workers(&stage, "a"))).await;
        skip(&stage);
        stage.exit_now("a", Exit::failed("boom"));
        sleep(gap).await;
        stage.line(format!("> after {gap:?}"));
        stage.exit_now("a", Exit::failed("boom"));
        settle().await;
        ended(&stage, &root).await;
        logs += &take(&stage);
        root.kill().await;
    }
    expect![[r#"
        ! a exited (failed: boom), restarts
        init a
        a started #2
        > after 999ms
        ! a exited (failed: boom), restarts
        ! root meltdown at a
        root down (meltdown: too many restarts)
        > ended: meltdown: too many restarts
        ! a exited (failed: boom), restarts
        init a
        a started #2
        > after 1s
        ! a exited (failed: boom), restarts
        ! root meltdown at a
        root down (meltdown: too many restarts)
        > ended: meltdown: too many restarts
        ! a exited (failed: boom), restarts
        init a
        a started #2
        > after 1.001s
        ! a exited (failed: boom), restarts
        init a
        a started #3
        > still there
    "#]]
    .assert_eq(&logs);
}

#[tokio::test(start_paused = true)]
async fn case_41_each_failed_try_is_charged_and_the_meltdown_comes_after_its_cause() {
    let stage = Stage::new();
    let tree = limited(Strategy::OneForOne, 3).children(workers(&stage, "a b c"));
    let root = perform(&stage, tree).await;
    skip(&stage);
    stage.fail("b", u32::MAX);
    stage.crash("b").await;
    ended(&stage, &root).await;
    check(
        &stage,
        expect![[r#"
        ! b exited (failed: boom), restarts
        init b
        ! b start failed (failed: boom)
        init b
        ! b start failed (failed: boom)
        init b
        ! b start failed (failed: boom)
        ! root meltdown at b
        c stopping
        stop c
        c stopped (shutdown)
        a stopping
        stop a
        a stopped (shutdown)
        root down (meltdown: too many restarts)
        > ended: meltdown: too many restarts
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn case_42_a_group_restart_is_charged_once() {
    let stage = Stage::new();
    let tree = limited(Strategy::OneForAll, 1).children(workers(&stage, "a b c d e"));
    let root = perform(&stage, tree).await;
    skip(&stage);
    stage.crash("c").await;
    children(&stage, root.supervisor()).await;
    ended(&stage, &root).await;
    check(
        &stage,
        expect![[r#"
        ! c exited (failed: boom), restarts
        e stopping
        stop e
        e stopped (shutdown)
        d stopping
        stop d
        d stopped (shutdown)
        b stopping
        stop b
        b stopped (shutdown)
        a stopping
        stop a
        a stopped (shutdown)
        init a
        a started #2
        init b
        b started #2
        init c
        c started #2
        init d
        d started #2
        init e
        e started #2
        > children: e up #2, d up #2, c up #2, b up #2, a up #2
        > still there
    "#]],
    );
    stage.crash("c").await;
    ended(&stage, &root).await;
    check(
        &stage,
        expect![[r#"
        ! c exited (failed: boom), restarts
        ! root meltdown at c
        e stopping
        stop e
        e stopped (shutdown)
        d stopping
        stop d
        d stopped (shutdown)
        b stopping
        stop b
        b stopped (shutdown)
        a stopping
        stop a
        a stopped (shutdown)
        root down (meltdown: too many restarts)
        > ended: meltdown: too many restarts
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn case_43_starts_and_stops_by_hand_are_free() {
    let stage = Stage::new();
    let tree = limited(Strategy::OneForAll, 0)
        .child(stage.worker("a"))
        .child(stage.worker("b").restart(Restart::Transient));
    let root = perform(&stage, tree).await;
    skip(&stage);
    for _ in 0..5 {
        root.supervisor().terminate_child("a").await.unwrap();
        root.supervisor().restart_child("a").await.unwrap();
        stage.exit("b", Exit::Normal).await;
        root.supervisor().restart_child("b").await.unwrap();
        stage.fail("c", 1);
        root.supervisor().start_child(stage.worker("c")).await.unwrap_err();
    }
    stage.ignore("b", 1);
    root.supervisor().terminate_child("b").await.unwrap();
    answer(&stage, "restart_child", root.supervisor().restart_child("b").await);
    skip(&stage);
    children(&stage, root.supervisor()).await;
    ended(&stage, &root).await;
    check(
        &stage,
        expect![[r#"
        > children: b down #7, a up #6
        > still there
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn case_46_a_crash_loop_at_a_leaf_melts_level_after_level() {
    let stage = Stage::new();
    let inner = limited(Strategy::OneForOne, 1).children(workers(&stage, "leaf"));
    let middle = limited(Strategy::OneForOne, 1).child(ChildSpec::supervisor("inner", inner));
    let tree = limited(Strategy::OneForOne, 1).child(ChildSpec::supervisor("middle", middle));
    let root = perform(&stage, tree).await;
    skip(&stage);
    let mut crashes = 0;
    while !root.supervisor().child().status().is_gone() {
        stage.exit_now("leaf", Exit::failed("boom"));
        settle().await;
        crashes += 1;
    }
    stage.line(format!("> {crashes} crashes, {} incarnations", stage.incarnation("leaf")));
    ended(&stage, &root).await;
    check(
        &stage,
        expect![[r#"
        ! middle/inner/leaf exited (failed: boom), restarts
        init leaf
        middle/inner/leaf started #2
        ! middle/inner/leaf exited (failed: boom), restarts
        ! middle/inner meltdown at leaf
        middle/inner down (meltdown: too many restarts)
        ! middle/inner exited (meltdown: too many restarts), restarts
        init leaf
        middle/inner/leaf started #3
        middle/inner up
        middle/inner started #2
        ! middle/inner/leaf exited (failed: boom), restarts
        init leaf
        middle/inner/leaf started #4
        ! middle/inner/leaf exited (failed: boom), restarts
        ! middle/inner meltdown at leaf
        middle/inner down (meltdown: too many restarts)
        ! middle/inner exited (meltdown: too many restarts), restarts
        ! middle meltdown at inner
        middle down (meltdown: too many restarts)
        ! middle exited (meltdown: too many restarts), restarts
        init leaf
        middle/inner/leaf started #5
        middle/inner up
        middle/inner started #3
        middle up
        middle started #2
        ! middle/inner/leaf exited (failed: boom), restarts
        init leaf
        middle/inner/leaf started #6
        ! middle/inner/leaf exited (failed: boom), restarts
        ! middle/inner meltdown at leaf
        middle/inner down (meltdown: too many restarts)
        ! middle/inner exited (meltdown: too many restarts), restarts
        init leaf
        middle/inner/leaf started #7
        middle/inner up
        middle/inner started #4
        ! middle/inner/leaf exited (failed: boom), restarts
        init leaf
        middle/inner/leaf started #8
        ! middle/inner/leaf exited (failed: boom), restarts
        ! middle/inner meltdown at leaf
        middle/inner down (meltdown: too many restarts)
        ! middle/inner exited (meltdown: too many restarts), restarts
        ! middle meltdown at inner
        middle down (meltdown: too many restarts)
        ! middle exited (meltdown: too many restarts), restarts
        ! root meltdown at middle
        root down (meltdown: too many restarts)
        > 8 crashes, 8 incarnations
        > ended: meltdown: too many restarts
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn case_47_a_back_off_delays_restarts_and_commands_are_served_meanwhile() {
    let stage = Stage::new();
    let backoff = Backoff { first: secs(1), max: secs(4) };
    let tree = limited(Strategy::OneForOne, 4)
        .children(workers(&stage, "a"))
        .child(stage.worker("b").backoff(backoff));
    let root = perform(&stage, tree).await;
    skip(&stage);
    for _ in 0..4 {
        stage.exit_now("b", Exit::failed("boom"));
        settle().await;
        children(&stage, root.supervisor()).await;
        let start = tokio::time::Instant::now();
        while !root.supervisor().child_at("b").await.unwrap().status().is_up() {
            sleep(ms(1)).await;
        }
        stage.line(format!("> up after {} ms", start.elapsed().as_millis()));
    }
    stage.crash("b").await;
    ended(&stage, &root).await;
    check(
        &stage,
        expect![[r#"
        ! b exited (failed: boom), restarts
        init b
        b started #2
        > children: b up #2, a up #1
        > up after 0 ms
        ! b exited (failed: boom), restarts
        b retry in 817.207337ms
        > children: b restarting #2, a up #1
        init b
        b started #3
        > up after 788 ms
        ! b exited (failed: boom), restarts
        b retry in 1.804878235s
        > children: b restarting #3, a up #1
        init b
        b started #4
        > up after 1775 ms
        ! b exited (failed: boom), restarts
        b retry in 3.950668335s
        > children: b restarting #4, a up #1
        init b
        b started #5
        > up after 3921 ms
        ! b exited (failed: boom), restarts
        ! root meltdown at b
        a stopping
        stop a
        a stopped (shutdown)
        root down (meltdown: too many restarts)
        > ended: meltdown: too many restarts
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn case_47_a_back_off_that_never_adds_up_to_a_meltdown_is_refused() {
    let stage = Stage::new();
    // Four restarts wait 0 + 1 + 2 + 4 s.
    for (period, backoff) in [
        (7_000, Backoff { first: secs(1), max: secs(4) }),
        (6_999, Backoff { first: secs(1), max: secs(4) }),
        (5_000, Backoff { first: secs(1), max: secs(2) }),
        (4_999, Backoff { first: secs(1), max: secs(2) }),
    ] {
        let tree = SupervisorSpec::new(Strategy::OneForOne)
            .intensity(4, ms(period))
            .child(stage.worker("b").backoff(backoff));
        stage.line(format!("> {period} ms: {:?}", tree.check()));
    }
    let root = perform(&stage, limited(Strategy::OneForOne, 100)).await;
    let spec = stage.worker("b").backoff(Backoff { first: secs(1), max: secs(2) });
    answer(&stage, "start_child", root.supervisor().start_child(spec).await.map(drop));
    check(
        &stage,
        expect![[r#"
        > 7000 ms: Ok(())
        > 6999 ms: Err(BackoffNeverMelts { id: "b", waits: 7s, period: 6.999s })
        > 5000 ms: Ok(())
        > 4999 ms: Err(BackoffNeverMelts { id: "b", waits: 5s, period: 4.999s })
        root up
        > start_child: error Spec(BackoffNeverMelts { id: "b", waits: 197s, period: 60s })
    "#]],
    );
}

// ── rules of 1.3 ────────────────────────────────────────────────────────────────────────────────

#[tokio::test(start_paused = true)]
async fn rule_1_3_a_meltdown_stops_the_others_by_their_rules() {
    let stage = Stage::new();
    let tree = limited(Strategy::OneForOne, 0)
        .child(stage.worker("a").stop(Stop::Within(ms(100))))
        .child(stage.worker("b"))
        .child(stage.worker("c").stop(Stop::Kill))
        .child(stage.worker("d").restart(Restart::Temporary));
    let root = perform(&stage, tree).await;
    skip(&stage);
    stage.stubborn("a");
    stage.crash("b").await;
    stage.line("> 100 ms");
    sleep(ms(100)).await;
    ended(&stage, &root).await;
    check(
        &stage,
        expect![[r#"
        ! b exited (failed: boom), restarts
        ! root meltdown at b
        d stopping
        stop d
        d stopped (shutdown)
        c stopping
        c stopped (killed)
        a stopping
        stop a
        > 100 ms
        a stopped (killed)
        ! a stop failed (killed)
        root down (meltdown: too many restarts)
        > ended: meltdown: too many restarts
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn rule_1_3_only_a_permanent_supervisor_comes_back_after_its_meltdown() {
    let stage = Stage::new();
    let inner = |id| limited(Strategy::OneForOne, 0).children(workers(&stage, id));
    let tree = one_for_one()
        .child(ChildSpec::supervisor("p", inner("x")))
        .child(ChildSpec::supervisor("q", inner("y")).restart(Restart::Transient))
        .child(ChildSpec::supervisor("r", inner("z")).restart(Restart::Temporary));
    let root = perform(&stage, tree).await;
    skip(&stage);
    for id in ["x", "y", "z"] {
        stage.crash(id).await;
    }
    children(&stage, root.supervisor()).await;
    check(
        &stage,
        expect![[r#"
        ! p/x exited (failed: boom), restarts
        ! p meltdown at x
        p down (meltdown: too many restarts)
        ! p exited (meltdown: too many restarts), restarts
        init x
        p/x started #2
        p up
        p started #2
        ! q/y exited (failed: boom), restarts
        ! q meltdown at y
        q down (meltdown: too many restarts)
        q exited (meltdown: too many restarts)
        ! r/z exited (failed: boom), restarts
        ! r meltdown at z
        r down (meltdown: too many restarts)
        r exited (meltdown: too many restarts)
        > children: q down #1, p up #2
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn rule_1_3_the_budget_of_a_supervisor_that_came_back_is_full_again() {
    let stage = Stage::new();
    let inner = limited(Strategy::OneForOne, 1).children(workers(&stage, "x"));
    let tree = one_for_one().child(ChildSpec::supervisor("inner", inner));
    let root = perform(&stage, tree).await;
    stage.crash("x").await;
    stage.crash("x").await;
    skip(&stage);
    stage.crash("x").await;
    children(&stage, root.supervisor()).await;
    check(
        &stage,
        expect![[r#"
        ! inner/x exited (failed: boom), restarts
        init x
        inner/x started #4
        > children: inner up #2
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn rule_1_3_a_meltdown_in_a_dynamic_supervisor_is_one_for_all_its_children() {
    let stage = Stage::new();
    let tree =
        SupervisorSpec::dynamic(10).intensity(1, secs(60)).children(workers(&stage, "a b c"));
    let root = perform(&stage, tree).await;
    skip(&stage);
    stage.crash("a").await;
    stage.crash("b").await;
    ended(&stage, &root).await;
    check(
        &stage,
        expect![[r#"
        ! a exited (failed: boom), restarts
        init a
        a started #2
        ! b exited (failed: boom), restarts
        ! root meltdown at b
        c stopping
        a stopping
        stop c
        stop a
        c stopped (shutdown)
        a stopped (shutdown)
        root down (meltdown: too many restarts)
        > ended: meltdown: too many restarts
    "#]],
    );
}
