//! The tree that the daemon lives in: what it shows, and what becomes of it when a part is killed.

use crate::support::{Daemon, PATIENCE, call, open, pattern, peer, refused, run, status, text};
use astscope_daemon::IdleExit;
use astscope_fixtures::Fixture;
use astscope_protocol::Client;
use astscope_protocol::messages::{
    BreakerState, ErrorCode, EventsParams, EventsResult, FaultKind, FaultParams, HealthParams,
    HealthResult, HealthStatus, KillParams, PointsParams, PointsResult, TreeFormat, TreeParams,
    TreeResult, method,
};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Instant;

/// A node of the JSON form.
#[derive(Debug, Deserialize)]
struct Node {
    id: String,
    strategy: Option<String>,
    restart: Option<String>,
    state: String,
    incarnation: u64,
    #[serde(default)]
    children: Vec<Node>,
}

impl Node {
    /// Every node below this one that is restarted after a kill, by path. Clients and requests come
    /// and go.
    fn walk(&self) -> BTreeMap<String, &Node> {
        let mut all = BTreeMap::new();
        self.collect("", &mut all);
        all
    }

    fn collect<'n>(&'n self, above: &str, all: &mut BTreeMap<String, &'n Node>) {
        for child in &self.children {
            if !matches!(child.restart.as_deref(), Some("permanent" | "transient")) {
                continue;
            }
            let path = format!("{above}{}", child.id);
            child.collect(&format!("{path}/"), all);
            all.insert(path, child);
        }
    }

    /// Whether all that was up is up again.
    fn is_as_well_as(&self, before: &Node) -> bool {
        let now = self.walk();
        before.walk().iter().all(|(path, was)| {
            was.state != "up" || now.get(path).is_some_and(|now| now.state == "up")
        })
    }
}

fn tree(client: &mut Client) -> Node {
    let shown: TreeResult = call(client, method::TREE, &TreeParams { format: TreeFormat::Json });
    serde_json::from_str(shown.tree.expect("an object").get()).unwrap()
}

/// The tree, unless the gateway is being restarted, which turns clients away.
fn look(daemon: &Daemon) -> Option<Node> {
    let mut client = Client::connect(&daemon.socket(), peer(), PATIENCE).ok()?.0;
    let params = TreeParams { format: TreeFormat::Json };
    let shown: TreeResult = client.call(method::TREE, &params).ok()?;
    serde_json::from_str(shown.tree?.get()).ok()
}

fn debuggable() -> Daemon {
    Daemon::start_with(|config| {
        config.allow_debug = true;
        // So that whoever waits for that runs as well.
        config.settings.idle_exit = Some(IdleExit::After(PATIENCE));
    })
}

#[test]
fn the_tree_can_be_seen_in_three_forms() {
    let daemon = Daemon::start();
    let mut client = daemon.client();
    let tree_of = Fixture::parse("//- /a.rs\nfn main() { f(1) }\n");
    open(&mut client, &tree_of.root());
    let text = |client: &mut Client, format| -> String {
        let shown: TreeResult = call(client, method::TREE, &TreeParams { format });
        shown.text.expect("a text")
    };
    let plain = text(&mut client, TreeFormat::Text);
    for line in [
        "daemon  one_for_one 3/10 s  up",
        "├── foundation  one_for_one 5/10 s  permanent wait  up",
        "│   ├── telemetry  permanent within 5000 ms  up",
        "mailbox 0/1024",
        "└── gateway  rest_for_one 10/60 s  permanent wait  up",
        "client_1",
    ] {
        assert!(plain.contains(line), "{line}\n{plain}");
    }
    assert!(text(&mut client, TreeFormat::Mermaid).starts_with("graph TD\n"));
    let root = tree(&mut client);
    assert!(root.walk().values().filter(|node| node.state == "up").count() > 15);
    let order: Vec<_> = root.children.iter().map(|child| &*child.id).collect();
    assert_eq!(order, ["foundation", "workspaces", "one_shot", "observability", "gateway"]);
    let ids = |node: &Node| node.children.iter().map(|it| it.id.clone()).collect::<Vec<_>>();
    let first = ids(&root.children[0]).into_iter().take(5).collect::<Vec<_>>();
    assert_eq!(first, ["signals", "config", "event_bus", "telemetry", "idle_exit"]);
    let workspace = &root.children[1].children[0];
    let subtrees =
        ["repository", "parsing", "analysis", "querying", "synchronization", "task_supervisor"];
    assert_eq!(ids(workspace), subtrees);
    let parsing = &workspace.children[1];
    assert_eq!(ids(parsing), ["parser", "instrumentation_mapper", "batch_processor"]);
    let restarts = parsing.children.iter().map(|it| it.restart.as_deref().unwrap());
    assert_eq!(restarts.collect::<Vec<_>>(), ["permanent", "permanent", "transient"]);
}

