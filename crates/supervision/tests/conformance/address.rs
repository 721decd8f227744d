//! Handles that survive restarts: what callers, senders and monitors are told, and when.

use super::play::{
    answer, check, ms, one_for_all, one_for_one, perform, secs, skip, try_perform, workers,
};
use crate::stage::{Stage, settle};
use astscope_supervision::{
    Address, CallError, ChildSpec, ChildState, Ctx, Exit, Init, Mailbox, Reply, Restart, Root,
    SendError, Service,
};
use expect_test::expect;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

/// A service that says which of its incarnations answers.
pub(crate) struct Echo(Stage);

/// What it can be asked.
pub(crate) enum Message {
    /// Its incarnation.
    Who(Reply<u64>),
    /// Nothing: it ends, with this.
    End(
        Exit,
        #[expect(dead_code, reason = "is held, so that it ends with the service")] Reply<u64>,
    ),
    /// Its incarnation, but only after this many milliseconds.
    Slow(u64, Reply<u64>),
    /// It is ready, or no longer.
    Ready(bool),
}

impl Service for Echo {
    type Args = (Stage, watch::Sender<bool>);
    type Message = Message;

    async fn init((stage, open): Self::Args, ctx: &Ctx) -> Result<Init<Self>, Exit> {
        stage.line(format!("init {} #{}", ctx.id(), ctx.incarnation()));
        open.subscribe().wait_for(|open| *open).await?;
        Ok(Init::Ready(Self(stage)))
    }

    async fn run(self, mut mailbox: Mailbox<Message>, ctx: Ctx) -> Result<(), Exit> {
        while let Some(message) = mailbox.recv().await {
            match message {
                Message::Who(reply) => reply.send(ctx.incarnation()),
                Message::End(exit, _) => return Err(exit),
                Message::Slow(time, reply) => {
                    sleep(ms(time)).await;
                    reply.send(ctx.incarnation());
                }
                Message::Ready(ready) => ctx.set_ready(ready),
            }
        }
        self.0.line(format!("stop {}", ctx.id()));
        Ok(())
    }
}

/// An echo, and the gate that its inits go through.
fn gated(
    stage: &Stage,
    id: &str,
    capacity: usize,
) -> (Address<Message>, ChildSpec, watch::Sender<bool>) {
    let (address, gate) = (Address::new(id, capacity), watch::Sender::new(true));
    let spec = ChildSpec::service::<Echo>(&address, (stage.clone(), gate.clone()));
    (address, spec, gate)
}

pub(crate) fn echo(stage: &Stage, id: &str, capacity: usize) -> (Address<Message>, ChildSpec) {
    let (address, spec, _) = gated(stage, id, capacity);
    (address, spec)
}

async fn one(stage: &Stage, capacity: usize) -> (Address<Message>, Root) {
    let (address, spec) = echo(stage, "e", capacity);
    let root = perform(stage, one_for_one().child(spec)).await;
    skip(stage);
    (address, root)
}

