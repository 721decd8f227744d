//! What supervision costs: each figure beside the bare tokio that does the same unsupervised.
//!
//! Expectation, on the back of an envelope: a call is two channel hops either way, and the address
//! adds a look at a watch and the child's select, some hundred nanoseconds on some thousand. A
//! restart is a task's end, a spawn and an acknowledgement with the core in between: a few
//! microseconds on top of the bare three. A dynamic child is a task, a mailbox, a slot and a few
//! tokens: 3 to 4 KiB where a bare task with a channel takes about 1.
//!
//! Prints a line for each figure, tab-separated: what, unit, ours, bare. `cargo xtask bench
//! --supervision` runs this and writes the table.
#![expect(clippy::print_stdout, reason = "its output is the report")]
#![expect(clippy::disallowed_methods, reason = "the bare side is what the lint forbids")]

use astscope_supervision::{
    Address, ChildSpec, Ctx, Event, Exit, Init, Mailbox, Observer, Reply, Root, Service, Strategy,
    SupervisorSpec,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

type Failure = Box<dyn std::error::Error>;

/// Rounds of each figure; ours and bare take turns, and the median counts.
const ROUNDS: usize = 7;
const CALLS: u32 = 50_000;
const RESTARTS: u32 = 2_000;
const STORM_CHILDREN: usize = 100;
const STORM_RESTARTS: u64 = 20_000;
const DYNAMIC_CHILDREN: u32 = 10_000;
/// No wait in here is longer, or something is wrong.
const WITHIN: Duration = Duration::from_mins(1);

/// Asks a fresh copy of this program for one side's memory: what one round has freed, the next one
/// would take again.
const MEMORY: &str = "--memory";

fn main() -> Result<(), Failure> {
    // One thread: two would mostly measure how long it takes to wake the other.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut args = std::env::args().skip(1);
    if args.next().as_deref() == Some(MEMORY) {
        let bytes = match args.next().as_deref() {
            Some("supervised") => runtime.block_on(supervised_children())?.memory,
            _ => runtime.block_on(bare_children())?.memory,
        };
        println!("{bytes}");
        return Ok(());
    }
    runtime.block_on(async {
        figure("call and answer", "ns", supervised_calls, bare_calls).await?;
        figure("crash to the next incarnation's answer", "ns", supervised_restarts, bare_restarts)
            .await?;
        storm().await?;
        dynamic_children().await
    })?;
    let memory = |side: &str| -> Result<f64, Failure> {
        let program = std::env::current_exe()?;
        let output = std::process::Command::new(program).args([MEMORY, side]).output()?;
        Ok(String::from_utf8(output.stdout)?.trim().parse()?)
    };
    let what = "10,000 dynamic children: memory of one";
    print(what, "B", memory("supervised")?, memory("bare")?);
    Ok(())
}

/// Measures both sides in turn and prints the medians.
async fn figure(
    what: &str,
    unit: &str,
    ours: impl AsyncFn() -> Result<f64, Failure>,
    bare: impl AsyncFn() -> Result<f64, Failure>,
) -> Result<(), Failure> {
    let (mut our_samples, mut bare_samples) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        our_samples.push(ours().await?);
        bare_samples.push(bare().await?);
    }
    print(what, unit, median(our_samples), median(bare_samples));
    Ok(())
}

fn print(what: &str, unit: &str, ours: f64, bare: f64) {
    println!("{what}\t{unit}\t{ours:.1}\t{bare:.1}");
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples.get(samples.len() / 2).copied().unwrap_or_default()
}

fn nanos_each(start: Instant, n: u32) -> f64 {
    start.elapsed().as_secs_f64() * 1e9 / f64::from(n)
}

/// Counts events and does nothing else: the figures are of the supervisors, not of a log.
#[derive(Default)]
struct Count(AtomicU64);

impl Observer for Count {
    fn observe(&self, _: &Event) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

enum Message {
    Echo(u64, Reply<u64>),
    Crash,
}

struct Echo;

impl Service for Echo {
    type Args = ();
    type Message = Message;