#[test]
fn a_daemon_that_was_not_started_for_it_kills_nothing() {
    let daemon = Daemon::start();
    let params = KillParams { path: "foundation/telemetry".to_owned() };
    let error = refused(&mut daemon.client(), method::KILL, &params);
    assert_eq!(error.error_code(), Some(ErrorCode::NotAllowed));
    let daemon = debuggable();
    let params = KillParams { path: "foundation/nobody".to_owned() };
    let error = refused(&mut daemon.client(), method::KILL, &params);
    assert_eq!(error.error_code(), Some(ErrorCode::NodeNotFound));
}

#[test]
fn health_names_what_is_well_and_counts_requests() {
    let daemon = Daemon::start();
    let mut client = daemon.client();
    let tree_of = Fixture::parse("//- /a.rs\nfn main() { f(1) }\n");
    run(&mut client, &pattern(&tree_of, "rust", "f($A)"));
    let started = Instant::now();
    let health = loop {
        let health: HealthResult = call(&mut client, method::HEALTH, &HealthParams {});
        // Reports of requests are on their way for a moment, and patterns are still being loaded.
        if health.requests.total > 0 && health.status == HealthStatus::Healthy {
            break health;
        }
        assert!(started.elapsed() < PATIENCE, "{health:?}");
    };
    assert_eq!(health.workspaces.len(), 1);
    assert!(health.requests.p50_us > 0 && health.requests.p50_us <= health.requests.p99_us);
    assert_eq!(health.requests.failed, 0);
    for breaker in ["files ", "parsing "] {
        let detail = health.details.iter().find(|it| it.name.starts_with(breaker)).unwrap();
        assert_eq!(detail.value.as_deref(), Some("goes on, 0 failures in a row"));
    }
    let breakers = status(&mut client).workspaces.remove(0).breakers;
    assert_eq!(breakers.iter().map(|it| &*it.name).collect::<Vec<_>>(), ["files", "parsing"]);
    assert!(breakers.iter().all(|it| it.state == BreakerState::Closed && it.failures == 0));
}

#[test]
fn faults_are_for_workers_of_a_daemon_that_was_started_for_them() {
    let fault = |path: &str| FaultParams { path: path.to_owned(), ..FaultParams::default() };
    let refusal = |daemon: &Daemon, path: &str| {
        refused(&mut daemon.client(), method::FAULT, &fault(path)).error_code()
    };
    let daemon = Daemon::start();
    assert_eq!(refusal(&daemon, "foundation/telemetry"), Some(ErrorCode::NotAllowed));
    let daemon = debuggable();
    assert_eq!(refusal(&daemon, "foundation/nobody"), Some(ErrorCode::NodeNotFound));
    assert_eq!(refusal(&daemon, "foundation"), Some(ErrorCode::InvalidParams));
    let mut client = daemon.client();
    let _armed: Value = call(&mut client, method::FAULT, &fault("foundation/telemetry"));
    let started = Instant::now();
    while tree(&mut client).walk()["foundation/telemetry"].incarnation == 1 {
        assert!(started.elapsed() < PATIENCE);
    }
}

