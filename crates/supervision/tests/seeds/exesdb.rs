//! `ExESDB`: an event store, alone or in a cluster.

use super::shape::{Play, check_rows, quiet};
use super::table::{Cast, Node};
use astscope_supervision::LintRule;
use astscope_supervision::LintRule::{ImpatientWithSupervisor, NonPermanentSupervisor};
use astscope_supervision::{
    Address, AdminError, CallError, ChildSpec, Ctx, Exit, Fault, Init, Mailbox, Point, Reply,
    Service,
};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// The document gives shapes and order. Numbers are those of its source, or OTP's own where that
/// has none either; partitions are two where the source has one per scheduler.
const EXESDB: &str = "
system                             r4o     3/5    -  -
  core_system                      o4a     3/60   P  inf
    persistence_system             o4o     10/60  P  inf
      persistence_worker           worker  -      P  10000  [source]
      streams                      o4o     3/5    P  10000
        streams_writers            part:2  3/5    P  inf
          *partition               dyn     3/5    P  inf
            *stream_writer         worker  -      X  5000
        streams_readers            part:2  3/5    P  inf
          *partition               dyn     3/5    P  inf
            *stream_reader         worker  -      X  5000   # P in the source: a mistake of its own
      snapshots                    o4o     3/5    P  10000
        snapshots_writers          part:2  3/5    P  inf
          *partition               dyn     3/5    P  inf
            *snapshot_writer       worker  -      X  5000
        snapshots_readers          part:2  3/5    P  inf
          *partition               dyn     3/5    P  inf
            *snapshot_reader       worker  -      X  5000
      subscriptions                o4o     3/5    P  5000
        subscriptions_reader       worker  -      P  5000
        subscriptions_writer       worker  -      P  5000
    notification_system            r4o     5/30   P  inf
      leader_system                r4o     3/5    P  inf
        leader_tracker             worker  -      P  5000
        leader_worker              worker  -      P  10000
      emitter_system               o4o     10/60  T  5000
        emitter_pools              part:2  3/5    P  inf
          *partition               dyn     3/5    P  inf
            *emitter_pool          o4o     3/5    P  inf
              emitter_worker_a     worker  -      P  5000
              emitter_worker_b     worker  -      P  5000
      subscription_health_monitor  worker  -      P  5000   [source]
    store_system                   r4o     5/30   P  inf
      store                        worker  -      P  10000
      store_cluster                worker  -      P  10000
      store_registry               worker  -      P  5000
  lib_cluster                      o4o     3/5    P  inf    [cluster]
  cluster_system                   o4o     3/5    P  inf    [cluster]
    store_coordinator              worker  -      P  5000
    node_monitor                   worker  -      P  5000
  gateway_system                   o4o     15/60  P  inf
    gateway_workers                part:1  3/5    P  inf
      *gateway_worker              worker  -      P  5000
    pubsub                         worker  -      P  5000   [native]
    phoenix_pubsub                 o4o     3/5    P  inf    [external]
";

fn single() -> Node {
    Node::parse(EXESDB, &["native"])
}

fn cluster() -> Node {
    Node::parse(EXESDB, &["cluster", "native"])
}

/// Findings that its authors mean.
const EXCEPTIONS: &[(LintRule, &str)] = &[
    (ImpatientWithSupervisor, "system/core_system/persistence_system/streams"),
    (ImpatientWithSupervisor, "system/core_system/persistence_system/snapshots"),
    (ImpatientWithSupervisor, "system/core_system/persistence_system/subscriptions"),
    (ImpatientWithSupervisor, "system/core_system/notification_system/emitter_system"),
    (NonPermanentSupervisor, "system/core_system/notification_system/emitter_system"),
];

shape!(exesdb_single, single(), EXCEPTIONS);
shape!(exesdb_cluster, cluster(), EXCEPTIONS);
// With what only the source has, and its readers as it declares them.
shape!(
    exesdb_of_the_source,
    Node::parse(EXESDB, &["external", "source"])
        .with("streams_readers/0/stream_reader", "P")
        .with("streams_readers/1/stream_reader", "P")
);

