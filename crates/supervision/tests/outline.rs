//! Trees to look at, from a spec and from what runs, and what the lint has to say about them.
#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test may")]

mod stage;

use astscope_supervision::{
    Address, AutoShutdown, ChildSpec, Ctx, DynamicSupervisor, Exit, Fault, LintRule,
    PartitionSupervisor, Point, Probe, Recorder, Restart, Root, Stop, Strategy, SupervisorSpec,
    TreeNode,
};
use expect_test::expect;
use stage::{Stage, settle};
use std::time::Duration;
use tokio::time::{Instant, sleep};

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

async fn idle(ctx: Ctx) -> Result<(), Exit> {
    ctx.stopping().await;
    Ok(())
}

fn worker(id: &str) -> ChildSpec {
    ChildSpec::task(id, idle)
}

async fn start(spec: SupervisorSpec) -> Root {
    spec.observer(Recorder::new()).start("daemon").await.unwrap()
}

// ── trees ───────────────────────────────────────────────────────────────────────────────────────

/// One of everything.
fn everything() -> SupervisorSpec {
    let sync = SupervisorSpec::new(Strategy::RestForOne)
        .intensity(5, Duration::from_millis(1500))
        .auto_shutdown(AutoShutdown::AnySignificant)
        .child(worker("watcher").stop(Stop::Kill))
        .child(worker("batch").restart(Restart::Transient).significant())
        .child(worker("once").restart(Restart::Temporary).stop(Stop::Wait));
    let analysis = SupervisorSpec::new(Strategy::OneForAll);
    let connections = DynamicSupervisor::new("connections", |id: &str| worker(id));
    let writers =
        PartitionSupervisor::new("writers", 2, |id| (worker(&id).stop(Stop::Within(secs(2))), ()));
    SupervisorSpec::new(Strategy::OneForOne)
        .intensity(3, secs(10))
        .child(ChildSpec::supervisor("sync", sync))
        .child(ChildSpec::supervisor("analysis", analysis).degrade(secs(30)))
        .child(connections.spec(SupervisorSpec::dynamic(100)).stop(Stop::Within(secs(9))))
        .child(writers.unwrap().spec(SupervisorSpec::new(Strategy::OneForOne)))
        .child(worker("listener"))
}