#[test]
fn a_client_that_comes_while_the_gateway_is_restarted_is_kept_for_the_next_listener() {
    let daemon = debuggable();
    let path = "gateway/sessions".to_owned();
    let fault = FaultKind::Hang;
    let params = FaultParams { path: path.clone(), fault, ..FaultParams::default() };
    let _armed: Value = call(&mut daemon.client(), method::FAULT, &params);
    // The listener takes it, waits for who hangs, and is restarted with him.
    let mut client = daemon.client();
    let started = Instant::now();
    while tree(&mut client).walk()[&path].incarnation == 1 {
        assert!(started.elapsed() < PATIENCE);
    }
}

#[test]
fn what_the_daemon_gave_up_is_not_said_to_be_the_clients_wish() {
    let files = (0..300).map(|n| format!("//- /{n}.rs\nfn main() {{ f({n}) }}\n"));
    let tree_of = Fixture::parse(&files.collect::<String>());
    let mut n_lost = 0;
    for killed in ["querying/query_executor", "synchronization/synchronizer", "querying"] {
        let daemon = debuggable();
        let (mut client, mut other) = (daemon.client(), daemon.client());
        let id = client.request(method::RUN, &pattern(&tree_of, "rust", "f($A)")).unwrap();
        let started = Instant::now();
        let workspace = loop {
            let root = tree(&mut other);
            let open = root.children.iter().find(|child| child.id == "workspaces");
            if let Some(workspace) = open.and_then(|open| open.children.first())
                && workspace.state == "up"
            {
                break workspace.id.clone();
            }
            assert!(started.elapsed() < PATIENCE);
        };
        let params = KillParams { path: format!("workspaces/{workspace}/{killed}") };
        let _told: Value = call(&mut other, method::KILL, &params);
        match client.wait::<Value>(id, |_| std::ops::ControlFlow::Continue(())) {
            Ok(_) => {} // it was faster
            Err(error) => {
                assert_eq!(error.code(), Some(ErrorCode::Restarting), "{killed}: {error}");
                n_lost += 1;
            }
        }
    }
    assert!(n_lost > 0, "nothing was ever under way");
}

/// The `n`th permanent worker of each supervisor.
fn nth_workers(root: &Node, n: usize) -> Vec<String> {
    let mut supervisors = root.walk();
    supervisors.insert(String::new(), root);
    let mut workers = Vec::new();
    for (path, supervisor) in supervisors {
        let mut own = supervisor.children.iter().filter(|child| {
            child.strategy.is_none() && child.restart.as_deref() == Some("permanent")
        });
        let above = if path.is_empty() { path } else { format!("{path}/") };
        workers.extend(own.nth(n).map(|worker| format!("{above}{}", worker.id)));
    }
    workers
}

#[test]
fn whoever_hangs_is_found_and_started_again() {
    let tree_of = Fixture::parse("//- /a.rs\nfn main() { f(1) }\n");
    let mut n_hung = 0;
    // One of each supervisor at a time: together they would be more than it bears.
    for n in 0.. {
        let daemon = debuggable();
        let mut client = daemon.client();
        open(&mut client, &tree_of.root());
        let before = tree(&mut client);
        let hung = nth_workers(&before, n);
        if hung.is_empty() {
            break;
        }
        n_hung += hung.len();
        for path in &hung {
            let fault = FaultKind::Hang;
            let params = FaultParams { path: path.clone(), fault, ..FaultParams::default() };
            let armed = client.call::<_, Value>(method::FAULT, &params);
            assert!(armed.is_ok(), "{path}: {armed:?}");
        }
        let started = Instant::now();
        loop {
            let is_waiting = |path: &&String| {
                let now = look(&daemon);
                let now = now.as_ref().and_then(|now| Some(now.walk().get(*path)?.incarnation));
                now.is_none_or(|now| now == before.walk()[*path].incarnation)
            };
            let waiting: Vec<_> = hung.iter().filter(is_waiting).collect();
            if waiting.is_empty() {
                break;
            }
            assert!(started.elapsed() < PATIENCE, "nobody has found {waiting:?}");
        }
        let found = run(&mut daemon.client(), &pattern(&tree_of, "rust", "f($A)"));
        assert_eq!(found.shown(), ["a.rs:1:13 f(1)"]);
    }
    assert!(n_hung > 15, "{n_hung}");
}

