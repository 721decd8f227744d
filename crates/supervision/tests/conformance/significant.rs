//! 2.7 and 1.7: supervisors that end with their significant children.

use super::play::{
    check, children, ended, one_for_all, one_for_one, perform, rest_for_one, skip, take, workers,
};
use crate::stage::{Stage, settle};
use astscope_supervision::{AutoShutdown, ChildSpec, Exit, Restart, SupervisorSpec};
use expect_test::expect;

fn significant(stage: &Stage, id: &str, restart: Restart) -> ChildSpec {
    stage.worker(id).restart(restart).significant()
}

fn any(tree: SupervisorSpec) -> SupervisorSpec {
    tree.auto_shutdown(AutoShutdown::AnySignificant)
}

fn all(tree: SupervisorSpec) -> SupervisorSpec {
    tree.auto_shutdown(AutoShutdown::AllSignificant)
}

#[tokio::test(start_paused = true)]
async fn case_73_any_significant_ends_with_the_first_that_is_not_restarted() {
    let stage = Stage::new();
    let tree = any(one_for_one())
        .children(workers(&stage, "a"))
        .child(significant(&stage, "b", Restart::Transient))
        .children(workers(&stage, "c"));
    let root = perform(&stage, tree).await;
    skip(&stage);
    stage.crash("b").await;
    ended(&stage, &root).await;
    stage.exit("b", Exit::Normal).await;
    ended(&stage, &root).await;
    check(
        &stage,
        expect![[r#"
        ! b exited (failed: boom), restarts
        init b
        b started #2
        > still there
        b exited (normal)
        c stopping
        stop c
        c stopped (shutdown)
        a stopping
        stop a
        a stopped (shutdown)
        root down (shutdown)
        > ended: shutdown
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn case_74_a_temporary_significant_child_takes_its_supervisor_along_whatever_its_end() {
    let stage = Stage::new();
    let mut logs = String::new();
    for exit in [Exit::Normal, Exit::Shutdown, Exit::failed("boom"), Exit::Killed] {
        let tree = any(one_for_one()).children(workers(&stage, "a")).child(significant(
            &stage,
            "b",
            Restart::Temporary,
        ));
        let root = perform(&stage, tree).await;
        skip(&stage);
        stage.exit("b", exit).await;
        ended(&stage, &root).await;
        logs += &take(&stage);
    }
    expect![[r#"
        b exited (normal)
        a stopping
        stop a
        a stopped (shutdown)
        root down (shutdown)
        > ended: shutdown
        b exited (shutdown)
        a stopping
        stop a
        a stopped (shutdown)
        root down (shutdown)
        > ended: shutdown
        ! b exited (failed: boom)
        a stopping
        stop a
        a stopped (shutdown)
        root down (shutdown)
        > ended: shutdown
        ! b exited (killed)
        a stopping
        stop a
        a stopped (shutdown)
        root down (shutdown)
        > ended: shutdown
    "#]]
    .assert_eq(&logs);
}

#[tokio::test(start_paused = true)]
async fn case_75_all_significant_ends_with_the_last() {
    let stage = Stage::new();
    let tree = all(one_for_one())
        .children(workers(&stage, "a"))
        .child(significant(&stage, "b", Restart::Transient))
        .child(significant(&stage, "c", Restart::Temporary));
    let root = perform(&stage, tree).await;
    skip(&stage);
    stage.exit("b", Exit::Normal).await;
    ended(&stage, &root).await;
    stage.exit("c", Exit::failed("boom")).await;
    ended(&stage, &root).await;
    check(
        &stage,
        expect![[r#"
        b exited (normal)
        > still there
        ! c exited (failed: boom)
        a stopping
        stop a
        a stopped (shutdown)
        root down (shutdown)
        > ended: shutdown
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn case_77_an_end_cascades_where_the_supervisor_is_significant_itself() {
    let stage = Stage::new();
    let mut logs = String::new();
    for is_significant in [true, false] {
        let inner = any(one_for_one()).child(significant(&stage, "x", Restart::Transient));
        let mut inner = ChildSpec::supervisor("inner", inner).restart(Restart::Transient);
        if is_significant {
            inner = inner.significant();
        }
        let root = perform(&stage, any(one_for_one()).children(workers(&stage, "a")).child(inner));
        let root = root.await;
        skip(&stage);
        stage.line(format!("> significant: {is_significant}"));
        stage.exit("x", Exit::Normal).await;
        ended(&stage, &root).await;
        logs += &take(&stage);
    }
    expect![[r#"
        > significant: true
        inner/x exited (normal)
        inner down (shutdown)
        inner exited (shutdown)
        a stopping
        stop a
        a stopped (shutdown)
        root down (shutdown)
        > ended: shutdown
        > significant: false
        inner/x exited (normal)
        inner down (shutdown)
        inner exited (shutdown)
        > still there
    "#]]
    .assert_eq(&logs);
}

// ── rules of 1.7 ────────────────────────────────────────────────────────────────────────────────

#[tokio::test(start_paused = true)]
async fn rule_1_7_a_terminated_child_and_a_bystander_take_nobody_along() {
    let stage = Stage::new();
    let tree = any(one_for_all())
        .child(significant(&stage, "a", Restart::Transient))
        .child(significant(&stage, "b", Restart::Temporary))
        .children(workers(&stage, "c"));
    let root = perform(&stage, tree).await;
    skip(&stage);
    stage.crash("c").await; // b is stopped for it, and not started again
    root.supervisor().terminate_child("a").await.unwrap();
    settle().await;
    children(&stage, root.supervisor()).await;
    ended(&stage, &root).await;
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
        init c
        c started #2
        a stopping
        stop a
        a stopped (shutdown)
        > children: c up #2, a down #2
        > still there
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn rule_1_7_when_the_last_significant_child_is_terminated_by_hand_the_supervisor_stays() {
    let stage = Stage::new();
    let tree = all(one_for_one())
        .child(significant(&stage, "a", Restart::Transient))
        .child(significant(&stage, "b", Restart::Transient))
        .children(workers(&stage, "c"));
    let root = perform(&stage, tree).await;
    skip(&stage);
    stage.exit("a", Exit::Normal).await;
    root.supervisor().terminate_child("b").await.unwrap();
    settle().await;
    ended(&stage, &root).await;
    // One that comes back counts again.
    root.supervisor().restart_child("a").await.unwrap();
    stage.exit("a", Exit::Normal).await;
    ended(&stage, &root).await;
    check(
        &stage,
        expect![[r#"
        a exited (normal)
        b stopping
        stop b
        b stopped (shutdown)
        > still there
        init a
        a started #2
        a exited (normal)
        c stopping
        stop c
        c stopped (shutdown)
        root down (shutdown)
        > ended: shutdown
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn rule_1_7_a_significant_child_that_is_tried_again_counts_as_active() {
    let stage = Stage::new();
    let tree = all(one_for_one())
        .child(significant(&stage, "a", Restart::Transient))
        .child(significant(&stage, "b", Restart::Transient));
    let root = perform(&stage, tree).await;
    skip(&stage);
    stage.fail("a", 1);
    stage.exit_now("a", Exit::failed("boom"));
    stage.exit_now("b", Exit::Normal);
    settle().await;
    children(&stage, root.supervisor()).await;
    ended(&stage, &root).await;
    check(
        &stage,
        expect![[r#"
        ! a exited (failed: boom), restarts
        init a
        ! a start failed (failed: boom)
        b exited (normal)
        init a
        a started #3
        > children: b down #1, a up #3
        > still there
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn rule_1_7_two_significant_deaths_at_once_are_the_last_of_all() {
    let stage = Stage::new();
    let tree = all(one_for_one())
        .child(significant(&stage, "a", Restart::Transient))
        .child(significant(&stage, "b", Restart::Transient))
        .children(workers(&stage, "c"));
    let root = perform(&stage, tree).await;
    skip(&stage);
    stage.exit_now("b", Exit::Normal);
    stage.exit_now("a", Exit::Normal);
    settle().await;
    ended(&stage, &root).await;
    check(
        &stage,
        expect![[r#"
        b exited (normal)
        a exited (normal)
        c stopping
        stop c
        c stopped (shutdown)
        root down (shutdown)
        > ended: shutdown
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn rule_1_7_an_ignored_restart_takes_nobody_along() {
    let stage = Stage::new();
    let tree = any(one_for_one())
        .child(significant(&stage, "a", Restart::Transient))
        .children(workers(&stage, "b"));
    let root = perform(&stage, tree).await;
    skip(&stage);
    stage.ignore("a", 1);
    stage.crash("a").await;
    children(&stage, root.supervisor()).await;
    ended(&stage, &root).await;
    check(
        &stage,
        expect![[r#"
        ! a exited (failed: boom), restarts
        init a
        a ignored
        > children: b up #1, a down #2
        > still there
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn rule_1_7_a_significant_supervisor_that_melts_down_takes_its_parent_along() {
    let stage = Stage::new();
    let inner = one_for_one().intensity(0, super::play::secs(5)).children(workers(&stage, "x"));
    let inner = ChildSpec::supervisor("inner", inner).restart(Restart::Transient).significant();
    let tree = any(rest_for_one()).children(workers(&stage, "a")).child(inner);
    let root = perform(&stage, tree).await;
    skip(&stage);
    stage.crash("x").await;
    ended(&stage, &root).await;
    check(
        &stage,
        expect![[r#"
        ! inner/x exited (failed: boom), restarts
        ! inner meltdown at x
        inner down (meltdown: too many restarts)
        inner exited (meltdown: too many restarts)
        a stopping
        stop a
        a stopped (shutdown)
        root down (shutdown)
        > ended: shutdown
    "#]],
    );
}
