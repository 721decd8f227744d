//! 2.6 and 1.5: how a tree ends.

use super::play::{
    answer, check, children, ended, ms, one_for_all, one_for_one, perform, secs, skip, stop, take,
    workers,
};
use crate::stage::{Stage, settle};
use astscope_supervision::{ChildSpec, Exit, Restart, Stop, Strategy, SupervisorSpec};
use expect_test::expect;
use tokio::time::sleep;

#[tokio::test(start_paused = true)]
async fn case_55_each_is_told_to_stop_when_the_one_after_it_is_gone() {
    let stage = Stage::new();
    let root = perform(&stage, one_for_one().children(workers(&stage, "a b c"))).await;
    skip(&stage);
    stage.stubborn("b");
    let release = async {
        settle().await;
        stage.line("> b gives in");
        stage.exit_now("b", Exit::Shutdown);
    };
    tokio::join!(stop(&stage, &root), release);
    check(
        &stage,
        expect![[r#"
        c stopping
        stop c
        c stopped (shutdown)
        b stopping
        stop b
        > b gives in
        b stopped (shutdown)
        a stopping
        stop a
        a stopped (shutdown)
        root down (shutdown)
        > shutdown after 30ms
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn case_56_who_does_not_stop_is_killed_at_its_own_time_and_the_times_add_up() {
    let stage = Stage::new();
    let tree = ["a", "b", "c", "d"].map(|id| stage.worker(id).stop(Stop::Within(ms(100))));
    let spec = one_for_one().children(tree);
    stage.line(format!("> bound {:?}", spec.stop_bound()));
    let root = perform(&stage, spec).await;
    for id in ["a", "b", "c", "d"] {
        stage.stubborn(id);
    }
    stop(&stage, &root).await;
    check(
        &stage,
        expect![[r#"
        > bound Some(20.4s)
        init a
        a started #1
        init b
        b started #1
        init c
        c started #1
        init d
        d started #1
        root up
        d stopping
        stop d
        d stopped (killed)
        ! d stop failed (killed)
        c stopping
        stop c
        c stopped (killed)
        ! c stop failed (killed)
        b stopping
        stop b
        b stopped (killed)
        ! b stop failed (killed)
        a stopping
        stop a
        a stopped (killed)
        ! a stop failed (killed)
        root down (shutdown)
        > shutdown after 400ms
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn case_57_a_kill_gives_no_signal_and_is_no_error() {
    let stage = Stage::new();
    let tree = one_for_one()
        .child(stage.worker("a").stop(Stop::Kill))
        .child(stage.worker("b").stop(Stop::Kill).restart(Restart::Transient));
    let root = perform(&stage, tree).await;
    skip(&stage);
    stage.stubborn("a");
    stop(&stage, &root).await;
    check(
        &stage,
        expect![[r#"
        b stopping
        b stopped (killed)
        a stopping
        a stopped (killed)
        root down (shutdown)
        > shutdown after 0ns
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn case_58_without_a_limit_a_child_is_waited_for_as_long_as_it_takes() {
    let stage = Stage::new();
    let tree = one_for_one().child(stage.worker("a")).child(stage.worker("b").stop(Stop::Wait));
    assert_eq!(tree.stop_bound(), None);
    let root = perform(&stage, tree).await;
    skip(&stage);
    stage.stubborn("b");
    let release = async {
        sleep(secs(3600)).await;
        stage.line("> an hour later");
        stage.exit_now("b", Exit::Shutdown);
    };
    tokio::join!(stop(&stage, &root), release);
    check(
        &stage,
        expect![[r#"
        b stopping
        stop b
        > an hour later
        b stopped (shutdown)
        a stopping
        stop a
        a stopped (shutdown)
        root down (shutdown)
        > shutdown after 3600s
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn case_59_a_permanent_child_that_ends_normally_when_told_to_stop_is_an_error() {
    let stage = Stage::new();
    let with = |exit: &Exit, id: &str| {
        stage.on_stop(id, exit.clone());
        stage.worker(id)
    };
    let why = Exit::ShutdownWith("done".into());
    let tree = one_for_one()
        .child(with(&Exit::Normal, "p"))
        .child(with(&Exit::Normal, "t").restart(Restart::Transient))
        .child(with(&Exit::Normal, "u").restart(Restart::Temporary))
        .child(with(&why, "q"))
        .child(with(&why, "v").restart(Restart::Transient));
    let root = perform(&stage, tree).await;
    skip(&stage);
    stop(&stage, &root).await;
    check(
        &stage,
        expect![[r#"
        v stopping
        stop v
        v stopped (shutdown: done)
        q stopping
        stop q
        q stopped (shutdown: done)
        ! q stop failed (shutdown: done)
        u stopping
        stop u
        u stopped (normal)
        t stopping
        stop t
        t stopped (normal)
        p stopping
        stop p
        p stopped (normal)
        ! p stop failed (normal)
        root down (shutdown)
        > shutdown after 0ns
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn case_60_whoever_ends_while_the_tree_stops_is_not_restarted() {
    let stage = Stage::new();
    let types = [Restart::Permanent, Restart::Transient, Restart::Temporary];
    let exits =
        [Exit::Normal, Exit::Shutdown, Exit::ShutdownWith("done".into()), Exit::failed("boom")];
    let mut tree = one_for_one();
    let mut ends = Vec::new();
    for restart in types {
        for (n, exit) in exits.iter().enumerate() {
            let id = format!("{restart}-{n}");
            tree = tree.child(stage.worker(&id).restart(restart));
            ends.push((id, exit.clone()));
        }
    }
    let root = perform(&stage, tree.child(stage.worker("last"))).await;
    skip(&stage);
    stage.stubborn("last");
    let ends = async {
        settle().await;
        for (id, exit) in ends {
            stage.exit(&id, exit).await;
        }
        stage.line("> last gives in");
        stage.exit_now("last", Exit::Shutdown);
    };
    tokio::join!(stop(&stage, &root), ends);
    check(
        &stage,
        expect![[r#"
        last stopping
        stop last
        > last gives in
        last stopped (shutdown)
        temporary-3 stopped (failed: boom)
        ! temporary-3 stop failed (failed: boom)
        temporary-2 stopped (shutdown: done)
        temporary-1 stopped (shutdown)
        temporary-0 stopped (normal)
        transient-3 stopped (failed: boom)
        ! transient-3 stop failed (failed: boom)
        transient-2 stopped (shutdown: done)
        transient-1 stopped (shutdown)
        transient-0 stopped (normal)
        permanent-3 stopped (failed: boom)
        ! permanent-3 stop failed (failed: boom)
        permanent-2 stopped (shutdown: done)
        ! permanent-2 stop failed (shutdown: done)
        permanent-1 stopped (shutdown)
        permanent-0 stopped (normal)
        ! permanent-0 stop failed (normal)
        root down (shutdown)
        > shutdown after 390ms
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn case_61_who_is_down_when_its_turn_comes_is_skipped() {
    let stage = Stage::new();
    stage.ignore("b", 1);
    let tree = one_for_one()
        .children(workers(&stage, "a b"))
        .child(stage.worker("c").restart(Restart::Transient))
        .children(workers(&stage, "d"));
    let root = perform(&stage, tree).await;
    stage.exit("c", Exit::Normal).await;
    root.supervisor().terminate_child("d").await.unwrap();
    skip(&stage);
    stop(&stage, &root).await;
    check(
        &stage,
        expect![[r#"
        a stopping
        stop a
        a stopped (shutdown)
        root down (shutdown)
        > shutdown after 0ns
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn case_64_a_subtree_stops_its_own_first_the_deepest_and_last_first() {
    let stage = Stage::new();
    let deep = one_for_all().children(workers(&stage, "d e"));
    let inner = one_for_one()
        .children(workers(&stage, "b c"))
        .child(ChildSpec::supervisor("deep", deep))
        .children(workers(&stage, "f"));
    let tree = one_for_one()
        .children(workers(&stage, "a"))
        .child(ChildSpec::supervisor("inner", inner))
        .children(workers(&stage, "g"));
    let root = perform(&stage, tree).await;
    skip(&stage);
    stop(&stage, &root).await;
    check(
        &stage,
        expect![[r#"
        g stopping
        stop g
        g stopped (shutdown)
        inner stopping
        inner/f stopping
        stop f
        inner/f stopped (shutdown)
        inner/deep stopping
        inner/deep/e stopping
        stop e
        inner/deep/e stopped (shutdown)
        inner/deep/d stopping
        stop d
        inner/deep/d stopped (shutdown)
        inner/deep down (shutdown)
        inner/deep stopped (shutdown)
        inner/c stopping
        stop c
        inner/c stopped (shutdown)
        inner/b stopping
        stop b
        inner/b stopped (shutdown)
        inner down (shutdown)
        inner stopped (shutdown)
        a stopping
        stop a
        a stopped (shutdown)
        root down (shutdown)
        > shutdown after 0ns
    "#]],
    );
}

// ── rules of 1.5 ────────────────────────────────────────────────────────────────────────────────

#[tokio::test(start_paused = true)]
async fn rule_1_5_a_child_that_crashes_while_it_is_waited_for_is_an_error() {
    let stage = Stage::new();
    let mut logs = String::new();
    for restart in [Restart::Permanent, Restart::Transient, Restart::Temporary] {
        stage.on_stop("a", Exit::failed("bang"));
        stage.on_stop("b", Exit::Killed);
        let tree = one_for_one()
            .child(stage.worker("a").restart(restart))
            .child(stage.worker("b").restart(restart));
        let root = perform(&stage, tree).await;
        skip(&stage);
        stop(&stage, &root).await;
        logs += &take(&stage);
    }
    expect![[r#"
        b stopping
        stop b
        b stopped (killed)
        ! b stop failed (killed)
        a stopping
        stop a
        a stopped (failed: bang)
        ! a stop failed (failed: bang)
        root down (shutdown)
        > shutdown after 0ns
        b stopping
        stop b
        b stopped (killed)
        ! b stop failed (killed)
        a stopping
        stop a
        a stopped (failed: bang)
        ! a stop failed (failed: bang)
        root down (shutdown)
        > shutdown after 0ns
        b stopping
        stop b
        b stopped (killed)
        ! b stop failed (killed)
        a stopping
        stop a
        a stopped (failed: bang)
        ! a stop failed (failed: bang)
        root down (shutdown)
        > shutdown after 0ns
    "#]]
    .assert_eq(&logs);
}

#[tokio::test(start_paused = true)]
async fn rule_1_5_terminate_child_obeys_the_same_rules() {
    let stage = Stage::new();
    let tree = one_for_one()
        .child(stage.worker("a").stop(Stop::Within(ms(100))))
        .child(stage.worker("b").stop(Stop::Kill))
        .child(stage.worker("c"));
    let root = perform(&stage, tree).await;
    skip(&stage);
    stage.stubborn("a");
    stage.on_stop("c", Exit::Normal);
    for id in ["a", "b", "c"] {
        answer(&stage, id, root.supervisor().terminate_child(id).await);
    }
    children(&stage, root.supervisor()).await;
    check(
        &stage,
        expect![[r#"
        a stopping
        stop a
        a stopped (killed)
        ! a stop failed (killed)
        > a: ()
        b stopping
        b stopped (killed)
        > b: ()
        c stopping
        stop c
        c stopped (normal)
        ! c stop failed (normal)
        > c: ()
        > children: c down #1, b down #1, a down #1
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn rule_1_5_a_supervisor_that_is_killed_at_its_time_kills_all_below_at_once() {
    let stage = Stage::new();
    let deep = one_for_one().children(workers(&stage, "d e"));
    let inner =
        one_for_one().children(workers(&stage, "b c")).child(ChildSpec::supervisor("deep", deep));
    let inner = ChildSpec::supervisor("inner", inner).stop(Stop::Within(ms(100)));
    let root = perform(&stage, one_for_one().children(workers(&stage, "a")).child(inner)).await;
    skip(&stage);
    for id in ["b", "c", "d", "e"] {
        stage.stubborn(id);
    }
    stop(&stage, &root).await;
    check(
        &stage,
        expect![[r#"
        inner stopping
        inner/deep stopping
        inner/deep/e stopping
        stop e
        inner/b stopped (killed)
        inner/c stopped (killed)
        inner/deep/d stopped (killed)
        inner/deep/e stopped (killed)
        inner/deep down (killed)
        inner/deep stopped (killed)
        inner down (killed)
        inner stopped (killed)
        ! inner stop failed (killed)
        a stopping
        stop a
        a stopped (shutdown)
        root down (shutdown)
        > shutdown after 100ms
    "#]],
    );
}

// ── bugs that were ──────────────────────────────────────────────────────────────────────────────

/// A supervisor that is starting `b` by hand when it is told to stop, and whose `c` takes its time
/// to stop.
async fn stop_while_starting(stage: &Stage, then: impl FnOnce(&Stage)) {
    let root = perform(stage, one_for_one().children(workers(stage, "a b c"))).await;
    root.supervisor().terminate_child("b").await.unwrap();
    skip(stage);
    stage.stubborn("c");
    stage.hold("b");
    let stop = async {
        settle().await;
        stage.line("> shutdown");
        stop(stage, &root).await;
    };
    let release = async {
        settle().await;
        settle().await;
        stage.line("> b is released");
        then(stage);
        stage.release("b");
        settle().await;
        stage.line("> c gives in");
        stage.exit_now("c", Exit::Shutdown);
    };
    let restart = root.supervisor().restart_child("b");
    let (restarted, ..) = tokio::join!(restart, stop, release);
    answer(stage, "restart_child", restarted);
}

#[tokio::test(start_paused = true)]
async fn a_start_that_succeeds_while_its_supervisor_stops_does_not_hang_the_stop() {
    let stage = Stage::new();
    stop_while_starting(&stage, |_| {}).await;
    check(
        &stage,
        expect![[r#"
            init b
            > shutdown
            b stopping
            b stopped (shutdown)
            c stopping
            stop c
            > b is released
            > c gives in
            c stopped (shutdown)
            a stopping
            stop a
            a stopped (shutdown)
            root down (shutdown)
            > shutdown after 60ms
            > restart_child: error Gone
        "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn a_start_that_fails_while_its_supervisor_stops_does_not_hang_the_stop() {
    let stage = Stage::new();
    stop_while_starting(&stage, |stage| stage.fail("b", 1)).await;
    check(
        &stage,
        expect![[r#"
            init b
            > shutdown
            b stopping
            b stopped (shutdown)
            c stopping
            stop c
            > b is released
            > c gives in
            c stopped (shutdown)
            a stopping
            stop a
            a stopped (shutdown)
            root down (shutdown)
            > shutdown after 60ms
            > restart_child: error Gone
        "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn a_start_that_is_ignored_while_its_supervisor_stops_does_not_hang_the_stop() {
    let stage = Stage::new();
    stop_while_starting(&stage, |stage| stage.ignore("b", 1)).await;
    check(
        &stage,
        expect![[r#"
            init b
            > shutdown
            b stopping
            b stopped (shutdown)
            c stopping
            stop c
            > b is released
            > c gives in
            c stopped (shutdown)
            a stopping
            stop a
            a stopped (shutdown)
            root down (shutdown)
            > shutdown after 60ms
            > restart_child: error Gone
        "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn a_meltdown_that_meets_a_shutdown_from_above_is_no_error() {
    let stage = Stage::new();
    let inner = SupervisorSpec::new(Strategy::OneForOne)
        .intensity(0, secs(5))
        .children(workers(&stage, "b c"));
    let root = perform(&stage, one_for_one().child(ChildSpec::supervisor("inner", inner))).await;
    skip(&stage);
    stage.stubborn("b");
    stage.crash("c").await;
    let release = async {
        settle().await;
        stage.exit_now("b", Exit::Shutdown);
    };
    tokio::join!(stop(&stage, &root), release);
    check(
        &stage,
        expect![[r#"
            ! inner/c exited (failed: boom), restarts
            ! inner meltdown at c
            inner/b stopping
            stop b
            inner stopping
            inner/b stopped (shutdown)
            inner down (meltdown: too many restarts)
            inner stopped (meltdown: too many restarts)
            root down (shutdown)
            > shutdown after 30ms
        "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn times_without_a_sensible_limit_are_as_good_as_none() {
    let stage = Stage::new();
    let forever = std::time::Duration::MAX;
    let tree = one_for_one()
        .kill_grace(forever)
        .child(stage.worker("a").stop(Stop::Within(forever)).start_timeout(forever))
        .child(stage.worker("b").stop(Stop::Kill));
    let root = perform(&stage, tree).await;
    let supervisor = root.supervisor().within(forever);
    children(&stage, &supervisor).await;
    stage.crash("a").await;
    stop(&stage, &root).await;
    ended(&stage, &root).await;
    check(
        &stage,
        expect![[r#"
        init a
        a started #1
        init b
        b started #1
        root up
        > children: b up #1, a up #1
        ! a exited (failed: boom), restarts
        init a
        a started #2
        b stopping
        b stopped (killed)
        a stopping
        stop a
        a stopped (shutdown)
        root down (shutdown)
        > shutdown after 0ns
        > ended: shutdown
    "#]],
    );
}