#[test]
fn points_that_a_mapper_was_ended_over_may_be_asked_for_again() {
    let daemon = debuggable();
    let mut client = daemon.client();
    let tree_of = Fixture::parse("//- /a.rs\nfn main() { f(1) }\n");
    open(&mut client, &tree_of.root());
    let workspace = &tree(&mut client).children[1].children[0].id;
    let path = format!("workspaces/{workspace}/parsing/instrumentation_mapper");
    let params = PointsParams {
        cwd: text(&tree_of.root()),
        path: Some("a.rs".to_owned()),
        ..PointsParams::default()
    };
    let fault = FaultParams { path, fault: FaultKind::Hang, ..FaultParams::default() };
    let started = Instant::now();
    // Who is slower to ask than others are to find that it hangs is answered.
    let error = loop {
        assert!(started.elapsed() < PATIENCE, "whoever hangs answers");
        let _armed: Value = call(&mut client, method::FAULT, &fault);
        if let Err(error) = client.call::<_, PointsResult>(method::POINTS, &params) {
            break error;
        }
    };
    assert_eq!(error.code(), Some(ErrorCode::Restarting), "{error}");
    let found: PointsResult = call(&mut client, method::POINTS, &params);
    assert_eq!(found.points.len(), 2);
}

#[test]
fn what_has_happened_can_be_asked_for() {
    let daemon = debuggable();
    let mut client = daemon.client();
    let tree_of = Fixture::parse("//- /a.rs\nfn main() { f(1) }\n");
    open(&mut client, &tree_of.root());
    let params = KillParams { path: "foundation/telemetry".to_owned() };
    let _told: Value = call(&mut client, method::KILL, &params);
    let started = Instant::now();
    let expected = ["opened", "committed", "failed", "restarted"];
    let told = loop {
        let told: EventsResult = call(&mut client, method::EVENTS, &EventsParams::default());
        if expected.iter().all(|kind| told.events.iter().any(|event| event.kind == *kind)) {
            break told;
        }
        assert!(started.elapsed() < PATIENCE, "{told:?}");
    };
    let of = |kind: &str| told.events.iter().find(|event| event.kind == kind).unwrap();
    assert_eq!(of("opened").about, text(&tree_of.root()));
    assert_eq!(of("restarted").about, "daemon/foundation/telemetry");
    assert!(told.events.is_sorted_by_key(|event| event.number));
    assert_eq!(told.missed, 0);
    let params = EventsParams { after: of("restarted").number };
    let later: EventsResult = call(&mut client, method::EVENTS, &params);
    assert!(later.events.iter().all(|event| event.number > params.after));
}

