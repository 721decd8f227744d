//! 2.3 and 1.4: who is restarted with whom, and what happens when that fails.

use super::play::{
    answer, check, children, ended, ms, one_for_all, one_for_one, perform, rest_for_one, secs,
    skip, take, workers,
};
use crate::stage::{Stage, settle};
use astscope_supervision::{
    ChildSpec, Exit, Fault, Point, Probe, Restart, Stop, Strategy, SupervisorSpec,
};
use expect_test::expect;

#[tokio::test(start_paused = true)]
async fn case_21_one_for_one_leaves_the_others_alone() {
    let stage = Stage::new();
    let root = perform(&stage, one_for_one().children(workers(&stage, "a b"))).await;
    skip(&stage);
    stage.crash("a").await;
    children(&stage, root.supervisor()).await;
    check(
        &stage,
        expect![[r#"
        ! a exited (failed: boom), restarts
        init a
        a started #2
        > children: b up #1, a up #2
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn case_22_one_for_all_stops_everybody_before_it_starts_anybody() {
    let stage = Stage::new();
    let root = perform(&stage, one_for_all().children(workers(&stage, "a b c"))).await;
    skip(&stage);
    stage.crash("a").await;
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
        b started #2
        init c
        c started #2
        > children: c up #2, b up #2, a up #2
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn case_23_rest_for_one_restarts_the_dead_one_and_those_after_it() {
    let stage = Stage::new();
    let root = perform(&stage, rest_for_one().children(workers(&stage, "a b c d e"))).await;
    skip(&stage);
    stage.crash("c").await;
    children(&stage, root.supervisor()).await;
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
        init c
        c started #2
        init d
        d started #2
        init e
        e started #2
        > children: e up #2, d up #2, c up #2, b up #1, a up #1
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn case_24_rest_for_one_at_the_last_is_one_for_one_and_at_the_first_is_one_for_all() {
    let stage = Stage::new();
    let root = perform(&stage, rest_for_one().children(workers(&stage, "a b c"))).await;
    skip(&stage);
    stage.crash("c").await;
    check(
        &stage,
        expect![[r#"
        ! c exited (failed: boom), restarts
        init c
        c started #2
    "#]],
    );
    stage.crash("a").await;
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
        b started #2
        init c
        c started #3
        > children: c up #3, b up #2, a up #2
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn case_25_a_temporary_bystander_is_stopped_and_not_restarted() {
    let stage = Stage::new();
    let mut logs = String::new();
    for tree in [one_for_all(), rest_for_one()] {
        let tree = tree
            .child(stage.worker("a"))
            .child(stage.worker("b").restart(Restart::Temporary))
            .child(stage.worker("c"));
        let root = perform(&stage, tree).await;
        skip(&stage);
        stage.crash("a").await;
        children(&stage, root.supervisor()).await;
        logs += &take(&stage);
        root.kill().await;
    }
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
        init c
        c started #2
        > children: c up #2, a up #2
        ! a exited (failed: boom), restarts
        c stopping
        stop c
        c stopped (shutdown)
        b stopping
        stop b
        b stopped (shutdown)
        init a
        a started #2
        init c
        c started #2
        > children: c up #2, a up #2
    "#]]
    .assert_eq(&logs);
}

#[tokio::test(start_paused = true)]
async fn case_26_rest_for_one_tries_again_from_the_later_child_that_failed() {
    let stage = Stage::new();
    let tree = SupervisorSpec::new(Strategy::RestForOne)
        .intensity(3, secs(60))
        .children(workers(&stage, "a b c d"));
    let root = perform(&stage, tree).await;
    skip(&stage);
    stage.fail("d", u32::MAX);
    stage.crash("b").await;
    ended(&stage, &root).await;
    check(
        &stage,
        expect![[r#"
        ! b exited (failed: boom), restarts
        d stopping
        stop d
        d stopped (shutdown)
        c stopping
        stop c
        c stopped (shutdown)
        init b
        b started #2
        init c
        c started #2
        init d
        ! d start failed (failed: boom)
        init d
        ! d start failed (failed: boom)
        init d
        ! d start failed (failed: boom)
        ! root meltdown at d
        c stopping
        stop c
        c stopped (shutdown)
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
async fn case_27_one_for_all_tries_again_with_everybody() {
    let stage = Stage::new();
    let root = perform(&stage, one_for_all().children(workers(&stage, "a b c"))).await;
    skip(&stage);
    stage.fail("b", 2);
    stage.crash("c").await;
    children(&stage, root.supervisor()).await;
    check(
        &stage,
        expect![[r#"
        ! c exited (failed: boom), restarts
        b stopping
        stop b
        b stopped (shutdown)
        a stopping
        stop a
        a stopped (shutdown)
        init a
        a started #2
        init b
        ! b start failed (failed: boom)
        a stopping
        stop a
        a stopped (shutdown)
        init a
        a started #3
        init b
        ! b start failed (failed: boom)
        a stopping
        stop a
        a stopped (shutdown)
        init a
        a started #4
        init b
        b started #4
        init c
        c started #2
        > children: c up #2, b up #4, a up #4
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn case_31_two_deaths_at_once_are_one_group_restart_but_two_single_ones() {
    let stage = Stage::new();
    let mut logs = String::new();
    for strategy in [Strategy::OneForAll, Strategy::OneForOne] {
        let tree =
            SupervisorSpec::new(strategy).intensity(1, secs(60)).children(workers(&stage, "a b c"));
        let root = perform(&stage, tree).await;
        skip(&stage);
        stage.line(format!("> {strategy}"));
        stage.exit_now("a", Exit::failed("boom"));
        stage.exit_now("b", Exit::failed("bang"));
        settle().await;
        ended(&stage, &root).await;
        logs += &take(&stage);
        root.kill().await;
    }
    expect![[r#"
        > one_for_all
        ! a exited (failed: boom), restarts
        c stopping
        stop c
        c stopped (shutdown)
        b stopped (failed: bang)
        ! b stop failed (failed: bang)
        init a
        a started #2
        init b
        b started #2
        init c
        c started #2
        > still there
        > one_for_one
        ! a exited (failed: boom), restarts
        init a
        a started #2
        ! b exited (failed: bang), restarts
        ! root meltdown at b
        c stopping
        stop c
        c stopped (shutdown)
        a stopping
        stop a
        a stopped (shutdown)
        root down (meltdown: too many restarts)
        > ended: meltdown: too many restarts
    "#]]
    .assert_eq(&logs);
}

#[tokio::test(start_paused = true)]
async fn case_32_a_bystander_that_does_not_stop_is_killed_at_its_own_timeout() {
    let stage = Stage::new();
    let tree = one_for_all()
        .child(stage.worker("a").stop(Stop::Within(ms(500))))
        .child(stage.worker("b").stop(Stop::Within(ms(700))))
        .child(stage.worker("c"));
    let _root = perform(&stage, tree).await;
    skip(&stage);
    stage.stubborn("a");
    stage.stubborn("b");
    stage.crash("c").await;
    for _ in 0..13 {
        tokio::time::sleep(ms(100)).await;
        stage.line("> 100 ms");
    }
    check(
        &stage,
        expect![[r#"
        ! c exited (failed: boom), restarts
        b stopping
        stop b
        > 100 ms
        > 100 ms
        > 100 ms
        > 100 ms
        > 100 ms
        > 100 ms
        b stopped (killed)
        ! b stop failed (killed)
        a stopping
        stop a
        > 100 ms
        > 100 ms
        > 100 ms
        > 100 ms
        > 100 ms
        a stopped (killed)
        ! a stop failed (killed)
        init a
        a started #2
        init b
        b started #2
        init c
        c started #2
        > 100 ms
        > 100 ms
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn case_33_a_bystander_that_crashes_while_it_is_stopped_has_no_restart_of_its_own() {
    let stage = Stage::new();
    let tree = SupervisorSpec::new(Strategy::OneForAll)
        .intensity(1, secs(60))
        .children(workers(&stage, "a b"));
    let root = perform(&stage, tree).await;
    skip(&stage);
    stage.on_stop("a", Exit::failed("bang"));
    stage.crash("b").await;
    ended(&stage, &root).await;
    check(
        &stage,
        expect![[r#"
        ! b exited (failed: boom), restarts
        a stopping
        stop a
        a stopped (failed: bang)
        ! a stop failed (failed: bang)
        init a
        a started #2
        init b
        b started #2
        > still there
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn case_34_no_incarnation_starts_before_the_old_ones_are_gone_with_all_they_held() {
    let stage = Stage::new();
    let probe = Probe::new();
    let slow = |id: &'static str| {
        let stage = stage.clone();
        ChildSpec::task(id, move |ctx| {
            let held = Held(stage.clone(), id);
            async move {
                held.0.line(format!("{id} holds something"));
                ctx.stopping().await;
                Ok(())
            }
        })
    };
    let tree = one_for_all()
        .probe(probe.clone())
        .child(slow("a"))
        .child(slow("b"))
        .children(workers(&stage, "c"));
    let _root = perform(&stage, tree).await;
    skip(&stage);
    probe.arm("a", Point::Drop, Fault::Slow(secs(1)), 1);
    stage.crash("c").await;
    stage.line("> a second");
    tokio::time::sleep(secs(1)).await;
    check(
        &stage,
        expect![[r#"
        ! c exited (failed: boom), restarts
        b stopping
        b dropped it
        b stopped (shutdown)
        a stopping
        a dropped it
        > a second
        a stopped (shutdown)
        a holds something
        a started #2
        b holds something
        b started #2
        init c
        c started #2
    "#]],
    );
}

/// Says when it is dropped.
struct Held(Stage, &'static str);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.line(format!("{} dropped it", self.1));
    }
}

// ── rules of 1.4 ────────────────────────────────────────────────────────────────────────────────

/// Four children of which three are down for different reasons, and one that crashes.
async fn brings_back(tree: SupervisorSpec, stage: &Stage) {
    stage.ignore("ignored", 1);
    let tree = tree
        .child(stage.worker("before"))
        .child(stage.worker("first"))
        .child(stage.worker("ended").restart(Restart::Transient))
        .child(stage.worker("ignored"))
        .child(stage.worker("terminated"))
        .child(stage.worker("temporary").restart(Restart::Temporary));
    let root = perform(stage, tree).await;
    stage.exit("ended", Exit::Normal).await;
    root.supervisor().terminate_child("terminated").await.unwrap();
    skip(stage);
    children(stage, root.supervisor()).await;
    stage.crash("first").await;
    children(stage, root.supervisor()).await;
}

#[tokio::test(start_paused = true)]
async fn rule_1_4_one_for_all_brings_back_whoever_was_down_on_purpose() {
    let stage = Stage::new();
    brings_back(one_for_all(), &stage).await;
    check(
        &stage,
        expect![[r#"
        > children: temporary up #1, terminated down #1, ignored down #1, ended down #1, first up #1, before up #1
        ! first exited (failed: boom), restarts
        temporary stopping
        stop temporary
        temporary stopped (shutdown)
        before stopping
        stop before
        before stopped (shutdown)
        init before
        before started #2
        init first
        first started #2
        init ended
        ended started #2
        init ignored
        ignored started #2
        init terminated
        terminated started #2
        > children: terminated up #2, ignored up #2, ended up #2, first up #2, before up #2
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn rule_1_4_rest_for_one_brings_back_whoever_was_down_on_purpose() {
    let stage = Stage::new();
    brings_back(rest_for_one(), &stage).await;
    check(
        &stage,
        expect![[r#"
        > children: temporary up #1, terminated down #1, ignored down #1, ended down #1, first up #1, before up #1
        ! first exited (failed: boom), restarts
        temporary stopping
        stop temporary
        temporary stopped (shutdown)
        init first
        first started #2
        init ended
        ended started #2
        init ignored
        ignored started #2
        init terminated
        terminated started #2
        > children: terminated up #2, ignored up #2, ended up #2, first up #2, before up #1
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn rule_1_4_one_for_one_brings_nobody_else_back() {
    let stage = Stage::new();
    brings_back(one_for_one(), &stage).await;
    check(
        &stage,
        expect![[r#"
        > children: temporary up #1, terminated down #1, ignored down #1, ended down #1, first up #1, before up #1
        ! first exited (failed: boom), restarts
        init first
        first started #2
        > children: temporary up #1, terminated down #1, ignored down #1, ended down #1, first up #2, before up #1
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn rule_1_4_rest_for_one_leaves_those_before_alone_even_when_they_are_down() {
    let stage = Stage::new();
    let root = perform(&stage, rest_for_one().children(workers(&stage, "a b c"))).await;
    root.supervisor().terminate_child("a").await.unwrap();
    skip(&stage);
    stage.crash("b").await;
    children(&stage, root.supervisor()).await;
    check(
        &stage,
        expect![[r#"
        ! b exited (failed: boom), restarts
        c stopping
        stop c
        c stopped (shutdown)
        init b
        b started #2
        init c
        c started #2
        > children: c up #2, b up #2, a down #1
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn rule_1_4_an_ignored_restart_leaves_the_child_down_without_an_error() {
    let stage = Stage::new();
    let root = perform(&stage, one_for_one().children(workers(&stage, "a b"))).await;
    skip(&stage);
    stage.ignore("a", 1);
    stage.crash("a").await;
    children(&stage, root.supervisor()).await;
    answer(&stage, "restart_child", root.supervisor().restart_child("a").await);
    check(
        &stage,
        expect![[r#"
        ! a exited (failed: boom), restarts
        init a
        a ignored
        > children: b up #1, a down #2
        init a
        a started #3
        > restart_child: true
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn rule_1_4_an_ignored_child_does_not_keep_its_group_from_starting() {
    let stage = Stage::new();
    let mut logs = String::new();
    for tree in [one_for_all(), rest_for_one()] {
        let root = perform(&stage, tree.children(workers(&stage, "a b c"))).await;
        skip(&stage);
        stage.ignore("a", 1);
        stage.ignore("b", 1);
        stage.crash("a").await;
        children(&stage, root.supervisor()).await;
        logs += &take(&stage);
        root.kill().await;
    }
    expect![[r#"
        ! a exited (failed: boom), restarts
        c stopping
        stop c
        c stopped (shutdown)
        b stopping
        stop b
        b stopped (shutdown)
        init a
        a ignored
        init b
        b ignored
        init c
        c started #2
        > children: c up #2, b down #2, a down #2
        ! a exited (failed: boom), restarts
        c stopping
        stop c
        c stopped (shutdown)
        b stopping
        stop b
        b stopped (shutdown)
        init a
        a ignored
        init b
        b ignored
        init c
        c started #2
        > children: c up #2, b down #2, a down #2
    "#]]
    .assert_eq(&logs);
}

#[tokio::test(start_paused = true)]
async fn rule_1_4_while_one_for_all_tries_again_only_the_one_that_failed_is_restarting() {
    let stage = Stage::new();
    let root = perform(&stage, one_for_all().children(workers(&stage, "a b c d"))).await;
    skip(&stage);
    stage.fail("b", 1);
    let asked = root.supervisor().clone();
    stage.exit_now("d", Exit::failed("boom"));
    children(&stage, &asked).await;
    settle().await;
    check(
        &stage,
        expect![[r#"
        ! d exited (failed: boom), restarts
        c stopping
        stop c
        c stopped (shutdown)
        b stopping
        stop b
        b stopped (shutdown)
        a stopping
        stop a
        a stopped (shutdown)
        init a
        a started #2
        init b
        ! b start failed (failed: boom)
        > children: d down #1, c down #1, b restarting #2, a up #2
        a stopping
        stop a
        a stopped (shutdown)
        init a
        a started #3
        init b
        b started #3
        init c
        c started #2
        init d
        d started #2
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn rule_1_4_a_second_crash_restarts_the_whole_group_of_one_that_is_tried_again() {
    let stage = Stage::new();
    let root = perform(&stage, rest_for_one().children(workers(&stage, "a b c"))).await;
    skip(&stage);
    stage.fail("b", 1);
    stage.exit_now("b", Exit::failed("boom"));
    stage.exit_now("a", Exit::failed("bang"));
    settle().await;
    children(&stage, root.supervisor()).await;
    check(
        &stage,
        expect![[r#"
        ! b exited (failed: boom), restarts
        c stopping
        stop c
        c stopped (shutdown)
        init b
        ! b start failed (failed: boom)
        ! a exited (failed: bang), restarts
        init a
        a started #2
        init b
        b started #3
        init c
        c started #2
        > children: c up #2, b up #3, a up #2
    "#]],
    );
}
