//! 2.7 and 1.6: what a supervisor can be asked, and what it answers in each state of the child.

use super::play::{
    answer, check, children, count, one_for_all, one_for_one, perform, rest_for_one, secs, skip,
    stop, take, workers,
};
use crate::stage::{Stage, settle};
use astscope_supervision::{AdminError, ChildSpec, Exit, Restart, Supervisor};
use expect_test::expect;

/// All four requests for `b`, in their own order, and the children before and after.
async fn ask_everything(stage: &Stage, supervisor: &Supervisor) {
    let started = supervisor.start_child(stage.worker("b")).await;
    answer(stage, "start_child", started.map(|child| child.is_some()));
    answer(stage, "restart_child", supervisor.restart_child("b").await);
    answer(stage, "delete_child", supervisor.delete_child("b").await);
    answer(stage, "terminate_child", supervisor.terminate_child("b").await);
    children(stage, supervisor).await;
}

#[tokio::test(start_paused = true)]
async fn case_68_each_request_of_a_running_child() {
    let stage = Stage::new();
    let root = perform(&stage, one_for_one().children(workers(&stage, "a b"))).await;
    skip(&stage);
    ask_everything(&stage, root.supervisor()).await;
    check(
        &stage,
        expect![[r#"
        > start_child: error AlreadyStarted
        > restart_child: error Running
        > delete_child: error Running
        b stopping
        stop b
        b stopped (shutdown)
        > terminate_child: ()
        > children: b down #1, a up #1
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn case_68_each_request_of_a_restarting_child() {
    let stage = Stage::new();
    let tree = one_for_one().intensity(1_000, secs(60));
    let root = perform(&stage, tree.children(workers(&stage, "a b"))).await;
    skip(&stage);
    // Each is asked in a turn of its own, while the child is tried over and over again.
    stage.fail("b", u32::MAX);
    stage.exit_now("b", Exit::failed("boom"));
    let supervisor = root.supervisor();
    while stage.incarnation("b") < 2 {
        tokio::task::yield_now().await;
    }
    skip(&stage);
    let answers = [
        supervisor.start_child(stage.worker("b")).await.map(drop),
        supervisor.restart_child("b").await.map(drop),
        supervisor.delete_child("b").await,
        supervisor.terminate_child("b").await,
    ];
    skip(&stage);
    for (what, answered) in ["start", "restart", "delete", "terminate"].iter().zip(answers) {
        answer(&stage, what, answered);
    }
    settle().await;
    children(&stage, supervisor).await;
    check(
        &stage,
        expect![[r#"
        > start: error AlreadyPresent
        > restart: error Restarting
        > delete: error Restarting
        > terminate: ()
        > children: b down #5, a up #1
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn case_68_each_request_of_a_child_that_is_down() {
    let stage = Stage::new();
    let root = perform(&stage, one_for_one().children(workers(&stage, "a b"))).await;
    let supervisor = root.supervisor();
    supervisor.terminate_child("b").await.unwrap();
    skip(&stage);
    let started = supervisor.start_child(stage.worker("b")).await;
    answer(&stage, "start_child", started.map(drop));
    answer(&stage, "terminate_child", supervisor.terminate_child("b").await);
    stage.fail("b", 1);
    answer(&stage, "restart_child", supervisor.restart_child("b").await);
    settle().await;
    children(&stage, supervisor).await;
    answer(&stage, "restart_child", supervisor.restart_child("b").await);
    answer(&stage, "terminate_child", supervisor.terminate_child("b").await);
    answer(&stage, "delete_child", supervisor.delete_child("b").await);
    children(&stage, supervisor).await;
    check(
        &stage,
        expect![[r#"
        > start_child: error AlreadyPresent
        > terminate_child: ()
        init b
        > restart_child: error Start(Failed("boom"))
        > children: b down #2, a up #1
        init b
        b started #3
        > restart_child: true
        b stopping
        stop b
        b stopped (shutdown)
        > terminate_child: ()
        > delete_child: ()
        > children: a up #1
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn case_68_each_request_of_a_child_that_nobody_knows() {
    let stage = Stage::new();
    let root = perform(&stage, one_for_one().children(workers(&stage, "a"))).await;
    let supervisor = root.supervisor();
    skip(&stage);
    answer(&stage, "terminate_child", supervisor.terminate_child("b").await);
    answer(&stage, "restart_child", supervisor.restart_child("b").await);
    answer(&stage, "delete_child", supervisor.delete_child("b").await);
    let started = supervisor.start_child(stage.worker("b")).await;
    answer(&stage, "start_child", started.map(|child| child.is_some()));
    children(&stage, supervisor).await;
    check(
        &stage,
        expect![[r#"
        > terminate_child: error NotFound
        > restart_child: error NotFound
        > delete_child: error NotFound
        init b
        b started #1
        > start_child: true
        > children: b up #1, a up #1
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn case_69_children_are_listed_newest_first_under_names_that_stay() {
    let stage = Stage::new();
    let root = perform(&stage, one_for_all().children(workers(&stage, "b a"))).await;
    let supervisor = root.supervisor();
    supervisor.start_child(stage.worker("c")).await.unwrap();
    let mut logs = String::new();
    let list = async || {
        skip(&stage);
        children(&stage, supervisor).await;
        let listed = supervisor.which_children().await.unwrap();
        assert!(listed.is_sorted_by(|newer, older| newer.key > older.key), "{listed:?}");
        take(&stage)
    };
    logs += &list().await;
    stage.crash("a").await;
    logs += &list().await;
    supervisor.terminate_child("a").await.unwrap();
    supervisor.delete_child("a").await.unwrap();
    supervisor.start_child(stage.worker("a")).await.unwrap();
    logs += &list().await;
    expect![[r#"
        > children: c up #1, a up #1, b up #1
        > children: c up #2, a up #2, b up #2
        > children: a up #1, c up #2, b up #2
    "#]]
    .assert_eq(&logs);
}

#[tokio::test(start_paused = true)]
async fn case_70_terminating_twice_is_fine() {
    let stage = Stage::new();
    let root = perform(&stage, one_for_one().children(workers(&stage, "a"))).await;
    skip(&stage);
    for _ in 0..2 {
        answer(&stage, "terminate_child", root.supervisor().terminate_child("a").await);
    }
    children(&stage, root.supervisor()).await;
    check(
        &stage,
        expect![[r#"
        a stopping
        stop a
        a stopped (shutdown)
        > terminate_child: ()
        > terminate_child: ()
        > children: a down #1
    "#]],
    );
}

// ── rules of 1.6 ────────────────────────────────────────────────────────────────────────────────

#[tokio::test(start_paused = true)]
async fn rule_1_6_a_child_that_is_added_comes_last_in_every_order() {
    let stage = Stage::new();
    let root = perform(&stage, rest_for_one().children(workers(&stage, "a b"))).await;
    root.supervisor().start_child(stage.worker("c")).await.unwrap();
    skip(&stage);
    stage.crash("b").await;
    stop(&stage, &root).await;
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
        > shutdown after 0ns
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn rule_1_6_terminating_a_temporary_child_forgets_it() {
    let stage = Stage::new();
    let tree = one_for_one().child(stage.worker("a").restart(Restart::Temporary));
    let root = perform(&stage, tree).await;
    skip(&stage);
    for _ in 0..2 {
        answer(&stage, "terminate_child", root.supervisor().terminate_child("a").await);
    }
    answer(&stage, "restart_child", root.supervisor().restart_child("a").await);
    children(&stage, root.supervisor()).await;
    check(
        &stage,
        expect![[r#"
        a stopping
        stop a
        a stopped (shutdown)
        > terminate_child: ()
        > terminate_child: error NotFound
        > restart_child: error NotFound
        > children: 
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn rule_1_6_a_restart_by_hand_that_fails_is_not_tried_again() {
    let stage = Stage::new();
    let root = perform(&stage, one_for_all().children(workers(&stage, "a b"))).await;
    root.supervisor().terminate_child("a").await.unwrap();
    skip(&stage);
    stage.raise("a", 1);
    answer(&stage, "restart_child", root.supervisor().restart_child("a").await);
    settle().await;
    children(&stage, root.supervisor()).await;
    check(
        &stage,
        expect![[r#"
        init a
        > restart_child: error Start(Panicked("raised"))
        > children: b up #1, a down #2
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn rule_1_6_supervisors_and_workers_are_counted_running_or_not() {
    let stage = Stage::new();
    let inner = |id: &'static str| {
        ChildSpec::supervisor(id, one_for_one().children(workers(&stage, "x y z")))
    };
    let tree = one_for_one().children(workers(&stage, "a b")).child(inner("p"));
    let root = perform(&stage, tree).await;
    skip(&stage);
    count(&stage, root.supervisor()).await;
    root.supervisor().terminate_child("p").await.unwrap();
    root.supervisor().terminate_child("a").await.unwrap();
    count(&stage, root.supervisor()).await;
    check(
        &stage,
        expect![[r#"
            > count: 3 specs, 3 active, 1 supervisors, 2 workers
            p stopping
            p/z stopping
            stop z
            p/z stopped (shutdown)
            p/y stopping
            stop y
            p/y stopped (shutdown)
            p/x stopping
            stop x
            p/x stopped (shutdown)
            p down (shutdown)
            p stopped (shutdown)
            a stopping
            stop a
            a stopped (shutdown)
            > count: 3 specs, 1 active, 1 supervisors, 2 workers
        "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn rule_1_6_an_invalid_child_is_refused_and_changes_nothing() {
    let stage = Stage::new();
    let root = perform(&stage, one_for_one().children(workers(&stage, "a"))).await;
    skip(&stage);
    let below = one_for_one().children(workers(&stage, "x x"));
    for spec in [
        stage.worker("b").restart(Restart::Transient).significant(),
        stage.worker("b/c"),
        ChildSpec::supervisor("b", below),
    ] {
        let refused = root.supervisor().start_child(spec).await;
        answer(&stage, "start_child", refused.map(drop));
    }
    children(&stage, root.supervisor()).await;
    check(
        &stage,
        expect![[r#"
        > start_child: error Spec(SignificantNever("b"))
        > start_child: error Spec(Id("b/c"))
        > start_child: error Spec(DuplicateId("x"))
        > children: a up #1
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn rule_1_6_a_subtree_can_be_added_terminated_and_started_again() {
    let stage = Stage::new();
    let root = perform(&stage, one_for_one().children(workers(&stage, "a"))).await;
    skip(&stage);
    let inner = ChildSpec::supervisor("inner", one_for_all().children(workers(&stage, "x y")));
    let below = inner.as_supervisor().unwrap();
    answer(&stage, "start_child", root.supervisor().start_child(inner).await.map(drop));
    answer(&stage, "added below", below.start_child(stage.worker("z")).await.map(drop));
    answer(&stage, "terminate_child", root.supervisor().terminate_child("inner").await);
    answer(&stage, "asked below", below.within(secs(1)).which_children().await);
    answer(&stage, "restart_child", root.supervisor().restart_child("inner").await);
    children(&stage, &below).await;
    answer(&stage, "terminate_child", root.supervisor().terminate_child("inner").await);
    answer(&stage, "delete_child", root.supervisor().delete_child("inner").await);
    answer(&stage, "asked below", below.within(secs(1)).which_children().await);
    check(
        &stage,
        expect![[r#"
        init x
        inner/x started #1
        init y
        inner/y started #1
        inner up
        inner started #1
        > start_child: ()
        init z
        inner/z started #1
        > added below: ()
        inner stopping
        inner/z stopping
        stop z
        inner/z stopped (shutdown)
        inner/y stopping
        stop y
        inner/y stopped (shutdown)
        inner/x stopping
        stop x
        inner/x stopped (shutdown)
        inner down (shutdown)
        inner stopped (shutdown)
        > terminate_child: ()
        > asked below: error Gone
        init x
        inner/x started #2
        init y
        inner/y started #2
        inner up
        inner started #2
        > restart_child: true
        > children: y up #2, x up #2
        inner stopping
        inner/y stopping
        stop y
        inner/y stopped (shutdown)
        inner/x stopping
        stop x
        inner/x stopped (shutdown)
        inner down (shutdown)
        inner stopped (shutdown)
        > terminate_child: ()
        > delete_child: ()
        > asked below: error Gone
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn requests_have_a_deadline_of_their_own() {
    let stage = Stage::new();
    let root = perform(&stage, one_for_one().children(workers(&stage, "a"))).await;
    stage.hold("b");
    let hung = root.supervisor().within(secs(2));
    let start = tokio::time::Instant::now();
    let started = hung.start_child(stage.worker("b")).await.map(drop);
    assert_eq!(started, Err(AdminError::Timeout));
    assert_eq!(start.elapsed(), secs(2));
    // What was asked for still happens.
    stage.release("b");
    settle().await;
    skip(&stage);
    children(&stage, root.supervisor()).await;
    check(
        &stage,
        expect![[r#"
        > children: b up #1, a up #1
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn more_requests_than_may_wait_are_answered_all_the_same_and_in_order() {
    let stage = Stage::new();
    let root = perform(&stage, one_for_one().children(workers(&stage, "a"))).await;
    stage.hold("b");
    let supervisor = root.supervisor();
    let mut asked = tokio::task::JoinSet::new();
    let start = {
        let (supervisor, spec) = (supervisor.clone(), stage.worker("b"));
        async move { supervisor.start_child(spec).await.map(drop) }
    };
    asked.spawn(start);
    settle().await;
    for n in 0..300 {
        let (supervisor, stage) = (supervisor.clone(), stage.clone());
        asked.spawn(async move {
            let refused = supervisor.terminate_child("nobody").await;
            stage.line(format!("{n}"));
            assert_eq!(refused, Err(AdminError::NotFound));
            Ok(())
        });
    }
    settle().await;
    skip(&stage);
    stage.release("b");
    while let Some(done) = asked.join_next().await {
        done.unwrap().unwrap();
    }
    let order: Vec<u32> = stage.take_log().iter().filter_map(|line| line.parse().ok()).collect();
    assert_eq!(order, (0..300).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn whoever_asks_a_supervisor_that_is_gone_is_told_so() {
    let stage = Stage::new();
    let root = perform(&stage, one_for_one().children(workers(&stage, "a"))).await;
    let supervisor = root.supervisor().clone();
    root.shutdown().await;
    skip(&stage);
    answer(&stage, "which_children", supervisor.which_children().await.map(drop));
    answer(&stage, "start_child", supervisor.start_child(stage.worker("b")).await.map(drop));
    answer(&stage, "supervisor_at", Ok::<_, ()>(supervisor.supervisor_at("a").await.is_some()));
    check(
        &stage,
        expect![[r#"
            > which_children: error Gone
            > start_child: error Gone
            > supervisor_at: false
        "#]],
    );
}