/// Who gets a new incarnation when `killed` is killed: itself with all below it, and by its
/// supervisor's strategy those after it. Written against the seed's rules, not with the daemon's.
fn expected(root: &Node, killed: &str) -> Vec<String> {
    let (above, id) = killed.rsplit_once('/').unwrap_or(("", killed));
    let mut parent = root;
    for id in above.split('/').filter(|id| !id.is_empty()) {
        parent = parent.children.iter().find(|child| child.id == id).unwrap();
    }
    let at = parent.children.iter().position(|child| child.id == id).unwrap();
    let whose = match parent.strategy.as_deref() {
        Some("rest_for_one") => &parent.children[at..],
        Some("one_for_all") => &parent.children,
        _ => &parent.children[at..=at],
    };
    let above = if above.is_empty() { String::new() } else { format!("{above}/") };
    let mut all = Vec::new();
    for child in whose {
        let path = format!("{above}{}", child.id);
        // What a dynamic supervisor had is gone with it, and comes back when somebody wants it.
        if child.strategy.as_deref() != Some("dynamic") {
            all.extend(child.walk().keys().map(|below| format!("{path}/{below}")));
        }
        all.push(path);
    }
    all.sort();
    all
}

#[test]
fn whoever_is_killed_takes_along_whom_the_strategy_says_and_queries_go_on() {
    let tree_of = Fixture::parse("//- /a.rs\nfn main() { f(1) }\n");
    let ask = pattern(&tree_of, "rust", "f($A)");
    let paths: Vec<String> = {
        let daemon = debuggable();
        let mut client = daemon.client();
        open(&mut client, &tree_of.root());
        tree(&mut client).walk().into_keys().collect()
    };
    assert!(paths.len() > 15, "{paths:?}");
    for path in paths {
        let daemon = debuggable();
        let mut client = daemon.client();
        open(&mut client, &tree_of.root());
        let before = tree(&mut client);
        let kill = client.call::<_, Value>(method::KILL, &KillParams { path: path.clone() });
        // Who kills the gateway is disconnected before the answer.
        assert!(kill.is_ok() || path.starts_with("gateway"), "{path}: {kill:?}");
        let expected = expected(&before, &path);
        let was = before.walk();
        let started = Instant::now();
        let renewed = loop {
            assert!(started.elapsed() < PATIENCE, "{path}: not {expected:?}");
            let Some(now) = look(&daemon) else { continue };
            let is = now.walk();
            let mut renewed: Vec<String> = Vec::new();
            for (path, node) in &was {
                if is.get(path).is_some_and(|now| now.incarnation > node.incarnation) {
                    renewed.push(path.clone());
                }
            }
            // A dynamic child comes back when somebody wants it.
            let is_whole = path == "workspaces" || now.is_as_well_as(&before);
            if renewed == expected && is_whole {
                break renewed;
            }
        };
        assert!(!renewed.is_empty());
        let mut client = daemon.client();
        let found = run(&mut client, &ask);
        assert_eq!(found.shown(), ["a.rs:1:13 f(1)"], "{path}");
        let status = status(&mut client);
        assert_eq!(status.workspaces[0].files_parsed, 1, "{path}: nothing is lost");
    }
}

#[test]
fn a_cache_that_is_killed_keeps_what_it_remembers() {
    let daemon = debuggable();
    let mut client = daemon.client();
    let tree_of = Fixture::parse("//- /a.rs\nfn main() { f(1) }\n");
    let ask = pattern(&tree_of, "rust", "f($A)");
    open(&mut client, &tree_of.root());
    assert_eq!(run(&mut client, &ask).summary.files_remembered, 0);
    let caches: Vec<String> =
        tree(&mut client).walk().into_keys().filter(|it| it.ends_with("querying/cache")).collect();
    assert_eq!(caches.len(), 2, "of the workspace, and of what has none");
    for path in caches {
        let _empty: Value = call(&mut client, method::KILL, &KillParams { path: path.clone() });
        let found = run(&mut client, &ask);
        assert_eq!((found.shown().len(), found.summary.files_remembered), (1, 1), "{path}");
        let started = Instant::now();
        let has_come_back = |node: &Node| {
            node.walk().get(&path).is_some_and(|it| it.state == "up" && it.incarnation == 2)
        };
        while !has_come_back(&tree(&mut client)) {
            assert!(started.elapsed() < PATIENCE, "{path}");
        }
    }
    assert_eq!(run(&mut client, &ask).summary.files_remembered, 1);
}
