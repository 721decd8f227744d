//! Faults on purpose: each does what it says, at each point of a worker's life.

use super::play::{check, ended, ms, one_for_one, perform, secs, skip, stop, take, try_perform};
use crate::stage::{Stage, settle};
use astscope_supervision::{ChildSpec, Fault, Point, Probe, Stop, SupervisorSpec};
use expect_test::expect;
use std::fmt::Write as _;
use std::time::Duration;
use tokio::time::{Instant, sleep};

const BUSY: Fault = Fault::Busy(Duration::from_millis(3));

/// The faults and, for the logs, their names. One that is busy is so in real time.
const FAULTS: [(&str, Fault); 5] = [
    ("panic", Fault::Panic),
    ("error", Fault::Error),
    ("hang", Fault::Hang),
    ("slow", Fault::Slow(Duration::from_millis(500))),
    ("busy", BUSY),
];

fn tree(stage: &Stage, probe: &Probe) -> SupervisorSpec {
    one_for_one()
        .probe(probe.clone())
        .child(stage.worker("a").stop(Stop::Within(secs(2))).start_timeout(secs(3)))
}

#[tokio::test(start_paused = true)]
async fn before_an_init() {
    let stage = Stage::new();
    let mut logs = String::new();
    for (what, fault) in FAULTS {
        let probe = Probe::new();
        probe.arm("a", Point::Init, fault, 1);
        let (real, start) = (std::time::Instant::now(), Instant::now());
        let started = try_perform(&stage, tree(&stage, &probe)).await;
        if fault == BUSY {
            assert!(real.elapsed() >= ms(3));
        }
        writeln!(logs, "{what}: {:?}, {}", start.elapsed(), started.is_ok()).unwrap();
        logs += &take(&stage);
        if let Ok(root) = started {
            root.kill().await;
            skip(&stage);
        }
    }
    expect![[r#"
        panic: 30ms, false
        ! a start failed (panicked: probe)
        error: 30ms, false
        ! a start failed (failed: probe)
        hang: 3.03s, false
        ! a start failed (not started in time)
        slow: 530ms, true
        init a
        a started #1
        root up
        busy: 30ms, true
        init a
        a started #1
        root up
    "#]]
    .assert_eq(&logs);
}

#[tokio::test(start_paused = true)]
async fn while_it_runs() {
    let stage = Stage::new();
    let mut logs = String::new();
    for (what, fault) in FAULTS {
        let probe = Probe::new();
        let root = perform(&stage, tree(&stage, &probe)).await;
        skip(&stage);
        probe.arm("a", Point::Run, fault, 1);
        settle().await;
        stage.line("> asked to crash");
        stage.crash("a").await;
        stage.line("> 1 s");
        sleep(secs(1)).await;
        stop(&stage, &root).await;
        write!(logs, "{what}\n{}", take(&stage)).unwrap();
    }
    expect![[r#"
        panic
        ! a exited (panicked: probe), restarts
        init a
        a started #2
        > asked to crash
        ! a exited (failed: boom), restarts
        init a
        a started #3
        > 1 s
        a stopping
        stop a
        a stopped (shutdown)
        root down (shutdown)
        > shutdown after 0ns
        error
        ! a exited (failed: probe), restarts
        init a
        a started #2
        > asked to crash
        ! a exited (failed: boom), restarts
        init a
        a started #3
        > 1 s
        a stopping
        stop a
        a stopped (shutdown)
        root down (shutdown)
        > shutdown after 0ns
        hang
        > asked to crash
        > 1 s
        a stopping
        a stopped (killed)
        ! a stop failed (killed)
        root down (shutdown)
        > shutdown after 2s
        slow
        > asked to crash
        > 1 s
        ! a exited (failed: boom), restarts
        init a
        a started #2
        a stopping
        stop a
        a stopped (shutdown)
        root down (shutdown)
        > shutdown after 0ns
        busy
        > asked to crash
        ! a exited (failed: boom), restarts
        init a
        a started #2
        > 1 s
        a stopping
        stop a
        a stopped (shutdown)
        root down (shutdown)
        > shutdown after 0ns
    "#]]
    .assert_eq(&logs);
}

#[tokio::test(start_paused = true)]
async fn when_it_is_told_to_stop() {
    let stage = Stage::new();
    let mut logs = String::new();
    for (what, fault) in FAULTS {
        let probe = Probe::new();
        let root = perform(&stage, tree(&stage, &probe)).await;
        skip(&stage);
        probe.arm("a", Point::Stop, fault, 1);
        stop(&stage, &root).await;
        write!(logs, "{what}\n{}", take(&stage)).unwrap();
    }
    expect![[r#"
        panic
        a stopping
        a stopped (panicked: probe)
        ! a stop failed (panicked: probe)
        root down (shutdown)
        > shutdown after 0ns
        error
        a stopping
        a stopped (failed: probe)
        ! a stop failed (failed: probe)
        root down (shutdown)
        > shutdown after 0ns
        hang
        a stopping
        a stopped (killed)
        ! a stop failed (killed)
        root down (shutdown)
        > shutdown after 2s
        slow
        a stopping
        stop a
        a stopped (shutdown)
        root down (shutdown)
        > shutdown after 500ms
        busy
        a stopping
        stop a
        a stopped (shutdown)
        root down (shutdown)
        > shutdown after 0ns
    "#]]
    .assert_eq(&logs);
}

#[tokio::test(start_paused = true)]
async fn when_what_it_held_has_been_dropped() {
    let stage = Stage::new();
    let mut logs = String::new();
    for (what, fault) in FAULTS {
        let probe = Probe::new();
        let root = perform(&stage, tree(&stage, &probe)).await;
        skip(&stage);
        probe.arm("a", Point::Drop, fault, 1);
        stop(&stage, &root).await;
        write!(logs, "{what}\n{}", take(&stage)).unwrap();
    }
    expect![[r#"
        panic
        a stopping
        stop a
        a stopped (panicked: probe)
        ! a stop failed (panicked: probe)
        root down (shutdown)
        > shutdown after 0ns
        error
        a stopping
        stop a
        a stopped (failed: probe)
        ! a stop failed (failed: probe)
        root down (shutdown)
        > shutdown after 0ns
        hang
        a stopping
        stop a
        ! a unkillable
        a stopped (unkillable)
        ! a stop failed (unkillable)
        root down (shutdown)
        > shutdown after 7s, 1 unkillable
        slow
        a stopping
        stop a
        a stopped (shutdown)
        root down (shutdown)
        > shutdown after 500ms
        busy
        a stopping
        stop a
        a stopped (shutdown)
        root down (shutdown)
        > shutdown after 0ns
    "#]]
    .assert_eq(&logs);
}

#[tokio::test(start_paused = true)]
async fn a_fault_strikes_as_often_as_it_was_armed_for() {
    let stage = Stage::new();
    let probe = Probe::new();
    let root = perform(&stage, tree(&stage, &probe)).await;
    skip(&stage);
    probe.arm("a", Point::Run, Fault::Panic, 2);
    probe.arm("a", Point::Init, Fault::Error, 1);
    settle().await;
    ended(&stage, &root).await;
    check(
        &stage,
        expect![[r#"
        ! a exited (panicked: probe), restarts
        ! a start failed (failed: probe)
        init a
        a started #3
        ! a exited (panicked: probe), restarts
        init a
        a started #4
        > still there
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn a_path_names_one_child_where_an_id_names_all_of_that_name() {
    let stage = Stage::new();
    let probe = Probe::new();
    let inner =
        |id: &'static str| ChildSpec::supervisor(id, one_for_one().child(stage.worker("w")));
    let tree = one_for_one().probe(probe.clone()).child(inner("p")).child(inner("q"));
    let _root = perform(&stage, tree).await;
    skip(&stage);
    probe.arm("root/q/w", Point::Run, Fault::Panic, 1);
    settle().await;
    let one = take(&stage);
    probe.arm("w", Point::Run, Fault::Panic, 2);
    settle().await;
    let mut both = stage.take_log();
    both.sort(); // which of two is struck first is left to chance
    expect![[r#"
        ! q/w exited (panicked: probe), restarts
        init w
        q/w started #2
        > both
        ! p/w exited (panicked: probe), restarts
        ! q/w exited (panicked: probe), restarts
        init w
        init w
        p/w started #2
        q/w started #3
    "#]]
    .assert_eq(&format!("{one}> both\n{}\n", both.join("\n")));
}

#[tokio::test(start_paused = true)]
async fn a_supervisor_with_a_probe_of_its_own_is_out_of_reach_and_a_cleared_probe_does_nothing() {
    let stage = Stage::new();
    let (probe, own) = (Probe::new(), Probe::new());
    let inner = one_for_one().probe(own.clone()).child(stage.worker("w"));
    let tree = one_for_one().probe(probe.clone()).child(ChildSpec::supervisor("p", inner));
    let _root = perform(&stage, tree).await;
    skip(&stage);
    probe.arm("w", Point::Run, Fault::Panic, 1);
    own.arm("w", Point::Stop, Fault::Panic, 1);
    own.clear();
    settle().await;
    check(&stage, expect![[""]]);
}
