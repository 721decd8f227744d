//! Cordial Cantina: a trading system, whose store has to be there before anybody else is.

use super::shape::{Play, check_rows, quiet};
use super::table::{Cast, Node};
use astscope_supervision::{
    Address, AdminError, ChildSpec, ChildState, Ctx, DynamicSupervisor, Event, EventKind, Exit,
    Init, Mailbox, NotReady, Observer, Recorder, Service,
};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

/// The document says nothing of stops, so they are OTP's own; and it says "1-2 restarts in 30 s" of
/// the store.
const CORDIAL_CANTINA: &str = "
cordial_cantina              o4o     3/5    -  -
  repo                       worker  -      P  5000
  mnesia_sup                 o4a     2/30   P  inf
    mnesia_server            worker  -      P  5000
  data_sup                   r4o     3/5    P  inf
    offload_scheduler        worker  -      P  5000
    offload_workers          dyn     3/5    P  inf   # drawn as a pool
      *offload_worker        worker  -      T  5000
  rpc_sup                    o4o     3/5    P  inf
    connection_manager       worker  -      P  5000
    rate_limiter             worker  -      P  5000
  market_sup                 r4o     5/60   P  inf
    price_feed               worker  -      P  5000
    order_book_feed          worker  -      P  5000
    signal_aggregator        worker  -      P  5000
  strategy_sup               o4o     2/60   P  inf
    engine                   worker  -      P  5000
    position_manager         worker  -      P  5000
  blockchain_sup             o4o     3/5    P  inf
    transaction_builder      worker  -      P  5000
    transaction_monitor      worker  -      P  5000
  web_telemetry              worker  -      P  5000
  dns_cluster                worker  -      P  5000
  pubsub                     worker  -      P  5000
  finch                      worker  -      P  5000
  web_endpoint               worker  -      P  5000
";

fn tree() -> Node {
    Node::parse(CORDIAL_CANTINA, &[])
}

shape!(cordial_cantina, tree(), &[]);
shape!(cordial_cantina_with_one_restart_of_the_store, tree().with("mnesia_sup", "1/30"));

#[tokio::test(start_paused = true)]
async fn who_is_restarted_with_whom_is_what_the_seed_says() {
    // C1, C2 (whose workers come back when the scheduler asks for them), C3, C5
    let rows = "
        repo                 -> repo
        mnesia_sup           -> mnesia_sup
        data_sup             -> data_sup
        rpc_sup              -> rpc_sup
        market_sup           -> market_sup
        strategy_sup         -> strategy_sup
        blockchain_sup       -> blockchain_sup
        web_telemetry        -> web_telemetry
        dns_cluster          -> dns_cluster
        pubsub               -> pubsub
        finch                -> finch
        web_endpoint         -> web_endpoint
        mnesia_server        -> mnesia_server
        offload_scheduler    -> offload_scheduler offload_workers
        offload_worker_1     -> offload_worker_1
        connection_manager   -> connection_manager
        rate_limiter         -> rate_limiter
        price_feed           -> price_feed order_book_feed signal_aggregator
        order_book_feed      -> order_book_feed signal_aggregator
        signal_aggregator    -> signal_aggregator
        engine               -> engine
        position_manager     -> position_manager
        transaction_builder  -> transaction_builder
        transaction_monitor  -> transaction_monitor
    ";
    check_rows(&tree(), rows).await;
}

