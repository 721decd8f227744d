//! The root of a tree: how it is killed, dropped, and how its end is known.

use super::play::{
    Log, answer, check, ended, ms, one_for_all, one_for_one, perform, secs, skip, stop, workers,
};
use crate::stage::{Stage, settle};
use astscope_supervision::{
    ChildSpec, Counters, Event, Exit, Observer, Outcome, Recorder, StartError, Stop,
};
use expect_test::expect;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::time::{Instant, sleep, timeout};

#[tokio::test(start_paused = true)]
async fn a_kill_of_the_root_kills_everybody_at_once() {
    let stage = Stage::new();
    let inner = one_for_all().children(workers(&stage, "b c"));
    let tree = one_for_one()
        .child(stage.worker("a").stop(Stop::Wait))
        .child(ChildSpec::supervisor("inner", inner))
        .children(workers(&stage, "d"));
    let root = perform(&stage, tree).await;
    skip(&stage);
    for id in ["a", "b", "c", "d"] {
        stage.stubborn(id);
    }
    let start = Instant::now();
    let outcome = root.kill().await;
    stage.line(format!("> {outcome:?} after {:?}", start.elapsed()));
    check(
        &stage,
        expect![[r#"
        a stopped (killed)
        d stopped (killed)
        inner/b stopped (killed)
        inner/c stopped (killed)
        inner down (killed)
        inner stopped (killed)
        root down (killed)
        > Outcome { exit: Killed, unkillable: 0 } after 0ns
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn a_kill_cuts_a_shutdown_short() {
    let stage = Stage::new();
    let tree = one_for_one()
        .children(workers(&stage, "a"))
        .child(stage.worker("b").stop(Stop::Wait))
        .children(workers(&stage, "c"));
    let root = perform(&stage, tree).await;
    skip(&stage);
    stage.stubborn("b");
    root.begin_shutdown();
    sleep(secs(100)).await;
    stage.line("> kill");
    stage.line(format!("> {:?}", root.kill().await));
    check(
        &stage,
        expect![[r#"
        c stopping
        stop c
        c stopped (shutdown)
        b stopping
        stop b
        > kill
        a stopped (killed)
        b stopped (killed)
        root down (killed)
        > Outcome { exit: Killed, unkillable: 0 }
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn dropping_the_root_kills_the_tree() {
    let stage = Stage::new();
    let inner = one_for_all().children(workers(&stage, "b c"));
    let tree =
        one_for_one().children(workers(&stage, "a")).child(ChildSpec::supervisor("inner", inner));
    let root = perform(&stage, tree).await;
    let mut monitor = root.supervisor().child_at("inner/b").await.unwrap().monitor();
    let mut whole = root.supervisor().child().monitor();
    skip(&stage);
    drop(root);
    assert_eq!(monitor.down().await, Exit::Killed);
    assert_eq!(whole.down().await, Exit::Killed);
    check(
        &stage,
        expect![[r#"
        a stopped (killed)
        inner/b stopped (killed)
        inner/c stopped (killed)
        inner down (killed)
        inner stopped (killed)
        root down (killed)
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn dropping_the_start_leaves_nothing_running() {
    let stage = Stage::new();
    stage.hold("c");
    let inner = one_for_all().children(workers(&stage, "b c d"));
    let tree =
        one_for_one().children(workers(&stage, "a")).child(ChildSpec::supervisor("inner", inner));
    let children = [tree.child_specs()[0].child(), tree.child_specs()[1].child()];
    let start = tree.observer(Arc::new(Log(stage.clone()))).start("root");
    let _elapsed = timeout(secs(1), start).await.unwrap_err();
    stage.line("> dropped");
    settle().await;
    for child in children {
        let status = child.status();
        stage.line(format!(
            "> {} gone {}, {:?}",
            child.id(),
            status.is_gone(),
            child.monitor().exit()
        ));
    }
    check(
        &stage,
        expect![[r#"
        init a
        a started #1
        init b
        inner/b started #1
        init c
        > dropped
        a stopped (killed)
        inner/b stopped (killed)
        inner/c stopped (killed)
        inner down (killed)
        inner stopped (killed)
        root down (killed)
        > a gone true, Some(Killed)
        > inner gone true, Some(Killed)
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn everybody_who_waits_for_the_end_is_told_the_same() {
    let stage = Stage::new();
    let root = perform(&stage, one_for_one().children(workers(&stage, "a"))).await;
    let (one, other, asked) = tokio::join!(root.wait(), root.wait(), root.shutdown());
    let outcome = Outcome { exit: Exit::Shutdown, unkillable: 0 };
    assert_eq!([&one, &other, &asked], [&outcome; 3]);
    assert_eq!(root.shutdown().await, outcome);
    assert_eq!(root.kill().await, outcome); // too late
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_goes_on_when_nobody_waits_for_it_any_longer() {
    let stage = Stage::new();
    let tree = one_for_one().child(stage.worker("a").stop(Stop::Within(secs(2))));
    let root = perform(&stage, tree).await;
    skip(&stage);
    stage.stubborn("a");
    let _elapsed = timeout(secs(1), root.shutdown()).await.unwrap_err();
    sleep(secs(2)).await;
    ended(&stage, &root).await;
    check(
        &stage,
        expect![[r#"
        a stopping
        stop a
        a stopped (killed)
        ! a stop failed (killed)
        root down (shutdown)
        > ended: shutdown
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn events_are_numbered_without_gaps_and_counted() {
    let stage = Stage::new();
    let (recorder, counters) = (Recorder::new(), Arc::new(Counters::default()));
    let observers: Vec<Arc<dyn Observer>> =
        vec![Arc::<Recorder>::clone(&recorder), Arc::<Counters>::clone(&counters)];
    let inner = one_for_all().intensity(0, secs(5)).children(workers(&stage, "b c"));
    let tree =
        one_for_one().children(workers(&stage, "a")).child(ChildSpec::supervisor("inner", inner));
    let root = tree.observer(Arc::new(observers)).start("root").await.unwrap();
    stage.on_stop("a", Exit::Normal);
    stage.fail("c", 1);
    stage.crash("b").await;
    root.shutdown().await;
    let events = recorder.events();
    let numbers: Vec<u64> = events.iter().map(|event| event.number).collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
    assert!(events.is_sorted_by_key(|event: &Event| event.at));
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    expect![[r#"
        [
            (
                "starts",
                8,
            ),
            (
                "start failures",
                2,
            ),
            (
                "crashes",
                1,
            ),
            (
                "stop failures",
                1,
            ),
            (
                "meltdowns",
                1,
            ),
            (
                "unkillable",
                0,
            ),
        ]
    "#]]
    .assert_debug_eq(&[
        ("starts", count(&counters.starts)),
        ("start failures", count(&counters.start_failures)),
        ("crashes", count(&counters.crashes)),
        ("stop failures", count(&counters.stop_failures)),
        ("meltdowns", count(&counters.meltdowns)),
        ("unkillable", count(&counters.unkillable)),
    ]);
    expect![[r#"
        root/a started
        root/inner/b started
        root/inner/c started
        root/inner up
        root/inner started
        root up
        root/inner/b exited (failed: boom), restarts
        root/inner meltdown at b
        root/inner/c stopping
        root/inner/c stopped (shutdown)
        root/inner down (meltdown: too many restarts)
        root/inner exited (meltdown: too many restarts), restarts
        root/inner/b started
        root/inner/c start failed (failed: boom)
        root/inner/b stopping
        root/inner/b stopped (shutdown)
        root/inner start failed (failed: `c` didn't start: failed: boom)
        root/inner/b started
        root/inner/c started
        root/inner up
        root/inner started
        root/inner stopping
        root/inner/c stopping
        root/inner/c stopped (shutdown)
        root/inner/b stopping
        root/inner/b stopped (shutdown)
        root/inner down (shutdown)
        root/inner stopped (shutdown)
        root/a stopping
        root/a stopped (normal)
        root/a stop failed (normal)
        root down (shutdown)
    "#]]
    .assert_eq(&recorder.take_log());
}

#[tokio::test(start_paused = true)]
async fn two_trees_have_events_faults_and_ends_of_their_own() {
    let stage = Stage::new();
    let one = perform(&stage, one_for_one().children(workers(&stage, "a"))).await;
    let other = perform(&stage, one_for_one().children(workers(&stage, "b"))).await;
    skip(&stage);
    stop(&stage, &one).await;
    ended(&stage, &other).await;
    check(
        &stage,
        expect![[r#"
        a stopping
        stop a
        a stopped (shutdown)
        root down (shutdown)
        > shutdown after 0ns
        > still there
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn a_root_has_a_name_that_can_stand_in_a_path() {
    for id in ["", "a/b"] {
        let failed = one_for_one().start(id).await.map(drop);
        assert!(matches!(failed, Err(StartError::Spec(_))), "{id:?}: {failed:?}");
    }
}

/// Panics at its n-th event.
struct Bomb(AtomicUsize);

impl Observer for Bomb {
    fn observe(&self, event: &Event) {
        let is_it = event.path.as_str() == "root/inner/x";
        assert!(!is_it || self.0.fetch_add(1, Ordering::Relaxed) != 1, "an observer's");
    }
}

#[tokio::test(start_paused = true)]
async fn an_observer_that_panics_harms_nobody() {
    let stage = Stage::new();
    let inner = one_for_one().children(workers(&stage, "x y"));
    let tree = one_for_one().child(ChildSpec::supervisor("inner", inner));
    let observers: Vec<Arc<dyn Observer>> =
        vec![Arc::new(Log(stage.clone())), Arc::new(Bomb(AtomicUsize::new(0)))];
    let root = tree.observer(Arc::new(observers)).start("root").await.unwrap();
    settle().await;
    skip(&stage);
    stage.crash("x").await;
    super::play::children(&stage, root.supervisor()).await;
    let below = root.supervisor().supervisor_at("inner").await.unwrap();
    answer(&stage, "count", below.within(ms(100)).count_children().await);
    check(
        &stage,
        expect![[r#"
            ! inner/x exited (failed: boom), restarts
            init x
            inner/x started #2
            > children: inner up #1
            > count: Count { specs: 2, active: 2, supervisors: 0, workers: 2 }
        "#]],
    );
}