#[test]
fn a_spec_can_be_looked_at_as_text() {
    expect![[r#"
        daemon  one_for_one 3/10 s
        ├── sync  rest_for_one 5/1.500 s  permanent wait
        │   ├── watcher  permanent kill
        │   ├── batch  transient within 5000 ms significant
        │   └── once  temporary wait
        ├── analysis  one_for_all 3/5 s  permanent wait degrade 30 s
        ├── connections  dynamic 3/5 s  permanent within 9000 ms
        ├── writers  one_for_one 3/5 s  permanent wait
        │   ├── 0  permanent within 2000 ms
        │   └── 1  permanent within 2000 ms
        └── listener  permanent within 5000 ms
    "#]]
    .assert_eq(&everything().outline("daemon").to_string());
}

#[test]
fn a_spec_can_be_looked_at_as_json() {
    let sync = everything().outline("daemon").children.swap_remove(0);
    expect![[r#"
        {
          "id": "sync",
          "strategy": "rest_for_one",
          "intensity": 5,
          "periodMs": 1500,
          "restart": "permanent",
          "stop": "wait",
          "children": [
            {
              "id": "watcher",
              "restart": "permanent",
              "stop": "kill"
            },
            {
              "id": "batch",
              "restart": "transient",
              "stop": "within 5000 ms",
              "significant": true
            },
            {
              "id": "once",
              "restart": "temporary",
              "stop": "wait"
            }
          ]
        }"#]]
    .assert_eq(&sync.to_json());
}

#[test]
fn a_spec_can_be_looked_at_as_a_mermaid_chart() {
    expect![[r#"
        graph TD
          n0[["daemon  one_for_one 3/10 s"]]
          n1[["sync  rest_for_one 5/1.500 s  permanent wait"]]
          n2["watcher  permanent kill"]
          n1 --> n2
          n3["batch  transient within 5000 ms significant"]
          n1 --> n3
          n4["once  temporary wait"]
          n1 --> n4
          n0 --> n1
          n5[["analysis  one_for_all 3/5 s  permanent wait degrade 30 s"]]
          n0 --> n5
          n6[["connections  dynamic 3/5 s  permanent within 9000 ms"]]
          n0 --> n6
          n7[["writers  one_for_one 3/5 s  permanent wait"]]
          n8["0  permanent within 2000 ms"]
          n7 --> n8
          n9["1  permanent within 2000 ms"]
          n7 --> n9
          n0 --> n7
          n10["listener  permanent within 5000 ms"]
          n0 --> n10
    "#]]
    .assert_eq(&everything().outline("daemon").to_mermaid());
}

#[tokio::test(start_paused = true)]
async fn a_running_tree_can_be_looked_at() {
    let stage = Stage::new();
    let inbox = Address::<()>::new("inbox", 8);
    let connections = DynamicSupervisor::new("connections", |id: &str| worker(id));
    let inner = SupervisorSpec::new(Strategy::OneForOne)
        .child(stage.worker("steady"))
        .child(stage.worker("ended").restart(Restart::Transient))
        .child(stage.worker("warming").ready_later());
    let broken = SupervisorSpec::new(Strategy::OneForOne)
        .intensity(0, secs(1))
        .child(stage.worker("crashes"));
    let root = start(
        SupervisorSpec::new(Strategy::OneForOne)
            .child(ChildSpec::service::<Deaf>(&inbox, ()))
            .child(ChildSpec::supervisor("inner", inner))
            .child(ChildSpec::supervisor("broken", broken).degrade(secs(60)))
            .child(connections.spec(SupervisorSpec::dynamic(10))),
    )
    .await;
    for _ in 0..3 {
        inbox.send_now(()).unwrap();
    }
    connections.start_child("alice").await.unwrap();
    stage.crash("steady").await;
    stage.exit("ended", Exit::Normal).await;
    stage.crash("crashes").await;
    sleep(Duration::from_millis(1500)).await;
    let tree = root.supervisor().tree().await;
    expect![[r#"
        daemon  one_for_one 3/5 s  up, mailbox 0/128, 1.590 s
        ├── inbox  permanent within 5000 ms  up, mailbox 3/8, 1.590 s
        ├── inner  one_for_one 3/5 s  permanent wait  up, mailbox 0/128, 1.590 s
        │   ├── steady  permanent within 5000 ms  up, 1 restart, last exit failed: boom, mailbox 0/1, 1.590 s
        │   ├── ended  transient within 5000 ms  down, last exit normal, mailbox 0/1, 1.560 s
        │   └── warming  permanent within 5000 ms  up, not ready, mailbox 0/1, 1.590 s
        ├── broken  permanent wait degrade 60 s  degraded, last exit meltdown: too many restarts, mailbox 0/128, 1.530 s
        └── connections  dynamic 3/5 s  permanent wait  up, mailbox 0/128, 1.590 s
            └── alice  permanent within 5000 ms  up, 1.590 s
    "#]].assert_eq(&tree.to_string());
    expect![[r#"
        {
          "id": "steady",
          "restart": "permanent",
          "stop": "within 5000 ms",
          "state": "up",
          "ready": true,
          "incarnation": 2,
          "restarts": 1,
          "lastExit": "failed: boom",
          "mailboxWaiting": 0,
          "mailboxBound": 1,
          "sinceMs": 1590
        }"#]]
    .assert_eq(&tree.children[1].children[0].to_json());
    expect![[r#"
        graph TD
          n0[["connections  dynamic 3/5 s  permanent wait  up, mailbox 0/128, 1.590 s"]]
          n1["alice  permanent within 5000 ms  up, 1.590 s"]
          n0 --> n1
    "#]]
    .assert_eq(&tree.children[3].to_mermaid());

    root.shutdown().await;
    expect![[r#"
        daemon  down, mailbox 0/128, 0 s
    "#]]
    .assert_eq(&root.supervisor().tree().await.to_string());
}

/// Takes no message.
struct Deaf;

impl astscope_supervision::Service for Deaf {
    type Args = ();
    type Message = ();

    async fn init((): (), _: &Ctx) -> Result<astscope_supervision::Init<Self>, Exit> {
        Ok(astscope_supervision::Init::Ready(Self))
    }

    async fn run(self, _mailbox: astscope_supervision::Mailbox<()>, ctx: Ctx) -> Result<(), Exit> {
        idle(ctx).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_tree_is_seen_at_once_while_an_init_in_it_hangs_and_everybody_waits_for_it() {
    let probe = Probe::new();
    let leaf = SupervisorSpec::new(Strategy::OneForOne).child(worker("a")).child(worker("b"));
    let leaf = ChildSpec::supervisor("leaf", leaf);
    let leaf_handle = leaf.as_supervisor().unwrap();
    let middle = SupervisorSpec::new(Strategy::OneForOne).child(leaf).child(worker("after"));
    let root = SupervisorSpec::new(Strategy::OneForOne)
        .child(ChildSpec::supervisor("middle", middle))
        .probe(probe.clone());
    let root = start(root).await;

    // While it is up: a child's restart hangs, and more ask for something than it takes in.
    probe.arm("b", Point::Init, Fault::Hang, 1);
    probe.arm("b", Point::Run, Fault::Panic, 1);
    settle().await;
    for _ in 0..150 {
        let leaf = leaf_handle.clone();
        drop(tokio::spawn(async move { leaf.which_children().await }));
    }
    settle().await;
    let begun = Instant::now();
    let seen = states(&root.supervisor().tree().await);
    assert_eq!(begun.elapsed(), Duration::ZERO);
    expect![[r#"
        daemon up
          middle up
            leaf up
              a up
              b starting
            after up"#]]
    .assert_eq(&seen);

    // And on its way up: everything above the child starts.
    sleep(secs(60)).await;
    probe.arm("b", Point::Init, Fault::Hang, 1);
    root.supervisor().terminate_child("middle").await.unwrap();
    let supervisor = root.supervisor().clone();
    drop(tokio::spawn(async move { supervisor.restart_child("middle").await }));
    settle().await;
    let begun = Instant::now();
    let seen = states(&root.supervisor().tree().await);
    assert_eq!(begun.elapsed(), Duration::ZERO);
    expect![[r#"
        daemon up
          middle starting
            leaf starting
              a up
              b starting
            after down"#]]
    .assert_eq(&seen);
}

#[tokio::test(start_paused = true)]
async fn a_tree_is_seen_at_once_while_it_stops() {
    let stage = Stage::new();
    let inner = SupervisorSpec::new(Strategy::OneForOne)
        .child(stage.worker("stubborn"))
        .child(stage.worker("last"));
    let root = SupervisorSpec::new(Strategy::OneForOne)
        .child(stage.worker("first"))
        .child(ChildSpec::supervisor("inner", inner));
    let root = start(root).await;
    stage.stubborn("stubborn");
    root.begin_shutdown();
    settle().await;
    let begun = Instant::now();
    let seen = states(&root.supervisor().tree().await);
    assert_eq!(begun.elapsed(), Duration::ZERO);
    expect![[r#"
        daemon up
          first up
          inner stopping
            stubborn stopping
            last down"#]]
    .assert_eq(&seen);
    root.wait().await;
}

/// Ids and states only, indented.
fn states(tree: &TreeNode) -> String {
    let state = &tree.live.as_ref().unwrap().state;
    let below = tree.children.iter().map(|child| states(child).replace('\n', "\n  "));
    below.fold(format!("{} {state}", tree.id), |text, child| format!("{text}\n  {child}"))
}

#[test]
fn a_supervisor_that_does_not_answer_is_marked() {
    let runtime =
        || tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let (stuck, ours) = (runtime().unwrap(), runtime().unwrap());
    let root = stuck.block_on(start(SupervisorSpec::new(Strategy::OneForOne).child(worker("a"))));
    // From here on nothing runs in there.
    let seen = ours.block_on(async {
        let begun = Instant::now();
        let tree = root.supervisor().within(secs(3)).tree().await;
        assert_eq!(begun.elapsed(), secs(3));
        states(&tree)
    });
    assert_eq!(seen, "daemon unreachable");
}

#[tokio::test(start_paused = true)]
async fn whatever_stands_in_a_name_or_an_error_the_forms_keep_their_form() {
    let stage = Stage::new();
    let child = stage.worker("say \"#1\"").restart(Restart::Transient);
    let root = start(SupervisorSpec::new(Strategy::OneForOne).child(child)).await;
    stage.crash("say \"#1\"").await;
    stage.exit("say \"#1\"", Exit::ShutdownWith("<b>\nline two\r\n\"three\"".into())).await;
    let tree = root.supervisor().tree().await;
    expect![[r##"
        daemon  one_for_one 3/5 s  up, mailbox 0/128, 0.060 s
        └── say "#1"  transient within 5000 ms  down, 1 restart, last exit shutdown: <b> line two  "three", mailbox 0/1, 0.030 s
    "##]].assert_eq(&tree.to_string());
    expect![[r#"
        graph TD
          n0[["daemon  one_for_one 3/5 s  up, mailbox 0/128, 0.060 s"]]
          n1["say #quot;#35;1#quot;  transient within 5000 ms  down, 1 restart, last exit shutdown: #lt;b#gt; line two  #quot;three#quot;, mailbox 0/1, 0.030 s"]
          n0 --> n1
    "#]].assert_eq(&tree.to_mermaid());
    let json: serde_json::Value = serde_json::from_str(&tree.to_json()).unwrap();
    assert_eq!(json["children"][0]["lastExit"], "shutdown: <b>\nline two\r\n\"three\"");
}

// ── lint ────────────────────────────────────────────────────────────────────────────────────────

/// Checks what the lint says of a tree whose root is called `r`.
fn check(spec: &SupervisorSpec, findings: &[(LintRule, &str)]) {
    spec.check().unwrap();
    let found: Vec<_> = spec.lint("r").into_iter().map(|it| (it.rule, it.path)).collect();
    let expected: Vec<_> =
        findings.iter().map(|(rule, path)| (*rule, (*path).to_owned())).collect();
    assert_eq!(found, expected);
}

fn spec(strategy: Strategy) -> SupervisorSpec {
    SupervisorSpec::new(strategy)
}

fn with(strategy: Strategy, child: ChildSpec) -> SupervisorSpec {
    spec(strategy).child(child)
}

fn supervisor() -> ChildSpec {
    ChildSpec::supervisor("s", with(Strategy::OneForOne, worker("w")))
}

#[test]
fn a_supervisor_that_is_not_permanent_is_found_unless_a_firewall_brings_it_back() {
    let rule = LintRule::NonPermanentSupervisor;
    for restart in [Restart::Transient, Restart::Temporary] {
        check(&with(Strategy::OneForOne, supervisor().restart(restart)), &[(rule, "r/s")]);
    }
    let behind_a_firewall = supervisor().restart(Restart::Transient).degrade(secs(1));
    check(&with(Strategy::OneForOne, behind_a_firewall), &[]);
    check(&with(Strategy::OneForOne, supervisor()), &[]);
    check(&with(Strategy::OneForOne, worker("w").restart(Restart::Transient)), &[]);
}

#[test]
fn a_supervisor_with_a_time_limit_is_found() {
    let rule = LintRule::ImpatientWithSupervisor;
    for stop in [Stop::Kill, Stop::Within(secs(60))] {
        check(&with(Strategy::OneForOne, supervisor().stop(stop)), &[(rule, "r/s")]);
        check(&with(Strategy::OneForOne, worker("w").stop(stop)), &[]);
    }
    check(&with(Strategy::OneForOne, supervisor()), &[]);
}

#[test]
fn a_worker_without_a_time_limit_is_found() {
    let child = worker("w").stop(Stop::Wait);
    check(&with(Strategy::OneForOne, child), &[(LintRule::EndlessStop, "r/w")]);
    check(&with(Strategy::OneForOne, worker("w")), &[]);
    check(&with(Strategy::OneForOne, supervisor().stop(Stop::Wait)), &[]);
}

#[test]
fn a_temporary_child_of_a_group_is_found() {
    let child = || worker("w").restart(Restart::Temporary);
    for strategy in [Strategy::OneForAll, Strategy::RestForOne] {
        check(&with(strategy, child()), &[(LintRule::TemporaryInGroup, "r/w")]);
        check(&with(strategy, child().restart(Restart::Transient)), &[]);
    }
    check(&with(Strategy::OneForOne, child()), &[]);
    check(&SupervisorSpec::dynamic(1).child(child()), &[]);
}

#[test]
fn a_crowd_under_one_budget_is_found() {
    let crowd =
        |n: usize| spec(Strategy::OneForOne).children((0..n).map(|n| worker(&n.to_string())));
    check(&crowd(20), &[]);
    check(&crowd(21), &[(LintRule::CrowdedBudget, "r")]);
    let two = with(Strategy::OneForOne, ChildSpec::supervisor("a", crowd(11)));
    check(&two.child(ChildSpec::supervisor("b", crowd(11))), &[]);
}

#[test]
fn a_budget_without_limit_is_found() {
    let rule = LintRule::EndlessRestarts;
    let budget = |n, period| spec(Strategy::OneForOne).intensity(n, period);
    check(&budget(100, secs(1)), &[]);
    check(&budget(101, secs(1)), &[(rule, "r")]);
    check(&budget(usize::MAX, Duration::MAX), &[]);
    check(&budget(usize::MAX, secs(1)), &[(rule, "r")]);
    check(&budget(1, Duration::ZERO), &[(rule, "r")]);
    check(&budget(0, Duration::ZERO), &[]);
}

#[test]
fn a_finding_says_where_and_why_in_the_order_of_the_tree() {
    let deep = with(Strategy::RestForOne, worker("w").restart(Restart::Temporary).stop(Stop::Wait));
    let deep = ChildSpec::supervisor("deep", deep.intensity(1000, secs(1)));
    let tree = spec(Strategy::OneForOne)
        .child(ChildSpec::supervisor("mid", with(Strategy::OneForOne, deep)))
        .child(supervisor().restart(Restart::Transient).stop(Stop::Kill));
    let text: Vec<_> = tree.lint("root").iter().map(ToString::to_string).collect();
    expect![[r#"
        root/mid/deep: so many restarts are allowed that it never melts down
        root/mid/deep/w: a worker without a time limit can hold a shutdown for ever
        root/mid/deep/w: temporary: a sibling's restart takes it away for good
        root/s: a supervisor with a time limit: its children may be killed while they stop
        root/s: not permanent, so it stays down when it melts down: put it behind a firewall?"#]]
    .assert_eq(&text.join("\n"));
    assert_eq!(everything().lint("daemon").len(), 3);
}
