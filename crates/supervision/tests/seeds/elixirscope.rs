//! The AST layer of `ElixirScope`: the tree that this workspace's own is made after.

use super::shape::{Play, below_root, check_rows, stop_time};
use super::table::{Cast, Kind, Node};
use astscope_supervision::LintRule::{ImpatientWithSupervisor, TemporaryInGroup};
use astscope_supervision::{
    ChildRef, ChildState, Dependencies, DependencyError, EventKind, Exit, Outcome, Strategy,
};
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// Ids are the seed's own short names where it has some. The intensities are those of its table of
/// classes: the root 3/10, services 5/10, pools 10/5.
const ELIXIRSCOPE: &str = "
ast                                o4o     3/10   -  -
  repository                       o4o     5/10   P  inf
    repository_core                worker  -      P  5000
    repository_enhanced            worker  -      P  5000
    memory_manager                 r4o     5/10   P  inf
      memory_monitor               worker  -      P  5000
      memory_cache_manager         worker  -      P  5000
      memory_cleaner               worker  -      X  5000
      memory_pressure_handler      worker  -      P  5000
  parsing                          o4o     5/10   P  inf
    parser                         worker  -      P  5000
    instrumentation_mapper         worker  -      P  5000
    batch_processor                worker  -      T  5000
  analysis                         o4o     5/10   P  inf
    pattern_matcher                o4o     5/10   P  inf
      pattern_matcher_core         worker  -      P  5000
      pattern_library              worker  -      P  5000
      cache                        worker  -      P  5000
      worker_pool                  dyn     10/5   P  inf
        *worker                    worker  -      X  1000
    performance_optimizer          o4o     5/10   P  inf
      batch_processor              worker  -      P  5000
      lazy_loader                  worker  -      P  5000
      optimization_scheduler       worker  -      P  5000
      statistics_collector         worker  -      P  5000
  querying                         o4o     5/10   P  inf
    query_executor                 worker  -      P  5000
    cache                          worker  -      P  5000
    worker_pool                    dyn     10/5   P  inf
      *worker                      worker  -      X  5000
  synchronization                  r4o     5/10   P  inf
    file_watcher                   worker  -      P  2000
    synchronizer                   worker  -      P  5000
    incremental_updater            worker  -      P  5000
  task_supervisor                  dyn     10/5   P  inf
    *task                          worker  -      X  5000
";

fn tree() -> Node {
    Node::parse(ELIXIRSCOPE, &[])
}

/// The seed stops its subsystems itself, each within a budget; as stop rules of the tree.
fn with_budgets() -> Node {
    tree()
        .with("synchronization", "5000")
        .with("querying", "3000")
        .with("analysis", "5000")
        .with("parsing", "3000")
        .with("repository", "10000")
}

shape!(elixirscope, tree(), &[(TemporaryInGroup, "ast/repository/memory_manager/memory_cleaner")]);
shape!(
    elixirscope_with_budgets,
    with_budgets(),
    &[
        (ImpatientWithSupervisor, "ast/repository"),
        (TemporaryInGroup, "ast/repository/memory_manager/memory_cleaner"),
        (ImpatientWithSupervisor, "ast/parsing"),
        (ImpatientWithSupervisor, "ast/analysis"),
        (ImpatientWithSupervisor, "ast/querying"),
        (ImpatientWithSupervisor, "ast/synchronization"),
    ]
);
// The seed's tree says permanent, its table of restart types transient.
shape!(elixirscope_with_a_transient_updater, tree().with("incremental_updater", "T"));

#[tokio::test(start_paused = true)]
async fn who_is_restarted_with_whom_is_what_the_seed_says() {
    let rows = "
        repository_core          -> repository_core
        repository_enhanced      -> repository_enhanced
        memory_monitor           -> memory_monitor memory_cache_manager memory_pressure_handler
        memory_cache_manager     -> memory_cache_manager memory_pressure_handler
        memory_cleaner           -> nobody
        memory_pressure_handler  -> memory_pressure_handler
        memory_manager           -> memory_manager
        repository               -> repository
        parser                   -> parser
        instrumentation_mapper   -> instrumentation_mapper
        parsing/batch_processor  -> parsing/batch_processor
        parsing                  -> parsing
        pattern_matcher_core     -> pattern_matcher_core
        pattern_library          -> pattern_library
        pattern_matcher/cache    -> pattern_matcher/cache
        pattern_matcher/worker_pool/worker_1 -> nobody
        pattern_matcher/worker_pool          -> pattern_matcher/worker_pool
        pattern_matcher          -> pattern_matcher
        performance_optimizer/batch_processor -> performance_optimizer/batch_processor
        performance_optimizer    -> performance_optimizer
        analysis                 -> analysis
        query_executor           -> query_executor
        querying/worker_pool/worker_2 -> nobody
        querying/worker_pool     -> querying/worker_pool
        querying                 -> querying
        file_watcher             -> file_watcher synchronizer incremental_updater
        synchronizer             -> synchronizer incremental_updater
        incremental_updater      -> incremental_updater
        synchronization          -> synchronization
        task_1                   -> nobody
        task_supervisor          -> task_supervisor
    ";
    check_rows(&tree(), rows).await;
}

