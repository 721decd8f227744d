//! Dynamic supervisors: 62, 63, 71 and 72 of the list, and the rules of 1.8.

use super::play::{
    answer, check, children, count, dynamic, ended, ms, one_for_one, perform, secs, skip, stop,
    workers,
};
use crate::stage::{Stage, settle};
use astscope_supervision::{Exit, Restart, Root, Stop, SupervisorSpec};
use expect_test::expect;
use tokio::time::sleep;

async fn start_child(stage: &Stage, root: &Root, spec: astscope_supervision::ChildSpec) {
    let what = format!("start_child {}", spec.id());
    let started = root.supervisor().start_child(spec).await;
    answer(stage, &what, started.map(|child| child.is_some()));
}

#[tokio::test(start_paused = true)]
async fn case_62_children_of_a_dynamic_supervisor_stop_all_at_once() {
    let stage = Stage::new();
    let spec = dynamic()
        .children(["a", "b", "c", "d"].map(|id| stage.worker(id).stop(Stop::Within(ms(100)))));
    stage.line(format!("> bound {:?}", spec.stop_bound()));
    let root = perform(&stage, spec).await;
    skip(&stage);
    for id in ["a", "b", "c", "d"] {
        stage.stubborn(id);
    }
    stop(&stage, &root).await;
    check(
        &stage,
        expect![[r#"
        d stopping
        c stopping
        b stopping
        a stopping
        stop d
        stop c
        stop b
        stop a
        a stopped (killed)
        ! a stop failed (killed)
        b stopped (killed)
        ! b stop failed (killed)
        c stopped (killed)
        ! c stop failed (killed)
        d stopped (killed)
        ! d stop failed (killed)
        root down (shutdown)
        > shutdown after 100ms
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn case_63_each_by_its_own_rule_in_one_wait() {
    let stage = Stage::new();
    let root = perform(&stage, dynamic()).await;
    for spec in [
        stage.worker("kill").stop(Stop::Kill),
        stage.worker("50").stop(Stop::Within(ms(50))),
        stage.worker("50-too").stop(Stop::Within(ms(50))),
        stage.worker("80").stop(Stop::Within(ms(80))).restart(Restart::Temporary),
        stage.worker("wait").stop(Stop::Wait).restart(Restart::Transient),
        stage.worker("prompt"),
    ] {
        start_child(&stage, &root, spec).await;
    }
    skip(&stage);
    for id in ["kill", "50", "50-too", "80", "wait"] {
        stage.stubborn(id);
    }
    let release = async {
        sleep(ms(200)).await;
        stage.line("> wait gives in");
        stage.exit_now("wait", Exit::Normal);
    };
    tokio::join!(stop(&stage, &root), release);
    check(
        &stage,
        expect![[r#"
        prompt stopping
        wait stopping
        80 stopping
        50-too stopping
        50 stopping
        kill stopping
        stop prompt
        stop wait
        stop 80
        stop 50-too
        stop 50
        prompt stopped (shutdown)
        kill stopped (killed)
        50 stopped (killed)
        ! 50 stop failed (killed)
        50-too stopped (killed)
        ! 50-too stop failed (killed)
        80 stopped (killed)
        ! 80 stop failed (killed)
        > wait gives in
        wait stopped (normal)
        root down (shutdown)
        > shutdown after 200ms
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn case_71_a_child_that_is_gone_or_somebody_elses_is_not_found() {
    let stage = Stage::new();
    let root = perform(&stage, dynamic()).await;
    let other = perform(&stage, dynamic().children(workers(&stage, "foreign"))).await;
    start_child(&stage, &root, stage.worker("a")).await;
    skip(&stage);
    for id in ["a", "a", "foreign"] {
        answer(&stage, id, root.supervisor().terminate_child(id).await);
    }
    children(&stage, root.supervisor()).await;
    children(&stage, other.supervisor()).await;
    check(
        &stage,
        expect![[r#"
        a stopping
        stop a
        a stopped (shutdown)
        > a: ()
        > a: error NotFound
        > foreign: error NotFound
        > children: 
        > children: foreign up #1
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn case_72_more_children_than_may_be_are_refused_and_restarting_ones_count() {
    let stage = Stage::new();
    let tree = SupervisorSpec::dynamic(2).intensity(1000, secs(5));
    let root = perform(&stage, tree).await;
    for id in ["a", "b", "c"] {
        start_child(&stage, &root, stage.worker(id)).await;
    }
    check(
        &stage,
        expect![[r#"
        root up
        init a
        a started #1
        > start_child a: true
        init b
        b started #1
        > start_child b: true
        > start_child c: error MaxChildren
    "#]],
    );
    stage.fail("b", 1);
    stage.exit_now("b", Exit::failed("boom"));
    start_child(&stage, &root, stage.worker("c")).await;
    settle().await;
    root.supervisor().terminate_child("a").await.unwrap();
    start_child(&stage, &root, stage.worker("c")).await;
    children(&stage, root.supervisor()).await;
    check(
        &stage,
        expect![[r#"
        ! b exited (failed: boom), restarts
        init b
        ! b start failed (failed: boom)
        > start_child c: error MaxChildren
        init b
        b started #3
        a stopping
        stop a
        a stopped (shutdown)
        init c
        c started #1
        > start_child c: true
        > children: c up #1, b up #3
    "#]],
    );
}

// ── rules of 1.8 ────────────────────────────────────────────────────────────────────────────────

#[tokio::test(start_paused = true)]
async fn rule_1_8_an_ignored_start_stores_nothing() {
    let stage = Stage::new();
    let root = perform(&stage, dynamic()).await;
    skip(&stage);
    stage.ignore("a", 1);
    start_child(&stage, &root, stage.worker("a")).await;
    children(&stage, root.supervisor()).await;
    start_child(&stage, &root, stage.worker("a")).await;
    check(
        &stage,
        expect![[r#"
        init a
        a ignored
        > start_child a: false
        > children: 
        init a
        a started #1
        > start_child a: true
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn rule_1_8_a_failed_start_stores_nothing() {
    let stage = Stage::new();
    let root = perform(&stage, dynamic()).await;
    skip(&stage);
    stage.fail("a", 1);
    start_child(&stage, &root, stage.worker("a")).await;
    count(&stage, root.supervisor()).await;
    check(
        &stage,
        expect![[r#"
        init a
        > start_child a: error Start(Failed("boom"))
        > count: 1 specs, 0 active, 0 supervisors, 0 workers
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn rule_1_8_an_ignored_restart_removes_the_child() {
    let stage = Stage::new();
    let root = perform(&stage, dynamic().children(workers(&stage, "a b"))).await;
    skip(&stage);
    stage.ignore("a", 1);
    stage.crash("a").await;
    children(&stage, root.supervisor()).await;
    stop(&stage, &root).await;
    check(
        &stage,
        expect![[r#"
        ! a exited (failed: boom), restarts
        init a
        a ignored
        > children: b up #1
        b stopping
        stop b
        b stopped (shutdown)
        root down (shutdown)
        > shutdown after 0ns
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn rule_1_8_a_child_that_ends_for_good_is_forgotten_whatever_its_type() {
    let stage = Stage::new();
    let tree = dynamic()
        .child(stage.worker("a").restart(Restart::Transient))
        .child(stage.worker("b").restart(Restart::Temporary))
        .child(stage.worker("c"));
    let root = perform(&stage, tree).await;
    skip(&stage);
    stage.exit("a", Exit::Normal).await;
    stage.exit("b", Exit::failed("boom")).await;
    root.supervisor().terminate_child("c").await.unwrap();
    children(&stage, root.supervisor()).await;
    check(
        &stage,
        expect![[r#"
        a exited (normal)
        ! b exited (failed: boom)
        c stopping
        stop c
        c stopped (shutdown)
        > children: 
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn rule_1_8_a_failing_restart_is_tried_again_until_the_meltdown() {
    let stage = Stage::new();
    let tree = SupervisorSpec::dynamic(9).intensity(2, secs(5)).children(workers(&stage, "a b"));
    let root = perform(&stage, tree).await;
    skip(&stage);
    stage.fail("a", u32::MAX);
    stage.crash("a").await;
    ended(&stage, &root).await;
    check(
        &stage,
        expect![[r#"
        ! a exited (failed: boom), restarts
        init a
        ! a start failed (failed: boom)
        init a
        ! a start failed (failed: boom)
        ! root meltdown at a
        b stopping
        stop b
        b stopped (shutdown)
        root down (meltdown: too many restarts)
        > ended: meltdown: too many restarts
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn rule_1_8_terminating_a_restarting_child_removes_it() {
    let stage = Stage::new();
    let root = perform(&stage, dynamic().children(workers(&stage, "a b"))).await;
    skip(&stage);
    stage.fail("a", 1);
    stage.exit_now("a", Exit::failed("boom"));
    answer(&stage, "terminate_child", root.supervisor().terminate_child("a").await);
    settle().await;
    children(&stage, root.supervisor()).await;
    check(
        &stage,
        expect![[r#"
        ! a exited (failed: boom), restarts
        init a
        ! a start failed (failed: boom)
        > terminate_child: ()
        > children: b up #1
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn rule_1_8_restart_and_delete_by_hand_are_refused() {
    let stage = Stage::new();
    let root = perform(&stage, dynamic().children(workers(&stage, "a"))).await;
    skip(&stage);
    for id in ["a", "nobody"] {
        answer(&stage, "restart_child", root.supervisor().restart_child(id).await);
        answer(&stage, "delete_child", root.supervisor().delete_child(id).await);
    }
    check(
        &stage,
        expect![[r#"
        > restart_child: error Dynamic
        > delete_child: error Dynamic
        > restart_child: error Dynamic
        > delete_child: error Dynamic
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn rule_1_8_specs_are_counted_as_one_and_names_are_unique() {
    let stage = Stage::new();
    let root = perform(&stage, dynamic().children(workers(&stage, "a b c"))).await;
    skip(&stage);
    let inner = astscope_supervision::ChildSpec::supervisor("inner", one_for_one());
    start_child(&stage, &root, inner).await;
    start_child(&stage, &root, stage.worker("a")).await;
    stage.fail("a", 1);
    stage.exit_now("a", Exit::failed("boom"));
    count(&stage, root.supervisor()).await;
    settle().await;
    count(&stage, root.supervisor()).await;
    check(
        &stage,
        expect![[r#"
        inner up
        inner started #1
        > start_child inner: true
        > start_child a: error AlreadyStarted
        ! a exited (failed: boom), restarts
        init a
        ! a start failed (failed: boom)
        > count: 1 specs, 3 active, 1 supervisors, 3 workers
        init a
        a started #3
        > count: 1 specs, 4 active, 1 supervisors, 3 workers
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn children_of_one_start_beyond_the_limit_are_refused() {
    let stage = Stage::new();
    let tree = SupervisorSpec::dynamic(2).children(workers(&stage, "a b c"));
    let refused = super::play::try_perform(&stage, tree).await;
    answer(&stage, "start", refused.map(drop));
    check(
        &stage,
        expect![[r#"
            > start: error Spec(MaxChildren(2))
        "#]],
    );
}