#[tokio::test(start_paused = true)]
async fn it_has_18_workers_of_which_12_stand_under_six_supervisors() {
    let play = Play::start(&tree(), 1).await;
    let tree = play.tree.walk();
    let workers: Vec<_> = tree.iter().filter(|(_, node)| !node.is_supervisor()).collect();
    assert_eq!(workers.len(), 18);
    assert_eq!(workers.iter().filter(|(path, _)| path.contains('/')).count(), 12);
    let count = play.root.supervisor().count_children().await.unwrap();
    assert_eq!((count.supervisors, count.workers), (6, 6));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_cannot_be_opened_costs_the_root_one_restart() {
    // C4: two failures are borne. With one, the second is too many.
    for (tolerated, n_failed_inits) in [(2, 2), (1, 1)] {
        let tree = tree().with("mnesia_sup", &format!("{tolerated}/30"));
        let play = Play::start(&tree, 0).await;
        play.stage.fail("mnesia_sup/mnesia_server", n_failed_inits);
        let started = play.crash("mnesia_sup/mnesia_server").await;
        assert_eq!(play.melted(), ["mnesia_sup"]);
        assert_eq!(started, ["mnesia_sup/mnesia_server", "mnesia_sup"], "it opens in the end");
        // The root bears three, of which this was one.
        for _ in 0..2 {
            play.crash("finch").await;
            assert_eq!(play.melted(), [""; 0]);
        }
        play.crash("finch").await;
        assert_eq!(play.melted(), [""]);
    }
}

#[tokio::test(start_paused = true)]
async fn the_third_failure_of_the_strategy_within_a_minute_escalates() {
    let play = Play::start(&tree(), 0).await;
    let (engine, manager) = ("strategy_sup/engine", "strategy_sup/position_manager");
    assert_eq!(play.crash(engine).await, [engine]);
    assert_eq!(play.crash(manager).await, [manager]);
    sleep(Duration::from_secs(61)).await;
    assert_eq!(play.crash(engine).await, [engine]);
    assert_eq!(play.crash(manager).await, [manager]);
    assert_eq!(play.crash(engine).await, [engine, manager, "strategy_sup"]);
    assert_eq!(play.melted(), ["strategy_sup"]);
}

// ── C6: somebody is told ────────────────────────────────────────────────────────────────────────

/// Sends the path of each supervisor that melts down. Never blocks: whoever doesn't listen misses
/// something.
struct Alerts(mpsc::Sender<String>);

impl Observer for Alerts {
    fn observe(&self, event: &Event) {
        if matches!(event.kind, EventKind::Meltdown { .. }) {
            assert!(event.kind.is_report());
            let _full = self.0.try_send(event.path.to_string());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_sixth_failure_of_the_market_within_a_minute_escalates_with_an_alert() {
    let (send, mut alerts) = mpsc::channel(8);
    let cast = Cast::scripted();
    let recorder = Recorder::new();
    let observers: Vec<Arc<dyn Observer>> =
        vec![Arc::new(Alerts(send)), Arc::<Recorder>::clone(&recorder)];
    let spec = tree().spec("", &cast).observer(Arc::new(observers));
    let root = spec.start("cordial_cantina").await.unwrap();
    let play = Play { stage: cast.stage.clone(), cast, recorder, root, tree: tree() };

    let feeds = ["price_feed", "order_book_feed", "signal_aggregator"];
    for feed in feeds.iter().chain(&feeds[..2]) {
        play.crash(&format!("market_sup/{feed}")).await;
    }
    assert!(alerts.try_recv().is_err(), "five are nobody's business");
    let started = play.crash("market_sup/signal_aggregator").await;
    assert_eq!(alerts.try_recv().unwrap(), "cordial_cantina/market_sup");
    assert!(alerts.try_recv().is_err(), "one alert");
    let market = feeds.map(|feed| format!("market_sup/{feed}"));
    assert_eq!(started, [&market[..], &["market_sup".to_owned()]].concat());
}

// ── C7: there before, and ready before, are two things ──────────────────────────────────────────

/// How long a consumer waits for the store.
const PATIENCE: Duration = Duration::from_secs(30);

/// A store that is there at once, and makes its tables then.
struct Store {
    makes_tables_for: Duration,
}

impl Service for Store {
    type Args = Duration;
    type Message = Infallible;

    async fn init(makes_tables_for: Duration, _: &Ctx) -> Result<Init<Self>, Exit> {
        Ok(Init::Ready(Self { makes_tables_for }))
    }

    async fn run(self, mut mailbox: Mailbox<Infallible>, ctx: Ctx) -> Result<(), Exit> {
        tokio::select! {
            () = sleep(self.makes_tables_for) => ctx.set_ready(true),
            () = ctx.stopping() => return Ok(()),
        }
        let _stopped = mailbox.recv().await;
        Ok(())
    }
}

/// The tree with a store, and a feed that needs it and notes when it begins to work.
async fn with_store(
    makes_tables_for: Duration,
) -> (Play, Address<Infallible>, Arc<OnceLock<Instant>>) {
    let store = Address::new("mnesia_server", 1);
    let began = Arc::new(OnceLock::new());
    let own = (store.clone(), Arc::clone(&began));
    let cast = Cast::new(move |path| match path {
        "mnesia_sup/mnesia_server" => {
            Some(ChildSpec::service::<Store>(&own.0, makes_tables_for).ready_later())
        }
        "market_sup/price_feed" => {
            let (store, began) = own.clone();
            Some(ChildSpec::task("price_feed", move |ctx| {
                let (store, began) = (store.clone(), Arc::clone(&began));
                async move {
                    store.child().await_ready(PATIENCE).await?;
                    began.get_or_init(Instant::now);
                    ctx.stopping().await;
                    Ok(())
                }
            }))
        }
        _ => None,
    });
    (Play::of(&tree(), cast).await, store, began)
}

#[tokio::test(start_paused = true)]
async fn a_feed_begins_when_the_store_has_its_tables() {
    let asked = Instant::now();
    let opening = Duration::from_secs(20);
    let (play, store, began) = with_store(opening).await;
    assert_eq!(asked.elapsed(), Duration::ZERO, "the start waits for nobody's tables");
    assert!(store.child().status().is_up() && !store.child().status().is_ready());
    assert!(began.get().is_none());
    sleep(opening + Duration::from_millis(1)).await;
    assert_eq!(began.get().unwrap().duration_since(asked).as_secs(), 20);

    // Whether it is ready can be asked at any time, and is answered at once.
    assert!(store.child().status().is_ready());
    let mnesia = play.supervisor("mnesia_sup").await;
    mnesia.terminate_child("mnesia_server").await.unwrap();
    assert!(!store.child().status().is_ready());
    mnesia.restart_child("mnesia_server").await.unwrap();
    assert!(!store.child().status().is_ready(), "a new incarnation has to say so itself");
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_longer_than_half_a_minute_for_the_store() {
    let (play, store, began) = with_store(Duration::from_hours(1)).await;
    let asked = Instant::now();
    let refusal = store.child().await_ready(PATIENCE).await.unwrap_err();
    assert_eq!(refusal, NotReady { id: "mnesia_server".into(), state: Some(ChildState::Up) });
    assert_eq!(asked.elapsed().as_secs(), 30);
    quiet().await;
    assert!(began.get().is_none());
    let market = play.supervisor("market_sup").await.which_children().await.unwrap();
    let feed = market.last().unwrap();
    assert_eq!(feed.last_exit, Some(Exit::failed("`mnesia_server` is not ready")));
}

// ── C2, C9: a schedule is computed, not kept ────────────────────────────────────────────────────

const INTERVAL: Duration = Duration::from_mins(1);
/// How long an offload takes.
const WORK: Duration = Duration::from_secs(100);

/// What the scheduler and its workers know: when time began, and a database that outlives all.
#[derive(Clone)]
struct Offloads {
    epoch: Instant,
    database: Arc<Mutex<Database>>,
    cast: Arc<OnceLock<Cast>>,
}

impl Offloads {
    fn workers(&self) -> DynamicSupervisor<String> {
        self.cast.get().unwrap().dynamic("data_sup/offload_workers")
    }

    /// How often each offload was begun.
    fn begun(&self) -> Vec<(u64, u32)> {
        self.database.lock().unwrap().begun.clone().into_iter().collect()
    }

    fn n_done(&self) -> usize {
        self.database.lock().unwrap().done.len()
    }

    /// Lets time pass until so many seconds after the beginning.
    async fn until(&self, seconds: u64) {
        sleep_until(self.epoch + Duration::from_secs(seconds)).await;
        quiet().await;
    }
}

#[derive(Default)]
struct Database {
    begun: BTreeMap<u64, u32>,
    /// By key, so that writing the same twice is writing it once.
    done: BTreeMap<u64, String>,
}

/// Starts a worker for each interval that is over and isn't done, now and whenever one is over.
async fn schedule(offloads: Offloads, ctx: Ctx) -> Result<(), Exit> {
    loop {
        let over = offloads.epoch.elapsed().as_secs() / INTERVAL.as_secs();
        for slot in 1..=over {
            let is_done = offloads.database.lock().unwrap().done.contains_key(&slot);
            if is_done {
                continue;
            }
            match offloads.workers().start_child(slot.to_string()).await {
                Ok(_) | Err(AdminError::AlreadyStarted | AdminError::AlreadyPresent) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let next = offloads.epoch + INTERVAL * u32::try_from(over + 1)?;
        tokio::select! {
            () = ctx.stopping() => return Ok(()),
            () = sleep_until(next) => {}
        }
    }
}

async fn offload(offloads: Offloads, slot: u64, ctx: Ctx) -> Result<(), Exit> {
    *offloads.database.lock().unwrap().begun.entry(slot).or_default() += 1;
    tokio::select! {
        () = ctx.stopping() => return Ok(()),
        () = sleep(WORK) => {}
    }
    offloads.database.lock().unwrap().done.insert(slot, format!("rows of {slot}"));
    Ok(())
}

async fn with_offloads() -> (Play, Offloads) {
    let offloads =
        Offloads { epoch: Instant::now(), database: Arc::default(), cast: Arc::default() };
    let own = offloads.clone();
    let cast = Cast::new(move |path| {
        let own = own.clone();
        if path == "data_sup/offload_scheduler" {
            return Some(ChildSpec::task("offload_scheduler", move |ctx| {
                schedule(own.clone(), ctx)
            }));
        }
        let slot = path.strip_prefix("data_sup/offload_workers/")?;
        let number = slot.parse().ok()?;
        Some(ChildSpec::task(slot, move |ctx| offload(own.clone(), number, ctx)))
    });
    offloads.cast.get_or_init(|| cast.clone());
    (Play::of(&tree(), cast).await, offloads)
}

#[tokio::test(start_paused = true)]
async fn a_new_scheduler_starts_every_unfinished_offload_anew() {
    let (play, offloads) = with_offloads().await;
    let scheduler = "data_sup/offload_scheduler";
    offloads.until(130).await;
    assert_eq!(offloads.begun(), [(1, 1), (2, 1)], "both are at work");
    play.recorder.take();
    play.strike(scheduler).await;
    let expected = [
        scheduler,
        "data_sup/offload_workers",
        "data_sup/offload_workers/1",
        "data_sup/offload_workers/2",
    ];
    assert_eq!(play.started(), expected);
    assert_eq!(offloads.begun(), [(1, 2), (2, 2)]);

    // A worker takes nobody along, and when it is done, it is.
    offloads.until(179).await;
    play.recorder.take();
    play.strike("data_sup/offload_workers/1").await;
    assert_eq!(play.started(), ["data_sup/offload_workers/1"]);
    offloads.until(290).await;
    assert_eq!(offloads.begun(), [(1, 3), (2, 2), (3, 1), (4, 1)]);
    assert_eq!(offloads.n_done(), 3);
    let left = play.supervisor("data_sup/offload_workers").await.which_children().await.unwrap();
    assert_eq!(left.iter().map(|child| &*child.id).collect::<Vec<_>>(), ["4"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_overdue_is_offloaded_at_once_and_once() {
    let (play, offloads) = with_offloads().await;
    offloads.until(170).await;
    play.strike("data_sup/offload_scheduler").await;
    assert_eq!(offloads.begun(), [(1, 1), (2, 2)], "the first was done");
    offloads.until(179).await;
    assert_eq!(offloads.begun().len(), 2);
    offloads.until(180).await;
    assert_eq!(offloads.begun().len(), 3, "the schedule is that of the clock, not of the restart");

    let data = play.supervisor("data_sup").await;
    data.terminate_child("offload_scheduler").await.unwrap();
    offloads.until(500).await;
    assert_eq!(offloads.begun().len(), 3);
    data.restart_child("offload_scheduler").await.unwrap();
    quiet().await;
    let overdue = [(4, 1), (5, 1), (6, 1), (7, 1), (8, 1)];
    assert_eq!(offloads.begun()[3..], overdue);
    offloads.until(539).await;
    assert_eq!(offloads.begun()[3..], overdue);
    offloads.until(540).await;
    assert_eq!(offloads.begun().last(), Some(&(9, 1)));
}