#[tokio::test(start_paused = true)]
async fn a_call_before_the_first_start_waits_for_it() {
    let stage = Stage::new();
    let (address, spec) = echo(&stage, "e", 1);
    let early = async {
        answer(&stage, "who", address.call(secs(1), Message::Who).await);
    };
    answer(&stage, "now", address.call_now(secs(1), Message::Who).await);
    let (_root, ()) = tokio::join!(perform(&stage, one_for_one().child(spec)), early);
    check(
        &stage,
        expect![[r#"
        > now: error Down
        init e #1
        e started #1
        root up
        > who: 1
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn a_call_during_a_restart_reaches_the_next_incarnation_and_never_the_old_one() {
    let stage = Stage::new();
    let (address, spec, gate) = gated(&stage, "e", 4);
    let _root = perform(&stage, one_for_one().child(spec)).await;
    skip(&stage);
    gate.send_replace(false);
    let call = async |what: &str| {
        let start = Instant::now();
        let answered = address.call(secs(10), Message::Who).await;
        let what = format!("{what} after {:?}", start.elapsed());
        answer(&stage, &what, answered);
    };
    let end = async {
        let died = address.call(secs(1), |reply| Message::End(Exit::failed("boom"), reply)).await;
        answer(&stage, "the one it died of", died);
    };
    let now = async {
        settle().await;
        answer(&stage, "call_now", address.call_now(secs(1), Message::Who).await);
        answer(&stage, "send_now", address.send_now(Message::Ready(true)));
        call("called meanwhile").await;
    };
    let release = async {
        sleep(secs(2)).await;
        gate.send_replace(true);
    };
    tokio::join!(end, call("called at once"), now, release);
    check(
        &stage,
        expect![[r#"
        ! e exited (failed: boom), restarts
        init e #2
        > called at once after 0ns: error Died
        > the one it died of: error Died
        > call_now: error Restarting
        > send_now: error Restarting
        e started #2
        > called meanwhile after 1.97s: 2
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn messages_that_an_incarnation_did_not_take_die_with_it() {
    let stage = Stage::new();
    let (address, _root) = one(&stage, 4).await;
    let end = address.call(secs(1), |reply| Message::End(Exit::Normal, reply));
    let behind = address.call(secs(1), Message::Who);
    let (end, behind) = tokio::join!(end, behind);
    answer(&stage, "end", end);
    answer(&stage, "behind it", behind);
    answer(&stage, "after it", address.call(secs(1), Message::Who).await);
    check(
        &stage,
        expect![[r#"
        ! e exited (normal), restarts
        init e #2
        e started #2
        > end: error Died
        > behind it: error Died
        > after it: 2
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn a_bystander_of_a_group_restart_is_restarting_and_not_down() {
    let stage = Stage::new();
    let (address, spec) = echo(&stage, "e", 1);
    let tree =
        one_for_all().children(workers(&stage, "a")).child(spec).children(workers(&stage, "c"));
    let _root = perform(&stage, tree).await;
    skip(&stage);
    stage.hold("a");
    stage.crash("c").await;
    answer(&stage, "call_now", address.call_now(secs(1), Message::Who).await);
    let release = async {
        settle().await;
        stage.release("a");
    };
    let (answered, ()) = tokio::join!(address.call(secs(1), Message::Who), release);
    answer(&stage, "call", answered);
    check(
        &stage,
        expect![[r#"
        ! c exited (failed: boom), restarts
        e stopping
        stop e
        e stopped (shutdown)
        a stopping
        stop a
        a stopped (shutdown)
        init a
        > call_now: error Restarting
        a started #2
        init e #2
        e started #2
        init c
        c started #2
        > call: 2
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn a_child_that_is_down_keeps_callers_waiting_until_their_deadline() {
    let stage = Stage::new();
    let (address, root) = one(&stage, 1).await;
    root.supervisor().terminate_child("e").await.unwrap();
    skip(&stage);
    let start = Instant::now();
    answer(&stage, "call_now", address.call_now(secs(1), Message::Who).await);
    answer(&stage, "call", address.call(secs(2), Message::Who).await);
    answer(&stage, "send", address.send(secs(2), Message::Ready(true)).await);
    stage.line(format!("> {:?}", start.elapsed()));
    let restart = async {
        settle().await;
        root.supervisor().restart_child("e").await.unwrap();
    };
    let (answered, ()) = tokio::join!(address.call(secs(2), Message::Who), restart);
    answer(&stage, "call", answered);
    check(
        &stage,
        expect![[r#"
        > call_now: error Down
        > call: error Down
        > send: error Down
        > 4s
        init e #2
        e started #2
        > call: 2
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn a_child_that_is_gone_keeps_nobody_waiting() {
    let stage = Stage::new();
    let (address, root) = one(&stage, 1).await;
    let (other, spec) = echo(&stage, "f", 1);
    root.supervisor().start_child(spec).await.unwrap();
    root.shutdown().await;
    skip(&stage);
    let start = Instant::now();
    for address in [&address, &other] {
        answer(&stage, "call", address.call(secs(9), Message::Who).await);
        answer(&stage, "call_now", address.call_now(secs(9), Message::Who).await);
        answer(&stage, "send", address.send(secs(9), Message::Ready(true)).await);
        answer(&stage, "ready", address.child().await_ready(secs(9)).await);
    }
    stage.line(format!("> {:?}", start.elapsed()));
    check(
        &stage,
        expect![[r#"
        > call: error Gone
        > call_now: error Gone
        > send: error Gone
        > ready: error NotReady { id: "e", state: None }
        > call: error Gone
        > call_now: error Gone
        > send: error Gone
        > ready: error NotReady { id: "f", state: None }
        > 0ns
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_for_a_child_is_told_when_it_is_gone() {
    let stage = Stage::new();
    let (address, root) = one(&stage, 1).await;
    root.supervisor().terminate_child("e").await.unwrap();
    skip(&stage);
    let delete = async {
        sleep(secs(1)).await;
        root.supervisor().delete_child("e").await.unwrap();
    };
    let start = Instant::now();
    let call = address.call(secs(9), Message::Who);
    let child = address.child();
    let ready = child.await_ready(secs(9));
    let (called, ready, ()) = tokio::join!(call, ready, delete);
    answer(&stage, "call", called);
    answer(&stage, "ready", ready);
    stage.line(format!("> {:?}", start.elapsed()));
    check(
        &stage,
        expect![[r#"
        > call: error Gone
        > ready: error NotReady { id: "e", state: None }
        > 1s
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn below_a_subtree_that_is_gone_all_are_gone_and_below_one_that_is_down_all_are_down() {
    let stage = Stage::new();
    let mut logs = String::new();
    for restart in [Restart::Permanent, Restart::Temporary] {
        let (address, spec) = echo(&stage, "e", 1);
        let inner = ChildSpec::supervisor("inner", one_for_one().child(spec)).restart(restart);
        let root = perform(&stage, one_for_one().child(inner)).await;
        let below = root.supervisor().supervisor_at("inner").await.unwrap();
        let (added, spec) = echo(&stage, "f", 1);
        below.start_child(spec).await.unwrap();
        root.supervisor().terminate_child("inner").await.unwrap();
        skip(&stage);
        answer(&stage, "call_now", address.call_now(secs(1), Message::Who).await);
        answer(&stage, "to one that was added", added.call_now(secs(1), Message::Who).await);
        logs += &super::play::take(&stage);
    }
    expect![[r#"
        > call_now: error Down
        > to one that was added: error Gone
        > call_now: error Gone
        > to one that was added: error Gone
    "#]]
    .assert_eq(&logs);
}

#[tokio::test(start_paused = true)]
async fn a_full_mailbox_is_overload_at_once_or_at_the_deadline() {
    let stage = Stage::new();
    let (address, _root) = one(&stage, 2).await;
    let busy = address.call(secs(60), |reply| Message::Slow(10_000, reply));
    let full = async {
        settle().await;
        for _ in 0..2 {
            answer(&stage, "send_now", address.send_now(Message::Ready(true)));
        }
        answer(&stage, "send_now", address.send_now(Message::Ready(true)));
        answer(&stage, "call_now", address.call_now(secs(1), Message::Who).await);
        let start = Instant::now();
        answer(&stage, "call", address.call(secs(1), Message::Who).await);
        answer(&stage, "send", address.send(secs(1), Message::Ready(true)).await);
        stage.line(format!("> {:?}", start.elapsed()));
        answer(&stage, "patient", address.call(secs(60), Message::Who).await);
    };
    let (slow, ()) = tokio::join!(busy, full);
    answer(&stage, "slow", slow);
    check(
        &stage,
        expect![[r#"
        > send_now: ()
        > send_now: ()
        > send_now: error Overloaded
        > call_now: error Overloaded
        > call: error Overloaded
        > send: error Overloaded
        > 2s
        > patient: 1
        > slow: 1
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_room_in_a_mailbox_goes_on_to_the_next_incarnation() {
    let stage = Stage::new();
    let (address, root) = one(&stage, 1).await;
    let busy = address.call(secs(60), |reply| Message::Slow(60_000, reply));
    let waiting = async {
        settle().await;
        address.send_now(Message::Ready(true)).unwrap();
        answer(&stage, "waited for room", address.call(secs(60), Message::Who).await);
    };
    let restart = async {
        sleep(secs(1)).await;
        root.supervisor().terminate_child("e").await.unwrap();
        root.supervisor().restart_child("e").await.unwrap();
    };
    let (busy, (), ()) = tokio::join!(busy, waiting, restart);
    answer(&stage, "was being worked on", busy);
    check(
        &stage,
        expect![[r#"
        e stopping
        e stopped (killed)
        ! e stop failed (killed)
        init e #2
        e started #2
        > waited for room: 2
        > was being worked on: error Died
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_late_is_a_timeout_and_nobodys() {
    let stage = Stage::new();
    let (address, _root) = one(&stage, 1).await;
    let late = address.call(secs(1), |reply| Message::Slow(5_000, reply)).await;
    answer(&stage, "late", late);
    assert!(!late.unwrap_err().is_undelivered());
    answer(&stage, "next", address.call(secs(10), Message::Who).await);
    check(
        &stage,
        expect![[r#"
        > late: error Timeout
        > next: 1
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn a_monitor_tells_the_end_of_its_incarnation_once_and_of_no_other() {
    let stage = Stage::new();
    let (address, root) = one(&stage, 1).await;
    let mut first = address.child().monitor();
    assert_eq!((first.incarnation(), first.exit()), (1, None));
    let end = async {
        settle().await;
        let _unsent = address.send_now(Message::End(Exit::failed("boom"), reply()));
    };
    let (down, ()) = tokio::join!(first.down(), end);
    settle().await;
    let mut second = address.child().monitor();
    stage.line(format!("> #{} {down}, again {}", first.incarnation(), first.down().await));
    stage.line(format!("> #{} {:?}", second.incarnation(), second.exit()));
    root.supervisor().terminate_child("e").await.unwrap();
    stage.line(format!("> #{} {}", second.incarnation(), second.down().await));
    let mut third = address.child().monitor();
    stage.line(format!("> #{} already {}", third.incarnation(), third.down().await));
    check(
        &stage,
        expect![[r#"
        ! e exited (failed: boom), restarts
        init e #2
        e started #2
        > #1 failed: boom, again failed: boom
        > #2 None
        e stopping
        stop e
        e stopped (shutdown)
        > #2 shutdown
        > #2 already shutdown
    "#]],
    );
}

/// A port that nobody listens at.
fn reply() -> Reply<u64> {
    let mut port = None;
    let nobody = Address::<Message>::new("nobody", 1);
    let mut call = Box::pin(nobody.call_now(secs(1), |reply| {
        port = Some(reply);
        Message::Ready(true)
    }));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(call.as_mut().poll(&mut context).is_ready());
    drop(call);
    port.unwrap()
}

#[tokio::test(start_paused = true)]
async fn who_is_ready_later_says_so_itself_and_anew_in_each_incarnation() {
    let stage = Stage::new();
    let (address, spec) = echo(&stage, "e", 4);
    let root = perform(&stage, one_for_one().child(spec.ready_later())).await;
    skip(&stage);
    let child = address.child();
    answer(&stage, "await_ready", child.await_ready(secs(1)).await);
    address.send_now(Message::Ready(true)).unwrap();
    answer(&stage, "await_ready", child.await_ready(secs(1)).await);
    address.send_now(Message::Ready(false)).unwrap();
    settle().await;
    answer(&stage, "await_ready", child.await_ready(secs(1)).await);
    address.send_now(Message::Ready(true)).unwrap();
    settle().await;
    root.supervisor().terminate_child("e").await.unwrap();
    root.supervisor().restart_child("e").await.unwrap();
    answer(&stage, "await_ready", child.await_ready(secs(1)).await);
    check(
        &stage,
        expect![[r#"
        > await_ready: error NotReady { id: "e", state: Some(Up) }
        > await_ready: ()
        > await_ready: error NotReady { id: "e", state: Some(Up) }
        e stopping
        stop e
        e stopped (shutdown)
        init e #2
        e started #2
        > await_ready: error NotReady { id: "e", state: Some(Up) }
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn vitals_tell_the_mailbox_and_how_long_a_message_has_been_worked_on() {
    let stage = Stage::new();
    let (address, _root) = one(&stage, 3).await;
    let child = address.child();
    let look = || {
        let vitals = child.vitals();
        stage.line(format!("> mailbox {:?}, at work {:?}", vitals.mailbox, vitals.working_for));
    };
    look();
    let busy = address.call(secs(60), |reply| Message::Slow(10_000, reply));
    let watch = async {
        settle().await;
        address.send_now(Message::Ready(true)).unwrap();
        sleep(secs(5)).await;
        look();
    };
    tokio::join!(busy, watch).0.unwrap();
    settle().await;
    look();
    check(
        &stage,
        expect![[r#"
        > mailbox Some((0, 3)), at work None
        > mailbox Some((1, 3)), at work Some(5.03s)
        > mailbox Some((0, 3)), at work None
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn a_spec_that_runs_already_cannot_be_started_elsewhere_and_is_none_the_worse_for_it() {
    let stage = Stage::new();
    let (address, spec) = echo(&stage, "e", 1);
    let first = perform(&stage, one_for_one().child(spec.clone())).await;
    let other = perform(&stage, one_for_one()).await;
    skip(&stage);
    let refused = try_perform(&stage, one_for_one().child(spec.clone())).await;
    answer(&stage, "start", refused.map(drop));
    answer(&stage, "call_now", address.call_now(secs(1), Message::Who).await);
    answer(&stage, "start_child", other.supervisor().start_child(spec.clone()).await.map(drop));
    answer(&stage, "call_now", address.call_now(secs(1), Message::Who).await);
    let below = ChildSpec::supervisor("inner", one_for_one().child(spec));
    answer(&stage, "start_child", other.supervisor().start_child(below).await.map(drop));
    answer(&stage, "call_now", address.call_now(secs(1), Message::Who).await);
    assert_eq!(address.child().status().state(), ChildState::Up);
    first.shutdown().await;
    other.shutdown().await;
    assert_eq!(address.call_now(secs(1), Message::Who).await, Err(CallError::Gone));
    assert_eq!(address.send_now(Message::Ready(true)), Err(SendError::Gone));
    check(
        &stage,
        expect![[r#"
        ! e start failed (failed: its spec is running already, under another supervisor)
        > start: error Child { id: "e", exit: Failed("its spec is running already, under another supervisor") }
        > call_now: 1
        > start_child: error Start(Failed("its spec is running already, under another supervisor"))
        > call_now: 1
        ! inner/e start failed (failed: its spec is running already, under another supervisor)
        > start_child: error Start(Failed("`e` didn't start: failed: its spec is running already, under another supervisor"))
        > call_now: 1
        e stopping
        stop e
        e stopped (shutdown)
        root down (shutdown)
        root down (shutdown)
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn a_spec_can_be_started_again_after_its_tree_is_gone_and_its_addresses_work_again() {
    let stage = Stage::new();
    let (address, spec) = echo(&stage, "e", 1);
    for _ in 0..2 {
        let root = perform(&stage, one_for_one().child(spec.clone())).await;
        answer(&stage, "who", address.call(secs(1), Message::Who).await);
        root.shutdown().await;
        answer(&stage, "who", address.call(secs(1), Message::Who).await);
    }
    check(
        &stage,
        expect![[r#"
        init e #1
        e started #1
        root up
        > who: 1
        e stopping
        stop e
        e stopped (shutdown)
        root down (shutdown)
        > who: error Gone
        init e #2
        e started #2
        root up
        > who: 2
        e stopping
        stop e
        e stopped (shutdown)
        root down (shutdown)
        > who: error Gone
    "#]],
    );
}

#[tokio::test(start_paused = true)]
async fn a_dropped_call_is_withdrawn_if_it_is_not_delivered_yet() {
    let stage = Stage::new();
    let (address, root) = one(&stage, 1).await;
    root.supervisor().terminate_child("e").await.unwrap();
    let port = Arc::new(());
    let made = Arc::clone(&port);
    let call = address.call(secs(9), move |reply| {
        drop(made);
        Message::Who(reply)
    });
    let _elapsed = tokio::time::timeout(ms(1), call).await.unwrap_err();
    assert_eq!(Arc::strong_count(&port), 1);
    root.supervisor().restart_child("e").await.unwrap();
    answer(&stage, "who", address.call(secs(1), Message::Who).await);
    skip(&stage);
}