#[tokio::test(start_paused = true)]
async fn who_is_restarted_with_whom_is_what_the_seed_says() {
    let alone = "
        core_system     -> core_system gateway_system
        gateway_system  -> gateway_system
    ";
    let in_a_cluster = "
        core_system        -> core_system lib_cluster cluster_system gateway_system
        lib_cluster        -> lib_cluster cluster_system gateway_system
        cluster_system     -> cluster_system gateway_system
        gateway_system     -> gateway_system
        store_coordinator  -> store_coordinator
        node_monitor       -> node_monitor
    ";
    // A meltdown is an orderly end, so the transient emitters stay down after theirs.
    let in_both = "
        persistence_system   -> persistence_system notification_system store_system
        notification_system  -> persistence_system notification_system store_system
        store_system         -> persistence_system notification_system store_system

        store           -> store store_cluster store_registry
        store_cluster   -> store_cluster store_registry
        store_registry  -> store_registry

        leader_tracker  -> leader_tracker leader_worker
        leader_worker   -> leader_worker
        leader_system   -> leader_system emitter_system
        emitter_system  -> nobody
        emitter_pools   -> emitter_pools
        emitter_pools/1 -> emitter_pools/1
        emitter_pools/0/emitter_pool_2 -> emitter_pools/0/emitter_pool_2
        emitter_pools/0/emitter_pool_2/emitter_worker_a -> emitter_pools/0/emitter_pool_2/emitter_worker_a

        streams              -> streams
        snapshots            -> snapshots
        subscriptions        -> subscriptions
        streams_writers      -> streams_writers
        streams_writers/1    -> streams_writers/1
        streams_writers/1/stream_writer_1 -> nobody
        streams_readers/0/stream_reader_2 -> nobody
        subscriptions_reader -> subscriptions_reader
        subscriptions_writer -> subscriptions_writer

        gateway_workers      -> gateway_workers
        gateway_workers/0    -> gateway_workers/0
        pubsub               -> pubsub
    ";
    check_rows(&single(), alone).await;
    check_rows(&cluster(), in_a_cluster).await;
    check_rows(&single(), in_both).await;
    check_rows(&cluster(), in_both).await;
}

