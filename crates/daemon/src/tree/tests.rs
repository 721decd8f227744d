//! The acceptance checks of the process model, on the daemon's own tree with a paused clock. Each is
//! named after its number in the specification; `docs/semantics/recovery.md` says where the others
//! are.

use super::*;
use crate::daemon::{Parts, Settings};
use crate::foundation::config::{self, Config, IdleExit, SettingsSource};
use crate::foundation::event_bus::DaemonEvent;
use crate::handlers::{operations, status};
use crate::memory::MemorySource;
use crate::parsers::Parsers;
use crate::readiness::NEEDS_WITHIN;
use crate::{cpu, gateway::Gateway, lifecycle};
use astscope_fixtures::Fixture;
use astscope_protocol::messages::{ErrorCode, HealthStatus, HealthVerdict, WORKSPACE_SERVICES};
use astscope_repository::{Change, NewFile};
use astscope_supervision::{
    EventKind, Exit, Fault, Outcome, Point, PoolError, Probe, Recorder, Root, TreeNode,
};
use astscope_syntax::{ContentId, ParsedFile};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::path::Path;
use std::task::Poll;
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::time::{Instant, advance, sleep};

/// A daemon without clients, whose services can be hurt.
struct Play {
    daemon: Arc<Daemon>,
    root: Root,
    recorder: Arc<Recorder>,
    probe: Probe,
    fixture: Fixture,
    _dir: TempDir,
}

impl Play {
    async fn start() -> Self {
        let dir = TempDir::new().unwrap();
        let socket = dir.path().join("socket");
        let gateway = Gateway::new(UnixListener::bind(&socket).unwrap());
        let version = "1.2.3".to_owned();
        let memory = MemorySource::of_kernel();
        let settings = Settings { socket, version, allow_debug: true, memory };
        let never = Some(IdleExit::Never);
        let source = SettingsSource { idle_exit: never, ..config::tests::source(None) };
        let config = Config::new(source).unwrap();
        let (pool, pools) = (cpu::pool("test").unwrap(), Pools::new().unwrap());
        let parsers = Parsers::new(None).unwrap();
        let parts = Parts { settings, config, gateway, pool, parsers, pools };
        let daemon = Arc::new(Daemon::new(parts));
        let (probe, recorder) = (Probe::new(), Recorder::new());
        let told: Vec<Arc<dyn Observer>> =
            vec![Arc::clone(&recorder) as _, Arc::new(daemon.events.clone())];
        // Who hangs here does so for others to be looked at; that hangs are found is seen elsewhere.
        let tree = spec(&daemon).stall_after(secs(3600)).probe(probe.clone());
        let tree = tree.observer(Arc::new(told));
        let root = tree.start("daemon").await.unwrap();
        daemon.root.set(root.supervisor().clone()).unwrap();
        let fixture = Fixture::parse("//- /a.rs\nfn f() {}\n//- /b.rs\nfn g() {}\n");
        Self { daemon, root, recorder, probe, fixture, _dir: dir }
    }

    /// With a workspace that is open and indexed.
    async fn open() -> (Self, Arc<Workspace>) {
        let play = Self::start().await;
        let root = play.fixture.root();
        let workspace = play.daemon.workspaces.open(&play.daemon, root).await.unwrap();
        play.until(|| !workspace.sync.is_indexing()).await;
        let needs = workspace.dependencies().unwrap();
        needs.await_all(secs(60)).await.unwrap();
        settle().await;
        (play, workspace)
    }

    async fn until(&self, what: impl Fn() -> bool) {
        let started = Instant::now();
        while !what() {
            assert!(started.elapsed() < secs(600), "it never comes to pass");
            settle().await;
        }
    }

    /// All nodes, by their paths from below the root.
    async fn nodes(&self) -> BTreeMap<String, TreeNode> {
        fn collect(above: &str, node: &TreeNode, all: &mut BTreeMap<String, TreeNode>) {
            for child in &node.children {
                let path = format!("{above}{}", child.id);
                collect(&format!("{path}/"), child, all);
                all.insert(path, child.clone());
            }
        }
        let mut all = BTreeMap::new();
        collect("", &self.root.supervisor().tree().await, &mut all);
        all
    }

