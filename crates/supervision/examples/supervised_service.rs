//! A key-value store that survives its own crashes, from the spec to the shutdown: where to begin
//! with this crate. Ends by itself, or with Ctrl-C:
//!
//! ```text
//! cargo run -p astscope-supervision --example supervised_service
//! ```
#![expect(clippy::print_stdout, reason = "an example talks to who runs it")]

use astscope_supervision::{
    Address, CallError, ChildSpec, Ctx, Event, Exit, Fault, Health, Init, Lease, Mailbox, Observer,
    Point, Probe, Reply, Root, Service, StartError, Stop, Strategy, StreamOptions, SupervisorSpec,
    Table, TaskSupervisor,
};
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// How long a caller is willing to wait, a restart included. Every call has a deadline.
const WITHIN: Duration = Duration::from_millis(500);

type Entries = BTreeMap<String, u64>;

// ── a service ───────────────────────────────────────────────────────────────────────────────────

/// One value of this is one *incarnation*. Whatever it holds is gone with it; what is to survive a
/// crash is in its arguments. Here that is a [`Table`], owned by whoever wrote the tree.
struct Store {
    /// The right to write. Taking it took it from the incarnation before, so one that was given up
    /// and still runs somewhere can't write any more.
    entries: Lease<Entries>,
}

/// What it can be told or asked. A [`Reply`] is where an answer goes.
enum Message {
    Add(String, u64, Reply<u64>),
}

impl Service for Store {
    type Args = Table<Entries>;
    type Message = Message;

    /// The acknowledged start: the next sibling is started when this has returned.
    async fn init(table: Table<Entries>, ctx: &Ctx) -> Result<Init<Self>, Exit> {
        let entries = table.lease();
        let n = entries.snapshot().len();
        println!("    store: incarnation {} finds {n} entries", ctx.incarnation());
        Ok(Init::Ready(Self { entries }))
    }

    /// Runs until it is told to stop, which is when there are no more messages; an error or a
    /// panic ends it as well, and its supervisor starts the next incarnation.
    async fn run(mut self, mut mailbox: Mailbox<Message>, _: Ctx) -> Result<(), Exit> {
        while let Some(Message::Add(key, n, reply)) = mailbox.recv().await {
            // Published whole or not at all: a crash never leaves half a change.
            self.entries.update(|entries| {
                let mut entries = entries.clone();
                *entries.entry(key.clone()).or_default() += n;
                entries
            })?;
            reply.send(self.entries.snapshot().get(&key).copied().unwrap_or_default());
        }
        Ok(())
    }
}

// ── the tree ────────────────────────────────────────────────────────────────────────────────────

/// What the parts of the program are reached by. Made before the tree, valid across all restarts.
struct Handles {
    store: Address<Message>,
    table: Table<Entries>,
    tasks: TaskSupervisor,
    probe: Probe,
}

/// The tree as data. It can be drawn, linted and compared before anything is started.
fn tree(handles: &Handles) -> SupervisorSpec {
    let store = ChildSpec::service::<Store>(&handles.store, handles.table.clone());
    // A worker without a mailbox is a function. This one stands behind the store, and needs it.
    let report = ChildSpec::task("report", |ctx: Ctx| async move {
        ctx.idle(); // it has nothing to do, which is no lack of progress
        ctx.stopping().await;
        Ok(())
    });
    // When the store has crashed, whoever was started after it is started anew as well.
    let data = SupervisorSpec::new(Strategy::RestForOne)
        .intensity(5, Duration::from_secs(10)) // one restart more within 10 s ends `data`
        .child(store.stop(Stop::Within(Duration::from_secs(2))))
        .child(report);
    SupervisorSpec::new(Strategy::OneForOne)
        .child(ChildSpec::supervisor("data", data))
        .child(handles.tasks.spec(SupervisorSpec::dynamic(100)))
        .probe(handles.probe.clone())
        .observer(Arc::new(Printer))
}