#[tokio::test(start_paused = true)]
async fn it_has_33_processes_before_there_is_work() {
    assert_eq!(Play::start(&tree(), 0).await.n_processes().await, 33);
}

#[test]
fn its_strategies_and_budgets_are_those_of_the_seeds_tables() {
    let tree = tree();
    let is_chain = |path: &str| ["repository/memory_manager", "synchronization"].contains(&path);
    for (path, node) in tree.walk() {
        let expected = match node.kind {
            Kind::Worker => continue,
            Kind::Dynamic => (10, 5),
            _ if path.is_empty() => (3, 10),
            _ => (5, 10),
        };
        assert_eq!((node.intensity, node.period.as_secs()), expected, "{path}");
        if let Kind::Static(strategy) = node.kind {
            assert_eq!(strategy == Strategy::RestForOne, is_chain(&path), "{path}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_cleaner_is_lost_when_the_monitor_is_restarted() {
    let mut play = Play::start(&tree(), 0).await;
    let path = "repository/memory_manager";
    let cleaner = format!("{path}/memory_cleaner");
    play.crash(&format!("{path}/memory_monitor")).await;
    let ids = children(&play, path).await;
    assert_eq!(ids, ["memory_monitor", "memory_cache_manager", "memory_pressure_handler"]);

    // Whoever needs it starts it again. It is then the youngest, and none of its own failures
    // restarts anybody.
    let spec = play.tree.at(&cleaner).child(path, &play.cast);
    play.supervisor(path).await.start_child(spec.clone()).await.unwrap().unwrap();
    assert_eq!(children(&play, path).await.last().unwrap(), "memory_cleaner");
    assert_eq!(play.crash(&cleaner).await, [""; 0]);
    play.supervisor(path).await.start_child(spec).await.unwrap().unwrap();
    let handler = format!("{path}/memory_pressure_handler");
    assert_eq!(play.crash(&handler).await, [handler.as_str()]);
    assert_eq!(children(&play, path).await.len(), 3, "lost again, as a bystander");

    // A new incarnation of its supervisor has it as it is written.
    play.melt(path).await;
    let mut ids = children(&play, path).await;
    assert_eq!(ids.remove(2), "memory_cleaner");
    play.tree = tree();
    play.check_visible(path).await;
}

/// The ids of a supervisor's children, oldest first.
async fn children(play: &Play, path: &str) -> Vec<String> {
    let children = play.supervisor(path).await.which_children().await.unwrap();
    children.iter().rev().map(|child| child.id.to_string()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_batch_processor_that_is_done_stays_down_until_it_is_asked_for() {
    let play = Play::start(&tree(), 0).await;
    let path = "parsing/batch_processor";
    for exit in [Exit::Normal, Exit::Shutdown, Exit::ShutdownWith("no more files".into())] {
        assert_eq!(play.exit(path, exit).await, [""; 0]);
        let child = play.root.supervisor().child_at(path).await.unwrap();
        assert_eq!(child.status().state(), ChildState::Down);
        assert!(!child.status().is_gone(), "its spec stays");
        let parsing = play.supervisor("parsing").await;
        assert_eq!(parsing.restart_child("batch_processor").await, Ok(true));
    }
    assert_eq!(play.crash(path).await, [path]);
    // The other one of that name is permanent.
    let other = "analysis/performance_optimizer/batch_processor";
    assert_eq!(play.exit(other, Exit::Normal).await, [other]);
}

/// Who needs whom, by the seed.
const NEEDS: &[(&str, &[&str])] = &[
    ("repository_core", &[]),
    ("repository_enhanced", &["repository_core"]),
    ("memory_monitor", &[]),
    ("memory_cache_manager", &["memory_monitor"]),
    ("memory_cleaner", &["memory_cache_manager"]),
    ("memory_pressure_handler", &["memory_cleaner"]),
    ("file_watcher", &[]),
    ("synchronizer", &["file_watcher", "repository_core"]),
    ("incremental_updater", &["synchronizer", "repository_enhanced"]),
    ("pattern_library", &[]),
    ("pattern_matcher_core", &["repository_core", "pattern_library"]),
    ("query_executor", &["repository_core"]),
];

#[tokio::test(start_paused = true)]
async fn everybody_has_whom_he_needs_except_the_pressure_handler_its_cleaner() {
    let play = Play::start(&tree(), 0).await;
    let mut services: Vec<(ChildRef, &[&str])> = Vec::new();
    for (id, needs) in NEEDS {
        let child = play.root.supervisor().child_at(&play.tree.find(id)).await.unwrap();
        services.push((child, needs));
    }
    let dependencies = Dependencies::new(services.clone()).unwrap();
    assert!(NEEDS.iter().all(|(id, _)| dependencies.check(id)));

    play.exit(&play.tree.find("memory_cleaner"), Exit::Normal).await;
    let lacking: Vec<_> = NEEDS.iter().filter(|(id, _)| !dependencies.check(id)).collect();
    assert_eq!(lacking, [&("memory_pressure_handler", &["memory_cleaner"][..])]);
    let patience = Duration::from_secs(5);
    let asked = Instant::now();
    let refusal = dependencies.await_for("memory_pressure_handler", patience).await.unwrap_err();
    assert_eq!((&*refusal.id, refusal.state), ("memory_cleaner", None), "and never will be");
    assert!(asked.elapsed() < patience, "so nobody waits for it");

    // Who can be started when he is needed needn't be up: the edge goes to what starts him.
    let handler = services.iter_mut().find(|(child, _)| &**child.id() == "memory_pressure_handler");
    handler.unwrap().1 = &["memory_cache_manager"];
    let dependencies = Dependencies::new(services).unwrap();
    assert!(dependencies.check("memory_pressure_handler"));
}

#[tokio::test(start_paused = true)]
async fn nobody_can_need_a_cache_when_there_are_two() {
    let play = Play::start(&tree(), 0).await;
    let of = async |path| play.root.supervisor().child_at(path).await.unwrap();
    let patterns = of("analysis/pattern_matcher/cache").await;
    let queries = of("querying/cache").await;
    let executor = of("querying/query_executor").await;
    let services: [(_, &[&str]); 3] = [(patterns, &[]), (queries, &[]), (executor, &["cache"])];
    let refusal = Dependencies::new(services).unwrap_err();
    assert_eq!(refusal, DependencyError::Twice("cache".into()));
}

#[tokio::test(start_paused = true)]
async fn hung_subsystems_are_killed_at_their_budgets_and_the_whole_takes_26_seconds() {
    let tree = with_budgets();
    let play = Play::of(&tree, Cast::scripted()).await;
    tree.walk().iter().for_each(|(path, _)| play.stage.stubborn(path));
    play.recorder.take();
    let asked = Instant::now();
    let outcome = play.root.shutdown().await;
    assert_eq!(outcome, Outcome { exit: Exit::Shutdown, unkillable: 0 });
    let mut steps = Vec::new();
    let mut since = asked;
    for event in play.recorder.events() {
        assert!(!matches!(event.kind, EventKind::Started { .. }), "nobody is started meanwhile");
        let path = below_root(&event);
        if matches!(event.kind, EventKind::Stopped { .. }) && !path.contains('/') {
            steps.push((path, event.at.duration_since(since).as_secs()));
            since = event.at;
        }
    }
    let steps: Vec<_> = steps.iter().map(|(path, seconds)| (path.as_str(), *seconds)).collect();
    let budgets = [
        ("task_supervisor", 0),
        ("synchronization", 5),
        ("querying", 3),
        ("analysis", 5),
        ("parsing", 3),
        ("repository", 10),
    ];
    assert_eq!(steps, budgets);
    assert_eq!(stop_time(&tree), Duration::from_secs(26));
    assert_eq!(asked.elapsed().as_secs(), 26);
}

#[tokio::test(start_paused = true)]
async fn without_budgets_the_whole_is_killed_after_30_seconds() {
    let tree = tree();
    let play = Play::of(&tree, Cast::scripted()).await;
    tree.walk().iter().for_each(|(path, _)| play.stage.stubborn(path));
    assert!(stop_time(&tree) > Duration::from_mins(1), "each child of its own would take so long");
    let asked = Instant::now();
    let cap = Duration::from_secs(30);
    assert!(timeout(cap, play.root.shutdown()).await.is_err());
    let outcome = play.root.kill().await;
    assert_eq!(outcome, Outcome { exit: Exit::Killed, unkillable: 0 });
    assert_eq!(asked.elapsed().as_secs(), cap.as_secs());
}