    async fn kill(&self, path: &str) {
        self.root.supervisor().child_at(path).await.expect(path).kill();
        settle().await;
    }

    /// Kills a node, and says who got a new incarnation.
    async fn renewed_by(&self, path: &str) -> Vec<String> {
        let before = self.nodes().await;
        self.kill(path).await;
        let now = self.nodes().await;
        let incarnation = |node: &TreeNode| node.live.as_ref().unwrap().incarnation;
        let is_new = |(path, node): &(&String, &TreeNode)| {
            now.get(*path).is_some_and(|now| incarnation(now) > incarnation(node))
        };
        before.iter().filter(is_new).map(|(path, _)| path.clone()).collect()
    }

    async fn incarnation(&self, path: &str) -> u64 {
        self.root.supervisor().child_at(path).await.map_or(0, |it| it.status().incarnation())
    }
}

/// Lets everything happen that needs no time: a paused clock goes on when nobody has anything to do.
async fn settle() {
    sleep(Duration::from_millis(1)).await;
}

/// The seed's nodes, and the scrubber behind them, with their strategies, intensities and restart types, in its start order, which
/// are indented by their depth.
const SEED: &str = "
ast                          one_for_one   3/10
  repository                 one_for_one   5/10  permanent
    repository_core                              permanent
    repository_enhanced                          permanent
    memory_manager           rest_for_one  5/10  permanent
      memory_monitor                             permanent
      memory_cache_manager                       permanent
      memory_cleaner                             temporary
      memory_pressure_handler                    permanent
  parsing                    one_for_one   5/10  permanent
    parser                                       permanent
    instrumentation_mapper                       permanent
    batch_processor                              transient
  analysis                   one_for_one   5/10  permanent
    pattern_matcher          one_for_one   5/10  permanent
      pattern_matcher_core                       permanent
      pattern_library                            permanent
      cache                                      permanent
      worker_pool            dynamic       10/5  permanent
    performance_optimizer    one_for_one   5/10  permanent
      batch_processor                            permanent
      lazy_loader                                permanent
      optimization_scheduler                     permanent
      statistics_collector                       permanent
  querying                   one_for_one   5/10  permanent
    query_executor                               permanent
    cache                                        permanent
    worker_pool              dynamic       10/5  permanent
  synchronization            rest_for_one  5/10  permanent
    file_watcher                                 permanent
    synchronizer                                 permanent
    incremental_updater                          permanent
    scrubber                                     permanent
  task_supervisor            dynamic       10/5  permanent
";

fn shown(node: &TreeNode, depth: usize, lines: &mut Vec<String>) {
    let mut words = vec![format!("{}{}", "  ".repeat(depth), node.id)];
    if let Some(it) = &node.supervisor {
        words.extend([it.strategy.clone(), format!("{}/{}", it.intensity, it.period_ms / 1000)]);
    }
    words.extend(node.child.as_ref().map(|it| it.restart.clone()));
    lines.push(words.join(" "));
    node.children.iter().for_each(|child| shown(child, depth + 1, lines));
}

#[tokio::test(start_paused = true)]
async fn check_01_the_tree_has_the_seeds_nodes_strategies_and_restart_types_in_its_order() {
    let play = Play::start().await;
    let written = Workspace::new(&play.daemon, 1, play.fixture.root()).unwrap();
    let above = SupervisorSpec::dynamic(1).child(workspace(&written)).outline("workspaces");
    let mut ast = above.children.into_iter().next().unwrap();
    (ast.id, ast.child) = ("ast".to_owned(), None);
    let mut lines = Vec::new();
    shown(&ast, 0, &mut lines);
    let words = |line: &str| {
        let depth = line.len() - line.trim_start().len();
        format!("{}{}", " ".repeat(depth), line.split_whitespace().collect::<Vec<_>>().join(" "))
    };
    let seed: Vec<_> = SEED.lines().skip(1).map(words).collect();
    assert_eq!(lines, seed);
}