    async fn init((): (), _: &Ctx) -> Result<Init<Self>, Exit> {
        Ok(Init::Ready(Self))
    }

    async fn run(self, mut mailbox: Mailbox<Message>, _: Ctx) -> Result<(), Exit> {
        while let Some(message) = mailbox.recv().await {
            match message {
                Message::Echo(n, reply) => reply.send(n),
                Message::Crash => return Err(Exit::failed("asked to")),
            }
        }
        Ok(())
    }
}

/// A supervisor that never melts down within a benchmark.
fn patient(strategy: Strategy) -> SupervisorSpec {
    SupervisorSpec::new(strategy).intensity(usize::MAX, Duration::from_secs(1))
}

async fn echo() -> Result<(Root, Address<Message>), Failure> {
    let address = Address::new("echo", 16);
    let root = patient(Strategy::OneForOne)
        .child(ChildSpec::service::<Echo>(&address, ()))
        .observer(Arc::new(Count::default()))
        .start("bench")
        .await?;
    Ok((root, address))
}

async fn supervised_calls() -> Result<f64, Failure> {
    let (root, address) = echo().await?;
    let start = Instant::now();
    for n in 0..CALLS {
        address.call(WITHIN, |reply| Message::Echo(u64::from(n), reply)).await?;
    }
    let each = nanos_each(start, CALLS);
    root.shutdown().await;
    Ok(each)
}

fn bare_echo(mut receiver: mpsc::Receiver<Option<oneshot::Sender<u64>>>) {
    drop(tokio::spawn(async move {
        while let Some(Some(reply)) = receiver.recv().await {
            let _unheard = reply.send(0);
        }
    }));
}

async fn bare_calls() -> Result<f64, Failure> {
    let (sender, receiver) = mpsc::channel(16);
    bare_echo(receiver);
    let start = Instant::now();
    for _ in 0..CALLS {
        let (reply, answer) = oneshot::channel();
        sender.send(Some(reply)).await?;
        tokio::time::timeout(WITHIN, answer).await??;
    }
    Ok(nanos_each(start, CALLS))
}

async fn supervised_restarts() -> Result<f64, Failure> {
    let (root, address) = echo().await?;
    let start = Instant::now();
    for n in 0..RESTARTS {
        address.send(WITHIN, Message::Crash).await?;
        // What is delivered behind the crash dies with the mailbox, so it is sent again.
        while address.call(WITHIN, |reply| Message::Echo(u64::from(n), reply)).await.is_err() {}
    }
    let each = nanos_each(start, RESTARTS);
    root.shutdown().await;
    Ok(each)
}

/// The same by hand: a task ends, whoever spawned it awaits its end and spawns the next.
async fn bare_restarts() -> Result<f64, Failure> {
    let start = Instant::now();
    for _ in 0..RESTARTS {
        let (sender, mut receiver) = mpsc::channel::<Option<oneshot::Sender<u64>>>(16);
        let task = tokio::spawn(async move {
            while let Some(Some(reply)) = receiver.recv().await {
                let _unheard = reply.send(0);
            }
        });
        let (reply, answer) = oneshot::channel();
        sender.send(Some(reply)).await?;
        answer.await?;
        sender.send(None).await?;
        task.await?;
    }
    Ok(nanos_each(start, RESTARTS))
}

/// Children that crash as soon as they are up, all under one supervisor: events a second, beside
/// the bare tasks that a second can see spawned and joined.
async fn storm() -> Result<(), Failure> {
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let count = Arc::new(Count::default());
        let crashing = |n: usize| {
            ChildSpec::task(n.to_string(), |_| async {
                tokio::task::yield_now().await;
                Err(Exit::failed("at once"))
            })
        };
        let root = patient(Strategy::OneForOne)
            .children((0..STORM_CHILDREN).map(crashing))
            .observer(Arc::clone(&count) as Arc<dyn Observer>)
            .start("storm")
            .await?;
        let start = Instant::now();
        let before = count.0.load(Ordering::Relaxed);
        // Two events a restart: it exited, it started.
        let mut seen = before;
        while seen < before + 2 * STORM_RESTARTS {
            tokio::task::yield_now().await;
            seen = count.0.load(Ordering::Relaxed);
        }
        ours.push(per_second(seen - before, start));
        root.kill().await;

        let start = Instant::now();
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..STORM_CHILDREN {
            tasks.spawn(tokio::task::yield_now());
        }
        let mut joined = 0;
        while joined < STORM_RESTARTS && tasks.join_next().await.is_some() {
            tasks.spawn(tokio::task::yield_now());
            joined += 1;
        }
        bare.push(per_second(2 * joined, start));
    }
    print("crash storm: events, beside spawns and joins", "1/s", median(ours), median(bare));
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "a count far below 2^52")]
fn per_second(n: u64, start: Instant) -> f64 {
    n as f64 / start.elapsed().as_secs_f64()
}