/// Sees all that happens. By default it goes to `tracing`.
struct Printer;

impl Observer for Printer {
    fn observe(&self, event: &Event) {
        if event.kind.is_report() {
            println!("    event: {} {}", event.path, event.kind);
        }
    }
}

// ── who uses it ─────────────────────────────────────────────────────────────────────────────────

/// Adds to a key, whatever happens meanwhile.
async fn add(store: &Address<Message>, key: &str, n: u64) -> Result<u64, CallError> {
    // While the store restarts, this waits for its next incarnation, until the deadline. It never
    // reaches an old one. What it can't do is hide that a request was lost on the way: `Died` means
    // that it was delivered and may have taken effect, which only the caller can decide about.
    store.call(WITHIN, |reply| Message::Add(key.to_owned(), n, reply)).await
}

async fn steps(handles: &Handles, root: &Root) -> Result<(), Exit> {
    let Handles { store, table, tasks, probe } = handles;
    println!("1. a client calls");
    println!("    apples: {}", add(store, "apples", 3).await?);

    println!("2. the store panics, and takes 50 ms to come back");
    probe.arm("store", Point::Init, Fault::Slow(Duration::from_millis(50)), 1);
    let mut crash = store.child().monitor();
    probe.arm("store", Point::Run, Fault::Panic, 1);
    println!("    a monitor: it ended, {}", crash.down().await);
    let at_once = store.call_now(WITHIN, |reply| Message::Add("pears".to_owned(), 1, reply));
    println!("    a client that doesn't wait: {:?}", at_once.await);
    println!("    a client that waits: apples: {}", add(store, "apples", 4).await?);

    println!("3. tasks do the rest, four at a time, while it crashes again");
    let own = store.clone();
    let options = StreamOptions { max_concurrency: 4, ..StreamOptions::default() };
    let mut results = tasks.stream(0..20_u64, options, move |n| {
        let store = own.clone();
        async move { add(&store, "pears", n).await }
    });
    let (mut n_done, mut n_lost) = (0, 0);
    while let Some(result) = results.next().await {
        match result {
            Ok(Ok(_)) => n_done += 1,
            Ok(Err(_)) | Err(_) => n_lost += 1,
        }
        if n_done == 5 {
            probe.arm("store", Point::Run, Fault::Error, 1);
        }
    }
    println!("    {n_done} done, {n_lost} unanswered");

    println!("4. what is left");
    println!(
        "    the table, generation {}: {:?}",
        table.snapshot().generation(),
        *table.snapshot()
    );
    let health = Health::new().watch_critical(store.child(), Duration::from_secs(5)).check();
    println!("    health: {:?}", health.status);
    print!("{}", root.supervisor().tree().await);
    Ok(())
}

#[tokio::main]
async fn main() -> Result<ExitCode, StartError> {
    let handles = Handles {
        store: Address::new("store", 16), // at most 16 messages wait; who comes then waits too
        table: Table::new("entries", Entries::new()),
        tasks: TaskSupervisor::new("tasks"),
        probe: Probe::new(),
    };
    let spec = tree(&handles);
    for finding in spec.lint("shop") {
        println!("lint: {finding}");
    }
    let root = spec.start("shop").await?; // children are up when this returns
    tokio::select! {
        result = steps(&handles, &root) => if let Err(exit) = result {
            println!("gave up: {exit}");
        },
        _ = tokio::signal::ctrl_c() => println!("interrupted"),
        // Nobody restarts a root: when it has melted down, the process ends, with a code that says
        // so, and whoever supervises the process decides.
        outcome = root.wait() => println!("the tree ended by itself: {}", outcome.exit),
    }
    // The last started is stopped first; each has its time.
    let outcome = root.shutdown().await;
    println!("5. stopped: {}, {} unkillable", outcome.exit, outcome.unkillable);
    let in_order = outcome.exit == Exit::Shutdown && outcome.unkillable == 0;
    Ok(if in_order { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