#[tokio::test(start_paused = true)]
async fn the_sixth_failure_of_the_store_takes_the_core_along_and_the_fourth_time_the_system() {
    let store = "core_system/store_system/store";
    for tree in [single(), cluster()] {
        let play = Play::start(&tree, 0).await;
        let ends: Vec<_> = tree.started("").into_iter().rev().skip(1).collect();
        let core: Vec<_> = ends.iter().filter(|path| path.starts_with("core_system/")).collect();
        for time in 1..=4 {
            for _ in 0..5 {
                assert_eq!(play.crash(store).await.len(), 3);
            }
            let mut started = play.crash(store).await;
            started.reverse();
            if time < 4 {
                assert_eq!(play.melted(), ["core_system/store_system"]);
                assert_eq!(started.iter().collect::<Vec<_>>(), core, "all three subsystems");
            } else {
                assert_eq!(play.melted(), ["core_system/store_system", "core_system"]);
                assert_eq!(started, ends, "the core and whatever comes after it");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn alone_it_has_fewer_processes_than_in_a_cluster_and_is_there_sooner() {
    let mut figures = Vec::new();
    for tree in [single(), cluster()] {
        let cast = Cast::scripted();
        for (path, _) in tree.walk().iter().filter(|(_, node)| !node.is_supervisor()) {
            let slow = Fault::Slow(Duration::from_millis(10));
            cast.probe.arm(format!("{}/{path}", tree.id), Point::Init, slow, 1);
        }
        let asked = Instant::now();
        let play = Play::of(&tree, cast).await;
        figures.push((play.n_processes().await, asked.elapsed().as_millis()));
    }
    assert_eq!(figures, [(36, 90), (40, 110)]);
}

#[tokio::test(start_paused = true)]
async fn its_bus_is_a_worker_of_its_own_or_somebody_elses_supervisor_or_none() {
    for (modes, n_supervisors, n_workers) in
        [(&["native"][..], 1, 1), (&["external"], 2, 0), (&[], 1, 0)]
    {
        let play = Play::start(&Node::parse(EXESDB, modes), 0).await;
        let count = play.supervisor("gateway_system").await.count_children().await.unwrap();
        assert_eq!((count.supervisors, count.workers), (n_supervisors, n_workers), "{modes:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn several_systems_live_side_by_side() {
    let (orders, bills) = (Play::start(&single(), 1).await, Play::start(&single(), 1).await);
    orders.melt("core_system").await;
    assert_eq!(bills.recorder.take_log(), "");
    assert_eq!(bills.crash("core_system/store_system/store").await.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn it_can_be_looked_at_while_parts_of_it_start_and_stop() {
    let play = Play::start(&single(), 0).await;
    let store = "core_system/store_system/store";
    let saboteur = play.sabotage("core_system/store_system").await;
    play.stage.hold(store);
    for _ in 0..=5 {
        play.crash(&saboteur).await;
    }
    let state = |line: &str, lines: &[String]| lines.contains(&line.to_owned());
    let lines = play.visible().await;
    assert!(state("core_system up", &lines), "{lines:?}");
    assert!(state("core_system/store_system starting", &lines), "{lines:?}");
    assert!(state(&format!("{store} starting"), &lines), "{lines:?}");
    play.stage.release(store);
    quiet().await;
    assert_eq!(play.visible().await.len(), 36);

    play.stage.stubborn(store);
    play.root.begin_shutdown();
    quiet().await;
    let lines = play.visible().await;
    assert!(state("core_system/store_system stopping", &lines), "{lines:?}");
    assert!(state(&format!("{store} stopping"), &lines), "{lines:?}");
    assert!(state("core_system/persistence_system/subscriptions up", &lines), "{lines:?}");
}

// ── X1, X8: who starts first isn't who is ready first ───────────────────────────────────────────

/// A store that takes its time to open.
struct Store;

const OPENING: Duration = Duration::from_secs(3);

impl Service for Store {
    type Args = ();
    type Message = Infallible;

    async fn init((): (), _: &Ctx) -> Result<Init<Self>, Exit> {
        Ok(Init::Ready(Self))
    }

    async fn run(self, mut mailbox: Mailbox<Infallible>, ctx: Ctx) -> Result<(), Exit> {
        if timeout(OPENING, ctx.stopping()).await.is_err() {
            ctx.set_ready(true);
            let _stopped = mailbox.recv().await;
        }
        Ok(())
    }
}

/// Serves when the store is open, and not before.
struct Gateway(Address<Infallible>);

impl Service for Gateway {
    type Args = Address<Infallible>;
    type Message = Reply<Instant>;

    async fn init(store: Address<Infallible>, _: &Ctx) -> Result<Init<Self>, Exit> {
        Ok(Init::Ready(Self(store)))
    }

    async fn run(self, mut mailbox: Mailbox<Reply<Instant>>, ctx: Ctx) -> Result<(), Exit> {
        self.0.child().await_ready(Duration::from_secs(30)).await?;
        ctx.set_ready(true);
        while let Some(reply) = mailbox.recv().await {
            reply.send(Instant::now());
        }
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn leaders_and_gateways_wait_for_the_store_without_failing() {
    let store = Address::new("store", 1);
    let gateway = Address::new("0", 16);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let own = (store.clone(), gateway.clone(), Arc::clone(&seen));
    let cast = Cast::new(move |path| {
        let (store, gateway, seen) = own.clone();
        if path.ends_with("/store") {
            return Some(ChildSpec::service::<Store>(&store, ()).ready_later());
        }
        if path.ends_with("/gateway_workers/0") {
            return Some(ChildSpec::service::<Gateway>(&gateway, store).ready_later());
        }
        path.ends_with("/leader_tracker").then(|| {
            ChildSpec::task("leader_tracker", move |ctx| {
                let (store, seen) = (store.clone(), Arc::clone(&seen));
                async move {
                    store.child().await_ready(Duration::from_secs(30)).await?;
                    seen.lock().unwrap().push(Instant::now());
                    ctx.stopping().await;
                    Ok(())
                }
            })
        })
    });
    let began = Instant::now();
    let seen_at = || -> Vec<u64> {
        seen.lock().unwrap().iter().map(|at| at.duration_since(began).as_secs()).collect()
    };
    let play = Play::of(&single(), cast).await;
    assert_eq!(began.elapsed(), Duration::ZERO, "the tree is up");
    assert!(!store.child().status().is_ready() && !gateway.child().status().is_ready());
    assert_eq!(seen_at(), [0; 0]);
    // Who asks too early is served later, not refused.
    let served = gateway.call(Duration::from_secs(5), |reply| reply).await.unwrap();
    assert_eq!(served.duration_since(began).as_secs(), 3);
    assert_eq!(seen_at(), [3]);

    // And again when the tracker comes back before the store does.
    sleep(Duration::from_mins(1)).await;
    play.recorder.take();
    play.strike("core_system/notification_system/leader_system/leader_tracker").await;
    play.strike("core_system/store_system/store").await;
    play.strike("core_system/notification_system/leader_system/leader_tracker").await;
    sleep(OPENING).await;
    assert_eq!(seen_at(), [3, 63, 66]);
    let log = play.recorder.take_log();
    assert_eq!(log.matches(" exited ").count(), 3, "nobody failed but by our hand: {log}");
}

// ── X6, X7: writers come and go ─────────────────────────────────────────────────────────────────

/// How long a writer waits for another event.
const IDLE: Duration = Duration::from_secs(10);

const WRITERS: &str = "core_system/persistence_system/streams/streams_writers";

type Log = Arc<Mutex<BTreeMap<String, Vec<String>>>>;

/// Writes one stream's events. A version is given when its event is in the log.
struct Writer {
    stream: String,
    log: Log,
}

struct Append(String, Reply<usize>);

impl Service for Writer {
    type Args = (String, Log);
    type Message = Append;

    async fn init((stream, log): Self::Args, _: &Ctx) -> Result<Init<Self>, Exit> {
        Ok(Init::Ready(Self { stream, log }))
    }

    async fn run(self, mut mailbox: Mailbox<Append>, _: Ctx) -> Result<(), Exit> {
        while let Ok(Some(Append(event, reply))) = timeout(IDLE, mailbox.recv()).await {
            let version = {
                let mut log = self.log.lock().unwrap();
                let stream = log.entry(self.stream.clone()).or_default();
                stream.push(event.clone());
                stream.len()
            };
            if event == "poison" {
                return Err(Exit::failed("after the write and before the answer"));
            }
            reply.send(version);
        }
        Ok(())
    }
}

/// The way to the writers, whether they are there or not.
#[derive(Clone, Default)]
struct Streams {
    log: Log,
    writers: Arc<Mutex<BTreeMap<String, Address<Append>>>>,
}

impl Streams {
    fn writer(&self, stream: &str) -> Address<Append> {
        let mut writers = self.writers.lock().unwrap();
        writers.entry(stream.to_owned()).or_insert_with(|| Address::new(stream, 16)).clone()
    }

    async fn start(&self) -> Play {
        let own = self.clone();
        let cast = Cast::new(move |path| {
            let (_partition, stream) = path.strip_prefix(WRITERS)?.rsplit_once('/')?;
            let args = (stream.to_owned(), Arc::clone(&own.log));
            Some(ChildSpec::service::<Writer>(&own.writer(stream), args))
        });
        Play::of(&single(), cast).await
    }

    /// The partition of a stream: the same in every life.
    fn partition(play: &Play, stream: &str) -> String {
        play.cast.partitions(WRITERS).route(&stream).unwrap().clone()
    }

    async fn append(&self, play: &Play, stream: &str, event: &str) -> Result<usize, CallError> {
        let writer = self.writer(stream);
        loop {
            let within = Duration::from_secs(1);
            match writer.call_now(within, |reply| Append(event.to_owned(), reply)).await {
                Err(CallError::Down | CallError::Gone) => {
                    let partition = play.cast.dynamic(&Self::partition(play, stream));
                    match partition.start_child(stream.to_owned()).await {
                        Ok(_) | Err(AdminError::AlreadyStarted) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
                answer => return answer,
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_writer_leaves_after_ten_seconds_and_the_next_append_brings_it_back() {
    let streams = Streams::default();
    let play = streams.start().await;
    let partition = Streams::partition(&play, "orders");
    let is_there = async || play.visible().await.contains(&format!("{partition}/orders up"));
    assert!(!is_there().await);
    assert_eq!(streams.append(&play, "orders", "a").await, Ok(1));
    for version in 2..5 {
        sleep(IDLE.saturating_sub(Duration::from_secs(1))).await;
        assert_eq!(streams.append(&play, "orders", "b").await, Ok(version));
    }
    assert_eq!(streams.writer("orders").child().status().incarnation(), 1, "it was never idle");
    sleep(IDLE.saturating_sub(Duration::from_millis(5))).await;
    assert!(is_there().await);
    sleep(Duration::from_millis(10)).await;
    assert!(!is_there().await);
    sleep(Duration::from_hours(1)).await;
    assert!(!is_there().await, "nobody has restarted it");
    assert!(streams.writer("orders").child().status().is_gone());

    assert_eq!(streams.append(&play, "orders", "c").await, Ok(5));
    assert!(is_there().await);
    assert_eq!(streams.writer("orders").child().status().incarnation(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_writer_that_crashes_loses_no_event_and_troubles_no_other() {
    let streams = Streams::default();
    let play = streams.start().await;
    let own = Streams::partition(&play, "orders");
    // A neighbour in the other partition, and one in the same.
    let name = |same: bool| {
        let mut names = (0..).map(|n| format!("s{n}"));
        names.find(|name| (Streams::partition(&play, name) == own) == same).unwrap()
    };
    let neighbours = [name(true), name(false)];
    for name in &neighbours {
        assert_eq!(streams.append(&play, name, "a").await, Ok(1));
    }
    for n in 0..20 {
        assert_eq!(streams.append(&play, "orders", "fine").await, Ok(2 * n + 1));
        assert_eq!(streams.append(&play, "orders", "poison").await, Err(CallError::Died));
        quiet().await;
    }
    assert_eq!(play.melted(), [""; 0], "a temporary child costs nothing");
    assert_eq!(streams.log.lock().unwrap()["orders"].len(), 40, "all that was written");
    for name in &neighbours {
        assert_eq!(streams.append(&play, name, "b").await, Ok(2));
        assert_eq!(streams.writer(name).child().status().incarnation(), 1);
    }
    // A stream is in the same partition in every life.
    let again = Streams::default().start().await;
    for n in 0..100 {
        let stream = format!("s{n}");
        assert_eq!(Streams::partition(&play, &stream), Streams::partition(&again, &stream));
    }
}