/// 10,000 children of a dynamic supervisor, each with a mailbox, beside 10,000 bare tasks with a
/// channel.
async fn dynamic_children() -> Result<(), Failure> {
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(supervised_children().await?);
        bare.push(bare_children().await?);
    }
    let start = |sides: &[Children]| median(sides.iter().map(|side| side.start).collect());
    print("10,000 dynamic children: start of one", "ns", start(&ours), start(&bare));
    let stop = |sides: &[Children]| median(sides.iter().map(|side| side.stop).collect());
    print("10,000 dynamic children: stop of one", "ns", stop(&ours), stop(&bare));
    Ok(())
}

/// What one of many children costs: nanoseconds to start and to stop it, bytes while it lives.
struct Children {
    start: f64,
    stop: f64,
    memory: f64,
}

async fn supervised_children() -> Result<Children, Failure> {
    let root = SupervisorSpec::dynamic(usize::MAX)
        .observer(Arc::new(Count::default()))
        .start("bench")
        .await?;
    let supervisor = root.supervisor().within(WITHIN);
    let before = resident_bytes()?;
    let start = Instant::now();
    for n in 0..DYNAMIC_CHILDREN {
        let address = Address::new(n.to_string(), 16);
        supervisor.start_child(ChildSpec::service::<Echo>(&address, ())).await?;
    }
    let started = nanos_each(start, DYNAMIC_CHILDREN);
    let memory = (resident_bytes()? - before) / f64::from(DYNAMIC_CHILDREN);
    let start = Instant::now();
    root.shutdown().await;
    Ok(Children { start: started, stop: nanos_each(start, DYNAMIC_CHILDREN), memory })
}

async fn bare_children() -> Result<Children, Failure> {
    let before = resident_bytes()?;
    let start = Instant::now();
    let mut children = Vec::new();
    for _ in 0..DYNAMIC_CHILDREN {
        let (sender, mut receiver) = mpsc::channel::<oneshot::Sender<u64>>(16);
        let (acknowledge, acknowledged) = oneshot::channel();
        let task = tokio::spawn(async move {
            let _unheard = acknowledge.send(());
            while let Some(reply) = receiver.recv().await {
                let _unheard = reply.send(0);
            }
        });
        acknowledged.await?;
        children.push((sender, task));
    }
    let started = nanos_each(start, DYNAMIC_CHILDREN);
    let memory = (resident_bytes()? - before) / f64::from(DYNAMIC_CHILDREN);
    let start = Instant::now();
    for (sender, task) in children {
        drop(sender);
        task.await?;
    }
    Ok(Children { start: started, stop: nanos_each(start, DYNAMIC_CHILDREN), memory })
}

/// Resident memory of this process. Linux only; elsewhere 0.
#[expect(clippy::cast_precision_loss, reason = "bytes far below 2^52")]
fn resident_bytes() -> Result<f64, Failure> {
    let Ok(statm) = std::fs::read_to_string("/proc/self/statm") else { return Ok(0.0) };
    let pages: u64 = statm.split_whitespace().nth(1).unwrap_or_default().parse()?;
    Ok((pages * 4096) as f64)
}
