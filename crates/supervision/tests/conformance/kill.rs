//! Killed by somebody who isn't its supervisor: OTP's `exit(Pid, kill)`.

use super::play::{check, perform, rest_for_one, skip, workers};
use crate::stage::{Stage, settle};
use astscope_supervision::{ChildSpec, Fault, Point, Probe};
use expect_test::expect;
use tokio::time::sleep;

#[tokio::test(start_paused = true)]
async fn rule_1_1_who_is_killed_from_outside_is_restarted_by_the_strategy() {
    let stage = Stage::new();
    let root = perform(&stage, rest_for_one().children(workers(&stage, "a b c"))).await;
    skip(&stage);
    root.supervisor().child_at("b").await.unwrap().kill();
    settle().await;
    check(
        &stage,
        expect![[r#"
        ! b exited (killed), restarts
        c stopping
        stop c
        c stopped (shutdown)
        init b
        b started #2
        init c
        c started #2
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn a_supervisor_that_is_killed_takes_its_children_along_and_comes_back_with_new_ones() {
    let stage = Stage::new();
    let below = rest_for_one().children(workers(&stage, "b c"));
    let tree = rest_for_one()
        .children(workers(&stage, "a"))
        .child(ChildSpec::supervisor("below", below))
        .children(workers(&stage, "d"));
    let root = perform(&stage, tree).await;
    skip(&stage);
    root.supervisor().child_at("below").await.unwrap().kill();
    settle().await;
    check(
        &stage,
        expect![[r#"
        below/b stopped (killed)
        below/c stopped (killed)
        below down (killed)
        ! below exited (killed), restarts
        d stopping
        stop d
        d stopped (shutdown)
        init b
        below/b started #2
        init c
        below/c started #2
        below up
        below started #2
        init d
        d started #2
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn one_that_does_not_end_although_it_was_killed_is_given_up() {
    let stage = Stage::new();
    let probe = Probe::new();
    let tree = rest_for_one().children(workers(&stage, "a")).probe(probe.clone());
    let root = perform(&stage, tree).await;
    skip(&stage);
    probe.arm("a", Point::Drop, Fault::Hang, 1);
    let killed = root.supervisor().child_at("a").await.unwrap();
    killed.kill();
    killed.kill();
    sleep(super::play::secs(6)).await;
    check(
        &stage,
        expect![[r#"
        ! a unkillable
        ! a exited (unkillable), restarts
        init a
        a started #2
    "#]],
    );
    // What killed the last one is of no effect on the next.
    assert_eq!(killed.status().incarnation(), 2);
    assert_eq!(killed.monitor().exit(), None);
}
