//! erlmcp: an MCP server in tiers, of which the upper ones must never hurt the lower.

use super::shape::{Play, check_rows, quiet};
use super::table::{Cast, Node, join};
use astscope_supervision::LintRule::{CrowdedBudget, ImpatientWithSupervisor};
use astscope_supervision::{
    Address, CallError, ChildSpec, ChildState, Ctx, Exit, Fault, Init, Mailbox, Point, Reply,
    Service, TreeNode,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::time::{Instant, sleep};

/// Tier 4 is an application of its own. Who starts applications is no supervisor; the root stands
/// for it, with OTP's default.
const ERLMCP: &str = "
erlmcp                             o4o     1/5    -  -
  erlmcp_sup                       o4o     5/60   P  inf
    core_sup                       o4o     5/60   P  inf    # tier 1
      registry                     worker  -      P  5000
      health                       worker  -      P  5000
      reload_sup                   o4a     3/60   P  inf
        graceful_drain             worker  -      P  5000
        code_reload                worker  -      P  5000
      session_manager              worker  -      P  5000
      hooks                        worker  -      P  5000
      cache                        worker  -      P  5000
      cache_warmer_sup             dyn     10/60  P  inf
        *cache_warmer              worker  -      T  5000
      icon_cache                   worker  -      P  5000
      sse_event_store              worker  -      P  5000
      resource_subscriptions       worker  -      P  5000
      session_replicator           worker  -      P  5000
      session_failover             worker  -      P  5000
      failover_worker_sup          dyn     10/60  P  inf
        *failover_worker           worker  -      T  5000
      circuit_breaker              worker  -      P  5000
      rate_limiter                 worker  -      P  5000
      connection_limiter           worker  -      P  5000
      connection_monitor           worker  -      P  5000
      memory_monitor               worker  -      P  5000
      cpu_quota                    worker  -      P  5000
      cancellation                 worker  -      P  5000
      pagination                   worker  -      P  5000
      completion                   worker  -      P  5000
      elicitation                  worker  -      P  5000
      roots_server                 worker  -      P  5000
      apps_server                  worker  -      P  5000
      notification_handler_sup     dyn     5/60   P  inf
        *notification_handler      worker  -      T  5000
      client_sup                   dyn     5/60   P  inf
        *client                    worker  -      X  5000
      cluster_sup                  o4o     5/60   P  5000   [cluster]
        registry_dist              worker  -      P  5000   [source]
        node_monitor               worker  -      P  5000
        split_brain_detector       worker  -      P  5000
    server_sup                     dyn     10/60  P  inf    # tier 2
      *server                      worker  -      T  5000
    observability_sup              o4o     3/60   P  inf    # tier 3
      metrics                      worker  -      P  5000
      metrics_server               worker  -      P  5000
      metrics_aggregator           worker  -      P  5000
      health_monitor               worker  -      P  5000
      dashboard_server             worker  -      P  5000
      recovery_manager             worker  -      P  5000
      chaos                        worker  -      P  5000
      otel                         worker  -      P  5000
      tracer                       worker  -      P  5000
  transport_sup                    o4o     5/60   P  inf    # tier 4
    *stdio                         worker  -      X  2000
    *tcp                           worker  -      T  5000
    *http                          worker  -      T  5000
    *ws                            worker  -      T  5000
    *sse                           worker  -      T  5000
  tcps_sup                         o4o     3/5    P  inf    [tcps]
";

fn tree() -> Node {
    Node::parse(ERLMCP, &[])
}

fn with_cluster() -> Node {
    Node::parse(ERLMCP, &["cluster"])
}

shape!(erlmcp, tree(), &[(CrowdedBudget, "erlmcp/erlmcp_sup/core_sup")]);
shape!(
    erlmcp_with_cluster,
    with_cluster(),
    &[
        (CrowdedBudget, "erlmcp/erlmcp_sup/core_sup"),
        (ImpatientWithSupervisor, "erlmcp/erlmcp_sup/core_sup/cluster_sup"),
    ]
);
shape!(
    erlmcp_of_the_source,
    Node::parse(ERLMCP, &["cluster", "source", "tcps"])
        .with("server_sup", "5/60")
        .with("server_sup/server", "X")
        .with("observability_sup", "10/60")
);

const CORE: &str = "erlmcp_sup/core_sup";
const OBSERVABILITY: &str = "erlmcp_sup/observability_sup";

/// The children of the core, in the seed's words and order.
const CORE_CHILDREN: &str = "
    registry health
    reload_sup session_manager hooks cache cache_warmer_sup icon_cache sse_event_store
    resource_subscriptions session_replicator session_failover failover_worker_sup
    circuit_breaker rate_limiter connection_limiter connection_monitor memory_monitor cpu_quota
    cancellation pagination completion elicitation roots_server apps_server notification_handler_sup
    client_sup
";

const OBSERVERS: &str = "
    metrics metrics_server metrics_aggregator health_monitor dashboard_server recovery_manager chaos
    otel tracer
";

#[tokio::test(start_paused = true)]
async fn the_core_has_27_children_or_28_and_observability_nine() {
    for (tree, n_core, n_supervisors) in [(tree(), 27, 5), (with_cluster(), 28, 6)] {
        let play = Play::start(&tree, 0).await;
        let core = play.supervisor(CORE).await.count_children().await.unwrap();
        assert_eq!((core.specs, core.active), (n_core, n_core));
        assert_eq!((core.supervisors, core.workers), (n_supervisors, 22));
        let observability = play.supervisor(OBSERVABILITY).await.count_children().await.unwrap();
        assert_eq!((observability.specs, observability.workers), (9, 9));
    }
}

#[tokio::test(start_paused = true)]
async fn each_tier_lists_its_children_the_newest_first() {
    let play = Play::start(&tree(), 1).await;
    let tiers = [
        (CORE, CORE_CHILDREN),
        ("erlmcp_sup/server_sup", "server_1"),
        (OBSERVABILITY, OBSERVERS),
        ("transport_sup", "stdio tcp http ws sse"),
    ];
    for (path, expected) in tiers {
        let children = play.supervisor(path).await.which_children().await.unwrap();
        let ids: Vec<_> = children.iter().rev().map(|child| &*child.id).collect();
        assert_eq!(ids, expected.split_whitespace().collect::<Vec<_>>());
    }
}

#[tokio::test(start_paused = true)]
async fn who_fails_is_restarted_alone() {
    let alone = |id: &str| format!("{id} -> {id}\n");
    let ids = [CORE_CHILDREN, OBSERVERS].concat();
    let rows: Vec<_> = ids.split_whitespace().map(alone).collect();
    assert_eq!(rows.len(), 27 + 9);
    check_rows(&tree(), &rows.concat()).await;
    let rows = "
        core_sup           -> core_sup
        server_sup         -> server_sup
        observability_sup  -> observability_sup
        transport_sup      -> transport_sup
        graceful_drain     -> graceful_drain code_reload
        code_reload        -> graceful_drain code_reload
        cluster_sup        -> cluster_sup
        cluster_sup/node_monitor         -> cluster_sup/node_monitor
        cluster_sup/split_brain_detector -> cluster_sup/split_brain_detector
        cache_warmer_1     -> cache_warmer_1
        client_1           -> nobody
        server_1           -> server_1
        stdio              -> nobody
        tcp                -> tcp
        http               -> http
        ws                 -> ws
        sse                -> sse
    ";
    check_rows(&with_cluster(), rows).await;
    check_rows(&tree().with("server_sup/server", "X"), "server_1 -> nobody").await;
}

#[tokio::test(start_paused = true)]
async fn everybody_is_back_within_his_budget() {
    let play = Play::start(&tree(), 0).await;
    for (above, ids) in [(CORE, CORE_CHILDREN), (OBSERVABILITY, OBSERVERS)] {
        for id in ids.split_whitespace() {
            let path = join(above, id);
            let child = play.root.supervisor().child_at(&path).await.unwrap();
            let before = child.monitor();
            play.kill(&path).await;
            assert!(before.exit().is_some());
            child.await_ready(budget(id)).await.unwrap();
            sleep(Duration::from_mins(1)).await; // the others have the same budget of restarts
        }
    }
}

#[test]
fn it_keeps_its_own_checklist_with_the_exceptions_that_it_declares() {
    let outline = with_cluster().grown(1).spec("", &Cast::scripted()).outline("erlmcp");
    let mut broken = BTreeSet::new();
    check_off(&outline, &mut broken);
    let declared = [
        "client_1 is temporary",
        "cluster_sup stops within 5000 ms",
        "cache_warmer_1 is transient",
        "failover_worker_1 is transient",
        "http is transient",
        "notification_handler_1 is transient",
        "reload_sup is one_for_all",
        "server_1 is transient",
        "sse is transient",
        "stdio is temporary",
        "stdio stops within 2000 ms",
        "tcp is transient",
        "ws is transient",
    ];
    assert_eq!(broken, declared.map(str::to_owned).into());
}

fn check_off(node: &TreeNode, broken: &mut BTreeSet<String>) {
    let mut note = |what: &str| broken.insert(format!("{} {what}", node.id));
    if let Some(supervisor) = &node.supervisor
        && !["one_for_one", "dynamic"].contains(&&*supervisor.strategy)
    {
        note(&format!("is {}", supervisor.strategy));
    }
    if let Some(child) = &node.child {
        if child.restart != "permanent" {
            note(&format!("is {}", child.restart));
        }
        let stop = if node.supervisor.is_some() { "wait" } else { "within 5000 ms" };
        if child.stop != stop {
            note(&format!("stops {}", child.stop));
        }
    }
    node.children.iter().for_each(|child| check_off(child, broken));
}

// ── E1 to E4: what is missing while one of them is ──────────────────────────────────────────────

/// One of those that a request may need.
struct Part;

impl Service for Part {
    type Args = ();
    type Message = Reply<()>;

    async fn init((): (), _: &Ctx) -> Result<Init<Self>, Exit> {
        Ok(Init::Ready(Self))
    }

    async fn run(self, mut mailbox: Mailbox<Reply<()>>, _: Ctx) -> Result<(), Exit> {
        while let Some(reply) = mailbox.recv().await {
            reply.send(());
        }
        Ok(())
    }
}

/// Those without which protection is missing, and the request is served.
const GUARDS: &[&str] =
    &["circuit_breaker", "rate_limiter", "connection_limiter", "memory_monitor", "cpu_quota"];
/// Those without which a feature is missing.
const FEATURES: &[&str] = &["completion", "elicitation", "roots_server", "apps_server"];
/// How long each may take to recover.
fn budget(id: &str) -> Duration {
    let is_slow = ["session_manager", "roots_server", "apps_server"].contains(&id);
    Duration::from_millis(if is_slow { 1000 } else { 500 })
}

#[derive(Clone)]
struct Parts(Arc<BTreeMap<&'static str, Address<Reply<()>>>>);

impl Parts {
    fn new() -> Self {
        let ids = ["registry", "session_manager", "cache"].iter().chain(GUARDS).chain(FEATURES);
        Self(Arc::new(ids.map(|id| (*id, Address::new(*id, 16))).collect()))
    }

    /// Never waits for one that isn't there.
    async fn ask(&self, id: &str) -> Result<(), CallError> {
        self.0[id].call_now(Duration::from_millis(100), |reply| reply).await
    }

    /// A request on a connection that is there already: it fails open. Returns what it did without.
    async fn serve(&self) -> BTreeSet<&'static str> {
        let mut without = BTreeSet::new();
        for id in ["cache"].iter().chain(GUARDS) {
            if self.ask(id).await.is_err() {
                without.insert(*id);
            }
        }
        without
    }

    /// What is refused, with a reason and at once.
    async fn refused(&self) -> BTreeSet<&'static str> {
        let mut refused = BTreeSet::new();
        for id in ["registry", "session_manager"].iter().chain(FEATURES) {
            if let Err(error) = self.ask(id).await {
                assert_eq!(error, CallError::Restarting);
                refused.insert(*id);
            }
        }
        refused
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_missing_costs_what_he_is_for_and_nothing_else() {
    let parts = Parts::new();
    let own = parts.clone();
    let cast = Cast::new(move |path| {
        let address = own.0.get(path.strip_prefix(CORE)?.trim_start_matches('/'))?;
        Some(ChildSpec::service::<Part>(address, ()))
    });
    let play = Play::of(&tree(), cast).await;
    let nothing = BTreeSet::new();
    for (id, address) in parts.0.iter() {
        // Its next init takes nearly as long as it may.
        let slow = Fault::Slow(budget(id).saturating_sub(Duration::from_millis(10)));
        play.cast.probe.arm(*id, Point::Init, slow, 1);
        play.cast.probe.arm(*id, Point::Run, Fault::Panic, 1);
        quiet().await;
        let asked = Instant::now();
        let is_fatal = !GUARDS.contains(id) && *id != "cache";
        let expected = BTreeSet::from([*id]);
        assert_eq!(parts.serve().await, if is_fatal { nothing.clone() } else { expected.clone() });
        assert_eq!(parts.refused().await, if is_fatal { expected } else { nothing.clone() });
        assert_eq!(asked.elapsed(), Duration::ZERO, "nobody has waited for {id}");

        address.child().await_ready(budget(id)).await.unwrap();
        assert_eq!(
            (parts.serve().await, parts.refused().await),
            (nothing.clone(), nothing.clone())
        );
        sleep(Duration::from_mins(1)).await; // the core has one budget for all
    }
}

// ── E5, E6: servers and transports ──────────────────────────────────────────────────────────────

/// A server instance. Each request takes a while, and several are served at a time.
struct Server {
    metrics: Option<Address<()>>,
}

const REQUEST: Duration = Duration::from_millis(20);

impl Service for Server {
    type Args = Option<Address<()>>;
    type Message = Reply<()>;

    async fn init(metrics: Option<Address<()>>, _: &Ctx) -> Result<Init<Self>, Exit> {
        Ok(Init::Ready(Self { metrics }))
    }

    async fn run(self, mut mailbox: Mailbox<Reply<()>>, ctx: Ctx) -> Result<(), Exit> {
        while let Some(reply) = mailbox.recv().await {
            let metrics = self.metrics.clone();
            ctx.spawn(async move {
                sleep(REQUEST).await;
                if let Some(metrics) = metrics {
                    // Whether anybody counts is no concern of the request's.
                    let _uncounted = metrics.send_now(());
                }
                reply.send(());
            });
        }
        Ok(())
    }
}

async fn request(server: &Address<Reply<()>>) -> Result<(), CallError> {
    server.call(Duration::from_secs(2), |reply| reply).await
}

/// The tree with two servers.
async fn with_servers(tree: &Node) -> (Play, [Address<Reply<()>>; 2]) {
    let servers = [Address::new("server_1", 16), Address::new("server_2", 16)];
    let own = servers.clone();
    let cast = Cast::new(move |path| {
        let server = own.iter().find(|server| path.ends_with(&format!("/{}", server.id())))?;
        Some(ChildSpec::service::<Server>(server, None))
    });
    let mut play = Play::of(tree, cast).await;
    play.grow(2).await;
    (play, servers)
}

#[tokio::test(start_paused = true)]
async fn a_server_takes_its_own_requests_along_and_no_others() {
    for word in ["T", "X"] {
        let tree = tree().with("server_sup/server", word);
        let (play, [mine, other]) = with_servers(&tree).await;
        let path = "erlmcp_sup/server_sup/server_1";
        let kill = async {
            sleep(REQUEST / 2).await;
            play.strike(path).await;
        };
        let (first, second, third, fourth, ()) =
            tokio::join!(request(&mine), request(&other), request(&mine), request(&other), kill);
        assert_eq!([first, third], [Err(CallError::Died); 2]);
        assert_eq!([second, fourth], [Ok(()); 2]);

        let asked = Instant::now();
        if word == "X" {
            // By its source it doesn't recover: whoever wants it starts it again.
            assert_eq!(request(&mine).await, Err(CallError::Gone));
            let servers = play.cast.dynamic("erlmcp_sup/server_sup");
            servers.start_child("server_1".to_owned()).await.unwrap().unwrap();
        }
        // By the seed's matrix it does.
        assert_eq!(request(&mine).await, Ok(()));
        assert!(asked.elapsed() <= Duration::from_secs(2));
    }
}

/// Owns the connections that it has accepted.
struct Transport;

enum ToTransport {
    Accept(DuplexStream),
    Close,
}

impl Service for Transport {
    type Args = ();
    type Message = ToTransport;

    async fn init((): (), _: &Ctx) -> Result<Init<Self>, Exit> {
        Ok(Init::Ready(Self))
    }

    async fn run(self, mut mailbox: Mailbox<ToTransport>, ctx: Ctx) -> Result<(), Exit> {
        while let Some(ToTransport::Accept(mut stream)) = mailbox.recv().await {
            ctx.spawn(async move {
                while let Ok(byte) = stream.read_u8().await {
                    if stream.write_u8(byte).await.is_err() {
                        return;
                    }
                }
            });
        }
        Ok(())
    }
}

/// Whether a connection still answers.
async fn answers(connection: &mut DuplexStream) -> bool {
    connection.write_u8(7).await.is_ok() && connection.read_u8().await.is_ok()
}

#[tokio::test(start_paused = true)]
async fn a_transport_takes_its_own_connections_along_and_no_others() {
    let ids = ["stdio", "tcp", "http", "ws", "sse"];
    let transports: BTreeMap<&str, Address<ToTransport>> =
        ids.map(|id| (id, Address::new(id, 16))).into();
    let own = transports.clone();
    let cast = Cast::new(move |path| {
        let transport = own.get(path.strip_prefix("transport_sup/")?)?;
        Some(ChildSpec::service::<Transport>(transport, ()))
    });
    let mut play = Play::of(&tree(), cast).await;
    play.grow(1).await;
    let transport_sup = play.supervisor("transport_sup").await;
    let second = Duration::from_secs(1);
    let connect = async |id: &str| {
        let (own, other) = duplex(64);
        transports[id].send(second, ToTransport::Accept(other)).await.unwrap();
        own
    };
    let states = async || {
        let children = transport_sup.which_children().await.unwrap();
        let mut states: Vec<_> = children
            .iter()
            .map(|child| format!("{} {:?}", child.id, child.state).to_lowercase())
            .collect();
        states.reverse();
        states.join(", ")
    };
    let mut connections = BTreeMap::new();
    for id in ids {
        connections.insert(id, connect(id).await);
    }

    for id in ids {
        play.strike(&format!("transport_sup/{id}")).await;
        for (other, connection) in &mut connections {
            assert_eq!(answers(connection).await, other != &id, "{other} after the end of {id}");
        }
        if id == "stdio" {
            assert_eq!(states().await, "tcp up, http up, ws up, sse up", "one never comes back");
            assert!(connections.remove(id).is_some());
        } else {
            assert_eq!(states().await, "tcp up, http up, ws up, sse up");
            connections.insert(id, connect(id).await);
            assert!(answers(connections.get_mut(id).unwrap()).await);
        }
    }

    // One that is closed stays closed, until somebody opens, removes or replaces it.
    transports["tcp"].send(second, ToTransport::Close).await.unwrap();
    quiet().await;
    assert_eq!(states().await, "tcp down, http up, ws up, sse up");
    assert_eq!(transport_sup.restart_child("tcp").await, Ok(true));
    transport_sup.terminate_child("ws").await.unwrap();
    transport_sup.delete_child("ws").await.unwrap();
    let another = play.tree.at("transport_sup/tcp").instance("tcp_on_port_3004");
    transport_sup.start_child(another.child("transport_sup", &play.cast)).await.unwrap().unwrap();
    assert_eq!(states().await, "tcp up, http up, sse up, tcp_on_port_3004 up");
}

// ── E7: who watches may not hurt whom he watches ────────────────────────────────────────────────
//
// OTP's escalation would: the sixth meltdown of the observers within a minute is one of their
// supervisor's. The firewall keeps them to themselves.

struct Metrics(Arc<AtomicUsize>);

impl Service for Metrics {
    type Args = Arc<AtomicUsize>;
    type Message = ();

    async fn init(count: Self::Args, _: &Ctx) -> Result<Init<Self>, Exit> {
        Ok(Init::Ready(Self(count)))
    }

    async fn run(self, mut mailbox: Mailbox<()>, _: Ctx) -> Result<(), Exit> {
        while mailbox.recv().await.is_some() {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// The tree with a server whose requests are counted by one of the observers.
struct Observed {
    play: Play,
    server: Address<Reply<()>>,
    counted: Arc<AtomicUsize>,
}

impl Observed {
    async fn start(tree: &Node) -> Self {
        let (server, metrics) = (Address::new("server_1", 64), Address::new("metrics", 64));
        let counted = Arc::default();
        let own = (server.clone(), metrics, Arc::clone(&counted));
        let cast = Cast::new(move |path| {
            let (server, metrics, counted) = own.clone();
            if path.ends_with("/server_1") {
                return Some(ChildSpec::service::<Server>(&server, Some(metrics)));
            }
            let is_metrics = path.ends_with("/metrics");
            is_metrics.then(|| ChildSpec::service::<Metrics>(&metrics, counted))
        });
        let mut play = Play::of(tree, cast).await;
        play.grow(1).await;
        play.recorder.take();
        Self { play, server, counted }
    }

    fn counted(&self) -> usize {
        self.counted.load(Ordering::Relaxed)
    }

    /// Ends each of the observers, one after the other.
    async fn kill_the_observers(&self) {
        for id in OBSERVERS.split_whitespace() {
            self.play.strike(&join(OBSERVABILITY, id)).await;
        }
    }

    /// Asks one thing after another while `meanwhile` goes on. Returns answers and failures.
    async fn ask_while(&self, meanwhile: impl Future<Output = ()>) -> (usize, usize) {
        let (mut answered, mut failed) = (0, 0);
        let load = async {
            loop {
                if request(&self.server).await.is_ok() {
                    answered += 1;
                } else {
                    failed += 1;
                    sleep(REQUEST).await;
                }
            }
        };
        tokio::select! {
            () = meanwhile => {}
            () = load => {}
        }
        (answered, failed)
    }
}

#[tokio::test(start_paused = true)]
async fn observers_that_fail_again_and_again_cost_no_request() {
    let nearly_the_cooldown = Duration::from_millis(9950);
    let observed = Observed::start(&tree().with("observability_sup", "degrade:10000")).await;
    let play = &observed.play;
    let observers = play.supervisor(OBSERVABILITY).await.child();
    let n_rounds = 8;
    let massacre = async {
        for id in OBSERVERS.split_whitespace() {
            play.recorder.take();
            play.strike(&join(OBSERVABILITY, id)).await;
            assert_eq!(play.started(), [join(OBSERVABILITY, id)]);
            sleep(Duration::from_secs(21)).await; // no more than three within a minute
        }
        for _ in 0..n_rounds {
            let before = observed.counted();
            sleep(Duration::from_secs(1)).await;
            assert!(observed.counted() >= before + 40, "they do what they are for");
            observed.kill_the_observers().await;
            assert_eq!(observers.status().state(), ChildState::Degraded);
            let missed = observed.counted();
            sleep(nearly_the_cooldown).await;
            assert_eq!(observed.counted(), missed);
            observers.await_ready(Duration::from_millis(100)).await.unwrap();
            quiet().await;
            let lines = play.visible().await;
            let n_up = lines.iter().filter(|line| line.starts_with(OBSERVABILITY)).count();
            assert_eq!(n_up, 1 + 9, "they come back, all of them: {lines:?}");
        }
    };
    let (answered, failed) = observed.ask_while(massacre).await;
    assert!(answered > 4000, "{answered}");
    assert_eq!(failed, 0);
    assert_eq!(play.melted(), [OBSERVABILITY; 8], "each time by four failures within a minute");

    // Nobody else was restarted, and nobody else's budget is used up.
    let others = |path: &String| !path.starts_with(OBSERVABILITY);
    assert_eq!(play.started().iter().filter(|path| others(path)).count(), 0);
    let saboteur = play.sabotage("erlmcp_sup").await;
    for _ in 0..5 {
        play.crash(&saboteur).await;
        assert_eq!(play.melted(), [""; 0]);
    }
    play.crash(&saboteur).await;
    assert_eq!(play.melted(), ["erlmcp_sup"]);
}

#[tokio::test(start_paused = true)]
async fn without_a_firewall_the_observers_take_everything_down() {
    let observed = Observed::start(&tree()).await;
    let play = &observed.play;
    let massacre = async {
        let path = join(OBSERVABILITY, "tracer");
        for n in 1..=24 {
            assert!(!play.melted().contains(&"erlmcp_sup".to_owned()), "before failure {n}");
            play.strike(&path).await;
        }
        assert!(play.melted().contains(&"erlmcp_sup".to_owned()));
        assert_eq!(play.melted().len(), 6 + 1);
    };
    let (_, failed) = observed.ask_while(massacre).await;
    assert!(failed > 0, "whoever is asking at that moment");
    assert_eq!(request(&observed.server).await, Err(CallError::Gone));
}

// ── E8: the order of the tiers ──────────────────────────────────────────────────────────────────

#[tokio::test(start_paused = true)]
async fn the_tiers_flush_from_the_last_to_the_first() {
    let stage = Cast::scripted().stage;
    let own = stage.clone();
    let flushing = [
        "session_manager",
        "cache",
        "client_1",
        "server_1",
        "metrics",
        "otel",
        "tcp",
        "http",
        "receipts",
    ];
    let cast = Cast::new(move |path| {
        let id = flushing.iter().find(|id| path.ends_with(&format!("/{id}")))?;
        let stage = own.clone();
        Some(ChildSpec::task(*id, move |ctx| {
            let stage = stage.clone();
            async move {
                ctx.stopping().await;
                sleep(Duration::from_millis(100)).await;
                stage.line(ctx.id().to_string());
                Ok(())
            }
        }))
    });
    let receipts = (cast.role)("tcps_sup/receipts").unwrap();
    let mut play = Play::of(&Node::parse(ERLMCP, &["tcps"]), cast).await;
    play.grow(1).await;
    // The seed has this application and doesn't say what is in it.
    play.supervisor("tcps_sup").await.start_child(receipts).await.unwrap().unwrap();
    play.root.shutdown().await;
    // The seed lists metrics before exporters, and sessions before the cache. Within a tier it is
    // the order of the start that counts.
    let expected = [
        "receipts",
        "http",
        "tcp",
        "otel",
        "metrics",
        "server_1",
        "client_1",
        "cache",
        "session_manager",
    ];
    assert_eq!(stage.take_log(), expected);
}
