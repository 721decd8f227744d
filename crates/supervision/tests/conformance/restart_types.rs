//! 2.2 and 1.2: what each end of each type of child leads to.

use super::play::{
    answer, check, children, count, one_for_all, one_for_one, perform, skip, workers,
};
use crate::stage::{Stage, settle};
use astscope_supervision::core::{Action, Core, End, Input};
use astscope_supervision::{ChildSpec, EventKind, Exit, Restart};
use expect_test::expect;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;

/// The reasons that OTP tells apart.
fn reasons() -> [Exit; 4] {
    [Exit::Normal, Exit::Shutdown, Exit::ShutdownWith("done".into()), Exit::failed("boom")]
}

#[tokio::test(start_paused = true)]
async fn case_14_a_permanent_child_is_restarted_whatever_its_end() {
    let stage = Stage::new();
    let root = perform(&stage, one_for_one().children(workers(&stage, "a"))).await;
    skip(&stage);
    for exit in reasons() {
        stage.exit("a", exit).await;
    }
    children(&stage, root.supervisor()).await;
    check(
        &stage,
        expect![[r#"
        ! a exited (normal), restarts
        init a
        a started #2
        ! a exited (shutdown), restarts
        init a
        a started #3
        ! a exited (shutdown: done), restarts
        init a
        a started #4
        ! a exited (failed: boom), restarts
        init a
        a started #5
        > children: a up #5
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn case_15_a_transient_child_is_restarted_after_a_crash_only() {
    let stage = Stage::new();
    let tree = ["a", "b", "c", "d"].map(|id| stage.worker(id).restart(Restart::Transient));
    let root = perform(&stage, one_for_one().children(tree)).await;
    skip(&stage);
    for (id, exit) in ["a", "b", "c", "d"].into_iter().zip(reasons()) {
        stage.exit(id, exit).await;
    }
    children(&stage, root.supervisor()).await;
    count(&stage, root.supervisor()).await;
    check(
        &stage,
        expect![[r#"
        a exited (normal)
        b exited (shutdown)
        c exited (shutdown: done)
        ! d exited (failed: boom), restarts
        init d
        d started #2
        > children: d up #2, c down #1, b down #1, a down #1
        > count: 4 specs, 1 active, 0 supervisors, 4 workers
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn case_16_a_temporary_child_is_never_restarted_and_is_forgotten() {
    let stage = Stage::new();
    let tree = ["a", "b", "c", "d"].map(|id| stage.worker(id).restart(Restart::Temporary));
    let root = perform(&stage, one_for_one().children(tree)).await;
    skip(&stage);
    for (id, exit) in ["a", "b", "c", "d"].into_iter().zip(reasons()) {
        stage.exit(id, exit).await;
    }
    children(&stage, root.supervisor()).await;
    count(&stage, root.supervisor()).await;
    check(
        &stage,
        expect![[r#"
        a exited (normal)
        b exited (shutdown)
        c exited (shutdown: done)
        ! d exited (failed: boom)
        > children: 
        > count: 0 specs, 0 active, 0 supervisors, 0 workers
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn case_17_a_temporary_childs_name_is_free_after_its_end_and_a_permanents_is_not() {
    let stage = Stage::new();
    let tree =
        one_for_one().child(stage.worker("a").restart(Restart::Temporary)).child(stage.worker("b"));
    let root = perform(&stage, tree).await;
    skip(&stage);
    stage.exit("a", Exit::Normal).await;
    let again = root.supervisor().start_child(stage.worker("a")).await;
    answer(&stage, "start_child a", again.map(drop));
    answer(&stage, "terminate_child b", root.supervisor().terminate_child("b").await);
    let again = root.supervisor().start_child(stage.worker("b")).await;
    answer(&stage, "start_child b", again.map(drop));
    children(&stage, root.supervisor()).await;
    check(
        &stage,
        expect![[r#"
        a exited (normal)
        init a
        a started #1
        > start_child a: ()
        b stopping
        stop b
        b stopped (shutdown)
        > terminate_child b: ()
        > start_child b: error AlreadyPresent
        > children: a up #1, b down #1
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn case_18_a_panic_an_error_and_an_abort_are_different_ends_and_all_abnormal() {
    let stage = Stage::new();
    let turn = Arc::new(Mutex::new(0));
    let child = ChildSpec::task("a", move |_| {
        let turn = {
            let mut turn = turn.lock().unwrap();
            *turn += 1;
            *turn
        };
        async move {
            match turn {
                1 => panic!("the text of {}", "a panic"),
                2 => std::panic::panic_any(7),
                3 => Err(std::io::Error::other("an error").into()),
                4 => Err(Exit::Killed),
                5 => Ok("x".parse::<u8>().map(drop)?),
                _ => Ok(()),
            }
        }
    });
    let tree = one_for_one().child(child.restart(Restart::Transient));
    let root = perform(&stage, tree).await;
    children(&stage, root.supervisor()).await;
    check(
        &stage,
        expect![[r#"
        a started #1
        root up
        ! a exited (panicked: the text of a panic), restarts
        a started #2
        ! a exited (panicked: a payload that is no text), restarts
        a started #3
        ! a exited (failed: an error), restarts
        a started #4
        ! a exited (killed), restarts
        a started #5
        ! a exited (failed: invalid digit found in string), restarts
        a started #6
        a exited (normal)
        > children: a down #6
    "#]],
    );
}

// ── rules of 1.2 ────────────────────────────────────────────────────────────────────────────────

#[tokio::test(start_paused = true)]
async fn rule_1_2_killed_is_an_ordinary_abnormal_reason() {
    let stage = Stage::new();
    let tree = one_for_one()
        .child(stage.worker("a").restart(Restart::Transient))
        .child(stage.worker("b").restart(Restart::Temporary));
    let root = perform(&stage, tree).await;
    skip(&stage);
    stage.exit("a", Exit::Killed).await;
    stage.exit("b", Exit::Killed).await;
    children(&stage, root.supervisor()).await;
    check(
        &stage,
        expect![[r#"
        ! a exited (killed), restarts
        init a
        a started #2
        ! b exited (killed)
        > children: a up #2
    "#]],
    );
}

#[test]
fn rule_1_2_the_end_of_an_unknown_child_or_an_old_incarnation_changes_nothing() {
    let policy = |id| (ChildSpec::task(id, |_| async { Ok(()) }).policy().clone(), (), 0);
    let now = Instant::now();
    let core = |ids: &[&'static str]| {
        let children = ids.iter().copied().map(policy).collect();
        Core::new(*one_for_all().policy(), children, now)
    };
    let mut out = Vec::new();
    // A core with more children knows a name that ours doesn't.
    let mut other = core(&["a", "b", "c"]);
    other.step(now, Input::Start, &mut out);
    let mut keys = Vec::new();
    while let Some(Action::Spawn(key, incarnation)) = out.pop() {
        keys.push(key);
        out.clear();
        other.step(now, Input::Ready(key, incarnation), &mut out);
        out.retain(|action| matches!(action, Action::Spawn(..)));
    }
    let [a, b, unknown] = keys[..] else { panic!("three children") };

    let mut ours = core(&["a", "b"]);
    out.clear();
    for input in [Input::Start, Input::Ready(a, 1), Input::Ready(b, 1)] {
        ours.step(now, input, &mut out);
    }
    let exit = || End::Exited(Exit::failed("boom"));
    ours.step(now, Input::Ended(a, 1, exit()), &mut out);
    ours.step(now, Input::Ended(b, 1, exit()), &mut out); // stopped
    for input in [Input::Ready(a, 2), Input::Ready(b, 2)] {
        ours.step(now, input, &mut out);
    }
    out.clear();
    for (key, incarnation) in [(a, 1), (b, 1), (a, 0), (a, 3), (unknown, 1)] {
        for end in [exit(), End::Ignored, End::StartFailed(Exit::Killed)] {
            ours.step(now, Input::Ended(key, incarnation, end), &mut out);
            ours.step(now, Input::Ready(key, incarnation), &mut out);
            ours.step(now, Input::TryAgain(key), &mut out);
        }
    }
    ours.step(now + Duration::from_hours(1), Input::Tick, &mut out);
    assert_eq!(out, []);
    // It still works.
    ours.step(now, Input::Ended(b, 2, exit()), &mut out);
    let exited = EventKind::Exited { incarnation: 2, exit: Exit::failed("boom"), restarts: true };
    assert_eq!(out.first(), Some(&Action::Emit(Some("b".into()), exited)));
}

#[tokio::test(start_paused = true)]
async fn rule_1_2_a_temporary_service_leaves_no_arguments_with_its_supervisor() {
    let stage = Stage::new();
    let root = perform(&stage, one_for_one()).await;
    for (id, restart) in [("a", Restart::Temporary), ("b", Restart::Transient)] {
        let arguments = Arc::new(());
        let kept = Arc::downgrade(&arguments);
        let address = astscope_supervision::Address::new(id, 1);
        let spec = ChildSpec::service::<Forgetful>(&address, arguments).restart(restart);
        let child = root.supervisor().start_child(spec).await.unwrap().unwrap();
        stage.line(format!(
            "> {restart} {id}: up {}, arguments kept {}",
            child.status().is_up(),
            kept.strong_count()
        ));
    }
    check(
        &stage,
        expect![[r#"
            root up
            a started #1
            > temporary a: up true, arguments kept 0
            b started #1
            > transient b: up true, arguments kept 1
        "#]],
    );
}

/// A service that drops its arguments in its init.
struct Forgetful;

impl astscope_supervision::Service for Forgetful {
    type Args = Arc<()>;
    type Message = ();

    async fn init(
        _: Arc<()>,
        _: &astscope_supervision::Ctx,
    ) -> Result<astscope_supervision::Init<Self>, Exit> {
        Ok(astscope_supervision::Init::Ready(Self))
    }

    async fn run(
        self,
        _: astscope_supervision::Mailbox<()>,
        ctx: astscope_supervision::Ctx,
    ) -> Result<(), Exit> {
        ctx.stopping().await;
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn rule_1_2_a_temporary_task_leaves_no_arguments_with_its_supervisor() {
    let stage = Stage::new();
    let root = perform(&stage, one_for_one()).await;
    let arguments = Arc::new(());
    let kept = Arc::downgrade(&arguments);
    let spec = ChildSpec::task("a", move |ctx| {
        let _used = Arc::clone(&arguments);
        async move {
            ctx.stopping().await;
            Ok(())
        }
    });
    root.supervisor().start_child(spec.restart(Restart::Temporary)).await.unwrap();
    settle().await;
    assert_eq!(kept.strong_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_runs_once_hands_its_arguments_over_and_cannot_run_again() {
    let stage = Stage::new();
    let arguments = Arc::new(());
    let kept = Arc::downgrade(&arguments);
    let tree = one_for_one()
        .child(ChildSpec::once("b", move |_| async move {
            drop(arguments);
            Err(Exit::failed("boom"))
        }))
        .child(ChildSpec::once("c", |_| async { Ok(()) }).restart(Restart::Permanent));
    let root = perform(&stage, tree).await;
    assert_eq!(kept.strong_count(), 0);
    children(&stage, root.supervisor()).await;
    check(
        &stage,
        expect![[r#"
        b started #1
        c started #1
        root up
        ! b exited (failed: boom)
        ! c exited (normal), restarts
        c ignored
        > children: c down #2
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn a_task_that_runs_once_does_not_keep_its_supervisor_from_coming_back() {
    let stage = Stage::new();
    let inner = one_for_one()
        .intensity(0, Duration::from_secs(5))
        .child(ChildSpec::once("once", |_| async { Ok(()) }))
        .children(workers(&stage, "a"));
    let root = perform(&stage, one_for_one().child(ChildSpec::supervisor("inner", inner))).await;
    skip(&stage);
    stage.crash("a").await;
    children(&stage, root.supervisor()).await;
    check(
        &stage,
        expect![[r#"
        ! inner/a exited (failed: boom), restarts
        ! inner meltdown at a
        inner down (meltdown: too many restarts)
        ! inner exited (meltdown: too many restarts), restarts
        inner/once ignored
        init a
        inner/a started #2
        inner up
        inner started #2
        > children: inner up #2
    "#]],
    );
}