#[tokio::test(start_paused = true)]
async fn check_02_a_core_that_is_killed_is_restarted_alone_and_nothing_is_lost() {
    let (play, workspace) = Play::open().await;
    let before = contents(&workspace);
    assert_eq!(before.len(), 2);
    let core = format!("workspaces/{}/repository/repository_core", workspace.id);
    assert_eq!(play.renewed_by(&core).await, [core.as_str()]);
    assert_eq!(contents(&workspace), before);
}

#[tokio::test(start_paused = true)]
async fn check_03_and_04_a_chain_is_restarted_from_the_one_that_died() {
    let (play, workspace) = Play::open().await;
    let memory = ["memory_monitor", "memory_cache_manager", "memory_pressure_handler"];
    let chain = ["file_watcher", "synchronizer", "incremental_updater", "scrubber"];
    let chains = [("repository/memory_manager", &memory[..]), ("synchronization", &chain)];
    for (above, ids) in chains {
        for (at, id) in ids.iter().enumerate() {
            let path = |id: &&str| format!("workspaces/{}/{above}/{id}", workspace.id);
            let mut expected: Vec<_> = ids[at..].iter().map(path).collect();
            expected.sort();
            assert_eq!(play.renewed_by(&path(id)).await, expected);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn check_08_a_supervisor_bears_as_many_restarts_as_it_says_and_not_one_more() {
    let (play, _workspace) = Play::open().await;
    let mut supervisors: Vec<_> =
        play.nodes().await.into_iter().filter(|(_, node)| node.supervisor.is_some()).collect();
    // From below: who melts down takes along what is below it.
    supervisors.sort_by_key(|(path, _)| std::cmp::Reverse(path.matches('/').count()));
    let mut checked = Vec::new();
    for (path, node) in supervisors {
        let policy = node.supervisor.as_ref().unwrap();
        let supervisor = play.root.supervisor().supervisor_at(&path).await.unwrap();
        let child = if policy.strategy == "dynamic" {
            let witness = ChildSpec::task("witness", |ctx| async move {
                ctx.stopping().await;
                Ok(())
            });
            // A pool of seats takes no children but its own.
            match supervisor.start_child(witness).await {
                Ok(_) => "witness",
                Err(_) => continue,
            }
        } else {
            let is_permanent =
                |node: &&TreeNode| node.child.as_ref().unwrap().restart == "permanent";
            let Some(last) = node.children.iter().rfind(is_permanent) else { continue };
            last.id.as_str()
        };
        let victim = format!("{path}/{child}");
        let before = play.incarnation(&path).await;
        for n in 1..=policy.intensity {
            play.kill(&victim).await;
            assert_eq!(play.incarnation(&path).await, before, "{path} at restart {n}");
        }
        play.kill(&victim).await;
        let period = Duration::from_millis(policy.period_ms);
        // Who stands behind a firewall comes back after its cooldown; and the restart of this one
        // must have been forgotten by those above before the next.
        advance(period.max(COOLDOWN) + secs(120)).await;
        settle().await;
        assert!(play.incarnation(&path).await > before, "{path} survived one too many");
        checked.push((policy.intensity, policy.period_ms));
    }
    for class in [(3, 10_000), (5, 10_000), (10, 5_000)] {
        assert!(checked.contains(&class), "{class:?} in {checked:?}");
    }

    for _ in 0..3 {
        play.kill("one_shot").await;
        assert_eq!(play.root.supervisor().child().status().incarnation(), 1);
    }
    play.kill("one_shot").await;
    assert_eq!(play.root.wait().await.exit, Exit::Meltdown);
}

#[tokio::test(start_paused = true)]
async fn check_09_without_the_foundation_nothing_is_started() {
    let play = Play::start().await;
    let open = async || play.daemon.workspaces.open(&play.daemon, play.fixture.root()).await;
    play.probe.arm("telemetry", Point::Init, Fault::Slow(secs(20)), 1);
    play.kill("foundation/telemetry").await;
    play.recorder.take();
    let asked = Instant::now();
    let error = open().await.unwrap_err();
    assert_eq!(error.error_code(), Some(ErrorCode::FoundationNotReady));
    assert_eq!(error.data.unwrap().causes, ["`foundation/telemetry` is not ready"]);
    assert_eq!(asked.elapsed(), NEEDS_WITHIN);
    assert_eq!(play.daemon.workspaces.all().len(), 0);
    let events = play.recorder.take();
    assert!(!events.iter().any(|it| it.path.as_str().starts_with("daemon/workspaces")));
    // One that is back in time is waited for.
    advance(secs(12)).await;
    assert!(open().await.is_ok());
    assert_eq!(play.daemon.workspaces.all().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn check_09_a_service_that_is_lacking_is_named_and_the_next_open_asks_again() {
    let play = Play::start().await;
    let open = async || play.daemon.workspaces.open_ready(&play.daemon, play.fixture.root()).await;
    play.probe.arm("pattern_library", Point::Run, Fault::Hang, 1);
    let asked = Instant::now();
    let error = open().await.unwrap_err();
    assert_eq!(error.error_code(), Some(ErrorCode::StartupFailed));
    assert_eq!(error.data.unwrap().causes, ["`pattern_library` is not ready"]);
    assert!(asked.elapsed() >= NEEDS_WITHIN);
    let workspace = play.daemon.workspaces.all().remove(0);
    let matcher = format!("workspaces/{}/analysis/pattern_matcher", workspace.id);
    play.kill(&format!("{matcher}/pattern_library")).await;
    assert!(open().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn check_10_a_shutdown_takes_the_seeds_order_and_budgets_and_restarts_nobody() {
    let (play, workspace) = Play::open().await;
    let own = format!("workspaces/{}", workspace.id);
    for (path, node) in play.nodes().await {
        if path.starts_with(&own) && node.supervisor.is_none() {
            play.probe.arm(format!("daemon/{path}"), Point::Stop, Fault::Hang, 1);
        }
    }
    play.recorder.take();
    let asked = Instant::now();
    lifecycle::stop(&play.root).await;
    assert!(asked.elapsed() <= secs(30), "{:?}", asked.elapsed());
    let outcome = play.root.wait().await;
    assert_eq!(outcome, Outcome { exit: Exit::Shutdown, unkillable: 0 });
    let mut steps = Vec::new();
    let mut since = asked;
    for event in play.recorder.events() {
        assert!(!matches!(event.kind, EventKind::Started { .. }), "{event:?}");
        let Some(path) = event.path.as_str().strip_prefix(&format!("daemon/{own}/")) else {
            continue;
        };
        if matches!(event.kind, EventKind::Stopped { .. }) && !path.contains('/') {
            steps.push((path.to_owned(), event.at.duration_since(since).as_secs()));
            since = event.at;
        }
    }
    let steps: Vec<_> = steps.iter().map(|(id, seconds)| (id.as_str(), *seconds)).collect();
    let budgets = [
        ("task_supervisor", 0),
        ("synchronization", 5),
        ("querying", 3),
        ("analysis", 5),
        ("parsing", 3),
        ("repository", 10),
    ];
    assert_eq!(steps, budgets);
}

#[tokio::test(start_paused = true)]
async fn check_11_health_names_the_seeds_four_services_and_any_that_is_down_degrades_it() {
    let (play, workspace) = Play::open().await;
    let look = async || operations::health(&play.daemon).await.workspaces.remove(0);
    for (at, path) in [
        "repository/repository_core",
        "repository/repository_enhanced",
        "analysis/pattern_matcher/pattern_matcher_core",
        "synchronization/file_watcher",
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(look().await.status, HealthStatus::Healthy);
        let path = format!("workspaces/{}/{path}", workspace.id);
        play.probe.arm(format!("daemon/{path}"), Point::Init, Fault::Slow(secs(2)), 1);
        play.kill(&path).await;
        let health = look().await;
        assert_eq!(health.status, HealthStatus::Degraded, "{path}");
        let names: Vec<_> = health.services.iter().map(|it| &*it.name).collect();
        assert_eq!(names, WORKSPACE_SERVICES);
        let down = &health.services[at];
        assert_eq!((down.alive, down.verdict), (false, HealthVerdict::Restarting), "{path}");
        let waiting: Vec<_> =
            health.services.iter().flat_map(|service| &service.waits_for).collect();
        assert_eq!(waiting, vec!["repository_core"; if at == 0 { 2 } else { 0 }]);
        sleep(secs(3)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn check_12_a_missing_dependency_is_told_and_waited_for_until_the_deadline() {
    let (play, workspace) = Play::open().await;
    let needs = workspace.dependencies().unwrap();
    for service in ["query_executor", "memory_pressure_handler", "nobody"] {
        assert!(needs.check(service), "{service}");
    }
    let core = format!("workspaces/{}/repository/repository_core", workspace.id);
    play.probe.arm("repository_core", Point::Init, Fault::Slow(secs(20)), 1);
    play.kill(&core).await;
    for service in ["repository_enhanced", "synchronizer", "pattern_matcher_core", "query_executor"]
    {
        assert!(!needs.check(service), "{service}");
    }
    let asked = Instant::now();
    let lacking = needs.await_for("query_executor", NEEDS_WITHIN).await.unwrap_err();
    assert_eq!(&*lacking.id, "repository_core");
    let waited = asked.elapsed().as_millis();
    assert!((5_000..=5_100).contains(&waited), "{waited} ms");
    // Who needs something else waits for nothing, and who comes back is waited for.
    needs.await_for("memory_pressure_handler", Duration::ZERO).await.unwrap();
    needs.await_for("query_executor", secs(30)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn check_14_a_pool_admits_as_many_as_the_seed_says_and_a_full_queue_is_an_error() {
    let play = Play::start().await;
    let pools = &play.daemon.pools;
    for (seats, n) in
        [(&pools.pattern_analysis, 12), (&pools.query_execution, 9), (&pools.file_watching, 3)]
    {
        let mut taken = Vec::new();
        for _ in 0..n {
            taken.push(seats.checkout(secs(1)).await.unwrap());
        }
        let late = seats.checkout(secs(1)).await.map(drop);
        assert_eq!(late, Err(PoolError::Timeout), "{n} and no more");
        let mut waiting: Vec<_> = (0..1024).map(|_| Box::pin(seats.checkout(secs(60)))).collect();
        poll_fn(|cx| {
            for waiting in &mut waiting {
                assert!(waiting.as_mut().poll(cx).is_pending());
            }
            Poll::Ready(())
        })
        .await;
        let refused = seats.checkout(secs(60)).await.map(drop);
        assert_eq!(refused, Err(PoolError::Full));
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_becomes_of_observability_the_daemon_goes_on_and_it_comes_back() {
    let (play, workspace) = Play::open().await;
    let told = |what: &str| play.daemon.log.last().iter().any(|it| it.event.name() == what);
    play.until(|| told("opened") && told("committed")).await;
    let incarnations = async || {
        let all = play.nodes().await.into_iter();
        let others = all.filter(|(path, _)| !path.starts_with("observability"));
        others.map(|(path, it)| (path, it.live.unwrap().incarnation)).collect::<Vec<_>>()
    };
    let before = incarnations().await;
    for _ in 0..4 {
        play.kill("observability/event_log").await;
    }
    let node = |nodes: &BTreeMap<String, TreeNode>| {
        nodes["observability"].live.as_ref().unwrap().state.clone()
    };
    assert_eq!(node(&play.nodes().await), "degraded");
    assert_eq!(incarnations().await, before);
    let asked = workspace.repository.verify(secs(5), false).await;
    assert_eq!(asked.unwrap().n_faults, 0, "and the others do their work");
    sleep(secs(11)).await;
    assert_eq!(node(&play.nodes().await), "up");
    assert!(told("opened"), "what was known is known");
    // What happened meanwhile was kept for it.
    play.until(|| told("restarted") && told("failed")).await;
}

#[tokio::test(start_paused = true)]
async fn the_watchdog_tells_once_who_does_not_do_its_work_and_when_it_does_again() {
    let (play, workspace) = Play::open().await;
    let path = format!("workspaces/{}/querying/query_executor", workspace.id);
    play.probe.arm(format!("daemon/{path}"), Point::Init, Fault::Slow(secs(30)), 1);
    play.kill(&path).await;
    sleep(secs(60)).await;
    let about = |event: &DaemonEvent| event.about() == path;
    let told: Vec<_> =
        play.daemon.log.last().into_iter().map(|it| it.event).filter(about).collect();
    let [DaemonEvent::Degraded { state, .. }, DaemonEvent::Recovered { .. }] = &told[..] else {
        panic!("{told:?}");
    };
    assert!(["starting", "restarting"].contains(&state.as_str()), "{state}");
}

/// The content of each file.
fn contents(workspace: &Workspace) -> BTreeMap<Arc<Path>, ContentId> {
    let snapshot = workspace.repository.snapshot();
    snapshot.records().map(|record| (Arc::clone(&record.path), record.content)).collect()
}

#[tokio::test(start_paused = true)]
async fn check_15_what_is_corrupted_is_read_again_and_the_same_as_before() {
    let (play, workspace) = Play::open().await;
    let before = contents(&workspace);
    let snapshot = workspace.repository.snapshot();
    let record = snapshot.records().next().unwrap();
    let lie = NewFile {
        path: Arc::clone(&record.path),
        stamp: record.stamp,
        content: ContentId::of(b"something else"),
        file: Arc::clone(&record.file),
    };
    let batch = [Change::Put(lie)].into_iter().collect();
    workspace.repository.commit(secs(5), batch).await.unwrap();
    assert_ne!(contents(&workspace), before);
    let found = workspace.repository.verify(secs(60), true).await.unwrap();
    assert_eq!(found.n_faults, 1);
    play.until(|| contents(&workspace) == before).await;
}

#[tokio::test(start_paused = true)]
async fn a_tree_that_was_damaged_is_repaired_counted_and_told() {
    let (play, workspace) = Play::open().await;
    let record = Arc::clone(workspace.repository.snapshot().records().next().unwrap());
    let limits = astscope_parsing::Limits::DAEMON;
    let other = astscope_parsing::parse("!".into(), record.language, &limits, &mut || false);
    let damaged = ParsedFile { text: Arc::clone(&record.file.text), ..other.unwrap() };
    let (path, stamp, content) = (Arc::clone(&record.path), record.stamp, record.content);
    let put = Change::Put(NewFile { path, stamp, content, file: Arc::new(damaged) });
    workspace.repository.commit(secs(5), [put].into_iter().collect()).await.unwrap();
    play.until(|| play.daemon.log.last().iter().any(|it| it.event.name() == "drift")).await;
    let now =
        Arc::clone(workspace.repository.snapshot().record(&record.path, record.language).unwrap());
    assert_eq!(now.file, record.file);
    let scrub = status::workspace(&play.daemon, &workspace, false).scrub;
    assert_eq!((scrub.drift.tree, scrub.drift.total()), (1, 1));
    let last = scrub.last_drift.unwrap();
    assert_eq!((Path::new(&last.path), last.cause.as_str()), (&*record.path, "tree"));
    let told = play.daemon.log.last().into_iter().map(|it| it.event);
    let told: Vec<_> = told.filter(|event| event.name() == "drift").collect();
    let [drift] = &told[..] else { panic!("{told:?}") };
    assert_eq!(Path::new(&drift.about()), workspace.root);
    assert_eq!(drift.to_string(), format!("tree of {}", record.path.display()));
}
