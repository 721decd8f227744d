//! 2.1 and 1.1: the first start of a tree, and of a child that is added to it.

use super::play::{
    answer, check, children, count, ended, ms, one_for_all, one_for_one, perform, secs, skip, stop,
    try_perform, workers,
};
use crate::stage::{Stage, settle};
use astscope_supervision::{
    AutoShutdown, ChildSpec, Exit, Restart, Stop, Strategy, Structure, SupervisorSpec,
};
use expect_test::expect;
use std::sync::{Arc, OnceLock};
use tokio::time::Instant;

#[tokio::test(start_paused = true)]
async fn case_01_each_start_begins_after_the_init_before_it() {
    let stage = Stage::new();
    stage.hold("b");
    let release = async {
        settle().await;
        stage.line("> release b");
        stage.release("b");
    };
    let tree = one_for_one().children(workers(&stage, "a b c"));
    let (_root, ()) = tokio::join!(perform(&stage, tree), release);
    check(
        &stage,
        expect![[r#"
        init a
        a started #1
        init b
        > release b
        b started #1
        init c
        c started #1
        root up
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn case_02_a_failed_start_undoes_those_before_it_and_never_begins_those_after() {
    let stage = Stage::new();
    stage.fail("c", 1);
    let tree = one_for_one().children(workers(&stage, "a b c d"));
    let failed = try_perform(&stage, tree).await;
    answer(&stage, "start", failed.map(drop));
    check(
        &stage,
        expect![[r#"
        init a
        a started #1
        init b
        b started #1
        init c
        ! c start failed (failed: boom)
        b stopping
        stop b
        b stopped (shutdown)
        a stopping
        stop a
        a stopped (shutdown)
        > start: error Child { id: "c", exit: Failed("boom") }
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn case_03_an_init_that_panics_is_a_failed_start_with_its_text() {
    let stage = Stage::new();
    stage.raise("b", 1);
    let tree = one_for_one().children(workers(&stage, "a b"));
    let failed = try_perform(&stage, tree).await;
    answer(&stage, "start", failed.map(drop));
    check(
        &stage,
        expect![[r#"
        init a
        a started #1
        init b
        ! b start failed (panicked: raised)
        a stopping
        stop a
        a stopped (shutdown)
        > start: error Child { id: "b", exit: Panicked("raised") }
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn case_04_a_permanent_child_that_is_ignored_stays_listed_as_down() {
    let stage = Stage::new();
    stage.ignore("b", 1);
    let root = perform(&stage, one_for_one().children(workers(&stage, "a b c"))).await;
    children(&stage, root.supervisor()).await;
    count(&stage, root.supervisor()).await;
    check(
        &stage,
        expect![[r#"
        init a
        a started #1
        init b
        b ignored
        init c
        c started #1
        root up
        > children: c up #1, b down #1, a up #1
        > count: 3 specs, 2 active, 0 supervisors, 3 workers
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn case_05_a_temporary_child_that_is_ignored_is_not_listed() {
    let stage = Stage::new();
    stage.ignore("a", 1);
    let tree = one_for_one()
        .child(stage.worker("a").restart(Restart::Temporary))
        .children(workers(&stage, "b"));
    let root = perform(&stage, tree).await;
    children(&stage, root.supervisor()).await;
    count(&stage, root.supervisor()).await;
    check(
        &stage,
        expect![[r#"
        init a
        a ignored
        init b
        b started #1
        root up
        > children: b up #1
        > count: 1 specs, 1 active, 0 supervisors, 1 workers
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn case_06_two_children_of_one_name_are_refused_before_any_starts() {
    let stage = Stage::new();
    let failed = try_perform(&stage, one_for_one().children(workers(&stage, "a b a"))).await;
    answer(&stage, "start", failed.map(drop));
    let below = one_for_one().children(workers(&stage, "x x"));
    let tree =
        one_for_one().children(workers(&stage, "a")).child(ChildSpec::supervisor("inner", below));
    answer(&stage, "start", try_perform(&stage, tree).await.map(drop));
    check(
        &stage,
        expect![[r#"
        > start: error Spec(DuplicateId("a"))
        > start: error Spec(DuplicateId("x"))
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn case_07_what_cannot_be_supervised_is_refused_before_any_starts() {
    let stage = Stage::new();
    let healthy = || one_for_one().children(workers(&stage, "a"));
    let any = AutoShutdown::AnySignificant;
    let trees = [
        ("permanent", healthy().auto_shutdown(any).child(stage.worker("b").significant())),
        ("never", healthy().child(stage.worker("b").restart(Restart::Transient).significant())),
        ("dynamic", SupervisorSpec::dynamic(1).auto_shutdown(any)),
        ("name", healthy().child(stage.worker("b/c"))),
        ("no name", healthy().child(stage.worker(""))),
        ("firewall", healthy().child(stage.worker("b").degrade(secs(1)))),
    ];
    for (what, tree) in trees {
        answer(&stage, what, try_perform(&stage, tree).await.map(drop));
    }
    check(
        &stage,
        expect![[r#"
        > permanent: error Spec(SignificantPermanent("b"))
        > never: error Spec(SignificantNever("b"))
        > dynamic: error Spec(DynamicAutoShutdown)
        > name: error Spec(Id("b/c"))
        > no name: error Spec(Id(""))
        > firewall: error Spec(FirewalledWorker("b"))
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn case_08_a_supervisor_without_children_starts() {
    let stage = Stage::new();
    let root = perform(&stage, one_for_one()).await;
    children(&stage, root.supervisor()).await;
    count(&stage, root.supervisor()).await;
    stop(&stage, &root).await;
    check(
        &stage,
        expect![[r#"
        root up
        > children: 
        > count: 0 specs, 0 active, 0 supervisors, 0 workers
        root down (shutdown)
        > shutdown after 0ns
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn case_09_start_child_that_fails_changes_nothing() {
    let stage = Stage::new();
    let tree = SupervisorSpec::new(Strategy::OneForOne).intensity(0, secs(5));
    let root = perform(&stage, tree.children(workers(&stage, "a"))).await;
    skip(&stage);
    stage.fail("b", 2);
    stage.raise("c", 1);
    for id in ["b", "b", "c"] {
        let failed = root.supervisor().start_child(stage.worker(id)).await;
        answer(&stage, "start_child", failed.map(drop));
    }
    children(&stage, root.supervisor()).await;
    let started = root.supervisor().start_child(stage.worker("b")).await;
    answer(&stage, "start_child", started.map(drop));
    children(&stage, root.supervisor()).await;
    check(
        &stage,
        expect![[r#"
            init b
            > start_child: error Start(Failed("boom"))
            init b
            > start_child: error Start(Failed("boom"))
            init c
            > start_child: error Start(Panicked("raised"))
            > children: a up #1
            init b
            b started #1
            > start_child: ()
            > children: b up #1, a up #1
        "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn case_10_start_child_that_is_ignored_keeps_the_spec_for_restart_child() {
    let stage = Stage::new();
    let root = perform(&stage, one_for_one().children(workers(&stage, "a"))).await;
    skip(&stage);
    stage.ignore("b", 1);
    let ignored = root.supervisor().start_child(stage.worker("b")).await;
    answer(&stage, "start_child b", ignored.map(|child| child.is_some()));
    children(&stage, root.supervisor()).await;
    answer(&stage, "restart_child b", root.supervisor().restart_child("b").await);
    // A temporary one is forgotten.
    stage.ignore("c", 1);
    let spec = stage.worker("c").restart(Restart::Temporary);
    let ignored = root.supervisor().start_child(spec).await;
    answer(&stage, "start_child c", ignored.map(|child| child.is_some()));
    children(&stage, root.supervisor()).await;
    check(
        &stage,
        expect![[r#"
        init b
        b ignored
        > start_child b: false
        > children: b down #1, a up #1
        init b
        b started #2
        > restart_child b: true
        init c
        c ignored
        > start_child c: false
        > children: b up #2, a up #1
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn case_11_an_init_that_hangs_is_killed_at_its_start_timeout_and_counts_as_failed() {
    let stage = Stage::new();
    let tree = SupervisorSpec::new(Strategy::OneForOne)
        .intensity(1, secs(60))
        .children(workers(&stage, "a"))
        .child(stage.worker("b").start_timeout(secs(2)));
    let root = perform(&stage, tree).await;
    skip(&stage);
    stage.hold("b");
    stage.crash("b").await;
    let start = Instant::now();
    stage.hold("b"); // the next one too
    root.wait().await;
    stage.line(format!("> {} s later", start.elapsed().as_secs()));
    ended(&stage, &root).await;
    check(
        &stage,
        expect![[r#"
        ! b exited (failed: boom), restarts
        init b
        ! b start failed (not started in time)
        ! root meltdown at b
        a stopping
        stop a
        a stopped (shutdown)
        root down (meltdown: too many restarts)
        > 1 s later
        > ended: meltdown: too many restarts
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn case_11_an_init_that_hangs_for_good_fails_the_first_start() {
    let stage = Stage::new();
    stage.hold("b");
    let tree = one_for_one()
        .children(workers(&stage, "a"))
        .child(stage.worker("b").start_timeout(secs(2)));
    let start = Instant::now();
    let failed = try_perform(&stage, tree).await;
    stage.line(format!("> {} s later", start.elapsed().as_secs()));
    answer(&stage, "start", failed.map(drop));
    check(
        &stage,
        expect![[r#"
        init a
        a started #1
        init b
        ! b start failed (not started in time)
        a stopping
        stop a
        a stopped (shutdown)
        > 2 s later
        > start: error Child { id: "b", exit: StartTimeout }
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn case_11_a_shutdown_during_a_hung_restart_is_honoured_at_once() {
    let stage = Stage::new();
    let root = perform(&stage, one_for_one().children(workers(&stage, "a b c"))).await;
    stage.hold("b");
    stage.crash("b").await;
    skip(&stage);
    stop(&stage, &root).await;
    check(
        &stage,
        expect![[r#"
            b stopping
            b stopped (shutdown)
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
async fn case_11_a_shutdown_during_a_hung_start_child_is_honoured_at_once() {
    let stage = Stage::new();
    let root = perform(&stage, one_for_one().children(workers(&stage, "a"))).await;
    skip(&stage);
    stage.hold("b");
    let shutdown = async {
        settle().await;
        stop(&stage, &root).await;
    };
    let (started, ()) = tokio::join!(root.supervisor().start_child(stage.worker("b")), shutdown);
    answer(&stage, "start_child", started.map(drop));
    check(
        &stage,
        expect![[r#"
        init b
        b stopping
        b stopped (shutdown)
        a stopping
        stop a
        a stopped (shutdown)
        root down (shutdown)
        > shutdown after 0ns
        > start_child: error Gone
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn case_11_a_shutdown_during_the_hung_start_of_a_subtree_is_honoured_at_once() {
    let stage = Stage::new();
    let root = perform(&stage, one_for_one().children(workers(&stage, "a"))).await;
    skip(&stage);
    stage.hold("y");
    let inner = ChildSpec::supervisor("inner", one_for_one().children(workers(&stage, "x y z")));
    let shutdown = async {
        settle().await;
        stop(&stage, &root).await;
    };
    let (started, ()) = tokio::join!(root.supervisor().start_child(inner), shutdown);
    answer(&stage, "start_child", started.map(drop));
    check(
        &stage,
        expect![[r#"
        init x
        inner/x started #1
        init y
        inner stopping
        inner/y stopping
        inner/y stopped (shutdown)
        inner/x stopping
        stop x
        inner/x stopped (shutdown)
        inner down (shutdown)
        inner stopped (shutdown)
        a stopping
        stop a
        a stopped (shutdown)
        root down (shutdown)
        > shutdown after 0ns
        > start_child: error Gone
    "#]],
    );
}

// ── rules of 1.1 ────────────────────────────────────────────────────────────────────────────────

#[test]
fn rule_1_1_the_defaults_are_elixirs_intensity_and_otps_stop_times() {
    let spec = SupervisorSpec::new(Strategy::OneForOne);
    let worker = ChildSpec::task("a", |_| async { Ok(()) });
    let inner = ChildSpec::supervisor("b", spec.clone());
    let once = ChildSpec::once("c", |_| async { Ok(()) });
    expect![[r#"
        SupervisorPolicy {
            structure: Static(
                OneForOne,
            ),
            intensity: 3,
            period: 5s,
            auto_shutdown: Never,
            kill_grace: 5s,
        }
    "#]]
    .assert_debug_eq(&spec.policy());
    expect![[r#"
        [
            ChildPolicy {
                id: "a",
                kind: Worker,
                restart: Permanent,
                stop: Within(
                    5s,
                ),
                significant: false,
                start_timeout: Some(
                    60s,
                ),
                backoff: None,
                firewall: None,
            },
            ChildPolicy {
                id: "b",
                kind: Supervisor,
                restart: Permanent,
                stop: Wait,
                significant: false,
                start_timeout: None,
                backoff: None,
                firewall: None,
            },
            ChildPolicy {
                id: "c",
                kind: Worker,
                restart: Temporary,
                stop: Within(
                    5s,
                ),
                significant: false,
                start_timeout: Some(
                    60s,
                ),
                backoff: None,
                firewall: None,
            },
        ]
    "#]]
    .assert_debug_eq(&[worker.policy(), inner.policy(), once.policy()]);
    assert_eq!(
        SupervisorSpec::dynamic(7).policy().structure,
        Structure::Dynamic { max_children: 7 }
    );
}

#[tokio::test(start_paused = true)]
async fn rule_1_1_a_failed_first_start_is_not_retried_whatever_the_intensity() {
    let stage = Stage::new();
    stage.fail("a", 1);
    let failed = try_perform(&stage, one_for_one().children(workers(&stage, "a"))).await;
    answer(&stage, "start", failed.map(drop));
    settle().await;
    check(
        &stage,
        expect![[r#"
        init a
        ! a start failed (failed: boom)
        > start: error Child { id: "a", exit: Failed("boom") }
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn rule_1_1_those_before_a_failed_start_are_stopped_by_their_own_rules() {
    let stage = Stage::new();
    stage.stubborn("a");
    stage.fail("d", 1);
    let tree = one_for_one()
        .child(stage.worker("a").stop(Stop::Within(ms(200))))
        .child(stage.worker("b").stop(Stop::Kill))
        .child(stage.worker("c").restart(Restart::Temporary))
        .child(stage.worker("d"));
    let start = Instant::now();
    let failed = try_perform(&stage, tree).await;
    stage.line(format!("> after {:?}", start.elapsed()));
    answer(&stage, "start", failed.map(drop));
    check(
        &stage,
        expect![[r#"
        init a
        a started #1
        init b
        b started #1
        init c
        c started #1
        init d
        ! d start failed (failed: boom)
        c stopping
        stop c
        c stopped (shutdown)
        b stopping
        b stopped (killed)
        a stopping
        stop a
        a stopped (killed)
        ! a stop failed (killed)
        > after 230ms
        > start: error Child { id: "d", exit: Failed("boom") }
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn rule_1_1_a_temporary_child_that_fails_to_start_fails_the_supervisor_too() {
    let stage = Stage::new();
    stage.fail("b", 1);
    let tree = one_for_one()
        .children(workers(&stage, "a"))
        .child(stage.worker("b").restart(Restart::Temporary));
    answer(&stage, "start", try_perform(&stage, tree).await.map(drop));
    check(
        &stage,
        expect![[r#"
        init a
        a started #1
        init b
        ! b start failed (failed: boom)
        a stopping
        stop a
        a stopped (shutdown)
        > start: error Child { id: "b", exit: Failed("boom") }
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn rule_1_1_the_error_names_the_way_to_the_child_that_failed() {
    let stage = Stage::new();
    stage.fail("y", 1);
    let inner = one_for_all().children(workers(&stage, "x y"));
    let tree =
        one_for_one().children(workers(&stage, "a")).child(ChildSpec::supervisor("inner", inner));
    let failed = try_perform(&stage, tree).await.unwrap_err();
    stage.line(format!("> {failed}"));
    check(
        &stage,
        expect![[r#"
        init a
        a started #1
        init x
        inner/x started #1
        init y
        ! inner/y start failed (failed: boom)
        inner/x stopping
        stop x
        inner/x stopped (shutdown)
        ! inner start failed (failed: `y` didn't start: failed: boom)
        a stopping
        stop a
        a stopped (shutdown)
        > `inner` didn't start: failed: `y` didn't start: failed: boom
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn rule_1_1_a_child_that_calls_its_supervisor_in_its_init_waits_until_its_own_deadline() {
    let stage = Stage::new();
    let supervisor = Arc::new(OnceLock::<astscope_supervision::Supervisor>::new());
    let (known, log) = (Arc::clone(&supervisor), stage.clone());
    let child = ChildSpec::service::<Caller>(
        &astscope_supervision::Address::new("caller", 1),
        (known, log),
    );
    let inner = ChildSpec::supervisor("inner", one_for_one().child(child));
    supervisor.set(inner.as_supervisor().unwrap().within(secs(3))).unwrap();
    let start = Instant::now();
    let root = perform(&stage, one_for_one().child(inner)).await;
    stage.line(format!("> after {} s", start.elapsed().as_secs()));
    stop(&stage, &root).await;
    check(
        &stage,
        expect![[r#"
        > which_children in init: error Timeout
        inner/caller started #1
        inner up
        inner started #1
        root up
        > after 3 s
        inner stopping
        inner/caller stopping
        inner/caller stopped (shutdown)
        inner down (shutdown)
        inner stopped (shutdown)
        root down (shutdown)
        > shutdown after 0ns
    "#]],
    );
}

/// A service that asks its supervisor in its init.
struct Caller;

impl astscope_supervision::Service for Caller {
    type Args = (Arc<OnceLock<astscope_supervision::Supervisor>>, Stage);
    type Message = ();

    async fn init(
        (supervisor, stage): Self::Args,
        _: &astscope_supervision::Ctx,
    ) -> Result<astscope_supervision::Init<Self>, Exit> {
        let answered = supervisor.get().unwrap().which_children().await;
        answer(&stage, "which_children in init", answered);
        Ok(astscope_supervision::Init::Ready(Self))
    }

    async fn run(
        self,
        mut mailbox: astscope_supervision::Mailbox<()>,
        _: astscope_supervision::Ctx,
    ) -> Result<(), Exit> {
        while mailbox.recv().await.is_some() {}
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn rule_1_1_exits_during_the_first_start_wait_until_it_is_done() {
    let stage = Stage::new();
    stage.hold("b");
    let exits = async {
        settle().await;
        stage.line("> crash a");
        stage.crash("a").await;
        stage.line("> release b");
        stage.release("b");
    };
    let tree = one_for_one().children(workers(&stage, "a b"));
    let (_root, ()) = tokio::join!(perform(&stage, tree), exits);
    check(
        &stage,
        expect![[r#"
        init a
        a started #1
        init b
        > crash a
        > release b
        b started #1
        root up
        ! a exited (failed: boom), restarts
        init a
        a started #2
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn rule_1_1_requests_during_the_first_start_wait_until_it_is_done() {
    let stage = Stage::new();
    stage.hold("y");
    let inner = ChildSpec::supervisor("inner", one_for_one().children(workers(&stage, "x y")));
    let below = inner.as_supervisor().unwrap();
    let ask = async {
        settle().await;
        let release = async {
            settle().await;
            stage.line("> release y");
            stage.release("y");
        };
        tokio::join!(children(&stage, &below), release);
    };
    let (_root, ()) = tokio::join!(perform(&stage, one_for_one().child(inner)), ask);
    check(
        &stage,
        expect![[r#"
        init x
        inner/x started #1
        init y
        > release y
        inner/y started #1
        inner up
        inner started #1
        root up
        > children: y up #1, x up #1
    "#]],
    );
}
