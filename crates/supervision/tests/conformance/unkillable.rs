//! Case 65: children that don't end although they are killed.
//!
//! A paused clock can't wait for a thread that is busy, so the children here hang where no kill
//! reaches them: when what they held has been dropped.

use super::address::{Message, echo};
use super::play::{
    answer, check, children, ms, one_for_all, one_for_one, perform, secs, skip, stop, workers,
};
use crate::stage::Stage;
use astscope_supervision::{ChildSpec, Fault, Point, Probe, Root, Stop, SupervisorSpec};
use expect_test::expect;
use tokio::time::sleep;

/// A tree whose children `hung` will not end once they were told to.
async fn hanging(stage: &Stage, tree: SupervisorSpec, hung: &[&str]) -> (Root, Probe) {
    let probe = Probe::new();
    let root = perform(stage, tree.probe(probe.clone())).await;
    skip(stage);
    for id in hung {
        probe.arm(*id, Point::Drop, Fault::Hang, 1);
    }
    (root, probe)
}

#[tokio::test(start_paused = true)]
async fn case_65_who_outlives_its_kill_is_given_up_and_the_shutdown_goes_on() {
    let stage = Stage::new();
    let tree = one_for_one()
        .kill_grace(secs(3))
        .children(workers(&stage, "a"))
        .child(stage.worker("b").stop(Stop::Within(secs(2))))
        .children(workers(&stage, "c"));
    let (root, _probe) = hanging(&stage, tree, &["b"]).await;
    stop(&stage, &root).await;
    check(
        &stage,
        expect![[r#"
        c stopping
        stop c
        c stopped (shutdown)
        b stopping
        stop b
        ! b unkillable
        b stopped (unkillable)
        ! b stop failed (unkillable)
        a stopping
        stop a
        a stopped (shutdown)
        root down (shutdown)
        > shutdown after 5s, 1 unkillable
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn one_that_is_killed_at_once_has_the_grace_too() {
    let stage = Stage::new();
    let tree = one_for_one()
        .child(stage.worker("a").stop(Stop::Kill))
        .child(stage.worker("b").stop(Stop::Kill));
    let (root, _probe) = hanging(&stage, tree, &["a", "b"]).await;
    stop(&stage, &root).await;
    check(
        &stage,
        expect![[r#"
        b stopping
        ! b unkillable
        b stopped (unkillable)
        ! b stop failed (unkillable)
        a stopping
        ! a unkillable
        a stopped (unkillable)
        ! a stop failed (unkillable)
        root down (shutdown)
        > shutdown after 10s, 2 unkillable
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn a_group_restart_goes_on_without_the_unkillable_one() {
    let stage = Stage::new();
    let tree = one_for_all().children(workers(&stage, "a b c"));
    let (root, _probe) = hanging(&stage, tree, &["b"]).await;
    stage.crash("c").await;
    stage.line("> 10 s");
    sleep(secs(10)).await;
    children(&stage, root.supervisor()).await;
    stop(&stage, &root).await;
    check(
        &stage,
        expect![[r#"
        ! c exited (failed: boom), restarts
        b stopping
        stop b
        > 10 s
        ! b unkillable
        b stopped (unkillable)
        ! b stop failed (unkillable)
        a stopping
        stop a
        a stopped (shutdown)
        init a
        a started #2
        init b
        b started #2
        init c
        c started #2
        > children: c up #2, b up #2, a up #2
        c stopping
        stop c
        c stopped (shutdown)
        b stopping
        stop b
        b stopped (shutdown)
        a stopping
        stop a
        a stopped (shutdown)
        root down (shutdown)
        > shutdown after 0ns, 1 unkillable
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn one_that_ends_after_it_was_given_up_changes_nothing() {
    let stage = Stage::new();
    let tree = one_for_one().children(workers(&stage, "a b"));
    let (root, probe) = hanging(&stage, tree, &[]).await;
    probe.arm("b", Point::Drop, Fault::Slow(secs(20)), 1);
    answer(&stage, "terminate_child", root.supervisor().terminate_child("b").await);
    answer(&stage, "restart_child", root.supervisor().restart_child("b").await);
    stage.line("> 20 s");
    sleep(secs(20)).await;
    children(&stage, root.supervisor()).await;
    stop(&stage, &root).await;
    check(
        &stage,
        expect![[r#"
        b stopping
        stop b
        ! b unkillable
        b stopped (unkillable)
        ! b stop failed (unkillable)
        > terminate_child: ()
        init b
        b started #2
        > restart_child: true
        > 20 s
        > children: b up #2, a up #1
        b stopping
        stop b
        b stopped (shutdown)
        a stopping
        stop a
        a stopped (shutdown)
        root down (shutdown)
        > shutdown after 0ns, 1 unkillable
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn an_init_that_outlives_its_kill_is_a_failed_start() {
    let stage = Stage::new();
    let tree = one_for_one().children(workers(&stage, "a"));
    let (root, _probe) = hanging(&stage, tree, &["b"]).await;
    stage.hold("b");
    let spec = stage.worker("b").start_timeout(secs(2));
    let started = root.supervisor().start_child(spec).await;
    answer(&stage, "start_child", started.map(drop));
    let started = root.supervisor().start_child(stage.worker("b")).await;
    answer(&stage, "start_child", started.map(drop));
    stop(&stage, &root).await;
    check(
        &stage,
        expect![[r#"
        init b
        ! b unkillable
        > start_child: error Start(Unkillable)
        init b
        b started #1
        > start_child: ()
        b stopping
        stop b
        b stopped (shutdown)
        a stopping
        stop a
        a stopped (shutdown)
        root down (shutdown)
        > shutdown after 0ns, 1 unkillable
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn one_deep_in_a_tree_that_is_killed_is_counted_once() {
    let stage = Stage::new();
    let deep = one_for_one().children(workers(&stage, "d e"));
    let inner = one_for_one()
        .children(workers(&stage, "b"))
        .child(ChildSpec::supervisor("deep", deep))
        .children(workers(&stage, "c"));
    let tree = one_for_one()
        .children(workers(&stage, "a"))
        .child(ChildSpec::supervisor("inner", inner).stop(Stop::Within(ms(100))));
    let (root, _probe) = hanging(&stage, tree, &["d"]).await;
    stop(&stage, &root).await;
    check(
        &stage,
        expect![[r#"
            inner stopping
            inner/c stopping
            stop c
            inner/c stopped (shutdown)
            inner/deep stopping
            inner/deep/e stopping
            stop e
            inner/deep/e stopped (shutdown)
            inner/deep/d stopping
            stop d
            inner/b stopped (killed)
            ! inner/deep/d unkillable
            inner/deep/d stopped (unkillable)
            ! inner/deep/d stop failed (unkillable)
            inner/deep down (killed)
            inner/deep stopped (killed)
            inner down (killed)
            inner stopped (killed)
            ! inner stop failed (killed)
            a stopping
            stop a
            a stopped (shutdown)
            root down (shutdown)
            > shutdown after 5.1s, 1 unkillable
        "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn a_grace_below_is_waited_for_even_if_it_is_longer_than_the_one_above() {
    let stage = Stage::new();
    let patient = one_for_one().kill_grace(secs(60)).children(workers(&stage, "x y"));
    let spec = one_for_one()
        .kill_grace(secs(1))
        .child(ChildSpec::supervisor("inner", patient).stop(Stop::Kill));
    stage.line(format!("> bound {:?}", spec.stop_bound()));
    let bound = spec.stop_bound().unwrap();
    let (root, _probe) = hanging(&stage, spec, &["x"]).await;
    let start = tokio::time::Instant::now();
    stop(&stage, &root).await;
    assert!(start.elapsed() <= bound, "{:?} > {bound:?}", start.elapsed());
    check(
        &stage,
        expect![[r#"
            inner stopping
            inner/y stopped (killed)
            ! inner/x unkillable
            inner/x stopped (unkillable)
            ! inner/x stop failed (unkillable)
            inner down (killed)
            inner stopped (killed)
            root down (shutdown)
            > shutdown after 60s, 1 unkillable
        "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn the_kill_of_a_root_gives_up_after_one_grace() {
    let stage = Stage::new();
    let inner = one_for_one().children(workers(&stage, "b c"));
    let tree =
        one_for_one().children(workers(&stage, "a")).child(ChildSpec::supervisor("inner", inner));
    let (root, _probe) = hanging(&stage, tree, &["a", "c"]).await;
    let start = tokio::time::Instant::now();
    let outcome = root.kill().await;
    stage.line(format!("> {outcome:?} after {:?}", start.elapsed()));
    check(
        &stage,
        expect![[r#"
            inner/b stopped (killed)
            ! a unkillable
            a stopped (unkillable)
            ! a stop failed (unkillable)
            ! inner/c unkillable
            inner/c stopped (unkillable)
            ! inner/c stop failed (unkillable)
            inner down (killed)
            inner stopped (killed)
            root down (killed)
            > Outcome { exit: Killed, unkillable: 2 } after 5s
        "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn a_message_to_the_next_incarnation_does_not_reach_the_unkillable_one() {
    let stage = Stage::new();
    let (address, spec) = echo(&stage, "b", 4);
    let tree = one_for_one().child(spec);
    let (root, _probe) = hanging(&stage, tree, &["b"]).await;
    root.supervisor().terminate_child("b").await.unwrap();
    root.supervisor().restart_child("b").await.unwrap();
    let answered = address.call(secs(1), Message::Who).await;
    answer(&stage, "who", answered);
    check(
        &stage,
        expect![[r#"
        b stopping
        stop b
        ! b unkillable
        b stopped (unkillable)
        ! b stop failed (unkillable)
        init b #2
        b started #2
        > who: 2
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn one_that_ends_by_itself_and_hangs_on_the_way_out_is_given_up_too() {
    let stage = Stage::new();
    let tree = one_for_one().kill_grace(secs(3)).children(workers(&stage, "a b"));
    let (root, _probe) = hanging(&stage, tree, &["b"]).await;
    stage.crash("b").await;
    stage.line("> 3 s");
    sleep(secs(3)).await;
    children(&stage, root.supervisor()).await;
    stop(&stage, &root).await;
    check(
        &stage,
        expect![[r#"
            > 3 s
            ! b unkillable
            ! b exited (unkillable), restarts
            init b
            b started #2
            > children: b up #2, a up #1
            b stopping
            stop b
            b stopped (shutdown)
            a stopping
            stop a
            a stopped (shutdown)
            root down (shutdown)
            > shutdown after 0ns, 1 unkillable
        "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn one_that_hangs_on_the_way_out_and_is_then_told_to_stop_is_given_up_once() {
    let stage = Stage::new();
    let tree =
        one_for_one().kill_grace(secs(3)).child(stage.worker("a").stop(Stop::Within(secs(2))));
    let (root, _probe) = hanging(&stage, tree, &["a"]).await;
    stage.crash("a").await;
    sleep(secs(1)).await;
    stop(&stage, &root).await;
    sleep(secs(60)).await;
    check(
        &stage,
        expect![[r#"
        a stopping
        ! a unkillable
        a stopped (unkillable)
        ! a stop failed (unkillable)
        root down (shutdown)
        > shutdown after 5s, 1 unkillable
    "#]],
    );
}
